//! What a message to oneself shows of a connection.

use std::error::Error;
use std::time::Instant;

use super::super::{Check, Checked, Limits};
use super::Bench;
use crate::wire::{CHECK_TYPE, STARTED_TYPE};
use crate::{CallId, ErrorKind, Message, ShortString, TransportError};

const INBOX: ShortString = ShortString::from_static("inbox");

fn now() -> Instant {
    Bench::down(Limits::default()).now
}

fn begin(now: Instant) -> (Check, Message) {
    let (check, to, message) =
        Check::begin(now, CallId::from_bits(7), &INBOX, false, false).unwrap();
    assert_eq!(*to.routing_key(), INBOX);
    (check, message)
}

fn failed(kind: ErrorKind) -> Result<(), TransportError> {
    Err(TransportError::new(kind, "test", "check"))
}

#[test]
fn it_asks_for_its_own_message_back_and_no_other() {
    let now = now();
    let (check, message) = begin(now);
    assert_eq!(check.deadline(), now + Check::LIMIT);
    assert!(check.is_heard(&message));
    let forged = Message {
        kind: Some(CHECK_TYPE),
        ..Message::default()
    };
    assert!(!check.is_heard(&forged));
    let other = Message {
        kind: Some(STARTED_TYPE),
        ..message
    };
    assert!(!check.is_heard(&other));
}

#[test]
fn the_confirm_counts_where_a_queue_is_behind_the_inbox() {
    let confirm_counts = |direct| {
        let id = CallId::from_bits(7);
        let (check, ..) = Check::begin(now(), id, &INBOX, direct, false).unwrap();
        check.confirm_counts()
    };
    assert!(confirm_counts(false));
    assert!(!confirm_counts(true));
}

#[test]
fn while_the_broker_blocks_publishers_nothing_is_sent() {
    assert!(Check::begin(now(), CallId::from_bits(7), &INBOX, false, true).is_none());
}

#[test]
fn an_alarm_excuses_silence_and_nothing_else() {
    let judge = |outcome, blocked| begin(now()).0.judge(outcome, blocked);
    for blocked in [false, true] {
        assert_eq!(judge(Ok(()), blocked).unwrap(), Checked::Heard);
        let refused = judge(failed(ErrorKind::Blocked), blocked);
        assert_eq!(refused.unwrap(), Checked::Postponed);
        for kind in [
            ErrorKind::Closed,
            ErrorKind::Denied,
            ErrorKind::NoRoute,
            ErrorKind::Refused,
        ] {
            assert_eq!(judge(failed(kind), blocked).unwrap_err().kind(), kind);
        }
    }
    assert_eq!(
        judge(Err(Check::overdue()), true).unwrap(),
        Checked::Postponed
    );
}

#[test]
fn silence_without_an_alarm_is_no_connection_and_keeps_its_cause() {
    let error = begin(now())
        .0
        .judge(failed(ErrorKind::Timeout), false)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("message to ourselves"));
    assert_eq!(error.source().unwrap().to_string(), "test check: timed out");
}
