//! What processes have used so far: processor time, memory, descriptors.

use std::time::Duration;

use anyhow::{Context, Result};
use procfs::process::Process;

/// What one process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Of all its threads, also those that have ended.
    pub(crate) processor: Duration,
    /// Resident memory, in bytes.
    pub(crate) memory: u64,
    pub(crate) threads: u64,
}

impl Usage {
    /// Of the process with this id; of this one without.
    pub(crate) fn of(pid: Option<u32>) -> Result<Self> {
        let process = match pid {
            Some(pid) => Process::new(i32::try_from(pid)?),
            None => Process::myself(),
        };
        let process = process.with_context(|| format!("no process {pid:?}"))?;
        let stat = process.stat().context("cannot read a process's times")?;
        // In ticks of 10 ms, but the kernel cuts them from its exact sum.
        let ticks = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
        Ok(Self {
            processor: Duration::from_secs_f64(ticks),
            memory: stat.rss * procfs::page_size(),
            threads: u64::try_from(stat.num_threads)?,
        })
    }
}

/// Open files and sockets of the process with this id; of this one without.
pub(crate) fn descriptors(pid: Option<u32>) -> Result<usize> {
    let process = match pid {
        Some(pid) => Process::new(i32::try_from(pid)?),
        None => Process::myself(),
    };
    Ok(process?.fd_count()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of(None).unwrap();
        assert!(usage.memory > 0 && usage.threads > 0);
        assert!(descriptors(None).unwrap() > 2);
        assert!(Usage::of(Some(u32::MAX)).is_err());
    }
}
