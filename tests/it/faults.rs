//! What goes wrong between us and the broker: each fault a typed error, in time, with no secret.

use std::error::Error;
use std::net::TcpListener;
use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fault_proxy::{Direction, End, Proxy};
use rpc_core::proto::client::Request;
use rpc_core::{
    CallError, CallOptions, Certainty, ClientOptions, Code, ConsumeOptions, ErrorKind, QueueKind,
    QueueSpec, Reason, Router, ServerOptions, ShortString, TransportError,
};
use transport_conformance::{Backend, Caller, Connection, Serving};

use crate::{broker, rows};

/// A password that must be seen nowhere.
const CANARY: &str = "c4n4ry-p4ssw0rd";

/// Asserts that nothing of an error gives the password away.
#[track_caller]
fn assert_discreet(error: &TransportError) {
    let mut said = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        said += &format!(" {cause} {cause:?}");
        source = cause.source();
    }
    assert!(!said.contains(CANARY), "the password shows");
}

/// Connects with each row, all at once, and asserts how that fails.
fn connecting_fails(url: &str, within: Duration, expected: &[ErrorKind]) {
    thread::scope(|scope| {
        for (name, row) in rows::on_rabbitmq(url) {
            scope.spawn(move || {
                let begun = Instant::now();
                let Err(error) = row.connect() else {
                    panic!("{name} connected");
                };
                let took = begun.elapsed();
                assert!(took < within, "{name} took {took:?}");
                assert!(expected.contains(&error.kind()), "{name}: {error:?}");
                assert_discreet(&error);
            });
        }
    });
}

fn at(address: std::net::SocketAddr) -> String {
    format!("amqp://guest:{CANARY}@{address}")
}

#[test]
fn a_refused_connection_is_an_error_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    connecting_fails(&at(address), Duration::from_secs(5), &[ErrorKind::Connect]);
}

#[test]
fn a_silent_peer_is_an_error_within_ten_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Accepts, and says nothing until the test has ended.
    thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    let within = Duration::from_secs(10);
    connecting_fails(
        &at(address),
        within,
        &[ErrorKind::Connect, ErrorKind::Timeout],
    );
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_wrong_password_is_unauthenticated() {
    let mut url = url::Url::parse(&broker::url()).unwrap();
    url.set_password(Some(CANARY)).unwrap();
    let within = Duration::from_secs(5);
    connecting_fails(url.as_str(), within, &[ErrorKind::Unauthenticated]);
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_missing_virtual_host_is_denied() {
    let mut url = url::Url::parse(&broker::url()).unwrap();
    url.set_path("no-such-virtual-host");
    let within = Duration::from_secs(5);
    connecting_fails(url.as_str(), within, &[ErrorKind::Denied]);
}

/// A user who may use queues that begin with `own-`, on a broker where we may make one.
#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn what_is_not_permitted_is_denied_and_costs_nothing() {
    let node = rabbitmq_node::Node::builder().start().unwrap();
    node.ctl(&["add_user", "limited", CANARY]).unwrap();
    let own = "^own-";
    node.ctl(&["set_permissions", "limited", own, ".*", own])
        .unwrap();
    node.ctl(&["add_user", "locked-out", CANARY]).unwrap();
    let as_user = |user| {
        let mut url = url::Url::parse(&node.url()).unwrap();
        url.set_username(user).unwrap();
        url.set_password(Some(CANARY)).unwrap();
        String::from(url)
    };

    let within = Duration::from_secs(5);
    connecting_fails(&as_user("locked-out"), within, &[ErrorKind::Denied]);
    let url = as_user("limited");
    for (name, row) in rows::on_rabbitmq(&url) {
        let connection = row.connect().unwrap();
        let declare = |queue: &str, kind| {
            let queue = ShortString::new(queue).unwrap();
            connection.declare(&QueueSpec::new(queue, kind))
        };
        let consume = |queue: &str| {
            let queue = ShortString::new(queue).unwrap();
            connection.consume(ConsumeOptions::queue(queue, NonZeroU16::MIN))
        };
        let refused = |outcome: Result<(), TransportError>, kind| {
            let error = outcome.expect_err("it is not permitted");
            assert_eq!(error.kind(), kind, "{name}: {error:?}");
            assert_discreet(&error);
        };
        let begun = Instant::now();
        let own = format!("own-{}", broker::queue("limited"));
        refused(declare("others", QueueKind::Durable), ErrorKind::Denied);
        refused(consume("others").map(drop), ErrorKind::Denied);
        declare(&own, QueueKind::Durable).unwrap();
        refused(declare(&own, QueueKind::Quorum), ErrorKind::Conflict);
        consume(&own).unwrap();
        assert!(begun.elapsed() < within, "{name}: {:?}", begun.elapsed());
    }
}

/// A service whose handlers wait for ever, almost, and a client of it behind a proxy.
struct Scene {
    proxy: Proxy,
    client: Arc<dyn Caller>,
    connection: Box<dyn Connection>,
    server: Box<dyn Serving>,
    _direct: Box<dyn Connection>,
    _rows: [Box<dyn Backend>; 2],
    /// Dropped, the handlers answer.
    _hold: std::sync::mpsc::Sender<()>,
}

impl Scene {
    fn set<R: Backend + 'static>(row: impl Fn(&str) -> R) -> Self {
        let url = broker::url();
        let (proxy, faulty_url) = broker::proxied(&url);
        let (direct_row, faulty_row) = (row(&url), row(&faulty_url));
        let direct = direct_row.connect().unwrap();
        let connection = faulty_row.connect().unwrap();
        let queue = broker::queue("faults");
        let spec = QueueSpec::new(queue.clone(), QueueKind::Durable);
        let (hold, held) = std::sync::mpsc::channel::<()>();
        let held = std::sync::Mutex::new(held);
        let router = Router::new()
            .handle("echo", |text: String| Ok(text))
            .handle_blocking("wait", move |text: String| {
                let held = held.lock().unwrap();
                let _ = held.recv_timeout(Duration::from_secs(20));
                Ok(text)
            });
        // As many handlers as calls, so that each call is in its handler when the fault comes.
        let options = ServerOptions::new(spec).with_concurrency(NonZeroUsize::new(4).unwrap());
        let server = direct.serve(Arc::new(router), options).unwrap();
        let client = connection.client(ClientOptions::new(queue)).unwrap();
        client
            .call(CallOptions::default(), request("echo"))
            .expect("all is well before the fault");
        Self {
            proxy,
            client,
            connection,
            server,
            _direct: direct,
            _rows: [Box::new(direct_row), Box::new(faulty_row)],
            _hold: hold,
        }
    }

    /// Waits until the server has this many requests.
    fn expect(&self, received: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.server.stats().received < received {
            assert!(Instant::now() < deadline, "the requests do not arrive");
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn closes_in_time(&self) {
        let begun = Instant::now();
        self.connection.close().expect("a lost one is closed");
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "closing took {took:?}");
    }

    fn next_call(&self) -> CallError {
        let late = CallOptions::timeout(Duration::from_secs(1));
        self.client
            .call(late, request("echo"))
            .expect_err("there is no connection")
    }
}

fn request(method: &str) -> Request {
    Request {
        body: "hello".into(),
        content_type: Some(rpc_core::proto::wire::TEXT),
        method: Some(ShortString::new(method).unwrap()),
        ..Request::default()
    }
}

fn a_cut_ends_open_calls_at_once<R: Backend + 'static>(row: impl Fn(&str) -> R) {
    let scene = Scene::set(row);
    let calls = [(); 3].map(|()| scene.client.begin(CallOptions::default(), request("wait")));
    scene.expect(4);
    let cut = Instant::now();
    scene.proxy.end_all(End::Cut);
    for mut call in calls {
        let ended = call.end_within(Duration::from_secs(1));
        let error = ended
            .expect("a call ends within a second of the cut")
            .expect_err("its reply cannot come");
        assert_eq!(error.reason(), Reason::ConnectionLost, "{error:?}");
        assert_eq!(error.certainty(), Certainty::MaybeExecuted);
        assert_eq!(error.code(), Code::Unavailable);
        assert!(matches!(error, CallError::ConnectionLost(_)), "{error:?}");
    }
    assert!(
        cut.elapsed() < Duration::from_secs(1),
        "{:?}",
        cut.elapsed()
    );
    assert_eq!(scene.client.in_flight(), 0);
    let error = scene.next_call();
    assert_eq!(error.reason(), Reason::NotSent, "{error:?}");
    assert_eq!(error.certainty(), Certainty::NotExecuted);
    scene.closes_in_time();
}

/// Nothing tells a frozen peer from a slow one until the heartbeat; the deadline does not wait.
fn a_freeze_ends_calls_at_their_deadline<R: Backend + 'static>(row: impl Fn(&str) -> R) {
    let scene = Scene::set(row);
    let limit = Duration::from_secs(1);
    let mut sent = scene
        .client
        .begin(CallOptions::timeout(limit), request("wait"));
    scene.expect(2);
    for direction in Direction::BOTH {
        scene.proxy.pause(direction);
    }
    let begun = Instant::now();
    let error = scene.next_call();
    let took = begun.elapsed();
    assert!(took < limit * 2, "it took {took:?}");
    for error in [error, sent.end_within(limit).unwrap().unwrap_err()] {
        assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
        assert_eq!(error.certainty(), Certainty::MaybeExecuted);
    }
    assert_eq!(scene.client.in_flight(), 0);
    scene.closes_in_time();
}

macro_rules! on_each_row {
    ($($fault:ident,)+) => {
        $(mod $fault {
            on_each_row!(@ $fault: lapin, blocked_on_lapin, amiquip, offloaded_amiquip,);
        })+
    };
    (@ $fault:ident: $($row:ident,)+) => {
        $(#[test]
        #[ignore = "needs RabbitMQ: run cargo xtask test"]
        fn $row() {
            super::$fault(crate::rows::$row);
        })+
    };
}

on_each_row! {
    a_cut_ends_open_calls_at_once,
    a_freeze_ends_calls_at_their_deadline,
}
