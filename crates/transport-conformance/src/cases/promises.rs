//! What a server promises beyond an answer: how often a request runs, for how long, and for whom.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rpc_core::proto::server::{Guarantee, MemoryDedup};
use rpc_core::proto::wire::{self, decode_reply};
use rpc_core::{
    CallOptions, Certainty, Context, Message, QueueSpec, Reason, Router, ServerOptions,
    ShortString, Status,
};

use crate::backend::{Backend, Connection, Receiver};
use crate::steps::{
    AT_ONCE, Gate, SOON, VERB_LIMIT, echo, eventually, gated, one_at_a_time, policy, request, short,
};

/// When a handler was told that nobody waits for it any more.
#[derive(Clone, Default)]
struct Stopped(Arc<Mutex<Option<Instant>>>);

impl Stopped {
    fn now(&self) {
        let mut stopped = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.get_or_insert_with(Instant::now);
    }

    fn at(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells when a future is dropped.
struct WhenDropped(Stopped);

impl Drop for WhenDropped {
    fn drop(&mut self) {
        self.0.now();
    }
}

pub(super) fn a_caller_that_gives_up_stops_its_handler(backend: &dyn Backend) {
    let (computing, awaiting) = (Stopped::default(), Stopped::default());
    let (computes, awaits) = (computing.clone(), awaiting.clone());
    let router = echo()
        .handle_blocking_with("compute", move |context: Context, _: String| {
            let limit = Instant::now() + VERB_LIMIT;
            while !context.is_cancelled() && Instant::now() < limit {
                thread::sleep(Duration::from_millis(1));
            }
            computes.now();
            Ok(String::new())
        })
        .handle_async("await", move |_: String| {
            let dropped = WhenDropped(awaits.clone());
            async move {
                std::future::pending::<()>().await;
                drop(dropped);
                Ok::<_, Status>(String::new())
            }
        });
    let served = backend.with_service(router);
    let connection = backend.dial();
    for (told, (method, stopped)) in [("compute", &computing), ("await", &awaiting)]
        .into_iter()
        .enumerate()
    {
        let client = connection.calls(&served.queue);
        let _call = client.begin(CallOptions::default(), request(method, "for nobody"));
        eventually("the caller is told where it runs", || {
            served.server.stats().noticed == told as u64 + 1
        });
        // The word comes before these answers do.
        for _ in 0..5 {
            client.assert_works();
        }
        assert_eq!(stopped.at(), None, "somebody waits for `{method}`");
        let given_up = Instant::now();
        client.close();
        eventually("the handler is stopped", || stopped.at().is_some());
        let took = stopped
            .at()
            .map(|at| at.saturating_duration_since(given_up));
        assert!(took < Some(AT_ONCE), "`{method}` worked on for {took:?}");
    }
    eventually("nobody is answered", || {
        served.server.stats().cancelled == 2
    });
    let client = connection.calls(&served.queue);
    client.assert_works();
}

pub(super) fn at_most_once_acknowledges_before_it_runs(backend: &dyn Backend) {
    let at_most_once = |queue: &ShortString| {
        let guarantee = policy(queue, |policy| policy.guarantee = Guarantee::AtMostOnce);
        one_at_a_time(queue, 1).with_policy(guarantee)
    };
    let (gate, unhurried) = (Gate::default(), Gate::default());
    let _open = gate.opened_at_the_end();
    unhurried.open();
    let (one, queue) = backend.with_queue();
    let _first = one.run(gated(&gate), at_most_once(&queue));
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let _lost = client.begin(CallOptions::default(), request("wait", "once"));
    gate.expect(1);
    // The worker dies with the request at work.
    one.close().expect("it closes");
    let two = backend.dial();
    let second = two.run(gated(&unhurried), at_most_once(&queue));
    for _ in 0..3 {
        let answer = client.ask("wait", "next");
        assert_eq!(answer.expect("the other worker answers"), "next");
    }
    assert_eq!(unhurried.come(), 3, "what had begun does not run again");
    assert_eq!(second.stats().received, 3);
}

pub(super) fn a_repeated_request_is_answered_and_does_not_run_again(backend: &dyn Backend) {
    let (connection, queue) = backend.with_queue();
    let dedup = policy(&queue, |policy| {
        policy.dedup = Some(Arc::new(MemoryDedup::default()));
    });
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let server = connection.run(gated(&gate), one_at_a_time(&queue, 10).with_policy(dedup));
    let sender = backend.dial();
    let mut inbox = sender.inbox();
    let attempt = |id: &str| Message {
        correlation_id: Some(short(id)),
        message_id: Some(short("the same")),
        kind: Some(short("wait")),
        ..question(&*inbox, "hello")
    };
    let (first, second, third) = (attempt("1"), attempt("2"), attempt("3"));
    sender.send(&queue, first);
    gate.expect(1);
    // One comes while it runs, and one when it has been answered.
    sender.send(&queue, second);
    eventually("it is taken in", || server.stats().joined == 1);
    gate.open();
    let answered = |inbox: &mut dyn Receiver| {
        let message = inbox.expect("hello").message;
        message.correlation_id.map(|id| id.as_str().to_owned())
    };
    let mut answers = [answered(&mut *inbox), answered(&mut *inbox)];
    answers.sort();
    assert_eq!(answers, [Some("1".to_owned()), Some("2".to_owned())]);
    sender.send(&queue, third);
    assert_eq!(answered(&mut *inbox).as_deref(), Some("3"));
    assert_eq!(gate.come(), 1);
    let stats = server.drain(SOON).stats;
    assert_eq!((stats.ok, stats.joined, stats.replayed), (1, 1, 1));
}

pub(super) fn a_request_that_goes_in_circles_comes_to_an_end(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let sender = backend.dial();
    let mut inbox = sender.inbox();
    let mut circling = question(&*inbox, "round and round");
    circling.headers.insert(wire::HOPS, 9).expect("it fits");
    sender.send(&served.queue, circling);
    let status = refusal(&mut *inbox);
    assert_eq!(status.reason(), Some(&Reason::HopLimit));
    assert_eq!(status.certainty(), Certainty::NotExecuted);
}

pub(super) fn a_stuck_handler_costs_no_place(backend: &dyn Backend) {
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let (connection, queue) = backend.with_queue();
    let limits = policy(&queue, |policy| {
        policy.max_execution = Duration::from_millis(200);
    });
    let server = connection.run(gated(&gate), one_at_a_time(&queue, 10).with_policy(limits));
    let client = connection.calls(&queue);
    for stuck in 1..=3 {
        let failed = client.ask("wait", "for ever");
        let error = failed.expect_err("it does not come back");
        assert_eq!(error.reason(), Reason::HandlerTimedOut, "{error:?}");
        assert_eq!(gate.come(), stuck);
        // It has the only place there is, and another one works in it.
        client.assert_works();
    }
    assert_eq!(server.stats().stuck, 3);
}

pub(super) fn a_handler_knows_what_it_works_on(backend: &dyn Backend) {
    let seen: Arc<Mutex<Option<Context>>> = Arc::default();
    let sees = Arc::clone(&seen);
    let router = Router::new().handle_with("look", move |context: Context, _: String| {
        *sees.lock().unwrap_or_else(PoisonError::into_inner) = Some(context);
        Ok(String::new())
    });
    let served = backend.with_service(router);
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let options = CallOptions::timeout(SOON)
        .with_message_id(short("m-1"))
        .with_traceparent(trace);
    client
        .call(options, request("look", ""))
        .expect("it is answered");
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let context = seen.expect("the handler ran");
    assert_eq!(context.message_id, Some(short("m-1")));
    assert_eq!(context.traceparent(), Some(trace));
    assert_eq!((context.attempt, context.hops), (1, 0));
    let left = context.remaining();
    assert!(left > Duration::ZERO && left <= SOON, "{left:?}");
    // And what it calls is one service further, and due when it is.
    let nested = CallOptions::within(&context);
    let inner = connection.calls(&served.queue);
    inner
        .call(nested, request("look", ""))
        .expect_err("it is cancelled: it has been answered");
}

pub(super) fn a_suspect_runs_in_quarantine_and_a_poison_is_given_up(backend: &dyn Backend) {
    let connection = backend.dial();
    let spec = QueueSpec::quorum(backend.queue());
    if connection.declare(&spec).is_err() {
        return;
    }
    let serve = || {
        let options = ServerOptions::new(spec.clone()).with_quarantine(2);
        let worker = backend.dial();
        let server = worker.run(echo(), options.expect("its name is short"));
        (server, worker)
    };
    let sender = backend.dial();
    let mut inbox = sender.inbox();
    sender.send(&spec.name, question(&*inbox, "suspect"));
    die_with(backend, &spec.name);
    let (server, _worker) = serve();
    inbox.expect("suspect");
    let stats = server.drain(SOON).stats;
    assert_eq!((stats.forwarded, stats.ok, stats.poisoned), (1, 1, 0));

    let quarantine = short(format!("{}.quarantine", spec.name));
    sender.send(&quarantine, question(&*inbox, "poison"));
    for _ in 0..2 {
        die_with(backend, &quarantine);
    }
    let (server, _worker) = serve();
    let status = refusal(&mut *inbox);
    assert_eq!(status.reason(), Some(&Reason::Poison), "{status:?}");
    assert_eq!(status.certainty(), Certainty::MaybeExecuted);
    let dead = short(format!("{}.dead", spec.name));
    let mut dead = connection.receive(&dead, 1);
    connection.settle(dead.expect("poison"));
    assert_eq!(server.stats().poisoned, 1);
}

/// A worker that takes one request, and dies with it.
fn die_with(backend: &dyn Backend, queue: &ShortString) {
    let worker: Box<dyn Connection> = backend.dial();
    let mut receiver = worker.receive(queue, 1);
    let _ = receiver.next();
    worker.close().expect("it closes");
}

pub(super) fn question(inbox: &dyn Receiver, body: &'static str) -> Message {
    Message {
        content_type: Some(wire::TEXT),
        correlation_id: Some(short("1")),
        reply_to: Some(inbox.queue().clone()),
        ..Message::new(body)
    }
}

fn refusal(inbox: &mut dyn Receiver) -> Status {
    decode_reply(inbox.next().message).expect_err("it is refused")
}
