//! The few frames of AMQP 0-9-1 that an RPC loop needs, as bytes.

/// Begins a frame in `out`, and ends it with what `fill` puts in.
pub(super) fn frame(out: &mut Vec<u8>, kind: u8, channel: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    let length_at = out.len();
    out.extend([0; 4]);
    fill(out);
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&length.to_be_bytes());
    out.push(END);
}

/// A method frame.
pub(super) fn method(
    out: &mut Vec<u8>,
    channel: u16,
    (class, method): (u16, u16),
    fill: impl FnOnce(&mut Vec<u8>),
) {
    frame(out, METHOD, channel, |out| {
        out.extend(class.to_be_bytes());
        out.extend(method.to_be_bytes());
        fill(out);
    });
}

/// A name of at most 255 bytes.
pub(super) fn short(out: &mut Vec<u8>, text: &[u8]) {
    debug_assert!(text.len() < 256);
    out.push(text.len() as u8);
    out.extend(text);
}

/// A text of any length.
pub(super) fn long(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u32).to_be_bytes());
    out.extend(text);
}

/// Reads what a frame holds, from the front. What is not there is read as zero or empty: the broker
/// is trusted here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl<'b> Reader<'b> {
    pub(super) fn bytes(&mut self, count: usize) -> &'b [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) fn number(&mut self, width: usize) -> u64 {
        let digits = self.bytes(width).iter();
        digits.fold(0, |number, digit| number << 8 | u64::from(*digit))
    }

    pub(super) fn short(&mut self) -> &'b [u8] {
        let length = self.number(1) as usize;
        self.bytes(length)
    }

    /// The class and the method of a method frame.
    pub(super) fn method(&mut self) -> (u16, u16) {
        (self.number(2) as u16, self.number(2) as u16)
    }
}

pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;
pub(super) const END: u8 = 0xCE;

/// What a frame has besides its payload.
pub(super) const OVERHEAD: usize = 8;

/// The bits by which a content header says which properties follow.
pub(super) const HAS_CORRELATION_ID: u16 = 1 << 10;
pub(super) const HAS_REPLY_TO: u16 = 1 << 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_is_read_as_it_was_written() {
        let mut out = Vec::new();
        method(&mut out, 1, (60, 40), |out| short(out, b"queue"));
        assert_eq!(out.len(), OVERHEAD + 4 + 6);
        let mut reader = Reader(&out);
        assert_eq!((reader.number(1), reader.number(2)), (1, 1));
        assert_eq!(reader.number(4), 10);
        assert_eq!(reader.method(), (60, 40));
        assert_eq!(reader.short(), b"queue");
        assert_eq!(reader.bytes(9), [END]);
        assert_eq!(reader.number(8), 0);
    }
}
