//! The waits of deferred retries: a fixed ladder, because each is a place of its own (§5.2).

use std::time::Duration;

use super::valid::Backoff;

/// Distinct delays that a backoff may give in deferred mode.
pub const STEPS_MAX: usize = 16;
/// Above the backoff's longest delay: what a handler may ask for (`retry after`) is rounded up to these.
const COARSE_MS: [u64; 3] = [60_000, 600_000, 3_600_000];

/// The delays in which a pipeline defers, ascending, ms: those of its backoff without jitter, and coarse
/// ones above them. `Err` with the number of the backoff's own when they are more than [`STEPS_MAX`].
pub fn ladder(backoff: &Backoff) -> Result<Vec<u64>, usize> {
    let max = ms(backoff.max_interval);
    let mut steps = vec![ms(backoff.initial_interval).min(max)];
    let mut exact = backoff.initial_interval.as_secs_f64() * 1_000.0;
    while steps.last().is_some_and(|last| *last < max) && backoff.multiplier > 1.0 {
        exact *= backoff.multiplier;
        let next = (exact.min(max as f64).round() as u64).max(1);
        if steps.last() != Some(&next) {
            steps.push(next);
        }
        // Far above any that is accepted; with a multiplier next to 1 there are millions.
        if steps.len() > 1_000 {
            return Err(steps.len());
        }
    }
    if steps.len() > STEPS_MAX {
        return Err(steps.len());
    }
    let top = steps.last().copied().unwrap_or(0);
    steps.extend(COARSE_MS.into_iter().filter(|coarse| *coarse > top));
    Ok(steps)
}

/// Rounded up: no wait is shorter than asked for.
fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000))
        .unwrap_or(u64::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(initial_ms: u64, multiplier: f64, max_ms: u64) -> Backoff {
        Backoff {
            initial_interval: Duration::from_millis(initial_ms),
            multiplier,
            max_interval: Duration::from_millis(max_ms),
        }
    }

    #[test]
    fn a_ladder_is_the_backoff_without_jitter_and_coarse_steps_above() {
        assert_eq!(
            ladder(&backoff(2_000, 4.0, 60_000)).unwrap(),
            [2_000, 8_000, 32_000, 60_000, 600_000, 3_600_000]
        );
        assert_eq!(
            ladder(&backoff(500, 1.0, 60_000)).unwrap(),
            [500, 60_000, 600_000, 3_600_000]
        );
        assert_eq!(
            ladder(&backoff(24 * 3_600_000, 2.0, 24 * 3_600_000)).unwrap(),
            [24 * 3_600_000]
        );
    }

    #[test]
    fn steps_max_bounds_a_ladder() {
        assert!(ladder(&backoff(1, 2.0, 32_000)).unwrap().len() <= STEPS_MAX + COARSE_MS.len());
        assert!(ladder(&backoff(1, 1.1, 3_600_000)).unwrap_err() > STEPS_MAX);
        assert!(ladder(&backoff(1, 1.000_001, 24 * 3_600_000)).is_err());
    }
}
