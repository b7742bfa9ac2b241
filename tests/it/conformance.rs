//! The suite, on all rows.

use transport_conformance::suite;

use crate::broker::url;
use crate::rows;

suite!(memory_async, rows::memory_on_tasks());
suite!(memory_blocking, rows::memory_on_threads());
suite!(memory_offload, rows::offloaded_memory());
suite!(memory_block_on, rows::blocked_on_memory());
suite!(memory_guarded, rows::guarded_memory());

suite!(
    lapin,
    rows::lapin(&url()),
    ignore = "needs RabbitMQ: run cargo xtask test"
);
suite!(
    lapin_block_on,
    rows::blocked_on_lapin(&url()),
    ignore = "needs RabbitMQ: run cargo xtask test"
);
suite!(
    amiquip,
    rows::amiquip(&url()),
    ignore = "needs RabbitMQ: run cargo xtask test"
);
suite!(
    amiquip_offload,
    rows::offloaded_amiquip(&url()),
    ignore = "needs RabbitMQ: run cargo xtask test"
);
