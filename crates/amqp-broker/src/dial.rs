//! Opens the socket to the broker, within a deadline and with the options that RPC needs.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};

use crate::AmqpUrl;

/// What is said of a peer that answers, and is no broker.
pub const NOT_AMQP: &str = "not an AMQP 0-9-1 server";

/// What is said of a peer that has hung up too soon.
pub const ENDED_EARLY: &str = "the connection ended before the handshake was done";

/// Whether an error on a socket says that the other end has hung up.
#[must_use]
pub const fn is_hang_up(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        kind,
        BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof
    )
}

/// How long a peer may be silent before the kernel asks whether it is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// How long the kernel waits between its questions.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);

/// Opens a TCP connection to the broker, with every address of its host tried in turn.
///
/// The socket has `TCP_NODELAY` (without it one call at a time takes 44 ms), keepalive, and on
/// Linux a `TCP_USER_TIMEOUT` of two heartbeats, so that a peer whose machine is gone is noticed
/// also while we only write.
///
/// Blocks this thread, until `deadline` at most.
///
/// # Errors
///
/// The error of the last address; [`io::ErrorKind::TimedOut`] at `deadline`. The text names neither
/// user nor password.
pub fn dial(url: &AmqpUrl, deadline: Instant) -> io::Result<TcpStream> {
    let addresses = resolve(url, deadline)?;
    let mut last = io::Error::new(
        io::ErrorKind::NotFound,
        "the name of the host has no address",
    );
    for (tried, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        // A share for each address still to come, so that one which drops packets cannot use up
        // the time of one which answers.
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        if share.is_zero() {
            return Err(timed_out("no address of the host answered in time"));
        }
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => {
                tune(&stream, url)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn tune(stream: &TcpStream, url: &AmqpUrl) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_AFTER)
        .with_interval(KEEPALIVE_EVERY);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(2 * u64::from(url.heartbeat()))))?;
    #[cfg(not(target_os = "linux"))]
    let _ = url;
    Ok(())
}

fn resolve(url: &AmqpUrl, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = url.host().parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, url.port())]);
    }
    // The resolver of the system cannot be interrupted and may take half a minute. It gets a
    // thread of its own, which ends by itself whenever the resolver gives up.
    let (sender, receiver) = mpsc::sync_channel(1);
    let host = url.host().to_owned();
    let port = url.port();
    thread::Builder::new()
        .name("amqp-resolve".to_owned())
        .spawn(move || {
            let found = (host.as_str(), port)
                .to_socket_addrs()
                .map(Iterator::collect::<Vec<_>>);
            // Nobody listens any more when the deadline has passed.
            let _ = sender.send(found);
        })?;
    let left = deadline.saturating_duration_since(Instant::now());
    receiver
        .recv_timeout(left)
        .map_err(|_| timed_out("the name of the host was not resolved in time"))?
}

fn timed_out(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn the_socket_is_tuned() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url: AmqpUrl = format!("amqp://127.0.0.1:{port}?heartbeat=3")
            .parse()
            .unwrap();
        let stream = dial(&url, soon()).unwrap();
        assert!(stream.nodelay().unwrap());
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap());
        #[cfg(target_os = "linux")]
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(6))
        );
    }

    #[test]
    fn a_name_with_several_addresses_is_tried_to_the_end() {
        // Where the name also has an IPv6 address, nothing listens on that one.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let url: AmqpUrl = format!("amqp://localhost:{port}").parse().unwrap();
        dial(&url, soon()).unwrap();
    }

    #[test]
    fn a_closed_port_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let url: AmqpUrl = format!("amqp://127.0.0.1:{port}").parse().unwrap();
        assert_eq!(
            dial(&url, soon()).unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }

    #[test]
    fn a_passed_deadline_ends_it_before_it_begins() {
        let url: AmqpUrl = "amqp://127.0.0.1:1".parse().unwrap();
        assert_eq!(
            dial(&url, Instant::now()).unwrap_err().kind(),
            io::ErrorKind::TimedOut
        );
    }
}
