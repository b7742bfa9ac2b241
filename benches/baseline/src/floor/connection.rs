//! One connection with one channel, as bare as it can be: what is published waits in one buffer until it is flushed, and
//! all that one read brings is taken in before the next.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use amqp_broker::{AmqpUrl, dial};
use anyhow::{Result, bail, ensure};

use super::frame::{
    BODY, END, HAS_CORRELATION_ID, HAS_REPLY_TO, HEADER, HEARTBEAT, METHOD, OVERHEAD, Reader,
    frame, long, method, short,
};

/// A message that was delivered.
#[derive(Clone, Debug, Default)]
pub(super) struct Delivery {
    pub(super) tag: u64,
    pub(super) correlation_id: Vec<u8>,
    pub(super) reply_to: Vec<u8>,
    pub(super) body: Vec<u8>,
    size: usize,
}

/// What the broker sends while the loop runs.
#[derive(Debug)]
pub(super) enum Event<'d> {
    Delivery(&'d Delivery),
    Confirm { number: u64, multiple: bool },
}

pub(super) struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    input: Vec<u8>,
    /// How much of `input` was received.
    filled: usize,
    delivery: Delivery,
    largest_frame: usize,
}

impl Connection {
    /// Connects, logs in, and opens a channel.
    pub(super) fn open(url: &AmqpUrl) -> Result<Self> {
        let stream = dial(url, Instant::now() + LIMIT)?;
        let mut this = Self {
            stream,
            out: Vec::new(),
            input: vec![0; BUFFER],
            filled: 0,
            delivery: Delivery::default(),
            largest_frame: 4096,
        };
        this.stream.set_read_timeout(Some(LIMIT))?;
        this.out.extend(b"AMQP\0\0\x09\x01");
        this.expect((10, 10))?;
        let secret = format!("\0{}\0{}", url.username(), url.expose_password());
        method(&mut this.out, 0, (10, 11), |out| {
            long(out, b"");
            short(out, b"PLAIN");
            long(out, secret.as_bytes());
            short(out, b"en_US");
        });
        let tune = this.expect((10, 30))?;
        let mut tune = Reader(&tune);
        let (channels, frame) = (tune.number(2), tune.number(4));
        this.largest_frame = frame as usize;
        method(&mut this.out, 0, (10, 31), |out| {
            out.extend((channels as u16).to_be_bytes());
            out.extend((frame as u32).to_be_bytes());
            // No heartbeats: whoever measures sees that nothing moves.
            out.extend([0; 2]);
        });
        method(&mut this.out, 0, (10, 40), |out| {
            short(out, url.vhost().as_bytes());
            out.extend([0; 2]);
        });
        this.expect((10, 41))?;
        method(&mut this.out, CHANNEL, (20, 10), |out| short(out, b""));
        this.expect((20, 11))?;
        Ok(this)
    }

    /// A work queue that goes with its last consumer.
    pub(super) fn declare_queue(&mut self, name: &str) -> Result<()> {
        self.declare(name.as_bytes(), AUTO_DELETE)?;
        Ok(())
    }

    /// A queue of this connection alone; the broker names it.
    pub(super) fn declare_inbox(&mut self) -> Result<Vec<u8>> {
        self.declare(b"", EXCLUSIVE | AUTO_DELETE)
    }

    fn declare(&mut self, name: &[u8], kind: u8) -> Result<Vec<u8>> {
        method(&mut self.out, CHANNEL, (50, 10), |out| {
            out.extend([0; 2]);
            short(out, name);
            out.push(kind);
            long(out, b"");
        });
        let declared = self.expect((50, 11))?;
        Ok(Reader(&declared).short().to_vec())
    }

    pub(super) fn limit(&mut self, prefetch: u16) -> Result<()> {
        method(&mut self.out, CHANNEL, (60, 10), |out| {
            out.extend([0; 4]);
            out.extend(prefetch.to_be_bytes());
            out.push(0);
        });
        self.expect((60, 11))?;
        Ok(())
    }

    pub(super) fn select_confirms(&mut self) -> Result<()> {
        method(&mut self.out, CHANNEL, (85, 10), |out| out.push(0));
        self.expect((85, 11))?;
        Ok(())
    }

    pub(super) fn consume(&mut self, queue: &[u8], no_ack: bool) -> Result<()> {
        method(&mut self.out, CHANNEL, (60, 20), |out| {
            out.extend([0; 2]);
            short(out, queue);
            short(out, b"");
            out.push(if no_ack { NO_ACK } else { 0 });
            long(out, b"");
        });
        self.expect((60, 21))?;
        // From here on the loop waits as long as it takes.
        self.stream.set_read_timeout(None)?;
        Ok(())
    }

    /// Puts a message into the buffer.
    pub(super) fn publish(
        &mut self,
        queue: &[u8],
        correlation_id: &[u8],
        reply_to: Option<&[u8]>,
        body: &[u8],
        mandatory: bool,
    ) {
        let out = &mut self.out;
        method(out, CHANNEL, (60, 40), |out| {
            out.extend([0; 2]);
            short(out, b"");
            short(out, queue);
            out.push(u8::from(mandatory));
        });
        frame(out, HEADER, CHANNEL, |out| {
            out.extend(60_u16.to_be_bytes());
            out.extend([0; 2]);
            out.extend((body.len() as u64).to_be_bytes());
            let flags = HAS_CORRELATION_ID | reply_to.map_or(0, |_| HAS_REPLY_TO);
            out.extend(flags.to_be_bytes());
            short(out, correlation_id);
            if let Some(reply_to) = reply_to {
                short(out, reply_to);
            }
        });
        for part in body.chunks(self.largest_frame - OVERHEAD) {
            frame(out, BODY, CHANNEL, |out| out.extend(part));
        }
    }

    /// Puts an acknowledgement of all deliveries up to this one into the buffer.
    pub(super) fn acknowledge(&mut self, tag: u64) {
        method(&mut self.out, CHANNEL, (60, 80), |out| {
            out.extend(tag.to_be_bytes());
            out.push(1);
        });
    }

    /// Sends the buffer.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    /// Reads once, and hands on all that is complete.
    pub(super) fn receive(&mut self, mut on: impl FnMut(Event<'_>)) -> Result<()> {
        self.read()?;
        let input = std::mem::take(&mut self.input);
        let mut taken = 0;
        let result = loop {
            let Some((kind, payload, length)) = first_frame(&input[taken..self.filled]) else {
                break Ok(());
            };
            taken += length;
            if let Err(error) = take(&mut self.delivery, kind, Reader(payload), &mut on) {
                break Err(error);
            }
        };
        self.input = input;
        self.forget(taken);
        result
    }

    /// Sends the buffer and waits for this method; what it says.
    fn expect(&mut self, expected: (u16, u16)) -> Result<Vec<u8>> {
        self.flush()?;
        loop {
            if let Some((kind, payload, length)) = first_frame(&self.input[..self.filled]) {
                let mut reader = Reader(payload);
                let came = reader.method();
                let said = reader.0.to_vec();
                ensure!(
                    kind == METHOD && came == expected,
                    "the broker said {came:?} instead of {expected:?}: {}",
                    String::from_utf8_lossy(&said)
                );
                self.forget(length);
                return Ok(said);
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Result<()> {
        if self.filled == self.input.len() {
            self.input.resize(self.filled * 2, 0);
        }
        let count = self.stream.read(&mut self.input[self.filled..])?;
        ensure!(count > 0, "the broker closed the connection");
        self.filled += count;
        Ok(())
    }

    fn forget(&mut self, taken: usize) {
        self.input.copy_within(taken..self.filled, 0);
        self.filled -= taken;
    }
}

/// The first frame if it is complete: its kind, what it holds, and how long it is.
fn first_frame(input: &[u8]) -> Option<(u8, &[u8], usize)> {
    let mut header = Reader(input.get(..7)?);
    let (kind, _channel, size) = (header.number(1), header.number(2), header.number(4));
    let end = 7 + size as usize;
    debug_assert!(input.get(end).is_none_or(|byte| *byte == END));
    input.get(end)?;
    Some((kind as u8, &input[7..end], end + 1))
}

/// Takes in one frame.
fn take(
    delivery: &mut Delivery,
    kind: u8,
    mut frame: Reader<'_>,
    on: &mut impl FnMut(Event<'_>),
) -> Result<()> {
    match kind {
        METHOD => match frame.method() {
            (60, 60) => {
                frame.short();
                delivery.tag = frame.number(8);
            }
            (60, 80) => on(Event::Confirm {
                number: frame.number(8),
                multiple: frame.number(1) != 0,
            }),
            came => bail!(
                "the broker said {came:?}: {}",
                String::from_utf8_lossy(frame.0)
            ),
        },
        HEADER => {
            frame.bytes(4);
            delivery.size = frame.number(8) as usize;
            let flags = frame.number(2) as u16;
            ensure!(
                flags & !(HAS_CORRELATION_ID | HAS_REPLY_TO) == 0,
                "a message that is not one of ours"
            );
            for (bit, property) in [
                (HAS_CORRELATION_ID, &mut delivery.correlation_id),
                (HAS_REPLY_TO, &mut delivery.reply_to),
            ] {
                property.clear();
                if flags & bit != 0 {
                    property.extend(frame.short());
                }
            }
            delivery.body.clear();
            if delivery.size == 0 {
                on(Event::Delivery(delivery));
            }
        }
        BODY => {
            delivery.body.extend(frame.0);
            if delivery.body.len() >= delivery.size {
                on(Event::Delivery(delivery));
            }
        }
        HEARTBEAT => {}
        other => bail!("a frame of kind {other}"),
    }
    Ok(())
}

const CHANNEL: u16 = 1;

// Bits of queue.declare and basic.consume.
const EXCLUSIVE: u8 = 1 << 2;
const AUTO_DELETE: u8 = 1 << 3;
const NO_ACK: u8 = 1 << 1;

const BUFFER: usize = 256 * 1024;

/// How long the broker may take over a step of the set-up.
const LIMIT: Duration = Duration::from_secs(20);
