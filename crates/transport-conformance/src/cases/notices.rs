//! What a caller tells its worker: how long there is, and that nobody waits any more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rpc_core::proto::wire;
use rpc_core::{
    CallOptions, Cancellation, Certainty, Code, Context, HeaderValue, Message, Reason, Router,
    ShortString,
};

use crate::backend::{Backend, Connection, Receiver};
use crate::steps::{AT_ONCE, Gate, SOON, eventually, request};

/// How long a caller waits before it gives up.
const PATIENCE: Duration = Duration::from_millis(300);

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

pub(super) fn a_request_says_what_its_service_can_use(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let key = ShortString::from_static("order-7");
    let how = CallOptions::timeout(SOON)
        .with_message_id(key.clone())
        .with_traceparent(TRACE);
    let mut call = client.begin(how, request("", "hello"));
    let taken = service.take(&queue);
    let header = |name| taken.headers.get(name);
    let millis = |name| header(name).and_then(HeaderValue::as_int);
    let soon = i64::try_from(SOON.as_millis()).expect("it is short");
    let left = millis(wire::TIMEOUT_MS).expect("it says how long it has");
    assert!((1..=soon).contains(&left), "{left}");
    let deadline = millis(wire::DEADLINE_MS).expect("it says until when");
    assert!(deadline > 1_600_000_000_000, "{deadline}");
    assert_eq!(header(wire::NOTICES), Some(&HeaderValue::Flag(true)));
    assert_eq!((header(wire::ATTEMPT), header(wire::HOPS)), (None, None));
    let trace = header(wire::TRACEPARENT).and_then(HeaderValue::as_text);
    assert_eq!(trace, Some(TRACE));
    assert_eq!(taken.message_id, Some(key));
    service.answer(&taken, taken.correlation_id.clone(), "done");
    call.end().expect("it is answered");
}

/// A worker written by hand says that it runs this request, and where it listens.
fn started(service: &dyn Connection, request: &Message, control: &dyn Receiver) {
    let notice = Message {
        correlation_id: request.correlation_id.clone(),
        kind: Some(wire::STARTED_TYPE),
        reply_to: Some(control.queue().clone()),
        ..Message::default()
    };
    service.reply(request, notice);
}

/// And learns that nobody waits for it.
#[track_caller]
fn cancelled(control: &mut dyn Receiver, request: &Message) {
    let notice = control.next().message;
    assert_eq!(notice.kind, Some(wire::CANCEL_TYPE));
    assert_eq!(notice.correlation_id, request.correlation_id);
}

pub(super) fn a_worker_that_is_known_is_told_that_nobody_waits(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let mut control = service.inbox();
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let mut call = client.begin(CallOptions::timeout(PATIENCE), request("", "hello"));
    let taken = service.take(&queue);
    started(&*service, &taken, &*control);
    let error = call.end().expect_err("nobody answers");
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error:?}");
    cancelled(&mut *control, &taken);
    assert_eq!(client.stats().attempts.unmatched_replies, 0);
}

pub(super) fn a_worker_that_speaks_up_late_is_told_then(backend: &dyn Backend) {
    let (service, queue) = backend.with_queue();
    let mut control = service.inbox();
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let mut call = client.begin(CallOptions::timeout(PATIENCE), request("", "hello"));
    let taken = service.take(&queue);
    call.end().expect_err("nobody answers");
    started(&*service, &taken, &*control);
    cancelled(&mut *control, &taken);
}

/// What a handler learns of a call with this much time, with a cancellation of the case's own.
fn context(backend: &dyn Backend, limit: Duration) -> Context {
    let (learnt, context) = mpsc::channel();
    let learnt = Mutex::new(learnt);
    let service = Router::new().handle_with("learn", move |context: Context, text: String| {
        let _ = learnt.lock().map(|learnt| learnt.send(context));
        Ok(text)
    });
    let served = backend.with_service(service);
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let how = CallOptions::timeout(limit).with_traceparent(TRACE);
    let learn = client.call(how, request("learn", "hello"));
    learn.expect("it is answered");
    let mut context = context.recv().expect("the handler has run");
    context.cancellation = Cancellation::new();
    context
}

pub(super) fn a_call_within_other_work_carries_it_on(backend: &dyn Backend) {
    let context = context(backend, SOON);
    let (service, queue) = backend.with_queue();
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let mut call = client.begin(CallOptions::within(&context), request("", "hello"));
    let taken = service.take(&queue);
    let header = |name| taken.headers.get(name);
    let millis = |name| header(name).and_then(HeaderValue::as_int);
    let soon = i64::try_from(SOON.as_millis()).expect("it is short");
    assert!(millis(wire::TIMEOUT_MS).is_some_and(|left| left <= soon));
    assert_eq!(millis(wire::HOPS), Some(1));
    let trace = header(wire::TRACEPARENT).and_then(HeaderValue::as_text);
    assert_eq!(trace, Some(TRACE));
    service.answer(&taken, taken.correlation_id.clone(), "done");
    call.end().expect("it is answered");
}

pub(super) fn a_call_ends_with_the_work_it_is_part_of_and_so_does_its_handler(
    backend: &dyn Backend,
) {
    // Far away: only word from the caller can stop the handler.
    let context = context(backend, Duration::from_secs(3600));
    let began = Arc::new(AtomicUsize::new(0));
    let stopped = Gate::default();
    let served = backend.with_service({
        let (began, stopped) = (Arc::clone(&began), stopped.clone());
        Router::new().handle_async("wait", move |_: String| {
            let stopped = stopped.opened_at_the_end();
            began.fetch_add(1, Ordering::Release);
            async move {
                let _stopped = stopped;
                std::future::pending::<()>().await;
                Ok(())
            }
        })
    });
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let mut call = client.begin(CallOptions::within(&context), request("wait", "hello"));
    eventually("it runs", || began.load(Ordering::Acquire) == 1);
    context.cancellation.cancel();
    let given_up = Instant::now();
    let error = call.end().expect_err("nobody needs it");
    assert!(given_up.elapsed() < AT_ONCE, "{:?}", given_up.elapsed());
    assert_eq!(
        (error.code(), error.reason(), error.certainty()),
        (Code::Cancelled, Reason::GivenUp, Certainty::MaybeExecuted),
        "{error:?}"
    );
    stopped.pass();
    // A second is promised on a quiet machine.
    let took = given_up.elapsed();
    assert!(took < 3 * AT_ONCE, "it was stopped after {took:?}");
    let error = client
        .call(CallOptions::within(&context), request("wait", "hello"))
        .expect_err("nobody needs it");
    assert_eq!(error.certainty(), Certainty::NotExecuted, "{error:?}");
    assert_eq!(client.in_flight(), 0);
}
