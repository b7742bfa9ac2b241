//! Who sends the acknowledgements that are held back where their consumer does not look.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::select;
use tokio::sync::Notify;

use crate::shared::Shared;

/// How long an acknowledgement is held back at most, about: timers go by milliseconds.
const LONGEST: Duration = Duration::from_millis(1);
/// After so many looks in vain nobody looks any more, until there is something again.
const LOOKS: u32 = 20;

/// Asleep as long as nothing is acknowledged: to wake it for each would cost more than it saves.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    armed: AtomicBool,
    wake: Notify,
}

impl Sweep {
    /// There is something to send.
    pub(crate) fn arm(&self) {
        if !self.armed.load(Ordering::Relaxed) && !self.armed.swap(true, Ordering::AcqRel) {
            self.wake.notify_one();
        }
    }
}

/// Looks after all consumers of a transport, until it is over.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut over = shared.over();
    let sweeping = async {
        let sweep = &shared.sweep;
        loop {
            sweep.wake.notified().await;
            let mut in_vain = 0;
            while in_vain < LOOKS {
                tokio::time::sleep(LONGEST).await;
                in_vain = if shared.send_acks() { 0 } else { in_vain + 1 };
            }
            sweep.armed.swap(false, Ordering::AcqRel);
            // Of one that has found it armed just before.
            shared.send_acks();
        }
    };
    select(pin!(sweeping), pin!(over.wait_for(|over| *over))).await;
}
