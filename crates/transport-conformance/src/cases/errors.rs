//! Errors of the serving side arrive as what they are, and cost no worker.

use std::time::Duration;

use rpc_core::codec::Text;
use rpc_core::proto::client::Request;
use rpc_core::{
    CallError, CallOptions, Certainty, ClientOptions, Code, Origin, Reason, Router, Status,
};

use crate::backend::Backend;
use crate::steps::{SOON, echo, one_at_a_time, policy, replied, request, short};

/// What the service said.
#[track_caller]
fn remote<T: std::fmt::Debug>(ended: Result<T, CallError>) -> Status {
    match ended {
        Err(CallError::Remote(status)) => status,
        other => panic!("the service should have refused, and there was {other:?}"),
    }
}

#[track_caller]
fn assert_refused(status: &Status, code: Code, reason: &Reason) {
    assert_eq!(status.code(), code, "{status:?}");
    assert_eq!(status.reason(), Some(reason), "{status:?}");
    assert_eq!(status.origin(), Origin::Framework);
    assert_eq!(status.certainty(), Certainty::NotExecuted);
}

pub(super) fn a_malformed_request_is_refused(backend: &dyn Backend) {
    let double = Router::new().handle("double", |number: u64| Ok(number * 2));
    let served = backend.with_service(double);
    let options = ClientOptions::new(served.queue.clone()).with_timeout(SOON);
    let connection = backend.dial();
    let client = connection.calls_with(options.with_codec(Text));
    for malformed in ["", "thirty", "30 40", "-1", "\u{663}"] {
        let status = remote(client.ask("double", malformed));
        assert_refused(&status, Code::InvalidArgument, &Reason::RequestUndecodable);
    }
    assert_eq!(client.call_number("double", 21).expect("it works"), 42);
    replied(&*served.server, 6);
}

pub(super) fn an_unknown_method_is_refused(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let status = remote(client.ask("ekko", "hello"));
    assert_refused(&status, Code::Unimplemented, &Reason::UnknownMethod);
    client.assert_works();
}

pub(super) fn an_unknown_content_type_is_refused(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let pickled = Request {
        content_type: Some(short("application/x-python-pickle")),
        ..request("echo", "hello")
    };
    let status = remote(client.call(CallOptions::default(), pickled));
    assert_refused(&status, Code::Unimplemented, &Reason::UnknownContentType);
    client.assert_works();
}

pub(super) fn the_error_of_a_handler_arrives_as_it_was(backend: &dyn Backend) {
    let said = "187 is beyond 186 \u{1f980}";
    let router = echo().handle("fail", move |_: String| {
        Err::<String, _>(Status::out_of_range(said))
    });
    let served = backend.with_service(router);
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let status = remote(client.ask("fail", "187"));
    assert_eq!((status.code(), status.message()), (Code::OutOfRange, said));
    assert_eq!(status.origin(), Origin::Handler);
    assert_eq!(status.certainty(), Certainty::Executed);
    client.assert_works();
    assert_eq!(replied(&*served.server, 2).failed, 1);
}

pub(super) fn a_hundred_panics_cost_no_worker(backend: &dyn Backend) {
    let router = echo()
        .handle("sync", |_: String| -> Result<String, Status> {
            panic!("on purpose")
        })
        .handle_blocking("blocking", |_: String| -> Result<String, Status> {
            panic!("on purpose")
        })
        .handle_async("async", |text: String| async move {
            if !text.is_empty() {
                panic!("on purpose");
            }
            Ok(text)
        });
    let served = backend.with_service(router);
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let calls: Vec<_> = ["sync", "blocking", "async"]
        .iter()
        .cycle()
        .take(100)
        .map(|method| client.begin(CallOptions::default(), request(method, "hello")))
        .collect();
    for mut call in calls {
        let status = remote(call.end());
        assert_eq!(status.code(), Code::Internal, "{status:?}");
        assert_eq!(status.reason(), Some(&Reason::HandlerPanicked));
        assert_eq!(status.certainty(), Certainty::Executed);
        assert!(
            !status.message().contains("on purpose"),
            "what a panic says stays in its process"
        );
    }
    client.assert_works();
    assert_eq!(replied(&*served.server, 101).panicked, 100);
}

/// It is stopped at the limit of the service, while its caller would still wait.
pub(super) fn a_handler_that_never_answers_is_stopped(backend: &dyn Backend) {
    let router = echo().handle_async("hang", |_: String| std::future::pending::<Answer>());
    let (connection, queue) = backend.with_queue();
    let limits = policy(&queue, |policy| {
        policy.max_execution = Duration::from_millis(100)
    });
    let options = one_at_a_time(&queue, 10).with_policy(limits);
    let _server = connection.run(router, options);
    let client = connection.calls(&queue);
    for _ in 0..3 {
        let status = remote(client.ask("hang", "for ever"));
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert_eq!(
            status.reason(),
            Some(&Reason::HandlerTimedOut),
            "{status:?}"
        );
        assert_eq!(status.certainty(), Certainty::Executed);
    }
    client.assert_works();
}

type Answer = Result<String, Status>;

/// A handler that passes on the refusal of another service has itself run.
pub(super) fn a_passed_on_refusal_does_not_speak_for_the_handler(backend: &dyn Backend) {
    let refusal = || Status::framework(Reason::UnknownMethod, "said by another service");
    let router = Router::new()
        .handle("at once", move |_: String| Answer::Err(refusal()))
        .handle_async(
            "later",
            move |_: String| async move { Answer::Err(refusal()) },
        );
    let served = backend.with_service(router);
    let client = served.connection.calls(&served.queue);
    for method in ["at once", "later"] {
        let status = remote(client.ask(method, "hello"));
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        assert_eq!(status.certainty(), Certainty::Executed, "{status:?}");
    }
}
