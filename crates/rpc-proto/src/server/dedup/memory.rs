//! A store of answers in memory, bounded in number, age and bytes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Dedup, DedupKey, Kept};
use crate::deadline_after;

/// How much a [`MemoryDedup`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DedupLimits {
    /// For how long.
    pub age: Duration,
    /// How many bytes, keys and bookkeeping included.
    pub bytes: usize,
    /// How many answers.
    pub keys: usize,
}

impl Default for DedupLimits {
    /// 10,000 answers, 16 MiB, 5 minutes.
    fn default() -> Self {
        Self {
            age: Duration::from_secs(5 * 60),
            bytes: 16 << 20,
            keys: 10_000,
        }
    }
}

/// A store of answers in memory. What was not used for longest is forgotten first.
#[derive(Debug, Default)]
pub struct MemoryDedup {
    limits: DedupLimits,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    entries: HashMap<DedupKey, Entry>,
    /// The keys by when they were last used, and by when they are too old.
    by_use: BTreeMap<u64, DedupKey>,
    by_age: BTreeMap<(Instant, u64), DedupKey>,
    bytes: usize,
    serial: u64,
}

#[derive(Debug)]
struct Entry {
    answer: Kept,
    bytes: usize,
    age: (Instant, u64),
    used: u64,
}

impl MemoryDedup {
    /// An empty store.
    #[must_use]
    pub fn new(limits: DedupLimits) -> Self {
        Self {
            limits,
            table: Mutex::default(),
        }
    }

    /// Answers that are kept now, and the bytes they take.
    #[must_use]
    pub fn usage(&self) -> (usize, usize) {
        let table = self.table();
        (table.entries.len(), table.bytes)
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dedup for MemoryDedup {
    fn find(&self, key: &DedupKey, now: Instant) -> Option<Kept> {
        let mut table = self.table();
        table.forget_old(now);
        let table = &mut *table;
        let entry = table.entries.get_mut(key)?;
        table.serial += 1;
        let key = table.by_use.remove(&entry.used)?;
        entry.used = table.serial;
        table.by_use.insert(entry.used, key);
        Some(entry.answer.clone())
    }

    fn keep(&self, key: DedupKey, answer: Kept, now: Instant) {
        let bytes = size(&key, &answer);
        if bytes > self.limits.bytes || self.limits.keys == 0 {
            return;
        }
        let mut table = self.table();
        table.forget_old(now);
        table.forget(&key);
        table.serial += 1;
        let used = table.serial;
        let age = (deadline_after(now, self.limits.age), used);
        table.bytes += bytes;
        table.by_use.insert(used, key.clone());
        table.by_age.insert(age, key.clone());
        let entry = Entry {
            answer,
            bytes,
            age,
            used,
        };
        table.entries.insert(key, entry);
        while table.entries.len() > self.limits.keys || table.bytes > self.limits.bytes {
            table.forget_unused();
        }
    }
}

impl Table {
    fn forget(&mut self, key: &DedupKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes;
            self.by_use.remove(&entry.used);
            self.by_age.remove(&entry.age);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while let Some((&(expires, _), key)) = self.by_age.first_key_value() {
            if expires > now {
                return;
            }
            let key = key.clone();
            self.forget(&key);
        }
    }

    fn forget_unused(&mut self) {
        if let Some((_, key)) = self.by_use.first_key_value() {
            let key = key.clone();
            self.forget(&key);
        }
    }
}

/// What an answer takes in memory, about.
fn size(key: &DedupKey, answer: &Kept) -> usize {
    const BOOKKEEPING: usize = 512;
    let text =
        |text: &Option<crate::ShortString>| text.as_ref().map_or(0, |text| text.as_str().len());
    let headers = answer
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.encoded_len());
    BOOKKEEPING
        + text(&key.method)
        + key.message_id.as_str().len()
        + text(&answer.content_type)
        + answer.body.len()
        + headers.sum::<usize>()
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a moment to begin at; it moves by hand"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ShortString;

    fn key(number: u32) -> DedupKey {
        DedupKey {
            method: None,
            message_id: ShortString::new(number.to_string()).unwrap(),
        }
    }

    fn answer(bytes: usize) -> Kept {
        Kept {
            body: vec![b'1'; bytes].into(),
            ..Kept::default()
        }
    }

    #[test]
    fn an_answer_is_kept_for_so_long_and_no_longer() {
        let now = Instant::now();
        let store = MemoryDedup::default();
        store.keep(key(1), answer(3), now);
        let age = DedupLimits::default().age;
        let almost = now + age - Duration::from_millis(1);
        assert_eq!(store.find(&key(1), almost), Some(answer(3)));
        assert_eq!(store.find(&key(1), now + age), None);
        assert_eq!(store.usage(), (0, 0));
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let now = Instant::now();
        let limits = DedupLimits {
            keys: 2,
            ..DedupLimits::default()
        };
        let store = MemoryDedup::new(limits);
        store.keep(key(1), answer(1), now);
        store.keep(key(2), answer(2), now);
        assert!(store.find(&key(1), now).is_some());
        store.keep(key(3), answer(3), now);
        assert_eq!(store.find(&key(2), now), None);
        assert!(store.find(&key(1), now).is_some());
    }

    #[test]
    fn an_answer_larger_than_the_store_is_not_kept() {
        let now = Instant::now();
        let limits = DedupLimits {
            bytes: 1000,
            ..DedupLimits::default()
        };
        let store = MemoryDedup::new(limits);
        store.keep(key(1), answer(1), now);
        store.keep(key(2), answer(1001), now);
        assert_eq!(store.find(&key(2), now), None);
        assert!(store.find(&key(1), now).is_some());
    }

    proptest! {
        #[test]
        fn no_limit_is_ever_exceeded(steps in prop::collection::vec((0..20u32, 0..400usize, any::<bool>(), 0..200u64), 1..200)) {
            let limits = DedupLimits { age: Duration::from_secs(1), bytes: 4096, keys: 5 };
            let store = MemoryDedup::new(limits);
            let mut now = Instant::now();
            for (number, bytes, keep, wait) in steps {
                now += Duration::from_millis(wait);
                if keep {
                    store.keep(key(number), answer(bytes), now);
                    prop_assert_eq!(store.find(&key(number), now), Some(answer(bytes)));
                } else {
                    store.find(&key(number), now);
                }
                let (keys, bytes) = store.usage();
                prop_assert!(keys <= limits.keys && bytes <= limits.bytes);
                let table = store.table();
                prop_assert_eq!(table.by_age.len(), keys);
                prop_assert_eq!(table.by_use.len(), keys);
                prop_assert_eq!(table.entries.values().map(|entry| entry.bytes).sum::<usize>(), bytes);
            }
        }
    }
}
