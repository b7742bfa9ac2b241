//! The working side of the ledger: a line at the start and one at the end of each execution.
//!
//! A line is a single `write` to a file opened for appending: what was written is with the system, and
//! survives whatever becomes of the process.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::{Micros, now};

/// Where one worker writes down what it executes.
#[derive(Debug)]
pub struct WorkLog {
    file: File,
    next: AtomicU64,
}

/// The number of an execution within its worker.
#[derive(Clone, Copy, Debug)]
pub struct Entry(u64);

/// One execution of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Execution {
    /// The call.
    pub key: u64,
    /// Which attempt of the call the request was.
    pub attempt: u64,
    /// Who executed it.
    pub worker: u64,
    /// Whether the broker said that it may have been delivered before.
    pub redelivered: bool,
    /// When it began.
    pub started: Micros,
    /// When it ended; none when its worker did first.
    pub ended: Option<Micros>,
}

impl Execution {
    /// The execution of a first attempt at its first delivery.
    #[must_use]
    pub const fn fresh(key: u64, started: Micros, ended: Option<Micros>) -> Self {
        Self {
            key,
            attempt: 1,
            worker: 1,
            redelivered: false,
            started,
            ended,
        }
    }
}

impl WorkLog {
    /// A log of its own in this directory.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn create(dir: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Tells workers in one process apart.
        let worker = (u64::from(process::id()) << 16) | number;
        let path = dir.join(format!("{worker}.{EXTENSION}"));
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)?;
        let next = AtomicU64::new(0);
        Ok(Self { file, next })
    }

    /// An execution begins. The line is out when this returns.
    ///
    /// # Panics
    ///
    /// When it cannot be written down: work that is in no log must not be done.
    pub fn begin(&self, key: u64, attempt: u64, redelivered: bool) -> Entry {
        let entry = self.next.fetch_add(1, Ordering::Relaxed);
        let (at, redelivered) = (now(), u8::from(redelivered));
        self.write(&format!("B {entry} {key} {attempt} {redelivered} {at}\n"));
        Entry(entry)
    }

    /// It has ended.
    ///
    /// # Panics
    ///
    /// As [`begin`](Self::begin).
    pub fn end(&self, Entry(entry): Entry) {
        self.write(&format!("E {entry} {}\n", now()));
    }

    fn write(&self, line: &str) {
        (&self.file)
            .write_all(line.as_bytes())
            .expect("the log of executions can be written");
    }
}

/// Everything that was executed, by all who keep their logs in this directory.
///
/// # Errors
///
/// Those of the file system, and [`io::ErrorKind::InvalidData`] with the line for what is no line of a
/// log. Only the last one of a log may be torn.
pub fn read_work(dir: &Path) -> io::Result<Vec<Execution>> {
    let mut executions = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != EXTENSION)
        {
            continue;
        }
        let worker = path
            .file_stem()
            .and_then(|stem| stem.to_str()?.parse().ok())
            .unwrap_or(0);
        read_log(&fs::read_to_string(&path)?, worker, &mut executions)?;
    }
    executions.sort_by_key(|execution| execution.started);
    Ok(executions)
}

fn read_log(text: &str, worker: u64, executions: &mut Vec<Execution>) -> io::Result<()> {
    let mut places = HashMap::new();
    // What has no end of line was torn by a kill.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for line in whole.lines() {
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, line.to_owned());
        let mut words = line.split(' ');
        let kind = words.next();
        let numbers: Result<Vec<u64>, _> = words.map(str::parse).collect();
        match (kind, numbers.as_deref()) {
            (Some("B"), Ok(&[entry, key, attempt, redelivered, started])) => {
                places.insert(entry, executions.len());
                executions.push(Execution {
                    key,
                    attempt,
                    worker,
                    redelivered: redelivered == 1,
                    started,
                    ended: None,
                });
            }
            (Some("E"), Ok(&[entry, ended])) => {
                let place = places.get(&entry).ok_or_else(unreadable)?;
                executions[*place].ended = Some(ended);
            }
            _ => return Err(unreadable()),
        }
    }
    Ok(())
}

const EXTENSION: &str = "work";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_down_is_read_back_even_when_the_last_line_is_torn() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, two) = (WorkLog::create(dir.path()), WorkLog::create(dir.path()));
        let (one, two) = (one.expect("a log"), two.expect("a log"));
        let first = one.begin(7, 1, false);
        two.begin(7, 2, true);
        one.end(first);
        (&two.file).write_all(b"B 1 9").expect("torn");
        let work = read_work(dir.path()).expect("readable");
        assert_eq!(work.len(), 2);
        assert!(work.iter().all(|execution| execution.key == 7));
        let ended: Vec<_> = work
            .iter()
            .map(|execution| execution.ended.is_some())
            .collect();
        assert_eq!(ended, [true, false]);
        assert!(work[1].redelivered && work[1].attempt == 2 && work[0].worker != work[1].worker);
    }

    #[test]
    fn a_line_that_is_none_is_an_error_that_quotes_it() {
        let error = read_log("B 1 2\n", 1, &mut Vec::new()).expect_err("it is short");
        assert!(error.to_string().contains("B 1 2"));
        assert!(read_log("E 5 2\n", 1, &mut Vec::new()).is_err());
    }
}
