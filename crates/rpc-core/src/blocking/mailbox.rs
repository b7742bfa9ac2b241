//! A consumer that can be waited on for a while only, although its `recv` knows no limit.
//!
//! For that it is lent to a thread of its own, which brings it back with the next delivery. What has
//! not come back when the time is up is not lost: whoever receives next waits for it.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use rpc_proto::client::Check;
use rpc_proto::{ConsumerId, Delivery, ErrorKind, ShortString, TransportError};

use super::Consumer;
use super::tenant::spawn;
use crate::client::ended;

type Received = Result<Option<Delivery>, TransportError>;
type Back = (Box<dyn Consumer>, Received);

/// See the module.
pub(crate) struct Mailbox {
    id: ConsumerId,
    queue: ShortString,
    held: Held,
}

enum Held {
    Here(Box<dyn Consumer>),
    Lent(mpsc::Receiver<Back>),
    /// The thread that had it has panicked, or could not be started.
    Gone,
}

impl Mailbox {
    pub(super) fn new(consumer: Box<dyn Consumer>) -> Self {
        Self {
            id: consumer.id(),
            queue: consumer.queue().clone(),
            held: Held::Here(consumer),
        }
    }

    pub(super) const fn id(&self) -> ConsumerId {
        self.id
    }

    pub(super) const fn queue(&self) -> &ShortString {
        &self.queue
    }

    /// Waits for the next delivery, however long that takes.
    pub(super) fn recv(&mut self) -> Received {
        match std::mem::replace(&mut self.held, Held::Gone) {
            Held::Here(mut consumer) => {
                let received = consumer.recv();
                self.held = Held::Here(consumer);
                received
            }
            Held::Lent(lent) => {
                let (consumer, received) = lent.recv().map_err(|_| ended())?;
                self.held = Held::Here(consumer);
                received
            }
            Held::Gone => Err(ended()),
        }
    }

    /// Waits for the next delivery until `deadline`, and fails as a check does that is overdue. Then
    /// nothing is lost: what comes later is received next.
    pub(super) fn recv_until(&mut self, deadline: Instant) -> Received {
        let lent = match std::mem::replace(&mut self.held, Held::Gone) {
            Held::Here(consumer) => lend(consumer)?,
            Held::Lent(lent) => lent,
            Held::Gone => return Err(ended()),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match lent.recv_timeout(left) {
            Ok((consumer, received)) => {
                self.held = Held::Here(consumer);
                received
            }
            Err(RecvTimeoutError::Timeout) => {
                self.held = Held::Lent(lent);
                Err(Check::overdue())
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(TransportError::new(ErrorKind::Other, "rpc", "check")
                    .with_detail("the consumer panicked"))
            }
        }
    }
}

/// Receives once on a thread of its own. That thread ends with the consumer, at the latest.
fn lend(mut consumer: Box<dyn Consumer>) -> Result<mpsc::Receiver<Back>, TransportError> {
    let (give_back, lent) = mpsc::sync_channel(1);
    spawn("rpc-check", move || {
        let received = consumer.recv();
        let _ = give_back.send((consumer, received));
    })?;
    Ok(lent)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Message;

    /// Delivers what it is fed.
    #[derive(Debug)]
    struct Fed(mpsc::Receiver<&'static str>);

    impl Consumer for Fed {
        fn id(&self) -> ConsumerId {
            ConsumerId::unique()
        }

        fn queue(&self) -> &ShortString {
            static QUEUE: ShortString = ShortString::from_static("inbox");
            &QUEUE
        }

        fn recv(&mut self) -> Received {
            let Ok(body) = self.0.recv() else {
                return Ok(None);
            };
            assert!(body != "panic", "as told");
            Ok(Some(Delivery {
                message: Message::new(body),
                received_at: Instant::now(),
                redelivered: false,
                token: None,
            }))
        }
    }

    fn mailbox() -> (mpsc::Sender<&'static str>, Mailbox) {
        let (feed, fed) = mpsc::channel();
        (feed, Mailbox::new(Box::new(Fed(fed))))
    }

    fn body(received: Received) -> Option<String> {
        let delivery = received.unwrap()?;
        Some(String::from_utf8(delivery.message.body.to_vec()).unwrap())
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn what_comes_after_the_time_is_up_is_received_next() {
        let (feed, mut mailbox) = mailbox();
        for _ in 0..2 {
            let overdue = mailbox.recv_until(Instant::now()).unwrap_err();
            assert_eq!(overdue.kind(), ErrorKind::Timeout);
        }
        for word in ["a", "b", "c"] {
            feed.send(word).unwrap();
        }
        assert_eq!(body(mailbox.recv()).as_deref(), Some("a"));
        assert_eq!(body(mailbox.recv_until(soon())).as_deref(), Some("b"));
        assert_eq!(body(mailbox.recv()).as_deref(), Some("c"));
        drop(feed);
        assert!(body(mailbox.recv_until(soon())).is_none());
        assert!(body(mailbox.recv()).is_none());
    }

    #[test]
    fn a_consumer_that_panics_is_an_end_with_a_cause() {
        let (feed, mut mailbox) = mailbox();
        feed.send("panic").unwrap();
        let error = mailbox.recv_until(soon()).unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        assert_eq!(mailbox.recv().unwrap_err().kind(), ErrorKind::Closed);
    }
}
