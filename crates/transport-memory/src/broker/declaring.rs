//! How queues come about, and what differs when one is there already.

use rpc_core::{QueueKind, QueueSpec};

use super::{Broker, ConnectionId};
use crate::queue::{Limits, Ownership, Queue};
use crate::refusal::Refusal;

impl<W> Broker<W> {
    /// Makes sure that a queue is there, and the one for its dead letters before it.
    pub(crate) fn declare(&mut self, on: ConnectionId, spec: &QueueSpec) -> Result<(), Refusal> {
        self.check_open(on)?;
        spec.check()?;
        if spec.kind == QueueKind::Passive {
            return self.look_for(on, spec);
        }
        let dead = spec.dead_letter_queue()?;
        if let Some(dead) = &dead {
            let limits = Limits {
                length: dead.max_length(),
                keeps_newest: dead.keeps_newest(),
                ..Limits::default()
            };
            self.declare_one(dead, limits)?;
        }
        let limits = Limits {
            deliveries: spec.delivery_limit(),
            length: spec.max_length(),
            keeps_newest: spec.keeps_newest(),
            dead_letters: dead.map(|dead| dead.name),
        };
        self.declare_one(spec, limits)
    }

    fn look_for(&self, on: ConnectionId, spec: &QueueSpec) -> Result<(), Refusal> {
        match self.find(&spec.name).map(|queue| queue.ownership) {
            None => Err(Refusal::NoQueue(spec.name.clone())),
            Some(Ownership::Private) if !self.owns(on, &spec.name) => {
                Err(Refusal::Locked(spec.name.clone()))
            }
            Some(_) => Ok(()),
        }
    }

    fn declare_one(&mut self, spec: &QueueSpec, limits: Limits) -> Result<(), Refusal> {
        if spec.name.as_str().starts_with("amq.") {
            return Err(Refusal::Reserved(spec.name.clone()));
        }
        let Some(known) = self.find(&spec.name) else {
            let ownership = Ownership::Shared(spec.kind);
            self.add_queue(spec.name.clone(), ownership, limits);
            return Ok(());
        };
        match differing_argument(known, spec.kind, &limits) {
            None => Ok(()),
            Some(argument) => Err(Refusal::Differs {
                name: spec.name.clone(),
                argument,
            }),
        }
    }
}

/// The first argument in which a queue differs from what is wanted, by its name in RabbitMQ.
fn differing_argument(known: &Queue, kind: QueueKind, wanted: &Limits) -> Option<&'static str> {
    let Ownership::Shared(known_kind) = known.ownership else {
        // The names of private queues are reserved, so this is a second line of defence.
        return Some("exclusive");
    };
    let is = &known.limits;
    let transient = |kind| kind == QueueKind::Transient;
    let dead = |limits: &Limits| limits.dead_letters.is_some();
    [
        (transient(known_kind) != transient(kind), "auto_delete"),
        (known_kind != kind, "x-queue-type"),
        (is.deliveries != wanted.deliveries, "x-delivery-limit"),
        (is.length != wanted.length, "x-max-length"),
        (is.keeps_newest != wanted.keeps_newest, "x-overflow"),
        (dead(is) != dead(wanted), "x-dead-letter-exchange"),
        (
            is.dead_letters != wanted.dead_letters,
            "x-dead-letter-routing-key",
        ),
    ]
    .into_iter()
    .find_map(|(differs, name)| differs.then_some(name))
}
