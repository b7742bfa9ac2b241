//! `load`: many callers, each with one call in flight, every answer checked.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use fib_service::{Algorithm, Index, fib};
use indicatif::{ProgressBar, ProgressStyle};
use rpc_core::{CallError, ErrorKind};

use super::args::{AlgorithmName, Load};
use super::backend::Backend;
use super::drive::{Argument, Caller, Client, Event};
use super::failure::call_error_line;
use super::output::{complain, say};
use super::session::Session;
use super::tally::{Cut, Setting, Tally, cpu_time};
use super::watch::{News, Watch};
use super::{Failure, signals};

pub(crate) fn run(args: &Load) -> Result<ExitCode, Failure> {
    let backend = Backend::choose(&args.connect)?;
    let session = Session::open(
        &backend,
        &args.connect,
        &args.calls,
        &args.service,
        |options| options,
        args.inflight as usize,
        None,
    )?;
    session
        .client
        .call(&Argument::Index(Index::new(0)))
        .map_err(Failure::Call)?;

    let stop = signals::stop()?;
    let run = Arc::new(Run::new(args, stop)?);
    let cpu = cpu_time();
    drive(&session.client, &run, args.inflight)?;
    let (elapsed, cpu) = (run.begun.elapsed(), cpu_time().saturating_sub(cpu));
    session.close();

    let tally = run.tally();
    let setting = Setting {
        transport: backend.name(),
        face: backend.face(),
        inflight: args.inflight,
        cut_short: run.cut(),
    };
    let report = tally.report(setting, elapsed, cpu);
    if args.json {
        let line = serde_json::to_string(&report);
        say(line.map_err(|error| Failure::System("cannot write JSON", error.into()))?)?;
    } else {
        say(report)?;
    }
    if let Some(cut) = run.cut() {
        complain(run.cut_line(cut, elapsed));
    }
    let mut code = ExitCode::SUCCESS;
    for line in tally.error_lines() {
        complain(format_args!("error: {line}"));
        code = ExitCode::FAILURE;
    }
    Ok(code)
}

/// Lets the callers loose until they are done, with an eye on them and on the signals.
fn drive(client: &Client, run: &Arc<Run>, inflight: u32) -> Result<(), Failure> {
    let callers = (0..inflight).map(|_| LoadCaller::new(run)).collect();
    let progress = Progress::begin(run);
    let mut watch = Watch::default();
    // It was connected a moment ago.
    let _ = watch.look(&client.state());
    let (mut stopped, mut closed) = (None, false);
    client.drive(callers, |event| {
        if let Event::Tick = event {
            progress.show(run);
            let news = watch.look(&client.state()).filter(News::is_worth_telling);
            if let Some(news) = news.filter(|_| !run.is_stopped()) {
                progress.aside(|| complain(&news));
            }
        }
        if run.is_stopped() {
            let since = *stopped.get_or_insert_with(Instant::now);
            // Whoever pressed Ctrl-C does not want to wait for answers that may never come.
            if since.elapsed() > GRACE && !std::mem::replace(&mut closed, true) {
                client.close();
            }
        }
        Ok(())
    })?;
    progress.end();
    Ok(())
}

/// How long open calls may take after a run was stopped.
const GRACE: Duration = Duration::from_secs(1);

/// What all callers of a run share.
#[derive(Debug)]
struct Run {
    answers: Vec<u128>,
    begun: Instant,
    limit: Limit,
    /// How many calls were given out.
    given: AtomicU64,
    /// Set by a signal.
    stop: Arc<AtomicBool>,
    /// The first call that failed because there is no connection to call over any more, where calls
    /// are not to wait for one.
    lost: OnceLock<CallError>,
    /// Set when a call was due and not made any more.
    cut: AtomicBool,
    waits: bool,
    tally: Mutex<Tally>,
}

#[derive(Clone, Copy, Debug)]
enum Limit {
    Calls(u64),
    Time(Duration),
}

impl Run {
    fn new(args: &Load, stop: Arc<AtomicBool>) -> Result<Self, Failure> {
        let max_n = args.max_n.unwrap_or(match args.service.algorithm {
            Some(AlgorithmName::Naive) => 20,
            _ => 90,
        });
        let limit = match (args.number, args.duration) {
            (Some(calls), _) => Limit::Calls(calls),
            (None, Some(duration)) => Limit::Time(duration),
            (None, None) => Limit::Time(Duration::from_secs(5)),
        };
        // `--max-n` goes no further than the numbers that fit.
        let answers = (0..=max_n.min(Algorithm::Fast.largest().get()))
            .filter_map(|n| fib(Index::new(n)).ok())
            .collect();
        Ok(Self {
            answers,
            limit,
            given: AtomicU64::new(0),
            stop,
            lost: OnceLock::new(),
            cut: AtomicBool::new(false),
            waits: args.calls.wait_for_ready.is_on(),
            tally: Mutex::new(Tally::new()?),
            begun: Instant::now(),
        })
    }

    /// The number to call for next, unless the run is over.
    fn next(&self) -> Option<u64> {
        // The order of calls is of no importance, only that each is given out once.
        let call = self.given.fetch_add(1, Ordering::Relaxed);
        let over = match self.limit {
            Limit::Calls(calls) => call >= calls,
            Limit::Time(time) => self.begun.elapsed() >= time,
        };
        if over {
            return None;
        }
        if self.is_stopped() {
            self.cut.store(true, Ordering::Relaxed);
            return None;
        }
        Some(call % self.answers.len() as u64)
    }

    /// Why it ended before its end, if it did. Asked when all callers are done.
    fn cut(&self) -> Option<Cut> {
        if !self.cut.load(Ordering::Relaxed) {
            return None;
        }
        Some(if self.lost.get().is_some() {
            Cut::ConnectionLost
        } else {
            Cut::Signal
        })
    }

    /// What is said of a run that was cut short.
    fn cut_line(&self, cut: Cut, elapsed: Duration) -> String {
        let done = match self.limit {
            Limit::Calls(calls) => format!("{} of {calls} calls", self.tally().calls()),
            Limit::Time(time) => {
                format!("{:.1} of {} s", elapsed.as_secs_f64(), time.as_secs_f64())
            }
        };
        match (cut, self.lost.get()) {
            (Cut::ConnectionLost, Some(error)) => format!(
                "error: cut short after {done}: {}; `--wait-for-ready yes` goes on with the next \
                 connection",
                call_error_line(error)
            ),
            _ => format!("cut short after {done} by a signal"),
        }
    }

    fn done(&self, n: u64, outcome: Result<u128, CallError>, latency: Duration) {
        let right = self.answers.get(n as usize);
        match outcome {
            Ok(answer) if Some(&answer) == right => self.tally().ok(latency),
            Ok(answer) => self.tally().wrong(n, answer),
            // Given up by ourselves, so neither good nor bad.
            Err(CallError::Closed { .. }) if self.is_stopped() => {}
            Err(error) => {
                self.tally().failed(&error);
                if !self.waits && has_ended(&error) {
                    // Others may have been first.
                    let _ = self.lost.set(error);
                }
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.lost.get().is_some()
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether further calls would fail at once, until there is another connection.
fn has_ended(error: &CallError) -> bool {
    match error {
        CallError::BrokerDown(_) | CallError::ConnectionLost(_) | CallError::NotSent(_) => true,
        CallError::Publish(error) => error.kind() == ErrorKind::Closed,
        _ => false,
    }
}

/// One caller of a run.
struct LoadCaller {
    run: Arc<Run>,
    n: u64,
    begun: Instant,
}

impl LoadCaller {
    fn new(run: &Arc<Run>) -> Self {
        Self {
            run: Arc::clone(run),
            n: 0,
            begun: run.begun,
        }
    }
}

impl Caller for LoadCaller {
    fn next(&mut self) -> Option<Argument> {
        self.n = self.run.next()?;
        self.begun = Instant::now();
        Some(Argument::Index(Index::new(self.n)))
    }

    fn done(&mut self, outcome: Result<u128, CallError>) {
        self.run.done(self.n, outcome, self.begun.elapsed());
    }
}

/// How far a run is, where somebody can see it.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn begin(run: &Run) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let (length, template) = match run.limit {
            Limit::Calls(calls) => (calls, "{wide_bar} {pos}/{len} calls, {per_sec}, {eta} left"),
            Limit::Time(time) => (
                u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
                "{wide_bar} {msg}, {eta} left",
            ),
        };
        let bar = ProgressBar::new(length);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    fn show(&self, run: &Run) {
        let Some(bar) = &self.0 else { return };
        let calls = run.tally().calls();
        match run.limit {
            Limit::Calls(_) => bar.set_position(calls),
            Limit::Time(_) => {
                let elapsed = run.begun.elapsed();
                bar.set_message(format!(
                    "{calls} calls, {:.0}/s",
                    calls as f64 / elapsed.as_secs_f64()
                ));
                bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
            }
        }
    }

    /// Prints something else.
    fn aside(&self, print: impl FnOnce()) {
        match &self.0 {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
