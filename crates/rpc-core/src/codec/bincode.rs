//! bincode 1.3, with fixed-width integers.
//!
//! The library is complete and no longer maintained (RUSTSEC-2025-0141), so it is one codec among
//! several and never the default. It reads only slices whose size was checked before; from a reader
//! it would allocate whatever length a body claims.

use bincode::Options;
use bytes::Bytes;

use super::{Codec, CodecError, Visit};
use crate::ShortString;

/// `application/x-bincode`: version 1.3, fixed-width little-endian integers.
///
/// Not for recursive types, whose nesting nothing limits, nor for sequences of empty elements,
/// which cost time by the length they claim.
#[derive(Clone, Copy, Debug)]
pub struct Bincode {
    /// The longest encoding produced and the longest body read, in bytes.
    pub max_len: u64,
}

impl Default for Bincode {
    fn default() -> Self {
        Self { max_len: 4 << 20 }
    }
}

impl Bincode {
    fn options(self) -> impl Options + Copy {
        bincode::DefaultOptions::new()
            .with_fixint_encoding()
            .reject_trailing_bytes()
            .with_limit(self.max_len)
    }
}

impl Codec for Bincode {
    fn content_type(&self) -> ShortString {
        ShortString::from_static("application/x-bincode")
    }

    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes, CodecError> {
        self.options()
            .serialize(value)
            .map(Bytes::from)
            .map_err(CodecError::new)
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        // The limit of bincode's options does not hold for slices.
        if body.len() as u64 > self.max_len {
            let limit = self.max_len;
            let len = body.len();
            return Err(CodecError::new(format!(
                "{len} bytes, and the limit is {limit}"
            )));
        }
        self.options()
            .deserialize_seed(Seed(visit), body)
            .map_err(CodecError::new)
    }
}

/// Hands the deserializer to the visit: bincode checks for trailing bytes only where it drives.
struct Seed<'a, 'v>(&'a mut Visit<'v>);

impl<'de> serde::de::DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0(&mut <dyn erased_serde::Deserializer<'_>>::erase(
            deserializer,
        ))
        .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;

    #[test]
    fn values_survive_and_are_compact() {
        let body = encode(&Bincode::default(), &186u64).unwrap();
        assert_eq!(body.len(), 8);
        assert_eq!(decode::<u64>(&Bincode::default(), &body).unwrap(), 186);
    }

    #[test]
    fn claimed_lengths_and_trailing_bytes_are_refused() {
        let codec = Bincode::default();
        let mut claimed = (1u64 << 40).to_le_bytes().to_vec();
        claimed.extend_from_slice(b"abcd");
        assert!(decode::<String>(&codec, &claimed).is_err());
        assert!(decode::<u64>(&codec, &[0; 9]).is_err());
        assert!(decode::<Vec<u8>>(&Bincode { max_len: 4 }, &[0; 8]).is_err());
    }
}
