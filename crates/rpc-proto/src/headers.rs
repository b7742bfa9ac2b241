//! Message headers, bounded so that they always fit one AMQP frame.

use bytes::Bytes;

use crate::{ShortString, TooLong};

/// The value of a header.
///
/// What peers nest deeper (tables, arrays, decimals) is not carried: a transport leaves such an
/// entry out.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum HeaderValue {
    /// Raw bytes.
    Bytes(Bytes),
    /// A truth value.
    Flag(bool),
    /// A floating point number.
    Float(f64),
    /// Any of AMQP's eight integer types.
    Int(i64),
    /// Text of any length.
    Text(String),
}

impl HeaderValue {
    /// The number this stands for; decimal text counts, since peers differ in the type they send.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.trim().parse().ok(),
            Self::Flag(_) | Self::Float(_) => None,
        }
    }

    /// The text this is, from a text or from UTF-8 bytes.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Flag(_) | Self::Float(_) | Self::Int(_) => None,
        }
    }

    pub(crate) fn encoded_len(&self) -> usize {
        // One byte of type, and four of length where the length varies.
        1 + match self {
            Self::Bytes(bytes) => 4 + bytes.len(),
            Self::Flag(_) => 1,
            Self::Float(_) | Self::Int(_) => 8,
            Self::Text(text) => 4 + text.len(),
        }
    }
}

impl From<i64> for HeaderValue {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<&str> for HeaderValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for HeaderValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// The headers of a message, in the order they were put in.
///
/// Together at most [`Headers::MAX_LEN`] bytes on the wire. RabbitMQ closes the whole connection
/// when the headers of one message do not fit a frame (128 KiB as it comes, 4 KiB at the least), so
/// more cannot be put in.
///
/// Equal are headers with the same entries in any order: a broker's clients sort them as they like.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    entries: Vec<(ShortString, HeaderValue)>,
    encoded_len: usize,
}

impl Headers {
    /// The most that all headers of a message may take on the wire, in bytes.
    pub const MAX_LEN: usize = 16 * 1024;

    /// No headers. Does not allocate.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Vec::new(),
            encoded_len: 0,
        }
    }

    /// Puts a header in, in place of one of the same name.
    ///
    /// # Errors
    ///
    /// [`HeadersTooLarge`] when the name is over 255 bytes or all headers together would be over
    /// [`Headers::MAX_LEN`]; nothing is changed then.
    pub fn insert(
        &mut self,
        name: impl AsRef<str>,
        value: impl Into<HeaderValue>,
    ) -> Result<(), HeadersTooLarge> {
        self.put(ShortString::new(name)?, value.into())
    }

    /// As [`insert`](Self::insert), with a name that is checked already.
    pub(crate) fn put(
        &mut self,
        name: ShortString,
        value: HeaderValue,
    ) -> Result<(), HeadersTooLarge> {
        let old = self.entries.iter().position(|(known, _)| *known == name);
        let freed = old.map_or(0, |place| Self::entry_len(&self.entries[place]));
        let entry = (name, value);
        let len = self.encoded_len - freed + Self::entry_len(&entry);
        if len > Self::MAX_LEN {
            return Err(HeadersTooLarge { len });
        }
        self.encoded_len = len;
        match old {
            Some(place) => self.entries[place] = entry,
            None => self.entries.push(entry),
        }
        Ok(())
    }

    /// Takes a header out, and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<HeaderValue> {
        let place = self
            .entries
            .iter()
            .position(|(known, _)| known.as_str() == name)?;
        let entry = self.entries.remove(place);
        self.encoded_len -= Self::entry_len(&entry);
        Some(entry.1)
    }

    /// Makes room for so many more, at once.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.entries.reserve(more);
    }

    /// The value under this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&HeaderValue> {
        self.entries
            .iter()
            .find(|(known, _)| known.as_str() == name)
            .map(|(_, value)| value)
    }

    /// All of them, in the order they were put in.
    pub fn iter(&self) -> impl Iterator<Item = (&ShortString, &HeaderValue)> {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn entry_len((name, value): &(ShortString, HeaderValue)) -> usize {
        1 + name.as_str().len() + value.encoded_len()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        // Names are unique, so of two that have as many entries neither has more.
        self.entries.len() == other.entries.len()
            && self
                .iter()
                .all(|(name, value)| other.get(name.as_str()) == Some(value))
    }
}

/// Headers that would not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("headers of {len} bytes are over the limit")]
pub struct HeadersTooLarge {
    /// What they would have taken, in bytes.
    pub len: usize,
}

impl From<TooLong> for HeadersTooLarge {
    fn from(name: TooLong) -> Self {
        Self { len: name.len }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_not_fit_is_refused_and_changes_nothing() {
        let mut headers = Headers::new();
        headers.insert("a", "x".repeat(10_000)).unwrap();
        assert!(headers.insert("b", "x".repeat(10_000)).is_err());
        assert!(headers.insert("n".repeat(256), 1).is_err());
        assert_eq!(headers.iter().count(), 1);
        headers.insert("a", 1).unwrap();
        headers.insert("b", "x".repeat(10_000)).unwrap();
        assert_eq!(headers.get("a"), Some(&HeaderValue::Int(1)));
    }

    #[test]
    fn what_is_taken_out_makes_room() {
        let mut headers = Headers::new();
        headers.insert("a", "x".repeat(10_000)).unwrap();
        assert!(headers.remove("b").is_none());
        assert!(headers.remove("a").is_some());
        headers.insert("b", "x".repeat(16_000)).unwrap();
        assert_eq!(headers.iter().count(), 1);
    }

    #[test]
    fn numbers_are_read_from_text_too() {
        assert_eq!(HeaderValue::from(" 14 ").as_int(), Some(14));
        assert_eq!(
            HeaderValue::Bytes(Bytes::from_static(b"7")).as_int(),
            Some(7)
        );
        assert_eq!(HeaderValue::Float(7.0).as_int(), None);
    }
}
