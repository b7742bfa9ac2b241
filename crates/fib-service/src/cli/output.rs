//! Printing: the tutorial's lines, and numbers that strangers may have made long.

use std::fmt;
use std::io::{self, Write};

use super::Failure;

/// Prints one line. Unlike `println!` it does not panic when nobody reads any more.
pub(crate) fn say(line: impl fmt::Display) -> Result<(), Failure> {
    writeln!(io::stdout().lock(), "{line}")
        .map_err(|error| Failure::System("cannot write to standard output", error))
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
