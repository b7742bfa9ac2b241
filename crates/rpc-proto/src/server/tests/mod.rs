//! Tests of the server steps: what is run, what is refused, and in which order it is settled.

mod at_most_once;
mod cancelling;
mod dedup;
mod every_delivery;
mod isolation;
mod quarantine;
mod strikes;
mod trial;
mod turned_away;

use std::time::Duration;

use super::*;
use crate::wire::{self, decode_reply};
use crate::{
    AckToken, Address, Certainty, Code, ConsumerId, Delivery, ErrorKind, Expiration, Message,
    Reason, TransportError,
};

/// The time of day at which the tests begin, in milliseconds of Unix time.
const UNIX_MS: u64 = 1_800_000_000_000;

#[expect(clippy::disallowed_methods, reason = "where the fake clock starts")]
fn epoch() -> Instant {
    Instant::now()
}

fn policy() -> Policy {
    let mut policy = Policy::new(ShortString::from_static("fib"));
    policy.max_request = 100;
    policy.max_reply = 100;
    policy
}

/// A server with one consumer of its work queue.
struct Bench {
    acceptor: Acceptor,
    intake: Intake,
}

impl Bench {
    fn new(policy: Policy) -> Self {
        let acceptor = Acceptor::new(policy);
        let intake = acceptor.intake(Lane::Work);
        Self { acceptor, intake }
    }

    /// A delivery that comes in the moment it is received.
    fn accept(&self, delivery: Delivery) -> Accepted {
        let now = delivery.received_at;
        self.intake.accept(delivery, now, UNIX_MS)
    }

    fn stats(&self) -> Stats {
        self.acceptor.stats()
    }
}

fn acceptor() -> Bench {
    Bench::new(policy())
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
        other => panic!("not a job: {other:?}"),
    }
}

fn settlement(accepted: Accepted) -> Settlement {
    match accepted {
        Accepted::Settlement(settlement) => settlement,
        other => panic!("not settled: {other:?}"),
    }
}

fn run(job: Job, now: Instant) -> (Request, Running) {
    match job.begin(now) {
        Begun::Run(request, running) => (request, running),
        other => panic!("does not run: {other:?}"),
    }
}

fn refused(job: Job, now: Instant) -> Settlement {
    match job.begin(now) {
        Begun::Settle(settlement) => settlement,
        other => panic!("not refused: {other:?}"),
    }
}

fn status(settlement: Settlement) -> Status {
    decode_reply(reply(settlement).1).unwrap_err()
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
    let (_, running) = run(job(acceptor().accept(delivery(now, request()))), now);
    let (to, message, then) = reply(running.finish(now, ok("832040")).settlement);
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
    let (_, running) = run(job(acceptor().accept(delivery(now, message))), now);
    let (_, message, _) = reply(running.finish(now, ok("1")).settlement);
    assert_eq!(message.correlation_id.unwrap(), "m-1");
}

#[test]
fn a_request_that_awaits_no_reply_runs_and_is_acknowledged() {
    let now = epoch();
    let acceptor = acceptor();
    let mut message = request();
    message.reply_to = None;
    let (_, running) = run(job(acceptor.accept(delivery(now, message))), now);
    let settled = running.finish(now, ok("832040")).settlement;
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
    let mut control = request();
    control.reply_to = Some(ShortString::from_static("control"));
    acceptor.acceptor.set_control(control.reply_to.clone());
    let framework = [wire::STARTED_TYPE, wire::CANCEL_TYPE, wire::CHECK_TYPE];
    let of_kind = |kind| Message {
        kind: Some(kind),
        ..request()
    };
    let messages = [own_queue, a_reply, control];
    for message in messages.into_iter().chain(framework.map(of_kind)) {
        let settled = settlement(acceptor.accept(delivery(now, message)));
        assert!(matches!(settled, Settlement::Settle(Verdict::Ack(_))));
    }
    assert_eq!(acceptor.stats().discarded, 6);
}

#[test]
fn what_waited_past_its_deadline_does_not_run() {
    let now = epoch();
    let mut message = request();
    message.expiration = Some(Expiration::after(Duration::from_millis(100)));
    let server = acceptor();
    let waiting = job(server.accept(delivery(now, message)));
    let late = now + Duration::from_millis(100);
    let (_, message, _) = reply(refused(waiting, late));
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

    let (_, running) = run(job(acceptor().accept(delivery(now, request()))), now);
    let response = Response {
        body: Bytes::from(vec![b'1'; 101]),
        content_type: None,
    };
    let (_, answer, _) = reply(
        running
            .finish(now, Ending::Answered(Ok(response)))
            .settlement,
    );
    let status = decode_reply(answer).unwrap_err();
    assert_eq!(status.reason(), Some(&Reason::ReplyTooLarge));
    assert_eq!(status.certainty(), Certainty::Executed);
}

#[test]
fn a_panic_is_an_answer_that_tells_nothing_of_what_was_said() {
    let now = epoch();
    let acceptor = acceptor();
    let (_, running) = run(job(acceptor.accept(delivery(now, request()))), now);
    let (_, message, _) = reply(running.finish(now, Ending::Panicked).settlement);
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
        (ErrorKind::Denied, true),
        (ErrorKind::Unsupported, false),
        (ErrorKind::Refused, false),
        (ErrorKind::Closed, true),
        (ErrorKind::Timeout, true),
    ] {
        let (_, running) = run(job(acceptor().accept(delivery(now, request()))), now);
        let (_, _, then) = reply(running.finish(now, ok("1")).settlement);
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
        let (_, running) = run(job(acceptor().accept(delivery)), now);
        let (_, _, then) = reply(running.finish(now, ok("1")).settlement);
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

        let (_, running) = run(job(acceptor().accept(again(request()))), now);
        let by_router = running
            .finish(now, Ending::Answered(Err(unknown())))
            .settlement;
        assert_eq!(status_of(by_router).certainty(), certainty);

        // Its queue drops it by then, so that nobody else runs it.
        let mut timed = request();
        timed.expiration = Some(Expiration::after(Duration::from_secs(1)));
        let (_, running) = run(job(acceptor().accept(again(timed))), now);
        let late = running.deadline();
        assert_eq!(
            status_of(running.finish(late, Ending::Expired).settlement).certainty(),
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
    let (_, running) = run(job(acceptor.accept(delivery(now, request()))), now);
    let late = running.deadline();
    let (_, message, _) = reply(running.finish(late, Ending::TimedOut).settlement);
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
    let waiting = job(Bench::new(policy).accept(delivery(now, request())));
    assert_eq!(waiting.deadline(), now + crate::LONGEST_WAIT);
}

#[test]
fn a_job_that_is_handed_back_goes_to_another_worker() {
    let now = epoch();
    let waiting = job(acceptor().accept(delivery(now, request())));
    let settled = waiting.hand_back(now);
    assert!(matches!(settled, Settlement::Settle(Verdict::Requeue(token)) if token.tag() == 7));
}
