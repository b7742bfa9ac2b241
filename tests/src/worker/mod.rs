//! Workers: processes of their own where there is a broker to reach, and servers inside this process
//! for the broker that is in here too.
//!
//! A worker process is the binary `torture` again, with a hidden first argument. It ends when its
//! standard input does, so that it cannot outlive who started it, however that ends.

mod local;
pub(crate) mod process;
mod serve;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

pub use self::serve::{WORKER, main};
pub(crate) use self::serve::{end_with_the_input, say};
use crate::ground::Place;
use crate::session::ServingOptions;
use crate::setting::Setting;
use crate::vitals::Vitals;

/// What a worker is told.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Contract {
    /// Who hires: the transport and the face are theirs.
    pub setting: Setting,
    /// Where the broker is.
    pub place: Place,
    /// What is served, and how.
    pub serving: ServingOptions,
    /// How long each request takes at least.
    pub delay: Duration,
    /// How long a drain may take.
    pub drain_limit: Duration,
    /// Where executions are written down.
    pub work: PathBuf,
}

impl Contract {
    /// A worker for this queue.
    #[must_use]
    pub fn new(setting: &Setting, place: &Place, serving: ServingOptions, work: PathBuf) -> Self {
        Self {
            setting: setting.clone(),
            place: place.clone(),
            serving,
            delay: Duration::ZERO,
            drain_limit: Duration::from_secs(10),
            work,
        }
    }

    /// Sets how long each request takes at least.
    #[must_use]
    pub const fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A worker. Dropped, it is killed.
#[derive(Debug)]
pub struct Worker(Inner);

#[derive(Debug)]
enum Inner {
    Local(local::Local),
    Process(process::Process),
}

/// How a worker that was asked to leave did so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leaving {
    /// From the request to leave to the end.
    pub took: Duration,
    /// Requests that were still at work when the limit came.
    pub unfinished: u64,
}

impl Worker {
    /// Starts a worker, and returns when it serves.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn hire(contract: &Contract) -> Result<Self> {
        Ok(Self(match contract.place {
            Place::Memory(_) | Place::Stuck(_) => Inner::Local(local::Local::hire(contract)?),
            Place::Urls(_) => Inner::Process(process::Process::hire(contract)?),
        }))
    }

    /// So many workers under the same contract.
    ///
    /// # Errors
    ///
    /// When one of them does not start.
    pub fn crew(contract: &Contract, size: usize) -> Result<Vec<Self>> {
        (0..size).map(|_| Self::hire(contract)).collect()
    }

    /// Ends it with no chance to say goodbye: SIGKILL.
    pub fn kill(self) {
        match self.0 {
            Inner::Local(local) => local.kill(),
            Inner::Process(process) => process.kill(),
        }
    }

    /// Asks it to leave in good order: SIGTERM. Does not wait.
    ///
    /// # Errors
    ///
    /// When it has ended already.
    pub fn ask_to_leave(&mut self) -> Result<()> {
        match &mut self.0 {
            Inner::Local(local) => local.ask_to_leave(),
            Inner::Process(process) => process.ask_to_leave(),
        }
    }

    /// Waits until it has left, after [`ask_to_leave`](Self::ask_to_leave).
    ///
    /// # Errors
    ///
    /// When it has not left in time, or not in good order; it is killed then.
    pub fn leave_within(self, limit: Duration) -> Result<Leaving> {
        match self.0 {
            Inner::Local(local) => local.leave_within(limit),
            Inner::Process(process) => process.leave_within(limit),
        }
    }

    /// Freezes it: SIGSTOP.
    ///
    /// # Errors
    ///
    /// When it is no process, or has ended.
    pub fn pause(&mut self) -> Result<()> {
        match &mut self.0 {
            Inner::Local(_) => bail!("a worker in this process cannot be stopped by itself"),
            Inner::Process(process) => process.pause(),
        }
    }

    /// Lets it go on: SIGCONT.
    ///
    /// # Errors
    ///
    /// When it is no process, or has ended.
    pub fn resume(&mut self) -> Result<()> {
        match &mut self.0 {
            Inner::Local(_) => bail!("a worker in this process cannot be stopped by itself"),
            Inner::Process(process) => process.resume(),
        }
    }

    /// Whether it has not ended.
    pub fn is_alive(&mut self) -> bool {
        match &mut self.0 {
            Inner::Local(_) => true,
            Inner::Process(process) => process.is_alive(),
        }
    }

    /// What it holds.
    #[must_use]
    pub fn vitals(&self) -> Vitals {
        match &self.0 {
            Inner::Local(_) => Vitals::of_self(),
            Inner::Process(process) => Vitals::of_process(process.pid()),
        }
    }
}
