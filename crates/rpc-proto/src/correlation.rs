//! The identity of a call, and how it travels as a correlation id.

use std::fmt;

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
        let text = self.characters();
        // 22 ASCII characters: far below the limit of a short string.
        std::str::from_utf8(&text)
            .ok()
            .and_then(|text| ShortString::new(text).ok())
            .unwrap_or_default()
    }

    /// Reads a `correlation_id`; `None` for anything that is not one of ours.
    #[must_use]
    pub fn from_correlation_id(text: &str) -> Option<Self> {
        let text: &[u8; LEN] = text.as_bytes().try_into().ok()?;
        let (high, text) = text.split_first_chunk::<WORD>()?;
        let (middle, last) = text.split_first_chunk::<WORD>()?;
        let (high, middle, last) = (read(high)?, read(middle)?, read(last)?);
        // 22 characters hold 132 bits. The last four must be zero, or sixteen spellings would name
        // one call.
        if last & 0b1111 != 0 {
            return None;
        }
        let bits = u128::from(high) << 68 | u128::from(middle) << 8 | u128::from(last >> 4);
        Some(Self(bits))
    }

    fn characters(self) -> [u8; LEN] {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is cut off is written after it"
        )]
        let (high, middle, last) = ((self.0 >> 68) as u64, (self.0 >> 8) as u64, self.0 as u64);
        let mut text = [0; LEN];
        write(&mut text[..WORD], high);
        write(&mut text[WORD..2 * WORD], middle);
        write(&mut text[2 * WORD..], last << 4);
        text
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallId({})", self.to_correlation_id())
    }
}

const LEN: usize = 22;

/// Ten characters are 60 bits, which a processor shifts at once; the last two are twelve.
const WORD: usize = 10;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// What each byte stands for.
const VALUES: [u8; 256] = {
    let mut values = [FOREIGN; 256];
    let mut value = 0;
    while value < ALPHABET.len() {
        #[expect(clippy::cast_possible_truncation, reason = "there are 64")]
        let short = value as u8;
        values[ALPHABET[value] as usize] = short;
        value += 1;
    }
    values
};

/// A bit that no digit has.
const FOREIGN: u8 = 0b1000_0000;

fn write(text: &mut [u8], mut bits: u64) {
    for character in text.iter_mut().rev() {
        *character = ALPHABET[(bits & 0b11_1111) as usize];
        bits >>= 6;
    }
}

fn read(text: &[u8]) -> Option<u64> {
    let (mut bits, mut all) = (0u64, 0u8);
    for &character in text {
        let value = VALUES[usize::from(character)];
        all |= value;
        bits = bits << 6 | u64::from(value);
    }
    (all & FOREIGN == 0).then_some(bits)
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
