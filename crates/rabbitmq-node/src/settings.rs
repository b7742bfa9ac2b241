//! What makes a node private: its directory, its ports, and the environment of every tool that is
//! to speak of this node and of no other.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::installation::Installation;

/// The fixed facts of one node.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) installation: Installation,
    /// Canonical, because the process is recognised by this path in its command line.
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) dist_port: u16,
    pub(crate) epmd_port: u16,
    pub(crate) cookie: String,
    pub(crate) config: Vec<String>,
}

impl Settings {
    /// The name by which Erlang knows the node.
    pub(crate) fn nodename(&self) -> String {
        format!("{}@localhost", self.name)
    }

    /// The word of the command line that no other process has.
    pub(crate) fn mark(&self) -> String {
        self.dir.display().to_string()
    }

    /// The file that takes the node's standard output and error.
    pub(crate) fn output_path(&self) -> PathBuf {
        self.dir.join("output.log")
    }

    /// The broker's own log.
    pub(crate) fn log_path(&self) -> PathBuf {
        self.dir
            .join("log")
            .join(format!("{}.log", self.nodename()))
    }

    /// A server script, set up to concern this node only.
    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.installation.script(script));
        // What a person has exported for a broker of theirs must not reach this one.
        for (name, _) in env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("RABBITMQ_") || name.starts_with("ERL_") {
                command.env_remove(&*name);
            }
        }
        let dir = &self.dir;
        command
            .current_dir(dir)
            // Erlang looks for its cookie here.
            .env("HOME", dir)
            .env("LANG", "C.UTF-8")
            // A node that fails to start says why in its output; the dump only takes time.
            .env("ERL_CRASH_DUMP_SECONDS", "0")
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("RABBITMQ_NODENAME", self.nodename())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("RABBITMQ_MNESIA_BASE", dir.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", dir.join("log"))
            .env("RABBITMQ_GENERATED_CONFIG_DIR", dir.join("schema"))
            .env("RABBITMQ_CONFIG_FILE", dir.join("rabbitmq"))
            .env("RABBITMQ_ADVANCED_CONFIG_FILE", dir.join("advanced.config"))
            .env("RABBITMQ_CONF_ENV_FILE", dir.join("rabbitmq-env.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", dir.join("enabled_plugins"))
            .env("RABBITMQ_PID_FILE", dir.join("pid"));
        command
    }

    /// The command that becomes the node.
    pub(crate) fn server(&self) -> Command {
        let mut command = self.command("rabbitmq-server");
        command
            // With input allowed the script replaces itself by the virtual machine, so that the
            // process we started is the broker; `-noinput` then takes the input away again.
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                // Two schedulers that do not spin: several idle nodes share a small machine.
                "+S 2:2 +sbwt none -noinput -kernel inet_dist_use_interface {127,0,0,1}",
            );
        command
    }

    /// Writes everything the node reads at its start.
    pub(crate) fn write_files(&self) -> Result<()> {
        for part in ["mnesia", "log", "schema"] {
            let path = self.dir.join(part);
            fs::create_dir_all(&path).map_err(Error::path("create", &path))?;
        }
        let mut config = format!("listeners.tcp.local = 127.0.0.1:{}\n", self.port);
        config.push_str("log.console = false\n");
        // The default compares with the memory of the machine and can block publishers on a small
        // disk, which a test would see as a broker alarm.
        config.push_str("disk_free_limit.absolute = 50MB\n");
        for line in &self.config {
            config.push_str(line);
            config.push('\n');
        }
        write(&self.dir.join("rabbitmq.conf"), &config)?;
        write(&self.dir.join("enabled_plugins"), "[].\n")?;
        // The system's file of this kind would override the environment.
        write(&self.dir.join("rabbitmq-env.conf"), "")?;
        self.write_cookie()
    }

    /// Erlang refuses a cookie that others may read.
    fn write_cookie(&self) -> Result<()> {
        let path = self.dir.join(".erlang.cookie");
        if fs::read_to_string(&path).is_ok_and(|present| present == self.cookie) {
            return Ok(());
        }
        write_secret(&path, &self.cookie, 0o400)
    }
}

/// Writes a file that nobody else may read, at any moment.
pub(crate) fn write_secret(path: &Path, text: &str, mode: u32) -> Result<()> {
    // The mode is for new files only and may forbid writing, so that an old one has to go first;
    // mostly there is none.
    let _ = fs::remove_file(path);
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(Error::path("write", path))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::path("write", path))
}
