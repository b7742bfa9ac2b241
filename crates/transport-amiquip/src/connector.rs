//! Where transports come from, for who outlives their connections.

use amqp_broker::Endpoints;
use rpc_core::TransportError;
use rpc_core::blocking::Connector;

use crate::AmiquipTransport;

/// Makes transports to RabbitMQ through amiquip, over one or several brokers.
///
/// ```
/// use transport_amiquip::{AmiquipConnector, AmqpUrl};
///
/// let url: AmqpUrl = "amqp://localhost".parse()?;
/// let connector = AmiquipConnector::new(url);
/// # Ok::<(), transport_amiquip::UrlError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AmiquipConnector(Endpoints);

impl AmiquipConnector {
    /// To these brokers: [`Endpoints`], a configuration, or a URL.
    #[must_use]
    pub fn new(endpoints: impl Into<Endpoints>) -> Self {
        Self(endpoints.into())
    }
}

impl Connector for AmiquipConnector {
    type Transport = AmiquipTransport;

    fn endpoints(&self) -> usize {
        self.0.count()
    }

    fn connect(&self, endpoint: usize) -> Result<AmiquipTransport, TransportError> {
        AmiquipTransport::connect(self.0.config(endpoint)?)
    }
}
