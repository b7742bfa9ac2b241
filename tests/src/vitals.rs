//! What a process holds: memory, threads, descriptors. Linux tells; elsewhere nothing is known.

use std::fs;

/// What a process holds at the moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Resident memory, in KiB.
    pub rss_kib: u64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

impl Vitals {
    /// Those of this process.
    #[must_use]
    pub fn of_self() -> Self {
        Self::of("self")
    }

    /// Those of another one; all zero when it is gone.
    #[must_use]
    pub fn of_process(pid: u32) -> Self {
        Self::of(&pid.to_string())
    }

    fn of(process: &str) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd"));
        Self {
            rss_kib: number("VmRSS:"),
            threads: number("Threads:"),
            descriptors: descriptors.map_or(0, |entries| entries.count() as u64),
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something_and_one_that_is_gone_nothing() {
        let own = Vitals::of_self();
        assert!(own.rss_kib > 0 && own.threads > 0 && own.descriptors > 0);
        assert_eq!(Vitals::of_process(u32::MAX), Vitals::default());
    }
}
