//! Users who may not publish: every face is told so at once, and no request is lost over it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rabbitmq_node::Node;
use rpc_core::proto::client::Request;
use rpc_core::proto::link::Backoff;
use rpc_core::{
    Address, CallError, CallOptions, Certainty, ClientOptions, Code, ErrorKind, LinkState, Message,
    QueueKind, QueueSpec, Router, Server, ServerOptions, ShortString, TransportError, blocking,
};
use transport_amiquip::AmiquipConnector;
use transport_conformance::Connection;
use transport_lapin::LapinConnector;

use crate::{broker, rows};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A broker with a user who may do all but write.
struct Scene {
    node: Node,
    /// That user's.
    url: String,
}

impl Scene {
    fn set() -> Self {
        let node = Node::builder().start().unwrap();
        node.ctl(&["add_user", "reader", "secret"]).unwrap();
        let mut url = url::Url::parse(&node.url()).unwrap();
        url.set_username("reader").unwrap();
        url.set_password(Some("secret")).unwrap();
        let scene = Self {
            node,
            url: url.into(),
        };
        scene.may_write("^$");
        scene
    }

    fn may_write(&self, what: &str) {
        let permissions = ["set_permissions", "reader", ".*", what, ".*"];
        self.node.ctl(&permissions).unwrap();
    }
}

/// The broker's own words are the operator's only hint.
#[track_caller]
fn assert_denied(name: &str, error: &TransportError) {
    assert_eq!(error.kind(), ErrorKind::Denied, "{name}: {error:?}");
    let words = format!("{:#}", anyhow::Error::from(error.clone()));
    let said = words.matches("ACCESS_REFUSED").count();
    assert_eq!(said, 1, "{name}: {words}");
    assert!(words.contains("'amq.default'"), "{name}: {words}");
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_publish_that_is_not_permitted_is_denied_and_so_is_what_comes_after_it() {
    let scene = Scene::set();
    for (name, row) in rows::on_rabbitmq(&scene.url) {
        let connection = row.connect().unwrap();
        let to = Address::queue(broker::queue("denied"));
        let publish = || {
            let deadline = Instant::now() + PATIENCE;
            let confirm = connection.publish(&to, Message::new("x"), deadline)?;
            connection.verdict(confirm, PATIENCE)
        };
        assert_denied(name, &publish().unwrap_err());
        // The transport has ended of it.
        let error = publish().unwrap_err();
        assert_denied(name, &error);
        assert_eq!(error.certainty(), Certainty::NotExecuted, "{name}");
    }
}

#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_client_that_may_not_publish_is_denied_and_not_disconnected() {
    let scene = Scene::set();
    for (name, row) in rows::on_rabbitmq(&scene.url) {
        let linked = row.keep_connected(ClientOptions::new(broker::queue("denied")));
        let deadline = Instant::now() + PATIENCE;
        let cause = loop {
            match linked.state() {
                LinkState::Connecting {
                    cause: Some(cause), ..
                } => break cause,
                LinkState::Up(_) => panic!("{name}: it may not so much as check itself"),
                _ => assert!(Instant::now() < deadline, "{name}: no failure"),
            }
            thread::sleep(Duration::from_millis(5));
        };
        assert_denied(name, &cause);
        let call = linked
            .caller()
            .call(CallOptions::timeout(PATIENCE), Request::default());
        let error = call.expect_err("there is no connection");
        assert!(
            matches!(error, CallError::BrokerDown(_)),
            "{name}: {error:?}"
        );
        assert_eq!(error.code(), Code::PermissionDenied, "{name}: {error:?}");
        assert_eq!(error.certainty(), Certainty::NotExecuted, "{name}");
        assert!(Instant::now() < deadline, "{name}: it took its time");
    }
}

type Runs = Arc<Mutex<HashMap<String, u32>>>;

/// Counts how often each request runs.
fn service(runs: &Runs) -> Router {
    let runs = Arc::clone(runs);
    Router::new().handle("echo", move |text: String| {
        *runs.lock().unwrap().entry(text.clone()).or_default() += 1;
        Ok(text)
    })
}

/// A server that makes its own connections, on either face.
enum Worker {
    Async {
        server: Server<transport_lapin::LapinTransport, Router>,
        /// The server lives on it.
        _runtime: tokio::runtime::Runtime,
    },
    Blocking(blocking::Server<transport_amiquip::AmiquipTransport, Router>),
}

impl Worker {
    fn on_lapin(url: &str, service: Router, options: ServerOptions) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let entered = runtime.enter();
        let url: transport_lapin::AmqpUrl = url.parse().unwrap();
        let server = Server::connect(LapinConnector::new(url), service, options);
        drop(entered);
        Self::Async {
            server,
            _runtime: runtime,
        }
    }

    fn on_amiquip(url: &str, service: Router, options: ServerOptions) -> Self {
        let url: transport_amiquip::AmqpUrl = url.parse().unwrap();
        let connector = AmiquipConnector::new(url);
        Self::Blocking(blocking::Server::connect(connector, service, options))
    }

    fn state(&self) -> LinkState {
        match self {
            Self::Async { server, .. } => server.link_state(),
            Self::Blocking(server) => server.link_state(),
        }
    }

    fn stats(&self) -> rpc_core::proto::server::Stats {
        match self {
            Self::Async { server, .. } => server.stats(),
            Self::Blocking(server) => server.stats(),
        }
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the link stays down for want of a permission, after so many attempts.
fn is_denied(state: &LinkState, attempts: u32) -> bool {
    matches!(
        state,
        LinkState::Connecting { failed, cause: Some(cause) }
            if *failed >= attempts && cause.kind() == ErrorKind::Denied
    )
}

fn no_request_is_lost(start: fn(&str, Router, ServerOptions) -> Worker) {
    const REQUESTS: u32 = 20;
    let scene = Scene::set();
    let admin = rows::lapin(&scene.node.url());
    let admin: Box<dyn Connection> = transport_conformance::Backend::connect(&admin).unwrap();
    let queue = broker::queue("mute");
    let spec = QueueSpec::new(queue.clone(), QueueKind::Durable);
    admin.declare(&spec).unwrap();
    let client = admin.client(ClientOptions::new(queue)).unwrap();
    let mut calls: Vec<_> = (0..REQUESTS)
        .map(|number| {
            let request = Request {
                body: number.to_string().into(),
                content_type: Some(rpc_core::proto::wire::TEXT),
                method: Some(ShortString::from_static("echo")),
                ..Request::default()
            };
            client.begin(CallOptions::timeout(PATIENCE * 2), request)
        })
        .collect();

    let runs = Runs::default();
    let mut backoff = Backoff::default();
    backoff.longest_refused = Duration::from_millis(200);
    let options = ServerOptions::new(spec).with_backoff(backoff);
    let worker = start(&scene.url, service(&runs), options);
    // It has tried again and again, and has run nothing while it did.
    eventually("the link says what is wrong", || {
        is_denied(&worker.state(), 2)
    });
    let ran = runs.lock().unwrap().clone();
    assert!(!ran.is_empty(), "it runs what it cannot answer, once");
    eventually("it goes on trying", || is_denied(&worker.state(), 5));
    assert_eq!(*runs.lock().unwrap(), ran, "and takes no more");
    assert!(ran.values().all(|&times| times == 1), "{ran:?}");
    assert_eq!(worker.stats().undeliverable, 0);

    scene.may_write(".*");
    for call in &mut calls {
        let answer = call.end_within(PATIENCE).expect("it ends");
        answer.expect("it is answered");
    }
    let ran = runs.lock().unwrap();
    assert_eq!(ran.len(), REQUESTS as usize);
    assert!(ran.values().all(|&times| times <= 2), "{ran:?}");
    assert!(matches!(worker.state(), LinkState::Up(_)));
}

mod a_worker_that_may_not_publish_keeps_its_requests_until_it_may {
    use super::Worker;

    #[test]
    #[ignore = "needs RabbitMQ: run cargo xtask test"]
    fn on_lapin() {
        super::no_request_is_lost(Worker::on_lapin);
    }

    #[test]
    #[ignore = "needs RabbitMQ: run cargo xtask test"]
    fn on_amiquip() {
        super::no_request_is_lost(Worker::on_amiquip);
    }
}
