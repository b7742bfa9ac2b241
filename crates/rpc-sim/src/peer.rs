//! A transport as a process holds it: what rpc-core's drivers see of `publish`, `consume`, `ack` and
//! `close`, without threads.

use std::collections::BTreeMap;

use rpc_proto::{AckToken, Address, ConsumerId, ErrorKind, Message, ShortString, TransportError};

use crate::conn::{ConnId, Deliver, Down, Lane, Opened, Up};
use crate::wire::Wire;

/// One connection's worth of life. `K` is whatever a publish was for.
#[derive(Debug)]
pub(crate) struct Peer<K> {
    pub(crate) conn: ConnId,
    pub(crate) inbox: ShortString,
    /// The consumer on the inbox, and then those that were asked for.
    pub(crate) consumers: Vec<(u64, ConsumerId)>,
    pub(crate) blocked: bool,
    pub(crate) open: bool,
    next_tag: u64,
    /// Publishes whose verdict is not there yet, and whether they were returned.
    confirms: BTreeMap<u64, (K, bool)>,
}

/// What a transport tells its owner.
#[derive(Debug)]
pub(crate) enum News<K> {
    Confirmed(K, Result<(), TransportError>),
    /// With the place of the consumer among `consumers`.
    Delivery(usize, Deliver),
    /// The broker has ended a consumer, with its place among `consumers`.
    Cancelled(usize),
    /// A consumer is gone, as was asked.
    CancelOk,
    Unblocked,
    /// The transport has ended, and every open publish with it.
    Ended(TransportError, Vec<K>),
    Nothing,
}

impl<K> Peer<K> {
    pub(crate) fn new(conn: ConnId, opened: Opened) -> Self {
        let numbers = std::iter::once(opened.inbox_consumer).chain(opened.consumers);
        Self {
            conn,
            inbox: opened.inbox,
            consumers: numbers
                .map(|number| (number, ConsumerId::unique()))
                .collect(),
            blocked: false,
            open: true,
            next_tag: 1,
            confirms: BTreeMap::new(),
        }
    }

    /// Hands a message over. The verdict comes as [`News::Confirmed`].
    pub(crate) fn publish(
        &mut self,
        wire: &mut Wire,
        to: &Address,
        message: Message,
        key: K,
    ) -> Result<u64, TransportError> {
        if !self.open {
            return Err(closed("publish").unsent());
        }
        let tag = self.next_tag;
        self.next_tag += 1;
        self.confirms.insert(tag, (key, false));
        wire.publish(self.conn, tag, to.routing_key().clone(), message);
        Ok(tag)
    }

    /// Hands a message over of which nobody wants to know what becomes.
    pub(crate) fn publish_unasked(&mut self, wire: &mut Wire, to: &Address, message: Message) {
        if self.open {
            let tag = self.next_tag;
            self.next_tag += 1;
            wire.publish(self.conn, tag, to.routing_key().clone(), message);
        }
    }

    /// Stops waiting for a verdict.
    pub(crate) fn forget(&mut self, tag: u64) -> Option<K> {
        self.confirms.remove(&tag).map(|(key, _)| key)
    }

    pub(crate) fn ack(&self, wire: &mut Wire, token: &AckToken) -> Result<(), TransportError> {
        let consumer = self.settle(token, "ack")?;
        let tag = token.tag();
        wire.send_up(self.conn, Lane::Consume, Up::Ack { consumer, tag });
        Ok(())
    }

    pub(crate) fn reject(
        &self,
        wire: &mut Wire,
        token: &AckToken,
        requeue: bool,
    ) -> Result<(), TransportError> {
        let consumer = self.settle(token, "reject")?;
        let frame = Up::Reject {
            consumer,
            tag: token.tag(),
            requeue,
        };
        wire.send_up(self.conn, Lane::Consume, frame);
        Ok(())
    }

    pub(crate) fn cancel(&self, wire: &mut Wire, place: usize) {
        if let Some(&(consumer, _)) = self.consumers.get(place)
            && self.open
        {
            wire.send_up(self.conn, Lane::Consume, Up::Cancel { consumer });
        }
    }

    /// Ends it from this side.
    pub(crate) fn close(&mut self, wire: &mut Wire) {
        if std::mem::replace(&mut self.open, false) {
            wire.close(self.conn);
        }
    }

    /// Something came from the broker.
    pub(crate) fn handle(&mut self, wire: &mut Wire, frame: Down) -> News<K> {
        match frame {
            Down::Confirm { tag, ok } => match self.confirms.remove(&tag) {
                None => News::Nothing,
                Some((key, true)) => News::Confirmed(key, Err(error(ErrorKind::NoRoute))),
                Some((key, false)) if ok => News::Confirmed(key, Ok(())),
                Some((key, false)) => News::Confirmed(key, Err(error(ErrorKind::Refused))),
            },
            Down::Return { tag } => {
                if let Some((_, returned)) = self.confirms.get_mut(&tag) {
                    *returned = true;
                }
                News::Nothing
            }
            Down::Deliver(deliver) => self
                .place(deliver.consumer)
                .map_or(News::Nothing, |place| News::Delivery(place, deliver)),
            Down::Cancelled { consumer } => {
                self.place(consumer).map_or(News::Nothing, News::Cancelled)
            }
            Down::CancelOk => News::CancelOk,
            Down::Blocked(blocked) => {
                self.blocked = blocked;
                if blocked {
                    News::Nothing
                } else {
                    News::Unblocked
                }
            }
            Down::End => {
                self.close(wire);
                let open = std::mem::take(&mut self.confirms);
                let keys = open.into_values().map(|(key, _)| key).collect();
                News::Ended(closed("receive"), keys)
            }
            Down::Opened(_) | Down::Refused => News::Nothing,
        }
    }

    /// The number of a token's consumer, if it is one of this transport.
    fn settle(&self, token: &AckToken, verb: &'static str) -> Result<u64, TransportError> {
        let consumer = self
            .consumers
            .iter()
            .find(|(_, id)| *id == token.consumer());
        match consumer {
            None => Err(TransportError::new(ErrorKind::Misuse, "sim", verb)),
            Some(_) if !self.open => Err(closed(verb)),
            Some(&(consumer, _)) => Ok(consumer),
        }
    }

    fn place(&self, consumer: u64) -> Option<usize> {
        self.consumers
            .iter()
            .position(|&(number, _)| number == consumer)
    }
}

pub(crate) fn closed(verb: &'static str) -> TransportError {
    TransportError::new(ErrorKind::Closed, "sim", verb)
}

pub(crate) fn error(kind: ErrorKind) -> TransportError {
    TransportError::new(kind, "sim", "publish")
}
