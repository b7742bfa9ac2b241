//! A TCP proxy that breaks connections on demand, for tests.
//!
//! It stands between a client and a server and carries bytes faithfully until it is told otherwise.
//! Each fault is a verb, takes effect at once, and does the same each time: a test says *cut after
//! byte 317 of what the client sends* and gets just that.
//!
//! ```no_run
//! use fault_proxy::{Direction, End, Proxy};
//!
//! # fn main() -> std::io::Result<()> {
//! let proxy = Proxy::to("127.0.0.1:5672")?;
//! println!("connect to {}", proxy.address());
//! proxy.end_after(Direction::Up, 317, End::Reset);
//! # Ok(())
//! # }
//! ```
//!
//! A [`Stranger`] is no server of the kind that the client expects.
//!
//! Threads and blocking sockets only: what tests async code must not share its runtime. Nothing is
//! known here of what is carried.

mod carry;
mod faults;
mod pair;
mod proxy;
mod stranger;

pub use self::faults::{Direction, End};
pub use self::proxy::Proxy;
pub use self::stranger::Stranger;
