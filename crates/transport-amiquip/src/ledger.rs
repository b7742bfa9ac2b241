//! The open confirms of one channel: which publish each confirm and each return decides.

use std::collections::VecDeque;

use amiquip::Return;
use rpc_core::{Address, ErrorKind, ShortString, TransportError, Verdict};

use crate::convert::short;
use crate::error;

/// A publish that the broker has not decided.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) to: Address,
    pub(crate) correlation_id: Option<ShortString>,
    pub(crate) message_id: Option<ShortString>,
    pub(crate) verdict: Verdict,
}

/// The publishes of a channel by their sequence numbers, which count from 1 without a gap.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// The number of the entry in front.
    first: u64,
    /// `None` is one that was decided before those in front of it.
    entries: VecDeque<Option<Entry>>,
    /// The number to look from for the next return: the broker returns in the order of publishing,
    /// so the search seldom starts at the front.
    hint: u64,
}

impl Ledger {
    pub(crate) const fn new() -> Self {
        Self {
            first: 1,
            entries: VecDeque::new(),
            hint: 1,
        }
    }

    /// Enters the publish that is about to be sent.
    pub(crate) fn push(&mut self, entry: Entry) {
        self.entries.push_back(Some(entry));
    }

    /// Whether nothing is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Settles what a confirm is about. Returns that precede it on the wire come first.
    ///
    /// The confirms are not put in order before, as amiquip's smoother would: a reply need not wait
    /// for the confirm of an older message in a slower queue.
    pub(crate) fn confirmed(&mut self, confirm: amiquip::Confirm) {
        let (payload, taken) = match confirm {
            amiquip::Confirm::Ack(payload) => (payload, true),
            amiquip::Confirm::Nack(payload) => (payload, false),
        };
        let verdict = || match taken {
            true => Ok(()),
            false => Err(error::new(ErrorKind::Refused, "publish")
                .with_detail("the broker took the message back, as a full queue does")),
        };
        let Some(place) = self.place(payload.delivery_tag) else {
            return;
        };
        let from = if payload.multiple { 0 } else { place };
        for slot in self.entries.range_mut(from..=place) {
            if let Some(entry) = slot.take() {
                entry.verdict.settle(verdict());
            }
        }
        while let Some(None) = self.entries.front() {
            self.entries.pop_front();
            self.first += 1;
        }
    }

    /// Settles the publish that came back: the oldest open one with these ids and this address.
    ///
    /// A return that fits none decides none: the confirm that follows it settles its publish, and
    /// who waits for a reply runs into a timeout. Given to another publish, it would say of a message
    /// that is executed that it was not.
    pub(crate) fn returned(&mut self, returned: &Return) {
        let correlation_id = short(returned.properties.correlation_id());
        let message_id = short(returned.properties.message_id());
        let place = self.find(|entry| {
            entry.to.routing_key().as_str() == returned.routing_key
                && entry.to.exchange_name().as_str() == returned.exchange
                && entry.correlation_id == correlation_id
                && entry.message_id == message_id
        });
        let Some(place) = place else {
            tracing::debug!(code = returned.reply_code, "return of an unknown publish");
            return;
        };
        self.hint = self.first + place as u64 + 1;
        if let Some(entry) = self.entries[place].take() {
            let detail = format!("{} {}", returned.reply_code, returned.reply_text);
            entry.verdict.settle(Err(
                error::new(ErrorKind::NoRoute, "publish").with_detail(detail)
            ));
        }
    }

    /// Settles all that is open with the cause of the end.
    pub(crate) fn end(&mut self, cause: &TransportError) {
        self.first += self.entries.len() as u64;
        for entry in self.entries.drain(..).flatten() {
            entry.verdict.settle(Err(cause.clone()));
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        (place < self.entries.len()).then_some(place)
    }

    fn find(&self, matches: impl Fn(&Entry) -> bool) -> Option<usize> {
        let start = self.place(self.hint).unwrap_or(0);
        let is_it = |&place: &usize| matches!(&self.entries[place], Some(entry) if matches(entry));
        (start..self.entries.len())
            .find(is_it)
            .or_else(|| (0..start).find(is_it))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use amiquip::{AmqpProperties, Confirm as Wire, ConfirmPayload};
    use rpc_core::Confirm;

    use super::*;

    fn publish(ledger: &mut Ledger, queue: &str, id: Option<&str>) -> Confirm {
        let (verdict, confirm) = Confirm::open();
        ledger.push(Entry {
            to: Address::try_from(queue).unwrap(),
            correlation_id: id.map(|id| ShortString::new(id).unwrap()),
            message_id: None,
            verdict,
        });
        confirm
    }

    fn returned(queue: &str, id: Option<&str>) -> Return {
        let properties = AmqpProperties::default();
        Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".to_owned(),
            exchange: String::new(),
            routing_key: queue.to_owned(),
            content: Vec::new(),
            properties: match id {
                Some(id) => properties.with_correlation_id(id.to_owned()),
                None => properties,
            },
        }
    }

    fn ack(delivery_tag: u64, multiple: bool) -> Wire {
        Wire::Ack(ConfirmPayload {
            delivery_tag,
            multiple,
        })
    }

    fn kind(confirm: Confirm) -> Option<ErrorKind> {
        confirm
            .wait(Instant::now() + Duration::from_secs(1))
            .err()
            .map(|error| error.kind())
    }

    #[test]
    fn a_return_decides_before_the_confirm_that_follows_it() {
        let mut ledger = Ledger::new();
        let lost = publish(&mut ledger, "nowhere", Some("1"));
        let taken = publish(&mut ledger, "queue", Some("2"));
        ledger.returned(&returned("nowhere", Some("1")));
        ledger.confirmed(ack(2, true));
        assert_eq!(kind(lost), Some(ErrorKind::NoRoute));
        assert_eq!(kind(taken), None);
        assert!(ledger.is_empty());
    }

    #[test]
    fn a_confirm_out_of_order_settles_at_once_and_only_its_own() {
        let mut ledger = Ledger::new();
        let slow = publish(&mut ledger, "queue", Some("1"));
        let quick = publish(&mut ledger, "queue", Some("2"));
        ledger.confirmed(ack(2, false));
        assert_eq!(kind(quick), None);
        assert!(!ledger.is_empty());
        ledger.confirmed(Wire::Nack(ConfirmPayload {
            delivery_tag: 1,
            multiple: false,
        }));
        assert_eq!(kind(slow), Some(ErrorKind::Refused));
        assert!(ledger.is_empty());
    }

    #[test]
    fn returns_without_an_id_decide_one_publish_each() {
        let mut ledger = Ledger::new();
        let first = publish(&mut ledger, "nowhere", None);
        let other = publish(&mut ledger, "queue", None);
        let second = publish(&mut ledger, "nowhere", None);
        ledger.returned(&returned("nowhere", None));
        ledger.returned(&returned("nowhere", None));
        ledger.confirmed(ack(3, true));
        assert_eq!(kind(first), Some(ErrorKind::NoRoute));
        assert_eq!(kind(second), Some(ErrorKind::NoRoute));
        assert_eq!(kind(other), None);
    }

    #[test]
    fn a_return_that_fits_no_publish_decides_none() {
        let mut ledger = Ledger::new();
        let open = publish(&mut ledger, "queue", Some("1"));
        ledger.returned(&returned("queue", Some("2")));
        ledger.returned(&returned("queue", None));
        ledger.returned(&returned("other", Some("1")));
        let mut of_another_message = returned("queue", Some("1"));
        of_another_message.properties = of_another_message.properties.with_message_id("m".into());
        ledger.returned(&of_another_message);
        ledger.confirmed(ack(1, false));
        assert_eq!(kind(open), None);
        assert!(ledger.is_empty());
    }

    #[test]
    fn confirms_of_unknown_numbers_change_nothing() {
        let mut ledger = Ledger::new();
        ledger.confirmed(ack(7, true));
        let open = publish(&mut ledger, "queue", None);
        ledger.confirmed(ack(0, false));
        ledger.confirmed(ack(9, false));
        assert!(!ledger.is_empty());
        ledger.end(&error::new(ErrorKind::Closed, "publish"));
        assert_eq!(kind(open), Some(ErrorKind::Closed));
    }
}
