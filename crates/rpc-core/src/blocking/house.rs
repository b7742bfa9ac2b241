//! The blocking server on each of its transports: queues, consumers, and what comes by them.

use std::num::NonZeroU16;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;

use futures_channel::oneshot;
use rpc_proto::link::Generation;
use rpc_proto::server::{Lane, Trial};
use rpc_proto::{ErrorKind, TransportError, deadline_after};

use super::supervise::Tenant;
use super::worker::Worker;
use super::{Consumer, Transport, cancel};
use crate::server::{CANCEL_LIMIT, Post};
use crate::{ConsumeOptions, Inbox, QueueKind, QueueSpec, Service};

/// A server, as what lives on one transport after the other.
pub(super) struct House<T, S> {
    pub(super) worker: Arc<Worker<T, S>>,
    pub(super) queue: QueueSpec,
    pub(super) quarantine: Option<QueueSpec>,
    pub(super) prefetch: NonZeroU16,
    pub(super) notices: bool,
    /// Whether there will be another transport after this one.
    pub(super) supervised: bool,
}

/// The consumers of a server on one transport.
pub(super) struct Stay<T> {
    post: Arc<Post<T>>,
    given_up: oneshot::Receiver<TransportError>,
    work: Box<dyn Consumer>,
    quarantine: Option<Box<dyn Consumer>>,
    control: Option<Box<dyn Consumer>>,
}

impl<T: Transport, S: Service> Tenant<T> for House<T, S> {
    type Stay = Stay<T>;

    fn move_in(&self, transport: &Arc<T>) -> Result<Stay<T>, TransportError> {
        self.try_to_publish(transport)?;
        transport.declare(&self.queue)?;
        let quarantine = self.open_quarantine(transport)?;
        let control = self.open_control(transport);
        // Last, so that all is there when the first request comes.
        let options = ConsumeOptions::queue(self.queue.name.clone(), self.prefetch);
        let work = transport.consume(options)?;
        let consumers = [Some(&work), quarantine.as_ref()];
        let (post, given_up) = Post::new(
            transport,
            consumers
                .into_iter()
                .flatten()
                .map(|consumer| consumer.id())
                .collect(),
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

    fn stay(&self, _: Generation, transport: &Arc<T>, stay: Stay<T>) -> Option<TransportError> {
        let progress = &self.worker.progress;
        if progress.stopping().is_some() {
            return None;
        }
        let Stay {
            post,
            mut given_up,
            work,
            quarantine,
            control,
        } = stay;
        let aside = control.as_ref().map(|control| control.id());
        // Why the consumer of the quarantine queue has ended, if it was the first to.
        let first: Arc<Mutex<Option<TransportError>>> = Arc::default();
        let aside_ended = match self.spawn_aside(&post, (quarantine, control), (&first, work.id()))
        {
            Ok(ended) => ended,
            Err(error) => return Some(error),
        };
        let ended = receive(work, Lane::Work, &self.worker, &post);
        if let Some(until) = progress.stopping() {
            // Both consumers are being cancelled. A suspect that is handed back while its own is not would
            // come here again, and be counted each time.
            let now = Instant::now();
            let soon = until.min(deadline_after(now, CANCEL_LIMIT));
            let _ = aside_ended.recv_timeout(soon.saturating_duration_since(now));
            // What has begun still needs the transport.
            self.worker.wind_up(until);
        }
        // Whatever has ended this one, the others are to end too.
        for consumer in post.consumers.iter().copied().chain(aside) {
            drop(cancel(transport, consumer));
        }
        self.worker.hand_back(&post);
        if progress.stopping().is_some() {
            return None;
        }
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let given_up = given_up.try_recv().ok().flatten();
        match given_up.or(first).map_or(ended, Err) {
            Err(cause) => Some(cause),
            Ok(()) if self.supervised => Some(closed_here()),
            Ok(()) => {
                progress.end(Ok(()));
                None
            }
        }
    }

    fn depart(&self, _: Generation, cause: TransportError) {
        self.worker.settler.posts.clear();
        self.worker.acceptor.set_control(None);
        if !self.supervised {
            self.worker.progress.end(Err(cause));
        }
    }
}

type Aside = (Option<Box<dyn Consumer>>, Option<Box<dyn Consumer>>);

impl<T: Transport, S: Service> House<T, S> {
    /// Threads for the consumers besides that of the work queue. They end with their consumers; what is
    /// returned is disconnected when that of the quarantine queue has ended, or where there is none.
    fn spawn_aside(
        &self,
        post: &Arc<Post<T>>,
        (quarantine, control): Aside,
        (first, work): (&Arc<Mutex<Option<TransportError>>>, rpc_proto::ConsumerId),
    ) -> Result<mpsc::Receiver<()>, TransportError> {
        let (ends, ended) = mpsc::channel();
        if let Some(mut control) = control {
            self.worker.spawn("rpc-control", move |worker| {
                // An error ends the other consumers too, and they tell.
                while let Ok(Some(delivery)) = control.recv() {
                    worker.acceptor.handle_cancel(&delivery.message);
                }
            })?;
        }
        if let Some(quarantine) = quarantine {
            let (post, first) = (Arc::clone(post), Arc::clone(first));
            self.worker.spawn("rpc-quarantine", move |worker| {
                if let Err(cause) = receive(quarantine, Lane::Quarantine, worker, &post) {
                    *first.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
                    // The other one need not have noticed: a queue that is deleted ends one consumer.
                    drop(cancel(&post.transport, work));
                }
                drop(ends);
            })?;
        }
        Ok(ended)
    }

    /// Where replies have been denied, sees first whether they still are.
    fn try_to_publish(&self, transport: &Arc<T>) -> Result<(), TransportError> {
        let acceptor = &self.worker.acceptor;
        let Some(trial) = acceptor.trial(Instant::now()) else {
            return Ok(());
        };
        let Trial {
            to,
            message,
            deadline,
        } = trial;
        let published = transport.publish(&to, message, deadline);
        acceptor.handle_trial(published.and_then(|confirm| confirm.wait(deadline)))
    }

    fn open_quarantine(
        &self,
        transport: &Arc<T>,
    ) -> Result<Option<Box<dyn Consumer>>, TransportError> {
        let Some(queue) = &self.quarantine else {
            return Ok(None);
        };
        let opened = transport.declare(queue).and_then(|()| {
            // One at a time: when the process ends, there is one suspect.
            transport.consume(ConsumeOptions::queue(queue.name.clone(), NonZeroU16::MIN))
        });
        match opened {
            Ok(consumer) => Ok(Some(consumer)),
            Err(error)
                if queue.kind == QueueKind::Passive && error.kind() == ErrorKind::NotFound =>
            {
                tracing::warn!(%error, "there is no quarantine queue: suspects run among the others");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Not every server may have an inbox, and without one it only cannot be told to stop.
    fn open_control(&self, transport: &Arc<T>) -> Option<Box<dyn Consumer>> {
        if !self.notices {
            return None;
        }
        transport
            .consume(ConsumeOptions::inbox(Inbox::Exclusive))
            .inspect_err(|error| tracing::debug!(%error, "no inbox for cancellations"))
            .ok()
    }
}

fn receive<T: Transport, S: Service>(
    mut consumer: Box<dyn Consumer>,
    lane: Lane,
    worker: &Arc<Worker<T, S>>,
    post: &Arc<Post<T>>,
) -> Result<(), TransportError> {
    // Dropped at the end: what came by it and has not begun is handed back.
    let intake = worker.acceptor.intake(lane);
    while let Some(delivery) = consumer.recv()? {
        worker.take(&intake, delivery, post);
    }
    Ok(())
}

fn closed_here() -> TransportError {
    TransportError::new(ErrorKind::Closed, "rpc", "serve")
        .with_detail("the transport was closed on this side")
}
