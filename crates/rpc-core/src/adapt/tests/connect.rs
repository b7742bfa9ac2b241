//! Connectors behind the other face: attempts that are given up, or never answered.

use std::future::pending;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::script::Script;
use super::{kind, poll_once, until, wait};
use crate::adapt::{BlockOn, OffloadConnector, lock};
use crate::{Connector as _, ErrorKind, TransportError, blocking};

#[test]
fn an_attempt_that_is_given_up_goes_on_and_what_it_makes_is_dropped() {
    let script = Script::default();
    let dropped = script.dropped.clone();
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    let (script, told) = (Mutex::new(Some(script)), Mutex::new(told));
    let connector = OffloadConnector::new(blocking::ConnectWith::new(3, move |_| {
        let _ = lock(&told).recv();
        Ok(lock(&script).take().expect("there is one attempt"))
    }));
    assert_eq!(connector.endpoints(), 3);
    // Begun, and dropped.
    assert!(poll_once(connector.connect(2)).is_pending());
    assert!(lock(&dropped).is_none());
    go_on.send(()).unwrap();
    until("the transport is dropped", || lock(&dropped).is_some());
}

#[test]
fn an_attempt_that_fails_or_panics_is_an_error() {
    let fails = blocking::ConnectWith::new(1, |_| -> Result<Script, _> {
        Err(TransportError::new(ErrorKind::Denied, "script", "connect"))
    });
    let failed = wait(OffloadConnector::new(fails).connect(0));
    assert_eq!(kind(failed), Some(ErrorKind::Denied));
    let panics = blocking::ConnectWith::new(1, |_| -> Result<Script, _> { panic!("as told") });
    let failed = wait(OffloadConnector::new(panics).connect(0));
    assert_eq!(kind(failed), Some(ErrorKind::Connect));
}

#[test]
fn an_attempt_that_is_never_answered_ends_at_its_limit() {
    let limit = Duration::from_millis(50);
    let begun = Instant::now();
    let never = BlockOn::<crate::adapt::Offload<Script>>::connect_within(limit, pending);
    assert_eq!(kind(never), Some(ErrorKind::Connect));
    assert!(begun.elapsed() >= limit);
}
