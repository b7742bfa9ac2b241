//! Clients that make their connections themselves, on either face, and a hand on each connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rpc_core::{
    Client, ClientOptions, ConnectWith, ErrorKind, LinkState, Transport, TransportError, blocking,
};

use crate::async_row::{AsyncCaller, Face};
use crate::backend::{Caller, Linked};
use crate::blocking_row::BlockingCaller;
use crate::{async_row, blocking_row};

/// A connector that a case can bar, and that remembers the last transport it made.
struct Watched<D, T> {
    dial: D,
    barred: AtomicBool,
    last: Mutex<Option<T>>,
}

impl<D, T: Clone> Watched<D, T> {
    fn new(dial: D) -> Arc<Self> {
        Arc::new(Self {
            dial,
            barred: AtomicBool::new(false),
            last: Mutex::new(None),
        })
    }

    fn made(&self, transport: T) -> T {
        *self.lock() = Some(transport.clone());
        transport
    }

    fn may(&self) -> Result<(), TransportError> {
        if self.barred.load(Ordering::Acquire) {
            let error = TransportError::new(ErrorKind::Connect, "conformance", "connect");
            return Err(error.with_detail("barred by the case"));
        }
        Ok(())
    }

    fn take(&self) -> Option<T> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type OnTasks = Watched<async_row::Dial, Arc<dyn Transport>>;

pub(crate) struct AsyncLinked {
    face: Face,
    client: Client<Arc<dyn Transport>>,
    connector: Arc<OnTasks>,
}

impl AsyncLinked {
    pub(crate) fn new(face: Face, dial: async_row::Dial, options: ClientOptions) -> Self {
        let connector: Arc<OnTasks> = Watched::new(dial);
        let watched = Arc::clone(&connector);
        let connect = ConnectWith::new(1, move |_endpoint| {
            let watched = Arc::clone(&watched);
            async move {
                watched.may()?;
                let dialled = async_row::dial(&watched.dial);
                Ok(watched.made(dialled.await?))
            }
        });
        let entered = face.0.enter();
        let client = Client::connect(connect, options);
        drop(entered);
        Self {
            face,
            client,
            connector,
        }
    }
}

impl Linked for AsyncLinked {
    fn caller(&self) -> Arc<dyn Caller> {
        Arc::new(AsyncCaller {
            client: self.client.clone(),
            face: self.face.clone(),
        })
    }

    fn state(&self) -> LinkState {
        self.client.link_state()
    }

    fn ready(&self, limit: Duration) -> Result<(), TransportError> {
        self.face.0.block_on(self.client.ready(limit))
    }

    fn lose(&self) -> bool {
        let last = self.connector.take();
        if let Some(transport) = &last {
            let _ = self.face.bounded("close", transport.close());
        }
        last.is_some()
    }

    fn bar(&self, barred: bool) {
        self.connector.barred.store(barred, Ordering::Release);
    }
}

type OnThreads = Watched<blocking_row::Dial, Arc<dyn blocking::Transport>>;

pub(crate) struct BlockingLinked {
    client: blocking::Client<Arc<dyn blocking::Transport>>,
    connector: Arc<OnThreads>,
}

impl BlockingLinked {
    pub(crate) fn new(dial: blocking_row::Dial, options: ClientOptions) -> Self {
        let connector: Arc<OnThreads> = Watched::new(dial);
        let watched = Arc::clone(&connector);
        let connect = blocking::ConnectWith::new(1, move |_endpoint| {
            watched.may()?;
            Ok(watched.made(blocking_row::dial(&watched.dial)?))
        });
        Self {
            client: blocking::Client::connect(connect, options),
            connector,
        }
    }
}

impl Linked for BlockingLinked {
    fn caller(&self) -> Arc<dyn Caller> {
        Arc::new(BlockingCaller(self.client.clone()))
    }

    fn state(&self) -> LinkState {
        self.client.link_state()
    }

    fn ready(&self, limit: Duration) -> Result<(), TransportError> {
        self.client.ready(limit)
    }

    fn lose(&self) -> bool {
        let last = self.connector.take();
        if let Some(transport) = &last {
            let _ = transport.close();
        }
        last.is_some()
    }

    fn bar(&self, barred: bool) {
        self.connector.barred.store(barred, Ordering::Release);
    }
}
