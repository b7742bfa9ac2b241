//! Tells when a broker is ready, without the tools of the broker.
//!
//! One `rabbitmqctl` costs the better part of a second of processor time, and asked too early it fails.
//! The broker opens its listener as the last step of its boot, after users, virtual hosts and
//! queues have been recovered, so the first frame of an AMQP connection already proves readiness.
//! The line that ends the boot on the standard output is awaited as well, because a process that
//! took the port first could answer too.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long a start may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// At all.
    pub(crate) limit: Duration,
    /// Without a sign that it goes on. A busy machine is no reason to give up a node that boots.
    pub(crate) quiet: Duration,
}

/// Waits until the broker on `port` is ready; `signs` tells what it has done so far, and nothing when
/// its process has ended.
///
/// The output of this very start begins at `offset` of `output`.
///
/// # Errors
///
/// What was waited for in vain.
pub(crate) fn wait_until_ready<S: PartialEq>(
    port: u16,
    output: &Path,
    offset: u64,
    patience: Patience,
    mut signs: impl FnMut() -> Option<S>,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut last = None;
    let mut moved = begun;
    let mut answered = None;
    loop {
        let now = Instant::now();
        let Some(seen) = signs() else {
            return Err("the process ended".into());
        };
        if last.as_ref() != Some(&seen) {
            last = Some(seen);
            moved = now;
        }
        if answered.is_none() && speaks_amqp(port) {
            answered = Some(Instant::now());
        }
        if let Some(since) = answered
            && (text_from(output, offset).contains(BOOT_END) || since.elapsed() > SILENT_BOOT)
        {
            return Ok(());
        }
        let (over, quiet) = (now - begun >= patience.limit, now - moved);
        if over || quiet >= patience.quiet {
            let waited = now - begun;
            let why = if over {
                String::new()
            } else {
                format!(", and it did nothing for the last {quiet:.0?}")
            };
            return Err(match answered {
                Some(_) => format!("it did not finish its boot within {waited:.0?}{why}"),
                None => format!("nothing spoke AMQP on port {port} within {waited:.0?}{why}"),
            });
        }
        thread::sleep(POLL);
    }
}

/// Sends the protocol header and expects the method frame that answers it.
fn speaks_amqp(port: u16) -> bool {
    let exchange = || -> std::io::Result<u8> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, EXCHANGE_LIMIT)?;
        stream.set_read_timeout(Some(EXCHANGE_LIMIT))?;
        stream.set_write_timeout(Some(EXCHANGE_LIMIT))?;
        stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        let mut frame_type = [0];
        stream.read_exact(&mut frame_type)?;
        Ok(frame_type[0])
    };
    exchange().is_ok_and(|frame_type| frame_type == METHOD_FRAME)
}

/// How much a group of processes has computed so far, in fifths of a second or so: a process that only
/// idles should not look busy. Linux tells; elsewhere nothing is known.
pub(crate) fn work_of_group(group: u32) -> u64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ticks: u64 = processes
        .filter_map(|process| fs::read_to_string(process.path().join("stat")).ok())
        .filter_map(|stat| ticks_in_group(&stat, group))
        .sum();
    ticks / 20
}

/// The processor time of a line of `/proc/PID/stat`, if that process is of this group.
fn ticks_in_group(stat: &str, group: u32) -> Option<u64> {
    // The name before it may hold anything, brackets too.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The state, the parent, the group; nine fields further on user and system time.
    let of_group: u32 = fields.get(2)?.parse().ok()?;
    let user: u64 = fields.get(11)?.parse().ok()?;
    let system: u64 = fields.get(12)?.parse().ok()?;
    (of_group == group).then_some(user + system)
}

/// Reads what was written to the file since `offset`, as far as it can be read.
pub(crate) fn text_from(path: &Path, offset: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(offset))?;
        file.read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// The banner's last words, the same in 3.x and 4.x.
const BOOT_END: &str = "completed with";

/// After this time of answering, a broker that prints no such line is believed all the same.
const SILENT_BOOT: Duration = Duration::from_secs(5);

const EXCHANGE_LIMIT: Duration = Duration::from_secs(2);

const METHOD_FRAME: u8 = 1;

const POLL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn dead_process_is_reported_at_once() {
        let started = Instant::now();
        let result = wait(Duration::from_secs(30), Duration::from_secs(30), || None);
        assert!(result.is_err() && started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn node_that_goes_on_is_waited_for_beyond_the_quiet_limit_and_not_beyond_the_whole() {
        let mut steps = 0;
        let error = wait(
            Duration::from_millis(700),
            Duration::from_millis(300),
            || {
                steps += 1;
                Some(steps)
            },
        );
        let error = error.expect_err("no broker is there");
        assert!(!error.contains("did nothing"), "{error}");
    }

    #[test]
    fn node_that_does_nothing_is_given_up_at_the_quiet_limit() {
        let started = Instant::now();
        let error = wait(Duration::from_secs(60), Duration::from_millis(100), || {
            Some(0)
        });
        let error = error.expect_err("no broker is there");
        assert!(error.contains("did nothing"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn work_is_that_of_the_group_whatever_the_process_is_called() {
        let stat = "7 (a) b)) S 1 42 42 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0";
        assert_eq!(ticks_in_group(stat, 42), Some(200));
        assert_eq!(ticks_in_group(stat, 7), None);
        assert_eq!(ticks_in_group("", 42), None);
    }

    fn wait(
        limit: Duration,
        quiet: Duration,
        signs: impl FnMut() -> Option<u32>,
    ) -> Result<(), String> {
        // Nothing listens on the port of the system's first service.
        let patience = Patience { limit, quiet };
        wait_until_ready(1, Path::new("/nonexistent"), 0, patience, signs)
    }

    #[test]
    fn listener_that_speaks_something_else_is_no_broker() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            stream.write_all(b"HTTP/1.1 400").expect("written");
        });
        assert!(!speaks_amqp(port));
        peer.join().expect("no panic");
    }

    #[test]
    fn only_the_output_of_this_start_counts() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "old new").expect("written");
        assert_eq!(text_from(file.path(), 4), "new");
    }
}
