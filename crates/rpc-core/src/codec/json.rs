//! JSON, with serde_json's limit on nesting left on.

use bytes::Bytes;

use super::{Codec, CodecError, Visit};
use crate::ShortString;

/// `application/json`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Codec for Json {
    fn content_type(&self) -> ShortString {
        ShortString::from_static("application/json")
    }

    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes, CodecError> {
        serde_json::to_vec(value)
            .map(Bytes::from)
            .map_err(CodecError::new)
    }

    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError> {
        let mut json = serde_json::Deserializer::from_slice(body);
        visit(&mut <dyn erased_serde::Deserializer<'_>>::erase(&mut json))
            .map_err(CodecError::new)?;
        json.end().map_err(CodecError::new)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{decode, encode};
    use super::*;

    #[test]
    fn large_numbers_survive() {
        let body = encode(&Json, &u128::MAX).unwrap();
        assert_eq!(decode::<u128>(&Json, &body).unwrap(), u128::MAX);
    }

    #[test]
    fn what_is_left_over_or_nested_too_deep_is_refused() {
        assert!(decode::<u64>(&Json, b"30 40").is_err());
        assert!(decode::<u64>(&Json, b"").is_err());
        let nested = "[".repeat(100_000);
        assert!(decode::<serde_json::Value>(&Json, nested.as_bytes()).is_err());
    }
}
