//! The same request again: it joins, or is answered from the store.

use std::sync::Arc;

use super::*;

fn server() -> Bench {
    let mut policy = policy();
    policy.dedup = Some(Arc::new(MemoryDedup::default()));
    Bench::new(policy)
}

/// An attempt at one call, under this correlation id and delivery tag.
fn attempt(now: Instant, id: &'static str, tag: u64) -> Delivery {
    let message = Message {
        correlation_id: Some(ShortString::from_static(id)),
        message_id: Some(ShortString::from_static("m-1")),
        ..request()
    };
    Delivery {
        token: Some(AckToken::new(ConsumerId::unique(), tag)),
        ..delivery(now, message)
    }
}

fn answered(settlement: Settlement, id: &str, tag: u64) -> Message {
    let (_, message, then) = reply(settlement);
    assert_eq!(message.correlation_id.as_ref().unwrap().as_str(), id);
    assert!(matches!(then.handle_publish(Ok(())), Verdict::Ack(token) if token.tag() == tag));
    message
}

#[test]
fn what_was_answered_is_answered_again_and_does_not_run_again() {
    let now = epoch();
    let server = server();
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    let first = answered(running.finish(now, ok("1")).settlement, "a", 1);
    let again = Delivery {
        redelivered: true,
        ..attempt(now, "a", 2)
    };
    let second = answered(settlement(server.accept(again)), "a", 2);
    assert_eq!(first, second);
    let third = answered(settlement(server.accept(attempt(now, "b", 3))), "b", 3);
    assert_eq!((first.body, first.headers), (third.body, third.headers));
    assert_eq!((server.stats().ok, server.stats().replayed), (1, 2));
}

#[test]
fn the_error_of_a_handler_is_an_answer_and_a_refusal_is_none() {
    let now = epoch();
    let server = server();
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    let unknown = Status::framework(Reason::UnknownMethod, "no such method");
    drop(running.finish(now, Ending::Answered(Err(unknown))));
    let (_, running) = run(job(server.accept(attempt(now, "b", 2))), now);
    drop(running.finish(now, Ending::Answered(Err(Status::out_of_range("187")))));
    let status = status(settlement(server.accept(attempt(now, "c", 3))));
    assert_eq!(status.code(), Code::OutOfRange);
}

#[test]
fn a_handler_that_began_is_not_run_again_however_it_ended() {
    let long = || {
        Ending::Answered(Ok(Response {
            body: Bytes::from(vec![b'1'; 101]),
            content_type: None,
        }))
    };
    for (ending, reason) in [
        (Ending::Panicked, Reason::HandlerPanicked),
        (Ending::TimedOut, Reason::HandlerTimedOut),
        (long(), Reason::ReplyTooLarge),
    ] {
        let now = epoch();
        let server = server();
        let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
        drop(running.finish(now, ending));
        let status = status(settlement(server.accept(attempt(now, "b", 2))));
        assert_eq!(status.reason(), Some(&reason));
        assert_eq!(status.certainty(), Certainty::Executed);
    }
    let now = epoch();
    let server = server();
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    drop(running.finish(now, Ending::Cancelled));
    let (_, running) = run(job(server.accept(attempt(now, "b", 2))), now);
    answered(running.finish(now, ok("1")).settlement, "b", 2);
}

#[test]
fn a_key_that_another_request_has_gets_no_foreign_answer() {
    let now = epoch();
    let other = |id, tag, change: fn(&mut Message)| {
        let mut delivery = attempt(now, id, tag);
        change(&mut delivery.message);
        delivery
    };
    let changes: [fn(&mut Message); 2] = [
        |message| message.body = Bytes::from_static(b"31"),
        |message| message.content_type = Some(ShortString::from_static("application/json")),
    ];
    for change in changes {
        let server = server();
        // It waits for its turn while the other one begins, comes while that runs, and comes after.
        let waiting = job(server.accept(other("b", 2, change)));
        let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
        let joins = settlement(server.accept(other("c", 3, change)));
        let waited = refused(waiting, now);
        let finished = running.finish(now, ok("1"));
        assert!(finished.joined.is_empty());
        answered(finished.settlement, "a", 1);
        let late = settlement(server.accept(other("d", 4, change)));
        for refused in [joins, waited, late] {
            let status = status(refused);
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(status.reason(), Some(&Reason::KeyReused));
            assert_eq!(status.certainty(), Certainty::MaybeExecuted);
        }
        answered(settlement(server.accept(attempt(now, "e", 5))), "e", 5);
        assert_eq!((server.stats().ok, server.stats().refused), (1, 3));
    }
}

#[test]
fn a_body_over_the_limit_is_refused_as_that_and_not_looked_up() {
    let now = epoch();
    let server = server();
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    drop(running.finish(now, ok("1")));
    let mut long = attempt(now, "b", 2);
    long.message.body = Bytes::from(vec![b'1'; 101]);
    let status = status(settlement(server.accept(long)));
    assert_eq!(status.reason(), Some(&Reason::MessageTooLarge));
}

/// A store that notes when it is asked, and looks whether the table of what runs can be had then.
#[derive(Debug, Default)]
struct Asked {
    store: MemoryDedup,
    server: std::sync::Mutex<Option<std::sync::Weak<shared::Shared>>>,
    verbs: std::sync::Mutex<Vec<(&'static str, bool)>>,
}

impl Asked {
    fn note(&self, verb: &'static str) {
        let server = self
            .server
            .lock()
            .unwrap()
            .as_ref()
            .unwrap()
            .upgrade()
            .unwrap();
        let free = server.duplicates.is_free();
        self.verbs.lock().unwrap().push((verb, free));
    }
}

impl Dedup for Asked {
    fn find(&self, key: &DedupKey, now: Instant) -> Option<Kept> {
        self.note("find");
        self.store.find(key, now)
    }

    fn keep(&self, key: DedupKey, answer: Kept, now: Instant) {
        self.note("keep");
        self.store.keep(key, answer, now);
    }
}

#[test]
fn a_store_is_asked_twice_for_a_request_and_once_of_these_under_the_lock() {
    let now = epoch();
    let store = Arc::new(Asked::default());
    let mut policy = policy();
    policy.dedup = Some(store.clone());
    let server = Bench::new(policy);
    *store.server.lock().unwrap() = Some(Arc::downgrade(server.acceptor.shared()));
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    drop(running.finish(now, ok("1")));
    let asked = std::mem::take(&mut *store.verbs.lock().unwrap());
    assert_eq!(asked, [("find", true), ("find", false), ("keep", true)]);
    drop(server.accept(attempt(now, "b", 2)));
    assert_eq!(*store.verbs.lock().unwrap(), [("find", true)]);
}

#[test]
fn what_comes_while_it_runs_is_answered_together_with_it() {
    let now = epoch();
    let server = server();
    let waiting = job(server.accept(attempt(now, "b", 2)));
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    assert!(matches!(
        server.accept(attempt(now, "c", 3)),
        Accepted::Joined
    ));
    assert!(matches!(waiting.begin(now), Begun::Joined));
    let finished = running.finish(now, ok("1"));
    answered(finished.settlement, "a", 1);
    let [third, second] = <[_; 2]>::try_from(finished.joined).unwrap();
    answered(third, "c", 3);
    answered(second, "b", 2);
    assert_eq!((server.stats().ok, server.stats().joined), (1, 2));
}

#[test]
fn a_request_whose_run_was_lost_runs_again() {
    let now = epoch();
    let server = server();
    let (_, running) = run(job(server.accept(attempt(now, "a", 1))), now);
    drop(running);
    let (_, running) = run(job(server.accept(attempt(now, "a", 2))), now);
    answered(running.finish(now, ok("1")).settlement, "a", 2);
}

#[test]
fn requests_of_other_methods_or_without_a_key_are_others() {
    let now = epoch();
    let server = server();
    let mut other = attempt(now, "a", 1);
    other.message.kind = Some(ShortString::from_static("double"));
    let mut without = attempt(now, "a", 1);
    without.message.message_id = None;
    for delivery in [attempt(now, "a", 1), other, without] {
        let (_, running) = run(job(server.accept(delivery)), now);
        drop(running.finish(now, ok("1")));
    }
    assert_eq!(server.stats().ok, 3);
}

#[test]
fn nobody_cancels_what_another_one_awaits() {
    let now = epoch();
    let server = server();
    server
        .acceptor
        .set_control(Some(ShortString::from_static("control")));
    let mut delivery = attempt(now, "a", 1);
    let on = crate::HeaderValue::Flag(true);
    delivery.message.headers.insert(wire::NOTICES, on).unwrap();
    let (_, mut running) = run(job(server.accept(delivery)), now);
    assert!(matches!(
        running.poll(running.poll_timeout()),
        Some(Due::Notice(..))
    ));
    assert!(matches!(
        server.accept(attempt(now, "b", 2)),
        Accepted::Joined
    ));
    let cancel = Message {
        correlation_id: Some(ShortString::from_static("a")),
        kind: Some(wire::CANCEL_TYPE),
        ..Message::default()
    };
    assert!(!server.acceptor.handle_cancel(&cancel));
    assert!(!running.cancellation().is_cancelled());
}
