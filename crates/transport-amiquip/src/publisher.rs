//! The thread that owns the publishing channel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use amiquip::Channel;
use crossbeam_channel::{Receiver, RecvError, select};
use rpc_core::ErrorKind;

use crate::error;
use crate::held::Held;
use crate::life::Life;
use crate::link::{Notices, Side};
use crate::publishing::{Listeners, Publication, Publishing};

/// How many messages wait for the publisher. The caller that finds no room waits until its deadline.
pub(crate) const ROOM: usize = 1024;
/// How many messages are sent before what the broker said is looked at.
const BATCH: usize = 256;

/// All that the thread needs.
pub(crate) struct Publisher {
    pub(crate) channel: Channel,
    pub(crate) listeners: Listeners,
    pub(crate) publications: Receiver<Box<Publication>>,
    /// Says to end, and until when open confirms may be waited for.
    pub(crate) stop: Receiver<Instant>,
    /// Of the publishing connection.
    pub(crate) notices: Notices,
    /// Of the consuming connection, whose end is ours too.
    pub(crate) consume_notices: Notices,
    pub(crate) life: Arc<Life>,
}

/// Why the thread ends.
enum End {
    Lost(Side, Option<amiquip::Error>),
    Stopped(Instant),
}

impl Publisher {
    /// Serves until the transport ends; then nothing is left open, and amiquip's threads are joined.
    pub(crate) fn run(self) {
        let Self {
            channel,
            listeners,
            publications,
            stop,
            notices,
            consume_notices,
            life,
        } = self;
        let mut publishing = Publishing::new(&channel, listeners);
        let inlets = Inlets {
            publications: &publications,
            stop: &stop,
            notices: &notices,
            consume_notices: &consume_notices,
            life: &life,
        };
        let mut held = Held::new();
        let cause = match inlets.serve(&mut publishing, &mut held) {
            End::Lost(side, evidence) => life.lose(side, evidence),
            End::Stopped(until) => {
                // What is handed over to a blocked connection may stay there for ever.
                if held.is_blocked() {
                    refuse_rest(&mut held, &publications, &life);
                } else {
                    send_rest(&mut publishing, &publications);
                }
                wait_for_verdicts(&mut publishing, until);
                error::new(ErrorKind::Closed, "publish")
                    .with_detail("closed on this side before the broker confirmed")
            }
        };
        publishing.end(&cause);
        refuse_rest(&mut held, &publications, &life);
        drop(publications);
        drop(channel);
        // Whoever ends it in order has joined the consumers before; otherwise all is cut.
        life.reap();
    }
}

struct Inlets<'a> {
    publications: &'a Receiver<Box<Publication>>,
    stop: &'a Receiver<Instant>,
    notices: &'a Notices,
    consume_notices: &'a Notices,
    life: &'a Life,
}

impl Inlets<'_> {
    fn serve(&self, publishing: &mut Publishing<'_>, held: &mut Held) -> End {
        let nothing = crossbeam_channel::never();
        loop {
            let publications = match held.is_full() {
                true => &nothing,
                false => self.publications,
            };
            let step = select! {
                recv(publications) -> publication => match publication {
                    // While the broker blocks publishers, what is not handed over can still be
                    // taken back: its deadline passes, and nobody has executed it.
                    Ok(publication) if held.is_blocked() => {
                        held.push(publication);
                        Ok(())
                    }
                    Ok(publication) => send(publishing, *publication),
                    Err(RecvError) => Err(End::Stopped(Instant::now())),
                },
                recv(held.expiry()) -> _ => {
                    held.refuse_overdue();
                    Ok(())
                }
                recv(publishing.listeners.confirms) -> confirm => match confirm {
                    Ok(confirm) => {
                        publishing.confirmed(confirm);
                        Ok(())
                    }
                    Err(RecvError) => Err(End::Lost(Side::Publish, publishing.last_words())),
                },
                recv(publishing.listeners.returns) -> returned => match returned {
                    Ok(returned) => {
                        publishing.returned(&returned);
                        Ok(())
                    }
                    Err(RecvError) => Err(End::Lost(Side::Publish, publishing.last_words())),
                },
                recv(self.stop) -> until => {
                    Err(End::Stopped(until.unwrap_or_else(|RecvError| Instant::now())))
                }
                recv(self.notices) -> notice => match notice {
                    Ok(notice) => {
                        held.note(&notice);
                        self.life.set_blocked(held.is_blocked());
                        Ok(())
                    }
                    Err(RecvError) => Err(End::Lost(Side::Publish, publishing.last_words())),
                },
                recv(self.consume_notices) -> notice => match notice {
                    Ok(_) => Ok(()),
                    Err(RecvError) => Err(End::Lost(Side::Consume, None)),
                },
            };
            let step = step.and_then(|()| match held.is_blocked() {
                true => Ok(()),
                false => self.send_waiting(publishing, held),
            });
            match step {
                Ok(()) => publishing.settle(),
                Err(end) => return end,
            }
        }
    }

    /// What has gathered meanwhile goes out in one go: the broker and the I/O thread like it better.
    fn send_waiting(&self, publishing: &mut Publishing<'_>, held: &mut Held) -> Result<(), End> {
        while let Some(publication) = held.pop() {
            send(publishing, *publication)?;
        }
        for publication in self.publications.try_iter().take(BATCH) {
            send(publishing, *publication)?;
        }
        Ok(())
    }
}

fn send(publishing: &mut Publishing<'_>, publication: Publication) -> Result<(), End> {
    publishing
        .send(publication)
        .map_err(|error| End::Lost(Side::Publish, Some(error)))
}

/// Sends what was accepted before the stop.
fn send_rest(publishing: &mut Publishing<'_>, publications: &Receiver<Box<Publication>>) {
    for publication in publications.try_iter() {
        if publishing.send(*publication).is_err() {
            return;
        }
    }
}

/// Settles what was accepted and is not sent.
fn refuse_rest(held: &mut Held, publications: &Receiver<Box<Publication>>, life: &Life) {
    for publication in std::iter::from_fn(|| held.pop()).chain(publications.try_iter()) {
        publication.refuse(|| life.refusal("publish"));
    }
}

/// Waits for a while for what the broker says to all that was sent.
fn wait_for_verdicts(publishing: &mut Publishing<'_>, until: Instant) {
    while !publishing.is_settled() {
        let left = until.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return;
        }
        match publishing.listeners.confirms.recv_timeout(left) {
            Ok(confirm) => publishing.confirmed(confirm),
            Err(_) => return,
        }
    }
}
