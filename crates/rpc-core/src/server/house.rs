//! The async server on each of its transports: queues, consumers, and what comes by them.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_channel::oneshot;
use rpc_proto::link::Generation;
use rpc_proto::server::{Lane, Trial};
use rpc_proto::{ErrorKind, TransportError};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::worker::Worker;
use super::{First, Post, closed_here, or_without, race};
use crate::link::Tenant;
use crate::{ConsumeOptions, Consumer, Inbox, QueueSpec, Service, Transport};

/// A server, as what lives on one transport after the other.
pub(super) struct House<T, S> {
    pub(super) worker: Arc<Worker<T, S>>,
    pub(super) queue: QueueSpec,
    pub(super) quarantine: Option<QueueSpec>,
    pub(super) prefetch: NonZeroU16,
    pub(super) notices: bool,
    /// Whether there will be another transport after this one.
    pub(super) supervised: bool,
    pub(super) stage: watch::Receiver<Stage>,
    /// Why no more requests come.
    pub(super) ended: watch::Sender<Option<Result<(), TransportError>>>,
}

/// How far a server is with its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Serving,
    /// Consumers are cancelled, and what was taken is brought to its end.
    Draining,
    Done,
}

/// The consumers of a server on one transport.
pub(super) struct Stay<T> {
    post: Arc<Post<T>>,
    given_up: oneshot::Receiver<TransportError>,
    work: Box<dyn Consumer>,
    quarantine: Option<Box<dyn Consumer>>,
    control: Option<Box<dyn Consumer>>,
}

#[async_trait]
impl<T: Transport, S: Service> Tenant<T> for House<T, S> {
    type Stay = Stay<T>;

    async fn move_in(&self, transport: &Arc<T>) -> Result<Stay<T>, TransportError> {
        self.try_to_publish(transport).await?;
        transport.declare(&self.queue).await?;
        let quarantine = self.open_quarantine(transport).await?;
        let control = self.open_control(transport).await;
        // Last, so that all is there when the first request comes.
        let options = ConsumeOptions::queue(self.queue.name.clone(), self.prefetch);
        let work = transport.consume(options).await?;
        let (post, given_up) = Post::new(
            transport,
            work.id(),
            quarantine.as_ref().map(|quarantine| quarantine.id()),
            control.as_ref().map(|control| control.queue().clone()),
        );
        Ok(Stay {
            post,
            given_up,
            work,
            quarantine,
            control,
        })
    }

    fn arrive(&self, _: Generation, _: &Arc<T>, stay: &Stay<T>) {
        self.worker.acceptor.set_control(stay.post.control.clone());
        self.worker.settler.posts.add(Arc::clone(&stay.post));
    }

    async fn stay(&self, _: Generation, _: &Arc<T>, stay: Stay<T>) -> Option<TransportError> {
        let mut stage = self.stage.clone();
        if *stage.borrow() != Stage::Serving {
            return None;
        }
        let Stay {
            post,
            given_up,
            work,
            quarantine,
            control,
        } = stay;
        // All of them end with this call, whatever ends it.
        let mut lanes = JoinSet::new();
        let mut aside = JoinSet::new();
        if let Some(control) = control {
            aside.spawn(listen(control, Arc::clone(&self.worker)));
        }
        lanes.spawn(receive(
            work,
            Lane::Work,
            Arc::clone(&self.worker),
            Arc::clone(&post),
        ));
        if let Some(quarantine) = quarantine {
            let worker = Arc::clone(&self.worker);
            lanes.spawn(receive(quarantine, Lane::Quarantine, worker, post));
        }
        let done = stage.wait_for(|stage| *stage == Stage::Done);
        // One that hangs may never let go of its consumers.
        let ended = race(lanes.join_next(), given_up);
        let ended = match race(ended, done).await {
            First::Left(First::Left(Some(Ok(ended)))) => ended,
            First::Left(First::Right(Ok(cause))) => Err(cause),
            First::Left(_) => Err(stopped()),
            // The consumers do not come back from where they wait.
            First::Right(_) => return None,
        };
        if *self.stage.borrow() != Stage::Serving {
            // What has begun still needs the transport.
            let _ = stage.wait_for(|stage| *stage == Stage::Done).await;
            return None;
        }
        match ended {
            Err(cause) => Some(cause),
            Ok(()) if self.supervised => Some(closed_here()),
            Ok(()) => {
                self.ended.send_replace(Some(Ok(())));
                None
            }
        }
    }

    fn depart(&self, _: Generation, cause: TransportError) {
        self.worker.settler.posts.clear();
        self.worker.acceptor.set_control(None);
        if !self.supervised {
            self.ended.send_replace(Some(Err(cause)));
        }
    }
}

impl<T: Transport, S: Service> House<T, S> {
    /// Where replies have been denied, sees first whether they still are.
    async fn try_to_publish(&self, transport: &Arc<T>) -> Result<(), TransportError> {
        let acceptor = &self.worker.acceptor;
        let Some(trial) = acceptor.trial(Instant::now()) else {
            return Ok(());
        };
        let Trial {
            to,
            message,
            deadline,
        } = trial;
        let publish = async { transport.publish(&to, message, deadline).await?.await };
        let told = timeout_at(deadline.into(), publish).await;
        let silence = || Err(TransportError::new(ErrorKind::Timeout, "rpc", "serve"));
        acceptor.handle_trial(told.unwrap_or_else(|_| silence()))
    }

    async fn open_quarantine(
        &self,
        transport: &Arc<T>,
    ) -> Result<Option<Box<dyn Consumer>>, TransportError> {
        let Some(queue) = &self.quarantine else {
            return Ok(None);
        };
        let opened = async {
            transport.declare(queue).await?;
            // One at a time: when the process ends, there is one suspect.
            let options = ConsumeOptions::queue(queue.name.clone(), NonZeroU16::MIN);
            transport.consume(options).await
        };
        or_without(queue, opened.await)
    }

    /// Not every server may have an inbox, and without one it only cannot be told to stop.
    async fn open_control(&self, transport: &Arc<T>) -> Option<Box<dyn Consumer>> {
        if !self.notices {
            return None;
        }
        let options = ConsumeOptions::inbox(Inbox::Exclusive);
        let opened = transport.consume(options).await;
        opened
            .inspect_err(|error| tracing::debug!(%error, "no inbox for cancellations"))
            .ok()
    }
}

async fn receive<T: Transport, S: Service>(
    mut consumer: Box<dyn Consumer>,
    lane: Lane,
    worker: Arc<Worker<T, S>>,
    post: Arc<Post<T>>,
) -> Result<(), TransportError> {
    // Dropped at the end: what came by it and has not begun is handed back.
    let intake = worker.acceptor.intake(lane);
    while let Some(delivery) = consumer.recv().await? {
        worker.take(&intake, delivery, &post);
        // Where there is always more and nothing has to wait, others must have their turn.
        tokio::task::coop::consume_budget().await;
    }
    Ok(())
}

async fn listen<T: Transport, S: Service>(
    mut control: Box<dyn Consumer>,
    worker: Arc<Worker<T, S>>,
) {
    // An error ends the other consumers too, and they tell.
    while let Ok(Some(delivery)) = control.recv().await {
        worker.acceptor.handle_cancel(&delivery.message);
    }
}

fn stopped() -> TransportError {
    TransportError::new(ErrorKind::Closed, "rpc", "serve")
        .with_detail("the receiving task was stopped")
}
