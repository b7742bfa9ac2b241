//! Load of the async face: each of the calls that are open at once is a task.

use std::sync::Arc;

use rpc_core::Client;
use tokio::runtime::Handle;
use tokio::time::sleep_until;

use super::Shared;
use crate::session::{CallerOptions, call_async};

pub(super) fn start(
    runtime: &Handle,
    client: &Client,
    options: &CallerOptions,
    shared: &Arc<Shared>,
) {
    for _ in 0..shared.load.in_flight {
        let (client, options, shared) = (client.clone(), options.clone(), Arc::clone(shared));
        runtime.spawn(async move {
            while let Some(due) = shared.take() {
                sleep_until(due.into()).await;
                let ask = shared.open();
                let result = call_async(&client, &options, shared.load.timeout, &ask).await;
                shared.book.close(&ask, &result);
            }
        });
    }
}
