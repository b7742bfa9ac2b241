//! How a worker stops: the consumers first, then all that has not begun.

use super::{Drain, Fate, Worker};
use crate::event::Wake;
use crate::ledger::Ledger;
use crate::setting::Setting;
use crate::time::{MS, Micros};
use crate::wire::Wire;

impl Worker {
    /// Begins to drain.
    pub(crate) fn drain(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
    ) -> Fate {
        if self.drain != Drain::No {
            return Fate::Lives;
        }
        wire.trace("worker.drain", [self.number as u64, 0, 0]);
        let limit = wire.now + DRAIN_LIMIT;
        wire.wake(self.home.owner, limit, Wake::DrainTimeout);
        match &self.home.peer {
            Some(peer) if peer.open => {
                self.drain = Drain::Asked(self.intakes.len());
                for place in 1..=self.intakes.len() {
                    peer.cancel(wire, place);
                }
            }
            _ => {
                self.home.close(wire);
                self.stop(wire, ledger, setting);
            }
        }
        self.go_on(wire)
    }

    /// Lets nothing begin any more, and hands back what has not begun.
    pub(super) fn stop(&mut self, wire: &mut Wire, ledger: &mut Ledger, setting: &Setting) {
        self.drain = Drain::Stopped;
        self.acceptor.drain();
        self.begin_next(wire, ledger, setting);
    }
}

const DRAIN_LIMIT: Micros = 3_000 * MS;
