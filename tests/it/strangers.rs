//! Peers that are no brokers, and brokers that take their time: connecting ends in time, and says
//! what is wrong.

use std::thread;
use std::time::{Duration, Instant};

use fault_proxy::{Direction, Proxy, Stranger};
use rpc_core::{ErrorKind, TransportError};

use crate::{broker, rows};

/// How long a connection may take.
const TIMEOUT: Duration = Duration::from_millis(600);
/// What it may take longer: 100 ms, and something for a machine that is busy.
const SLACK: Duration = Duration::from_millis(350);

const NOT_AMQP: &str = "not an AMQP 0-9-1 server";
const IN_TIME: &str = "in time";

/// Connects with each row, all at once: what it said, and how long that took.
fn connect_all(url: &str) -> Vec<(&'static str, Result<(), TransportError>, Duration)> {
    let url = format!("{url}?connection_timeout={}", TIMEOUT.as_millis());
    thread::scope(|scope| {
        let connecting = rows::on_rabbitmq(&url).map(|(name, row)| {
            let begin = move || {
                let begun = Instant::now();
                let connected = row.connect();
                let took = begun.elapsed();
                (name, connected.map(drop), took)
            };
            scope.spawn(begin)
        });
        connecting.map(|row| row.join().unwrap()).into()
    })
}

/// The chain as a log shows it.
fn words(error: &TransportError) -> String {
    format!("{:#}", anyhow::Error::from(error.clone()))
}

#[track_caller]
fn assert_strange(what: &str, stranger: &Stranger, expected: &[&str]) {
    for (row, result, took) in connect_all(&format!("amqp://{}", stranger.address())) {
        let error = result.expect_err("it is no broker");
        assert_eq!(error.kind(), ErrorKind::Connect, "{what}, {row}: {error:?}");
        let words = words(&error);
        let said = expected.iter().any(|expected| words.contains(expected));
        assert!(said, "{what}, {row}: {words}");
        assert!(took < TIMEOUT + SLACK, "{what}, {row}: {took:?}");
    }
}

#[test]
fn a_peer_that_is_no_broker_is_told_by_its_first_bytes() {
    // The same each time, and as good as any.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_be_bytes()[0]
    })
    .take(100_000)
    .collect();
    let table: [(&str, &[u8]); 5] = [
        (
            "web",
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
        ),
        ("ssh", b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"),
        ("tls", b"\x15\x03\x01\x00\x02\x02\x46"),
        ("random", &random),
        ("AMQP 1.0", b"AMQP\x00\x01\x00\x00"),
    ];
    for (what, said) in table {
        let stranger = Stranger::saying(said).unwrap();
        assert_strange(what, &stranger, &[NOT_AMQP]);
    }
}

#[test]
fn a_peer_that_takes_its_time_is_cut_off_in_time() {
    let drip = |bytes: &[u8]| Stranger::dripping(bytes, Duration::from_millis(5)).unwrap();
    // A frame of a hundred thousand bytes, that would be ten minutes.
    assert_strange(
        "start",
        &drip(b"\x01\x00\x00\x00\x01\x00\x01"),
        &[NOT_AMQP, IN_TIME],
    );
    assert_strange("web", &drip(b"HTTP/1.1 200 OK\r\n"), &[NOT_AMQP]);
    assert_strange("silence", &Stranger::saying(b"").unwrap(), &[IN_TIME]);
    let huge = Stranger::saying(b"\x01\x00\x00\xff\xff\xff\xff").unwrap();
    assert_strange("huge", &huge, &[NOT_AMQP, IN_TIME]);
}

#[test]
fn a_peer_that_hangs_up_has_ended_before_the_handshake() {
    let stranger = Stranger::hanging_up().unwrap();
    let expected = ["ended before the handshake"];
    assert_strange("hanging up", &stranger, &expected);
}

/// Whichever stage of two handshakes it is in when its time is up.
#[test]
#[ignore = "needs RabbitMQ: run cargo xtask test"]
fn a_broker_that_drips_is_cut_off_in_time() {
    let mut failed = 0;
    for rate in [300, 1_000, 1_500, 2_000, 2_500, 3_000, 5_000, 50_000] {
        let (proxy, url) = broker::proxied(&broker::url());
        proxy.slow(Direction::Down, Some(rate));
        for (row, result, took) in connect_all(&url) {
            assert!(took < TIMEOUT + SLACK, "{rate}, {row}: {took:?} {result:?}");
            if let Err(error) = result {
                failed += 1;
                assert_eq!(error.kind(), ErrorKind::Connect, "{rate}, {row}: {error:?}");
            }
        }
        drop::<Proxy>(proxy);
    }
    assert!(failed > 4, "it was too fast to show anything: {failed}");
}
