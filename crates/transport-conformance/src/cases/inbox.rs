//! An inbox is one consumer's own.

use std::num::NonZeroU16;

use rpc_core::{ClientOptions, ConsumeOptions, ErrorKind, Inbox, Message};

use crate::backend::Backend;
use crate::steps::{SOON, echo, eventually};

pub(super) fn names_are_unique_and_nobody_elses(backend: &dyn Backend) {
    let (one, two) = (backend.dial(), backend.dial());
    let inboxes = [one.inbox(), one.inbox(), two.inbox(), two.inbox()];
    let mut names: Vec<_> = inboxes.iter().map(|inbox| inbox.queue().clone()).collect();
    for name in &names {
        // Whoever guesses it can answer in the place of the service: 128 random bits take 22
        // characters.
        assert!(name.as_str().len() >= 22, "{name:?} could be guessed");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 4);
}

pub(super) fn deliveries_need_no_settling(backend: &dyn Backend) {
    let (one, two) = (backend.dial(), backend.dial());
    let mut inbox = one.inbox();
    let name = inbox.queue().clone();
    for number in 0..200 {
        two.send(&name, Message::new(number.to_string()));
    }
    for number in 0..200 {
        let delivery = inbox.expect(&number.to_string());
        assert_eq!(delivery.token, None, "an inbox gives no tokens");
    }
}

pub(super) fn no_other_connection_can_consume_it(backend: &dyn Backend) {
    let (one, two) = (backend.dial(), backend.dial());
    let mut inbox = one.inbox();
    let name = inbox.queue().clone();
    let thief = two.consume(ConsumeOptions::queue(name.clone(), NonZeroU16::MIN));
    assert!(thief.is_err(), "an inbox is private to its connection");
    let sender = backend.dial();
    sender.send(&name, Message::new("secret"));
    inbox.expect("secret");
}

pub(super) fn it_goes_with_its_consumer(backend: &dyn Backend) {
    let (one, two) = (backend.dial(), backend.dial());
    let cancelled = one.inbox();
    let dropped = one.inbox();
    let names = [cancelled.queue().clone(), dropped.queue().clone()];
    one.cancel(cancelled.id()).expect("it can be cancelled");
    drop(dropped);
    for name in names {
        eventually("the inbox is gone", || {
            let verdict = two.try_send(&name, Message::new("late"));
            verdict.is_err_and(|error| error.kind() == ErrorKind::NoRoute)
        });
    }
    one.assert_usable();
}

pub(super) fn a_direct_inbox_works_or_is_refused(backend: &dyn Backend) {
    let served = backend.with_service(echo());
    let connection = backend.dial();
    let options = ClientOptions::new(served.queue.clone())
        .with_inbox(Inbox::Direct)
        .with_timeout(SOON);
    match connection.client(options) {
        Ok(client) => {
            for _ in 0..10 {
                client.assert_works();
            }
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}"),
    }
    connection.assert_usable();
}
