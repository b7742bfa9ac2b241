//! A worker from the inside.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use rpc_core::ShortString;
use rustix::process::{Resource, Rlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Contract;
use super::process::READY;
use crate::ground::Place;
use crate::ledger::WorkLog;
use crate::session::{Desk, QueueChoice, Serving, ServingOptions};
use crate::setting::{Face, Transport};

/// The first argument that makes the program a worker.
pub const WORKER: &str = "worker-of-torture";

/// How a worker is started; by this program only.
#[derive(Debug, Parser)]
#[command(name = WORKER)]
pub(super) struct Arguments {
    #[arg(long)]
    transport: Transport,
    #[arg(long)]
    face: Face,
    #[arg(long, required = true)]
    url: Vec<String>,
    #[arg(long)]
    queue: String,
    #[arg(long)]
    choice: QueueChoice,
    #[arg(long)]
    concurrency: usize,
    #[arg(long)]
    prefetch: u16,
    #[arg(long)]
    delay_ms: u64,
    #[arg(long)]
    drain_ms: u64,
    #[arg(long)]
    quick: bool,
    #[arg(long)]
    work: PathBuf,
}

impl Arguments {
    pub(super) fn of(contract: &Contract) -> Result<Self> {
        let Place::Urls(url) = contract.place.clone() else {
            bail!("a worker process needs a broker with a URL");
        };
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let serving = &contract.serving;
        Ok(Self {
            transport: contract.setting.transport,
            face: contract.setting.face,
            url,
            queue: serving.queue.to_string(),
            choice: serving.choice,
            concurrency: serving.concurrency,
            prefetch: serving.prefetch,
            delay_ms: millis(contract.delay),
            drain_ms: millis(contract.drain_limit),
            quick: serving.quick,
            work: contract.work.clone(),
        })
    }

    pub(super) fn to_command_line(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = vec![WORKER.into()];
        let mut say =
            |name: &str, value: OsString| line.extend([format!("--{name}").into(), value]);
        say("transport", self.transport.name().into());
        say("face", self.face.name().into());
        for url in &self.url {
            say("url", url.into());
        }
        say("queue", self.queue.clone().into());
        say("choice", self.choice.name().into());
        say("concurrency", self.concurrency.to_string().into());
        say("prefetch", self.prefetch.to_string().into());
        say("delay-ms", self.delay_ms.to_string().into());
        say("drain-ms", self.drain_ms.to_string().into());
        say("work", self.work.clone().into());
        if self.quick {
            line.push("--quick".into());
        }
        line
    }

    fn serving(&self) -> Result<ServingOptions> {
        let queue = ShortString::new(&*self.queue).context("the queue")?;
        let mut options = ServingOptions::new(queue, self.choice);
        options.concurrency = self.concurrency;
        options.prefetch = self.prefetch;
        options.quick = self.quick;
        Ok(options)
    }
}

/// The whole life of a worker. `arguments` begin with [`WORKER`].
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    end_with_the_input();
    match live(&Arguments::parse_from(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn live(arguments: &Arguments) -> Result<()> {
    // Processes that abort by intent need leave no image behind.
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("the limit on core files")?;
    let mut signals = Signals::new([SIGTERM, SIGINT]).context("signals")?;
    let log = WorkLog::create(&arguments.work).context("the log of executions")?;
    let desk = Desk::new(log, Duration::from_millis(arguments.delay_ms));
    let place = Place::Urls(arguments.url.clone());
    let serving = Serving::start(
        arguments.transport,
        arguments.face,
        &place,
        desk,
        &arguments.serving()?,
    )?;
    say(READY)?;
    signals.forever().next();
    let report = serving.drain(Duration::from_millis(arguments.drain_ms));
    say(&report.unfinished.to_string())
}

pub(crate) fn say(line: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush().context("nobody listens")
}

/// Ends this process at once when its standard input ends: nobody is left who could want it.
pub(crate) fn end_with_the_input() {
    thread::spawn(|| {
        let mut input = io::stdin().lock();
        while matches!(input.read(&mut [0; 64]), Ok(1..)) {}
        std::process::exit(3);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_on_the_command_line_is_what_was_meant() {
        let arguments = Arguments {
            transport: Transport::Amiquip,
            face: Face::Blocking,
            url: vec!["amqp://a".into(), "amqp://b".into()],
            queue: "q".into(),
            choice: QueueChoice::Quorum,
            concurrency: 3,
            prefetch: 5,
            delay_ms: 7,
            drain_ms: 11,
            quick: true,
            work: "/tmp/w".into(),
        };
        let read = Arguments::parse_from(arguments.to_command_line());
        assert_eq!(format!("{read:?}"), format!("{arguments:?}"));
    }
}
