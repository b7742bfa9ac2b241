//! Ends a node whose owner ended without a chance to do so: by a signal, an abort, a time limit.
//!
//! A shell waits on a pipe of which the owner holds the other end.
//! However the owner goes, the system closes that end, and the shell then does what dropping the
//! node would have done.
//! Nothing inside the owner could promise that.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result};

/// Watches over one run of a node.
#[derive(Debug)]
pub(crate) struct Watchdog {
    child: Child,
}

impl Watchdog {
    /// Starts to watch.
    ///
    /// When the owner is gone, the broker and the name server are killed, provided that the ids
    /// still are theirs, and `remove`, if any, is deleted.
    pub(crate) fn start(
        (node, mark): (u32, &str),
        (epmd, epmd_port): (Option<u32>, u16),
        remove: Option<&Path>,
    ) -> Result<Self> {
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "rabbitmq-node-watchdog"])
            .args([node.to_string(), mark.to_owned()])
            .args([epmd.unwrap_or_default().to_string(), epmd_port.to_string()])
            .args(remove)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // The interrupt key must end the owner, not the one who cleans up after it.
            .process_group(0)
            .spawn()
            .map_err(Error::io("start the watchdog of a node"))?;
        Ok(Self { child })
    }

    /// Stops watching, with nothing done.
    pub(crate) fn dismiss(mut self) {
        if let Some(mut pipe) = self.child.stdin.take() {
            // A watchdog that cannot be told has ended, and then has nothing to do.
            let _ = pipe.write_all(b"dismissed\n");
        }
        let _ = self.child.wait();
    }
}

/// Reads one word, and acts unless it is the word of dismissal.
///
/// The script of the server counts as the broker too: for a moment after its start it is what the
/// process still is.
const SCRIPT: &str = r#"
read -r word
[ "$word" = dismissed ] && exit
line() { tr '\0' ' ' <"/proc/$1/cmdline" 2>/dev/null || ps -o command= -p "$1"; }
case "$(line "$1")" in *" $2 "*|*rabbitmq-server*) kill -9 "$1" ;; esac
case "$(line "$3")" in *epmd*"$4"*) kill -9 "$3" ;; esac
[ -z "$5" ] || { rm -rf "$5" || { sleep 1; rm -rf "$5"; }; }
"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::wait_until;
    use std::time::Duration;

    fn victim() -> Child {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "sleep 60; :", "mark", "end"])
            .process_group(0);
        command.spawn().expect("a process")
    }

    #[test]
    fn orphaned_node_is_killed_and_its_directory_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory").keep();
        let mut victim = victim();
        let mut watchdog =
            Watchdog::start((victim.id(), "mark"), (None, 1), Some(&dir)).expect("a watchdog");
        drop(watchdog.child.stdin.take());
        let limit = Duration::from_secs(10);
        assert!(wait_until(limit, || matches!(
            victim.try_wait(),
            Ok(Some(_))
        )));
        assert!(wait_until(limit, || !dir.exists()));
        watchdog.child.wait().expect("ended");
    }

    #[test]
    fn dismissed_watchdog_touches_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut victim = victim();
        Watchdog::start((victim.id(), "mark"), (None, 1), Some(dir.path()))
            .expect("a watchdog")
            .dismiss();
        assert!(dir.path().exists());
        assert!(matches!(victim.try_wait(), Ok(None)));
        victim.kill().expect("kill");
        victim.wait().expect("wait");
    }

    #[test]
    fn process_with_another_command_line_is_left_alone() {
        let mut victim = victim();
        let mut watchdog =
            Watchdog::start((victim.id(), "other"), (None, 1), None).expect("a watchdog");
        drop(watchdog.child.stdin.take());
        watchdog.child.wait().expect("ended");
        assert!(matches!(victim.try_wait(), Ok(None)));
        victim.kill().expect("kill");
        victim.wait().expect("wait");
    }
}
