//! Workers share a queue; what one does not finish, another does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rpc_core::{CallOptions, Reason, Router};

use crate::backend::Backend;
use crate::steps::{Gate, SOON, gated, one_at_a_time, options, policy, request};

pub(super) fn two_workers_share(backend: &dyn Backend) {
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let (one, queue) = backend.with_queue();
    let two = backend.dial();
    let first = one.run(gated(&gate), one_at_a_time(&queue, 1));
    let second = two.run(gated(&gate), one_at_a_time(&queue, 1));
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let calls = ["a", "b"].map(|body| {
        let call = client.begin(CallOptions::default(), request("wait", body));
        (body, call)
    });
    // Each can hold one, so each holds one.
    gate.expect(2);
    assert_eq!((first.stats().received, second.stats().received), (1, 1));
    gate.open();
    for (body, mut call) in calls {
        assert_eq!(call.end().expect("it is answered"), body);
    }
}

pub(super) fn what_is_not_run_waits_for_no_handler(backend: &dyn Backend) {
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let (one, queue) = backend.with_queue();
    let limits = policy(&queue, |policy| policy.max_request = 10);
    let _server = one.run(gated(&gate), one_at_a_time(&queue, 5).with_policy(limits));
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let mut busy = client.begin(CallOptions::default(), request("wait", "hello"));
    gate.expect(1);
    let mut large = client.begin(CallOptions::default(), request("wait", &"x".repeat(11)));
    let error = large.end().expect_err("it is over the limit");
    assert_eq!(error.reason(), Reason::MessageTooLarge, "{error:?}");
    gate.open();
    assert_eq!(busy.end().expect("it is answered"), "hello");
}

pub(super) fn a_worker_that_dies_loses_no_request(backend: &dyn Backend) {
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let first = backend.with_service(gated(&gate));
    let connection = backend.dial();
    let client = connection.calls(&first.queue);
    let mut call = client.begin(CallOptions::default(), request("wait", "hello"));
    gate.expect(1);
    first.connection.close().expect("it closes");

    let unhurried = Gate::default();
    unhurried.open();
    let second = backend.dial();
    let server = second.run(gated(&unhurried), options(&first.queue));
    assert_eq!(call.end().expect("the other worker answers"), "hello");
    assert_eq!(unhurried.come(), 1);
    assert_eq!(server.stats().ok, 1);
}

/// Counts how often each request ran.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<HashMap<String, usize>>>);

impl Tally {
    fn router(&self, gate: &Gate) -> Router {
        let (tally, gate) = (self.clone(), gate.clone());
        Router::new().handle_blocking("work", move |text: String| {
            let mut runs = tally.0.lock().unwrap_or_else(PoisonError::into_inner);
            *runs.entry(text.clone()).or_default() += 1;
            drop(runs);
            gate.pass();
            Ok(text)
        })
    }

    fn runs(&self) -> HashMap<String, usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

pub(super) fn a_drain_finishes_what_began_and_hands_back_the_rest(backend: &dyn Backend) {
    let (gate, unhurried) = (Gate::default(), Gate::default());
    let _open = gate.opened_at_the_end();
    unhurried.open();
    let tally = Tally::default();
    let (one, queue) = backend.with_queue();
    let first = one.run(tally.router(&gate), one_at_a_time(&queue, 5));
    let connection = backend.dial();
    let client = connection.calls(&queue);
    let begin = |body| client.begin(CallOptions::default(), request("work", body));
    let mut begun = begin("begun");
    gate.expect(1);
    let rest = ["1", "2", "3", "4"].map(|body| (body, begin(body)));

    let two = backend.dial();
    thread::scope(|scope| {
        let drain = scope.spawn(|| first.drain(SOON));
        // The first worker may still hold all five. That these are answered while its gate is shut
        // is the proof that it hands them back.
        let second = two.run(tally.router(&unhurried), options(&queue));
        for (body, mut call) in rest {
            assert_eq!(call.end().expect("the other worker answers"), body);
        }
        assert_eq!(second.stats().ok, 4);
        gate.open();
        let report = drain.join().expect("the drain ends");
        assert_eq!((report.unfinished, report.stats.ok), (0, 1), "{report:?}");
    });
    assert_eq!(begun.end().expect("the first worker answers"), "begun");
    let runs = tally.runs();
    assert_eq!(runs.len(), 5);
    assert!(runs.values().all(|runs| *runs == 1), "{runs:?}");
}

pub(super) fn a_drain_ends_at_its_limit(backend: &dyn Backend) {
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let served = backend.with_service(gated(&gate));
    let connection = backend.dial();
    let client = connection.calls(&served.queue);
    let mut call = client.begin(CallOptions::default(), request("wait", "hello"));
    gate.expect(1);
    let report = served.server.drain(Duration::from_millis(100));
    assert_eq!(report.unfinished, 1, "{report:?}");
    served.connection.close().expect("it closes");

    let unhurried = Gate::default();
    unhurried.open();
    let second = backend.dial();
    let _server = second.run(gated(&unhurried), options(&served.queue));
    assert_eq!(call.end().expect("the other worker answers"), "hello");
}

pub(super) fn a_dropped_server_takes_no_more_requests(backend: &dyn Backend) {
    let (forgotten, open) = (Gate::default(), Gate::default());
    forgotten.open();
    open.open();
    let first = backend.with_service(gated(&forgotten));
    let connection = backend.dial();
    let client = connection.calls(&first.queue);
    client.assert_works();
    drop(first.server);
    let second = backend.dial();
    let _server = second.run(gated(&open), options(&first.queue));
    // Dropping works in the background. Once the first has gone, the second gets them all, and a
    // run of twenty is one that two who share would not let pass.
    let streak = || {
        let before = forgotten.come();
        for _ in 0..20 {
            let answer = client.ask("wait", "hello");
            assert_eq!(answer.expect("somebody answers"), "hello");
        }
        forgotten.come() == before
    };
    crate::steps::eventually("the dropped server is gone", streak);
}
