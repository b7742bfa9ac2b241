//! When calls begin: as many as are answered, or at a steady rate whatever is answered.

use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::cell::Cell;
use crate::meter::Tally;

/// The calls of one client that are still to begin.
///
/// At a rate a call counts from when it was due, so that one which could not begin because others
/// were slow counts as slow itself.
#[derive(Debug)]
pub(crate) struct Arrivals {
    tally: Tally,
    /// How many begin at the outset.
    first: usize,
    steady: Option<UnboundedReceiver<Instant>>,
}

impl Arrivals {
    pub(crate) fn new(cell: &Cell, share: usize, tally: &Tally) -> Self {
        let steady = cell.rate.map(|rate| pace(rate, tally.clone()));
        Self {
            tally: tally.clone(),
            first: if steady.is_some() { 0 } else { share },
            steady,
        }
    }

    /// Whether there may be more.
    pub(crate) fn go_on(&self) -> bool {
        self.tally.goes_on()
    }

    /// Adds what is due by now, and has the task woken when there is more.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, due: &mut Vec<Instant>) {
        let now = Instant::now();
        due.extend(std::iter::repeat_n(now, std::mem::take(&mut self.first)));
        let Some(steady) = &mut self.steady else {
            return;
        };
        while let Poll::Ready(Some(at)) = steady.poll_recv(context) {
            due.push(at);
        }
    }

    /// Adds the call that follows one which was answered.
    pub(crate) fn answered(&self, due: &mut Vec<Instant>) {
        if self.steady.is_none() && self.tally.goes_on() {
            due.push(Instant::now());
        }
    }

    /// The next one at a rate.
    pub(crate) async fn next(&mut self) -> Option<Instant> {
        self.steady.as_mut()?.recv().await
    }
}

/// Sends the time at which each call is due, when it has come.
fn pace(rate: u32, tally: Tally) -> UnboundedReceiver<Instant> {
    let (sender, receiver) = unbounded_channel();
    let every = Duration::from_secs(1) / rate.max(1);
    // A thread of its own: the timer of a runtime is too coarse, and calls come from elsewhere in
    // life, too.
    thread::spawn(move || {
        let mut due = Instant::now();
        while tally.goes_on() && sender.send(due).is_ok() {
            due += every;
            let left = due.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                thread::sleep(left);
            }
        }
    });
    receiver
}
