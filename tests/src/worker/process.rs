//! A worker or a client as the rig sees it: a process that can be killed, stopped and asked to leave.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::serve::Arguments;
use super::{Contract, Leaving};

/// What a process says when it does what it is for.
pub(crate) const READY: &str = "ready";

/// A process of the program that the rig is.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    said: mpsc::Receiver<String>,
    asked: Option<Instant>,
    /// While it is stopped: lets it go on when we are gone, so that it can see that.
    waker: Option<Child>,
}

impl Process {
    pub(super) fn hire(contract: &Contract) -> Result<Self> {
        let line = Arguments::of(contract)?.to_command_line();
        Self::start(&contract.setting.worker, line)
    }

    /// Starts the program with this command line, and returns when it says that it is ready.
    pub(crate) fn start(program: &Path, line: Vec<OsString>) -> Result<Self> {
        let mut child = Command::new(program)
            .args(line)
            // It ends when this does: with this value, or with this process.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The interrupt key is for who started it.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let said = read_aside(child.stdout.take());
        let process = Self {
            child,
            said,
            asked: None,
            waker: None,
        };
        match process.said.recv_timeout(START_LIMIT) {
            Ok(word) if word == READY => Ok(process),
            Ok(other) => bail!("the process says {other:?} and not that it is ready"),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                bail!("the process died before it was ready")
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                bail!("the process does not get ready within {START_LIMIT:?}")
            }
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub(crate) fn kill(mut self) {
        self.end();
    }

    pub(super) fn ask_to_leave(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        self.asked = Some(Instant::now());
        Ok(())
    }

    pub(super) fn leave_within(mut self, limit: Duration) -> Result<Leaving> {
        let Some(asked) = self.asked else {
            bail!("the worker was not asked to leave");
        };
        while self.is_alive() {
            if asked.elapsed() > limit {
                self.end();
                bail!("the worker did not leave within {limit:?}");
            }
            thread::sleep(POLL);
        }
        let took = asked.elapsed();
        let status = self.child.wait().context("the end of the worker")?;
        if !status.success() {
            bail!("the worker left with {status}");
        }
        let words = self.said.recv_timeout(Duration::from_secs(1));
        let unfinished = words.ok().and_then(|words| words.parse().ok());
        Ok(Leaving {
            took,
            unfinished: unfinished.context("the worker says how much it left unfinished")?,
        })
    }

    pub(super) fn pause(&mut self) -> Result<()> {
        let waker = Command::new("/bin/sh")
            .args(["-c", WAKER, "torture-waker", &self.pid().to_string()])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("the waker of a stopped worker")?;
        self.waker = Some(waker);
        self.signal(Signal::STOP)
    }

    pub(super) fn resume(&mut self) -> Result<()> {
        self.dismiss_waker();
        self.signal(Signal::CONT)
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            bail!("the worker has ended");
        }
        // It is our child and has not been waited for, so the id is still its own.
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).context("cannot signal the worker")
    }

    fn end(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.dismiss_waker();
    }

    /// With the worker still there or not: to let go on what is not stopped changes nothing, and its
    /// id is not given away before it has been waited for.
    fn dismiss_waker(&mut self) {
        if let Some(mut waker) = self.waker.take() {
            let _ = waker.kill();
            let _ = waker.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

fn read_aside(output: Option<ChildStdout>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let Some(output) = output else { return };
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Waits for the end of who stopped the worker. The worker then sees the end of its own input.
const WAKER: &str = r#"read -r word; kill -CONT "$1""#;

const START_LIMIT: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(5);
