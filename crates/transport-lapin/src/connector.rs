//! Where transports come from, for who outlives their connections.

use amqp_broker::Endpoints;
use async_trait::async_trait;
use rpc_core::{Connector, TransportError};

use crate::LapinTransport;

/// Makes transports to RabbitMQ through lapin, over one or several brokers.
///
/// ```
/// use transport_lapin::{AmqpUrl, LapinConnector};
///
/// let url: AmqpUrl = "amqp://localhost".parse()?;
/// let connector = LapinConnector::new(url);
/// # Ok::<(), transport_lapin::UrlError>(())
/// ```
#[derive(Clone, Debug)]
pub struct LapinConnector(Endpoints);

impl LapinConnector {
    /// To these brokers: [`Endpoints`], a configuration, or a URL.
    #[must_use]
    pub fn new(endpoints: impl Into<Endpoints>) -> Self {
        Self(endpoints.into())
    }
}

#[async_trait]
impl Connector for LapinConnector {
    type Transport = LapinTransport;

    fn endpoints(&self) -> usize {
        self.0.count()
    }

    async fn connect(&self, endpoint: usize) -> Result<LapinTransport, TransportError> {
        LapinTransport::connect(self.0.config(endpoint)?).await
    }
}
