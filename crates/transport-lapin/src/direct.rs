//! Whether direct reply-to may be used with this broker: asked once, when it is first needed.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use amqp_broker::{AmqpConfig, DirectReplyTo, DirectReplyToRefused, direct_reply_to_is_safe};
use futures_channel::oneshot;
use rpc_core::{ErrorKind, TransportError};
use tokio::sync::Mutex;
use tokio::time::timeout_at;

use crate::error;
use crate::probe;
use crate::shared::Shared;

/// For how long a broker that has not told its version is not asked again. Strangers choose the
/// addresses to reply to, so each of these must not cost a connection.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What is known of the broker.
#[derive(Debug)]
pub(crate) struct Safety {
    verdict: OnceLock<Result<(), Refusal>>,
    /// Locked while the broker is asked. Holds when it has not told, and why.
    asking: Mutex<Option<(Instant, Arc<io::Error>)>>,
}

#[derive(Clone, Debug)]
enum Refusal {
    OverTls,
    Untold(Arc<io::Error>),
    Unsafe(DirectReplyToRefused),
}

impl Safety {
    /// What the configuration alone tells.
    pub(crate) fn new(config: &AmqpConfig) -> Self {
        let verdict = OnceLock::new();
        if config.direct_reply_to == DirectReplyTo::Forced {
            let _ = verdict.set(Ok(()));
        } else if config.url.uses_tls() {
            let _ = verdict.set(Err(Refusal::OverTls));
        }
        Self {
            verdict,
            asking: Mutex::default(),
        }
    }

    async fn ask(&self, shared: &Shared) -> Result<(), Refusal> {
        let mut untold = self.asking.lock().await;
        if let Some(verdict) = self.verdict.get() {
            return verdict.clone();
        }
        if let Some((since, error)) = &*untold
            && since.elapsed() < ASK_AGAIN
        {
            return Err(Refusal::Untold(Arc::clone(error)));
        }
        let limit = shared.config.timeouts.verb / 2;
        match probe::ask(shared.publishing.peer, limit).await {
            Ok(server) => {
                let verdict = direct_reply_to_is_safe(&server.product, &server.version)
                    .map_err(Refusal::Unsafe);
                self.verdict.get_or_init(|| verdict).clone()
            }
            Err(error) => {
                let error = Arc::new(error);
                *untold = Some((Instant::now(), Arc::clone(&error)));
                Err(Refusal::Untold(error))
            }
        }
    }
}

/// Refuses `operation` unless direct reply-to is safe with this broker.
pub(crate) async fn check(
    shared: &Arc<Shared>,
    operation: &'static str,
    deadline: Instant,
) -> Result<(), TransportError> {
    if let Some(verdict) = shared.safety.verdict.get() {
        return verdict
            .clone()
            .map_err(|refusal| unsupported(operation, refusal));
    }
    let (sender, receiver) = oneshot::channel();
    let asker = Arc::clone(shared);
    shared.runtime.spawn(async move {
        // A task of its own, so that the answer still comes for whoever asks next when the time
        // of this caller is up.
        let asking = Arc::clone(&asker);
        let asking = tokio::spawn(async move { asking.safety.ask(&asking).await });
        let result = match timeout_at(deadline.into(), asking).await {
            Ok(Ok(verdict)) => verdict.map_err(|refusal| unsupported(operation, refusal)),
            Ok(Err(_)) => Err(asker.gone(operation)),
            Err(_) => Err(error::new(ErrorKind::Timeout, operation)
                .with_detail("the broker has not told its version in time")),
        };
        let _ = sender.send(result);
    });
    match receiver.await {
        Ok(result) => result,
        Err(_) => Err(shared.gone(operation)),
    }
}

fn unsupported(operation: &'static str, refusal: Refusal) -> TransportError {
    let error = error::new(ErrorKind::Unsupported, operation);
    match refusal {
        Refusal::OverTls => {
            error.with_detail("direct reply-to: the broker's version cannot be asked for over TLS")
        }
        Refusal::Untold(cause) => error
            .with_detail("direct reply-to: the broker does not tell its version")
            .with_source(cause),
        Refusal::Unsafe(refused) => error.with_detail("direct reply-to").with_source(refused),
    }
}
