//! Connections between processes and the broker, and what travels on them.
//!
//! A transport is two TCP connections, here called lanes: one that consumes and acknowledges, one
//! that publishes, so that a broker which blocks publishers still takes acknowledgements. Within a
//! lane order holds; between the two it does not.

use std::rc::Rc;

use rpc_proto::{Message, ShortString};

use crate::pipe::Pipe;

/// The number of a connection in its world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) usize);

/// One of the two TCP connections of a transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Consume = 0,
    Publish = 1,
}

/// Both.
pub(crate) const LANES: [Lane; 2] = [Lane::Consume, Lane::Publish];

/// A process, and which of its lives: what was meant for an earlier one finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) process: ProcessId,
    pub(crate) life: u32,
}

/// The number of a process: clients first, then workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub(crate) usize);

/// What a new connection sets up, all at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Open {
    /// Queues to make sure of.
    pub(crate) declare: Vec<Declare>,
    /// Queues to consume, with their prefetch.
    pub(crate) consume: Vec<(ShortString, usize)>,
}

/// A queue as it is declared. An inbox comes with every connection by itself.
#[derive(Clone, Debug)]
pub(crate) struct Declare {
    pub(crate) name: ShortString,
    pub(crate) durable: bool,
    /// Gone with its last consumer.
    pub(crate) auto_delete: bool,
    /// Counts deliveries, as quorum queues do.
    pub(crate) counts: bool,
    /// How many failed deliveries a message may have before it is dead-lettered.
    pub(crate) delivery_limit: Option<u32>,
    pub(crate) max_length: Option<usize>,
    pub(crate) dead_letter: Option<ShortString>,
}

impl Declare {
    pub(crate) const fn durable(name: ShortString) -> Self {
        Self {
            name,
            durable: true,
            auto_delete: false,
            counts: false,
            delivery_limit: None,
            max_length: None,
            dead_letter: None,
        }
    }
}

/// From a process to the broker.
#[derive(Debug)]
pub(crate) enum Up {
    Open(Open),
    Publish {
        tag: u64,
        to: ShortString,
        message: Rc<Message>,
    },
    Ack {
        consumer: u64,
        tag: u64,
    },
    Reject {
        consumer: u64,
        tag: u64,
        requeue: bool,
    },
    Cancel {
        consumer: u64,
    },
    /// The lane is closed, or has broken.
    End,
}

/// From the broker to a process.
#[derive(Debug)]
pub(crate) enum Down {
    Opened(Opened),
    Refused,
    /// The broker has taken responsibility, or says that it has not.
    Confirm {
        tag: u64,
        ok: bool,
    },
    /// No queue takes it. A confirm follows.
    Return {
        tag: u64,
    },
    Deliver(Deliver),
    Cancelled {
        consumer: u64,
    },
    /// The consumer is gone, as was asked.
    CancelOk,
    Blocked(bool),
    End,
}

/// What a new connection has got.
#[derive(Clone, Debug)]
pub(crate) struct Opened {
    /// The name of its inbox, and the number of the consumer on it.
    pub(crate) inbox: ShortString,
    pub(crate) inbox_consumer: u64,
    /// The numbers of the consumers it asked for, in that order.
    pub(crate) consumers: Vec<u64>,
}

/// A message on its way to a consumer.
#[derive(Clone, Debug)]
pub(crate) struct Deliver {
    pub(crate) consumer: u64,
    pub(crate) tag: u64,
    pub(crate) message: Rc<Message>,
    pub(crate) redelivered: bool,
    /// How often it was delivered in vain, from a queue that counts.
    pub(crate) failures: Option<u32>,
}

/// One transport's two connections.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) owner: Owner,
    pub(crate) up: [Pipe<Up>; 2],
    pub(crate) down: [Pipe<Down>; 2],
    /// Whether the process still holds this end.
    pub(crate) open_here: [bool; 2],
    /// Whether the broker still holds the other end.
    pub(crate) open_there: [bool; 2],
}

impl Conn {
    pub(crate) fn new(owner: Owner) -> Self {
        Self {
            owner,
            up: Default::default(),
            down: Default::default(),
            open_here: [true; 2],
            open_there: [false; 2],
        }
    }

    /// Whether anything can still happen on it.
    pub(crate) fn is_alive(&self) -> bool {
        self.open_here.contains(&true) || self.open_there.contains(&true)
    }
}
