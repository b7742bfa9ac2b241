//! Load of the async face: each of the calls that are open at once is a task.

use std::sync::Arc;

use rpc_core::{CallOptions, Client};
use tokio::runtime::Handle;
use tokio::time::{sleep, sleep_until};

use super::{HELD, Shared};
use crate::ask::METHOD;

pub(super) fn start(runtime: &Handle, client: &Client, shared: &Arc<Shared>) {
    for _ in 0..shared.load.in_flight {
        let (client, shared) = (client.clone(), Arc::clone(shared));
        runtime.spawn(async move {
            while let Some((number, due)) = shared.take() {
                sleep_until(due.into()).await;
                while shared.is_held(number) {
                    sleep(HELD).await;
                }
                let ask = shared.open();
                let options = CallOptions::timeout(shared.load.timeout);
                let result = client.call_with(options, METHOD, &ask).await;
                shared.book.close(&ask, &result);
            }
        });
    }
}
