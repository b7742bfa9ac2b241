//! Waiting for the turn of a request, on either face: whose turn it is, [`Turn`] says.

#[cfg(feature = "blocking")]
use std::pin::pin;
use std::time::{Duration, Instant};

#[cfg(feature = "tokio")]
use rpc_proto::Cancellation;
use rpc_proto::server::Turn;
use rpc_proto::{Expiration, LONGEST_WAIT, Message};

#[cfg(feature = "blocking")]
use crate::park;
#[cfg(feature = "tokio")]
use crate::race::{First, race};

/// Whether there is nothing to wait for.
#[cfg(feature = "tokio")]
pub(crate) fn is_turn(turn: &mut Option<Turn>, deadline: Instant) -> bool {
    turn.as_mut()
        .is_none_or(|turn| turn.poll_begin(Instant::now(), deadline).is_none())
}

/// Waits in a task, unless the transport ends that the request came by: then it goes back, and nobody
/// is to look out for it.
#[cfg(feature = "tokio")]
pub(crate) async fn turn_comes(turn: &mut Option<Turn>, deadline: Instant, ended: &Cancellation) {
    let Some(turn) = turn else { return };
    while let Some(until) = turn.poll_begin(Instant::now(), deadline) {
        let changed = race(turn.changed(), ended.cancelled());
        let changed = tokio::time::timeout_at(until.into(), changed).await;
        if matches!(changed, Ok(First::Right(()))) {
            return;
        }
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

#[cfg(all(test, feature = "tokio"))]
mod tests {
    use rpc_proto::server::{Acceptor, Lane, Policy, Quarantine};
    use rpc_proto::{AckToken, ConsumerId, Delivery, ShortString};

    use super::*;

    /// A request that was delivered before, and is to be passed on.
    fn suspect() -> Delivery {
        Delivery {
            message: Message::new("x"),
            received_at: Instant::now(),
            redelivered: true,
            token: Some(AckToken::new(ConsumerId::unique(), 1)),
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_the_turn_of_what_goes_back_with_its_transport() {
        let mut policy = Policy::new(ShortString::from_static("work"));
        policy.quarantine = Some(Quarantine::new(ShortString::from_static("aside"), 3));
        let acceptor = Acceptor::new(policy);
        let intake = acceptor.intake(Lane::Work);
        let far = Instant::now() + LONGEST_WAIT;
        let mut runs = acceptor.work();
        assert!(is_turn(&mut runs, far));
        let passed_on = intake.accept(suspect(), Instant::now(), 0);
        let mut waits = acceptor.arrive(&passed_on);
        assert!(!is_turn(&mut waits, far), "a handler runs");

        let ended = Cancellation::new();
        let (done, ()) = tokio::join!(
            tokio::time::timeout(
                Duration::from_millis(100),
                turn_comes(&mut waits, far, &ended)
            ),
            async { ended.cancel() },
        );
        done.expect("it does not wait any longer");
    }
}
