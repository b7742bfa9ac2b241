//! The argument of the service: which Fibonacci number, as peers of every kind write it.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// Which Fibonacci number.
///
/// Encoded it is a `u64`. Decoded it is any whole number from 0 on: one that does not fit becomes
/// the largest that does, since both are equally out of range, and the caller is told that instead
/// of that its number cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Index(u64);

impl Index {
    /// The index `n`.
    #[must_use]
    pub const fn new(n: u64) -> Self {
        Self(n)
    }

    /// Reads decimal digits of any number, and nothing else; `None` where there is anything else.
    #[must_use]
    pub fn parse(digits: &str) -> Option<Self> {
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        // Digits fail to parse only by being too many.
        Some(Self(digits.parse().unwrap_or(u64::MAX)))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Index {
    fn from(n: u64) -> Self {
        Self(n)
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            u64::MAX => write!(f, "{} or more", u64::MAX),
            n => n.fmt(f),
        }
    }
}

impl Serialize for Index {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(WholeNumber)
    }
}

struct WholeNumber;

impl Visitor<'_> for WholeNumber {
    type Value = Index;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number from 0 on")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Index, E> {
        Ok(Index(number))
    }

    fn visit_u128<E: Error>(self, number: u128) -> Result<Index, E> {
        Ok(Index(u64::try_from(number).unwrap_or(u64::MAX)))
    }

    /// JSON offers integers over 64 bits like this. A smaller one was written with a point or an
    /// exponent, and is no whole number to this service even where it has the value of one.
    fn visit_f64<E: Error>(self, number: f64) -> Result<Index, E> {
        const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;
        if number >= TWO_TO_64 && number.is_finite() {
            return Ok(Index(u64::MAX));
        }
        Err(E::invalid_type(Unexpected::Float(number), &self))
    }

    /// Plain text offers integers over 128 bits like this.
    fn visit_str<E: Error>(self, digits: &str) -> Result<Index, E> {
        Index::parse(digits).ok_or_else(|| E::custom("expected a whole number from 0 on"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rpc_core::codec::{Bincode, Codec, Json, Text, decode, encode};

    use super::*;

    fn text(body: &str) -> Option<u64> {
        decode::<Index>(&Text, body.as_bytes()).ok().map(Index::get)
    }

    fn json(body: &str) -> Option<u64> {
        decode::<Index>(&Json, body.as_bytes()).ok().map(Index::get)
    }

    const HUGE: [&str; 3] = [
        "18446744073709551616",                    // 2^64
        "340282366920938463463374607431768211456", // 2^128
        "99999999999999999999999999999999999999999999999999",
    ];

    #[test]
    fn numbers_of_any_length_are_understood() {
        for huge in HUGE {
            assert_eq!(text(huge), Some(u64::MAX), "{huge}");
            assert_eq!(json(huge), Some(u64::MAX), "{huge}");
        }
        assert_eq!(text(&"0".repeat(1000)), Some(0));
        assert_eq!(text(&format!("{}30", "0".repeat(1000))), Some(30));
        assert_eq!(text(" 30\r\n"), Some(30));
        assert_eq!(json("1e30"), Some(u64::MAX));
    }

    #[test]
    fn whatever_else_is_refused() {
        for bad in [
            "", " ", "-1", "-0", "+1", "1e9", "30.0", "0x1e", "abc", "3 0",
        ] {
            assert_eq!(text(bad), None, "{bad:?}");
        }
        let long = format!("-{}", "9".repeat(1000));
        for bad in [
            &*long, "", "-1", "30.0", "1e9", "0.5", "-1e30", "1e400", "null", "[30]", "\"30\"",
        ] {
            assert_eq!(json(bad), None, "{bad:?}");
        }
        assert_eq!(text(&long), None);
        assert!(decode::<Index>(&Bincode::default(), &[30]).is_err());
        assert!(decode::<Index>(&Bincode::default(), &[0; 9]).is_err());
    }

    proptest! {
        #[test]
        fn every_index_survives_every_codec(n: u64) {
            let codecs: [&dyn Codec; 3] = [&Text, &Json, &Bincode::default()];
            for codec in codecs {
                let body = encode(codec, &Index::new(n)).unwrap();
                prop_assert_eq!(decode::<Index>(codec, &body).unwrap(), Index::new(n));
            }
        }

        #[test]
        fn every_result_survives_every_codec(number: u128) {
            let codecs: [&dyn Codec; 3] = [&Text, &Json, &Bincode::default()];
            for codec in codecs {
                let body = encode(codec, &number).unwrap();
                prop_assert_eq!(decode::<u128>(codec, &body).unwrap(), number);
            }
        }

        #[test]
        fn in_text_exactly_digits_between_white_space_are_a_number(body in "[ \t]?[-+0-9e.]{0,45}[\r\n]?") {
            let trimmed = body.trim_ascii();
            let digits = !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit());
            prop_assert_eq!(text(&body).is_some(), digits, "{:?}", body);
        }
    }
}
