//! Finds what the tests need on this machine, and installs what it may.
//!
//! Packages come from the system's own package manager, and only where that asks no questions: as
//! root, or with a sudo that wants no password.
//! A broker that the package starts as a system service is not ours and is left alone; a broker
//! that the user names is taken, and RabbitMQ then not looked for.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};
use rabbitmq_node::{Installation, Node};

use crate::Verdict;
use crate::run::{announced, check_interrupted, echo, show, succeeds};
use crate::workspace::Metadata;

/// Options of `setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Only say what is there and which commands would be run for the rest
    #[arg(long)]
    dry_run: bool,
}

/// The error for something that cannot be had from here.
#[derive(Debug)]
pub(crate) struct Missing(pub(crate) String);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Where the broker for the tests comes from.
#[derive(Debug)]
pub(crate) enum Broker {
    /// The user named a broker that tests may use.
    Given(String),
    /// Private nodes can be started.
    Installed(Installation),
}

/// The command `setup`.
pub(crate) fn run(options: &Options) -> Result<Verdict> {
    if options.dry_run {
        return plan();
    }
    install_missing(needs())?;
    broker()?;
    python()?;
    Ok(Verdict::Passed)
}

/// Finds or installs a broker, and Python with pika, with one run of the package manager.
pub(crate) fn for_tests() -> Result<(Broker, PathBuf)> {
    install_missing(needs())?;
    Ok((broker()?, python()?))
}

/// Finds or installs a broker.
pub(crate) fn for_benches() -> Result<Broker> {
    if given_url().is_none() {
        install_missing(&[Need::RabbitMq])?;
    }
    broker()
}

/// Finds or installs valgrind, and returns what to call it by.
pub(crate) fn valgrind() -> Result<PathBuf> {
    install_missing(&[Need::Valgrind])?;
    if has_valgrind()? {
        Ok(valgrind_path())
    } else {
        Err(Missing(GET_VALGRIND.into()).into())
    }
}

/// The broker that the user named.
pub(crate) fn given_url() -> Option<String> {
    env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty())
}

/// Finds or installs RabbitMQ, from which private nodes can be started.
pub(crate) fn rabbitmq() -> Result<Installation> {
    install_missing(&[Need::RabbitMq])?;
    match Installation::find() {
        Ok(installation) => Ok(installation),
        Err(error) => Err(Missing(format!("{error}\n{GET_RABBITMQ}")).into()),
    }
}

/// Starts the node that tests or benches run against.
pub(crate) fn start_node(builder: rabbitmq_node::Builder) -> Result<Node> {
    let node = announced("starting a private RabbitMQ", || Ok(builder.start()?))?;
    check_interrupted()?;
    echo(&format!(
        "    {} (pid {})",
        node.url(),
        node.pid().unwrap_or_default()
    ));
    Ok(node)
}

fn broker() -> Result<Broker> {
    if let Some(url) = given_url() {
        echo(&format!(
            "using the broker that {URL_VARIABLE} names: {}",
            redacted(&url)
        ));
        return Ok(Broker::Given(url));
    }
    match Installation::find() {
        Ok(installation) => {
            let version = installation
                .version()
                .unwrap_or_else(|| "of unknown version".into());
            echo(&format!(
                "RabbitMQ {version} in {}",
                installation.sbin().display()
            ));
            Ok(Broker::Installed(installation))
        }
        Err(error) => Err(Missing(format!("{error}\n{GET_RABBITMQ}\n{GIVE_URL}")).into()),
    }
}

/// The URL without its user, password and parameters.
///
/// The last `@` is what counts, so that one in a password does not betray the rest of it.
fn redacted(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("amqp", url));
    let (user, place) = match rest.rsplit_once('@') {
        Some((_, place)) => ("***@", place),
        None => ("", rest),
    };
    let place = place.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{user}{place}")
}

fn python() -> Result<PathBuf> {
    if let Some(python) = python_with_pika()? {
        echo(&format!("Python with pika: {}", python.display()));
        return Ok(python);
    }
    if let Some(python) = env::var_os(PYTHON_VARIABLE) {
        let problem = format!("{PYTHON_VARIABLE}={} cannot import pika", python.display());
        return Err(Missing(format!("{problem}\n{GET_PIKA}")).into());
    }
    let home = environment_dir()?;
    let python = home.join("bin").join("python");
    let what = format!("installing pika with pip into {}", home.display());
    let made = announced(&what, || {
        let mut make = Command::new("python3");
        make.args(["-m", "venv"]).arg(&home);
        let mut install = Command::new(&python);
        install.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            PIKA,
        ]);
        for command in [make, install] {
            let ended = show(command, PIP_LIMIT)?;
            if !ended.success() {
                bail!("it {}", ended.describe());
            }
        }
        Ok(())
    });
    check_interrupted()?;
    match made {
        Ok(()) if has_pika(&python)? => Ok(python),
        Ok(()) => Err(Missing(GET_PIKA.into()).into()),
        Err(error) => Err(Missing(format!("pip: {error:#}\n{GET_PIKA}")).into()),
    }
}

/// What can be missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Need {
    Pika,
    RabbitMq,
    Valgrind,
}

impl Need {
    fn is_met(self) -> Result<bool> {
        match self {
            Self::Pika => Ok(python_with_pika()?.is_some()),
            Self::RabbitMq => Ok(Installation::find().is_ok()),
            Self::Valgrind => has_valgrind(),
        }
    }

    /// Debian's name for it.
    fn package(self) -> &'static str {
        match self {
            Self::Pika => "python3-pika",
            Self::RabbitMq => "rabbitmq-server",
            Self::Valgrind => "valgrind",
        }
    }

    /// The variable by which a person decides where it is, so that no package would be looked at.
    fn override_variable(self) -> &'static str {
        match self {
            Self::Pika => PYTHON_VARIABLE,
            Self::RabbitMq => "RABBITMQ_SBIN",
            Self::Valgrind => VALGRIND_VARIABLE,
        }
    }
}

/// What tests need: no RabbitMQ of our own where the user named one.
fn needs() -> &'static [Need] {
    match given_url() {
        Some(_) => &[Need::Pika],
        None => &[Need::RabbitMq, Need::Pika],
    }
}

fn packages_for(needs: &[Need]) -> Result<Vec<&'static str>> {
    let mut packages = Vec::new();
    for need in needs {
        if need.is_met()? {
            continue;
        }
        if env::var_os(need.override_variable()).is_some() {
            echo(&format!(
                "{} is set but leads to nothing usable, and no package can change that",
                need.override_variable()
            ));
        } else {
            packages.push(need.package());
        }
    }
    Ok(packages)
}

fn install_missing(needs: &[Need]) -> Result<()> {
    let packages = packages_for(needs)?;
    if packages.is_empty() {
        return Ok(());
    }
    let Some(rights) = package_rights()? else {
        echo(&format!(
            "not installed: {} (neither root nor sudo here)",
            packages.join(", ")
        ));
        return Ok(());
    };
    for arguments in apt_commands(&packages) {
        let line = arguments.join(" ");
        announced(&line, || {
            let ended = show(apt(rights, &arguments), APT_LIMIT)?;
            // A package whose service cannot start reports failure although its files are there:
            // whether the need is met is looked at afterwards, not here.
            if !ended.success() {
                echo(&format!("    `{line}` {}", ended.describe()));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// The command `setup --dry-run`.
fn plan() -> Result<Verdict> {
    if let Some(url) = given_url() {
        let url = redacted(&url);
        echo(&format!(
            "{URL_VARIABLE} names a broker, {url}: none is needed"
        ));
    }
    for need in needs() {
        let state = if need.is_met()? {
            "is there"
        } else {
            "is missing"
        };
        echo(&format!("{} {state}", need.package()));
    }
    let packages = packages_for(needs())?;
    if packages.is_empty() {
        echo("nothing would be installed");
        return Ok(Verdict::Passed);
    }
    match package_rights()? {
        Some(rights) => {
            for arguments in apt_commands(&packages) {
                let command = apt(rights, &arguments);
                let words = command
                    .get_args()
                    .map(|word| word.to_string_lossy().into_owned());
                let program = command.get_program().to_string_lossy().into_owned();
                let line: Vec<_> = std::iter::once(program).chain(words).collect();
                echo(&format!("would run: {}", line.join(" ")));
            }
        }
        None => echo(&format!(
            "nothing can be installed from here\n{GET_RABBITMQ}\n{GET_PIKA}"
        )),
    }
    Ok(Verdict::Passed)
}

/// By what right packages are installed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rights {
    Root,
    Sudo,
}

fn package_rights() -> Result<Option<Rights>> {
    let probe = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        succeeds(command, Duration::from_secs(20))
    };
    if !probe("apt-get", &["--version"])? {
        return Ok(None);
    }
    if rustix::process::geteuid().is_root() {
        return Ok(Some(Rights::Root));
    }
    Ok(probe("sudo", &["-n", "true"])?.then_some(Rights::Sudo))
}

fn apt_commands(packages: &[&'static str]) -> [Vec<&'static str>; 2] {
    // Another run of the package manager may hold its lock for a while, as on a fresh machine.
    let options = ["-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3"];
    let update = [&["apt-get"], &options[..], &["update"]].concat();
    let install = [
        &["apt-get"],
        &options[..],
        &["install", "--yes", "--no-install-recommends"],
        packages,
    ];
    [update, install.concat()]
}

fn apt(rights: Rights, arguments: &[&str]) -> Command {
    let setting = "DEBIAN_FRONTEND=noninteractive";
    let mut command = match rights {
        Rights::Root => Command::new("env"),
        Rights::Sudo => {
            let mut command = Command::new("sudo");
            command.args(["-n", "env"]);
            command
        }
    };
    command.arg(setting).args(arguments);
    command
}

fn python_with_pika() -> Result<Option<PathBuf>> {
    let candidates = match env::var_os(PYTHON_VARIABLE) {
        Some(python) => vec![PathBuf::from(python)],
        None => vec![
            // Debian's packages are for Debian's Python, which need not be the first in PATH.
            PathBuf::from("/usr/bin/python3"),
            PathBuf::from("python3"),
            environment_dir()?.join("bin").join("python"),
        ],
    };
    for python in candidates {
        if has_pika(&python)? {
            return Ok(Some(python));
        }
    }
    Ok(None)
}

fn has_pika(python: &Path) -> Result<bool> {
    let mut command = Command::new(python);
    command.args(["-c", "import pika"]);
    succeeds(command, Duration::from_secs(30))
}

fn valgrind_path() -> PathBuf {
    env::var_os(VALGRIND_VARIABLE).map_or_else(|| "valgrind".into(), PathBuf::from)
}

fn has_valgrind() -> Result<bool> {
    let mut command = Command::new(valgrind_path());
    command.arg("--version");
    succeeds(command, Duration::from_secs(30))
}

/// Where a Python environment of our own lies.
fn environment_dir() -> Result<PathBuf> {
    Ok(Metadata::load()?.target_directory.join("python"))
}

/// Names the broker for tests, and to tests.
pub(crate) const URL_VARIABLE: &str = "RPC_AMQP_URL";

/// Names the Python for tests, and to tests.
pub(crate) const PYTHON_VARIABLE: &str = "RPC_PYTHON";

/// Names the valgrind that counts instructions.
const VALGRIND_VARIABLE: &str = "RPC_VALGRIND";

const PIKA: &str = "pika==1.3.2";

const GET_RABBITMQ: &str = "\
to get RabbitMQ:
  Debian, Ubuntu   sudo apt-get install rabbitmq-server
  macOS            brew install rabbitmq
  elsewhere        install 3.8 or later, and set RABBITMQ_SBIN to the directory of its scripts";

const GIVE_URL: &str = "\
or set RPC_AMQP_URL to a broker that tests may use";

const GET_PIKA: &str = "\
to get Python with pika, which plays the foreign peer in tests:
  Debian, Ubuntu   sudo apt-get install python3-pika
                   or python3-venv, with which pip can install pika below target/
  elsewhere        python3 -m pip install pika
                   and set RPC_PYTHON to that python3 if it is not the first in PATH";

const GET_VALGRIND: &str = "\
to get valgrind, which counts instructions:
  Debian, Ubuntu   sudo apt-get install valgrind
  elsewhere        install it, and set RPC_VALGRIND if it is not in PATH";

const APT_LIMIT: Duration = Duration::from_secs(900);

const PIP_LIMIT: Duration = Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rights: Rights, arguments: &[&str]) -> String {
        let command = apt(rights, arguments);
        let words = command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned());
        let program = command.get_program().to_string_lossy().into_owned();
        std::iter::once(program)
            .chain(words)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn packages_are_installed_without_questions_after_an_update() {
        let [update, install] = apt_commands(&["rabbitmq-server", "python3-pika"]);
        assert!(line(Rights::Root, &update).ends_with(" update"));
        let install = line(Rights::Root, &install);
        assert!(
            install.starts_with("env DEBIAN_FRONTEND=noninteractive apt-get "),
            "{install}"
        );
        assert!(
            install.ends_with(" rabbitmq-server python3-pika"),
            "{install}"
        );
        assert!(install.contains(" --yes "), "{install}");
    }

    #[test]
    fn named_broker_is_printed_without_its_secrets() {
        for (url, printed) in [
            ("amqp://u:p@host:5672/%2f", "amqp://***@host:5672/%2f"),
            ("amqps://u:p@x/y@host/v?password=p", "amqps://***@host/v"),
            ("amqp://host", "amqp://host"),
            ("u:p@host", "amqp://***@host"),
        ] {
            assert_eq!(redacted(url), printed);
        }
    }

    #[test]
    fn sudo_never_asks_for_a_password() {
        let [update, _] = apt_commands(&[]);
        let line = line(Rights::Sudo, &update);
        assert!(
            line.starts_with("sudo -n env DEBIAN_FRONTEND=noninteractive apt-get "),
            "{line}"
        );
    }
}
