//! The blocking face: the same nouns as the async one, with threads and without a runtime.

mod client;
mod connector;
mod house;
mod line;
mod mailbox;
mod pending;
mod progress;
mod server;
mod settle;
mod supervise;
mod tenant;
mod transport;
mod watch;
mod worker;

use std::sync::{Arc, mpsc};
use std::thread;

use rpc_proto::ConsumerId;

pub use self::client::Client;
pub use self::connector::{ConnectWith, Connector, Erased};
pub use self::pending::PendingCall;
pub use self::server::Server;
pub use self::transport::{Consumer, Transport};

/// Cancels a consumer in the background, which wakes the thread that sits in its `recv`; what is
/// returned is disconnected when that is done.
///
/// Not on this thread: it may be one of a runtime, where an adapted transport must not block, and
/// it should not wait for a broker that does not answer. An error means that the transport has
/// ended, and has woken that thread itself.
fn cancel<T: Transport>(transport: &Arc<T>, consumer: ConsumerId) -> mpsc::Receiver<()> {
    let background = Arc::clone(transport);
    let (done, when_done) = mpsc::channel();
    let spawned = thread::Builder::new()
        .name("rpc-cancel".into())
        .spawn(move || {
            let _ = background.cancel(consumer);
            drop(done);
        });
    if spawned.is_err() {
        let _ = transport.cancel(consumer);
    }
    when_done
}
