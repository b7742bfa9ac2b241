//! A transport that never answers: whoever called is answered in time all the same.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::never::{Never, Pending};
use super::{QUEUE, declare, four, kind, soon, to, until};
use crate::adapt::{BlockOn, CLOSE, GRACE, Guarded, lock};
use crate::blocking::{Client, Consumer, Server, Transport};
use crate::proto::client::Request;
use crate::{
    AckToken, CallOptions, Certainty, ClientOptions, Code, ErrorKind, Fate, Message, QueueSpec,
    Router, ServerOptions, ShortString, TransportError,
};

/// The limit of a verb, and of a call.
const LIMIT: Duration = Duration::from_millis(200);

/// How late anything may be: a tenth of a second, and the rest for a busy machine.
const LATE: Duration = Duration::from_millis(400);

const VERBS: [&str; 6] = ["declare", "publish", "consume", "ack", "reject", "cancel"];

/// Does `work`, which may take so long.
#[track_caller]
fn within<R>(limit: Duration, what: &str, work: impl FnOnce() -> R) -> R {
    let begun = Instant::now();
    let result = work();
    let took = begun.elapsed();
    assert!(took <= limit + LATE, "{what} took {took:?}");
    result
}

/// All verbs at once, so that the waits are one.
fn at_each_verb(test: fn(&'static str)) {
    thread::scope(|scope| {
        for verb in VERBS.into_iter().chain(["close"]) {
            scope.spawn(move || test(verb));
        }
    });
}

fn guarded(at: &'static str) -> Guarded<Never> {
    Guarded::with_limit(Never::at(at), LIMIT).unwrap()
}

fn do_verb(
    transport: &impl Transport,
    verb: &str,
    consumer: &dyn Consumer,
) -> Result<(), TransportError> {
    match verb {
        "declare" => transport.declare(&declare("q")),
        "publish" => transport
            .publish(&to("q"), Message::new("x"), Instant::now() + LIMIT)
            .map(drop),
        "consume" => transport.consume(four()).map(drop),
        "ack" => transport.ack(AckToken::new(consumer.id(), 1)),
        "reject" => transport.reject(AckToken::new(consumer.id(), 1), Fate::Requeue),
        "cancel" => transport.cancel(consumer.id()),
        _ => transport.close(),
    }
}

/// The bound of each verb.
fn limit(verb: &str) -> Duration {
    match verb {
        // It waits for the consumer to let go, besides.
        "cancel" => LIMIT + GRACE,
        "close" => CLOSE,
        _ => LIMIT,
    }
}

#[test]
fn every_verb_of_a_guarded_transport_returns_in_time_and_so_do_close_and_drop() {
    at_each_verb(|verb| {
        let guarded = guarded(verb);
        let spare = Guarded::new(Never::at("")).unwrap();
        let consumer = match verb {
            "consume" => spare.consume(four()),
            _ => guarded.consume(four()),
        };
        let consumer = consumer.unwrap();
        let done = within(limit(verb), verb, || do_verb(&guarded, verb, &*consumer));
        if verb != "close" {
            let error = done.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout, "{verb}: {error}");
            assert_eq!(error.certainty(), Certainty::MaybeExecuted, "{verb}");
        }
        within(CLOSE, "close", || guarded.close()).unwrap();
        within(Duration::ZERO, "drop", || drop((guarded, consumer)));
    });
}

#[test]
fn a_guarded_transport_that_does_not_answer_is_given_up_with_a_cause() {
    for verb in ["declare", "ack", "reject"] {
        let guarded = guarded(verb);
        let mut consumer = guarded.consume(four()).unwrap();
        let done = do_verb(&guarded, verb, &*consumer);
        assert_eq!(kind(done), Some(ErrorKind::Timeout));
        let cause = consumer.recv().unwrap_err();
        assert_eq!(cause.kind(), ErrorKind::Closed);
        assert!(cause.to_string().contains(verb), "{cause}");
        assert!(consumer.recv().unwrap().is_none());
        let late = guarded.publish(&to("q"), Message::new("x"), soon());
        let error = late.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert_eq!(error.certainty(), Certainty::NotExecuted, "{error}");
        within(Duration::ZERO, "drop", || drop((guarded, consumer)));
    }
}

#[test]
fn a_publish_behind_one_that_hangs_is_not_sent() {
    let guarded = guarded("publish");
    thread::scope(|scope| {
        let publish = || {
            let deadline = Instant::now() + LIMIT;
            let published = guarded.publish(&to("q"), Message::new("x"), deadline);
            published.unwrap_err().certainty()
        };
        let both = [scope.spawn(publish), scope.spawn(publish)];
        let mut both = both.map(|one| one.join().unwrap());
        both.sort_by_key(|certainty| *certainty == Certainty::MaybeExecuted);
        assert_eq!(both, [Certainty::NotExecuted, Certainty::MaybeExecuted]);
    });
}

#[test]
fn a_publish_that_hangs_ends_by_its_deadline_also_while_the_transport_is_closed() {
    let guarded = guarded("publish");
    thread::scope(|scope| {
        let publish = scope.spawn(|| {
            within(LIMIT, "a publish", || {
                guarded.publish(&to("q"), Message::new("x"), Instant::now() + LIMIT)
            })
        });
        let holds = || guarded.inner().holds.load(Ordering::SeqCst);
        until("it hangs", holds);
        // It waits for the thread that hangs, and the publish must not wait with it.
        within(CLOSE, "close", || guarded.close()).unwrap();
        let error = publish.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert_eq!(error.certainty(), Certainty::MaybeExecuted, "{error}");
    });
}

#[test]
fn every_verb_of_an_async_transport_behind_the_blocking_face_returns_in_time() {
    at_each_verb(|verb| {
        let connect = || async { Ok(Pending::at(verb)) };
        let blocked = BlockOn::with_runtime(connect).unwrap().with_limit(LIMIT);
        let spare = Guarded::new(Never::at("")).unwrap();
        let consumer = match verb {
            "consume" => spare.consume(four()),
            _ => blocked.consume(four()),
        };
        let consumer = consumer.unwrap();
        let done = within(limit(verb), verb, || do_verb(&blocked, verb, &*consumer));
        if verb != "close" {
            assert_eq!(kind(done), Some(ErrorKind::Timeout), "{verb}");
        }
        within(CLOSE, "close", || blocked.close()).unwrap();
        within(LATE, "drop", || drop((blocked, consumer)));
    });
}

fn request() -> Request {
    Request {
        body: "x".into(),
        content_type: Some(crate::proto::wire::TEXT),
        method: Some(ShortString::from_static("echo")),
        ..Request::default()
    }
}

fn echo() -> Router {
    Router::new().handle("echo", |text: String| Ok(text))
}

#[test]
fn calls_closes_and_drops_of_a_blocking_client_end_in_time_whatever_hangs() {
    at_each_verb(|verb| {
        let begun = within(LIMIT, "the client", || {
            Client::new(guarded(verb), ClientOptions::new(QUEUE))
        });
        let Ok(client) = begun else {
            assert_eq!(verb, "consume", "there is no client without an inbox");
            return;
        };
        let error = within(LIMIT, "a call", || {
            client.call_raw(CallOptions::timeout(LIMIT), request())
        });
        // Nobody answers it.
        assert_eq!(error.unwrap_err().code(), Code::DeadlineExceeded, "{verb}");
        assert_eq!(client.in_flight(), 0);
        within(Duration::from_secs(1), "close", || client.close());
        within(Duration::ZERO, "drop", || drop(client));
    });
}

#[test]
fn a_blocking_server_drains_and_drops_in_time_whatever_hangs() {
    at_each_verb(|verb| {
        let options = ServerOptions::new(QueueSpec::durable(QUEUE));
        let begun = within(LIMIT * 2, "the server", || {
            Server::start(guarded(verb), echo(), options)
        });
        if let Ok(server) = begun {
            within(LIMIT, "a drain", || server.drain(LIMIT));
        } else {
            assert!(["declare", "consume"].contains(&verb), "{verb}");
        }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_closes_and_drops_of_an_async_client_end_in_time_whatever_never_resolves() {
    for verb in ["publish", "ack", "reject", "cancel", "close"] {
        let client = crate::Client::new(Pending::at(verb), ClientOptions::new(QUEUE));
        let client = client.await.unwrap();
        let begun = Instant::now();
        let called = client
            .call_raw(CallOptions::timeout(LIMIT), request())
            .await;
        let took = begun.elapsed();
        assert!(took <= LIMIT + LATE, "{verb}: a call took {took:?}");
        assert_eq!(called.unwrap_err().code(), Code::DeadlineExceeded, "{verb}");
        let begun = Instant::now();
        client.close().await;
        let took = begun.elapsed();
        assert!(took <= Duration::from_secs(1) + LATE, "{verb}: {took:?}");
        within(Duration::ZERO, "drop", || drop(client));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_async_server_drains_in_time_whatever_never_resolves() {
    for verb in ["publish", "ack", "reject", "cancel", "close"] {
        let transport = Pending::at(verb);
        let mut options = ServerOptions::new(QueueSpec::durable(QUEUE));
        // One consumer, so that it is plain where the request goes.
        options.notices = false;
        let server = crate::Server::start(transport.clone(), echo(), options);
        let server = server.await.unwrap();
        let consumer = *lock(&transport.script.inner().feeds).keys().next().unwrap();
        transport.script.inner().deliver(consumer, 0..1);
        until("it has the request", || server.stats().received == 1);
        let begun = Instant::now();
        server.drain(LIMIT).await;
        let took = begun.elapsed();
        assert!(took <= LIMIT + LATE, "{verb}: a drain took {took:?}");
    }
}

#[test]
fn a_wait_for_a_delivery_has_no_limit_and_ends_with_the_guard() {
    let guarded = guarded("");
    let mut consumer = guarded.consume(four()).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| consumer.recv());
        guarded.close().unwrap();
        assert!(waiting.join().unwrap().unwrap().is_none());
    });
}
