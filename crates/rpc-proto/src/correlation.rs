//! The identity of a call, and how it travels as a correlation id.

use std::fmt;

use smol_str::SmolStr;

use crate::ShortString;

/// The identity of one attempt at a call: 128 random bits, never used twice.
///
/// The bits come from the driver, which has a random generator fit for secrets: whoever can guess
/// the id of a pending call can forge its answer. On the wire it is 22 characters of base64url.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(u128);

impl CallId {
    /// The id made of these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits it is made of.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// As it stands in `correlation_id`.
    #[must_use]
    pub fn to_correlation_id(self) -> ShortString {
        let text: SmolStr = self.characters().into_iter().map(char::from).collect();
        // 22 ASCII characters: far below the limit of a short string.
        ShortString::new(text).unwrap_or_default()
    }

    /// Reads a `correlation_id`; `None` for anything that is not one of ours.
    #[must_use]
    pub fn from_correlation_id(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        if text.len() != LEN {
            return None;
        }
        let (last, rest) = text.split_last()?;
        let mut bits = 0u128;
        for &character in rest {
            bits = bits << 6 | u128::from(value(character)?);
        }
        // 21 characters hold 126 bits. The last one holds two, and its other four must be zero, or
        // sixteen spellings would name one call.
        let last = value(*last)?;
        if last & 0b1111 != 0 {
            return None;
        }
        Some(Self(bits << 2 | u128::from(last >> 4)))
    }

    fn characters(self) -> [u8; LEN] {
        let mut text = [0; LEN];
        let (last, rest) = text.split_at_mut(LEN - 1);
        for (place, character) in last.iter_mut().enumerate() {
            *character = digit(self.0 >> (128 - 6 * (place + 1)));
        }
        rest[0] = digit(self.0 << 4);
        text
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({})", self.to_correlation_id())
    }
}

const LEN: usize = 22;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

const fn digit(bits: u128) -> u8 {
    ALPHABET[(bits & 0b11_1111) as usize]
}

const fn value(character: u8) -> Option<u8> {
    match character {
        b'A'..=b'Z' => Some(character - b'A'),
        b'a'..=b'z' => Some(character - b'a' + 26),
        b'0'..=b'9' => Some(character - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_id_survives_the_wire(bits: u128) {
            let id = CallId::from_bits(bits);
            let text = id.to_correlation_id();
            prop_assert_eq!(text.as_str().len(), LEN);
            prop_assert_eq!(CallId::from_correlation_id(text.as_str()), Some(id));
        }

        #[test]
        fn one_id_has_one_spelling(text in "[A-Za-z0-9_-]{22}") {
            if let Some(id) = CallId::from_correlation_id(&text) {
                prop_assert_eq!(id.to_correlation_id(), text.as_str());
            }
        }

        #[test]
        fn foreign_ids_are_not_ours(text in "\\PC{0,40}") {
            let _ = CallId::from_correlation_id(&text);
        }
    }
}
