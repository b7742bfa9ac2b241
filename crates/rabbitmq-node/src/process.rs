//! Processes: whose they are, ending them, and running one to its end within a time limit.
//!
//! A process id alone is never trusted. Before a signal goes to a process that is not our child,
//! its command line must still name what we started.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::error::{Error, Result};

/// Tells whether the process exists and has `mark` as a word of its command line.
///
/// A zombie has an empty command line and so counts as gone.
pub(crate) fn is_ours(pid: u32, mark: &str) -> bool {
    let line = match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line,
        Err(_) if cfg!(target_os = "linux") => return false,
        Err(_) => Command::new("ps")
            .args(["-o", "command=", "-p", &pid.to_string()])
            .output()
            .map(|output| output.stdout)
            .unwrap_or_default(),
    };
    let line = String::from_utf8_lossy(&line).replace('\0', " ");
    format!(" {} ", line.trim()).contains(&format!(" {mark} "))
}

/// Sends a signal to a process that the caller knows to be its own.
pub(crate) fn signal(pid: u32, signal: Signal) -> Result<()> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    raw.ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| kill_process(pid, signal))
        .map_err(|errno| Error::io(format!("signal process {pid}"))(errno.into()))
}

/// Polls until `done` says so; false when the time is over.
pub(crate) fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// Runs a command to its end and returns what it wrote to its standard output.
///
/// # Errors
///
/// [`Error::TimedOut`] after `limit`, the process having been killed; [`Error::Command`] when it
/// reports failure.
pub(crate) fn output_within(mut command: Command, limit: Duration) -> Result<String> {
    let line = display(&command);
    let deadline = Instant::now() + limit;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(Error::io(format!("run `{line}`")))?;
    let stdout = read_aside(child.stdout.take());
    let stderr = read_aside(child.stderr.take());

    let mut ended = None;
    let in_time = wait_until(limit, || match child.try_wait() {
        Ok(None) => false,
        result => {
            ended = Some(result);
            true
        }
    });
    if !in_time {
        // Failing to kill means that it is gone already.
        let _ = child.kill();
        let _ = child.wait();
        return Err(Error::TimedOut {
            action: format!("`{line}`"),
            limit,
        });
    }
    // A grandchild may hold the pipes open after the child has ended: the same deadline holds, with
    // a moment's grace for output that is already on its way.
    let left = deadline
        .saturating_duration_since(Instant::now())
        .max(Duration::from_millis(200));
    let written = |stream: &mpsc::Receiver<Vec<u8>>| {
        String::from_utf8_lossy(&stream.recv_timeout(left).unwrap_or_default()).into_owned()
    };
    let (stdout, stderr) = (written(&stdout), written(&stderr));
    match ended {
        Some(Ok(Some(status))) if status.success() => Ok(stdout),
        Some(Ok(Some(status))) => Err(Error::Command {
            command: line,
            output: format!("{}{}", stdout, stderr).trim().to_owned(),
            status: status.to_string(),
        }),
        Some(Err(source)) => Err(Error::io(format!("wait for `{line}`"))(source)),
        Some(Ok(None)) | None => Err(Error::TimedOut {
            action: format!("`{line}`"),
            limit,
        }),
    }
}

/// Reads a pipe to its end on a thread of its own, so that a full pipe never blocks the writer.
fn read_aside(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth having.
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

/// The command line as a person would type it, without its environment.
fn display(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or_default().to_owned();
    let arguments = command
        .get_args()
        .map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(name)
        .chain(arguments)
        .collect::<Vec<_>>()
        .join(" ")
}

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_is_that_of_the_command() {
        let output = output_within(shell("echo out; echo err >&2"), Duration::from_secs(10));
        assert_eq!(output.expect("success"), "out\n");
    }

    #[test]
    fn failure_carries_what_was_written() {
        let error = output_within(shell("echo why >&2; exit 3"), Duration::from_secs(10));
        let text = error.expect_err("failure").to_string();
        assert!(text.contains("why") && text.contains('3'), "{text}");
    }

    #[test]
    fn slow_command_is_killed_at_its_limit() {
        let started = Instant::now();
        let error = output_within(shell("sleep 30"), Duration::from_millis(100));
        assert!(matches!(error, Err(Error::TimedOut { .. })));
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn process_is_ours_only_with_the_mark() {
        let mut child = Command::new("sleep").arg("30").spawn().expect("sleep");
        assert!(wait_until(Duration::from_secs(5), || is_ours(
            child.id(),
            "sleep"
        )));
        assert!(!is_ours(child.id(), "rabbitmq"));
        child.kill().expect("kill");
        assert!(wait_until(Duration::from_secs(5), || !is_ours(
            child.id(),
            "sleep"
        )));
        child.wait().expect("wait");
    }
}
