//! What the benchmarks share: rows, which make calls and say how long they took, whichever
//! transport and face are in between; and the setting, which is the same for all rows.

mod async_row;
mod blocking_row;
mod row;
pub mod setting;

pub use self::row::{Plan, bench};
