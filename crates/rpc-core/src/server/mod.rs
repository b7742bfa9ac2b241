//! The async server. Its blocking twin is [`blocking::Server`](crate::blocking::Server); what is
//! the same on both faces lives in the modules below, once.

mod at_work;
#[cfg(feature = "tokio")]
mod driver;
mod options;
mod panic;

pub(crate) use self::at_work::AtWork;
#[cfg(feature = "tokio")]
pub use self::driver::Server;
pub use self::options::{DrainReport, ServerOptions};
pub(crate) use self::panic::{CatchUnwind, Panicked, catch_unwind};
