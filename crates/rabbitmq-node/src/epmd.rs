//! The Erlang name server of one node, or of the nodes of one cluster.
//!
//! It is started here rather than by Erlang itself, which would leave behind a daemon that nobody
//! knows: so it is our child, with an id that we know, and ends when we say.

use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;

use crate::error::{Error, Result};
use crate::installation::Installation;
use crate::ports::free_port;
use crate::process::{is_ours, signal, wait_until};

/// A name server on a port of its own.
#[derive(Debug)]
pub(crate) struct Epmd {
    installation: Installation,
    port: u16,
    process: Mutex<Process>,
}

#[derive(Debug)]
enum Process {
    Child(Child),
    Foreign(u32),
    None,
}

impl Epmd {
    /// Starts a name server on a free port.
    pub(crate) fn start(installation: &Installation) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let epmd = Self::foreign(installation, free_port()?, None);
            match epmd.ensure_running() {
                Ok(()) => return Ok(epmd),
                Err(error) if attempt == ATTEMPTS => return Err(error),
                // Another process was faster to take the port.
                Err(_) => attempt += 1,
            }
        }
    }

    /// Names a name server that some other process started.
    pub(crate) fn foreign(installation: &Installation, port: u16, pid: Option<u32>) -> Self {
        let process = Mutex::new(pid.map_or(Process::None, Process::Foreign));
        Self {
            installation: installation.clone(),
            port,
            process,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        match &*self.lock() {
            Process::Child(child) => Some(child.id()),
            Process::Foreign(pid) => Some(*pid),
            Process::None => None,
        }
    }

    /// Starts the name server unless it runs.
    pub(crate) fn ensure_running(&self) -> Result<()> {
        let mut process = self.lock();
        let runs = match &mut *process {
            Process::Child(child) => matches!(child.try_wait(), Ok(None)),
            Process::Foreign(pid) => is_ours(*pid, &self.port.to_string()),
            Process::None => false,
        };
        if runs {
            return Ok(());
        }
        let mut child = Command::new(self.installation.epmd())
            .args(["-address", "127.0.0.1", "-port", &self.port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own keeps it out of reach of the terminal's interrupt key.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start epmd"))?;
        let mut died = false;
        let answers = wait_until(START_LIMIT, || {
            died = !matches!(child.try_wait(), Ok(None));
            died || TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok()
        });
        // When it died and yet somebody answers, that somebody is not ours.
        if answers && !died {
            *process = Process::Child(child);
            return Ok(());
        }
        let _ = child.kill();
        let _ = child.wait();
        if died {
            return Err(Error::io("keep epmd running")(
                io::ErrorKind::AddrInUse.into(),
            ));
        }
        Err(Error::TimedOut {
            action: "starting epmd".into(),
            limit: START_LIMIT,
        })
    }

    /// Ends the name server, whoever started it.
    pub(crate) fn stop(&self) {
        let mut process = self.lock();
        match std::mem::replace(&mut *process, Process::None) {
            Process::Child(mut child) => {
                // Failing to kill means that it is gone already.
                let _ = child.kill();
                let _ = child.wait();
            }
            Process::Foreign(pid) if is_ours(pid, &self.port.to_string()) => {
                let _ = signal(pid, Signal::KILL);
                // Until it is gone it holds the port, which the next one needs.
                wait_until(STOP_LIMIT, || !is_ours(pid, &self.port.to_string()));
            }
            Process::Foreign(_) | Process::None => {}
        }
    }

    /// Lets the name server outlive this process.
    pub(crate) fn detach(&self) {
        let mut process = self.lock();
        if let Process::Child(child) = &*process {
            *process = Process::Foreign(child.id());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        if matches!(*self.lock(), Process::Child(_)) {
            self.stop();
        }
    }
}

const ATTEMPTS: u32 = 5;

const STOP_LIMIT: Duration = Duration::from_secs(5);

const START_LIMIT: Duration = Duration::from_secs(10);
