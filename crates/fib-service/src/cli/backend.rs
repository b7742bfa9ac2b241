//! Which transport is meant, and connecting to it.

#[cfg(any(feature = "lapin", feature = "amiquip"))]
use amqp_broker::{AmqpUrl, Timeouts};
#[cfg(feature = "amiquip")]
use transport_amiquip::{AmiquipConfig, AmiquipTransport};
#[cfg(feature = "lapin")]
use transport_lapin::{LapinConfig, LapinTransport};
#[cfg(feature = "memory")]
use transport_memory::MemoryBroker;

use super::Failure;
#[cfg(any(feature = "lapin", feature = "amiquip"))]
use super::args::Confirm;
use super::args::{ConnectArgs, Face, TransportName};
use super::link::Link;
#[cfg(feature = "async")]
use super::link::Runtime;

/// A transport that is ready to be connected, in one face.
#[derive(Debug)]
pub(crate) struct Backend {
    name: TransportName,
    face: Face,
    kind: Kind,
    #[cfg(feature = "async")]
    runtime: Option<Runtime>,
}

#[derive(Debug)]
enum Kind {
    #[cfg(feature = "memory")]
    Memory(MemoryBroker),
    #[cfg(feature = "lapin")]
    Lapin(LapinConfig),
    #[cfg(feature = "amiquip")]
    Amiquip(AmiquipConfig),
}

impl Backend {
    /// Finds out what the command line means. Connects nowhere yet.
    pub(crate) fn choose(args: &ConnectArgs) -> Result<Self, Failure> {
        let name = args.transport.map_or_else(only_broker, Ok)?;
        Self::of(name, args)
    }

    /// The transport inside this process.
    pub(crate) fn memory(args: &ConnectArgs) -> Result<Self, Failure> {
        Self::of(TransportName::Memory, args)
    }

    fn of(name: TransportName, args: &ConnectArgs) -> Result<Self, Failure> {
        let kind = Kind::of(name, args)?;
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
            #[cfg(feature = "async")]
            runtime: (face == Face::Async).then(Runtime::start).transpose()?,
        })
    }

    /// Whether it stays in this process, so that nobody else can serve it.
    pub(crate) fn is_local(&self) -> bool {
        self.name == TransportName::Memory
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name.as_str()
    }

    pub(crate) const fn face(&self) -> &'static str {
        self.face.as_str()
    }

    /// A new connection.
    pub(crate) fn connect(&self) -> Result<Link, Failure> {
        match &self.kind {
            #[cfg(feature = "memory")]
            Kind::Memory(broker) => self.native(broker.connect()),
            #[cfg(feature = "lapin")]
            Kind::Lapin(config) => self.connect_lapin(config.clone()),
            #[cfg(feature = "amiquip")]
            Kind::Amiquip(config) => self.connect_amiquip(config.clone()),
            #[cfg(not(any(feature = "memory", feature = "lapin", feature = "amiquip")))]
            _ => match self.kind {},
        }
    }

    #[cfg(feature = "memory")]
    fn native<T: rpc_core::Transport + rpc_core::blocking::Transport>(
        &self,
        transport: T,
    ) -> Result<Link, Failure> {
        Ok(match self.runtime {
            Some(runtime) => Link::of_async(transport, runtime),
            None => Link::of_blocking(transport),
        })
    }

    #[cfg(feature = "lapin")]
    fn connect_lapin(&self, config: LapinConfig) -> Result<Link, Failure> {
        let connect = || LapinTransport::connect(config);
        match self.runtime {
            Some(runtime) => {
                let transport = runtime.block_on(connect()).map_err(Failure::Connect)?;
                Ok(Link::of_async(transport, runtime))
            }
            None => {
                let transport =
                    rpc_core::adapt::BlockOn::with_runtime(connect).map_err(Failure::Connect)?;
                Ok(Link::of_blocking(transport))
            }
        }
    }

    #[cfg(feature = "amiquip")]
    fn connect_amiquip(&self, config: AmiquipConfig) -> Result<Link, Failure> {
        let transport = AmiquipTransport::connect(config).map_err(Failure::Connect)?;
        #[cfg(feature = "async")]
        if let Some(runtime) = self.runtime {
            let transport = rpc_core::adapt::Offload::new(transport).map_err(Failure::Connect)?;
            return Ok(Link::of_async(transport, runtime));
        }
        Ok(Link::of_blocking(transport))
    }
}

impl Kind {
    #[cfg_attr(
        not(any(feature = "lapin", feature = "amiquip")),
        allow(unused_variables, reason = "only a broker has a URL")
    )]
    fn of(name: TransportName, args: &ConnectArgs) -> Result<Self, Failure> {
        match name {
            #[cfg(feature = "memory")]
            TransportName::Memory => Ok(Self::Memory(MemoryBroker::new())),
            #[cfg(feature = "lapin")]
            TransportName::Lapin => {
                let url = broker_url(args)?;
                Ok(Self::Lapin(
                    LapinConfig::new(url.clone())
                        .with_confirms(match args.confirm {
                            Confirm::On => transport_lapin::Confirms::On,
                            Confirm::Off => transport_lapin::Confirms::Off,
                        })
                        .with_connection_name(CONNECTION_NAME)
                        .with_timeouts(timeouts(&url)),
                ))
            }
            #[cfg(feature = "amiquip")]
            TransportName::Amiquip => {
                let url = broker_url(args)?;
                Ok(Self::Amiquip(
                    AmiquipConfig::new(url.clone())
                        .with_confirms(match args.confirm {
                            Confirm::On => transport_amiquip::Confirms::On,
                            Confirm::Off => transport_amiquip::Confirms::Off,
                        })
                        .with_connection_name(CONNECTION_NAME)
                        .with_timeouts(timeouts(&url)),
                ))
            }
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
fn broker_url(args: &ConnectArgs) -> Result<AmqpUrl, Failure> {
    let url = args.url.expose().parse::<AmqpUrl>();
    // The error does not quote what may be a part of the password.
    url.map_err(|error| {
        Failure::usage(format!(
            "`--url` or AMQP_URL: {}",
            super::failure::chain(&error)
        ))
    })
}

/// Those of the URL, and otherwise so that whoever waits at a terminal soon knows.
#[cfg(any(feature = "lapin", feature = "amiquip"))]
fn timeouts(url: &AmqpUrl) -> Timeouts {
    let timeouts = Timeouts::of(url);
    match url.connection_timeout() {
        Some(_) => timeouts,
        None => timeouts.with_connect(std::time::Duration::from_secs(4)),
    }
}
