//! The floor: AMQP frames by hand on a blocking socket, with one read and one write for all that is
//! at hand. A client library can come near it and, on the same broker, not get below.

mod connection;
mod frame;

use std::time::Instant;

use amqp_broker::AmqpUrl;
use anyhow::{Result, ensure};

use self::connection::{Connection, Event};
use crate::cell::Cell;
use crate::meter::Tally;
use crate::open::{OpenCalls, Unconfirmed};

/// Makes calls until it is told to stop.
pub(crate) fn call(url: &AmqpUrl, cell: &Cell, share: usize, tally: &Tally) -> Result<()> {
    let body = cell.body();
    let mut connection = Connection::open(url)?;
    let inbox = connection.declare_inbox()?;
    connection.consume(&inbox, true)?;
    if cell.confirms {
        connection.select_confirms()?;
    }
    let mut calls = OpenCalls::default();
    let mut digits = Digits::default();
    let queue = cell.queue.as_bytes();
    let send = |connection: &mut Connection, calls: &mut OpenCalls, digits: &mut Digits| {
        let id = digits.of(calls.open(Instant::now()));
        connection.publish(queue, id, Some(&inbox), &body, cell.confirms);
    };
    for _ in 0..share {
        send(&mut connection, &mut calls, &mut digits);
    }
    let mut answered = Vec::new();
    while calls.len() > 0 {
        connection.flush()?;
        let mut wrong = false;
        connection.receive(|event| match event {
            Event::Delivery(delivery) => {
                wrong |= delivery.body != body;
                answered.extend(calls.close(&delivery.correlation_id));
            }
            Event::Confirm { .. } => {}
        })?;
        ensure!(!wrong, "an answer is not what was asked");
        for since in answered.drain(..) {
            tally.answered(since);
            if tally.goes_on() {
                send(&mut connection, &mut calls, &mut digits);
            }
        }
    }
    Ok(())
}

/// Answers requests until the connection ends.
pub(crate) fn work(url: &AmqpUrl, cell: &Cell, ready: impl FnOnce()) -> Result<()> {
    let mut connection = Connection::open(url)?;
    connection.declare_queue(&cell.queue)?;
    connection.limit(cell.prefetch.get())?;
    if cell.confirms {
        connection.select_confirms()?;
    }
    connection.consume(cell.queue.as_bytes(), false)?;
    ready();
    let mut replies = Unconfirmed::default();
    let mut acknowledged = 0;
    let mut received = 0;
    let mut requests = Vec::new();
    loop {
        connection.receive(|event| match event {
            Event::Delivery(delivery) => requests.push(delivery.clone()),
            Event::Confirm { number, multiple } => replies.confirm(number, multiple),
        })?;
        for request in requests.drain(..) {
            let (id, inbox) = (&request.correlation_id, &request.reply_to);
            connection.publish(inbox, id, None, &request.body, cell.confirms);
            replies.published();
            received = request.tag;
        }
        let done = if cell.confirms {
            replies.done()
        } else {
            received
        };
        if done > acknowledged {
            connection.acknowledge(done);
            acknowledged = done;
        }
        connection.flush()?;
    }
}

/// A number in decimal digits, without an allocation.
#[derive(Default)]
struct Digits(Vec<u8>);

impl Digits {
    fn of(&mut self, number: u64) -> &[u8] {
        use std::io::Write;
        self.0.clear();
        // Writing to memory does not fail.
        let _ = write!(self.0, "{number}");
        &self.0
    }
}
