//! What the blocking client has on each transport: an inbox, and a thread that feeds the table of
//! calls from it. The async twin is at the end of `client/driver.rs`.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rpc_proto::link::{Generation, LinkState};
use rpc_proto::wire::CHECK_TYPE;
use rpc_proto::{ErrorKind, TransportError};

use super::supervise::Tenant;
use super::{Consumer, Transport, cancel};
use crate::client::{CHECK_LIMIT, Core, SILENCE, deaf, ended};
use crate::{ConsumeOptions, Inbox};

impl<T: Transport> Tenant<T> for Core<T> {
    type Stay = Box<dyn Consumer>;

    fn move_in(&self, transport: &Arc<T>) -> Result<Self::Stay, TransportError> {
        let consumer = transport.consume(ConsumeOptions::inbox(self.stub.options.inbox))?;
        let Some((to, message)) = self.check(consumer.queue(), transport.is_blocked()) else {
            return Ok(consumer);
        };
        let deadline = Instant::now() + CHECK_LIMIT;
        let inbox = consumer.id();
        let confirm = transport.publish(&to, message, deadline)?;
        // There is no `recv` with a limit; the consumer goes there and comes back.
        let (heard, when_heard) = mpsc::sync_channel(1);
        spawn("rpc-check", move || {
            let _ = heard.send(hear(consumer));
        })?;
        let left = deadline.saturating_duration_since(Instant::now());
        match when_heard.recv_timeout(left) {
            Ok(heard) => {
                let consumer = heard?;
                match self.stub.options.inbox {
                    // There is no queue behind it: some brokers say of what has arrived that it has
                    // not.
                    Inbox::Direct => Ok(consumer),
                    Inbox::Exclusive => confirm.wait(deadline).map(|()| consumer),
                }
            }
            Err(_) => {
                // Frees that thread.
                drop(cancel(transport, inbox));
                if !transport.is_blocked() {
                    return Err(deaf(SILENCE));
                }
                // It is told only to those who publish. Another inbox will do.
                transport.consume(ConsumeOptions::inbox(self.stub.options.inbox))
            }
        }
    }

    fn arrive(&self, generation: Generation, transport: &Arc<T>, stay: &Self::Stay) {
        Self::arrive(self, generation, transport, stay.id(), stay.queue().clone());
    }

    fn stay(
        &self,
        generation: Generation,
        _transport: &Arc<T>,
        mut consumer: Self::Stay,
    ) -> Option<TransportError> {
        let cause = loop {
            match consumer.recv() {
                Ok(Some(delivery)) => self.table.handle_reply(generation, delivery.message),
                Ok(None) => break ended(),
                Err(cause) => break cause,
            }
        };
        Some(cause).filter(|_| !matches!(self.cell.state(), LinkState::Closed))
    }

    fn depart(&self, generation: Generation, cause: TransportError) {
        Self::depart(self, generation, cause);
    }
}

/// Receives until the message to ourselves comes, and gives the consumer back.
fn hear(mut consumer: Box<dyn Consumer>) -> Result<Box<dyn Consumer>, TransportError> {
    loop {
        let delivery = consumer.recv()?.ok_or_else(ended)?;
        if delivery.message.kind == Some(CHECK_TYPE) {
            return Ok(consumer);
        }
    }
}

/// Works on a thread of its own.
pub(super) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<(), TransportError> {
    let spawned = thread::Builder::new().name(name.into()).spawn(work);
    spawned
        .map(drop)
        .map_err(|error| TransportError::new(ErrorKind::Other, "rpc", "start").with_source(error))
}
