//! What comes to a worker: a new transport, deliveries, confirms, and the end of its transport.

use rpc_proto::server::{Accepted, Lane as Source};
use rpc_proto::{AckToken, Delivery, wire as form};

use super::turns::Task;
use super::{Drain, Origin, Taken, Worker};
use crate::conn::Deliver;
use crate::ledger::Ledger;
use crate::peer::News;
use crate::setting::Setting;
use crate::time::span;
use crate::wire::Wire;

impl Worker {
    pub(super) fn move_in(&mut self) {
        let Some(peer) = &self.home.peer else { return };
        self.acceptor.set_control(Some(peer.inbox.clone()));
        self.intakes = [Source::Work, Source::Quarantine]
            .into_iter()
            .take(peer.consumers.len() - 1)
            .map(|source| self.acceptor.intake(source))
            .collect();
    }

    pub(super) fn news(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        news: News<u64>,
    ) {
        match news {
            News::Confirmed(number, result) => {
                self.confirmed(wire, ledger, setting, number, result);
            }
            News::Delivery(0, deliver) => {
                if self.acceptor.handle_cancel(&deliver.message) {
                    self.stop_cancelled(wire, ledger, setting);
                }
            }
            News::Delivery(place, deliver) => {
                self.deliver(wire, ledger, setting, place, &deliver);
            }
            News::CancelOk => {
                if let Drain::Asked(left) = &mut self.drain {
                    *left -= 1;
                    if *left == 0 {
                        self.stop(wire, ledger, setting);
                    }
                }
            }
            // Without its inbox it cannot be told to stop, and goes on.
            News::Cancelled(0) => {}
            News::Cancelled(_) => {
                // What has begun still needs the transport, where no other is to come.
                if self.drain == Drain::No {
                    let news = self.home.leave(wire);
                    self.news(wire, ledger, setting, news);
                }
            }
            News::Ended(cause, open) => {
                self.intakes.clear();
                self.acceptor.set_control(None);
                for number in open {
                    self.confirmed(wire, ledger, setting, number, Err(cause.clone()));
                }
                self.hand_back(wire, ledger, setting);
                if matches!(self.drain, Drain::Asked(_)) {
                    self.stop(wire, ledger, setting);
                }
            }
            News::Unblocked | News::Nothing => {}
        }
    }

    fn deliver(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        place: usize,
        deliver: &Deliver,
    ) {
        let (Some(peer), Some(intake)) = (&self.home.peer, self.intakes.get(place - 1)) else {
            return;
        };
        let mut message = (*deliver.message).clone();
        if let Some(failures) = deliver.failures.filter(|&failures| failures > 0) {
            let count = i64::from(failures);
            let _ = message.headers.insert(form::DELIVERY_COUNT, count);
        }
        let delivery = Delivery {
            message,
            received_at: wire.instant(),
            redelivered: deliver.redelivered,
            token: Some(AckToken::new(peer.consumers[place].1, deliver.tag)),
        };
        wire.trace(
            "worker.take",
            [
                self.number as u64,
                deliver.tag,
                u64::from(deliver.redelivered),
            ],
        );
        let lives = deliver.message.expiration;
        let redelivered = deliver.redelivered || place > 1;
        let unix_ms = setting.unix_ms(self.home.owner.process, wire.now);
        let taken = Taken {
            at: wire.now,
            lives: lives.map(|lives| span(lives.as_duration())),
            redelivered,
            doubted: self
                .doubts
                .takes(&deliver.message, redelivered, unix_ms, wire.now),
        };
        let accepted = intake.accept(delivery, wire.instant(), unix_ms);
        let origin = Origin {
            correlation_id: deliver.message.correlation_id.clone(),
            generation: self.home.generation,
            taken,
            joined: false,
            turn: self.acceptor.arrive(&accepted),
            forced: false,
        };
        let task = match accepted {
            Accepted::Forward(forward) => Task::Forward(forward),
            Accepted::Job(job) => Task::Run(job),
            Accepted::Joined => return,
            Accepted::Settlement(settlement) if !self.blocking => {
                return self.settle(wire, ledger, setting, settlement, origin);
            }
            Accepted::Settlement(settlement) => Task::Settle(settlement),
        };
        self.wait(task, origin);
        self.begin_next(wire, ledger, setting);
    }
}
