//! Printing: the tutorial's lines, and numbers that strangers may have made long.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::Failure;

/// Prints one line. Unlike `println!` it does not panic when nobody reads any more.
pub(crate) fn say(line: impl fmt::Display) -> Result<(), Failure> {
    print(line).map_err(|error| Failure::System("cannot write to standard output", error))
}

/// Prints one line of a server's log. Callers wait for a server whether its log can be written or
/// not, so that the reader is gone or the disk is full is no reason to stop; the latter is told once.
pub(crate) fn log(line: impl fmt::Display) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if let Err(error) = print(line)
        // Whoever reads our output has read enough: `… | head` is nothing to speak of.
        && error.kind() != io::ErrorKind::BrokenPipe
        && !TOLD.swap(true, Ordering::Relaxed)
    {
        complain(format_args!(
            "cannot write to standard output, going on without it: {error}"
        ));
    }
}

/// Prints one line to standard error, if that can be: there is nowhere else to say that it cannot.
/// Unlike `eprintln!` it does not panic then.
pub(crate) fn complain(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn print(line: impl fmt::Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// An argument fit to be printed: in one line, and not by the megabyte.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 48;
        let escaped = |text: &str| text.escape_debug().collect::<String>();
        let length = self.0.chars().count();
        if length <= LONGEST {
            return f.write_str(&escaped(self.0));
        }
        let beginning: String = self.0.chars().take(LONGEST / 2).collect();
        write!(f, "{}… {length} characters", escaped(&beginning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_in_one_line() {
        assert_eq!(Shown("30").to_string(), "30");
        assert_eq!(Shown("a\nb").to_string(), "a\\nb");
        let long = Shown(&"9".repeat(1_000_000)).to_string();
        assert!(long.len() < 100 && long.contains("1000000"), "{long}");
    }
}
