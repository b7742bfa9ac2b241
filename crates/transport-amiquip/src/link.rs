//! One connection to the broker: its socket is ours, so that it can be cut.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use amiquip::{
    Auth, Channel, Connection, ConnectionBlockedNotification, ConnectionOptions, ConnectionTuning,
    FieldTable,
};
use amqp_broker::{AmqpConfig, AmqpUrl, Guard, KillSwitch, dial};
use crossbeam_channel::Receiver;
use mio::net::TcpStream;
use rpc_core::{ErrorKind, TransportError};

use crate::error;
use crate::frames::{Fault, Framed};

/// How many frames wait for amiquip's I/O thread. A small publish is three of them, and with the
/// library's own 16 a publisher sleeps and wakes at every fifth message. A frame of a large body is
/// 128 KiB, so more of them than needed are memory that a slow socket keeps.
const FRAMES_IN_MEMORY: usize = 128;

/// How many bytes wait for the socket before amiquip's I/O thread takes no more frames.
const BYTES_IN_MEMORY: usize = 1024 * 1024;

/// The longest frame, unless the URL says otherwise: what RabbitMQ offers as it comes.
const USUAL_FRAME_MAX: u32 = 128 * 1024;

/// How long the goodbye of a connection may take that was never used.
const GOODBYE: Duration = Duration::from_secs(1);

/// What a connection is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Consume,
    Publish,
}

/// One connection.
///
/// amiquip tells why a connection died only to who joins its I/O thread, and joining takes the
/// connection; so it is taken once, by who finds the end of it.
#[derive(Debug)]
pub(crate) struct Link {
    connection: Mutex<Option<Connection>>,
    kill: KillSwitch,
    /// Until when all had to be open: who has not got that far says no long goodbye.
    open_by: Instant,
}

/// What says that the broker blocks publishers, and whose end is the end of the connection.
pub(crate) type Notices = Receiver<ConnectionBlockedNotification>;

impl Link {
    /// Dials, shakes hands, and returns the link with its notices and the broker's properties.
    pub(crate) fn open(
        config: &AmqpConfig,
        side: Side,
        deadline: Instant,
    ) -> Result<(Self, Notices, FieldTable), TransportError> {
        let url = &config.url;
        let socket = dial(url, deadline).map_err(|error| refused(url, error))?;
        let kill = KillSwitch::new(&socket).map_err(|error| refused(url, error))?;
        let guard = kill
            .cut_after(deadline)
            .map_err(|error| refused(url, error))?;
        let (opened, fault) = shake_hands(socket, config, side)?;
        // An error after the cut is its consequence, and so is one after a fault; amiquip takes any
        // end of the stream at that stage for wrong credentials.
        let cut = guard.disarm();
        let mut connection = opened.map_err(|error| match (fault.get(), cut) {
            (Some(fault), _) => {
                error::new(ErrorKind::Connect, "connect").with_detail(format!("{url}: {fault}"))
            }
            (None, true) => too_late(url),
            (None, false) => error::of_handshake(&error, url),
        })?;
        let properties = connection.server_properties().clone();
        let notices = connection.listen_for_connection_blocked();
        // From here on it says goodbye when it is dropped.
        let link = Self {
            connection: Mutex::new(Some(connection)),
            kill,
            open_by: deadline,
        };
        let notices = notices.map_err(|error| error::of_handshake(&error, url))?;
        Ok((link, notices, properties))
    }

    /// Opens a channel; `None` when the connection was taken. The caller holds a guard: amiquip
    /// itself would wait for ever.
    pub(crate) fn open_channel(&self) -> Option<amiquip::Result<Channel>> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Some(connection.as_mut()?.open_channel(None))
    }

    /// Closes and joins, and tells what the I/O thread died of, if it did. For who comes later there
    /// is nothing left to do.
    pub(crate) fn reap(&self) -> Option<amiquip::Error> {
        let taken = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        taken?.close().err()
    }

    /// Ends everything that waits on this connection.
    pub(crate) fn cut(&self) {
        self.kill.cut();
    }

    /// Cuts at `deadline`, unless the guard is dropped before. Without a thread for it the call that
    /// it is for must not begin.
    pub(crate) fn cut_after(
        &self,
        deadline: Instant,
        operation: &'static str,
    ) -> Result<Guard, TransportError> {
        self.kill.cut_after(deadline).map_err(|error| {
            error::new(ErrorKind::Other, operation)
                .with_detail("no thread for the watchdog")
                .with_source(error)
                .unsent()
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let connection = self
            .connection
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // Only there when a transport was not finished. amiquip's own drop waits for the broker's
        // goodbye without a limit.
        if let Some(connection) = connection {
            let guard = self
                .kill
                .cut_after(self.open_by.min(Instant::now() + GOODBYE));
            if guard.is_err() {
                self.kill.cut();
            }
            drop(connection);
        }
    }
}

fn shake_hands(
    socket: std::net::TcpStream,
    config: &AmqpConfig,
    side: Side,
) -> Result<(amiquip::Result<Connection>, Fault), TransportError> {
    let url = &config.url;
    let stream = TcpStream::from_stream(socket).map_err(|error| refused(url, error))?;
    let frame_max = url.frame_max().filter(|&most| most > 0);
    let frame_max = frame_max.unwrap_or(USUAL_FRAME_MAX);
    // The first frames come before a smaller one is agreed on.
    let (stream, fault) = Framed::new(stream, frame_max.max(USUAL_FRAME_MAX));
    let purpose = match side {
        Side::Consume => "consumer",
        Side::Publish => "publisher",
    };
    let options = ConnectionOptions::<Auth>::default()
        .auth(Auth::Plain {
            username: url.username().to_owned(),
            password: url.expose_password().to_owned(),
        })
        .virtual_host(url.vhost())
        .heartbeat(url.heartbeat())
        .frame_max(frame_max)
        .information(Some(format!("{} ({purpose})", config.connection_name)));
    let tuning = ConnectionTuning::default()
        .mem_channel_bound(FRAMES_IN_MEMORY)
        .buffered_writes_high_water(BYTES_IN_MEMORY);
    let opened = Connection::insecure_open_stream(stream, options, tuning);
    Ok((opened, fault))
}

/// The broker took its time.
pub(crate) fn too_late(url: &AmqpUrl) -> TransportError {
    error::new(ErrorKind::Connect, "connect")
        .with_detail(format!("{url} did not finish the handshake in time"))
}

fn refused(url: &AmqpUrl, error: io::Error) -> TransportError {
    error::new(ErrorKind::Connect, "connect")
        .with_detail(url.to_string())
        .with_source(error)
}
