//! Directories for the time of a run. They are gone at its end, also when it is interrupted: a signal
//! runs no destructor, so whoever takes one calls [`clear`].

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// A directory that is removed when this is dropped.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// A new one, empty.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn new() -> Result<Self> {
        // Under the lock, so that none is made behind the back of `clear`.
        let mut living = living();
        let dir = tempfile::Builder::new().prefix("torture-").tempdir();
        let dir = dir.context("a directory for the logs")?;
        living.insert(dir.path().to_path_buf());
        Ok(Self(dir))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        living().remove(self.0.path());
    }
}

/// Removes all that there are. Those who still write into one get errors: this is for the end.
pub fn clear() {
    for dir in &*living() {
        // A worker that opens its log in between makes a removal fail, and the next one succeed.
        for _ in 0..5 {
            if fs::remove_dir_all(dir).is_ok() {
                break;
            }
        }
    }
}

fn living() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    static LIVING: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}
