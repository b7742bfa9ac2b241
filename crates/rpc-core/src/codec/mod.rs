//! Codecs: how arguments and results become bodies, chosen by content type and never by looking at
//! the body.

#[cfg(feature = "bincode")]
mod bincode;
#[cfg(feature = "json")]
mod json;
#[cfg(feature = "text")]
mod text;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "bincode")]
pub use self::bincode::Bincode;
#[cfg(feature = "json")]
pub use self::json::Json;
#[cfg(feature = "text")]
pub use self::text::Text;
use crate::ShortString;
use crate::proto::wire;

/// One encoding of serde's values.
///
/// # Implementing
///
/// `decode` gets bodies from strangers that have passed nothing but a check of their size: it must
/// neither allocate by a length that the body claims, nor recurse without a limit, and it refuses
/// bytes that are left over.
pub trait Codec: Debug + Send + Sync + 'static {
    /// The media type it is registered under, without parameters.
    fn content_type(&self) -> ShortString;

    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// The value has no form in this encoding.
    fn encode(&self, value: &dyn erased_serde::Serialize) -> Result<Bytes, CodecError>;

    /// Decodes a body: makes a deserializer of it and has `visit` read the value.
    ///
    /// # Errors
    ///
    /// The body is malformed, is of another type, or goes on after the value.
    fn decode(&self, body: &[u8], visit: &mut Visit<'_>) -> Result<(), CodecError>;
}

/// Reads one value from the deserializer of a [`Codec`].
pub type Visit<'a> =
    dyn FnMut(&mut dyn erased_serde::Deserializer<'_>) -> Result<(), erased_serde::Error> + 'a;

/// Why a value has no encoding, or a body no value.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(String);

impl CodecError {
    /// In words that may be told to the peer.
    pub fn new(why: impl std::fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// Encodes `value`.
///
/// # Errors
///
/// The value has no form in this encoding.
pub fn encode<T: Serialize + ?Sized>(codec: &dyn Codec, value: &T) -> Result<Bytes, CodecError> {
    codec.encode(&value)
}

/// Decodes `body` into a `T`.
///
/// # Errors
///
/// The body is malformed, is of another type, or goes on after the value.
pub fn decode<T: DeserializeOwned>(codec: &dyn Codec, body: &[u8]) -> Result<T, CodecError> {
    let mut value = None;
    codec.decode(body, &mut |deserializer| {
        value = Some(erased_serde::deserialize(deserializer)?);
        Ok(())
    })?;
    value.ok_or_else(|| CodecError::new("the codec did not read the body"))
}

/// The codecs that a client or a service understands.
#[derive(Clone, Debug, Default)]
pub struct Codecs(Vec<(ShortString, Arc<dyn Codec>)>);

impl Codecs {
    /// None at all.
    #[must_use]
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Those built in by features.
    #[must_use]
    pub fn built_in() -> Self {
        let codecs = Self::none();
        #[cfg(feature = "text")]
        let codecs = codecs.with(Text);
        #[cfg(feature = "json")]
        let codecs = codecs.with(Json);
        #[cfg(feature = "bincode")]
        let codecs = codecs.with(Bincode::default());
        codecs
    }

    /// Adds one, in place of one of the same content type.
    #[must_use]
    pub fn with(mut self, codec: impl Codec) -> Self {
        let content_type = codec.content_type();
        self.0.retain(|(known, _)| *known != content_type);
        self.0.push((content_type, Arc::new(codec)));
        self
    }

    /// The codec of this content type, parameters aside. None given means text: that is how plain
    /// scripts write.
    #[must_use]
    pub fn find(&self, content_type: Option<&ShortString>) -> Option<&Arc<dyn Codec>> {
        let text = wire::TEXT;
        let wanted = wire::media_type(content_type.unwrap_or(&text).as_str());
        self.0
            .iter()
            .find(|(known, _)| known.as_str().eq_ignore_ascii_case(wanted))
            .map(|(_, codec)| codec)
    }

    /// The content types understood, for error messages.
    pub fn content_types(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(content_type, _)| content_type.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types_are_found_without_their_parameters() {
        let codecs = Codecs::built_in();
        let find = |text: &str| {
            codecs
                .find(Some(&ShortString::new(text).unwrap()))
                .is_some()
        };
        assert!(find("application/json; charset=utf-8"));
        assert!(find("Text/Plain"));
        assert!(!find("application/x-python-pickle"));
        assert!(codecs.find(None).is_some());
    }
}
