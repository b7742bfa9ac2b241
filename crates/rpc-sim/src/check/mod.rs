//! What must be true when all is over. What can be seen as it happens is checked where it happens.

mod retry;

use rpc_proto::Certainty;

use crate::ledger::{Call, End};
use crate::rule::Rule;
use crate::worker::QUEUE;
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
        honest(call, &mut breach);
        executions(call, &mut breach);
        retry::attempts(plan, call, &mut breach);
        if plan.probe && !matches!(call.ended, Some((_, End::Ok))) {
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
    let depth = world.broker.depth(&QUEUE);
    if depth > 0 {
        found.push((
            Rule::QueuesDrain,
            None,
            format!("{depth} requests are left"),
        ));
    }
    for (rule, call, detail) in found {
        world.ledger.breach(rule, call, detail);
    }
}

/// What an error says of the handler is true.
fn honest(call: &Call, breach: &mut impl FnMut(Rule, String)) {
    let Some((_, End::Failed(certainty, reason))) = &call.ended else {
        return;
    };
    let ran = call.executions.len();
    for (place, attempt) in call.attempts.iter().enumerate() {
        let ran = call.executions.iter().any(|run| run.attempt == place);
        if ran && matches!(attempt.ended, Some((_, Certainty::NotExecuted, _))) {
            let detail = format!("attempt {place} was said not to have run, and did");
            breach(Rule::HonestNotExecuted, detail);
        }
    }
    match certainty {
        Certainty::NotExecuted if ran > 0 => {
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

/// Nothing runs more often than it was sent and came back.
fn executions(call: &Call, breach: &mut impl FnMut(Rule, String)) {
    let ran = call.executions.len();
    let again: u32 = call
        .attempts
        .iter()
        .map(|attempt| attempt.redeliveries)
        .sum();
    let most = call.attempts.len() + usize::try_from(again).unwrap_or(usize::MAX);
    if ran > most {
        let attempts = call.attempts.len();
        breach(
            Rule::Executions,
            format!("{ran} executions of {attempts} attempts and {again} redeliveries"),
        );
    }
}
