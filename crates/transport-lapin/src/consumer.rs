//! The receiving end of a queue.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use async_trait::async_trait;
use futures_util::StreamExt;
use rpc_core::{AckToken, Consumer, ConsumerId, Delivery, ErrorKind, ShortString, TransportError};

use crate::convert;
use crate::error;
use crate::line::{Line, Settling};
use crate::shared::{Shared, State};

/// A consumer that reads lapin's stream in its caller's task.
pub(crate) struct LapinConsumer {
    shared: Arc<Shared>,
    line: Arc<Line>,
    stream: lapin::Consumer,
}

impl LapinConsumer {
    pub(crate) fn new(shared: Arc<Shared>, line: Arc<Line>, stream: lapin::Consumer) -> Self {
        Self {
            shared,
            line,
            stream,
        }
    }

    fn poll_recv(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Delivery>, TransportError>> {
        // First of all, so that an end after the checks below wakes us.
        self.line.waker.register(context.waker());
        if !self.line.is_open() {
            return Poll::Ready(Ok(None));
        }
        let state = self.shared.state();
        match (state, self.line.settling) {
            (State::Open, _) => {}
            // What arrived in an inbox is settled and never comes again, so it is handed out first.
            (State::Lost, Settling::BySending) => {}
            // What is still buffered comes again over the next connection.
            (State::Lost, Settling::OneByOne) => return Poll::Ready(self.end(None)),
            (State::Closed, _) => return Poll::Ready(Ok(None)),
        }
        self.line.begin();
        let next = self.stream.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(delivery))) = next {
            return Poll::Ready(Ok(Some(self.deliver(delivery))));
        }
        self.line.settled();
        // Nothing more is at hand.
        self.line.send_acks();
        self.shared.forget_if_done(&self.line);
        match next {
            Poll::Pending if state == State::Open => Poll::Pending,
            Poll::Ready(Some(Err(error))) => Poll::Ready(self.end(Some(&error))),
            Poll::Ready(_) | Poll::Pending => Poll::Ready(self.end(None)),
        }
    }

    fn deliver(&self, delivery: lapin::message::Delivery) -> Delivery {
        let token = match self.line.settling {
            Settling::OneByOne => Some(AckToken::new(self.line.id, delivery.delivery_tag)),
            Settling::BySending => {
                self.line.settled();
                None
            }
        };
        // The moment it leaves lapin's buffer is the earliest that lapin lets us see.
        convert::delivery(delivery, Instant::now(), token)
    }

    /// The stream has ended: by us, which is no error, or by somebody else.
    fn end(&self, error: Option<&lapin::Error>) -> Result<Option<Delivery>, TransportError> {
        if !self.line.end() || self.shared.state() == State::Closed {
            return Ok(None);
        }
        self.shared.retire(&self.line);
        if let Some(error) = error
            && !self.shared.consuming.is_up()
        {
            self.shared
                .lose(error::of_connection(error, &self.shared.config.url));
        }
        let cause = match (self.shared.cause(), error) {
            (Some(cause), _) => cause.clone(),
            (None, Some(error)) => error::of_channel("recv", error, &self.shared.config.url),
            (None, None) => error::new(ErrorKind::NotFound, "recv")
                .with_detail("the broker ended the consumer: its queue was deleted or has moved"),
        };
        self.shared.forget_if_done(&self.line);
        Err(cause)
    }
}

#[async_trait]
impl Consumer for LapinConsumer {
    fn id(&self) -> ConsumerId {
        self.line.id
    }

    fn queue(&self) -> &ShortString {
        &self.line.queue
    }

    async fn recv(&mut self) -> Result<Option<Delivery>, TransportError> {
        poll_fn(|context| self.poll_recv(context)).await
    }
}

impl Drop for LapinConsumer {
    fn drop(&mut self) {
        if self.line.end() {
            self.shared.retire(&self.line);
            let (shared, line) = (Arc::clone(&self.shared), Arc::clone(&self.line));
            self.shared
                .runtime
                .spawn(async move { shared.cancel(&line).await });
        }
    }
}

impl fmt::Debug for LapinConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LapinConsumer")
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}
