//! Everything that can happen to a table, in any order.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// Everything that can happen to a table.
#[derive(Clone, Debug)]
enum Event {
    Start {
        timeout_ms: u64,
    },
    Cancel(u64),
    Confirm(u64),
    Refuse(u64, ErrorKind),
    Reply(u64),
    Wait {
        ms: u64,
    },
    Connect,
    Disconnect,
    /// What comes from a connection before this one.
    Stale(u64),
    Started(u64),
    Close,
    End,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let id = 0..40u64;
    let refusal = prop_oneof![
        Just(ErrorKind::NoRoute),
        Just(ErrorKind::Refused),
        Just(ErrorKind::Timeout),
        Just(ErrorKind::Closed),
    ];
    let event = prop_oneof![
        8 => (0..500u64).prop_map(|timeout_ms| Event::Start { timeout_ms }),
        2 => id.clone().prop_map(Event::Cancel),
        4 => id.clone().prop_map(Event::Confirm),
        2 => (id.clone(), refusal).prop_map(|(id, kind)| Event::Refuse(id, kind)),
        6 => id.prop_map(Event::Reply),
        4 => (0..300u64).prop_map(|ms| Event::Wait { ms }),
        2 => Just(Event::Connect),
        2 => Just(Event::Disconnect),
        2 => (0..40u64).prop_map(Event::Stale),
        2 => (0..40u64).prop_map(Event::Started),
        1 => prop_oneof![9 => Just(Event::Disconnect), 1 => Just(Event::Close), 1 => Just(Event::End)],
    ];
    prop::collection::vec(event, 0..200)
}

proptest! {
    /// Each call ends exactly once, and by its deadline; a result is its own; "not executed" is
    /// said only of what was refused; nothing is left behind.
    #[test]
    fn every_call_ends_once_in_time_and_honestly(events in events()) {
        let mut bench = Bench::with(Limits { max_in_flight: 20, ..Limits::default() });
        let mut deadlines = HashMap::new();
        let mut refused = BTreeSet::new();
        let mut replied = BTreeSet::new();
        let mut open = BTreeSet::new();
        let mut told = Vec::new();
        let mut next = 0;
        let mut over = false;
        for event in events {
            let waited = matches!(event, Event::Wait { .. });
            match event {
                Event::Start { timeout_ms } => {
                    let timeout = Duration::from_millis(timeout_ms);
                    match bench.start_with(next, Request::default(), timeout) {
                        Ok(_) => {
                            open.insert(next);
                            deadlines.insert(next, bench.now + timeout);
                        }
                        Err(error) => prop_assert_eq!(error.certainty(), Certainty::NotExecuted),
                    }
                    next += 1;
                }
                Event::Cancel(id) => {
                    prop_assert_eq!(bench.calls.cancel(call_id(id)), open.remove(&id));
                }
                Event::Confirm(id) => bench.calls.handle_publish(call_id(id), Ok(())),
                Event::Refuse(id, kind) => {
                    let error = TransportError::new(kind, "fake", "publish");
                    if open.contains(&id) && error.certainty() == Certainty::NotExecuted {
                        refused.insert(id);
                    }
                    bench.calls.handle_publish(call_id(id), Err(error));
                }
                Event::Reply(id) => {
                    if open.contains(&id) {
                        replied.insert(id);
                    }
                    bench.receive(reply(id));
                }
                Event::Wait { ms } => {
                    bench.now += Duration::from_millis(ms);
                    bench.calls.handle_timeout(bench.now);
                }
                Event::Disconnect => bench.disconnect(),
                Event::Connect => {
                    // Nobody has said that the one before is gone.
                    if !over {
                        bench.connect();
                    }
                }
                Event::Stale(id) => {
                    bench.calls.handle_reply(Generation::default(), reply(id));
                    bench.calls.handle_disconnect(Generation::default(), lost());
                }
                Event::Started(id) => bench.receive(started(id)),
                Event::Close => {
                    over = true;
                    bench.calls.close();
                }
                Event::End => {
                    over = true;
                    bench.calls.handle_end(lost());
                }
            }
            while let Some((_, notice)) = bench.calls.poll_cancel() {
                let id = CallId::from_correlation_id(notice.correlation_id.unwrap().as_str());
                told.push(id.unwrap());
            }
            for (id, result) in bench.ended() {
                prop_assert!(open.remove(&id), "call {} ended twice or never began", id);
                match result {
                    Ok(reply) => {
                        prop_assert!(replied.contains(&id));
                        prop_assert_eq!(reply.body, Bytes::from(id.to_string()));
                    }
                    Err(error) if error.certainty() == Certainty::NotExecuted => {
                        prop_assert!(refused.contains(&id), "{:?}", error);
                    }
                    Err(_) => {}
                }
            }
            for id in &open {
                prop_assert!(deadlines[id] > bench.now || !waited);
            }
            prop_assert_eq!(bench.calls.in_flight(), open.len());
            prop_assert_eq!(bench.calls.poll_timeout(), open.iter().map(|id| deadlines[id]).min());
        }
        bench.calls.handle_timeout(bench.epoch + Duration::from_secs(3600));
        prop_assert_eq!(bench.ended().len(), open.len());
        let all = told.len();
        told.sort_unstable();
        told.dedup();
        prop_assert_eq!(told.len(), all, "a worker was told twice");
        let stats = bench.calls.stats();
        prop_assert_eq!(stats.started, stats.ok + stats.failed + stats.cancelled);
        prop_assert_eq!(bench.calls.poll_timeout(), None);
    }
}
