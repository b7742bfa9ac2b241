//! Looks at the length of each frame before amiquip sees it: the library makes room for whatever the
//! first seven bytes of a peer claim, up to 4 GiB, and fills it with zeros.

use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};

use amiquip::IoStream;
use amqp_broker::NOT_AMQP;
use mio::event::Evented;
use mio::{Poll, PollOpt, Ready, Token};

/// Type, channel and length.
const HEADER: usize = 7;
/// The byte that ends a frame, which its length does not count.
const END: u64 = 1;
/// The type of a frame that holds a method.
const METHOD: u8 = 1;
/// What a peer of another version begins its answer with.
const PROTOCOL: u8 = b'A';

/// A stream whose frames are checked.
///
/// All that comes in is walked over from header to header, which costs some nanoseconds for each.
#[derive(Debug)]
pub(crate) struct Framed<S> {
    stream: S,
    walk: Walk,
    fault: Fault,
}

/// What was wrong with the frames of a stream, for who has no other way to learn it: amiquip takes
/// any error at one stage of the handshake for a wrong password.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Arc<OnceLock<String>>);

impl Fault {
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

impl<S> Framed<S> {
    /// Over a stream whose peer may send frames of so many bytes.
    pub(crate) fn new(stream: S, most: u32) -> (Self, Fault) {
        let fault = Fault::default();
        let framed = Self {
            stream,
            walk: Walk::new(most),
            fault: fault.clone(),
        };
        (framed, fault)
    }
}

impl<S: Read> Read for Framed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(fault) = self.fault.get() {
            return Err(invalid(fault));
        }
        let read = self.stream.read(buffer)?;
        let Err(fault) = self.walk.over(buffer.get(..read).unwrap_or_default()) else {
            return Ok(read);
        };
        Err(invalid(self.fault.0.get_or_init(|| fault)))
    }
}

impl<S: Write> Write for Framed<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Evented> Evented for Framed<S> {
    fn register(&self, poll: &Poll, token: Token, to: Ready, how: PollOpt) -> io::Result<()> {
        self.stream.register(poll, token, to, how)
    }

    fn reregister(&self, poll: &Poll, token: Token, to: Ready, how: PollOpt) -> io::Result<()> {
        self.stream.reregister(poll, token, to, how)
    }

    fn deregister(&self, poll: &Poll) -> io::Result<()> {
        self.stream.deregister(poll)
    }
}

impl<S: IoStream> IoStream for Framed<S> {}

fn invalid(fault: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, fault)
}

/// Where in the stream of frames we are.
#[derive(Debug)]
struct Walk {
    /// The longest frame there may be, with header and end.
    most: u64,
    header: [u8; HEADER],
    /// How much of the header is there.
    known: usize,
    /// What is left of the frame behind its header.
    rest: u64,
    /// The peer has not shown yet that it speaks AMQP.
    first: bool,
}

impl Walk {
    fn new(most: u32) -> Self {
        Self {
            most: most.into(),
            header: [0; HEADER],
            known: 0,
            rest: 0,
            first: true,
        }
    }

    fn over(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.rest > 0 {
                let rest = usize::try_from(self.rest).unwrap_or(usize::MAX);
                let step = rest.min(bytes.len());
                self.rest -= step as u64;
                bytes = bytes.get(step..).unwrap_or_default();
                continue;
            }
            let step = (HEADER - self.known).min(bytes.len());
            let (now, later) = bytes.split_at(step);
            for (place, byte) in self.header.iter_mut().skip(self.known).zip(now) {
                *place = *byte;
            }
            self.known += step;
            bytes = later;
            // Not only when it is whole: a stranger may take its time.
            self.check_first()?;
            if self.known == HEADER {
                self.begin()?;
            }
        }
        Ok(())
    }

    /// A broker begins with a method on channel 0.
    fn check_first(&self) -> Result<(), String> {
        if !self.first {
            return Ok(());
        }
        if self.header[0] == PROTOCOL {
            return Err(format!("{NOT_AMQP}: it speaks another version"));
        }
        let expected = [METHOD, 0, 0];
        let known = self.known.min(expected.len());
        if self.header[..known] == expected[..known] {
            Ok(())
        } else {
            Err(NOT_AMQP.to_owned())
        }
    }

    fn begin(&mut self) -> Result<(), String> {
        let [_, _, _, length @ ..] = self.header;
        let length = u64::from(u32::from_be_bytes(length));
        if length + END + HEADER as u64 > self.most {
            let most = self.most;
            return Err(match self.first {
                true => NOT_AMQP.to_owned(),
                false => format!("a frame of {length} bytes is over the limit of {most}"),
            });
        }
        self.rest = length + END;
        self.known = 0;
        self.first = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&[kind, 0, channel][..], &length, payload, &[0xce]].concat()
    }

    /// Reads it all in pieces of this size, as far as it goes.
    fn read(bytes: &[u8], piece: usize) -> (Vec<u8>, Result<(), String>) {
        let (mut framed, fault) = Framed::new(bytes, 4096);
        let mut got = Vec::new();
        let mut buffer = vec![0; piece];
        loop {
            match framed.read(&mut buffer) {
                Ok(0) => return (got, Ok(())),
                Ok(read) => got.extend(&buffer[..read]),
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                    assert_eq!(fault.get(), Some(&*error.to_string()));
                    framed.read(&mut buffer).expect_err("it stays so");
                    return (got, Err(error.to_string()));
                }
            }
        }
    }

    #[test]
    fn frames_pass_in_whatever_pieces_they_come() {
        let longest = vec![7; 4096 - 8];
        let stream = [
            frame(1, 0, b"start"),
            frame(8, 0, b""),
            frame(1, 3, b"deliver"),
            frame(3, 3, &longest),
            frame(1, 0, b"close"),
        ]
        .concat();
        for piece in [1, 2, 6, 7, 8, 9, 100, 10_000] {
            let (got, result) = read(&stream, piece);
            assert_eq!(result, Ok(()), "{piece}");
            assert_eq!(got, stream, "{piece}");
        }
    }

    #[test]
    fn who_is_no_broker_is_known_by_the_first_bytes() {
        let table: [(&[u8], usize); 7] = [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", 0),
            (b"SSH-2.0-OpenSSH_9.2\r\n", 0),
            (b"\x15\x03\x03\x00\x02\x02\x50", 0),
            (b"AMQP\x00\x01\x00\x00", 0),
            (b"\x01\x00\x07\x00\x00\x00\x05hello\xce", 2),
            (b"\x08\x00\x00\x00\x00\x00\x00\xce", 0),
            (b"\x01\x00\x00\xff\xff\xff\xff", 6),
        ];
        for (said, passes) in table {
            let (got, result) = read(said, 1);
            assert!(result.unwrap_err().starts_with(NOT_AMQP), "{said:?}");
            assert_eq!(got.len(), passes, "{said:?}");
            assert!(read(said, 4096).1.is_err(), "{said:?}");
        }
        let (_, other_version) = read(b"AMQP\x00\x01\x00\x00", 8);
        assert!(other_version.unwrap_err().contains("another version"));
    }

    #[test]
    fn a_later_frame_is_held_to_the_limit_too() {
        let stream = [frame(1, 0, b"start"), vec![3, 0, 1, 0x40, 0, 0, 0]].concat();
        for piece in [1, 7, 4096] {
            let (_, result) = read(&stream, piece);
            let fault = result.unwrap_err();
            assert!(fault.contains("1073741824 bytes"), "{fault}");
            assert!(fault.contains("4096"), "{fault}");
        }
    }
}
