//! What runs in a worker, and how a handler ends.

use rpc_proto::server::{
    Begun, Due, Ending, Finished, Job, Request, Response, Running, Settlement,
};
use rpc_proto::{Status, TransportError};

use super::{AtWork, Drain, Fate, Origin, Planned, Taken, Worker, answer};
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
            Begun::Joined => {
                let id = origin.correlation_id.as_ref();
                self.watch.passes(ledger, setting, origin.taken, id);
            }
            Begun::Run(request, running) => {
                self.run(wire, ledger, setting, (request, running), origin, None);
            }
            Begun::Settle(settlement) => {
                if let Settlement::Reply { .. } = &settlement {
                    let id = origin.correlation_id.as_ref();
                    self.watch.passes(ledger, setting, origin.taken, id);
                }
                self.settle(wire, ledger, setting, settlement, origin);
            }
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
        ledger.begins(origin.correlation_id.as_ref());
        self.watch.admits(
            ledger,
            setting,
            origin.taken,
            origin.correlation_id.as_ref(),
        );
        let number = self.next;
        self.next += 1;
        let notice = running.poll_timeout();
        if notice < running.deadline() {
            let at = wire.clock.micros(notice);
            wire.wake(self.home.owner, at, Wake::Notice(number));
        }
        let (_, blocks) = setting.work(call).unwrap_or((Work::Answer(MS), None));
        let work = AtWork {
            call,
            message_id: request.message_id,
            running,
            origin,
            record: None,
            plan: Planned::Wait,
            blocks: blocks.map(|_| Micros::MAX),
        };
        let after = blocks.unwrap_or(0);
        if after == 0 {
            self.start(wire, ledger, setting, number, work);
        } else {
            let last = wire.clock.micros(work.running.deadline()) + span(Running::GRACE);
            let at = last.min(wire.now + after);
            wire.wake(self.home.owner, at, Wake::Thread(number));
            self.running.insert(number, work);
        }
    }

    /// There is a thread for a handler that needs one, or no use for it any more.
    pub(super) fn thread(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        number: u64,
    ) {
        let Some(work) = self.running.remove(&number) else {
            return;
        };
        let cancelled = work.running.cancellation().is_cancelled();
        if cancelled {
            ledger.cancelled(work.origin.correlation_id.as_ref());
        }
        if cancelled || work.running.deadline() <= wire.instant() {
            wire.trace("worker.no-thread", [self.number as u64, number, 0]);
            self.finish(wire, ledger, setting, work, Ending::Expired);
            self.begin_next(wire, ledger, setting);
        } else {
            self.start(wire, ledger, setting, number, work);
        }
    }

    /// The handler is called.
    fn start(
        &mut self,
        wire: &mut Wire,
        ledger: &mut Ledger,
        setting: &Setting,
        number: u64,
        mut work: AtWork,
    ) {
        let id = work.origin.correlation_id.as_ref();
        self.watch.starts(ledger, setting, work.origin.taken, id);
        work.record = ledger.executed(&Started {
            correlation_id: id,
            message_id: work.message_id.as_ref(),
            worker: self.number,
            life: self.home.owner.life,
        });
        let (what, _) = setting.work(work.call).unwrap_or((Work::Answer(MS), None));
        let (plan, takes) = match what {
            Work::Answer(takes) => (Planned::Answer(work.call), takes),
            Work::Fail(takes) => (Planned::Fail, takes),
            Work::Panic => (Planned::Panic, MS / 2),
            Work::Poison => (Planned::Kill, MS / 2),
            Work::Stuck => (Planned::TimeOut, Micros::MAX),
        };
        let deadline = work.running.deadline();
        let left = span(deadline.saturating_duration_since(wire.instant()));
        // One that cannot be stopped has a moment to come back by itself.
        let most = left + work.blocks.map_or(0, |_| span(Running::GRACE));
        let returns = wire.now.saturating_add(takes);
        work.blocks = work.blocks.map(|_| returns);
        let end = if takes < most {
            work.plan = plan;
            returns
        } else {
            work.plan = Planned::TimeOut;
            wire.now + most
        };
        wire.wake(self.home.owner, end, Wake::Handler(number));
        self.running.insert(number, work);
    }

    /// A handler has run for so long that its caller should know.
    pub(super) fn notice(&mut self, wire: &mut Wire, number: u64) {
        let now = wire.instant();
        let Some(work) = self.running.get_mut(&number) else {
            return;
        };
        if now >= work.running.deadline() {
            // The process was stopped meanwhile, and the end of the handler is due as well.
            return;
        }
        let due = work.running.poll(now);
        let here = work.origin.generation == self.home.generation;
        if let (Some(Due::Notice(to, message)), Some(peer), true) = (due, &mut self.home.peer, here)
        {
            wire.trace("worker.notice", [self.number as u64, number, 0]);
            peer.publish_unasked(wire, &to, *message);
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
            Planned::Wait => return Fate::Lives,
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
                    self.away.insert(number, (work.origin.part(), given_up));
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
            // What it says that was told to stop is no answer to keep, unless it is a result.
            let stopped = work.running.cancellation().is_cancelled()
                && !matches!(ending, Ending::Answered(Ok(_)));
            ledger.finished(record, !stopped);
        }
        let Finished { settlement, joined } = work.running.finish(wire.instant(), ending);
        self.settle(wire, ledger, setting, settlement, work.origin);
        for settlement in joined {
            // Their replies say whose they are, and they may be repeated ones.
            let origin = Origin {
                correlation_id: None,
                generation: self.home.generation,
                taken: Taken {
                    at: wire.now,
                    lives: None,
                    redelivered: true,
                    doubted: false,
                },
                joined: true,
                turn: None,
                forced: false,
            };
            self.settle(wire, ledger, setting, settlement, origin);
        }
    }
}
