//! What must be true when all is over. What can be seen as it happens is checked where it happens.

mod honest;
mod kept;
mod retry;
mod runs;

use crate::ledger::End;
use crate::mix::Fault;
use crate::rule::Rule;
use crate::time::{Micros, SECOND};
use crate::worker::{QUARANTINE, QUEUE};
use crate::world::{Process, World};

/// Checks everything that can only be known at the end.
pub(crate) fn at_the_end(world: &mut World) {
    let mut found = Vec::new();
    // Where a process or a queue is stuck, its calls are, too: that comes first.
    for (place, slot) in world.processes.iter().enumerate() {
        let (up, left) = match &slot.running {
            None => (false, 0),
            Some(Process::Client(client)) => (client.is_up(), client.in_flight()),
            Some(Process::Worker(worker)) => (worker.is_up(), usize::from(!worker.is_idle())),
        };
        if !up {
            found.push((Rule::Reconnects, None, format!("process {place} is not up")));
        }
        let stuck = match &slot.running {
            Some(Process::Worker(worker)) => worker.miscounted(),
            _ => None,
        };
        if let Some(detail) = stuck {
            found.push((Rule::TablesEmpty, None, format!("process {place} {detail}")));
        }
        if left > 0 {
            let detail = format!("process {place} holds {left} when all is over");
            found.push((Rule::TablesEmpty, None, detail));
        }
    }
    kept::dead_letters(world, &mut |call, detail| {
        found.push((Rule::DeadLetters, Some(call), detail));
    });
    for queue in [&QUEUE, &QUARANTINE] {
        let depth = world.broker.depth(queue);
        if depth > 0 {
            let detail = format!("{depth} requests are left in {queue}");
            found.push((Rule::QueuesDrain, None, detail));
        }
    }
    for (number, call) in world.ledger.calls.iter().enumerate() {
        let plan = &world.setting.calls[number];
        let mut breach = |rule, detail: String| found.push((rule, Some(number), detail));
        if call.begun.is_some() && call.ended.is_none() && !call.orphaned {
            breach(Rule::EndsInTime, "has not ended at all".into());
        }
        honest::errors(&world.setting, call, plan, &mut breach);
        kept::requests(world, call, plan, &mut breach);
        runs::executions(&world.setting, call, &mut breach);
        cancelled(world, number, &mut breach);
        retry::attempts(plan, call, &mut breach);
        if plan.probe
            && !matches!(call.ended, Some((_, End::Ok)))
            && !honest::outdated(&world.setting, call, plan)
        {
            breach(
                Rule::Liveness,
                format!("a probe ended with {:?}", call.ended),
            );
        }
    }
    for (rule, call, detail) in found {
        world.ledger.breach(rule, call, detail);
    }
}

/// Where nothing is lost, a caller that gives up stops its handler.
fn cancelled(world: &World, number: usize, breach: &mut impl FnMut(Rule, String)) {
    const HARMLESS: [Fault; 13] = [
        Fault::Burst,
        Fault::DuplicateReply,
        Fault::ForeignReply,
        Fault::GiveUp,
        Fault::HandlerError,
        Fault::ManyHops,
        Fault::Nack,
        Fault::Panic,
        Fault::QueueFull,
        Fault::Skew,
        Fault::SlowHandler,
        Fault::StrayMessage,
        Fault::WorkersLate,
    ];
    if world.setting.calls[number].blocks {
        return;
    }
    let call = &world.ledger.calls[number];
    let at = match &call.ended {
        Some((at, End::GivenUp)) => at,
        Some((at, End::Failed(_, reason))) if reason == "GIVEN_UP" => at,
        _ => return,
    };
    // Of several attempts only the last can be cancelled, and none that had failed before.
    let [attempt] = &call.attempts[..] else {
        return;
    };
    if attempt.ended.is_some_and(|failure| failure.at < *at) {
        return;
    }
    if world
        .wire
        .mix
        .faults()
        .iter()
        .any(|one| !HARMLESS.contains(&one))
    {
        return;
    }
    for run in &call.executions {
        let ended = run.finished.map_or(Micros::MAX, |(ended, _)| ended);
        if ended > run.at.max(*at) + SECOND {
            let detail = format!("given up at {at}, and its handler ran until {ended} us");
            breach(Rule::Cancelled, detail);
        }
    }
}
