//! A client that is there to be killed: a process that calls, and writes down how each call ended.
//!
//! It is the binary `torture` again, as workers are, and ends with its standard input as they do.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use rpc_core::ShortString;

use crate::ask::Ask;
use crate::ground::Place;
use crate::session::{CallerOptions, Session};
use crate::setting::{Face, Numbers, Setting, Transport};
use crate::worker::process::{Process, READY};
use crate::worker::{end_with_the_input, say};

/// The first argument that makes the program a client to be killed.
pub const VICTIM: &str = "victim-of-torture";

/// How one is started; by this program only.
#[derive(Debug, Parser)]
#[command(name = VICTIM)]
struct Arguments {
    #[arg(long)]
    transport: Transport,
    #[arg(long)]
    face: Face,
    #[arg(long)]
    url: String,
    #[arg(long)]
    queue: String,
    /// The key of its first call.
    #[arg(long)]
    keys_from: u64,
    #[arg(long)]
    inflight: usize,
    #[arg(long)]
    timeout_ms: u64,
    /// Where it writes down the ends of its calls.
    #[arg(long)]
    ends: PathBuf,
}

/// A client process with calls open.
#[derive(Debug)]
pub struct Victim {
    process: Process,
    ends: PathBuf,
}

/// How the calls of one ended, up to its own end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ends {
    /// With the right answer.
    pub right: u64,
    /// With a wrong one.
    pub wrong: u64,
    /// With an error.
    pub failed: u64,
}

impl Victim {
    /// Starts one, and returns when calls of it have been answered: it has more of them open.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn start(
        setting: &Setting,
        place: &Place,
        queue: &ShortString,
        keys_from: u64,
        dir: &Path,
    ) -> Result<Self> {
        let Place::Urls(urls) = place else {
            bail!("a client process needs a broker with a URL");
        };
        let url = urls.first().context("a broker with a URL")?;
        let ends = dir.join(format!("{keys_from}.ends"));
        let words: [(&str, OsString); 8] = [
            ("transport", setting.transport.name().into()),
            ("face", setting.face.name().into()),
            ("url", url.into()),
            ("queue", queue.to_string().into()),
            ("keys-from", keys_from.to_string().into()),
            ("inflight", setting.numbers.in_flight.to_string().into()),
            ("timeout-ms", TIMEOUT.as_millis().to_string().into()),
            ("ends", ends.clone().into()),
        ];
        let mut line: Vec<OsString> = vec![VICTIM.into()];
        for (name, value) in words {
            line.extend([format!("--{name}").into(), value]);
        }
        let process = Process::start(&setting.worker, line)?;
        Ok(Self { process, ends })
    }

    /// Kills it: SIGKILL, with calls open.
    ///
    /// # Errors
    ///
    /// When it cannot be read how its calls ended.
    pub fn kill(self) -> Result<Ends> {
        self.process.kill();
        let text = fs::read_to_string(&self.ends).context("the ends of calls")?;
        let count = |kind: char| text.chars().filter(|one| *one == kind).count() as u64;
        Ok(Ends {
            right: count(RIGHT),
            wrong: count(WRONG),
            failed: count(FAILED),
        })
    }
}

/// The whole life of one. `arguments` begin with [`VICTIM`].
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    end_with_the_input();
    match live(&Arguments::parse_from(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn live(arguments: &Arguments) -> Result<()> {
    let numbers = Numbers {
        calls: 0,
        in_flight: arguments.inflight,
        faults: 0,
        duration: Duration::ZERO,
    };
    let setting = Setting::new(arguments.transport, arguments.face, numbers, PathBuf::new());
    let timeout = Duration::from_millis(arguments.timeout_ms);
    let queue = ShortString::new(&*arguments.queue).context("the queue")?;
    let place = Place::Urls(vec![arguments.url.clone()]);
    let options = CallerOptions::patient(queue, timeout).once();
    let session = Session::open(&setting, &place, options)?;
    let ends = OpenOptions::new()
        .append(true)
        .create_new(true)
        .open(&arguments.ends)
        .context("where the ends of calls are written down")?;
    let (next, ended) = (AtomicU64::new(arguments.keys_from), AtomicU64::new(0));
    thread::scope(|scope| {
        let callers = (0..arguments.inflight).map(|_| {
            scope.spawn(|| -> Result<()> {
                loop {
                    let ask = Ask::new(next.fetch_add(1, Ordering::SeqCst));
                    let end = match session.call(&ask, timeout) {
                        Ok(answer) if answer == ask.answer() => RIGHT,
                        Ok(_) => WRONG,
                        Err(_) => FAILED,
                    };
                    // One byte, so none is torn.
                    (&ends).write_all(&[u8::try_from(end)?])?;
                    if ended.fetch_add(1, Ordering::SeqCst) + 1 == WARM {
                        say(READY)?;
                    }
                }
            })
        });
        let callers: Vec<_> = callers.collect();
        for caller in callers {
            caller.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        }
        Ok(())
    })
}

const RIGHT: char = 'r';
const WRONG: char = 'w';
const FAILED: char = 'f';

/// So many calls are answered before it is ready to be killed.
const WARM: u64 = 20;

const TIMEOUT: Duration = Duration::from_secs(30);
