//! Which transport is meant, and where it comes from.

use std::time::Duration;

#[cfg(any(feature = "lapin", feature = "amiquip"))]
use amqp_broker::{AmqpConfig, AmqpUrl, Confirms, Endpoints, Timeouts};
#[cfg(feature = "lapin")]
use rpc_core::adapt::BlockOnConnector;
#[cfg(all(feature = "amiquip", feature = "async"))]
use rpc_core::adapt::OffloadConnector;
#[cfg(feature = "amiquip")]
use transport_amiquip::AmiquipConnector;
#[cfg(feature = "lapin")]
use transport_lapin::LapinConnector;
#[cfg(feature = "memory")]
use transport_memory::MemoryBroker;

use super::Failure;
#[cfg(any(feature = "lapin", feature = "amiquip"))]
use super::args::{Confirm, Url};
use super::args::{ConnectArgs, Face, TransportName};
use super::link::Link;
#[cfg(feature = "async")]
use super::link::Runtime;

/// A kind of transport in one face, ready to be connected.
#[derive(Debug)]
pub(crate) struct Backend {
    name: TransportName,
    face: Face,
    kind: Kind,
    endpoints: u32,
    #[cfg(feature = "async")]
    runtime: Option<Runtime>,
}

#[derive(Clone, Debug)]
enum Kind {
    #[cfg(feature = "memory")]
    Memory(MemoryBroker),
    #[cfg(feature = "lapin")]
    Lapin(LapinConnector),
    #[cfg(feature = "amiquip")]
    Amiquip(AmiquipConnector),
}

impl Backend {
    /// Finds out what the command line means. Connects nowhere yet.
    pub(crate) fn choose(args: &ConnectArgs) -> Result<Self, Failure> {
        let name = args.transport.map_or_else(only_broker, Ok)?;
        Self::of(name, args, None)
    }

    /// The same for a command that is to end within `limit`: all its addresses together take no
    /// longer than that to be tried.
    pub(crate) fn choose_within(args: &ConnectArgs, limit: Duration) -> Result<Self, Failure> {
        let name = args.transport.map_or_else(only_broker, Ok)?;
        Self::of(name, args, Some(limit / endpoint_count(name, args).max(1)))
    }

    /// The transport inside this process.
    pub(crate) fn memory(args: &ConnectArgs) -> Result<Self, Failure> {
        Self::of(TransportName::Memory, args, None)
    }

    /// `limit` is that of one attempt to connect.
    fn of(
        name: TransportName,
        args: &ConnectArgs,
        limit: Option<Duration>,
    ) -> Result<Self, Failure> {
        let kind = Kind::of(name, args, limit)?;
        let face = args.face.unwrap_or_else(|| native_face(name));
        #[cfg(not(feature = "async"))]
        if face == Face::Async {
            return Err(Failure::usage(
                "the async face is not built in: build with `--features async`",
            ));
        }
        Ok(Self {
            name,
            face,
            kind,
            endpoints: endpoint_count(name, args),
            #[cfg(feature = "async")]
            runtime: (face == Face::Async).then(Runtime::start).transpose()?,
        })
    }

    /// Whether it stays in this process, so that nobody else can serve it.
    pub(crate) fn is_local(&self) -> bool {
        self.name == TransportName::Memory
    }

    /// How many addresses there are to connect to.
    pub(crate) const fn endpoints(&self) -> u32 {
        self.endpoints
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name.as_str()
    }

    pub(crate) const fn face(&self) -> &'static str {
        self.face.as_str()
    }

    /// Where its transports come from. Connects nowhere yet.
    pub(crate) fn link(&self) -> Link {
        #[cfg(feature = "async")]
        if let Some(runtime) = self.runtime {
            return match self.kind.clone() {
                #[cfg(feature = "memory")]
                Kind::Memory(broker) => Link::of_async(broker, runtime),
                #[cfg(feature = "lapin")]
                Kind::Lapin(connector) => Link::of_async(connector, runtime),
                #[cfg(feature = "amiquip")]
                Kind::Amiquip(connector) => {
                    Link::of_async(OffloadConnector::new(connector), runtime)
                }
            };
        }
        match self.kind.clone() {
            #[cfg(feature = "memory")]
            Kind::Memory(broker) => Link::of_blocking(broker),
            #[cfg(feature = "lapin")]
            Kind::Lapin(connector) => Link::of_blocking(BlockOnConnector::new(connector)),
            #[cfg(feature = "amiquip")]
            Kind::Amiquip(connector) => Link::of_blocking(connector),
        }
    }
}

impl Kind {
    #[cfg_attr(
        not(any(feature = "lapin", feature = "amiquip")),
        allow(unused_variables, reason = "only a broker has a URL")
    )]
    fn of(
        name: TransportName,
        args: &ConnectArgs,
        limit: Option<Duration>,
    ) -> Result<Self, Failure> {
        match name {
            #[cfg(feature = "memory")]
            TransportName::Memory => Ok(Self::Memory(MemoryBroker::new())),
            #[cfg(feature = "lapin")]
            TransportName::Lapin => Ok(Self::Lapin(LapinConnector::new(endpoints(args, limit)?))),
            #[cfg(feature = "amiquip")]
            TransportName::Amiquip => Ok(Self::Amiquip(AmiquipConnector::new(endpoints(
                args, limit,
            )?))),
            #[allow(
                unreachable_patterns,
                reason = "with all transports built in nothing is left"
            )]
            other => {
                let name = other.as_str();
                Err(Failure::usage(format!(
                    "the transport `{name}` is not built in: build with `--features {name}`"
                )))
            }
        }
    }
}

fn endpoint_count(name: TransportName, args: &ConnectArgs) -> u32 {
    match name {
        TransportName::Memory => 1,
        TransportName::Lapin | TransportName::Amiquip => {
            u32::try_from(args.url.len()).unwrap_or(u32::MAX)
        }
    }
}

/// The transport to RabbitMQ, if there is no choice.
fn only_broker() -> Result<TransportName, Failure> {
    match (cfg!(feature = "lapin"), cfg!(feature = "amiquip")) {
        (true, false) => Ok(TransportName::Lapin),
        (false, true) => Ok(TransportName::Amiquip),
        (true, true) => Err(Failure::usage(
            "which transport? say `--transport lapin` or `--transport amiquip`",
        )),
        (false, false) => Err(Failure::usage(
            "which transport? `--transport memory` stays in this process; for RabbitMQ build with \
             `--features lapin` or `--features amiquip`",
        )),
    }
}

const fn native_face(name: TransportName) -> Face {
    match name {
        TransportName::Memory | TransportName::Lapin => Face::Async,
        TransportName::Amiquip => Face::Blocking,
    }
}

#[cfg(any(feature = "lapin", feature = "amiquip"))]
const CONNECTION_NAME: &str = "fib-service";

#[cfg(any(feature = "lapin", feature = "amiquip"))]
fn endpoints(args: &ConnectArgs, limit: Option<Duration>) -> Result<Endpoints, Failure> {
    let config = |url| config(url, args.confirm, limit);
    let mut configs = args.url.iter().map(config);
    let first = configs
        .next()
        .unwrap_or_else(|| Err(Failure::usage("`--url` or AMQP_URL is empty")))?;
    configs.try_fold(Endpoints::new(first), |endpoints, config| {
        Ok(endpoints.or(config?))
    })
}

#[cfg(any(feature = "lapin", feature = "amiquip"))]
fn config(url: &Url, confirm: Confirm, limit: Option<Duration>) -> Result<AmqpConfig, Failure> {
    let url = url.expose().parse::<AmqpUrl>();
    // The error does not quote what may be a part of the password.
    let url = url.map_err(|error| {
        Failure::usage(format!(
            "`--url` or AMQP_URL: {}",
            super::failure::chain(&error)
        ))
    })?;
    let timeouts = timeouts(&url, limit);
    let confirms = match confirm {
        Confirm::On => Confirms::On,
        Confirm::Off => Confirms::Off,
    };
    Ok(AmqpConfig::new(url)
        .with_confirms(confirms)
        .with_connection_name(CONNECTION_NAME)
        .with_timeouts(timeouts))
}

/// Those of the URL, and otherwise so that whoever waits at a terminal soon knows; within `limit`.
#[cfg(any(feature = "lapin", feature = "amiquip"))]
fn timeouts(url: &AmqpUrl, limit: Option<Duration>) -> Timeouts {
    let connect = url.connection_timeout().unwrap_or(Duration::from_secs(4));
    Timeouts::of(url).with_connect(limit.map_or(connect, |limit| connect.min(limit)))
}
