//! What became of the deliveries of a server, counted where it is decided.

use std::sync::atomic::{AtomicU64, Ordering};

/// A counter that any thread may raise.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        // Only ever summed up for people to read: no other memory hangs on it.
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Declares the counters and the plain numbers that they are read out as.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of one server, shared by all its jobs.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(super) $name: Counter,)+
        }

        impl Counters {
            pub(super) fn read(&self) -> Stats {
                Stats { $($name: self.$name.read(),)+ }
            }
        }

        /// What became of all deliveries so far.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }
    };
}

counters! {
    /// Requests that ran without anybody awaiting the answer.
    casts,
    /// Deliveries dropped because to answer them would be to talk to oneself.
    discarded,
    /// Handlers that failed: with an error, a panic, at the deadline, or with too large a reply.
    failed,
    /// Handlers that answered with a result.
    ok,
    /// Handlers that panicked.
    panicked,
    /// Deliveries taken.
    received,
    /// Requests answered without running.
    refused,
    /// Replies confirmed by the broker.
    replied,
    /// Requests handed back for another worker.
    requeued,
    /// Replies that nobody could receive any more.
    undeliverable,
}
