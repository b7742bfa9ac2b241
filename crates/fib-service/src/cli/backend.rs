//! Which transport is meant, and where it comes from.

use std::sync::Arc;

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

/// A kind of transport in one face, ready to be connected.
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
    Lapin(Arc<[LapinConfig]>),
    #[cfg(feature = "amiquip")]
    Amiquip(Arc<[AmiquipConfig]>),
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

    /// Where its transports come from. Connects nowhere yet.
    pub(crate) fn link(&self) -> Link {
        match &self.kind {
            #[cfg(feature = "memory")]
            Kind::Memory(broker) => self.memory_link(broker.clone()),
            #[cfg(feature = "lapin")]
            Kind::Lapin(configs) => self.lapin_link(configs.clone()),
            #[cfg(feature = "amiquip")]
            Kind::Amiquip(configs) => self.amiquip_link(configs.clone()),
            #[cfg(not(any(feature = "memory", feature = "lapin", feature = "amiquip")))]
            _ => match self.kind {},
        }
    }

    #[cfg(feature = "memory")]
    fn memory_link(&self, broker: MemoryBroker) -> Link {
        match self.runtime {
            Some(runtime) => Link::of_async(1, runtime, move |_| {
                let transport = broker.connect();
                async move { Ok(Arc::new(transport) as _) }
            }),
            None => Link::of_blocking(1, move |_| Ok(Arc::new(broker.connect()) as _)),
        }
    }

    #[cfg(feature = "lapin")]
    fn lapin_link(&self, configs: Arc<[LapinConfig]>) -> Link {
        let endpoints = configs.len();
        match self.runtime {
            Some(runtime) => Link::of_async(endpoints, runtime, move |endpoint| {
                let connecting = LapinTransport::connect(configs[endpoint].clone());
                async move { Ok(Arc::new(connecting.await?) as _) }
            }),
            None => Link::of_blocking(endpoints, move |endpoint| {
                let connect = || LapinTransport::connect(configs[endpoint].clone());
                Ok(Arc::new(BlockOn::with_runtime(connect)?) as _)
            }),
        }
    }

    #[cfg(feature = "amiquip")]
    fn amiquip_link(&self, configs: Arc<[AmiquipConfig]>) -> Link {
        let endpoints = configs.len();
        #[cfg(feature = "async")]
        if let Some(runtime) = self.runtime {
            return Link::of_async(endpoints, runtime, move |endpoint| {
                let config = configs[endpoint].clone();
                async move { Ok(Arc::new(offload(config).await?) as _) }
            });
        }
        Link::of_blocking(endpoints, move |endpoint| {
            Ok(Arc::new(AmiquipTransport::connect(configs[endpoint].clone())?) as _)
        })
    }
}

/// amiquip has no other way to connect than to block.
#[cfg(all(feature = "amiquip", feature = "async"))]
async fn offload(
    config: AmiquipConfig,
) -> Result<rpc_core::adapt::Offload<AmiquipTransport>, TransportError> {
    tokio::task::spawn_blocking(move || {
        rpc_core::adapt::Offload::new(AmiquipTransport::connect(config)?)
    })
    .await
    .unwrap_or_else(|panicked| {
        let error = TransportError::new(ErrorKind::Connect, "amiquip", "connect");
        Err(error.with_source(panicked))
    })
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
                let confirms = match args.confirm {
                    Confirm::On => transport_lapin::Confirms::On,
                    Confirm::Off => transport_lapin::Confirms::Off,
                };
                let configs = broker_urls(args)?.into_iter().map(|url| {
                    let timeouts = timeouts(&url);
                    LapinConfig::new(url)
                        .with_confirms(confirms)
                        .with_connection_name(CONNECTION_NAME)
                        .with_timeouts(timeouts)
                });
                Ok(Self::Lapin(configs.collect()))
            }
            #[cfg(feature = "amiquip")]
            TransportName::Amiquip => {
                let confirms = match args.confirm {
                    Confirm::On => transport_amiquip::Confirms::On,
                    Confirm::Off => transport_amiquip::Confirms::Off,
                };
                let configs = broker_urls(args)?.into_iter().map(|url| {
                    let timeouts = timeouts(&url);
                    AmiquipConfig::new(url)
                        .with_confirms(confirms)
                        .with_connection_name(CONNECTION_NAME)
                        .with_timeouts(timeouts)
                });
                Ok(Self::Amiquip(configs.collect()))
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
fn broker_urls(args: &ConnectArgs) -> Result<Vec<AmqpUrl>, Failure> {
    let urls = args.url.iter().map(|url| url.expose().parse::<AmqpUrl>());
    // The error does not quote what may be a part of the password.
    urls.collect::<Result<_, _>>().map_err(|error| {
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
