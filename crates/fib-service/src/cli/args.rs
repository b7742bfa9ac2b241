//! The command line, as clap reads it and as `--help` explains it.

use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use clap::{ArgGroup, Parser, Subcommand, value_parser};
use fib_service::QUEUE;
use rpc_core::ShortString;

pub(crate) use super::values::{
    AlgorithmName, CodecName, Confirm, Face, QueueType, Reply, Switch, TransportName, Url,
};
use super::values::{duration, queue_name, transports};

/// The Fibonacci service over any transport: inside this process, or over RabbitMQ.
///
/// Exit codes: 0 all well; 1 something failed, and standard error says what; 2 the command line was
/// not understood; 130 ended by a second signal.
#[derive(Debug, Parser)]
#[command(name = "fib-service", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve and call inside this process, with no broker
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Answer requests from a queue until SIGINT or SIGTERM
    ///
    /// A connection that is lost is made again, and so is one that could not be made at the start;
    /// standard error tells, of the trouble and of its end. Only what an operator must mend (a wrong
    /// password, a queue of other arguments) ends it at the start. A log that cannot be written,
    /// because the disk is full or nobody reads, ends nothing.
    ///
    /// The first signal stops it gently: no new requests, those that have begun are answered and
    /// acknowledged, for 30 seconds at most. The second one stops it at once.
    ///
    /// The last line counts what came: requests that ran well, that failed, and that were refused;
    /// and what was dropped unanswered, because it is no request or asks for its answer in a queue
    /// that the service itself reads. What else became of some follows, where there are any.
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Serve),
    /// Call the service once for each number, all calls at the same time
    ///
    /// Results are printed in the order of the numbers, failures to standard error. What a failure
    /// says in parentheses is whether the service has run: executed, not executed, or maybe.
    #[command(after_help = CALL_EXAMPLES)]
    Call(Call),
    /// Put the service under load and measure it; every answer is checked
    ///
    /// A closed loop: each of the callers sends its next call when it has the answer to the one
    /// before. Latency is that of the calls that succeeded. One call goes ahead of the measurement,
    /// to see that anybody answers at all.
    ///
    /// Ctrl-C ends it early. So does a call that fails because the connection was lost: with
    /// `--wait-for-ready yes` calls wait for the next one. Standard error says so, and JSON has
    /// "cut_short": "signal" or "connection lost".
    #[command(after_help = LOAD_EXAMPLES)]
    Load(Load),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Demo {
    /// Which Fibonacci numbers
    #[arg(value_name = "N", default_value = "30", allow_negative_numbers = true)]
    pub(crate) numbers: Vec<String>,
    #[command(flatten)]
    pub(crate) calls: CallArgs,
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// Print no line for each request
    #[arg(long)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) guarantees: GuaranteeArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Call {
    /// Which Fibonacci numbers; decimal digits, as many as you like
    ///
    /// With `--codec text` anything is sent as it stands here, to see what the service makes of it.
    #[arg(value_name = "N", required = true, allow_negative_numbers = true)]
    pub(crate) numbers: Vec<String>,
    /// Print one JSON object a line: {"n","result"}, or {"n","error"} for a call that failed
    ///
    /// There is one line for each number, also where there was no connection to call over.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) calls: CallArgs,
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("limit").args(["calls", "duration"]))]
pub(crate) struct Load {
    /// Stop after so many calls
    #[arg(id = "calls", long = "calls", value_name = "N", value_parser = value_parser!(u64).range(1..))]
    pub(crate) number: Option<u64>,
    /// Stop after so long: 90, 90s, 500ms or 2m [default: 5s]
    #[arg(long, value_name = "S", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// How many callers there are, each with one call in flight
    #[arg(long, value_name = "K", default_value_t = 64, value_parser = value_parser!(u32).range(1..=65_536))]
    pub(crate) inflight: u32,
    /// Call for 0 up to this one, over and over [default: 90, or 20 with --algorithm naive]
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(..=186))]
    pub(crate) max_n: Option<u64>,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) calls: CallArgs,
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// How calls are made.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Calls")]
pub(crate) struct CallArgs {
    /// How long each call may take: 30s, 500ms or 2m
    ///
    /// With `call` and `demo` it begins when the program does, so that connecting is a part of it. An
    /// address may take 4 seconds of it, or what its `connection_timeout` says, and never more than
    /// its share: half of it where there are two.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// How numbers are written in requests and replies
    #[arg(long, value_enum, default_value_t)]
    pub(crate) codec: CodecName,
    /// How long to wait for a broker, and for a service, that are not there
    ///
    /// `no` ends the call as soon as that is known. `yes` waits as long as the call may take.
    #[arg(long, value_enum, default_value_t, value_name = "YES|NO")]
    pub(crate) wait_for_ready: Switch,
    /// Whether a call that may have run is made again, up to four times: Fibonacci numbers do not
    /// mind
    #[arg(long, value_enum, default_value_t = Switch::Yes, value_name = "YES|NO")]
    pub(crate) retry: Switch,
    /// How replies come back: through a queue of this connection alone, or without any queue
    #[arg(long, value_enum, default_value_t)]
    pub(crate) reply: Reply,
}

/// How the service works. With `call`, `load` and `demo` for the service inside this process.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Service (where it runs in this process)")]
pub(crate) struct ServiceArgs {
    /// How many requests are worked on at once [default: the cores of this machine]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<NonZeroUsize>,
    /// How many requests are taken from the queue at once [default: twice the concurrency, and for
    /// quick work at least 64]
    #[arg(long, value_name = "N")]
    pub(crate) prefetch: Option<NonZeroU16>,
    /// How numbers are computed: by adding up, or by the tutorial's recursion, which is work for
    /// the processor and goes up to 45 [default: fast]
    #[arg(long, value_enum)]
    pub(crate) algorithm: Option<AlgorithmName>,
    /// Pretend to work for so many milliseconds on each request
    #[arg(long, value_name = "N", value_parser = value_parser!(u64).range(..=3_600_000))]
    pub(crate) delay_ms: Option<u64>,
}

impl ServiceArgs {
    /// Whether anything was asked for.
    pub(crate) const fn is_empty(&self) -> bool {
        self.concurrency.is_none()
            && self.prefetch.is_none()
            && self.algorithm.is_none()
            && self.delay_ms.is_none()
    }
}

/// How a server answers, and what it survives.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Guarantees")]
pub(crate) struct GuaranteeArgs {
    /// Acknowledge a request before it runs: it never runs twice, and is lost with its worker
    #[arg(long)]
    pub(crate) at_most_once: bool,
    /// Remember answers for five minutes, and give the same one to a request that comes again
    #[arg(long)]
    pub(crate) dedup: bool,
    /// Connect once, and end when that connection does, instead of connecting again
    #[arg(long)]
    pub(crate) once: bool,
}

/// Which transport, and which queue on it.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Transport")]
pub(crate) struct ConnectArgs {
    /// What carries the messages [default: the one for RabbitMQ, if exactly one is built in]
    // The rest is said by `transports`, which knows what is built in.
    #[arg(long, value_enum, long_help = transports())]
    pub(crate) transport: Option<TransportName>,
    /// Whether tasks or threads serve and call [default: what the transport is made for]
    #[arg(long, value_enum)]
    pub(crate) face: Option<Face>,
    /// Where RabbitMQ is; `memory` has no use for it
    ///
    /// Give it several times for the nodes of a cluster (in AMQP_URL, with spaces between): when one
    /// is lost, the next is tried.
    #[arg(long, env = "AMQP_URL", hide_env_values = true, default_value = DEFAULT_URL, value_delimiter = ' ')]
    pub(crate) url: Vec<Url>,
    /// The queue of the service
    #[arg(long, value_name = "NAME", default_value = QUEUE, value_parser = queue_name)]
    pub(crate) queue: ShortString,
    /// What the queue survives: a restart, the loss of a node, nothing; `passive` takes it as it is
    #[arg(long, value_enum, default_value_t)]
    pub(crate) queue_type: QueueType,
    /// Whether RabbitMQ confirms what is published; `off` is faster, and loses things silently
    #[arg(long, value_enum, default_value_t)]
    pub(crate) confirm: Confirm,
}

const DEFAULT_URL: &str = "amqp://guest:guest@127.0.0.1:5672/%2f";

const EXAMPLES: &str = "\
Examples:
  fib-service demo 30
  fib-service serve --transport lapin --url amqp://me:secret@broker/%2f
  AMQP_URL=amqp://me:secret@broker/%2f fib-service call --transport amiquip 30
  fib-service load --transport memory --face blocking --calls 100000

Each command has more with `--help`.";

const DEMO_EXAMPLES: &str = "\
Examples:
  fib-service demo
  fib-service demo 0 1 30 186 187
  fib-service demo --face blocking --delay-ms 200 10 20 30";

const SERVE_EXAMPLES: &str = "\
Examples:
  fib-service serve --transport lapin
  fib-service serve --transport amiquip --queue rpc_queue --concurrency 8 --quiet
  fib-service serve --transport lapin --delay-ms 50 --concurrency 100
  fib-service serve --transport lapin --queue-type quorum --dedup
  fib-service serve --transport lapin --url amqp://node1 --url amqp://node2 --url amqp://node3";

const CALL_EXAMPLES: &str = "\
Examples:
  fib-service call --transport lapin 30
  fib-service call --transport amiquip --codec json --timeout 5s 30 100 186
  fib-service call --transport memory -- 30 abc -1
  fib-service call --transport lapin --wait-for-ready yes --timeout 2m 30";

const LOAD_EXAMPLES: &str = "\
Examples:
  fib-service load --transport memory --calls 200000
  fib-service load --transport lapin --duration 30s --inflight 256
  fib-service load --transport amiquip --calls 50000 --codec bincode --json";

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_url_is_not_shown() {
        let args = Args::try_parse_from(["fib-service", "serve", "--url", "amqp://u:CANARY@h"]);
        assert!(!format!("{args:?}").contains("CANARY"));
    }
}
