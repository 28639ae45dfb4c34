//! The clock and the dice of a worker.

use std::time::Instant;

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::connector::embedded::Log;
use crate::pipeline::run::Clock;

/// Unix time is the log's: a step of the system's clock expires nothing early (§7.3).
pub(super) struct System {
    log: Log,
    begin: Instant,
    random: SmallRng,
}

impl System {
    pub(super) fn new(log: Log) -> Self {
        Self {
            log,
            begin: Instant::now(),
            random: SmallRng::from_rng(&mut rand::rng()),
        }
    }
}

impl Clock for System {
    fn unix_ms(&self) -> i64 {
        self.log.now_ms()
    }

    fn monotonic_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn random(&mut self) -> f64 {
        self.random.random()
    }
}
