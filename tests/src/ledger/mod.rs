//! The ledger: every call is accounted for, and so is every execution.
//!
//! The calling side keeps a [`Book`], with one record for each call: made before it is sent, closed at
//! its end. Each worker keeps a [`WorkLog`], a file with one line at the start and one at the end of
//! every execution, written through so that a killed process loses none. Afterwards they are held
//! against each other, and each rule that does not hold is named.

mod book;
mod check;
mod clock;
mod work;

pub use self::book::{Book, Outcome, Record};
pub use self::check::{Duplicates, Rules, Tally};
pub(crate) use self::clock::micros;
pub use self::clock::{Micros, now};
pub use self::work::{Execution, WorkLog, read_work};
