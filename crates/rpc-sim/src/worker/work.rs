//! What runs in a worker: whose turn it is, and how a handler ends.

use rpc_proto::server::{Begun, Ending, Finished, Job, Request, Response, Running};
use rpc_proto::{Status, TransportError};

use super::{AtWork, Drain, Fate, Origin, Planned, Worker, answer};
use crate::event::Wake;
use crate::ledger::{Ledger, Started};
use crate::peer::closed;
use crate::rule::Rule;
use crate::setting::{Setting, Work};
use crate::time::{MS, Micros, span};
use crate::wire::Wire;

impl Worker {
    pub(super) fn begin(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        job: Job,
        origin: Origin,
    ) {
        match job.begin(wire.instant()) {
            Begun::AckFirst(token, then) => {
                let acked = match &self.home.peer {
                    Some(peer) => peer.ack(wire, &token),
                    None => Err(closed("ack")),
                };
                let said = acked.as_ref().map(|&()| ());
                match then.handle_ack(wire.instant(), said) {
                    Ok(work) => self.run(wire, ledger, setting, work, origin, Some(acked)),
                    Err(joined) => {
                        for settlement in joined {
                            let joined = Origin {
                                correlation_id: origin.correlation_id.clone(),
                                turn: None,
                                ..origin
                            };
                            self.settle(wire, ledger, setting, settlement, joined);
                        }
                    }
                }
            }
            Begun::Joined => {}
            Begun::Run(request, running) => {
                self.run(wire, ledger, setting, (request, running), origin, None);
            }
            Begun::Settle(settlement) => self.settle(wire, ledger, setting, settlement, origin),
        }
    }

    fn run(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        (request, running): (Request, Running),
        origin: Origin,
        acked: Option<Result<(), TransportError>>,
    ) {
        let call = std::str::from_utf8(&request.body)
            .ok()
            .and_then(|text| text.parse::<usize>().ok())
            .unwrap_or(usize::MAX);
        wire.trace("worker.run", [self.number as u64, call as u64, 0]);
        if self.drain == Drain::Stopped {
            let detail = format!("worker {} began after its drain", self.number);
            ledger.breach(Rule::DrainBeginsNothing, Some(call), detail);
        }
        if setting.at_most_once && acked.is_none_or(|acked| acked.is_err()) {
            let detail = "it ran, and was not acknowledged before";
            ledger.breach(Rule::AtMostOnce, Some(call), detail);
        }
        let id = origin.correlation_id.as_ref();
        self.watch
            .begins(ledger, setting, wire.now, (self.number, &request), id);
        let record = ledger.executed(&Started {
            correlation_id: origin.correlation_id.as_ref(),
            message_id: request.message_id.as_ref(),
            worker: self.number,
            life: self.home.owner.life,
        });
        let (work, blocks) = setting.work(call).unwrap_or((Work::Answer(MS), false));
        let (plan, takes) = match work {
            Work::Answer(takes) => (Planned::Answer(call), takes),
            Work::Fail(takes) => (Planned::Fail, takes),
            Work::Panic => (Planned::Panic, MS / 2),
            Work::Poison => (Planned::Kill, MS / 2),
            Work::Stuck => (Planned::TimeOut, Micros::MAX),
        };
        let left = span(running.deadline().saturating_duration_since(wire.instant()));
        // One that cannot be stopped has a moment to come back by itself.
        let most = if blocks { left + GRACE } else { left };
        let number = self.next;
        self.next += 1;
        let returns = wire.now.saturating_add(takes);
        let (plan, end) = if takes < most {
            (plan, returns)
        } else {
            (Planned::TimeOut, wire.now + most)
        };
        wire.wake(self.home.owner, end, Wake::Handler(number));
        if let Some(at) = running.poll_notice() {
            let at = wire.clock.micros(at);
            if at < end {
                wire.wake(self.home.owner, at, Wake::Notice(number));
            }
        }
        self.running.insert(
            number,
            AtWork {
                running,
                origin,
                record,
                plan,
                blocks: blocks.then_some(returns),
            },
        );
    }

    /// A handler has run for so long that its caller should know.
    pub(super) fn notice(&mut self, wire: &mut Wire, number: u64) {
        let now = wire.instant();
        let Some(work) = self.running.get_mut(&number) else {
            return;
        };
        let notice = work.running.notice(now);
        let here = work.origin.generation == self.home.generation;
        if let (Some((to, message)), Some(peer), true) = (notice, &mut self.home.peer, here) {
            wire.trace("worker.notice", [self.number as u64, number, 0]);
            peer.publish_unasked(wire, &to, message);
        }
    }

    /// A caller has gone: its handler is stopped where it awaits.
    pub(super) fn stop_cancelled(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
    ) {
        let cancelled: Vec<_> = self
            .running
            .iter()
            .filter(|(_, work)| work.blocks.is_none())
            .filter(|(_, work)| work.running.cancellation().is_cancelled())
            .map(|(&number, _)| number)
            .collect();
        for number in cancelled {
            wire.trace("worker.cancelled", [self.number as u64, number, 0]);
            if let Some(work) = self.running.remove(&number) {
                ledger.cancelled(work.origin.correlation_id.as_ref());
                self.finish(wire, ledger, setting, work, Ending::Cancelled);
            }
        }
        self.begin_next(wire, ledger, setting);
    }

    pub(super) fn handler_ends(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        number: u64,
    ) -> Fate {
        let Some(work) = self.running.remove(&number) else {
            return Fate::Lives;
        };
        if work.running.cancellation().is_cancelled() {
            // It could not be stopped; nobody awaits its answer.
            ledger.cancelled(work.origin.correlation_id.as_ref());
        }
        let ending = match work.plan {
            Planned::Kill => {
                self.dies(ledger, &work.origin);
                return Fate::Dies;
            }
            Planned::Answer(call) => Ending::Answered(Ok(Response {
                body: answer(call).into(),
                content_type: None,
            })),
            Planned::Fail => Ending::Answered(Err(Status::out_of_range("as planned"))),
            Planned::Panic => Ending::Panicked,
            Planned::TimeOut => {
                if let Some(returns) = work.blocks {
                    let given_up = self.acceptor.give_up();
                    wire.wake(self.home.owner, returns, Wake::Returned(number));
                    self.away.insert(number, given_up);
                }
                Ending::TimedOut
            }
        };
        self.finish(wire, ledger, setting, work, ending);
        Fate::Lives
    }

    fn finish(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        work: AtWork,
        ending: Ending,
    ) {
        if let Some(record) = work.record {
            ledger.finished(record, !matches!(ending, Ending::Cancelled));
        }
        let Finished { settlement, joined } = work.running.finish(wire.instant(), ending);
        self.settle(wire, ledger, setting, settlement, work.origin);
        for settlement in joined {
            // Their replies say whose they are, and they may be repeated ones.
            let origin = Origin {
                correlation_id: None,
                generation: self.home.generation,
                redelivered: true,
                joined: true,
                turn: None,
                asked: None,
                forced: false,
            };
            self.settle(wire, ledger, setting, settlement, origin);
        }
    }
}

/// How long after its deadline a handler that cannot be stopped is given up.
const GRACE: Micros = 50 * MS;
