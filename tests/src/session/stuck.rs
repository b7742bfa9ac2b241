//! A transport that stops answering when it is told to: at one verb, for ever.
//!
//! It stands for a client library that hangs. Behind it is a broker in the process, which never does.

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use async_trait::async_trait;
use rpc_core::{
    AckToken, Address, Confirm, ConsumeOptions, Consumer, ConsumerId, Delivery, Fate, Message,
    QueueSpec, ShortString, Transport, TransportError, Verdict, blocking,
};
use transport_memory::{MemoryBroker, MemoryTransport};

/// Where a transport may hang.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the verbs of the contract")]
pub enum Verb {
    /// Making one.
    Connect,
    /// Declaring a queue.
    Declare,
    /// Handing over a message.
    Publish,
    /// The verdict on one.
    Confirm,
    /// Starting a consumer.
    Consume,
    /// The next delivery.
    Recv,
    /// Acknowledging.
    Ack,
    /// Handing back.
    Reject,
    /// Ending a consumer.
    Cancel,
    /// Ending it all.
    Close,
}

impl Verb {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Connect,
        Self::Declare,
        Self::Publish,
        Self::Confirm,
        Self::Consume,
        Self::Recv,
        Self::Ack,
        Self::Reject,
        Self::Cancel,
        Self::Close,
    ];
}

/// A broker whose transports can be made to hang.
#[derive(Clone)]
pub struct StuckBroker {
    broker: MemoryBroker,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stuck: Option<Verb>,
    /// Verdicts that nobody will give: dropped, they would be some.
    verdicts: Vec<Verdict>,
}

impl StuckBroker {
    /// One where nothing hangs yet.
    #[must_use]
    pub fn new(broker: MemoryBroker) -> Self {
        let gate = Arc::default();
        Self { broker, gate }
    }

    /// From now on this verb never returns; what hangs in another one goes on, if it is a thread. With
    /// `None` nothing hangs.
    pub fn stick(&self, verb: Option<Verb>) {
        let mut state = self.gate.lock();
        state.stuck = verb;
        state.verdicts.clear();
        drop(state);
        self.gate.changed.notify_all();
    }

    pub(crate) async fn connect(&self) -> Stuck {
        self.gate.pass_or_pend(Verb::Connect).await;
        self.stuck()
    }

    pub(crate) fn connect_blocking(&self) -> Stuck {
        self.gate.pass(Verb::Connect);
        self.stuck()
    }

    pub(crate) fn stuck(&self) -> Stuck {
        Stuck {
            inner: self.broker.connect(),
            gate: Arc::clone(&self.gate),
        }
    }
}

impl fmt::Debug for StuckBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StuckBroker").finish_non_exhaustive()
    }
}

impl Gate {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stuck(&self, verb: Verb) -> bool {
        self.lock().stuck == Some(verb)
    }

    async fn pass_or_pend(&self, verb: Verb) {
        if self.is_stuck(verb) {
            pending::<()>().await;
        }
    }

    /// Keeps the thread until the verb is free again, so that no thread is left for good.
    fn pass(&self, verb: Verb) {
        let state = self.lock();
        let stuck = |state: &mut State| state.stuck == Some(verb);
        drop(
            self.changed
                .wait_while(state, stuck)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// The confirm as it is, or one on which nobody will ever decide.
    fn confirm(&self, confirm: Confirm) -> Confirm {
        let mut state = self.lock();
        if state.stuck != Some(Verb::Confirm) {
            return confirm;
        }
        let (verdict, never) = Confirm::open();
        state.verdicts.push(verdict);
        never
    }
}

/// A transport of a [`StuckBroker`], on both faces.
#[derive(Debug)]
pub(crate) struct Stuck {
    inner: MemoryTransport,
    gate: Arc<Gate>,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&self.lock().stuck).finish()
    }
}

#[async_trait]
impl Transport for Stuck {
    fn name(&self) -> &'static str {
        "stuck"
    }

    async fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.gate.pass_or_pend(Verb::Declare).await;
        Transport::declare(&self.inner, queue).await
    }

    async fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: std::time::Instant,
    ) -> Result<Confirm, TransportError> {
        self.gate.pass_or_pend(Verb::Publish).await;
        let confirm = Transport::publish(&self.inner, to, message, deadline).await?;
        Ok(self.gate.confirm(confirm))
    }

    fn is_blocked(&self) -> bool {
        Transport::is_blocked(&self.inner)
    }

    async fn consume(&self, options: ConsumeOptions) -> Result<Box<dyn Consumer>, TransportError> {
        self.gate.pass_or_pend(Verb::Consume).await;
        let inner = Transport::consume(&self.inner, options).await?;
        let gate = Arc::clone(&self.gate);
        Ok(Box::new(StuckConsumer { inner, gate }))
    }

    async fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.gate.pass_or_pend(Verb::Ack).await;
        Transport::ack(&self.inner, token).await
    }

    async fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.gate.pass_or_pend(Verb::Reject).await;
        Transport::reject(&self.inner, token, fate).await
    }

    async fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        self.gate.pass_or_pend(Verb::Cancel).await;
        Transport::cancel(&self.inner, consumer).await
    }

    async fn close(&self) -> Result<(), TransportError> {
        self.gate.pass_or_pend(Verb::Close).await;
        Transport::close(&self.inner).await
    }
}

#[derive(Debug)]
struct StuckConsumer<C> {
    inner: C,
    gate: Arc<Gate>,
}

#[async_trait]
impl Consumer for StuckConsumer<Box<dyn Consumer>> {
    fn id(&self) -> ConsumerId {
        self.inner.id()
    }

    fn queue(&self) -> &ShortString {
        self.inner.queue()
    }

    async fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        self.gate.pass_or_pend(Verb::Recv).await;
        let received = self.inner.recv().await;
        // What came while it hung is lost with it.
        self.gate.pass_or_pend(Verb::Recv).await;
        received
    }
}

impl blocking::Transport for Stuck {
    fn name(&self) -> &'static str {
        "stuck"
    }

    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.gate.pass(Verb::Declare);
        blocking::Transport::declare(&self.inner, queue)
    }

    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: std::time::Instant,
    ) -> Result<Confirm, TransportError> {
        self.gate.pass(Verb::Publish);
        let confirm = blocking::Transport::publish(&self.inner, to, message, deadline)?;
        Ok(self.gate.confirm(confirm))
    }

    fn is_blocked(&self) -> bool {
        blocking::Transport::is_blocked(&self.inner)
    }

    fn consume(
        &self,
        options: ConsumeOptions,
    ) -> Result<Box<dyn blocking::Consumer>, TransportError> {
        self.gate.pass(Verb::Consume);
        let inner = blocking::Transport::consume(&self.inner, options)?;
        let gate = Arc::clone(&self.gate);
        Ok(Box::new(StuckConsumer { inner, gate }))
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.gate.pass(Verb::Ack);
        blocking::Transport::ack(&self.inner, token)
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.gate.pass(Verb::Reject);
        blocking::Transport::reject(&self.inner, token, fate)
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        self.gate.pass(Verb::Cancel);
        blocking::Transport::cancel(&self.inner, consumer)
    }

    fn close(&self) -> Result<(), TransportError> {
        self.gate.pass(Verb::Close);
        blocking::Transport::close(&self.inner)
    }
}

impl blocking::Consumer for StuckConsumer<Box<dyn blocking::Consumer>> {
    fn id(&self) -> ConsumerId {
        self.inner.id()
    }

    fn queue(&self) -> &ShortString {
        self.inner.queue()
    }

    fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        self.gate.pass(Verb::Recv);
        let received = self.inner.recv();
        self.gate.pass(Verb::Recv);
        received
    }
}
