//! Who runs beside a request that may end its worker's process.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use rpc_core::{CallOptions, QueueSpec, ServerOptions};

use super::promises::question;
use crate::backend::Backend;
use crate::steps::{Gate, eventually, gated, request, short};

pub(super) fn while_a_suspect_is_in_hand_nothing_else_begins(backend: &dyn Backend) {
    let spec = QueueSpec::quorum(backend.queue());
    let connection = backend.dial();
    if connection.declare(&spec).is_err() {
        return;
    }
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let four = NonZeroUsize::new(4).expect("it is not zero");
    // A quorum queue has a quarantine by itself.
    let options = ServerOptions::new(spec.clone()).with_concurrency(four);
    let server = connection.run(gated(&gate), options);

    let sender = backend.dial();
    let mut inbox = sender.inbox();
    let mut suspect = question(&*inbox, "suspect");
    suspect.kind = Some(short("wait"));
    sender.send(&short(format!("{}.quarantine", spec.name)), suspect);
    gate.expect(1);
    let client = connection.calls(&spec.name);
    let sent = Instant::now();
    let _work = client.begin(CallOptions::default(), request("wait", "work"));
    eventually("it is taken in", || server.stats().received == 2);
    // It would begin at once. That it does not is seen for a moment only: it waits for a second.
    while sent.elapsed() < Duration::from_millis(100) {
        std::thread::yield_now();
    }
    let come = gate.come();
    assert!(
        come == 1 || sent.elapsed() > LONG,
        "it runs beside a suspect"
    );
    gate.open();
    gate.expect(2);
    inbox.expect("suspect");
    eventually("both are answered", || server.stats().replied == 2);
}

pub(super) fn work_does_not_wait_for_ever_for_a_slow_suspect(backend: &dyn Backend) {
    let spec = QueueSpec::quorum(backend.queue());
    let connection = backend.dial();
    if connection.declare(&spec).is_err() {
        return;
    }
    let gate = Gate::default();
    let _open = gate.opened_at_the_end();
    let two = NonZeroUsize::new(2).expect("it is not zero");
    let options = ServerOptions::new(spec.clone()).with_concurrency(two);
    let _server = connection.run(gated(&gate), options);
    let sender = backend.dial();
    let inbox = sender.inbox();
    let mut suspect = question(&*inbox, "suspect");
    suspect.kind = Some(short("wait"));
    sender.send(&short(format!("{}.quarantine", spec.name)), suspect);
    gate.expect(1);
    // It holds one of two places, and goes on doing so.
    connection.calls(&spec.name).assert_works();
    assert_eq!(gate.come(), 1);
}

/// Half of what work waits at the most.
const LONG: Duration = Duration::from_millis(500);
