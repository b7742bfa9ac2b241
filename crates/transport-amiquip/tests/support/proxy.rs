//! The broker seen through the fault proxy, in the words of these tests.

use std::thread;
use std::time::Instant;

use fault_proxy::{Direction, End};

use super::{PATIENCE, url, url_at_port};
use transport_amiquip::AmqpUrl;

pub(crate) struct Proxy(fault_proxy::Proxy);

impl Proxy {
    pub(crate) fn start() -> Self {
        let url = url();
        Self(fault_proxy::Proxy::to((url.host(), url.port())).unwrap())
    }

    /// The broker, seen through this proxy.
    pub(crate) fn url(&self, query: &str) -> AmqpUrl {
        url_at_port(self.0.port(), query)
    }

    /// Keeps the sockets and forwards nothing.
    pub(crate) fn go_silent(&self) {
        for direction in Direction::BOTH {
            self.0.swallow(direction);
        }
    }

    /// What the broker says from now on is lost.
    pub(crate) fn silence_the_broker(&self) {
        self.0.swallow(Direction::Down);
    }

    /// How much the client has said.
    pub(crate) fn heard(&self) -> u64 {
        self.0.carried(Direction::Up)
    }

    /// Waits until the client has said more than that.
    pub(crate) fn wait_for_more_than(&self, heard: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.heard() <= heard {
            assert!(Instant::now() < deadline, "the client says something");
            thread::yield_now();
        }
    }

    /// Cuts the connection that was made as this one, counted from nothing.
    pub(crate) fn cut(&self, number: usize) {
        assert!(self.0.end(number, End::Cut), "there is no such connection");
    }

    /// Tells the client something as if it were the broker.
    pub(crate) fn say(&self, number: usize, bytes: &[u8]) {
        self.0.say(number, bytes).unwrap();
    }

    /// Whether the client has ended all its connections.
    pub(crate) fn wait_for_the_end_of_all(&self) {
        let left = self.0.client_leaves_within(PATIENCE);
        assert!(left, "the client ends its connections");
    }
}
