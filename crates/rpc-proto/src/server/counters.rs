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
    /// Requests whose caller gave up while they ran: nobody was answered.
    cancelled,
    /// Requests that ran without anybody awaiting the answer.
    casts,
    /// Deliveries dropped because to answer them would be to talk to oneself.
    discarded,
    /// Requests that were too late before they could begin.
    expired,
    /// Handlers that failed: with an error, a panic, at the deadline, or with too large a reply.
    failed,
    /// Requests passed on to the quarantine queue.
    forwarded,
    /// Deliveries of a request that was running already, answered together with it.
    joined,
    /// Callers told that their request has been running for a while.
    noticed,
    /// Handlers that answered with a result.
    ok,
    /// Handlers that panicked.
    panicked,
    /// Requests given up because they ended the process of too many workers.
    poisoned,
    /// Deliveries taken.
    received,
    /// Requests answered without running.
    refused,
    /// Requests answered from the store of replies, without running again.
    replayed,
    /// Replies confirmed by the broker.
    replied,
    /// Requests handed back for another worker.
    requeued,
    /// Requests refused because the service is overloaded.
    shed,
    /// Requests whose caller's clock differs from ours by too much for its deadline to be believed.
    skewed,
    /// Handlers that did not come back by their deadline, and were given up.
    stuck,
    /// Requests that did not run because they could not be acknowledged first.
    unacknowledged,
    /// Replies that nobody could receive any more, and requests that were given up because each reply
    /// to them ended its connection.
    undeliverable,
}
