//! One connection: our socket, lapin on it, and the switch that ends it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use amqp_broker::{AmqpConfig, AmqpUrl, KillSwitch};
use async_compat::Compat;
use futures_channel::oneshot;
use lapin::auth::AuthProvider;
use lapin::types::{LongString, ShortString};
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rpc_core::{ErrorKind, TransportError};
use tokio::time::timeout;

use crate::error;

/// How long lapin's thread may take to notice that its socket is cut.
const NOTICE: Duration = Duration::from_millis(500);

/// A connection of lapin's on a socket of ours.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) switch: KillSwitch,
    /// The address at the other end.
    pub(crate) peer: SocketAddr,
    /// Resolves when lapin's thread is at its end.
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

impl Link {
    /// Logs in over `stream`, until `deadline` at most. Needs our runtime around it.
    pub(crate) async fn open(
        config: &AmqpConfig,
        stream: TcpStream,
        deadline: Instant,
    ) -> Result<Self, TransportError> {
        let failed = |error: io::Error| connect_error().with_source(error);
        let switch = KillSwitch::new(&stream).map_err(failed)?;
        let peer = stream.peer_addr().map_err(failed)?;
        stream.set_nonblocking(true).map_err(failed)?;
        let (alive, ended) = oneshot::channel::<()>();
        let slot = Mutex::new(Some(stream));
        let host = config.url.host().to_owned();
        let tls = config.url.uses_tls();
        let connect = async move |_uri: AMQPUri, _runtime| {
            // lapin's thread owns this closure, so its end is the end of the thread.
            let _alive = &alive;
            let stream = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            let stream = stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            let stream = Compat::new(tokio::net::TcpStream::from_std(stream)?);
            secure(AsyncTcpStream::Plain(stream), &host, tls).await
        };
        let runtime = lapin::runtime::default_runtime()
            .map_err(|error| error::of_login(&error, &config.url))?;
        let connecting =
            Connection::connector(uri(&config.url), runtime, connect, properties(config));
        let result = tokio::time::timeout_at(deadline.into(), connecting).await;
        let error = match result {
            Ok(Ok(connection)) => {
                return Ok(Self {
                    connection,
                    switch,
                    peer,
                    ended: Mutex::new(Some(ended)),
                });
            }
            Ok(Err(error)) => error::of_login(&error, &config.url),
            Err(_) => connect_error().with_detail("the broker has not finished the login in time"),
        };
        // Without this lapin's thread would wait for a silent peer for ever.
        switch.cut();
        let _ = timeout(NOTICE, ended).await;
        Err(error)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Cuts the connection, and waits for lapin's thread.
    pub(crate) async fn end(&self) {
        self.switch.cut();
        let ended = self
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(ended) = ended
            && timeout(NOTICE, ended).await.is_err()
        {
            tracing::warn!("a thread of lapin's has not ended with its socket");
        }
    }
}

/// A failure to connect.
pub(crate) fn connect_error() -> TransportError {
    error::new(ErrorKind::Connect, "connect")
}

type Stream = AsyncTcpStream<Compat<tokio::net::TcpStream>>;

#[cfg(feature = "tls")]
async fn secure(stream: Stream, host: &str, tls: bool) -> lapin::Result<Stream> {
    if !tls {
        return Ok(stream);
    }
    let config = lapin::tcp::TLSConfig::default();
    Ok(stream.into_tls(host, config).await?)
}

/// A URL with TLS was refused before.
#[cfg(not(feature = "tls"))]
async fn secure(stream: Stream, _host: &str, _tls: bool) -> lapin::Result<Stream> {
    Ok(stream)
}

/// What lapin is told of the URL. Its own URI type shows its password in `Debug`, so it gets none.
fn uri(url: &AmqpUrl) -> AMQPUri {
    AMQPUri {
        scheme: if url.uses_tls() {
            AMQPScheme::AMQPS
        } else {
            AMQPScheme::AMQP
        },
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo {
                username: url.username().to_owned(),
                password: String::new(),
            },
            host: url.host().to_owned(),
            port: url.port(),
        },
        vhost: url.vhost().to_owned(),
        query: AMQPQueryString {
            frame_max: url.frame_max(),
            heartbeat: Some(url.heartbeat()),
            ..AMQPQueryString::default()
        },
    }
}

fn properties(config: &AmqpConfig) -> ConnectionProperties {
    ConnectionProperties::default()
        .with_connection_name(config.connection_name.as_str().into())
        .with_auth_provider(Plain(config.url.clone()))
}

/// User and password, as SASL's PLAIN sends them.
struct Plain(AmqpUrl);

impl AuthProvider for Plain {
    fn mechanism(&self) -> ShortString {
        "PLAIN".into()
    }

    fn auth_starter(&self) -> Result<LongString, String> {
        Ok(format!("\0{}\0{}", self.0.username(), self.0.expose_password()).into())
    }
}
