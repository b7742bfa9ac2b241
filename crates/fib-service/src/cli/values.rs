//! The values that options take, and how they are read.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use fib_service::Algorithm;
use rpc_core::{Inbox, QueueKind, QueueSpec, ShortString};

/// A URL as it was given. It may hold a password, so it is not printed, nor quoted by clap: it is
/// read where its errors are ours.
#[derive(Clone)]
pub(crate) struct Url(
    #[cfg_attr(not(any(feature = "lapin", feature = "amiquip")), allow(dead_code))] String,
);

impl Url {
    #[cfg(any(feature = "lapin", feature = "amiquip"))]
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Url {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Url(***)")
    }
}

/// Those that are not built in are not offered, and still understood: who asks for one is told how to
/// get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportName {
    /// Inside this process: the service and its callers both run here
    #[cfg_attr(not(feature = "memory"), value(hide = true))]
    Memory,
    /// RabbitMQ, through the async client library lapin
    #[cfg_attr(not(feature = "lapin"), value(hide = true))]
    Lapin,
    /// RabbitMQ, through the blocking client library amiquip
    #[cfg_attr(not(feature = "amiquip"), value(hide = true))]
    Amiquip,
}

/// What `--help` says of transports.
pub(super) fn transports() -> String {
    let mut help = "What carries the messages [default: the one for RabbitMQ, if exactly one is \
                    built in]"
        .to_owned();
    let missing: Vec<_> = TransportName::value_variants()
        .iter()
        .filter(|name| !name.is_built_in())
        .map(|name| name.as_str())
        .collect();
    if !missing.is_empty() {
        let (names, features) = (missing.join("`, `"), missing.join(","));
        help += &format!("\n\nNot built in: `{names}`. Build with `--features {features}`.");
    }
    help
}

impl TransportName {
    /// Whether this program can use it: each is a Cargo feature.
    pub(crate) const fn is_built_in(self) -> bool {
        match self {
            Self::Memory => cfg!(feature = "memory"),
            Self::Lapin => cfg!(feature = "lapin"),
            Self::Amiquip => cfg!(feature = "amiquip"),
        }
    }

    /// As on the command line, and as the Cargo feature.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Lapin => "lapin",
            Self::Amiquip => "amiquip",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Face {
    Async,
    Blocking,
}

impl Face {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Async => "async",
            Self::Blocking => "blocking",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum QueueType {
    #[default]
    Durable,
    Quorum,
    Transient,
    Passive,
}

impl QueueType {
    pub(crate) const fn spec(self, name: ShortString) -> QueueSpec {
        match self {
            Self::Durable => QueueSpec::durable(name),
            Self::Quorum => QueueSpec::quorum(name),
            Self::Transient => QueueSpec::transient(name),
            Self::Passive => QueueSpec::new(name, QueueKind::Passive),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    #[default]
    No,
    Yes,
}

impl Switch {
    pub(crate) const fn is_on(self) -> bool {
        matches!(self, Self::Yes)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Confirm {
    #[default]
    On,
    Off,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecName {
    #[default]
    Text,
    Json,
    Bincode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Reply {
    #[default]
    Exclusive,
    Direct,
}

impl Reply {
    pub(crate) const fn inbox(self) -> Inbox {
        match self {
            Self::Exclusive => Inbox::Exclusive,
            Self::Direct => Inbox::Direct,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AlgorithmName {
    Fast,
    Naive,
}

impl AlgorithmName {
    pub(crate) const fn algorithm(self) -> Algorithm {
        match self {
            Self::Fast => Algorithm::Fast,
            Self::Naive => Algorithm::Naive,
        }
    }
}

pub(super) fn queue_name(text: &str) -> Result<ShortString, String> {
    match ShortString::new(text) {
        Ok(name) if name.is_empty() => Err("a queue must have a name".into()),
        Ok(name) => Ok(name),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads `30s`, `500ms`, `2m`, and `30` for seconds; up to a day, and never nothing.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    const DAY: u64 = 24 * 60 * 60 * 1_000;
    let number = text.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let millis = match &text[number.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        _ => 0,
    };
    let millis = number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(millis));
    match millis {
        Some(millis @ 1..=DAY) => Ok(Duration::from_millis(millis)),
        _ => Err("expected a number of s, ms or m, from 1ms to a day"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        for (text, millis) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("2m", 120_000),
            ("7", 7_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in [
            "",
            "s",
            "0s",
            "-1s",
            "1.5s",
            "1h",
            "1 s",
            "99999999999999999999m",
            "1441m",
            "1é",
        ] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
