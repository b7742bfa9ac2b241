//! What the transport, its consumers and its publishers share: the connections, and how it ends.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use amqp_broker::{AmqpConfig, kind_of_end};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use rpc_core::{ConsumerId, ErrorKind, TransportError};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::connect::Link;
use crate::direct::Safety;
use crate::error;
use crate::gate::Gate;
use crate::line::Line;
use crate::outlet::{Outlet, Sent};
use crate::publisher;
use crate::sweep::Sweep;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: AmqpConfig,
    /// Our own runtime. Whatever needs a timer or must go on without its caller runs there.
    pub(crate) runtime: Handle,
    pub(crate) publishing: Link,
    pub(crate) consuming: Link,
    pub(crate) gate: Gate,
    pub(crate) sweep: Sweep,
    pub(crate) outgoing: mpsc::Sender<Sent>,
    /// The channel that all publish on, but for a direct inbox. Set before there is a transport.
    outlet: OnceLock<Arc<Outlet>>,
    /// Whether direct reply-to may be used at all.
    pub(crate) safety: Safety,
    direct: RwLock<Slot>,
    state: AtomicU8,
    cause: OnceLock<TransportError>,
    /// `None` for one that is done with: known to be ours, and nothing more.
    lines: RwLock<HashMap<ConsumerId, Option<Arc<Line>>>>,
    publishers: Mutex<Vec<JoinHandle<()>>>,
    /// Turns true when publishers are to give up on what is open.
    over: watch::Sender<bool>,
}

/// The place of the one direct inbox.
#[derive(Debug, Default)]
enum Slot {
    #[default]
    Free,
    Reserved,
    Taken(ConsumerId, mpsc::Sender<Sent>),
}

/// The slot of the direct inbox while one is being opened. Dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Reservation(Arc<Shared>);

impl Reservation {
    /// From now on the requests of `inbox` go to `requests`.
    pub(crate) fn take(self, inbox: ConsumerId, requests: mpsc::Sender<Sent>) {
        *self.0.direct_slot() = Slot::Taken(inbox, requests);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut slot = self.0.direct_slot();
        if matches!(*slot, Slot::Reserved) {
            *slot = Slot::Free;
        }
    }
}

/// Where the transport is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// Ended by a cause from elsewhere.
    Lost,
    /// Ended by us.
    Closed,
}

impl Shared {
    pub(crate) fn new(
        config: AmqpConfig,
        runtime: Handle,
        publishing: Link,
        consuming: Link,
        outgoing: mpsc::Sender<Sent>,
    ) -> Self {
        Self {
            safety: Safety::new(&config),
            config,
            runtime,
            publishing,
            consuming,
            gate: Gate::default(),
            sweep: Sweep::default(),
            outgoing,
            outlet: OnceLock::new(),
            direct: RwLock::default(),
            state: AtomicU8::new(State::Open as u8),
            cause: OnceLock::new(),
            lines: RwLock::default(),
            publishers: Mutex::default(),
            over: watch::Sender::new(false),
        }
    }

    pub(crate) fn publishing_link(&self) -> &Link {
        &self.publishing
    }

    pub(crate) fn consuming_link(&self) -> &Link {
        &self.consuming
    }

    pub(crate) fn set_outlet(&self, outlet: Arc<Outlet>) {
        let _ = self.outlet.set(outlet);
    }

    pub(crate) fn outlet(&self) -> Option<&Outlet> {
        self.outlet.get().map(|outlet| &**outlet)
    }

    pub(crate) fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            open if open == State::Open as u8 => State::Open,
            lost if lost == State::Lost as u8 => State::Lost,
            _ => State::Closed,
        }
    }

    pub(crate) fn ensure_open(&self, operation: &'static str) -> Result<(), TransportError> {
        match self.state() {
            State::Open => Ok(()),
            _ => Err(self.gone(operation)),
        }
    }

    /// The error of a verb that comes too late; nothing of it was sent.
    pub(crate) fn gone(&self, operation: &'static str) -> TransportError {
        match (self.state(), self.cause.get()) {
            (State::Lost, Some(cause)) => error::new(kind_of_end(cause.kind()), operation)
                .with_detail("the transport has ended")
                .with_source(cause.clone()),
            _ => error::new(ErrorKind::Closed, operation).with_detail("the transport was closed"),
        }
        .unsent()
    }

    /// The error of a publish whose publisher takes in no more; nothing of it was sent.
    pub(crate) fn no_intake(&self) -> TransportError {
        match self.state() {
            State::Open => publisher::inbox_closed(),
            _ => self.gone("publish"),
        }
    }

    /// The verdict on publishes that the end of the transport left open.
    pub(crate) fn end_of_publishes(&self) -> TransportError {
        match (self.state(), self.cause.get()) {
            (State::Lost, Some(cause)) => cause.clone(),
            _ => error::new(ErrorKind::Closed, "publish")
                .with_detail("the transport ended before the broker confirmed"),
        }
    }

    /// Why the transport was lost, if it was.
    pub(crate) fn cause(&self) -> Option<&TransportError> {
        self.cause.get()
    }

    /// Ends the transport because of `cause`. The first cause stays.
    pub(crate) fn lose(&self, cause: TransportError) {
        if self.state() != State::Open || self.cause.set(cause).is_err() {
            return;
        }
        if !self.leave(State::Lost) {
            return;
        }
        tracing::debug!(
            cause = self.cause.get().map(tracing::field::display),
            "lost"
        );
        self.publishing.switch.cut();
        self.consuming.switch.cut();
        self.wake_lines();
        self.give_up();
    }

    /// Ends the publishers. What is open is settled with the cause of the end.
    pub(crate) fn give_up(&self) {
        self.over.send_replace(true);
    }

    /// Resolves when publishers are to give up.
    pub(crate) fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    /// Ends the transport on this side. The connections are left to be closed.
    pub(crate) fn shut(&self) {
        self.state.store(State::Closed as u8, Ordering::Release);
        self.wake_lines();
    }

    /// Runs a verb that the broker answers on our own runtime, for as long as a verb may take.
    ///
    /// One that gets no answer ends the transport, since its connection is no longer worth waiting
    /// for. If the caller goes away the verb is finished all the same, and its result dropped.
    pub(crate) async fn verb<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        verb: impl Future<Output = Result<T, TransportError>> + Send + 'static,
    ) -> Result<T, TransportError> {
        self.ensure_open(operation)?;
        let (sender, receiver) = oneshot::channel();
        let shared = Arc::clone(self);
        self.runtime.spawn(async move {
            let limit = shared.config.timeouts.verb;
            let result = tokio::time::timeout(limit, verb).await;
            let result = result.unwrap_or_else(|_| Err(shared.silent(operation)));
            // The caller may be gone.
            let _ = sender.send(result);
        });
        match receiver.await {
            Ok(result) => result,
            Err(_) => Err(self.gone(operation)),
        }
    }

    /// Waits in the caller's task, which need not be one of tokio, for what only has to be written;
    /// likewise for as long as a verb may take.
    pub(crate) async fn in_time<O>(
        &self,
        operation: &'static str,
        work: impl Future<Output = O> + Unpin,
    ) -> Result<O, TransportError> {
        let mut over = self.over();
        let limit = self.config.timeouts.verb;
        let alarm = self
            .runtime
            .spawn(async move { tokio::time::sleep(limit).await });
        let silence = alarm.abort_handle();
        let over = pin!(over.wait_for(|over| *over));
        let ended = select(over, alarm);
        let done = match select(work, ended).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right((Either::Left(_), _)) => Err(self.gone(operation)),
            Either::Right((Either::Right(_), _)) => Err(self.silent(operation)),
        };
        silence.abort();
        done
    }

    /// A verb has had no answer: its connection is no longer worth waiting for.
    fn silent(&self, operation: &'static str) -> TransportError {
        let timeout = error::new(ErrorKind::Timeout, operation)
            .with_detail("the broker has not answered in time");
        let lost = error::new(ErrorKind::Closed, operation);
        self.lose(lost.with_source(timeout.clone()));
        timeout
    }

    /// The answer of a verb that failed: what the broker said, or why there is no broker any more.
    pub(crate) fn failed(&self, operation: &'static str, error: &lapin::Error) -> TransportError {
        let error = error::of_verb(operation, error, &self.config.url);
        match self.cause() {
            Some(cause) if error.kind() == ErrorKind::Closed => {
                error::new(ErrorKind::Closed, operation).with_source(cause.clone())
            }
            _ => error,
        }
    }

    pub(crate) fn add_line(&self, line: &Arc<Line>) {
        let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
        lines.insert(line.id, Some(Arc::clone(line)));
        drop(lines);
        // It may have been shut while the line was made.
        if self.state() != State::Open {
            line.waker.wake();
        }
    }

    /// The line of a consumer of ours, or `None` when it is done with.
    pub(crate) fn line(
        &self,
        id: ConsumerId,
        operation: &'static str,
    ) -> Result<Option<Arc<Line>>, TransportError> {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        lines.get(&id).cloned().ok_or_else(|| {
            error::new(ErrorKind::Misuse, operation)
                .with_detail(format!("consumer {id} is not one of this transport"))
        })
    }

    /// Gives the line's channel up when nothing is left to be settled on it.
    pub(crate) fn forget_if_done(&self, line: &Line) {
        if line.is_done() {
            let mut lines = self.lines.write().unwrap_or_else(PoisonError::into_inner);
            let gone = lines.insert(line.id, None);
            drop(lines);
            // Outside the lock: the last handle to a channel closes it.
            drop(gone);
        }
    }

    /// Ends a consumer that was retired, and puts back what it has not taken.
    pub(crate) async fn cancel(&self, line: &Line) {
        line.cancel().await;
        self.forget_if_done(line);
    }

    /// Where publishes go that are to be answered in the direct inbox.
    pub(crate) fn direct(&self) -> Option<mpsc::Sender<Sent>> {
        let slot = self.direct.read().unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Slot::Taken(_, requests) => Some(requests.clone()),
            Slot::Free | Slot::Reserved => None,
        }
    }

    /// The slot of the direct inbox, unless there is one already.
    pub(crate) fn reserve_direct(self: &Arc<Self>) -> Option<Reservation> {
        let mut slot = self.direct_slot();
        if !matches!(*slot, Slot::Free) {
            return None;
        }
        *slot = Slot::Reserved;
        drop(slot);
        Some(Reservation(Arc::clone(self)))
    }

    /// Takes no more requests for a consumer that has ended, if it is the direct inbox.
    pub(crate) fn retire(&self, line: &Line) {
        let mut slot = self.direct_slot();
        if matches!(&*slot, Slot::Taken(inbox, _) if *inbox == line.id) {
            *slot = Slot::Free;
        }
        drop(slot);
        line.intake.close();
    }

    fn direct_slot(&self) -> std::sync::RwLockWriteGuard<'_, Slot> {
        self.direct.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add_publisher(&self, task: JoinHandle<()>) {
        self.lock_publishers().push(task);
    }

    pub(crate) fn take_publishers(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.lock_publishers())
    }

    fn lock_publishers(&self) -> std::sync::MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.publishers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, state: State) -> bool {
        self.state
            .compare_exchange(
                State::Open as u8,
                state as u8,
                Ordering::AcqRel,
                Ordering::Acquire,
            )
            .is_ok()
    }

    /// Sends the acknowledgements that are held back. Tells whether there were any.
    pub(crate) fn send_acks(&self) -> bool {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        let sent = lines.values().flatten().map(|line| line.send_acks());
        sent.fold(false, |any, sent| any | sent)
    }

    fn wake_lines(&self) {
        let lines = self.lines.read().unwrap_or_else(PoisonError::into_inner);
        for line in lines.values().flatten() {
            line.waker.wake();
        }
    }
}
