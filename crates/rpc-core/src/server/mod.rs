//! The async server. Its blocking twin is [`blocking::Server`](crate::blocking::Server); what is
//! the same on both faces lives in the modules below, once.

mod at_work;
#[cfg(feature = "tokio")]
mod driver;
#[cfg(feature = "tokio")]
mod house;
mod options;
mod panic;
mod posts;
#[cfg(feature = "tokio")]
mod settle;
mod settling;
mod told;
mod turn;
mod unconfirmed;
#[cfg(feature = "tokio")]
mod worker;

use std::time::Duration;

use rpc_proto::Message;

pub(crate) use self::at_work::AtWork;
#[cfg(feature = "tokio")]
pub use self::driver::Server;
pub use self::options::{DrainReport, ServerOptions};
pub(crate) use self::panic::{CatchUnwind, Panicked, catch_unwind};
pub(crate) use self::posts::{Post, Posts, closed_here, or_without};
pub(crate) use self::settling::{Act, Settler, Settles, Then};
pub(crate) use self::told::Origin;
#[cfg(feature = "blocking")]
pub(crate) use self::turn::await_turn;
pub(crate) use self::turn::life;
#[cfg(feature = "tokio")]
use self::turn::{is_turn, turn_comes};
pub(crate) use self::unconfirmed::{Unconfirmed, Waiting};
pub(crate) use crate::race::{First, race};

/// How long a reply may take to be confirmed.
///
/// A broker that blocks publishers takes it once it has recovered, and until then another worker could
/// not send one either: so nothing is gained by running the request again while its caller waits.
pub(crate) fn reply_limit(settle_timeout: Duration, blocked: bool, reply: &Message) -> Duration {
    let life = reply.expiration.filter(|_| blocked);
    life.map_or(settle_timeout, |life| {
        life.as_duration().max(settle_timeout)
    })
}

/// How long a server that drains waits for the broker to take its consumers away: what comes until
/// then is handed back.
pub(crate) const CANCEL_LIMIT: Duration = Duration::from_secs(5);

/// How long a notice may wait to be handed over: it is of use soon or not at all.
pub(crate) const NOTICE_LIMIT: Duration = Duration::from_millis(200);
