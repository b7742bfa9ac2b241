//! Runs other programs: streamed, within a time limit, and gone when this program is interrupted.
//!
//! Every program gets a process group of its own.
//! The whole group is ended at the limit or at an interrupt, because ending cargo alone would leave
//! the test binary that it started.

use std::fmt;
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// The error after the interrupt key or a request to terminate.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// The error after wrong usage, which has been explained already.
#[derive(Debug)]
pub(crate) struct Usage;

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("wrong usage")
    }
}

impl std::error::Error for Usage {}

/// How a program ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    /// Absent when it had to be killed at its limit.
    pub(crate) status: Option<ExitStatus>,
    pub(crate) elapsed: Duration,
}

impl Ended {
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    pub(crate) fn describe(&self) -> String {
        match self.status {
            Some(status) if status.success() => format!("took {}", seconds(self.elapsed)),
            Some(status) => format!("failed ({status})"),
            None => format!("was killed at its limit of {}", seconds(self.elapsed)),
        }
    }
}

/// Makes signals end this program in good order, and a second one at once.
pub(crate) fn catch_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&INTERRUPTED))
            .and_then(|_| flag::register(signal, Arc::clone(&INTERRUPTED)))
            .context("cannot catch signals")?;
    }
    Ok(())
}

/// Fails when this program was asked to end.
pub(crate) fn check_interrupted() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        Err(Interrupted.into())
    } else {
        Ok(())
    }
}

/// Runs a program and shows what it writes.
pub(crate) fn show(command: Command, limit: Duration) -> Result<Ended> {
    watch(command, limit, echo)
}

/// Runs a program and passes on each line that it writes, of either stream, in order.
pub(crate) fn watch(
    mut command: Command,
    limit: Duration,
    on_line: impl FnMut(&str),
) -> Result<Ended> {
    // One pipe for both streams is what keeps their order.
    let (reader, writer) = io::pipe().context("cannot create a pipe")?;
    command
        .stderr(writer.try_clone().context("cannot share a pipe")?)
        .stdout(writer);
    if io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    run(command, limit, reader, on_line)
}

/// Runs a program that speaks to the terminal itself, such as one that draws a progress bar.
pub(crate) fn attached(mut command: Command, limit: Duration) -> Result<Ended> {
    check_interrupted()?;
    let started = Instant::now();
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    loop {
        let status = child
            .try_wait()
            .with_context(|| format!("cannot wait for {program}"))?;
        let elapsed = started.elapsed();
        if status.is_some() {
            return Ok(Ended { status, elapsed });
        }
        if check_interrupted().is_err() {
            end_group(&mut child);
            return Err(Interrupted.into());
        }
        if elapsed >= limit {
            end_group(&mut child);
            let status = None;
            return Ok(Ended { status, elapsed });
        }
        thread::sleep(POLL);
    }
}

/// Runs a program, and returns what it writes to its standard output.
pub(crate) fn capture(mut command: Command, limit: Duration) -> Result<(Ended, String)> {
    let (reader, writer) = io::pipe().context("cannot create a pipe")?;
    command.stdout(writer);
    let mut output = String::new();
    let ended = run(command, limit, reader, |line| {
        output.push_str(line);
        output.push('\n');
    })?;
    Ok((ended, output))
}

/// Tells whether a program can be run with success, quietly.
pub(crate) fn succeeds(mut command: Command, limit: Duration) -> Result<bool> {
    let (reader, writer) = io::pipe().context("cannot create a pipe")?;
    command.stdout(writer).stderr(Stdio::null());
    match run(command, limit, reader, |_| {}) {
        Ok(ended) => Ok(ended.success()),
        Err(error) if error.is::<Interrupted>() => Err(error),
        // It does not exist, or may not be executed.
        Err(_) => Ok(false),
    }
}

/// Says what is being done, does it, and says how long it took.
pub(crate) fn announced<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    echo(&format!("==> {what}"));
    let started = Instant::now();
    let result = action();
    let elapsed = seconds(started.elapsed());
    match &result {
        Ok(_) => echo(&format!("    {what}: {elapsed}")),
        Err(_) => echo(&format!("    {what}: failed after {elapsed}")),
    }
    result
}

/// Prints a line; a reader that went away is no reason to fail.
pub(crate) fn echo(line: &str) {
    if ASIDE.load(Ordering::Relaxed) {
        let _ = writeln!(io::stderr(), "{line}");
        return;
    }
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}

/// Prints to the standard error from now on: the standard output is for a program to read.
pub(crate) fn speak_aside() {
    ASIDE.store(true, Ordering::Relaxed);
}

pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn run(
    mut command: Command,
    limit: Duration,
    output: io::PipeReader,
    mut on_line: impl FnMut(&str),
) -> Result<Ended> {
    check_interrupted()?;
    let started = Instant::now();
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    // The command holds the writing end of the pipe, which would never come to its end otherwise.
    drop(command);

    let lines = read_aside(output);
    let mut status = None;
    let mut drained_by = None;
    loop {
        if check_interrupted().is_err() {
            end_group(&mut child);
            return Err(Interrupted.into());
        }
        if started.elapsed() >= limit {
            end_group(&mut child);
            return Ok(Ended {
                status: None,
                elapsed: started.elapsed(),
            });
        }
        match lines.recv_timeout(POLL) {
            Ok(line) => on_line(&line),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                // The program may close its output long before it ends.
                if status.is_none() {
                    thread::sleep(POLL);
                } else {
                    break;
                }
            }
        }
        if status.is_none() {
            status = child
                .try_wait()
                .with_context(|| format!("cannot wait for {program}"))?;
        } else if *drained_by.get_or_insert_with(|| Instant::now() + DRAIN) <= Instant::now() {
            // Something that the program left behind keeps the pipe open.
            break;
        }
    }
    Ok(Ended {
        status,
        elapsed: started.elapsed(),
    })
}

/// Reads lines on a thread of its own, so that the limit holds while nothing is written.
fn read_aside(output: io::PipeReader) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line);
            if sender
                .send(text.trim_end_matches(['\n', '\r']).to_owned())
                .is_err()
            {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// Asks the group to end, then makes it.
fn end_group(child: &mut Child) {
    let group = Pid::from_child(child);
    for signal in [Signal::TERM, Signal::KILL] {
        // A group that is gone cannot be signalled, which is what we want.
        let _ = kill_process_group(group, signal);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                break;
            }
            thread::sleep(POLL);
        }
    }
}

static ASIDE: AtomicBool = AtomicBool::new(false);

static INTERRUPTED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

const POLL: Duration = Duration::from_millis(50);

/// How long output is awaited after the program has ended.
const DRAIN: Duration = Duration::from_secs(1);

/// How long a program may take to end when asked to.
const GRACE: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_arrive_in_order() {
        let mut lines = Vec::new();
        let script = "echo 1; echo 2 >&2; echo 3; printf 4";
        let ended = watch(shell(script), Duration::from_secs(10), |line| {
            lines.push(line.to_owned())
        });
        assert!(ended.expect("an end").success());
        assert_eq!(lines, ["1", "2", "3", "4"]);
    }

    #[test]
    fn limit_ends_the_children_of_the_program_too() {
        let started = Instant::now();
        let mut pid = String::new();
        let script = "sleep 60 & echo $!; wait";
        let ended = watch(shell(script), Duration::from_millis(500), |line| {
            pid = line.to_owned()
        });
        assert!(ended.expect("an end").status.is_none());
        assert!(started.elapsed() < Duration::from_secs(20));
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(line.is_empty(), "the child lives");
    }

    #[test]
    fn process_left_behind_does_not_hold_the_run() {
        let started = Instant::now();
        let ended = watch(shell("sleep 30 & exit 3"), Duration::from_secs(20), |_| {});
        let status = ended.expect("an end").status.expect("a status");
        assert_eq!(status.code(), Some(3));
        assert!(started.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn captured_output_is_the_standard_output_only() {
        let (ended, output) =
            capture(shell("echo out; echo err >&2"), Duration::from_secs(10)).expect("an end");
        assert!(ended.success());
        assert_eq!(output, "out\n");
    }

    #[test]
    fn program_that_does_not_exist_does_not_succeed() {
        let command = Command::new("/nonexistent/program");
        assert!(!succeeds(command, Duration::from_secs(1)).expect("no interrupt"));
    }
}
