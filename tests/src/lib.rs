//! The fault rig: scenarios that break brokers, workers and networks under load, and a ledger that
//! accounts for every call and every execution.
//!
//! ```text
//!  scenario ─ starts ─▶ ground (broker, proxy), workers (processes), session (clients)
//!     │                                   │                   │
//!     ├─ breaks them, by a plan from a seed                   │
//!     │                                   ▼                   ▼
//!     │                        work log: each execution   book: each call
//!     │                                   └───── ledger ──────┘
//!     └─ report ◀── the rules that are broken ──────┘
//! ```
//!
//! `cargo xtask torture` runs them at full length; short forms are tests in `it`. The other tests of
//! this package, which need more than one crate, are there too.

pub mod ask;
pub mod chaos;
pub mod cli;
pub mod dice;
pub mod ground;
pub mod ledger;
pub mod load;
pub mod machine;
pub mod report;
pub mod scenario;
mod scenarios;
pub mod scratch;
pub mod session;
pub mod setting;
pub mod victim;
pub mod vitals;
pub mod worker;
