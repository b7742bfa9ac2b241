//! What most scenarios share: a queue, a directory for the logs of workers, a book, and the check at
//! the end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rpc_core::ShortString;

use crate::ground::{self, Depth, Ground, LogMark, Place};
use crate::ledger::{Book, Execution, Rules, Tally, read_work};
use crate::report::Report;
use crate::scratch::Scratch;
use crate::session::{self, CallerOptions, QueueChoice, ServingOptions, Session};
use crate::setting::Setting;
use crate::vitals::Vitals;
use crate::worker::{Contract, Worker};

/// A scenario in progress.
pub(super) struct Stage<'a> {
    pub(super) setting: &'a Setting,
    pub(super) queue: ShortString,
    pub(super) place: Place,
    pub(super) book: Arc<Book>,
    work: Scratch,
    choice: QueueChoice,
    log_mark: LogMark,
    complaints_expected: bool,
    leaves_threads: bool,
    /// Executions of keys from here on belong to no call.
    disregarded: u64,
    before: Vitals,
}

impl<'a> Stage<'a> {
    pub(super) fn set(setting: &'a Setting, ground: &Ground, choice: QueueChoice) -> Result<Self> {
        Self::at(setting, ground.place()?, ground.log_mark(), choice)
    }

    /// The same for a place that is not that of a ground.
    pub(super) fn at(
        setting: &'a Setting,
        place: Place,
        log_mark: LogMark,
        choice: QueueChoice,
    ) -> Result<Self> {
        let work = Scratch::new()?;
        // What a library makes once for the whole process is there before anything is counted.
        if let Ok(first) = session::raw(setting.transport, &place) {
            let _ = first.close();
        }
        Ok(Self {
            setting,
            queue: ground::queue("work"),
            place,
            book: Arc::new(Book::new()),
            work,
            choice,
            log_mark,
            complaints_expected: false,
            leaves_threads: false,
            disregarded: u64::MAX,
            before: Vitals::of_self(),
        })
    }

    /// What a worker of this scenario is told.
    pub(super) fn contract(&self) -> Contract {
        let serving = ServingOptions::new(self.queue.clone(), self.choice);
        Contract::new(self.setting, &self.place, serving, self.work.path().into())
    }

    /// A client that wants an answer and may repeat its calls.
    pub(super) fn patient_session(&self, timeout: Duration) -> Result<Session> {
        let options = CallerOptions::patient(self.queue.clone(), timeout);
        Session::open(self.setting, &self.place, options)
    }

    /// A client that never repeats what may have run.
    pub(super) fn single_session(&self, place: &Place, timeout: Duration) -> Result<Session> {
        let options = CallerOptions::patient(self.queue.clone(), timeout).once();
        Session::open(self.setting, place, options)
    }

    /// The broker will log what it does not log when all is well.
    pub(super) const fn expecting_complaints(mut self) -> Self {
        self.complaints_expected = true;
        self
    }

    /// Threads are left behind on purpose, in this process if the workers are.
    pub(super) const fn leaving_threads(mut self) -> Self {
        self.leaves_threads = matches!(self.place, Place::Memory(_));
        self
    }

    /// Requests of these keys and above are no calls of the book.
    pub(super) const fn disregarding(mut self, keys_from: u64) -> Self {
        self.disregarded = keys_from;
        self
    }

    /// Everything that was executed so far.
    pub(super) fn executions(&self) -> Result<Vec<Execution>> {
        read_work(self.work.path()).context("the logs of executions")
    }

    /// Lets the workers leave, and holds the ledger against the rules.
    pub(super) fn finish(
        self,
        name: &'static str,
        ground: &Ground,
        session: Session,
        workers: Vec<Worker>,
        rules: &Rules,
    ) -> Result<Report> {
        session.close();
        drop(session);
        let left = ground.drains_within(self.queue.as_str(), DRAIN_LIMIT)?;
        // That of a worker is what is under test, so it is no failure of the rig.
        let mut failures = Vec::new();
        for mut worker in workers {
            // One that a scenario left dead is no matter of the end.
            if worker.is_alive() {
                let asked = worker.ask_to_leave();
                let left = asked.and_then(|()| worker.leave_within(LEAVE_LIMIT));
                failures.extend(left.err());
            }
        }
        let mut work = self.executions()?;
        work.retain(|execution| execution.key < self.disregarded);
        let tally = Tally::of(&self.book.records(), &work, rules);
        let mut report = Report::new(name, self.setting, tally, rules);
        // What was not looked at is not nothing.
        let count = |left: Option<Depth>| left.map_or(0, |left| left.ready + left.unacked);
        report.figure("left_in_queue", ground.tells().then(|| count(left)));
        report.require(left.is_none(), || {
            format!("the queue does not become empty: {left:?}")
        });
        for failure in failures {
            report.require(false, || format!("{failure:#}"));
        }
        let complaints = ground.complaints(&self.log_mark);
        report.figure("complaints", complaints.as_ref().map(Vec::len));
        for complaint in complaints.into_iter().flatten() {
            report.require(self.complaints_expected, || {
                format!("the broker complains: {complaint}")
            });
        }
        if self.setting.alone && !self.leaves_threads {
            self.check_vitals(&mut report);
        }
        Ok(report)
    }

    /// Threads and descriptors must be back where they were; memory has the ledger itself in it.
    fn check_vitals(&self, report: &mut Report) {
        let mut after = Vitals::of_self();
        let spare = |before: u64| before + before / 20 + 2;
        let (threads, descriptors) = (spare(self.before.threads), spare(self.before.descriptors));
        // Threads that were told to end do so soon.
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while (after.threads > threads || after.descriptors > descriptors)
            && std::time::Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(20));
            after = Vitals::of_self();
        }
        report.figure("rss_kib", after.rss_kib);
        report.require(after.threads <= threads, || {
            format!(
                "{} threads, and {} at the beginning",
                after.threads, self.before.threads
            )
        });
        report.require(after.descriptors <= descriptors, || {
            let before = self.before.descriptors;
            format!(
                "{} descriptors, and {before} at the beginning",
                after.descriptors
            )
        });
    }
}

/// How long what is left in a queue may take to be worked off, or to expire.
const DRAIN_LIMIT: Duration = Duration::from_secs(40);

const LEAVE_LIMIT: Duration = Duration::from_secs(20);
