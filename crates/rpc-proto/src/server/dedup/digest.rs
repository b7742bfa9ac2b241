//! What tells a request that comes again from another one under the same key.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::Message;

/// A digest of what a request asks for: its body and how that is encoded.
///
/// It is SipHash-1-3 of 128 bits with a key of zeros, the same in every version, so that a store may
/// outlive its process. It is there for mistakes, and no secret hangs on it: whoever knows another
/// caller's key and body gets that one's answer by sending them, without any collision; and whoever
/// makes two requests of his own collide gets an answer of his own. So nothing stronger is needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 16]);

impl Digest {
    pub(in crate::server) fn of(message: &Message) -> Self {
        let mut state = SipHasher13::new();
        // What has no content type is told from what has an empty one, and each part ends somewhere.
        let content_type = message.content_type.as_ref().map(|text| text.as_str());
        state.write(&[u8::from(content_type.is_some())]);
        for part in [content_type.unwrap_or_default().as_bytes(), &message.body] {
            state.write(&(part.len() as u64).to_le_bytes());
            state.write(part);
        }
        Self(state.finish128().as_bytes())
    }

    /// One that was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// As it is stored.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ShortString;

    fn of(content_type: Option<&'static str>, body: &'static str) -> Digest {
        let mut message = Message::new(body);
        message.content_type = content_type.map(ShortString::from_static);
        Digest::of(&message)
    }

    #[test]
    fn each_part_counts_and_none_runs_into_the_next() {
        let all = [
            of(None, "30"),
            of(None, "31"),
            of(Some(""), "30"),
            of(Some("text/plain"), "30"),
            of(Some("text/plain3"), "0"),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(!all[..place].contains(one), "{place}");
        }
        assert_eq!(of(Some("text/plain"), "30"), all[3]);
    }

    #[test]
    fn stores_of_later_versions_know_it_again() {
        let digest = of(Some("text/plain"), "30");
        assert_eq!(Digest::from_bytes(digest.to_bytes()), digest);
        let text: String = digest.to_bytes().map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(text, "0fd49d00df05391c9d75a949cfb4625a");
    }
}
