//! What happened, in order: hashed always, kept when somebody wants to read it.
//!
//! A line is a word and three numbers, and is put into text only when it is read: most seeds are
//! never looked at.

use std::fmt;

use crate::time::Micros;

/// One thing that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, in microseconds of virtual time.
    pub at: u64,
    /// What.
    pub what: &'static str,
    /// To whom and with what, as the word has it.
    pub with: [u64; 3],
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (s, us) = (self.at / 1_000_000, self.at % 1_000_000);
        write!(f, "{s:>3}.{us:06} {:<18}", self.what)?;
        for number in self.with {
            match number {
                u64::MAX => write!(f, "    -")?,
                number => write!(f, " {number:>4}")?,
            }
        }
        Ok(())
    }
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    lines: Option<Vec<Line>>,
}

impl Trace {
    /// One that only hashes, or one that also keeps.
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: keep.then(Vec::new),
        }
    }

    pub(crate) fn add(&mut self, at: Micros, what: &'static str, with: [u64; 3]) {
        self.mix(at);
        for byte in what.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
        for number in with {
            self.mix(number);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(Line { at, what, with });
        }
    }

    pub(crate) const fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn into_lines(self) -> Vec<Line> {
        self.lines.unwrap_or_default()
    }

    const fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(PRIME);
        self.hash ^= self.hash >> 29;
    }
}

const PRIME: u64 = 0x0000_0100_0000_01b3;
