//! One broker process, from its start to its end.
//!
//! ```text
//!             boot             kill, stop
//!   (built) ────────▶ running ────────────▶ ended
//!                      ▲   │ pause             │
//!               resume │   ▼                   │ restart
//!                      frozen                  ▼
//!                                           running
//! ```

use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::builder::Builder;
use crate::epmd::Epmd;
use crate::error::{Error, Result};
use crate::installation::Installation;
use crate::process::{is_ours, output_within, signal, wait_until};
use crate::ready::{Patience, text_from, wait_until_ready, work_of_group};
use crate::settings::Settings;
use crate::state::State;
use crate::watchdog::Watchdog;

/// A private RabbitMQ node.
///
/// Dropping an owned node kills it with its name server and removes its temporary directory.
/// Dropping an attached one leaves it running.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    process: Process,
    epmd: Arc<Epmd>,
    watchdog: Option<Watchdog>,
    temporary: Option<TempDir>,
    start_limit: Duration,
    owned: bool,
}

#[derive(Debug)]
enum Process {
    /// Started here.
    Child(Child),
    /// Started by a process that detached from it; to be recognised before every signal.
    Foreign(u32),
    None,
}

impl Node {
    /// Begins the description of a node.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts a node with nothing special about it.
    ///
    /// # Errors
    ///
    /// As [`Builder::start`].
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Finds the node that was detached in `dir`.
    ///
    /// # Errors
    ///
    /// [`Error::State`] when none was, or [`Error::NotRunning`] when it has ended since.
    pub fn attach(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let unusable = |error: std::io::Error| Error::State {
            dir: dir.to_path_buf(),
            reason: error.to_string(),
        };
        let dir = dir.canonicalize().map_err(unusable)?;
        let state = State::load(&dir)?;
        let installation = Installation::find()?;
        let epmd = Arc::new(Epmd::foreign(
            &installation,
            state.epmd_port,
            state.epmd_pid,
        ));
        let settings = Settings {
            installation,
            dir,
            name: state.name,
            port: state.port,
            dist_port: state.dist_port,
            epmd_port: state.epmd_port,
            cookie: state.cookie,
            config: state.config,
        };
        let mut node = Self::new(settings, epmd, None, DEFAULT_START_LIMIT);
        node.owned = false;
        node.process = Process::Foreign(state.pid);
        if !node.is_running() {
            return Err(node.not_running());
        }
        Ok(node)
    }

    pub(crate) fn new(
        settings: Settings,
        epmd: Arc<Epmd>,
        temporary: Option<TempDir>,
        start_limit: Duration,
    ) -> Self {
        let (process, watchdog) = (Process::None, None);
        Self {
            settings,
            process,
            epmd,
            watchdog,
            temporary,
            start_limit,
            owned: true,
        }
    }

    /// The address for clients: `amqp://guest:guest@127.0.0.1:PORT/%2f`.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.settings.port)
    }

    /// The AMQP port, the same over restarts.
    pub fn port(&self) -> u16 {
        self.settings.port
    }

    /// The process id of the broker's latest run, unless it was ended from here.
    pub fn pid(&self) -> Option<u32> {
        match &self.process {
            Process::Child(child) => Some(child.id()),
            Process::Foreign(pid) => Some(*pid),
            Process::None => None,
        }
    }

    /// The name by which Erlang knows the node, such as `rpc@localhost`.
    pub fn nodename(&self) -> String {
        self.settings.nodename()
    }

    /// The directory that holds everything of the node.
    pub fn dir(&self) -> &Path {
        &self.settings.dir
    }

    /// The broker's log.
    pub fn log_path(&self) -> PathBuf {
        self.settings.log_path()
    }

    /// Tells whether the process of the broker exists, frozen or not.
    pub fn is_running(&mut self) -> bool {
        match &mut self.process {
            Process::Child(child) => matches!(child.try_wait(), Ok(None)),
            Process::Foreign(pid) => is_ours(*pid, &self.settings.mark()),
            Process::None => false,
        }
    }

    /// Runs `rabbitmqctl` on this node, for 30 s at most, and returns what it printed.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when it reports failure, [`Error::TimedOut`] when it takes longer.
    pub fn ctl(&self, args: &[&str]) -> Result<String> {
        self.tool("rabbitmqctl", args, CTL_LIMIT)
    }

    /// Runs any script of the server on this node, such as `rabbitmq-queues`.
    ///
    /// # Errors
    ///
    /// As [`Self::ctl`].
    pub fn tool(&self, script: &str, args: &[&str], limit: Duration) -> Result<String> {
        let mut command = self.settings.command(script);
        command
            .args(["-q", "-n", &self.settings.nodename()])
            .args(args)
            .process_group(0);
        output_within(command, limit)
    }

    /// Kills the broker with no chance to say goodbye, as a crash would.
    ///
    /// Its data stays for [`Self::restart`].
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when it has ended already.
    pub fn kill(&mut self) -> Result<()> {
        if !self.is_running() {
            return Err(self.not_running());
        }
        match std::mem::replace(&mut self.process, Process::None) {
            Process::Child(mut child) => {
                child.kill().map_err(Error::io("kill the broker"))?;
                child.wait().map_err(Error::io("wait for the broker"))?;
            }
            Process::Foreign(pid) => {
                signal(pid, Signal::KILL)?;
                let mark = self.settings.mark();
                if !wait_until(KILL_LIMIT, || !is_ours(pid, &mark)) {
                    return Err(Error::TimedOut {
                        action: "the kill".into(),
                        limit: KILL_LIMIT,
                    });
                }
            }
            Process::None => {}
        }
        Ok(())
    }

    /// Freezes the broker: connections stay open and nothing answers.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when it has ended.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen broker go on.
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when it has ended.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Starts the broker again on the same data and port, having stopped it first if it runs.
    ///
    /// # Errors
    ///
    /// As [`Builder::start`].
    pub fn restart(&mut self) -> Result<()> {
        if self.is_running() {
            self.stop()?;
        }
        self.boot()
    }

    /// Asks the broker to shut down, and kills it when it has not done so within 20 s.
    ///
    /// A node that has ended already is stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system refuses a signal.
    pub fn stop(&mut self) -> Result<()> {
        if self.is_running() {
            // A frozen process would sleep through the request.
            self.signal(Signal::CONT)?;
            self.signal(Signal::TERM)?;
            if !wait_until(STOP_LIMIT, || !self.is_running()) {
                self.kill()?;
            }
        }
        self.process = Process::None;
        // The name server of a cluster goes with the cluster's last node.
        if Arc::strong_count(&self.epmd) == 1 {
            self.epmd.stop();
        }
        State::remove(&self.settings.dir);
        Ok(())
    }

    /// Lets the node outlive this process and returns its directory, for [`Self::attach`].
    ///
    /// # Errors
    ///
    /// [`Error::NotRunning`] when it has ended, [`Error::Io`] when the state cannot be saved; the
    /// node is dropped in both cases.
    pub fn detach(mut self) -> Result<PathBuf> {
        let Some(pid) = self.pid().filter(|_| self.is_running()) else {
            return Err(self.not_running());
        };
        State::new(&self.settings, pid, self.epmd.pid()).save(&self.settings.dir)?;
        self.owned = false;
        self.epmd.detach();
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
        if let Some(temporary) = self.temporary.take() {
            let _ = temporary.keep();
        }
        Ok(self.settings.dir.clone())
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn epmd(&self) -> &Arc<Epmd> {
        &self.epmd
    }

    pub(crate) fn take_temporary(&mut self) -> Option<TempDir> {
        self.temporary.take()
    }

    /// Starts the process and waits until it is ready.
    pub(crate) fn boot(&mut self) -> Result<()> {
        self.settings.write_files()?;
        self.epmd.ensure_running()?;
        let path = self.settings.output_path();
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::path("open", &path))?;
        // Only what this very start writes tells about it.
        let offsets = [length(&path), length(&self.settings.log_path())];
        let errors = output.try_clone().map_err(Error::path("share", &path))?;
        let mut command: Command = self.settings.server();
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // The interrupt key is for the owner, who then ends the node in good order.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start rabbitmq-server"))?;
        let pid = child.id();
        self.process = Process::Child(child);
        if self.owned {
            self.watch(pid)?;
        }
        let port = self.settings.port;
        let patience = Patience {
            limit: self.start_limit,
            quiet: QUIET_LIMIT.min(self.start_limit),
        };
        let log = self.settings.log_path();
        let waited = wait_until_ready(port, &path, offsets[0], patience, || {
            let alive = self.is_running();
            alive.then(|| (length(&path), length(&log), work_of_group(pid)))
        });
        if let Err(reason) = waited {
            let tail = self.last_words(offsets);
            // When it cannot be killed it has ended, which is the reason given.
            let _ = self.kill();
            return Err(Error::Start {
                name: self.settings.name.clone(),
                reason,
                tail,
            });
        }
        if !self.owned {
            self.epmd.detach();
            State::new(&self.settings, pid, self.epmd.pid()).save(&self.settings.dir)?;
        }
        Ok(())
    }

    /// Replaces the watchdog of the run before by one for this run.
    fn watch(&mut self, pid: u32) -> Result<()> {
        let remove = self.temporary.as_ref().map(TempDir::path);
        let epmd = (self.epmd.pid(), self.epmd.port());
        let watchdog = Watchdog::start((pid, &self.settings.mark()), epmd, remove)?;
        if let Some(former) = self.watchdog.replace(watchdog) {
            former.dismiss();
        }
        Ok(())
    }

    fn signal(&mut self, which: Signal) -> Result<()> {
        match self.pid() {
            Some(pid) if self.is_running() => signal(pid, which),
            _ => Err(self.not_running()),
        }
    }

    fn not_running(&self) -> Error {
        Error::NotRunning {
            name: self.settings.name.clone(),
        }
    }

    /// The end of what the node wrote to its output and its log since these offsets.
    fn last_words(&self, [output, log]: [u64; 2]) -> String {
        let tail = |text: &str, count: usize| {
            let lines: Vec<_> = text
                .lines()
                .filter(|line| !line.trim().is_empty())
                .collect();
            lines[lines.len().saturating_sub(count)..].join("\n")
        };
        let output = tail(&text_from(&self.settings.output_path(), output), TAIL_LINES);
        let log = tail(&text_from(&self.settings.log_path(), log), TAIL_LINES);
        let at = format!("--- {} ---", self.settings.log_path().display());
        format!("{output}\n{at}\n{log}")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.owned {
            return;
        }
        // Nothing can be done about a failure here, and the watchdog remains until the end.
        let _ = self.kill();
        if Arc::strong_count(&self.epmd) == 1 {
            self.epmd.stop();
        }
        drop(self.temporary.take());
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.dismiss();
        }
    }
}

/// The length of a file; nothing has been written to one that is not there.
fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// How long a start may take while it goes on.
pub(crate) const DEFAULT_START_LIMIT: Duration = Duration::from_secs(300);

/// How long a node that starts may show no sign of it: nothing written, nothing computed.
const QUIET_LIMIT: Duration = Duration::from_secs(60);

const CTL_LIMIT: Duration = Duration::from_secs(30);

const KILL_LIMIT: Duration = Duration::from_secs(10);

const STOP_LIMIT: Duration = Duration::from_secs(20);

const TAIL_LINES: usize = 60;
