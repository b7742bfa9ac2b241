//! The service: the one method, and how it is made slow or watched.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rpc_core::{Router, Status};

use crate::{Algorithm, Index};

/// The name of the method, which is also what is meant by a request that names none.
pub const METHOD: &str = "fib";

/// The queue of the tutorial.
pub const QUEUE: &str = "rpc_queue";

/// How the service works.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ServiceOptions {
    /// How a number is computed.
    pub algorithm: Algorithm,
    /// How long each request is worked on at least. Real work waits: for a disk, a database.
    pub delay: Duration,
    observer: Option<Arc<dyn Fn(Index) + Send + Sync>>,
}

impl ServiceOptions {
    /// Sets how a number is computed.
    #[must_use]
    pub const fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Sets how long each request is worked on at least.
    #[must_use]
    pub const fn with_delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Has `observer` told of each request, before the work begins. It must not take long.
    #[must_use]
    pub fn with_observer(mut self, observer: impl Fn(Index) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Whether a request may take longer than a receiving thread can spare.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        !self.delay.is_zero() || self.algorithm == Algorithm::Naive
    }

    fn answer(&self, index: Index) -> Result<u128, Status> {
        if let Some(observer) = &self.observer {
            observer(index);
        }
        if !self.delay.is_zero() {
            thread::sleep(self.delay);
        }
        self.algorithm.fib(index)
    }
}

impl fmt::Debug for ServiceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceOptions")
            .field("algorithm", &self.algorithm)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

/// The service, for a server of either face.
///
/// Quick as it is by default, it answers where the request was received; slowed down by its
/// options, on a thread of its own.
#[must_use]
pub fn service(options: ServiceOptions) -> Router {
    let slow = options.is_slow();
    let answer = move |index: Index| options.answer(index);
    let router = Router::new().default_method(METHOD);
    if slow {
        router.handle_blocking(METHOD, answer)
    } else {
        router.handle(METHOD, answer)
    }
}
