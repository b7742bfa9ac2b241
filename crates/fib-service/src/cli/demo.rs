//! `demo`: serves and calls inside this process, with no broker.

use std::process::ExitCode;
use std::time::Instant;

use super::args::{Demo, TransportName};
use super::backend::Backend;
use super::output::say;
use super::serve::print_requests;
use super::session::Session;
use super::{Failure, call};

pub(crate) fn run(args: &Demo) -> Result<ExitCode, Failure> {
    if args
        .connect
        .transport
        .is_some_and(|name| name != TransportName::Memory)
    {
        return Err(Failure::usage(
            "`demo` stays in this process; over RabbitMQ there are `serve` and `call`",
        ));
    }
    let arguments = call::arguments(&args.numbers, args.calls.codec)?;
    let by = Instant::now() + args.calls.timeout;
    let backend = Backend::memory(&args.connect)?;
    let session = Session::open(
        &backend,
        &args.connect,
        &args.calls,
        &args.service,
        print_requests,
        arguments.len(),
        Some(by),
    )?;
    say(" [x] Awaiting RPC requests")?;
    let code = call::all(&session.client, arguments, by, &mut call::Lines)?;
    session.close();
    Ok(code)
}
