//! What must be true when all is over. What can be seen as it happens is checked where it happens.

mod retry;

use rpc_proto::Certainty;

use crate::ledger::{Attempt, Call, End, Execution};
use crate::mix::Fault;
use crate::rule::Rule;
use crate::setting::Setting;
use crate::time::{Micros, SECOND};
use crate::worker::{QUARANTINE, QUEUE};
use crate::world::{Process, World};

/// Checks everything that can only be known at the end.
pub(crate) fn at_the_end(world: &mut World) {
    let mut found = Vec::new();
    for (number, call) in world.ledger.calls.iter().enumerate() {
        let plan = &world.setting.calls[number];
        let mut breach = |rule, detail: String| found.push((rule, Some(number), detail));
        if call.begun.is_some() && call.ended.is_none() && !call.orphaned {
            breach(Rule::EndsInTime, "has not ended at all".into());
        }
        honest(&world.setting, call, &mut breach);
        executions(&world.setting, call, &mut breach);
        cancelled(world, number, &mut breach);
        retry::attempts(plan, call, &mut breach);
        if plan.probe
            && !matches!(call.ended, Some((_, End::Ok)))
            && !outdated(&world.setting, call)
        {
            breach(
                Rule::Liveness,
                format!("a probe ended with {:?}", call.ended),
            );
        }
    }
    for (place, slot) in world.processes.iter().enumerate() {
        let (up, left) = match &slot.running {
            None => (false, 0),
            Some(Process::Client(client)) => (client.is_up(), client.in_flight()),
            Some(Process::Worker(worker)) => (worker.is_up(), usize::from(!worker.is_idle())),
        };
        if !up {
            found.push((Rule::Reconnects, None, format!("process {place} is not up")));
        }
        if left > 0 {
            let detail = format!("process {place} holds {left} when all is over");
            found.push((Rule::TablesEmpty, None, detail));
        }
    }
    for queue in [&QUEUE, &QUARANTINE] {
        let depth = world.broker.depth(queue);
        if depth > 0 {
            let detail = format!("{depth} requests are left in {queue}");
            found.push((Rule::QueuesDrain, None, detail));
        }
    }
    for (rule, call, detail) in found {
        world.ledger.breach(rule, call, detail);
    }
}

/// Whether a worker whose clock is ahead took a call for one that has waited for long.
fn outdated(setting: &Setting, call: &Call) -> bool {
    let Some((_, End::Failed(_, reason))) = &call.ended else {
        return false;
    };
    let (clients, workers) = setting.skew.split_at(setting.clients);
    let ahead = workers.iter().max().zip(clients.iter().min());
    ["EXPIRED", "HANDLER_TIMED_OUT", "SHED"].contains(&reason.as_str())
        && ahead.is_some_and(|(worker, client)| worker - client > 2_000)
}

/// What an error says of the handler is true.
fn honest(setting: &Setting, call: &Call, breach: &mut impl FnMut(Rule, String)) {
    for (place, attempt) in call.attempts.iter().enumerate() {
        let ran = call.executions.iter().any(|run| run.attempt == place);
        let Some(failure) = attempt.ended else {
            continue;
        };
        let excused = excused(setting, attempt);
        if ran && failure.certainty == Certainty::NotExecuted && !excused {
            let detail = format!("attempt {place} was said not to have run, and did");
            breach(Rule::HonestNotExecuted, detail);
        }
    }
    let Some((_, End::Failed(certainty, reason))) = &call.ended else {
        return;
    };
    let ran = call.executions.len();
    let mut attempts = call.attempts.iter();
    let excused = attempts.any(|attempt| excused(setting, attempt));
    match certainty {
        Certainty::NotExecuted if ran > 0 && !excused => {
            breach(
                Rule::HonestNotExecuted,
                format!("{reason}, and it ran {ran} times"),
            );
        }
        Certainty::Executed if ran == 0 => {
            breach(
                Rule::HonestExecuted,
                format!("{reason}, and it did not run"),
            );
        }
        _ => {}
    }
}

/// Whether "not executed" cannot be known of an attempt by anybody.
///
/// Workers whose clocks differ do not agree on how long a request has waited: what the first has shed
/// may run on the second, if its acknowledgement was lost. And where a broker crashed and brings back
/// what was acknowledged as if it were new, no worker sees that another has refused it.
fn excused(setting: &Setting, attempt: &Attempt) -> bool {
    let shed = attempt.ended.is_some_and(|failure| failure.shed);
    (shed && disagree(setting)) || attempt.forgotten > 0
}

fn disagree(setting: &Setting) -> bool {
    let workers = &setting.skew[setting.clients..];
    workers.iter().any(|skew| *skew != workers[0])
}

/// Nothing runs more often than it was sent and came back, nor than its service promises.
fn executions(setting: &Setting, call: &Call, breach: &mut impl FnMut(Rule, String)) {
    let ran = call.executions.len();
    let again: usize = call.attempts.iter().map(|one| one.redeliveries).sum();
    let disowned: usize = call.attempts.iter().map(|one| one.disowned).sum();
    let most = call.attempts.len() + again + disowned;
    if ran > most {
        let attempts = call.attempts.len();
        breach(
            Rule::Executions,
            format!("{ran} executions of {attempts} attempts and {again} redeliveries"),
        );
    }
    for (place, attempt) in call.attempts.iter().enumerate() {
        let of = |run: &&Execution| run.attempt == place;
        let ran = call.executions.iter().filter(of).count();
        if setting.at_most_once && ran > 1 + attempt.forgotten {
            breach(Rule::AtMostOnce, format!("it ran {ran} times"));
        }
        let Some(limit) = setting.quarantine else {
            continue;
        };
        // A queue that does not count gives nobody a second chance.
        let each = if setting.quorum { limit as usize } else { 1 };
        let most = 1 + each * attempt.forwarded + attempt.disowned + attempt.forgotten;
        if ran > most {
            let times = attempt.forwarded;
            let detail = format!("it ran {ran} times, and was put in quarantine {times} times");
            breach(Rule::Poison, detail);
        }
    }
    if setting.dedup {
        deduplicated(call, breach);
    }
}

/// While an answer is kept, or still worked on, nothing runs again under its key.
fn deduplicated(call: &Call, breach: &mut impl FnMut(Rule, String)) {
    for (place, run) in call.executions.iter().enumerate() {
        let again = call.executions[..place].iter().find(|one| {
            (one.worker, one.life, &one.message_id) == (run.worker, run.life, &run.message_id)
                && !matches!(one.finished, Some((at, false)) if at <= run.at)
        });
        if let Some(one) = again {
            let detail = format!("it ran at {}, and again at {} us", one.at, run.at);
            breach(Rule::DedupOnce, detail);
        }
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
    let (Some((at, End::GivenUp)), [_]) = (&call.ended, &call.attempts[..]) else {
        // Of several attempts only the last can be cancelled.
        return;
    };
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
