//! What the calls of the rig say: a key that is theirs alone, a number, and what the handler shall do.

use std::time::Duration;

use rpc_core::{DeliveryMode, Message, ShortString};
use serde::{Deserialize, Serialize};

/// The method of all calls.
pub const METHOD: &str = "fib";

/// The arguments of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The call, in the whole run.
    pub key: u64,
    /// Which Fibonacci number.
    pub n: u64,
    /// What the handler does besides.
    #[serde(default)]
    pub act: Act,
}

/// What the handler does besides answering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the worker carries out all of them"
)]
pub enum Act {
    /// Nothing.
    #[default]
    Answer,
    /// It ends its process, as a bug in foreign code may.
    Abort,
    /// It panics.
    Panic,
    /// It keeps its thread busy for so many milliseconds, and looks for no cancellation.
    Sleep(u64),
    /// It answers after so many milliseconds, or as soon as it is cancelled.
    Wait(u64),
}

/// The answer: the number, and the key again, so that one call cannot take the answer of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The key of the call.
    pub key: u64,
    /// The Fibonacci number.
    pub fib: u64,
}

impl Ask {
    /// The call of this key: its number follows from the key.
    #[must_use]
    pub const fn new(key: u64) -> Self {
        Self {
            key,
            n: key % 91,
            act: Act::Answer,
        }
    }

    /// The same call with something for the handler to do.
    #[must_use]
    pub const fn with_act(mut self, act: Act) -> Self {
        self.act = act;
        self
    }

    /// The request as a message that wants no answer.
    ///
    /// # Errors
    ///
    /// None: it can be encoded.
    pub fn message(&self) -> serde_json::Result<Message> {
        Ok(Message {
            body: serde_json::to_vec(self)?.into(),
            content_type: Some(ShortString::from_static("application/json")),
            delivery_mode: DeliveryMode::Persistent,
            kind: Some(ShortString::from_static(METHOD)),
            ..Message::default()
        })
    }

    /// The only right answer.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let (mut this, mut next) = (0u64, 1u64);
        for _ in 0..self.n {
            (this, next) = (next, this.wrapping_add(next));
        }
        Answer {
            key: self.key,
            fib: this,
        }
    }
}

impl Act {
    /// How long the handler takes on purpose.
    #[must_use]
    pub const fn time(self) -> Duration {
        match self {
            Self::Sleep(millis) | Self::Wait(millis) => Duration::from_millis(millis),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_the_number_of_the_key() {
        assert_eq!(
            Ask::new(30).answer(),
            Answer {
                key: 30,
                fib: 832_040
            }
        );
        assert_eq!(Ask::new(90).answer().fib, 2_880_067_194_370_816_120);
        assert_ne!(Ask::new(30).answer(), Ask::new(121).answer());
    }
}
