//! What is told of a connection that comes and goes, to whoever looks at the terminal.

use std::fmt;

use rpc_core::{Generation, LinkState, TransportError};

use super::failure::chain;

/// Looks at the connection of a client or a server from time to time.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// The last connection that was seen.
    up: Option<Generation>,
    /// How many attempts must have failed before it is told again; nothing was told yet at 0.
    told: u32,
}

/// What has changed.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// There is a connection, after whatever was told before.
    Up {
        /// Whether there was one before.
        again: bool,
        /// Whether anybody was told that there was none.
        told: bool,
    },
    /// There is none.
    Down(TransportError),
}

impl Watch {
    /// Whether there was a connection at any time.
    pub(crate) const fn was_up(&self) -> bool {
        self.up.is_some()
    }

    /// What is new. That there is no connection is told once, and then whenever the number of
    /// attempts has doubled.
    pub(crate) fn look(&mut self, state: &LinkState) -> Option<News> {
        match state {
            LinkState::Up(generation) if self.up != Some(*generation) => {
                let told = std::mem::take(&mut self.told) > 0;
                let again = self.up.replace(*generation).is_some();
                Some(News::Up { again, told })
            }
            LinkState::Connecting {
                failed,
                cause: Some(cause),
                ..
            } if *failed >= self.told => {
                self.told = (failed * 2).max(1);
                Some(News::Down(cause.clone()))
            }
            _ => None,
        }
    }
}

impl News {
    /// Whether it is worth a line: a first connection at the first attempt is what everybody expects.
    pub(crate) const fn is_worth_telling(&self) -> bool {
        !matches!(
            self,
            Self::Up {
                again: false,
                told: false
            }
        )
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up { again: false, .. } => f.write_str("connected"),
            Self::Up { told: true, .. } => f.write_str("connected again"),
            // It came and went between two looks.
            Self::Up { .. } => f.write_str("the connection was lost; connected again"),
            Self::Down(cause) => write!(f, "not connected, trying again: {}", chain(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use rpc_core::ErrorKind;
    use rpc_core::proto::link::{Backoff, Link, Step};

    use super::*;

    fn cause() -> TransportError {
        TransportError::new(ErrorKind::Connect, "test", "connect").with_detail("down")
    }

    /// What is told after each of these: up, or not.
    fn told(changes: &[bool], look_each_time: bool) -> Vec<String> {
        let mut now = Instant::now();
        let mut link = Link::new(1, Backoff::default(), 1, now);
        let (mut watch, mut up, mut lines) = (Watch::default(), None, Vec::new());
        for (number, change) in changes.iter().enumerate() {
            now += Duration::from_secs(60);
            if let Some(generation) = up.take() {
                link.handle_lost(now, generation, cause());
                now += Duration::from_secs(60);
            }
            assert_eq!(link.poll(now), Step::Dial(0));
            if *change {
                up = link.handle_up(now);
            } else {
                link.handle_failed(now, cause());
            }
            if look_each_time || number + 1 == changes.len() || number == 0 {
                let news = watch.look(&link.state());
                lines.extend(
                    news.filter(News::is_worth_telling)
                        .map(|news| news.to_string()),
                );
                assert!(watch.look(&link.state()).is_none(), "nothing is told twice");
            }
        }
        lines
    }

    #[test]
    fn a_first_connection_is_no_news_and_one_after_trouble_is() {
        assert!(told(&[true], true).is_empty());
        let down = "not connected, trying again: test connect: cannot connect (down)";
        assert_eq!(told(&[false, true], true), [down, "connected"]);
        assert_eq!(told(&[true, false, true], true), [down, "connected again"]);
    }

    #[test]
    fn a_connection_that_came_and_went_unseen_is_told() {
        assert_eq!(
            told(&[true, false, true], false),
            ["the connection was lost; connected again"]
        );
    }

    #[test]
    fn trouble_that_lasts_is_told_more_and_more_rarely() {
        assert_eq!(told(&[false; 20], true).len(), 5, "after 1, 2, 4, 8 and 16");
    }
}
