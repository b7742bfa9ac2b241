//! Load of the blocking face: each of the calls that are open at once is a thread.

use std::sync::Arc;
use std::thread;
use std::time::Instant;

use rpc_core::blocking::Client;

use super::Shared;
use crate::session::{CallerOptions, call_blocking};

pub(super) fn start(client: &Client, options: &CallerOptions, shared: &Arc<Shared>) {
    for _ in 0..shared.load.in_flight {
        let (client, options, shared) = (client.clone(), options.clone(), Arc::clone(shared));
        // Not scoped: one that hangs is left behind, and the book tells.
        thread::spawn(move || {
            while let Some(due) = shared.take() {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let ask = shared.open();
                let result = call_blocking(&client, &options, shared.load.timeout, &ask);
                shared.book.close(&ask, &result);
            }
        });
    }
}
