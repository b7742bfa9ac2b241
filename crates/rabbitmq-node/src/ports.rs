//! Picks TCP ports for a node.
//!
//! Ports below the range that the system hands to outgoing connections are preferred.
//! Inside that range a client that keeps dialling the port of a killed broker can be given this
//! very port as its own, connect to itself, and so keep the broker from ever coming back.

use std::collections::{HashSet, hash_map::RandomState};
use std::fs;
use std::hash::BuildHasher;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::error::{Error, Result};

/// Picks a port on which nothing listens now, and which this function has not given before.
pub(crate) fn free_port() -> Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let span = u64::from(first_ephemeral_port().saturating_sub(FIRST_PORT));
    for attempt in 0..ATTEMPTS {
        // The hasher's random keys are all the randomness needed: other processes that pick at the
        // same time should not walk through the same ports.
        let offset = RandomState::new()
            .hash_one(attempt)
            .checked_rem(span)
            .unwrap_or_default();
        let wanted = match u16::try_from(offset) {
            Ok(offset) if span > 0 && attempt < ATTEMPTS / 2 => FIRST_PORT + offset,
            _ => 0,
        };
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, wanted));
        if let Ok(address) = bound.and_then(|listener| listener.local_addr())
            && taken.insert(address.port())
        {
            return Ok(address.port());
        }
    }
    Err(Error::io("find a free port")(
        io::ErrorKind::AddrInUse.into(),
    ))
}

/// Takes this port, if nothing listens on it and it was not given before.
pub(crate) fn take(port: u16) -> bool {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    port != 0 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && taken.insert(port)
}

/// The first port that the system may give to an outgoing connection.
fn first_ephemeral_port() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range
        .split_whitespace()
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(FIRST_PORT)
}

/// Ports given to nodes of this process, which may not have bound them yet.
static TAKEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);

/// Above what well-known services use.
const FIRST_PORT: u16 = 10_240;

const ATTEMPTS: u32 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: HashSet<u16> = (0..50).map(|_| free_port().expect("a port")).collect();
        assert_eq!(ports.len(), 50);
    }

    #[test]
    fn port_is_taken_only_while_it_is_free_and_only_once() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        assert!(!take(port) && !take(0));
        drop(listener);
        assert!(take(port) && !take(port));
    }

    #[test]
    fn ports_lie_below_the_ephemeral_range() {
        let first = first_ephemeral_port();
        if first > FIRST_PORT + 1_000 {
            assert!((0..20).all(|_| free_port().expect("a port") < first));
        }
    }
}
