//! Servers that are not allowed to publish.

use super::*;

fn error(kind: ErrorKind) -> TransportError {
    TransportError::new(kind, "fake", "publish")
}

/// Runs a request, and this becomes of its reply.
fn replies(server: &Bench, redelivered: bool, result: Result<(), &TransportError>) -> Verdict {
    let now = epoch();
    let delivery = Delivery {
        redelivered,
        ..delivery(now, request())
    };
    let (_, running) = run(job(server.accept(delivery)), now);
    let (_, _, then) = reply(running.finish(now, ok("1")).settlement);
    then.handle_publish(result)
}

#[test]
fn a_server_that_may_not_publish_keeps_its_requests_and_takes_none_until_it_may() {
    let server = acceptor();
    let acceptor = &server.acceptor;
    assert!(acceptor.trial(epoch()).is_none(), "nothing was denied yet");
    let denied = error(ErrorKind::Denied);
    let verdict = replies(&server, false, Err(&denied));
    assert!(matches!(verdict, Verdict::Requeue(_)), "{verdict:?}");
    for _ in 0..3 {
        let now = epoch();
        let trial = acceptor.trial(now).expect("it is to be tried");
        assert!(trial.deadline > now);
        assert!(wire::is_reserved(trial.message.kind.as_ref().unwrap()));
        let still = acceptor.handle_trial(Err(denied.clone())).unwrap_err();
        assert_eq!(still.kind(), ErrorKind::Denied);
    }
    // Silence, or a connection that is lost, tells nothing.
    for kind in [ErrorKind::Timeout, ErrorKind::Closed, ErrorKind::Blocked] {
        acceptor.handle_trial(Err(error(kind))).unwrap();
        assert!(acceptor.trial(epoch()).is_some(), "{kind:?}");
    }
    acceptor
        .handle_trial(Err(error(ErrorKind::NoRoute)))
        .unwrap();
    assert!(acceptor.trial(epoch()).is_none(), "it may");
    assert_eq!(server.stats().undeliverable, 0);
}

#[test]
fn an_address_that_is_denied_ends_its_request_at_the_second_delivery() {
    let server = acceptor();
    let denied = error(ErrorKind::Denied);
    assert!(matches!(
        replies(&server, false, Err(&denied)),
        Verdict::Requeue(_)
    ));
    assert!(matches!(
        replies(&server, true, Err(&denied)),
        Verdict::Ack(_)
    ));
    assert_eq!(server.stats().undeliverable, 1);
}

#[test]
fn a_reply_that_gets_through_needs_no_further_trial() {
    let server = acceptor();
    let _ = replies(&server, false, Err(&error(ErrorKind::Denied)));
    let _ = replies(&server, false, Ok(()));
    assert!(server.acceptor.trial(epoch()).is_none());
}
