//! The blocking server on each of its transports: queues, consumers, and what comes by them.

use std::num::NonZeroU16;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use futures_channel::oneshot;
use rpc_proto::link::Generation;
use rpc_proto::server::{Lane, Trial};
use rpc_proto::{ConsumerId, TransportError, deadline_after};

use super::supervise::Tenant;
use super::worker::Worker;
use super::{Consumer, Transport, cancel};
use crate::server::{CANCEL_LIMIT, Post, closed_here, or_without};
use crate::{ConsumeOptions, Inbox, QueueSpec, Service};

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
        if let Some(control) = control
            && let Err(error) = self.listen(control)
        {
            return Some(error);
        }
        let quarantined = match self.receive_suspects(quarantine, &post, work.id()) {
            Ok(quarantined) => quarantined,
            Err(error) => return Some(error),
        };
        let ended = receive(work, Lane::Work, &self.worker, &post);
        if let Some(until) = progress.stopping() {
            // Both consumers are being cancelled. A suspect that is handed back while its own is not would
            // come here again, and be counted each time.
            let now = Instant::now();
            let soon = until.min(deadline_after(now, CANCEL_LIMIT));
            let _ = quarantined.recv_timeout(soon.saturating_duration_since(now));
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
        let first = given_up.try_recv().ok().flatten();
        let first = first.or_else(|| quarantined.try_recv().ok());
        match first.map_or(ended, Err) {
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

impl<T: Transport, S: Service> House<T, S> {
    /// Starts a thread for cancellations. It ends with its consumer.
    fn listen(&self, mut control: Box<dyn Consumer>) -> Result<(), TransportError> {
        self.worker.spawn("rpc-control", move |worker| {
            // An error ends the other consumers too, and they tell.
            while let Ok(Some(delivery)) = control.recv() {
                worker.acceptor.handle_cancel(&delivery.message);
            }
        })
    }

    /// Starts a thread for the quarantine queue, if there is one. What is returned tells why its consumer
    /// has failed, if it was the first to, and is disconnected when it has ended.
    fn receive_suspects(
        &self,
        quarantine: Option<Box<dyn Consumer>>,
        post: &Arc<Post<T>>,
        work: ConsumerId,
    ) -> Result<mpsc::Receiver<TransportError>, TransportError> {
        let (ends, ended) = mpsc::channel();
        if let Some(quarantine) = quarantine {
            let post = Arc::clone(post);
            self.worker.spawn("rpc-quarantine", move |worker| {
                if let Err(cause) = receive(quarantine, Lane::Quarantine, worker, &post) {
                    let _ = ends.send(cause);
                    // The other one need not have noticed: a queue that is deleted ends one consumer.
                    drop(cancel(&post.transport, work));
                }
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
        or_without(queue, opened)
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
