//! One cell of a comparison: whose calls, under which conditions.

use std::num::{NonZeroU16, NonZeroUsize};

use serde::Serialize;

/// Whose calls are made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// AMQP frames by hand on a blocking socket: nothing on this broker can be quicker
    Floor,
    /// lapin by hand: all deliveries at hand are answered together, on one thread
    Lapin,
    /// lapin by hand, a task for each delivery
    LapinTask,
    /// lapin by hand, each step awaited before the next
    LapinSteps,
    /// amiquip by hand, on a socket without Nagle's algorithm
    Amiquip,
    /// amqprs by hand
    Amqprs,
    /// Ours on lapin, async
    OursLapin,
    /// Ours on lapin, blocking
    OursLapinBlocking,
    /// Ours on amiquip, blocking, all open calls in one thread
    OursAmiquip,
    /// Ours on amiquip, blocking, a thread for each open call
    OursAmiquipThreads,
    /// Ours on amiquip, async
    OursAmiquipAsync,
    /// Ours on the in-process broker, async
    OursMemory,
    /// Ours on the in-process broker, blocking
    OursMemoryBlocking,
    /// tarpc over its channel inside the process
    Tarpc,
    /// Two threads that send to and fro by channels of the standard library
    Mpsc,
    /// The decisions of one call's whole life and nothing else
    Machines,
}

impl What {
    /// Whether there is a broker, and workers in processes of their own.
    pub(crate) const fn is_on_a_broker(self) -> bool {
        !matches!(
            self,
            Self::OursMemory | Self::OursMemoryBlocking | Self::Tarpc | Self::Mpsc | Self::Machines
        )
    }
}

/// The conditions, which are the same for all that are compared.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub(crate) struct Cell {
    /// Whose calls
    #[arg(long)]
    pub(crate) what: What,
    /// Whether the broker confirms each publish, and returns what reaches no queue
    #[arg(long)]
    pub(crate) confirms: bool,
    /// How many calls are open at a time
    #[arg(long, default_value = "1")]
    pub(crate) in_flight: NonZeroUsize,
    /// Bytes of a request, and of its answer
    #[arg(long, default_value_t = 8)]
    pub(crate) body: usize,
    /// Requests that a worker holds unacknowledged
    #[arg(long, default_value = "64")]
    pub(crate) prefetch: NonZeroU16,
    /// Worker processes
    #[arg(long, default_value = "1")]
    pub(crate) workers: NonZeroUsize,
    /// Clients that the open calls are shared among, each with connections of its own
    #[arg(long, default_value = "1")]
    pub(crate) clients: NonZeroUsize,
    /// Calls per second that come whether or not the last ones were answered, instead of a fixed
    /// number of open ones
    #[arg(long)]
    pub(crate) rate: Option<u32>,
    /// The queue of the workers; a new one when none is named
    #[arg(long, default_value_t)]
    #[serde(skip)]
    pub(crate) queue: String,
}

impl Cell {
    /// What a caller sends: never the same twice in a row of bytes, so that answers can be checked.
    pub(crate) fn body(&self) -> Vec<u8> {
        (0..self.body).map(|at| at as u8).collect()
    }

    /// How many of the open calls fall to one of the clients.
    pub(crate) fn share(&self, client: usize) -> usize {
        let (all, clients) = (self.in_flight.get(), self.clients.get());
        all / clients + usize::from(client < all % clients)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_all_open_calls() {
        for (in_flight, clients) in [(64, 1), (64, 3), (1000, 1000), (7, 5)] {
            let cell = Cell {
                what: What::Floor,
                confirms: false,
                in_flight: NonZeroUsize::new(in_flight).unwrap(),
                body: 8,
                prefetch: NonZeroU16::MIN,
                workers: NonZeroUsize::MIN,
                clients: NonZeroUsize::new(clients).unwrap(),
                rate: None,
                queue: String::new(),
            };
            let shares = (0..clients).map(|client| cell.share(client));
            assert_eq!(shares.sum::<usize>(), in_flight);
        }
    }
}
