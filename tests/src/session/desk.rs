//! The service of the rig: writes down what it executes, then does what it is asked to.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rpc_core::proto::server::{Request, Response};
use rpc_core::{Answer, Service, Status, Work};

use crate::ask::{Act, Ask};
use crate::ledger::WorkLog;

/// The service.
///
/// A [`Service`] and not a router's method, because the ledger wants to know of each request which
/// attempt it is and whether it was delivered before.
#[derive(Clone)]
pub struct Desk {
    log: Arc<WorkLog>,
    delay: Duration,
}

impl Desk {
    /// A desk that keeps this log, and takes at least `delay` for each request.
    #[must_use]
    pub fn new(log: WorkLog, delay: Duration) -> Self {
        let log = Arc::new(log);
        Self { log, delay }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk")
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

impl Service for Desk {
    fn call(&self, request: Request) -> Work {
        let ask: Ask = match serde_json::from_slice(&request.body) {
            Ok(ask) => ask,
            Err(error) => return Work::Ready(Err(Status::invalid_argument(error.to_string()))),
        };
        if ask.act == Act::Answer && self.delay.is_zero() {
            return Work::Ready(work(&self.log, &request, &ask, Duration::ZERO));
        }
        let (log, delay) = (Arc::clone(&self.log), self.delay);
        Work::Blocking(Box::new(move || work(&log, &request, &ask, delay)))
    }
}

fn work(log: &WorkLog, request: &Request, ask: &Ask, delay: Duration) -> Answer {
    let entry = log.begin(ask.key, request.attempt.into(), request.redelivered);
    match ask.act {
        Act::Abort => std::process::abort(),
        // As a panic, except that nobody prints it.
        Act::Panic => std::panic::resume_unwind(Box::new("it was asked for")),
        Act::Wait(_) => {
            let until = Instant::now() + delay + ask.act.time();
            while Instant::now() < until && !request.cancellation.is_cancelled() {
                thread::sleep(LOOK);
            }
        }
        Act::Answer | Act::Sleep(_) => {
            let time = delay + ask.act.time();
            if !time.is_zero() {
                thread::sleep(time);
            }
        }
    }
    log.end(entry);
    let body = serde_json::to_vec(&ask.answer())
        .map_err(|error| Status::new(rpc_core::Code::Internal, error.to_string()))?;
    Ok(Response {
        body: body.into(),
        content_type: request.content_type.clone(),
    })
}

/// How often a handler looks whether it is cancelled.
const LOOK: Duration = Duration::from_millis(5);
