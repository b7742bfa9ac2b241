//! Calls: the right answer to the right caller, in the encoding that was asked for.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use rpc_core::codec::{Bincode, Json, Text};
use rpc_core::proto::server::{Request, Response};
use rpc_core::proto::wire;
use rpc_core::{CallOptions, ClientOptions, Message, Router, Service, ShortString, Work};

use crate::backend::Backend;
use crate::steps::{SOON, echo, eventually, replied, request, short};

pub(super) fn every_codec_makes_the_round_trip(backend: &dyn Backend) {
    let double = Router::new().handle("double", |number: u64| Ok(number * 2));
    let served = backend.with_service(double);
    let options = ClientOptions::new(served.queue.clone()).with_timeout(SOON);
    for options in [
        options.clone().with_codec(Text),
        options.clone().with_codec(Json),
        options.with_codec(Bincode::default()),
    ] {
        let client = served.connection.calls_with(options);
        let doubled = client.call_number("double", 21);
        assert_eq!(doubled.expect("it is answered"), 42);
        assert_eq!((client.in_flight(), client.stats().calls.ok), (0, 1));
    }
}

/// A script sets `reply_to` and `correlation_id`, and knows nothing of us.
pub(super) fn a_plain_peer_is_answered_in_kind(backend: &dyn Backend) {
    let double = Router::new()
        .handle("double", |number: u64| Ok(number * 2))
        .default_method("double");
    let served = backend.with_service(double);
    let script = backend.dial();
    let mut inbox = script.inbox();
    let bare = Message {
        correlation_id: Some(short("1")),
        reply_to: Some(inbox.queue().clone()),
        ..Message::new("21")
    };
    script.send(&served.queue, bare);
    let reply = inbox.expect("42").message;
    assert_eq!(reply.correlation_id, Some(short("1")));
    assert_eq!(reply.kind, Some(wire::REPLY_TYPE));
    assert!(reply.headers.is_empty(), "a success has no headers");
    replied(&*served.server, 1);
}

pub(super) fn handlers_of_every_kind_answer(backend: &dyn Backend) {
    let router = Router::new()
        .handle("sync", |text: String| Ok(text))
        .handle_blocking("blocking", |text: String| Ok(text))
        .handle_async("async", |text: String| async move {
            Later::default().await;
            Ok(text)
        });
    let served = backend.with_service(router);
    let client = backend.dial();
    let client = client.calls(&served.queue);
    for method in ["sync", "blocking", "async"] {
        let answer = client.ask(method, "hello");
        assert_eq!(answer.expect("it is answered"), "hello", "{method}");
    }
}

/// Ready when another thread says so; it needs no runtime.
#[derive(Default)]
struct Later {
    woken: bool,
}

impl Future for Later {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.woken, true) {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        std::thread::spawn(move || waker.wake());
        Poll::Pending
    }
}

pub(super) fn a_thousand_calls_at_once_get_their_own_answers(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let calls: Vec<_> = (0..1000)
        .map(|number| {
            let body = number.to_string();
            let call = client.begin(CallOptions::default(), request("echo", &body));
            (body, call)
        })
        .collect();
    for (body, mut call) in calls {
        assert_eq!(call.end().expect("it is answered"), body);
    }
    let stats = client.stats();
    assert_eq!(
        (stats.calls.ok, stats.attempts.unmatched_replies),
        (1000, 0)
    );
    assert_eq!(client.in_flight(), 0);
}

pub(super) fn clients_of_one_connection_do_not_mix(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let connection = backend.dial();
    let clients = [
        connection.calls(&served.queue),
        connection.calls(&served.queue),
    ];
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let body = number.to_string();
            let client = &clients[number % 2];
            let call = client.begin(CallOptions::default(), request("echo", &body));
            (body, call)
        })
        .collect();
    for (body, mut call) in calls {
        assert_eq!(call.end().expect("it is answered"), body);
    }
    for client in clients {
        let stats = client.stats();
        assert_eq!((stats.calls.ok, stats.attempts.unmatched_replies), (50, 0));
    }
}

/// Sees requests as they arrive.
#[derive(Clone, Default)]
struct Witness(Arc<Mutex<Vec<Request>>>);

impl Witness {
    fn seen(&self) -> Vec<Request> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Service for Witness {
    fn call(&self, request: Request) -> Work {
        let response = Response {
            body: request.body.clone(),
            content_type: request.content_type.clone(),
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(request);
        Work::Ready(Ok(response))
    }
}

pub(super) fn a_request_without_reply_to_runs_and_is_done(backend: &dyn Backend) {
    let witness = Witness::default();
    let served = backend.with_service(witness.clone());
    served.connection.send_all(&served.queue, &["1", "2", "3"]);
    eventually("the casts have run", || {
        served.server.stats().casts == 3 && witness.seen().len() == 3
    });
    let drained = served.server.drain(SOON);
    assert_eq!((drained.unfinished, drained.stats.replied), (0, 0));
    served.connection.close().expect("it closes");
    let next = backend.dial();
    next.send_all(&served.queue, &["marker"]);
    next.receive(&served.queue, 10).expect("marker");
}

pub(super) fn any_correlation_id_is_echoed(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let script = backend.dial();
    let mut inbox = script.inbox();
    let ids = [
        "".to_owned(),
        " ".to_owned(),
        "1".to_owned(),
        "a b\tc\r\nd".to_owned(),
        "\0".to_owned(),
        "\u{1f980}\u{e9}".to_owned(),
        "5f1c0a52-8a3f-4b43-a7a5-64bf5b7a7c0f".to_owned(),
        "x".repeat(255),
    ];
    for id in &ids {
        let question = Message {
            correlation_id: Some(short(id)),
            message_id: Some(short("another")),
            reply_to: Some(inbox.queue().clone()),
            ..Message::new("hello")
        };
        script.send(&served.queue, question);
        let reply = inbox.expect("hello").message;
        assert_eq!(reply.correlation_id, Some(short(id)));
    }
}

pub(super) fn a_message_id_stands_in_for_a_missing_correlation_id(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let script = backend.dial();
    let mut inbox = script.inbox();
    for message_id in [Some(short("message-1")), None] {
        let question = Message {
            message_id: message_id.clone(),
            reply_to: Some(inbox.queue().clone()),
            ..Message::new("hello")
        };
        script.send(&served.queue, question);
        let reply = inbox.expect("hello").message;
        assert_eq!(reply.correlation_id, message_id);
    }
}

pub(super) fn the_handler_sees_what_was_sent(backend: &dyn Backend) {
    let witness = Witness::default();
    let served = backend.with_service(witness.clone());
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let mut sent = request("method", "hello");
    sent.headers.insert("traceparent", "00-1").expect("it fits");
    let reply = client
        .call(CallOptions::default(), sent)
        .expect("it is answered");
    assert_eq!(reply.content_type, Some(wire::TEXT));

    let seen = witness.seen();
    let [seen] = &seen[..] else {
        panic!("it ran {} times", seen.len());
    };
    assert_eq!(seen.body, "hello");
    assert_eq!(seen.content_type, Some(wire::TEXT));
    assert_eq!(seen.method, Some(short("method")));
    assert!(!seen.redelivered);
    assert!(
        seen.message_id
            .as_ref()
            .is_some_and(|id| *id != ShortString::default())
    );
    let header = seen.headers.get("traceparent");
    assert_eq!(header.and_then(|value| value.as_text()), Some("00-1"));
}
