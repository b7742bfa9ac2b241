//! The command line of the rig, its progress bar and its exit codes.

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use rabbitmq_node::Node;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use transport_memory::MemoryBroker;

use crate::ground::Ground;
use crate::report::Report;
use crate::scenario::{Needs, Scenario};
use crate::scratch;
use crate::setting::{Face, Numbers, Progress, Setting, Transport};

/// Break brokers, workers and networks under load, and account for every call.
///
/// Exit codes: 0 every rule holds, 1 a rule is broken or the rig failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "torture", bin_name = "cargo xtask torture")]
struct Arguments {
    /// What goes wrong; `--list` shows what there is
    #[arg(required_unless_present = "list")]
    scenario: Option<String>,

    /// List the scenarios
    #[arg(long)]
    list: bool,

    /// The client library
    #[arg(long, default_value = "lapin")]
    transport: Transport,

    /// Tasks that await or threads that wait; what the transport is made for, if not said
    #[arg(long)]
    face: Option<Face>,

    /// How many calls
    #[arg(long)]
    calls: Option<u64>,

    /// How many calls are open at once
    #[arg(long)]
    inflight: Option<usize>,

    /// How many faults: kills, cuts, drains, as the scenario has it
    #[arg(long)]
    faults: Option<u32>,

    /// How many seconds what goes on for a time goes on
    #[arg(long)]
    seconds: Option<u64>,

    /// Where the faults come from: the same seed, the same faults
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// The numbers of the test suite instead of those of the gate
    #[arg(long)]
    short: bool,

    /// Print one line of JSON instead of a table
    #[arg(long)]
    json: bool,

    /// Only say what the run needs, `rabbitmq` or `nothing`: for who must provide for it
    #[arg(long, hide = true)]
    needs: bool,
}

/// Runs as the command line says.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = Arguments::parse_from(arguments);
    if arguments.list {
        echo(&list());
        return ExitCode::SUCCESS;
    }
    let name = arguments.scenario.clone().unwrap_or_default();
    let Some(scenario) = Scenario::find(&name) else {
        wrong_usage(&format!(
            "there is no scenario `{name}`; `--list` shows those there are"
        ));
    };
    if !scenario.transports.contains(&arguments.transport) {
        let transport = arguments.transport;
        wrong_usage(&format!("`{name}` makes no sense on {transport}"));
    }
    if arguments.needs {
        echo(if needs_rabbitmq(scenario, arguments.transport) {
            "rabbitmq"
        } else {
            "nothing"
        });
        return ExitCode::SUCCESS;
    }
    match run(scenario, &arguments) {
        Ok(report) => {
            let said = if arguments.json {
                report.json()
            } else {
                report.table()
            };
            echo(&said);
            ExitCode::from(u8::from(!report.passed))
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(scenario: &Scenario, arguments: &Arguments) -> Result<Report> {
    let bar = progress_bar(scenario, arguments);
    let face = arguments
        .face
        .unwrap_or_else(|| arguments.transport.native_face());
    let worker = std::env::current_exe().context("where this program is")?;
    let setting = Setting::new(
        arguments.transport,
        face,
        numbers(scenario, arguments),
        worker,
    )
    .alone()
    .with_seed(arguments.seed)
    .with_progress(progress(&bar));
    end_when_told()?;
    end_at(scenario.limit);
    let mut ground = prepare(scenario, arguments.transport, &bar)?;
    let report = scenario.run(&setting, &mut ground);
    bar.finish_and_clear();
    report
}

fn numbers(scenario: &Scenario, arguments: &Arguments) -> Numbers {
    let numbers = if arguments.short {
        scenario.short
    } else {
        scenario.full
    };
    Numbers {
        calls: arguments.calls.unwrap_or(numbers.calls),
        in_flight: arguments.inflight.unwrap_or(numbers.in_flight),
        faults: arguments.faults.unwrap_or(numbers.faults),
        duration: arguments
            .seconds
            .map_or(numbers.duration, Duration::from_secs),
    }
}

/// Whether the scenario needs RabbitMQ on this machine, or one that the environment names.
fn needs_rabbitmq(scenario: &Scenario, transport: Transport) -> bool {
    match scenario.needs {
        Needs::Nothing => false,
        Needs::Installation => true,
        Needs::Broker | Needs::Node => transport != Transport::Memory,
    }
}

/// The broker that the scenario needs. One that the environment names serves those that only use it.
fn prepare(scenario: &Scenario, transport: Transport, bar: &ProgressBar) -> Result<Ground> {
    if scenario.needs == Needs::Nothing || scenario.needs == Needs::Installation {
        return Ok(Ground::Nothing);
    }
    if transport == Transport::Memory {
        return Ok(Ground::Memory(MemoryBroker::new()));
    }
    match std::env::var("RPC_AMQP_URL") {
        Ok(url) if !url.is_empty() && scenario.needs == Needs::Broker => Ok(Ground::Given(url)),
        _ => {
            bar.set_message("starting a private RabbitMQ");
            Ok(Ground::Own(
                Node::builder().start().context("a private RabbitMQ")?,
            ))
        }
    }
}

/// Ends this program at the interrupt key or when it is asked to end, and leaves nothing behind:
/// workers and nodes see its end by themselves.
fn end_when_told() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signals")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            scratch::clear();
            // As a shell says it of a program that a signal has ended.
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Ends this program, and with it everything it has started, when a run takes too long: whatever
/// hangs then is not what the ledger watches.
fn end_at(limit: Duration) {
    thread::spawn(move || {
        thread::sleep(limit);
        eprintln!("error: the run did not end within {limit:?}");
        scratch::clear();
        std::process::exit(1);
    });
}

fn progress_bar(scenario: &Scenario, arguments: &Arguments) -> ProgressBar {
    if arguments.json || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(numbers(scenario, arguments).calls);
    let style = ProgressStyle::with_template("{prefix} [{elapsed}] {bar:30} {pos}/{len} {msg}");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar.set_prefix(scenario.name);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn progress(bar: &ProgressBar) -> Progress {
    let bar = bar.clone();
    Arc::new(move |ended, calls, said| {
        if calls > 0 {
            bar.set_length(calls);
            bar.set_position(ended);
        }
        if !said.is_empty() {
            bar.set_message(said.to_owned());
        }
    })
}

fn list() -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["scenario", "on", "what goes wrong, and what must hold"]);
    for scenario in Scenario::all() {
        let on: Vec<_> = scenario
            .transports
            .iter()
            .map(|transport| transport.name())
            .collect();
        table.add_row([scenario.name, &on.join(" "), scenario.about]);
    }
    table.to_string()
}

fn wrong_usage(what: &str) -> ! {
    // Exits with 2, as every other mistake on the command line does.
    Arguments::command()
        .error(ErrorKind::ValueValidation, what)
        .exit()
}

fn echo(text: &str) {
    let mut stdout = io::stdout().lock();
    // A reader that went away is no reason to fail.
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_the_list_has_every_scenario() {
        Arguments::command().debug_assert();
        let list = list();
        assert!(
            Scenario::all()
                .iter()
                .all(|scenario| list.contains(scenario.name))
        );
    }

    #[test]
    fn what_has_all_it_needs_asks_for_no_rabbitmq() {
        let needs = |name, transport| {
            needs_rabbitmq(Scenario::find(name).expect("it is in the list"), transport)
        };
        for name in ["hang", "sim", "slow-loris-broker"] {
            assert!(!needs(name, Transport::Lapin), "{name}");
        }
        assert!(needs("drain", Transport::Lapin) && !needs("drain", Transport::Memory));
        assert!(needs("cluster", Transport::Amiquip));
    }
}
