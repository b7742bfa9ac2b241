//! What a run is told: transport, face, numbers, seed.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// The client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "the rig knows all transports")]
pub enum Transport {
    /// RabbitMQ through lapin.
    Lapin,
    /// RabbitMQ through amiquip.
    Amiquip,
    /// A broker inside the process.
    Memory,
}

impl Transport {
    /// The name, as it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lapin => "lapin",
            Self::Amiquip => "amiquip",
            Self::Memory => "memory",
        }
    }

    /// The face that needs no adapter.
    #[must_use]
    pub const fn native_face(self) -> Face {
        match self {
            Self::Lapin | Self::Memory => Face::Async,
            Self::Amiquip => Face::Blocking,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The face of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "there are two")]
pub enum Face {
    /// Tasks that await.
    Async,
    /// Threads that wait.
    Blocking,
}

impl Face {
    /// The name, as it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Blocking => "blocking",
        }
    }
}

impl fmt::Display for Face {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much is done in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "written out by each scenario")]
pub struct Numbers {
    /// Calls.
    pub calls: u64,
    /// Calls open at once.
    pub in_flight: usize,
    /// Faults: kills, cuts, drains, whatever the scenario is about.
    pub faults: u32,
    /// How long what goes on for a time goes on: an alarm, an overload.
    pub duration: Duration,
}

/// What a run is told.
#[derive(Clone)]
#[non_exhaustive]
pub struct Setting {
    /// The client library.
    pub transport: Transport,
    /// The face of callers and workers.
    pub face: Face,
    /// How much is done.
    pub numbers: Numbers,
    /// Whether nothing else goes on in this process, so that its threads and descriptors can be
    /// counted.
    pub alone: bool,
    /// Where the faults come from.
    pub seed: u64,
    /// The program that becomes a worker: the binary `torture`.
    pub worker: PathBuf,
    /// Told how many calls of how many have ended, and what goes on.
    pub progress: Progress,
}

/// Who watches a run.
pub type Progress = Arc<dyn Fn(u64, u64, &str) + Send + Sync>;

impl Setting {
    /// A run on this transport and face.
    #[must_use]
    pub fn new(transport: Transport, face: Face, numbers: Numbers, worker: PathBuf) -> Self {
        Self {
            transport,
            face,
            numbers,
            alone: false,
            seed: 1,
            worker,
            progress: Arc::new(|_, _, _| {}),
        }
    }

    /// Nothing else goes on in this process.
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// Sets the seed.
    #[must_use]
    pub const fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets who watches.
    #[must_use]
    pub fn with_progress(mut self, progress: Progress) -> Self {
        self.progress = progress;
        self
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("transport", &self.transport)
            .field("face", &self.face)
            .field("numbers", &self.numbers)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
