//! What a detached node leaves behind in its directory, so that a later process finds it again.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::settings::{Settings, write_secret};

/// The content of the state file.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct State {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) port: u16,
    pub(crate) dist_port: u16,
    pub(crate) epmd_port: u16,
    pub(crate) epmd_pid: Option<u32>,
    pub(crate) cookie: String,
    pub(crate) config: Vec<String>,
}

impl State {
    /// Describes a running node.
    pub(crate) fn new(settings: &Settings, pid: u32, epmd_pid: Option<u32>) -> Self {
        Self {
            name: settings.name.clone(),
            pid,
            port: settings.port,
            dist_port: settings.dist_port,
            epmd_port: settings.epmd_port,
            epmd_pid,
            cookie: settings.cookie.clone(),
            config: settings.config.clone(),
        }
    }

    /// Reads the state that was saved in `dir`.
    pub(crate) fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let unusable = |reason: String| Error::State {
            dir: dir.to_path_buf(),
            reason,
        };
        let text = fs::read_to_string(&path)
            .map_err(|error| unusable(format!("cannot read {FILE}: {error}")))?;
        serde_json::from_str(&text).map_err(|error| unusable(format!("{FILE}: {error}")))
    }

    /// Saves the state in `dir`, in one step as seen by any reader.
    pub(crate) fn save(&self, dir: &Path) -> Result<()> {
        let path = dir.join(FILE);
        let fresh = dir.join(format!("{FILE}.new"));
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::State {
            dir: dir.to_path_buf(),
            reason: error.to_string(),
        })?;
        // It has the cookie, by which one commands the node.
        write_secret(&fresh, &text, 0o600)?;
        fs::rename(&fresh, &path).map_err(Error::path("replace", &path))
    }

    /// Forgets the state in `dir`; a directory without one is as good.
    pub(crate) fn remove(dir: &Path) {
        let _ = fs::remove_file(dir.join(FILE));
    }
}

const FILE: &str = "node.json";

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn saved_state_is_loaded_again_and_private() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let state = State {
            name: "n".into(),
            pid: 7,
            port: 1,
            dist_port: 2,
            epmd_port: 3,
            epmd_pid: None,
            cookie: "c".into(),
            config: vec!["a = b".into()],
        };
        // Something that a save left behind, and that others may read, is no obstacle.
        fs::write(dir.path().join(format!("{FILE}.new")), "{").expect("a file");
        state.save(dir.path()).expect("saved");
        let file = fs::metadata(dir.path().join(FILE)).expect("a file");
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        let loaded = State::load(dir.path()).expect("loaded");
        assert_eq!(format!("{state:?}"), format!("{loaded:?}"));
    }

    #[test]
    fn damaged_state_names_the_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(matches!(State::load(dir.path()), Err(Error::State { .. })));
        fs::write(dir.path().join(FILE), "{").expect("a file");
        let error = State::load(dir.path()).expect_err("damaged").to_string();
        assert!(error.contains(&dir.path().display().to_string()), "{error}");
    }
}
