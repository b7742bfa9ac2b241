//! The brokers that a connector turns to, one after the other.

use std::fmt;
use std::sync::Arc;

use rpc_core::{ErrorKind, TransportError};

use crate::{AmqpConfig, AmqpUrl};

/// The brokers that a connector turns to, in this order: the nodes of a cluster, as a rule.
///
/// ```
/// use amqp_broker::{AmqpConfig, AmqpUrl, Endpoints};
///
/// let url = |text: &str| text.parse::<AmqpUrl>();
/// let endpoints = Endpoints::new(AmqpConfig::new(url("amqp://one")?))
///     .or(AmqpConfig::new(url("amqp://two")?));
/// assert_eq!(endpoints.count(), 2);
/// # Ok::<(), amqp_broker::UrlError>(())
/// ```
#[derive(Clone)]
pub struct Endpoints(Vec<Endpoint>);

#[derive(Clone)]
enum Endpoint {
    Known(Box<AmqpConfig>),
    Asked(Arc<Ask>),
}

type Ask = dyn Fn() -> Result<AmqpConfig, TransportError> + Send + Sync;

impl Endpoints {
    /// This one, to begin with.
    #[must_use]
    pub fn new(config: AmqpConfig) -> Self {
        Self(Vec::new()).or(config)
    }

    /// One that is asked for at each attempt to connect, so that a password which changes is read
    /// anew. `ask` is not to take long: an attempt on the async face waits for it in place.
    #[must_use]
    pub fn asked(
        ask: impl Fn() -> Result<AmqpConfig, TransportError> + Send + Sync + 'static,
    ) -> Self {
        Self(Vec::new()).or_asked(ask)
    }

    /// And another one.
    #[must_use]
    pub fn or(mut self, config: AmqpConfig) -> Self {
        self.0.push(Endpoint::Known(Box::new(config)));
        self
    }

    /// And another one, as [`asked`](Self::asked) for.
    #[must_use]
    pub fn or_asked(
        mut self,
        ask: impl Fn() -> Result<AmqpConfig, TransportError> + Send + Sync + 'static,
    ) -> Self {
        self.0.push(Endpoint::Asked(Arc::new(ask)));
        self
    }

    /// How many there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What to connect with to the one of this number, counted from 0.
    ///
    /// # Errors
    ///
    /// That of who was asked; [`ErrorKind::Misuse`] where there is none of this number.
    pub fn config(&self, number: usize) -> Result<AmqpConfig, TransportError> {
        match self.0.get(number) {
            Some(Endpoint::Known(config)) => Ok((**config).clone()),
            Some(Endpoint::Asked(ask)) => ask(),
            None => Err(TransportError::new(ErrorKind::Misuse, "amqp", "connect")
                .with_detail(format!("there is no endpoint {number}"))),
        }
    }
}

impl From<AmqpConfig> for Endpoints {
    fn from(config: AmqpConfig) -> Self {
        Self::new(config)
    }
}

impl From<AmqpUrl> for Endpoints {
    fn from(url: AmqpUrl) -> Self {
        Self::new(AmqpConfig::new(url))
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        for endpoint in &self.0 {
            match endpoint {
                Endpoint::Known(config) => list.entry(&config.url),
                // Not asked for this.
                Endpoint::Asked(_) => list.entry(&"…"),
            };
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn config(url: &str) -> AmqpConfig {
        AmqpConfig::new(url.parse().unwrap())
    }

    #[test]
    fn each_is_found_by_its_number_and_asked_for_each_time() {
        let asked = AtomicUsize::new(0);
        let endpoints = Endpoints::new(config("amqp://first")).or_asked(move || {
            let times = asked.fetch_add(1, Ordering::Relaxed);
            Ok(config(&format!("amqp://user:{times}@second")))
        });
        assert_eq!(endpoints.count(), 2);
        assert_eq!(endpoints.config(0).unwrap().url.host(), "first");
        for password in ["0", "1"] {
            let url = endpoints.config(1).unwrap().url;
            assert_eq!(url.expose_password(), password);
        }
        let error = endpoints.config(2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }

    #[test]
    fn no_password_shows() {
        let endpoints = Endpoints::new(config("amqp://user:s3cret@first"));
        assert!(!format!("{endpoints:?}").contains("s3cret"));
    }
}
