//! An async transport behind the blocking face.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use tokio::runtime::{Builder, EnterGuard, Handle};

use super::{CLOSE, GRACE, VERB, lock};
use crate::{
    AckToken, Address, Confirm, ConsumeOptions, Consumer, ConsumerId, Delivery, ErrorKind, Fate,
    Message, QueueSpec, ShortString, Transport, TransportError, blocking, park,
};

/// How long a runtime of our own waits, at its end, for what was given to its blocking threads.
const LINGER: Duration = Duration::from_secs(1);

/// An async transport behind the blocking face.
///
/// A verb is driven by the thread that calls it, with the runtime at hand for what the transport
/// spawns and for its timers. Since it blocks, it must not be called on a thread of any tokio
/// runtime, where it could wait for a task that waits for this thread. There each verb, and `recv`,
/// fails with [`ErrorKind::Misuse`]. The threads of `spawn_blocking` cannot be told from the others
/// and are refused too: use a thread of your own.
///
/// It can be dropped anywhere, also in async code.
pub struct BlockOn<T: Transport> {
    inner: InContext<T>,
    verb: Duration,
}

/// An attempt to connect.
type Connecting<'a, T> = Pin<&'a mut dyn Future<Output = Result<T, TransportError>>>;

impl<T: Transport> BlockOn<T> {
    /// Puts `inner`, which was made on the runtime of `handle`, behind the blocking face.
    ///
    /// The runtime must outlive the transport and be driven all the time: one of several threads
    /// drives itself, one of the current thread only within its `block_on`.
    #[must_use]
    pub fn new(inner: T, handle: Handle) -> Self {
        let runtime = Arc::new(Runtime { handle, own: None });
        Self {
            inner: InContext::new(inner, runtime),
            verb: VERB,
        }
    }

    /// Connects on a runtime of its own, which has one thread and ends with the transport.
    ///
    /// The thread is there for what the transport spawns and for its timers. `connect` itself is
    /// driven by the calling thread, and is to have a time limit of its own.
    ///
    /// # Errors
    ///
    /// Those of `connect`; [`ErrorKind::Misuse`] on a thread of a runtime; [`ErrorKind::Other`] when
    /// the system has no thread to give.
    pub fn with_runtime<F>(connect: impl FnOnce() -> F) -> Result<Self, TransportError>
    where
        F: Future<Output = Result<T, TransportError>>,
    {
        Self::connect_on_own(connect, |connecting| Some(park::block_on(connecting)))
    }

    /// As [`with_runtime`](Self::with_runtime), for a `connect` that may never return.
    pub(super) fn connect_within<F>(
        limit: Duration,
        connect: impl FnOnce() -> F,
    ) -> Result<Self, TransportError>
    where
        F: Future<Output = Result<T, TransportError>>,
    {
        let deadline = Instant::now() + limit;
        Self::connect_on_own(connect, |connecting| {
            park::block_on_until(connecting, deadline)
        })
    }

    fn connect_on_own<F>(
        connect: impl FnOnce() -> F,
        wait: impl FnOnce(Connecting<'_, T>) -> Option<Result<T, TransportError>>,
    ) -> Result<Self, TransportError>
    where
        F: Future<Output = Result<T, TransportError>>,
    {
        refuse_on_a_runtime("rpc", "connect")?;
        let runtime = Runtime::start()?;
        let connected = {
            let _context = runtime.handle.enter();
            wait(pin!(async { connect().await }))
        };
        let inner = connected.unwrap_or_else(|| {
            Err(TransportError::new(ErrorKind::Connect, "rpc", "connect")
                .with_detail("neither an answer nor an error in time"))
        })?;
        Ok(Self {
            inner: InContext::new(inner, Arc::new(runtime)),
            verb: VERB,
        })
    }

    /// Sets the limit of verbs other than `publish` and `close`, where the inner transport has none
    /// of its own. It must be longer than that takes by itself; as it comes, it is eleven seconds.
    #[must_use]
    pub const fn with_limit(mut self, verb: Duration) -> Self {
        self.verb = verb;
        self
    }

    /// The transport that does the work.
    #[must_use]
    pub fn inner(&self) -> &T {
        self.inner.value()
    }

    /// Waits for `verb`, which should have a bound of its own, and gives it up where it has not.
    fn wait<R>(
        &self,
        operation: &'static str,
        limit: Duration,
        verb: impl Future<Output = Result<R, TransportError>>,
    ) -> Result<R, TransportError> {
        let transport = self.inner().name();
        refuse_on_a_runtime(transport, operation)?;
        let runtime = &self.inner.runtime;
        let _running = runtime
            .hold()
            .ok_or_else(|| TransportError::new(ErrorKind::Closed, transport, operation))?;
        let _context = runtime.handle.enter();
        let deadline = Instant::now() + limit;
        // This thread's own clock, not a timer of the runtime: it holds when the runtime is busy.
        park::block_on_until(pin!(verb), deadline).unwrap_or_else(|| {
            Err(
                TransportError::new(ErrorKind::Timeout, transport, operation)
                    .with_detail("the transport has not answered in time"),
            )
        })
    }
}

#[deny(clippy::missing_trait_methods)]
impl<T: Transport> blocking::Transport for BlockOn<T> {
    fn name(&self) -> &'static str {
        self.inner().name()
    }

    fn declare(&self, queue: &QueueSpec) -> Result<(), TransportError> {
        self.wait("declare", self.verb, self.inner().declare(queue))
    }

    fn publish(
        &self,
        to: &Address,
        message: Message,
        deadline: Instant,
    ) -> Result<Confirm, TransportError> {
        let transport = self.name();
        refuse_on_a_runtime(transport, "publish")?;
        let runtime = &self.inner.runtime;
        let Some(_running) = runtime.hold() else {
            return Err(TransportError::new(ErrorKind::Closed, transport, "publish").unsent());
        };
        let _context = runtime.handle.enter();
        let publish = pin!(self.inner().publish(to, message, deadline));
        // This thread's own clock, not a timer of the runtime: it holds when the runtime is busy.
        park::block_on_until(publish, deadline).unwrap_or_else(|| {
            Err(
                TransportError::new(ErrorKind::Timeout, transport, "publish")
                    .with_detail("not handed over in time"),
            )
        })
    }

    fn is_blocked(&self) -> bool {
        self.inner().is_blocked()
    }

    fn consume(
        &self,
        options: ConsumeOptions,
    ) -> Result<Box<dyn blocking::Consumer>, TransportError> {
        let consumer = self.wait("consume", self.verb, self.inner().consume(options))?;
        Ok(Box::new(BlockOnConsumer {
            transport: self.name(),
            inner: InContext::new(consumer, Arc::clone(&self.inner.runtime)),
        }))
    }

    fn ack(&self, token: AckToken) -> Result<(), TransportError> {
        self.wait("ack", self.verb, self.inner().ack(token))
    }

    fn reject(&self, token: AckToken, fate: Fate) -> Result<(), TransportError> {
        self.wait("reject", self.verb, self.inner().reject(token, fate))
    }

    fn cancel(&self, consumer: ConsumerId) -> Result<(), TransportError> {
        match self.wait("cancel", self.verb, self.inner().cancel(consumer)) {
            // The end has cancelled every consumer.
            Err(error) if error.kind() != ErrorKind::Misuse && self.inner.runtime.has_ended() => {
                Ok(())
            }
            cancelled => cancelled,
        }
    }

    fn close(&self) -> Result<(), TransportError> {
        match self.wait("close", CLOSE, self.inner().close()) {
            Err(error) if error.kind() == ErrorKind::Misuse => return Err(error),
            Err(error) if !self.inner.runtime.has_ended() => {
                tracing::debug!(%error, "the inner transport did not close in good order")
            }
            _ => {}
        }
        self.inner.runtime.end(Instant::now() + GRACE);
        Ok(())
    }
}

impl<T: Transport> fmt::Debug for BlockOn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockOn")
            .field("inner", self.inner())
            .finish_non_exhaustive()
    }
}

/// The receiving end.
struct BlockOnConsumer {
    transport: &'static str,
    inner: InContext<Box<dyn Consumer>>,
}

#[deny(clippy::missing_trait_methods)]
impl blocking::Consumer for BlockOnConsumer {
    fn id(&self) -> ConsumerId {
        self.inner.value().id()
    }

    fn queue(&self) -> &ShortString {
        self.inner.value().queue()
    }

    fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        refuse_on_a_runtime(self.transport, "recv")?;
        let runtime = Arc::clone(&self.inner.runtime);
        let Some(_running) = runtime.hold() else {
            return Ok(None);
        };
        let _context = runtime.handle.enter();
        park::block_on(self.inner.value_mut().recv())
    }
}

impl fmt::Debug for BlockOnConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.value().fmt(f)
    }
}

/// A value of the async world, dropped with its runtime at hand: what it does in the background
/// when it is dropped, it spawns.
struct InContext<V> {
    /// Taken when this is dropped.
    value: Option<V>,
    runtime: Arc<Runtime>,
}

impl<V> InContext<V> {
    fn new(value: V, runtime: Arc<Runtime>) -> Self {
        Self {
            value: Some(value),
            runtime,
        }
    }

    fn value(&self) -> &V {
        // Only `drop` takes it.
        self.value.as_ref().expect("it is there until the drop")
    }

    fn value_mut(&mut self) -> &mut V {
        // Only `drop` takes it.
        self.value.as_mut().expect("it is there until the drop")
    }
}

impl<V> Drop for InContext<V> {
    fn drop(&mut self) {
        let _context = self.runtime.context();
        drop(self.value.take());
    }
}

/// The runtime of a transport, lent or owned.
struct Runtime {
    handle: Handle,
    own: Option<Own>,
}

/// A runtime of our own: of the current thread, where the thread is one that does nothing else. So
/// it is always driven, there is one thread and no more, and the runtime is dropped there, never in
/// async code, where tokio would panic.
struct Own {
    /// `None` after the end.
    driver: Mutex<Option<Arc<Driver>>>,
    over: Arc<Over>,
}

/// Keeps the runtime's thread alive. Each verb holds it while it waits, so that no timer of a verb
/// meets a runtime that is gone, which would be a panic.
struct Driver {
    _stop: oneshot::Sender<()>,
}

/// Whether the runtime's thread is done.
#[derive(Default)]
struct Over {
    done: Mutex<bool>,
    rung: Condvar,
}

impl Runtime {
    fn start() -> Result<Self, TransportError> {
        let failed = |error| {
            TransportError::new(ErrorKind::Other, "rpc", "connect")
                .with_detail("cannot start a runtime")
                .with_source(error)
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let over = Arc::new(Over::default());
        let done = Arc::clone(&over);
        thread::Builder::new()
            .name("block-on".to_owned())
            .spawn(move || {
                // Resolves when the sender is dropped: nothing is ever sent.
                let _ = runtime.block_on(stopped);
                runtime.shutdown_timeout(LINGER);
                *lock(&done.done) = true;
                done.rung.notify_all();
            })
            .map_err(failed)?;
        Ok(Self {
            handle,
            own: Some(Own {
                driver: Mutex::new(Some(Arc::new(Driver { _stop: stop }))),
                over,
            }),
        })
    }

    /// Keeps the runtime going; `None` when it has ended. Of a lent one we cannot tell, and the
    /// transport answers for itself.
    fn hold(&self) -> Option<Option<Arc<Driver>>> {
        match &self.own {
            None => Some(None),
            Some(own) => lock(&own.driver).clone().map(Some),
        }
    }

    fn has_ended(&self) -> bool {
        self.hold().is_none()
    }

    /// Ends a runtime of our own, and waits for its thread.
    fn end(&self, deadline: Instant) {
        let Some(own) = &self.own else {
            return;
        };
        drop(lock(&own.driver).take());
        let left = deadline.saturating_duration_since(Instant::now());
        let (done, _) = own
            .over
            .rung
            .wait_timeout_while(lock(&own.over.done), left, |done| !*done)
            .unwrap_or_else(PoisonError::into_inner);
        if !*done {
            tracing::warn!("the runtime of a transport that was closed is still in use");
        }
    }

    /// Enters the runtime, unless the thread is ending and has no place left to note it.
    fn context(&self) -> Option<EnterGuard<'_>> {
        match Handle::try_current() {
            Err(error) if error.is_thread_local_destroyed() => None,
            _ => Some(self.handle.enter()),
        }
    }
}

/// Fails where waiting could be a deadlock.
fn refuse_on_a_runtime(
    transport: &'static str,
    operation: &'static str,
) -> Result<(), TransportError> {
    let detail = match Handle::try_current() {
        Ok(_) => "blocking, on a thread of an async runtime; use the async face there",
        Err(error) if error.is_thread_local_destroyed() => "in a thread that is ending",
        Err(_) => return Ok(()),
    };
    Err(TransportError::new(ErrorKind::Misuse, transport, operation).with_detail(detail))
}
