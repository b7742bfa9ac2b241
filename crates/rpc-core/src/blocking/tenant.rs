//! What the blocking client has on each transport: an inbox, and a thread that feeds the table of
//! calls from it. The async twin is at the end of `client/driver.rs`.

use std::sync::Arc;
use std::thread;

use rpc_proto::client::Check;
use rpc_proto::link::{Generation, LinkState};
use rpc_proto::{Address, ErrorKind, Message, TransportError};

use super::Transport;
use super::mailbox::Mailbox;
use super::supervise::Tenant;
use crate::ConsumeOptions;
use crate::client::{Core, ended};

impl<T: Transport> Tenant<T> for Core<T> {
    type Stay = Mailbox;

    fn move_in(&self, transport: &Arc<T>) -> Result<Self::Stay, TransportError> {
        let inbox = ConsumeOptions::inbox(self.stub.options.inbox);
        let mut mailbox = Mailbox::new(transport.consume(inbox)?);
        if let Some((check, to, message)) = self.check(mailbox.queue(), transport.is_blocked()) {
            let outcome = carry_out(&check, transport, &to, message, &mut mailbox);
            check.judge(outcome, transport.is_blocked())?;
        }
        Ok(mailbox)
    }

    fn arrive(&self, generation: Generation, transport: &Arc<T>, stay: &Self::Stay) {
        Self::arrive(self, generation, transport, stay.id(), stay.queue().clone());
    }

    fn stay(
        &self,
        generation: Generation,
        _transport: &Arc<T>,
        mut mailbox: Self::Stay,
    ) -> Option<TransportError> {
        let cause = loop {
            match mailbox.recv() {
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

fn carry_out<T: Transport>(
    check: &Check,
    transport: &T,
    to: &Address,
    message: Message,
    mailbox: &mut Mailbox,
) -> Result<(), TransportError> {
    let deadline = check.deadline();
    let confirm = transport.publish(to, message, deadline)?;
    loop {
        let delivery = mailbox.recv_until(deadline)?.ok_or_else(ended)?;
        if check.is_heard(&delivery.message) {
            break;
        }
    }
    if check.confirm_counts() {
        confirm.wait(deadline)?;
    }
    Ok(())
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
