//! The machines alone: what a call costs where everything is decided and no I/O is done.
//!
//! `client`: the life of one call in a table where others are pending. `server`: that of one
//! delivery. `both`: a request that goes from one to the other and comes back as a reply.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use rpc_core::Message;
use rpc_core::proto::server::Verdict;
use rpc_pure::machines::{ANSWER, Caller, Responder, round_trip};

/// How many other calls wait for their answer.
const PENDING: [usize; 3] = [0, 1_000, 10_000];

pub(crate) fn define(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("machines");
    group.throughput(Throughput::Elements(1));
    for pending in PENDING {
        let mut caller = Caller::with_pending(pending);
        group.bench_function(BenchmarkId::new("client", pending), |bencher| {
            bencher.iter(|| {
                let (id, request) = caller.call();
                let reply = Message {
                    correlation_id: request.correlation_id,
                    ..Message::new(ANSWER)
                };
                assert_eq!(&caller.take(id, black_box(reply)).body[..], ANSWER);
            });
        });
    }
    // The server keeps no table, so nothing can be pending in it.
    let mut responder = Responder::default();
    let mut caller = Caller::with_pending(0);
    let (_, request) = caller.call();
    group.bench_function(BenchmarkId::new("server", 0), |bencher| {
        bencher.iter(|| {
            let (reply, verdict) = responder.answer(caller.now, black_box(request.clone()));
            assert_eq!(&reply.body[..], ANSWER);
            assert!(matches!(verdict, Verdict::Ack(_)));
        });
    });
    for pending in PENDING {
        let mut caller = Caller::with_pending(pending);
        group.bench_function(BenchmarkId::new("both", pending), |bencher| {
            bencher.iter(|| round_trip(&mut caller, &mut responder));
        });
    }
    group.finish();
}
