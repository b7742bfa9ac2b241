//! The table over several connections.

use super::*;

#[test]
fn a_call_that_begins_without_a_connection_says_that_there_is_none() {
    let mut bench = Bench::down(Limits::default());
    let error = bench.start(1).unwrap_err();
    assert_eq!(
        (error.code(), error.reason(), error.certainty()),
        (
            Code::Unavailable,
            Reason::BrokerDown,
            Certainty::NotExecuted
        )
    );
    bench.connect();
    bench.start(1).unwrap();
    bench.disconnect();
    assert_eq!(bench.start(2).unwrap_err().reason(), Reason::BrokerDown);
    assert_eq!(bench.calls.stats().started, 1);
}

#[test]
fn the_next_connection_brings_the_next_reply_address() {
    let mut bench = Bench::new();
    bench.disconnect();
    bench.connect();
    assert_eq!(bench.start(1).unwrap().reply_to.unwrap(), "inbox-2");
}

#[test]
fn what_comes_from_an_earlier_connection_is_too_late() {
    let mut bench = Bench::new();
    let earlier = bench.generation;
    bench.disconnect();
    bench.connect();
    bench.start(1).unwrap();
    bench.calls.handle_reply(earlier, reply(1));
    bench.calls.handle_disconnect(earlier, lost());
    assert!(bench.ended().is_empty());
    assert_eq!(bench.calls.stats().unmatched_replies, 1);
    bench.receive(reply(1));
    assert!(bench.ended()[0].1.is_ok());
}

#[test]
fn a_new_connection_ends_the_calls_of_one_that_nobody_has_reported() {
    let mut bench = Bench::new();
    bench.start(1).unwrap();
    bench.connect();
    assert_eq!(bench.only_error().reason(), Reason::ConnectionLost);
    bench.start(2).unwrap();
    assert_eq!(bench.calls.in_flight(), 1);
}

#[test]
fn nothing_brings_a_table_back_that_has_ended() {
    for by_caller in [true, false] {
        let mut bench = Bench::new();
        bench.start(1).unwrap();
        if by_caller {
            bench.calls.close();
        } else {
            bench.calls.handle_end(lost());
        }
        assert_eq!(bench.ended().len(), 1);
        bench.connect();
        bench.calls.handle_end(lost());
        let error = bench.start(2).unwrap_err();
        let expected = if by_caller {
            Reason::ClientClosed
        } else {
            Reason::NotSent
        };
        assert_eq!(
            (error.reason(), error.certainty()),
            (expected, Certainty::NotExecuted)
        );
    }
}
