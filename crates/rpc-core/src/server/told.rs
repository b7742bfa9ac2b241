//! What an observer is told of a request, kept while the request is at work.

use std::sync::Arc;
use std::time::Instant;

use rpc_proto::server::{Acceptor, Part, Settlement, Turn};
use rpc_proto::{Certainty, Delivery, Reason, ShortString, Status, wire};

use super::Post;
use crate::{Observer, RequestEvent};

/// Where a delivery came from, and what is told of it in the end.
pub(crate) struct Origin<T> {
    pub(crate) post: Arc<Post<T>>,
    pub(crate) told: Option<Box<Told>>,
    /// Held until it is settled, or until its handler has ended if that need not run apart.
    pub(crate) turn: Option<Turn>,
}

/// What is told of one request when it is done.
pub(crate) struct Told {
    observer: Arc<dyn Observer>,
    method: Option<ShortString>,
    ran: bool,
    received_at: Instant,
    redelivered: bool,
    status: Option<Status>,
}

impl<T> Origin<T> {
    /// That of a delivery.
    pub(crate) fn new(
        post: &Arc<Post<T>>,
        delivery: &Delivery,
        observer: Option<&Arc<dyn Observer>>,
    ) -> Self {
        let told = observer.map(|observer| {
            Box::new(Told {
                observer: Arc::clone(observer),
                method: delivery.message.kind.clone(),
                ran: false,
                received_at: delivery.received_at,
                redelivered: delivery.redelivered,
                status: None,
            })
        });
        Self {
            post: Arc::clone(post),
            told,
            turn: None,
        }
    }

    /// That of a delivery which joined another one: only that is told of.
    pub(crate) const fn joined(post: Arc<Post<T>>) -> Self {
        Self {
            post,
            told: None,
            turn: None,
        }
    }

    /// Whether it came from quarantine, and runs apart from others.
    pub(crate) fn is_suspect(&self) -> bool {
        self.part() == Part::Suspect
    }

    pub(crate) fn part(&self) -> Part {
        self.turn.as_ref().map_or(Part::Work, Turn::part)
    }

    /// It is to run here: what its turn is, if it has none yet.
    pub(crate) fn turn(&mut self, acceptor: &Acceptor) -> &mut Option<Turn> {
        if !self.is_suspect() {
            self.turn = acceptor.work();
        }
        &mut self.turn
    }

    /// The handler begins.
    pub(crate) fn runs(&mut self) {
        if let Some(told) = &mut self.told {
            told.ran = true;
        }
    }

    /// This is how it is answered.
    pub(crate) fn answered(&mut self, settlement: &Settlement) {
        if self.part() == Part::Work {
            self.turn = None;
        }
        if let (Some(told), Settlement::Reply { message, .. }) = (&mut self.told, settlement) {
            told.status = wire::decode_reply(message.clone()).err();
            // The service may have refused it in place of its handler.
            let refused = told.status.as_ref().is_some_and(|status| {
                let reason = status.reason().map(Reason::certainty);
                status.origin() == rpc_proto::Origin::Framework
                    && reason == Some(Certainty::NotExecuted)
            });
            told.ran &= !refused;
        }
    }

    /// It is settled.
    pub(crate) fn settled(&self) {
        if let Some(told) = &self.told {
            told.observer.request_ended(&RequestEvent {
                method: told.method.as_ref().map_or("", |name| name.as_str()),
                ran: told.ran,
                redelivered: told.redelivered,
                status: told.status.as_ref(),
                took: told.received_at.elapsed(),
            });
        }
    }
}
