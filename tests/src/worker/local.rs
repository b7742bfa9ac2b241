//! A worker inside this process, for the broker that is in here too.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rpc_core::DrainReport;

use super::{Contract, Leaving};
use crate::ledger::WorkLog;
use crate::session::{Desk, Serving};

/// A worker inside this process.
#[derive(Debug)]
pub(super) struct Local {
    serving: Option<Serving>,
    limit: Duration,
    leaving: Option<(Instant, mpsc::Receiver<DrainReport>)>,
}

impl Local {
    pub(super) fn hire(contract: &Contract) -> Result<Self> {
        let log = WorkLog::create(&contract.work).context("the log of executions")?;
        let desk = Desk::new(log, contract.delay);
        let setting = &contract.setting;
        let serving = Serving::start(
            setting.transport,
            setting.face,
            &contract.place,
            desk,
            &contract.serving,
        )?;
        Ok(Self {
            serving: Some(serving),
            limit: contract.drain_limit,
            leaving: None,
        })
    }

    pub(super) fn kill(mut self) {
        if let Some(serving) = self.serving.take() {
            serving.kill();
        }
    }

    pub(super) fn ask_to_leave(&mut self) -> Result<()> {
        let Some(serving) = self.serving.take() else {
            bail!("the worker has been asked to leave already");
        };
        let (tell, left) = mpsc::channel();
        let limit = self.limit;
        thread::spawn(move || {
            let _ = tell.send(serving.drain(limit));
        });
        self.leaving = Some((Instant::now(), left));
        Ok(())
    }

    pub(super) fn leave_within(mut self, limit: Duration) -> Result<Leaving> {
        let Some((asked, left)) = self.leaving.take() else {
            bail!("the worker was not asked to leave");
        };
        let report = left.recv_timeout(limit);
        let report = report.context("the worker did not leave in time")?;
        Ok(Leaving {
            took: asked.elapsed(),
            unfinished: report.unfinished as u64,
        })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.kill();
        }
    }
}
