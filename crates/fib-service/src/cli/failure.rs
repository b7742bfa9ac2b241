//! How a command fails: one line on standard error, and an exit code.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::CommandFactory;
use clap::error::ErrorKind;
use rpc_core::{CallError, Certainty, TransportError};

use super::Args;
use super::output::complain;

/// Why a command could not do what it was told.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line asks for what cannot be.
    Usage(String),
    /// A transport failed, with no call under way: whatever was to be called has not run.
    Connect(TransportError),
    /// A transport failed under a server, which makes no calls.
    Serve(TransportError),
    /// A call failed that everything else depended on.
    Call(CallError),
    /// The system refused something: standard output, a thread, a signal.
    System(&'static str, io::Error),
}

impl Failure {
    pub(crate) fn usage(said: impl Into<String>) -> Self {
        Self::Usage(said.into())
    }

    /// Prints the failure; returns the exit code that goes with it.
    pub(crate) fn report(self) -> ExitCode {
        let line = match &self {
            Self::Usage(said) => {
                // Printed as clap prints its own, so that all usage errors look alike.
                let _ = Args::command()
                    .error(ErrorKind::ValueValidation, said)
                    .print();
                return ExitCode::from(2);
            }
            Self::Connect(error) => {
                let (code, certainty) = (error.kind().code(), Certainty::NotExecuted);
                format!("{code} ({certainty}): {}", chain(error))
            }
            Self::Serve(error) => format!("{}: {}", error.kind().code(), chain(error)),
            Self::Call(error) => call_error_line(error),
            // Whoever reads our output has read enough: `… | head` is no error to speak of.
            Self::System(_, error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return ExitCode::FAILURE;
            }
            Self::System(what, error) => format!("INTERNAL: {what}: {}", chain(error)),
        };
        complain(format_args!("error: {line}"));
        ExitCode::FAILURE
    }
}

/// A failed call in one line: `OUT_OF_RANGE (executed): …`.
pub(crate) fn call_error_line(error: &CallError) -> String {
    format!("{}: {}", call_error_kind(error), chain(error))
}

/// What kind of failure it is, and whether the service has run.
pub(crate) fn call_error_kind(error: &CallError) -> String {
    format!("{} ({})", error.code(), error.certainty())
}

/// What an error says, and what its causes say, in one line: much of it comes from elsewhere, and
/// what comes from elsewhere may hold anything.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let says = error.to_string();
        // Some libraries repeat their causes in their own words.
        if !said.contains(&says) {
            said.push_str(": ");
            said.push_str(&says);
        }
        cause = error.source();
    }
    said.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use rpc_core::{ErrorKind, Status};

    use super::*;

    #[test]
    fn a_failure_is_one_line_with_its_causes() {
        let error = TransportError::new(ErrorKind::Closed, "lapin", "recv")
            .with_source(io::Error::other("reset\nby peer"));
        assert_eq!(
            call_error_line(&CallError::ConnectionLost(error)),
            "UNAVAILABLE (maybe executed): the connection was lost during the call: \
             lapin recv: connection closed: reset by peer"
        );
        assert_eq!(
            call_error_line(&CallError::Remote(Status::out_of_range("too far"))),
            "OUT_OF_RANGE (executed): too far"
        );
    }
}
