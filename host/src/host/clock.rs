//! The real clock and dice of a worker.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::pipeline::run::Clock;

#[derive(Debug)]
pub(super) struct System {
    begin: Instant,
    random: SmallRng,
}

impl System {
    #[must_use]
    pub(super) fn new() -> Self {
        Self {
            begin: Instant::now(),
            random: SmallRng::from_rng(&mut rand::rng()),
        }
    }
}

impl Clock for System {
    fn unix_ms(&self) -> i64 {
        unix_ms()
    }

    fn monotonic_ns(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn random(&mut self) -> f64 {
        self.random.random()
    }
}

pub(super) fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64)
}
