//! `call`: one call for each number, all at the same time, printed in order.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use rpc_core::{CallError, CallOptions};
use serde::Serialize;

use super::Failure;
use super::args::{Call, CodecName};
use super::backend::Backend;
use super::drive::{Argument, Caller, Client, Event};
use super::failure::{call_error_kind, chain};
use super::output::{Shown, complain, say};
use super::session::Session;

pub(crate) fn run(args: &Call) -> Result<ExitCode, Failure> {
    let arguments = arguments(&args.numbers, args.calls.codec)?;
    let by = Instant::now() + args.calls.timeout;
    let backend = Backend::choose_within(&args.connect, args.calls.timeout)?;
    let printer: &mut dyn Printer = if args.json { &mut Json } else { &mut Lines };
    let session = match Session::open(
        &backend,
        &args.connect,
        &args.calls,
        &args.service,
        |options| options,
        arguments.len(),
        Some(by),
    ) {
        // A program that reads JSON finds there why each of its calls failed.
        Err(Failure::Connect(cause)) if args.json => {
            for (typed, _) in &arguments {
                printer.outcome(typed, Err(CallError::BrokerDown(cause.clone())))?;
            }
            return Ok(ExitCode::FAILURE);
        }
        opened => opened?,
    };
    let code = all(&session.client, arguments, by, printer)?;
    session.close();
    Ok(code)
}

/// A number as it was typed, and as it is sent.
pub(crate) type Typed = (String, Argument);

/// Checks what was typed.
pub(crate) fn arguments(numbers: &[String], codec: CodecName) -> Result<Vec<Typed>, Failure> {
    numbers
        .iter()
        .map(|typed| Ok((typed.clone(), Argument::new(typed, codec)?)))
        .collect()
}

/// Makes all calls, which end by a certain time, and prints each result as soon as those before it
/// are there.
pub(crate) fn all(
    client: &Client,
    arguments: Vec<Typed>,
    by: Instant,
    printer: &mut dyn Printer,
) -> Result<ExitCode, Failure> {
    let mut callers = Vec::new();
    for (typed, argument) in arguments {
        printer.requesting(&typed)?;
        callers.push(Once {
            typed,
            argument: Some(argument),
            by,
            outcome: None,
        });
    }
    let mut failed = false;
    let mut next = 0;
    let mut early = BTreeMap::new();
    client.drive(callers, |event| {
        if let Event::Done(place, once) = event {
            early.insert(place, once);
        }
        while let Some(Once { typed, outcome, .. }) = early.remove(&next) {
            next += 1;
            // A caller that is done has made its call.
            if let Some(outcome) = outcome {
                failed |= outcome.is_err();
                printer.outcome(&typed, outcome)?;
            }
        }
        Ok(())
    })?;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

struct Once {
    typed: String,
    argument: Option<Argument>,
    by: Instant,
    outcome: Option<Result<u128, CallError>>,
}

impl Caller for Once {
    fn next(&mut self) -> Option<Argument> {
        self.argument.take()
    }

    fn options(&self) -> CallOptions {
        CallOptions::timeout(self.by.saturating_duration_since(Instant::now()))
    }

    fn done(&mut self, outcome: Result<u128, CallError>) {
        self.outcome = Some(outcome);
    }
}

/// A way to print calls.
pub(crate) trait Printer {
    fn requesting(&mut self, typed: &str) -> Result<(), Failure>;

    fn outcome(&mut self, typed: &str, outcome: Result<u128, CallError>) -> Result<(), Failure>;
}

/// For people, in the words of the tutorial.
pub(crate) struct Lines;

impl Printer for Lines {
    fn requesting(&mut self, typed: &str) -> Result<(), Failure> {
        say(format_args!(" [x] Requesting fib({})", Shown(typed)))
    }

    fn outcome(&mut self, typed: &str, outcome: Result<u128, CallError>) -> Result<(), Failure> {
        match outcome {
            Ok(number) => say(format_args!(" [.] Got {number}")),
            Err(error) => {
                let (kind, said) = (call_error_kind(&error), chain(&error));
                complain(format_args!("error: {kind}: fib({}): {said}", Shown(typed)));
                Ok(())
            }
        }
    }
}

/// For programs.
struct Json;

impl Printer for Json {
    fn requesting(&mut self, _: &str) -> Result<(), Failure> {
        Ok(())
    }

    fn outcome(&mut self, typed: &str, outcome: Result<u128, CallError>) -> Result<(), Failure> {
        let line = JsonLine {
            n: typed,
            // As text, since most readers of JSON have no number of 128 bits.
            result: outcome.as_ref().ok().map(ToString::to_string),
            error: outcome.as_ref().err().map(JsonError::of),
        };
        let line = serde_json::to_string(&line)
            .map_err(|error| Failure::System("cannot write JSON", error.into()))?;
        say(line)
    }
}

#[derive(Serialize)]
struct JsonLine<'a> {
    n: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<JsonError>,
}

#[derive(Serialize)]
struct JsonError {
    code: &'static str,
    certainty: String,
    reason: String,
    origin: String,
    message: String,
}

impl JsonError {
    fn of(error: &CallError) -> Self {
        Self {
            code: error.code().name(),
            certainty: error.certainty().to_string(),
            reason: error.reason().to_string(),
            origin: error.origin().to_string(),
            message: chain(error),
        }
    }
}
