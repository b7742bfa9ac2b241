//! What every transport to RabbitMQ knows about the broker, whichever client library it uses.
//!
//! Where the broker is and who we are ([`AmqpUrl`], [`AmqpConfig`], [`Endpoints`]), how to get a socket to it and how to cut that
//! socket when a library waits for ever ([`dial`], [`KillSwitch`]), what its reply codes mean
//! ([`kind_of_reply_code`]), how our queues are declared ([`QueueDeclaration`]), which of its
//! versions must not be asked for direct reply-to ([`direct_reply_to_is_safe`]), which
//! acknowledgements travel as one ([`Settled`]), and how to take secrets out of a library's error text
//! ([`scrub`]).
//!
//! No client library is used here, and nothing of AMQP is spoken.

mod acks;
mod choices;
mod config;
mod dial;
mod direct_reply_to;
mod endpoints;
mod kill_switch;
mod queue;
mod reply_code;
mod scrub;
mod timeouts;
mod url;

pub use self::acks::{Reach, Settled};
pub use self::choices::{Confirms, DirectReplyTo};
pub use self::config::AmqpConfig;
pub use self::dial::{ENDED_EARLY, NOT_AMQP, dial, is_hang_up};
pub use self::direct_reply_to::{
    DIRECT_REPLY_TO, DirectReplyToRefused, direct_reply_to_is_safe, is_direct_reply_address,
};
pub use self::endpoints::Endpoints;
pub use self::kill_switch::{Guard, KillSwitch};
pub use self::queue::{Argument, QueueDeclaration, Undeclarable, conflicting_argument};
pub use self::reply_code::{kind_of_end, kind_of_login_code, kind_of_reply_code};
pub use self::scrub::scrub;
pub use self::timeouts::Timeouts;
pub use self::url::{AmqpUrl, UrlError};
