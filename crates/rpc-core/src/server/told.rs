//! What an observer is told of a request, kept while the request is at work.

use std::sync::Arc;
use std::time::Instant;

use rpc_proto::server::Settlement;
use rpc_proto::{Certainty, Delivery, Reason, ShortString, Status, wire};

use super::Post;
use crate::{Observer, RequestEvent};

/// Where a delivery came from, and what is told of it in the end.
pub(crate) struct Origin<T> {
    pub(crate) post: Arc<Post<T>>,
    pub(crate) told: Option<Box<Told>>,
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
        }
    }

    /// That of a delivery which joined another one: only that is told of.
    pub(crate) const fn joined(post: Arc<Post<T>>) -> Self {
        Self { post, told: None }
    }

    /// The handler begins.
    pub(crate) fn runs(&mut self) {
        if let Some(told) = &mut self.told {
            told.ran = true;
        }
    }

    /// This is how it is answered.
    pub(crate) fn answered(&mut self, settlement: &Settlement) {
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
