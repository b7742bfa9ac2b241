//! AMQP's short string as a checked type: at most 255 bytes, or it cannot be built.

use std::fmt;

use smol_str::SmolStr;

/// UTF-8 text of at most 255 bytes, cheap to clone.
///
/// Queue names, routing keys, correlation ids and every other name that travels is one of these.
/// AMQP 0-9-1 writes their length in one byte, and client libraries answer a longer one with a
/// panic or a corrupt frame, so the length is checked once, here.
///
/// Up to 23 bytes are stored inline: a correlation id of ours costs no allocation.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShortString(SmolStr);

impl ShortString {
    /// The longest text that fits, in bytes.
    pub const MAX_LEN: usize = 255;

    /// Checks `text` and takes it in.
    ///
    /// # Errors
    ///
    /// [`TooLong`] when `text` has more than 255 bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, TooLong> {
        let text = text.as_ref();
        if text.len() > Self::MAX_LEN {
            return Err(TooLong { len: text.len() });
        }
        Ok(Self(SmolStr::new(text)))
    }

    /// A constant, checked at compile time when used in one.
    ///
    /// # Panics
    ///
    /// When `text` has more than 255 bytes.
    #[must_use]
    pub const fn from_static(text: &'static str) -> Self {
        assert!(
            text.len() <= Self::MAX_LEN,
            "a short string has at most 255 bytes"
        );
        Self(SmolStr::new_static(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether there is no text at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl AsRef<str> for ShortString {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl TryFrom<&str> for ShortString {
    type Error = TooLong;

    fn try_from(text: &str) -> Result<Self, TooLong> {
        Self::new(text)
    }
}

impl TryFrom<String> for ShortString {
    type Error = TooLong;

    fn try_from(text: String) -> Result<Self, TooLong> {
        Self::new(text)
    }
}

impl PartialEq<str> for ShortString {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for ShortString {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ShortString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A text that does not fit a [`ShortString`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes, and AMQP allows 255 here")]
pub struct TooLong {
    /// Its length in bytes.
    pub len: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_counts_bytes_and_not_characters() {
        assert!(ShortString::new("x".repeat(255)).is_ok());
        assert_eq!(ShortString::new("x".repeat(256)), Err(TooLong { len: 256 }));
        assert_eq!(ShortString::new("é".repeat(128)), Err(TooLong { len: 256 }));
    }
}
