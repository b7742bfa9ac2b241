//! Load of the blocking face: each of the calls that are open at once is a thread.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rpc_core::CallOptions;
use rpc_core::blocking::Client;

use super::{HELD, Shared};
use crate::ask::METHOD;

pub(super) fn start(client: &Client, shared: &Arc<Shared>) {
    for _ in 0..shared.load.in_flight {
        let (client, shared) = (client.clone(), Arc::clone(shared));
        // Not scoped: one that hangs is left behind, and the book tells.
        thread::spawn(move || {
            while let Some((number, due)) = shared.take() {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                while shared.is_held(number) {
                    thread::sleep(HELD);
                }
                let ask = shared.open();
                let options = CallOptions::timeout(shared.load.timeout);
                let result = client.call_with(options, METHOD, &ask);
                shared.book.close(&ask, &result);
            }
        });
    }
}
