//! Tests of the server steps: what is run, what is refused, and in which order it is settled.

use proptest::prelude::*;

use super::*;
use crate::wire::{decode_reply, encode_status};
use crate::{Certainty, Code, ConsumerId, ErrorKind, TransportError};

#[expect(clippy::disallowed_methods, reason = "where the fake clock starts")]
fn epoch() -> Instant {
    Instant::now()
}

fn acceptor() -> Acceptor {
    let mut policy = Policy::new(ShortString::from_static("fib"));
    policy.max_request = 100;
    policy.max_reply = 100;
    Acceptor::new(policy)
}

fn request() -> Message {
    Message {
        correlation_id: Some(ShortString::from_static("42")),
        reply_to: Some(ShortString::from_static("inbox")),
        ..Message::new("30")
    }
}

fn delivery(now: Instant, message: Message) -> Delivery {
    let token = AckToken::new(ConsumerId::unique(), 7);
    Delivery {
        message,
        received_at: now,
        redelivered: false,
        token: Some(token),
    }
}

fn job(accepted: Accepted) -> Job {
    match accepted {
        Accepted::Job(job) => job,
        Accepted::Settlement(settlement) => panic!("not a job: {settlement:?}"),
    }
}

fn settlement(accepted: Accepted) -> Settlement {
    match accepted {
        Accepted::Settlement(settlement) => settlement,
        Accepted::Job(job) => panic!("not settled: {job:?}"),
    }
}

fn reply(settlement: Settlement) -> (Address, Message, AfterReply) {
    match settlement {
        Settlement::Reply { to, message, then } => (to, message, then),
        Settlement::Settle(verdict) => panic!("no reply: {verdict:?}"),
    }
}

fn ok(body: &'static str) -> Ending {
    Ending::Answered(Ok(Response {
        body: Bytes::from_static(body.as_bytes()),
        content_type: None,
    }))
}

#[test]
fn a_reply_goes_to_its_caller_under_the_same_correlation_id() {
    let now = epoch();
    let (_, running) = job(acceptor().accept(delivery(now, request())))
        .begin(now)
        .unwrap();
    let (to, message, then) = reply(running.finish(now, ok("832040")));
    assert_eq!(to.routing_key(), &"inbox");
    assert_eq!(message.correlation_id.as_ref().unwrap(), &"42");
    assert_eq!(message.kind, Some(wire::REPLY_TYPE));
    assert_eq!(message.reply_to, None);
    assert_eq!(&decode_reply(message).unwrap().body[..], b"832040");
    assert!(matches!(then.handle_publish(Ok(())), Verdict::Ack(token) if token.tag() == 7));
}

#[test]
fn a_peer_that_gives_a_message_id_only_gets_that_back() {
    let now = epoch();
    let mut message = request();
    message.correlation_id = None;
    message.message_id = Some(ShortString::from_static("m-1"));
    let (_, running) = job(acceptor().accept(delivery(now, message)))
        .begin(now)
        .unwrap();
    let (_, message, _) = reply(running.finish(now, ok("1")));
    assert_eq!(message.correlation_id.unwrap(), "m-1");
}

#[test]
fn a_request_that_awaits_no_reply_runs_and_is_acknowledged() {
    let now = epoch();
    let acceptor = acceptor();
    let mut message = request();
    message.reply_to = None;
    let (_, running) = job(acceptor.accept(delivery(now, message)))
        .begin(now)
        .unwrap();
    let settled = running.finish(now, ok("832040"));
    assert!(matches!(settled, Settlement::Settle(Verdict::Ack(_))));
    assert_eq!((acceptor.stats().ok, acceptor.stats().casts), (1, 1));
}

#[test]
fn a_service_never_talks_to_itself() {
    let now = epoch();
    let acceptor = acceptor();
    let mut own_queue = request();
    own_queue.reply_to = Some(ShortString::from_static("fib"));
    let mut a_reply = request();
    a_reply.kind = Some(wire::REPLY_TYPE);
    for message in [own_queue, a_reply] {
        let settled = settlement(acceptor.accept(delivery(now, message)));
        assert!(matches!(settled, Settlement::Settle(Verdict::Ack(_))));
    }
    assert_eq!(acceptor.stats().discarded, 2);
}

#[test]
fn what_waited_past_its_deadline_does_not_run() {
    let now = epoch();
    let mut message = request();
    message.expiration = Some(Expiration::after(Duration::from_millis(100)));
    let waiting = job(acceptor().accept(delivery(now, message)));
    let late = now + Duration::from_millis(100);
    let (_, message, _) = reply(waiting.begin(late).unwrap_err());
    let status = decode_reply(message).unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.certainty(), Certainty::NotExecuted);
}

#[test]
fn oversized_bodies_are_answered_in_both_directions() {
    let now = epoch();
    let mut message = request();
    message.body = Bytes::from(vec![b'1'; 101]);
    let (_, answer, _) = reply(settlement(acceptor().accept(delivery(now, message))));
    let status = decode_reply(answer).unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.certainty(), Certainty::NotExecuted);

    let (_, running) = job(acceptor().accept(delivery(now, request())))
        .begin(now)
        .unwrap();
    let response = Response {
        body: Bytes::from(vec![b'1'; 101]),
        content_type: None,
    };
    let (_, answer, _) = reply(running.finish(now, Ending::Answered(Ok(response))));
    let status = decode_reply(answer).unwrap_err();
    assert_eq!(status.reason(), Some(&Reason::ReplyTooLarge));
    assert_eq!(status.certainty(), Certainty::Executed);
}

#[test]
fn a_panic_is_an_answer_that_tells_nothing_of_what_was_said() {
    let now = epoch();
    let acceptor = acceptor();
    let (_, running) = job(acceptor.accept(delivery(now, request())))
        .begin(now)
        .unwrap();
    let (_, message, _) = reply(running.finish(now, Ending::Panicked));
    let status = decode_reply(message).unwrap_err();
    assert_eq!(status.reason(), Some(&Reason::HandlerPanicked));
    assert_eq!(status.certainty(), Certainty::Executed);
    assert_eq!(acceptor.stats().panicked, 1);
}

#[test]
fn only_what_another_worker_could_answer_goes_back() {
    let now = epoch();
    for (kind, goes_back) in [
        (ErrorKind::NoRoute, false),
        (ErrorKind::TooLarge, false),
        (ErrorKind::Denied, false),
        (ErrorKind::Unsupported, false),
        (ErrorKind::Refused, false),
        (ErrorKind::Closed, true),
        (ErrorKind::Timeout, true),
    ] {
        let (_, running) = job(acceptor().accept(delivery(now, request())))
            .begin(now)
            .unwrap();
        let (_, _, then) = reply(running.finish(now, ok("1")));
        let error = TransportError::new(kind, "fake", "publish");
        let verdict = then.handle_publish(Err(&error));
        assert_eq!(
            matches!(verdict, Verdict::Requeue(_)),
            goes_back,
            "{kind:?}"
        );
    }
}

#[test]
fn a_reply_that_is_never_confirmed_is_tried_twice_and_no_more() {
    let now = epoch();
    for redelivered in [false, true] {
        let delivery = Delivery {
            redelivered,
            ..delivery(now, request())
        };
        let (_, running) = job(acceptor().accept(delivery)).begin(now).unwrap();
        let (_, _, then) = reply(running.finish(now, ok("1")));
        let error = TransportError::new(ErrorKind::Timeout, "fake", "publish");
        let verdict = then.handle_publish(Err(&error));
        assert_eq!(matches!(verdict, Verdict::Requeue(_)), !redelivered);
    }
}

#[test]
fn a_refusal_of_a_redelivered_request_leaves_open_whether_it_ran() {
    let now = epoch();
    for (redelivered, certainty) in [
        (false, Certainty::NotExecuted),
        (true, Certainty::MaybeExecuted),
    ] {
        let unknown = || Status::framework(Reason::UnknownMethod, "no such method");
        let again = |message| Delivery {
            redelivered,
            ..delivery(now, message)
        };
        let status_of = |settlement| decode_reply(reply(settlement).1).unwrap_err();

        let (_, running) = job(acceptor().accept(again(request()))).begin(now).unwrap();
        let by_router = running.finish(now, Ending::Answered(Err(unknown())));
        assert_eq!(status_of(by_router).certainty(), certainty);

        let (_, running) = job(acceptor().accept(again(request()))).begin(now).unwrap();
        assert_eq!(
            status_of(running.finish(now, Ending::Expired)).certainty(),
            certainty
        );

        let mut long = request();
        long.body = Bytes::from(vec![b'1'; 101]);
        let refused = settlement(acceptor().accept(again(long)));
        assert_eq!(status_of(refused).certainty(), certainty);
    }
}

#[test]
fn what_a_handler_passes_on_does_not_speak_for_itself() {
    let status = Status::framework(Reason::UnknownMethod, "somebody else's").of_handler();
    assert_eq!(status.certainty(), Certainty::Executed);
    assert_eq!(status.code(), Code::Unimplemented);
}

#[test]
fn a_handler_that_was_stopped_is_answered_for() {
    let now = epoch();
    let acceptor = acceptor();
    let (_, running) = job(acceptor.accept(delivery(now, request())))
        .begin(now)
        .unwrap();
    let late = running.deadline();
    let (_, message, _) = reply(running.finish(late, Ending::TimedOut));
    let status = decode_reply(message).unwrap_err();
    assert_eq!(
        (status.code(), status.certainty()),
        (Code::DeadlineExceeded, Certainty::Executed)
    );
    assert_eq!(acceptor.stats().failed, 1);
}

#[test]
fn an_endless_limit_is_a_day() {
    let now = epoch();
    let mut policy = Policy::new(ShortString::from_static("fib"));
    policy.max_execution = Duration::MAX;
    let waiting = job(Acceptor::new(policy).accept(delivery(now, request())));
    assert_eq!(waiting.deadline(), now + crate::LONGEST_WAIT);
}

#[test]
fn an_abandoned_job_goes_back() {
    let now = epoch();
    let waiting = job(acceptor().accept(delivery(now, request())));
    assert!(matches!(waiting.abandon(), Verdict::Requeue(token) if token.tag() == 7));
}

fn short() -> impl Strategy<Value = Option<ShortString>> {
    prop::option::of("\\PC{0,60}".prop_map(|text| ShortString::new(text).unwrap()))
}

proptest! {
    /// Whatever a peer sends, its delivery is settled once, by the token it came with, and the
    /// reply never goes to the service's own queue nor asks for a reply itself.
    #[test]
    fn every_delivery_is_settled_whatever_it_says(
        body in prop::collection::vec(any::<u8>(), 0..200),
        correlation_id in short(),
        reply_to in prop_oneof![short(), Just(Some(ShortString::from_static("fib")))],
        kind in prop_oneof![short(), Just(Some(wire::REPLY_TYPE))],
        expiration in prop::option::of(0..5000u64),
        waited in 0..5000u64,
        fails: bool,
    ) {
        let now = epoch();
        let acceptor = acceptor();
        let expiration = expiration.map(|ms| Expiration::after(Duration::from_millis(ms)));
        let message = Message {
            body: body.into(), correlation_id: correlation_id.clone(), reply_to, kind, expiration,
            ..Message::default()
        };
        let later = now + Duration::from_millis(waited);
        let settlement = match acceptor.accept(delivery(now, message)) {
            Accepted::Settlement(settlement) => settlement,
            Accepted::Job(job) => match job.begin(later) {
                Ok((_, running)) if fails => running.finish(later, Ending::Answered(Err(Status::out_of_range("x")))),
                Ok((_, running)) => running.finish(later, ok("1")),
                Err(settlement) => settlement,
            },
        };
        let verdict = match settlement {
            Settlement::Reply { to, message, then } => {
                prop_assert_ne!(to.routing_key().as_str(), "fib");
                prop_assert_eq!(message.kind, Some(wire::REPLY_TYPE));
                prop_assert_eq!(message.reply_to, None);
                prop_assert_eq!(message.correlation_id, correlation_id);
                then.handle_publish(Ok(()))
            }
            Settlement::Settle(verdict) => verdict,
        };
        prop_assert!(matches!(verdict, Verdict::Ack(token) if token.tag() == 7));
        prop_assert_eq!(acceptor.stats().received, 1);
    }

    #[test]
    fn no_status_is_lost_between_the_two_machines(number in 1i64..=16, text in "\\PC{0,200}") {
        let status = Status::new(Code::from_number(number), text);
        prop_assert_eq!(decode_reply(encode_status(&status)).unwrap_err(), status);
    }
}
