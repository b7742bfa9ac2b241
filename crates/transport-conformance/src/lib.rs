//! The suite that any transport must pass.
//!
//! Each obligation of [`rpc_core::Transport`] and [`rpc_core::blocking::Transport`] is a case here,
//! and so is each promise that [`rpc_core::Client`] and [`rpc_core::Server`] make on top of them.
//! A case is written once, and [`suite!`] makes a test of each, on either face:
//!
//! ```
//! use transport_conformance::{AsyncRow, BlockingRow, suite};
//! use transport_memory::MemoryBroker;
//!
//! fn on_tasks() -> AsyncRow {
//!     let broker = MemoryBroker::new();
//!     AsyncRow::new(move || std::future::ready(Ok(broker.connect())))
//! }
//!
//! fn on_threads() -> BlockingRow {
//!     let broker = MemoryBroker::new();
//!     BlockingRow::new(move || Ok(broker.connect()))
//! }
//!
//! suite!(memory_async, on_tasks());
//! suite!(memory_blocking, on_threads());
//! # // A doc test has no test harness, so that one case stands for all here.
//! # fn main() {
//! #     transport_conformance::run("publish::what_is_published_is_consumed", on_tasks());
//! #     transport_conformance::run("publish::what_is_published_is_consumed", on_threads());
//! # }
//! ```
//!
//! That is a whole test file. Its tests are called `memory_async::publish::…` and so on. A row is
//! made anew for each case; all transports of one row must reach the same broker.
//!
//! A suite that needs a broker gives the reason why a plain `cargo test` passes it over:
//!
//! ```
//! # use transport_conformance::{BlockingRow, suite};
//! # fn on_rabbitmq() -> BlockingRow { unreachable!() }
//! suite!(rabbitmq, on_rabbitmq(), ignore = "needs RabbitMQ");
//! # fn main() {}
//! ```
//!
//! # What it asks of the broker
//!
//! Queues are named `conformance-…` and are durable, and some are left behind: the contract has no
//! verb to delete them. Use a broker that may be thrown away.
//!
//! # Time
//!
//! A case that takes longer than [`CASE_LIMIT`] fails by name instead of holding up the run. What
//! must happen is awaited under a deadline; that something does not happen is shown by something
//! else that happens after it.
//!
//! # Versions
//!
//! A new case is a minor release, even though a transport that passed before may fail it: it was in
//! breach before, and nobody had looked. A case that asks for more than the contract is a bug here.

mod async_row;
mod backend;
mod blocking_row;
mod cases;
mod linked;
mod run;
mod steps;

pub use self::async_row::AsyncRow;
pub use self::backend::{
    Backend, Caller, Connection, Linked, Ongoing, Received, Receiver, Serving,
};
pub use self::blocking_row::BlockingRow;
pub use self::run::{CASE_LIMIT, cases, run};

/// Makes a module of tests, one for each case, on the row that the expression makes.
///
/// The expression sees the names of the module that the suite stands in; a path in it must not begin
/// with `self` or `super`.
///
/// ```
/// # use transport_conformance::{BlockingRow, suite};
/// # fn row() -> BlockingRow { unreachable!() }
/// suite!(mine, row());
/// suite!(with_a_broker, row(), ignore = "needs a broker");
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! suite {
    ($name:ident, $backend:expr $(,)?) => {
        $crate::__with_cases! { [$crate::__suite!] $name, $backend, [] }
    };
    ($name:ident, $backend:expr, ignore = $why:literal $(,)?) => {
        $crate::__with_cases! { [$crate::__suite!] $name, $backend, [$why] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    (
        { $($group:ident { $($case:ident,)+ })+ }
        $name:ident, $backend:expr, $ignore:tt
    ) => {
        mod $name {
            // Apart from the groups, whose names would otherwise hide those that the expression
            // means.
            mod __row {
                #[allow(unused_imports)]
                use super::super::*;

                #[allow(dead_code)]
                pub(super) fn __make() -> impl $crate::Backend + 'static {
                    $backend
                }
            }

            $(mod $group {
                $($crate::__case! { $ignore $group $case })+
            })+
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __case {
    ([] $group:ident $case:ident) => {
        #[test]
        fn $case() {
            $crate::run(
                concat!(stringify!($group), "::", stringify!($case)),
                super::__row::__make(),
            );
        }
    };
    ([$why:literal] $group:ident $case:ident) => {
        #[test]
        #[ignore = $why]
        fn $case() {
            $crate::run(
                concat!(stringify!($group), "::", stringify!($case)),
                super::__row::__make(),
            );
        }
    };
}

/// What the types alone must grant: transports are shared between threads and kept behind pointers,
/// and so is what they hand out, as far as it is to be moved.
const _: () = {
    const fn shared<T: Send + Sync + 'static + ?Sized>() {}
    const fn moved<T: Send + 'static + ?Sized>() {}
    shared::<dyn rpc_core::Transport>();
    shared::<dyn rpc_core::blocking::Transport>();
    moved::<dyn rpc_core::Consumer>();
    moved::<dyn rpc_core::blocking::Consumer>();
    moved::<rpc_core::Confirm>();
    moved::<rpc_core::Delivery>();
    shared::<rpc_core::AckToken>();
    shared::<rpc_core::Client<std::sync::Arc<dyn rpc_core::Transport>>>();
    shared::<rpc_core::blocking::Client<std::sync::Arc<dyn rpc_core::blocking::Transport>>>();
};
