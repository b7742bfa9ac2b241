//! Waiting for the turn of a request, on either face: whose turn it is, [`Turn`] says.

#[cfg(feature = "blocking")]
use std::pin::pin;
use std::time::{Duration, Instant};

use rpc_proto::server::Turn;
use rpc_proto::{Expiration, LONGEST_WAIT, Message};

#[cfg(feature = "blocking")]
use crate::park;

/// Whether there is nothing to wait for.
#[cfg(feature = "tokio")]
pub(crate) fn is_turn(turn: &mut Option<Turn>, deadline: Instant) -> bool {
    turn.as_mut()
        .is_none_or(|turn| turn.poll_begin(Instant::now(), deadline).is_none())
}

/// Waits in a task.
#[cfg(feature = "tokio")]
pub(crate) async fn turn_comes(turn: &mut Option<Turn>, deadline: Instant) {
    let Some(turn) = turn else { return };
    while let Some(until) = turn.poll_begin(Instant::now(), deadline) {
        let _ = tokio::time::timeout_at(until.into(), turn.changed()).await;
    }
}

/// Waits in a thread.
#[cfg(feature = "blocking")]
pub(crate) fn await_turn(turn: &mut Option<Turn>, deadline: Instant) {
    let Some(turn) = turn else { return };
    while let Some(until) = turn.poll_begin(Instant::now(), deadline) {
        park::block_on_until(pin!(turn.changed()), until);
    }
}

/// How long a message is of use.
pub(crate) fn life(message: &Message) -> Duration {
    message
        .expiration
        .map_or(LONGEST_WAIT, Expiration::as_duration)
}
