//! A pipeline's rate limit (§9): a bucket of tokens, one for each message that is called, shared by its
//! workers. Pure: time is an argument (monotonic ns).

use std::sync::{Mutex, PoisonError};

use crate::config::valid::RateLimit;

#[derive(Debug)]
pub struct Rate {
    /// Most tokens there are at a time: those of one interval.
    count: u64,
    ns_per_token: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    /// `None` before the first look.
    at_ns: Option<u64>,
}

impl Rate {
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        let count = u64::from(limit.count.get());
        Self {
            count,
            ns_per_token: limit.interval.as_nanos() as f64 / count as f64,
            bucket: Mutex::new(Bucket {
                tokens: count as f64,
                at_ns: None,
            }),
        }
    }

    /// Takes as many tokens as there are, up to `wanted`; with none, `Err` says when there is one.
    pub fn take(&self, wanted: u64, now_ns: u64) -> Result<u64, u64> {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let before = bucket.at_ns.unwrap_or(now_ns);
        let grown = now_ns.saturating_sub(before) as f64 / self.ns_per_token;
        bucket.tokens = (bucket.tokens + grown).min(self.count as f64);
        bucket.at_ns = Some(now_ns.max(before));
        let taken = (bucket.tokens as u64).min(wanted);
        if taken == 0 {
            let missing = (1.0 - bucket.tokens).max(0.0) * self.ns_per_token;
            return Err(now_ns.saturating_add(missing.ceil() as u64));
        }
        bucket.tokens -= taken as f64;
        Ok(taken)
    }

    /// Tokens that were taken and not used.
    pub fn give_back(&self, tokens: u64) {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.tokens = (bucket.tokens + tokens as f64).min(self.count as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU32;
    use std::time::Duration;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u32) -> Rate {
        Rate::new(RateLimit {
            count: NonZeroU32::new(count).unwrap(),
            interval: Duration::from_secs(1),
        })
    }

    #[test]
    fn a_burst_is_one_interval_and_then_tokens_come_evenly() {
        let rate = rate(10);
        assert_eq!(rate.take(100, 0), Ok(10));
        assert_eq!(rate.take(1, 0), Err(SECOND / 10));
        assert_eq!(rate.take(5, SECOND / 10), Ok(1));
        assert_eq!(rate.take(100, SECOND), Ok(9));
        assert_eq!(
            rate.take(100, 100 * SECOND),
            Ok(10),
            "no more than one interval is saved"
        );
        rate.give_back(4);
        assert_eq!(rate.take(100, 100 * SECOND), Ok(4));
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_its_share_and_one_burst(
            steps in proptest::collection::vec((0u64..SECOND, 1u64..50), 1..100),
        ) {
            let rate = rate(20);
            let (mut now, mut taken) = (0, 0);
            for (pause, wanted) in steps {
                now += pause;
                taken += rate.take(wanted, now).unwrap_or(0);
                let share = now as f64 / SECOND as f64 * 20.0;
                prop_assert!(taken as f64 <= share + 20.0 + 1e-6);
            }
        }
    }
}
