//! The thread and the runtime on which a transport lives.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use amqp_broker::{AmqpConfig, Confirms, dial};
use futures_channel::oneshot;
use futures_util::{StreamExt, future};
use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Event};
use rpc_core::{ErrorKind, TransportError};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::time::{timeout, timeout_at};

use crate::connect::{Link, connect_error};
use crate::error;
use crate::outlet::Outlet;
use crate::publisher;
use crate::shared::Shared;
use crate::sweep;

/// How long tasks may take to notice that their connections are gone.
const TIDY: Duration = Duration::from_millis(500);

/// The thread on which a transport lives.
#[derive(Debug)]
pub(crate) struct Home {
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<bool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Home {
    /// Makes a home and opens the connections there.
    pub(crate) async fn open(config: AmqpConfig) -> Result<(Self, Arc<Shared>), TransportError> {
        let (stop, stopping) = watch::channel(false);
        let (stopped_sender, stopped) = watch::channel(false);
        let (sender, receiver) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("transport-lapin".to_owned())
            .spawn(move || {
                live(config, sender, stopping);
                stopped_sender.send_replace(true);
            })
            .map_err(|error| connect_error().with_source(error))?;
        let shared = receiver
            .await
            .unwrap_or_else(|_| Err(connect_error().with_detail("the thread ended early")))?;
        let home = Self {
            stop,
            stopped,
            thread: Mutex::new(Some(thread)),
        };
        Ok((home, shared))
    }

    /// Begins to close everything down, in the background.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until everything is closed down, the thread included.
    pub(crate) async fn stopped(&self) {
        // An error says that the other end is gone, which is the same.
        let _ = self.stopped.clone().wait_for(|stopped| *stopped).await;
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // It has nothing left to do but to return.
            let _ = thread.join();
        }
    }
}

type Opened = oneshot::Sender<Result<Arc<Shared>, TransportError>>;

fn live(config: AmqpConfig, opened: Opened, mut stopping: watch::Receiver<bool>) {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = opened.send(Err(connect_error().with_source(error)));
            return;
        }
    };
    match runtime.block_on(connect(config)) {
        Err(error) => {
            runtime.shutdown_timeout(TIDY);
            // Last, so that a caller who sees the error sees no thread any more.
            let _ = opened.send(Err(error));
        }
        Ok(shared) => {
            let abandoned = opened.send(Ok(Arc::clone(&shared))).is_err();
            runtime.block_on(async {
                if !abandoned {
                    let _ = stopping.wait_for(|stop| *stop).await;
                }
                close(&shared).await;
            });
            runtime.shutdown_timeout(TIDY);
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .thread_name("transport-lapin")
        .build()
}

async fn connect(config: AmqpConfig) -> Result<Arc<Shared>, TransportError> {
    if config.url.uses_tls() && !cfg!(feature = "tls") {
        return Err(error::new(ErrorKind::Unsupported, "connect")
            .with_detail("amqps needs the feature `tls` of transport-lapin"));
    }
    let deadline = Instant::now() + config.timeouts.connect;
    // This blocks the runtime, which has nothing else to do yet.
    let dialled = || {
        dial(&config.url, deadline).map_err(|error| {
            connect_error()
                .with_detail(format!("{}:{}", config.url.host(), config.url.port()))
                .with_source(error)
        })
    };
    let (first, second) = (dialled()?, dialled()?);
    let publishing = Link::open(&config, first, deadline).await?;
    let consuming = match Link::open(&config, second, deadline).await {
        Ok(consuming) => consuming,
        Err(error) => {
            publishing.end().await;
            return Err(error);
        }
    };
    let (outgoing, receiver) = mpsc::channel(publisher::ROOM);
    let runtime = tokio::runtime::Handle::current();
    let shared = Shared::new(config, runtime, publishing, consuming, outgoing);
    let shared = Arc::new(shared);
    watch_over(&shared);
    tokio::spawn(sweep::run(Arc::clone(&shared)));
    match timeout_at(deadline.into(), publish_channel(&shared)).await {
        Ok(Ok(channel)) => {
            let outlet = Arc::new(Outlet::new(channel, shared.config.confirms));
            shared.set_outlet(Arc::clone(&outlet));
            let task = publisher::run(Arc::clone(&shared), outlet, receiver, Arc::default());
            shared.add_publisher(tokio::spawn(task));
            Ok(shared)
        }
        Ok(Err(error)) => {
            close(&shared).await;
            Err(error::of_login(&error, &shared.config.url))
        }
        Err(_) => {
            // No goodbye: there is no time left for one.
            shared.publishing.switch.cut();
            shared.consuming.switch.cut();
            close(&shared).await;
            Err(connect_error().with_detail("the broker has not opened a channel in time"))
        }
    }
}

/// A channel to publish on. One that consumes direct replies must be one, too.
pub(crate) async fn publish_channel(shared: &Shared) -> lapin::Result<Channel> {
    let channel = shared.publishing.connection.create_channel().await?;
    if shared.config.confirms == Confirms::On {
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
    }
    Ok(channel)
}

/// Ends the transport when one of its connections does, and minds the broker's alarms.
fn watch_over(shared: &Arc<Shared>) {
    for link in [Shared::publishing_link, Shared::consuming_link] {
        let shared = Arc::clone(shared);
        let events = link(&shared).connection.events_listener();
        tokio::spawn(async move {
            let mut events = pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    // Also told for a mere channel, which is for its user to handle.
                    Event::Error(error) if !link(&shared).is_up() => {
                        shared.lose(error::of_connection(&error, &shared.config.url));
                        break;
                    }
                    Event::ConnectionBlocked(reason) => {
                        tracing::warn!(reason, "the broker blocks publishers");
                        shared.gate.shut();
                    }
                    Event::ConnectionUnblocked => {
                        tracing::info!("the broker takes publishes again");
                        shared.gate.open();
                    }
                    _ => {}
                }
            }
        });
    }
}

async fn close(shared: &Shared) {
    shared.shut();
    shared.send_acks();
    let both = future::join(
        shared.publishing.connection.close(200, "bye".into()),
        shared.consuming.connection.close(200, "bye".into()),
    );
    // An error says that it is closed already, and a timeout that it must be cut.
    let _ = timeout(shared.config.timeouts.close, both).await;
    future::join(shared.publishing.end(), shared.consuming.end()).await;
    shared.give_up();
    for publisher in shared.take_publishers() {
        let _ = timeout(TIDY, publisher).await;
    }
}
