//! Makes transports, of each kind and for each face.

use std::sync::Arc;

use rpc_core::adapt::{BlockOn, Guarded, Offload};
use rpc_core::{ConnectWith, Connector, ErrorKind, Transport, TransportError, blocking};
use transport_amiquip::{AmiquipConfig, AmiquipTransport};
use transport_lapin::{AmqpUrl, LapinConfig, LapinTransport};

use crate::ground::Place;
use crate::setting::Transport as Kind;

/// A transport for tasks.
///
/// # Errors
///
/// Those of the transport.
pub async fn raw_async(
    kind: Kind,
    place: &Place,
    endpoint: usize,
) -> Result<Arc<dyn Transport>, TransportError> {
    Ok(match (kind, place) {
        (Kind::Memory, Place::Memory(broker)) => Arc::new(broker.connect()),
        (Kind::Lapin, Place::Urls(urls)) => {
            let config = LapinConfig::new(address(urls, endpoint)?);
            Arc::new(LapinTransport::connect(config).await?)
        }
        (Kind::Amiquip, Place::Urls(urls)) => {
            let config = AmiquipConfig::new(address(urls, endpoint)?);
            // amiquip has no other way to connect than to block.
            let connecting = tokio::task::spawn_blocking(move || {
                Offload::new(AmiquipTransport::connect(config)?)
            });
            let connected = connecting.await;
            Arc::new(connected.map_err(|error| misuse().with_source(error))??)
        }
        // A library of amiquip's kind knows threads only.
        (Kind::Amiquip, Place::Stuck(broker)) => {
            let broker = broker.clone();
            let connecting =
                tokio::task::spawn_blocking(move || Offload::new(broker.connect_blocking()));
            let connected = connecting.await;
            Arc::new(connected.map_err(|error| misuse().with_source(error))??)
        }
        (_, Place::Stuck(broker)) => Arc::new(broker.connect().await),
        _ => return Err(misuse().with_detail("this transport does not reach this broker")),
    })
}

/// A transport for threads.
///
/// # Errors
///
/// Those of the transport.
pub fn raw_blocking(
    kind: Kind,
    place: &Place,
    endpoint: usize,
) -> Result<Arc<dyn blocking::Transport>, TransportError> {
    Ok(match (kind, place) {
        (Kind::Memory, Place::Memory(broker)) => Arc::new(broker.connect()),
        (Kind::Lapin, Place::Urls(urls)) => {
            let config = LapinConfig::new(address(urls, endpoint)?);
            Arc::new(BlockOn::with_runtime(|| LapinTransport::connect(config))?)
        }
        (Kind::Amiquip, Place::Urls(urls)) => {
            let config = AmiquipConfig::new(address(urls, endpoint)?);
            Arc::new(AmiquipTransport::connect(config)?)
        }
        // A library of lapin's kind knows tasks only.
        (Kind::Lapin, Place::Stuck(broker)) => {
            let broker = broker.clone();
            Arc::new(BlockOn::with_runtime(|| async move {
                Ok(broker.connect().await)
            })?)
        }
        // A thread cannot be called back: who hangs for ever must be guarded.
        (_, Place::Stuck(broker)) => Arc::new(Guarded::new(broker.connect_blocking())?),
        _ => return Err(misuse().with_detail("this transport does not reach this broker")),
    })
}

/// A transport for the scenario itself, which runs on a thread: the blocking face of any kind.
///
/// # Errors
///
/// Those of the transport.
pub fn raw(kind: Kind, place: &Place) -> Result<Arc<dyn blocking::Transport>, TransportError> {
    raw_blocking(kind, place, 0)
}

/// Makes transports for tasks, one after the other.
pub(crate) fn connector_async(
    kind: Kind,
    place: &Place,
) -> impl Connector<Transport = Arc<dyn Transport>> + use<> {
    let place = place.clone();
    ConnectWith::new(place.endpoints(), move |endpoint| {
        let place = place.clone();
        async move { raw_async(kind, &place, endpoint).await }
    })
}

/// Makes transports for threads, one after the other.
pub(crate) fn connector_blocking(
    kind: Kind,
    place: &Place,
) -> impl blocking::Connector<Transport = Arc<dyn blocking::Transport>> + use<> {
    let place = place.clone();
    blocking::ConnectWith::new(place.endpoints(), move |endpoint| {
        raw_blocking(kind, &place, endpoint)
    })
}

fn address(urls: &[String], endpoint: usize) -> Result<AmqpUrl, TransportError> {
    let url = urls.get(endpoint).ok_or_else(misuse)?;
    url.parse().map_err(|error| misuse().with_source(error))
}

fn misuse() -> TransportError {
    TransportError::new(ErrorKind::Misuse, "torture", "connect")
}
