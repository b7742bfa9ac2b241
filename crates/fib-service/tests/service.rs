//! The service as a server sees it: from the body of a request to the body of its answer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fib_service::{Algorithm, METHOD, ServiceOptions, service};
use rpc_core::proto::server::Request;
use rpc_core::{Answer, Certainty, Code, Service, ShortString, Work};

fn request(content_type: Option<&str>, body: impl Into<Vec<u8>>) -> Request {
    let deadline = Instant::now() + Duration::from_secs(5);
    Request {
        content_type: content_type.map(|name| ShortString::new(name).unwrap()),
        ..Request::new(body.into(), deadline)
    }
}

fn run(service: &impl Service, request: Request) -> Answer {
    match service.call(request) {
        Work::Ready(answer) => answer,
        Work::Blocking(work) => work(),
        other => panic!("unexpected {other:?}"),
    }
}

fn ask(content_type: Option<&str>, body: impl Into<Vec<u8>>) -> Answer {
    run(
        &service(ServiceOptions::default()),
        request(content_type, body),
    )
}

fn code(content_type: Option<&str>, body: impl Into<Vec<u8>>) -> Code {
    ask(content_type, body).unwrap_err().code()
}

const JSON: Option<&str> = Some("application/json");
const BINCODE: Option<&str> = Some("application/x-bincode");

#[test]
fn a_script_that_sends_30_gets_832040() {
    let answer = ask(None, "30").unwrap();
    assert_eq!(answer.body, "832040");
    assert_eq!(answer.content_type.unwrap(), "text/plain");
}

#[test]
fn every_codec_is_answered_in_itself() {
    assert_eq!(ask(JSON, "30").unwrap().body, "832040");
    let answer = ask(BINCODE, 186u64.to_le_bytes()).unwrap();
    let number = u128::from_le_bytes(answer.body[..].try_into().unwrap());
    assert_eq!(number, 332_825_110_087_067_562_321_196_029_789_634_457_848);
    assert_eq!(ask(None, "186").unwrap().body, number.to_string());
    assert_eq!(ask(JSON, "186").unwrap().body, number.to_string());
}

#[test]
fn the_method_may_be_named() {
    let mut named = request(None, "30");
    named.method = Some(ShortString::from_static(METHOD));
    let service = service(ServiceOptions::default());
    assert_eq!(run(&service, named).unwrap().body, "832040");
}

#[test]
fn what_cannot_be_answered_is_out_of_range_and_what_cannot_be_read_is_invalid() {
    for huge in ["187", "18446744073709551616", &"9".repeat(300)] {
        assert_eq!(code(None, huge), Code::OutOfRange, "{huge}");
        assert_eq!(code(JSON, huge), Code::OutOfRange, "{huge}");
    }
    assert_eq!(code(BINCODE, u64::MAX.to_le_bytes()), Code::OutOfRange);
    for bad in ["1e9", "-1", "", "abc", "1.5", "30 40"] {
        assert_eq!(code(None, bad), Code::InvalidArgument, "{bad:?}");
        assert_eq!(code(JSON, bad), Code::InvalidArgument, "{bad:?}");
    }
    for bad in [&[0xff, 0xfe][..], &[0; 7], &[0; 16]] {
        assert_eq!(code(None, bad), Code::InvalidArgument);
        assert_eq!(code(BINCODE, bad), Code::InvalidArgument);
    }
}

#[test]
fn the_error_says_whether_the_service_ran() {
    let refused = ask(None, "187").unwrap_err();
    assert_eq!(refused.certainty(), Certainty::Executed);
    assert!(refused.message().contains("186"), "{refused}");
    let unread = ask(None, "abc").unwrap_err();
    assert_eq!(unread.certainty(), Certainty::NotExecuted);
}

#[test]
fn a_megabyte_of_digits_costs_its_sender_and_not_the_service() {
    let begun = Instant::now();
    assert_eq!(code(None, "9".repeat(1 << 20)), Code::OutOfRange);
    // JSON's reader gives up beyond what a float can hold.
    assert_eq!(code(JSON, "9".repeat(1 << 20)), Code::InvalidArgument);
    // Milliseconds as a rule; the margin is for a machine that is busy with something else.
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn slow_work_is_not_done_where_requests_are_received() {
    let quick = service(ServiceOptions::default());
    assert!(matches!(quick.call(request(None, "1")), Work::Ready(_)));
    for options in [
        ServiceOptions::default().with_delay(Duration::from_millis(1)),
        ServiceOptions::default().with_algorithm(Algorithm::Naive),
    ] {
        assert!(options.is_slow());
        let work = service(options).call(request(None, "10"));
        let Work::Blocking(work) = work else {
            panic!("unexpected {work:?}");
        };
        assert_eq!(work().unwrap().body, "55");
    }
}

#[test]
fn the_observer_hears_of_each_request_that_can_be_read() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let options =
        ServiceOptions::default().with_observer(move |index| hears.lock().unwrap().push(index));
    let service = service(options);
    for body in ["30", "nonsense", "187"] {
        let _ = run(&service, request(None, body));
    }
    let heard: Vec<_> = heard.lock().unwrap().iter().map(|n| n.get()).collect();
    assert_eq!(heard, [30, 187]);
}
