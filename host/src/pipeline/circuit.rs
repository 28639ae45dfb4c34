//! Whether a pipeline's dependency is down (§5.5): many different keys failing one after the other and none
//! succeeding says so. Then the pipeline pauses and one message at a time probes, on the whole host; no
//! attempts are spent, so an outage never pours a topic into the dead letters. Shared by all workers of a
//! pipeline. Pure: time is an argument (monotonic ms).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::valid::Circuit as Policy;
use crate::pipeline::offsets::truncated;

/// Bytes of the last error that `status` shows.
const ERROR_BYTES_MAX: usize = 256;
const CALM: u8 = 0;
/// Failures were noted since the last success.
const SUSPECT: u8 = 1;
const OPEN: u8 = 2;

#[derive(Debug)]
pub struct Circuit {
    policy: Policy,
    stage: AtomicU8,
    /// Grows with each closing: who waited for it goes on.
    closings: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Different keys that failed within the window, oldest first; at most `distinct_keys`.
    failed: VecDeque<(u64, i64)>,
    /// `Some` while open.
    next_probe_ms: Option<i64>,
    /// A probe is on its way.
    probes: bool,
    error: String,
}

impl Circuit {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            stage: AtomicU8::new(CALM),
            closings: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// A message with this key failed as it does when a dependency is down. True when the circuit is open
    /// then: the failure is not the message's.
    pub fn failed(&self, key: u64, now_ms: i64, error: &str) -> bool {
        let mut state = self.state();
        state.error = truncated(error, ERROR_BYTES_MAX).to_owned();
        if state.next_probe_ms.is_some() {
            state.probes = false;
            return true;
        }
        self.stage.store(SUSPECT, Ordering::Relaxed);
        let window_ms = i64::try_from(self.policy.window.as_millis()).unwrap_or(i64::MAX);
        let begin = now_ms.saturating_sub(window_ms);
        state
            .failed
            .retain(|(other, at)| *other != key && *at > begin);
        state.failed.push_back((key, now_ms));
        if state.failed.len() < self.policy.distinct_keys.get() as usize {
            return false;
        }
        state.failed.clear();
        state.next_probe_ms = Some(now_ms.saturating_add(self.probe_interval_ms()));
        state.probes = false;
        self.stage.store(OPEN, Ordering::Relaxed);
        true
    }

    /// A message succeeded. True when that closed the circuit.
    pub fn succeeded(&self) -> bool {
        if self.stage.load(Ordering::Relaxed) == CALM {
            return false;
        }
        let mut state = self.state();
        let was_open = state.next_probe_ms.take().is_some();
        state.failed.clear();
        state.probes = false;
        self.stage.store(CALM, Ordering::Relaxed);
        if was_open {
            self.closings.fetch_add(1, Ordering::Release);
        }
        was_open
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        self.stage.load(Ordering::Relaxed) == OPEN
    }

    /// Changes when it closes.
    #[must_use]
    pub fn closings(&self) -> u64 {
        self.closings.load(Ordering::Acquire)
    }

    /// Whether the caller may probe with one message now. It says what came of it by `failed`,
    /// `succeeded` or `gave_up`.
    pub fn take_probe(&self, now_ms: i64) -> bool {
        let mut state = self.state();
        let due = state.next_probe_ms.is_some_and(|at| at <= now_ms);
        if !due || state.probes {
            return false;
        }
        state.probes = true;
        state.next_probe_ms = Some(now_ms.saturating_add(self.probe_interval_ms()));
        true
    }

    /// The probe said nothing (nothing to call, rejected, another fault): somebody else may try soon.
    pub fn gave_up(&self, now_ms: i64) {
        let mut state = self.state();
        if state.next_probe_ms.is_some() && std::mem::take(&mut state.probes) {
            // The next to ask, not this one again at once.
            state.next_probe_ms = Some(now_ms.saturating_add(1));
        }
    }

    /// While it is open: when somebody may probe next. `None` when a probe is on its way.
    #[must_use]
    pub fn next_probe_ms(&self) -> Option<i64> {
        let state = self.state();
        state.next_probe_ms.filter(|_| !state.probes)
    }

    /// For `status`, while it is open.
    #[must_use]
    pub fn why(&self, now_ms: i64) -> Option<String> {
        if !self.is_open() {
            return None;
        }
        let state = self.state();
        let next_ms = state.next_probe_ms?.saturating_sub(now_ms).max(0);
        Some(format!(
            "the circuit is open: {} different keys failed in a row, so a dependency seems to be down; one message probes in {:.1} s, no attempts are spent. The last error: {}",
            self.policy.distinct_keys,
            next_ms as f64 / 1_000.0,
            state.error
        ))
    }

    fn probe_interval_ms(&self) -> i64 {
        i64::try_from(self.policy.probe_interval.as_millis()).unwrap_or(i64::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU32;
    use std::time::Duration;

    fn circuit(keys: u32) -> Circuit {
        Circuit::new(Policy {
            distinct_keys: NonZeroU32::new(keys).unwrap(),
            window: Duration::from_secs(10),
            probe_interval: Duration::from_secs(5),
        })
    }

    #[test]
    fn different_keys_within_the_window_and_no_success_open_it() {
        let circuit = circuit(3);
        assert!(!circuit.failed(1, 0, "down"));
        assert!(!circuit.failed(1, 1, "down"), "the same key again");
        assert!(!circuit.failed(2, 2, "down"));
        assert!(!circuit.succeeded(), "it was not open");
        assert!(!circuit.failed(3, 3, "down"));
        assert!(!circuit.failed(4, 4, "down"));
        assert!(circuit.failed(5, 5, "down"));
        assert!(circuit.is_open());
        assert!(circuit.why(5).unwrap().contains("down"));
    }

    #[test]
    fn failures_older_than_the_window_do_not_count() {
        let circuit = circuit(3);
        circuit.failed(1, 0, "");
        circuit.failed(2, 9_000, "");
        assert!(!circuit.failed(3, 10_001, ""));
        assert!(circuit.failed(4, 10_002, ""));
    }

    #[test]
    fn one_probe_at_a_time_and_any_success_closes_it() {
        let circuit = circuit(1);
        assert!(circuit.failed(1, 0, ""));
        assert!(!circuit.take_probe(4_999));
        assert_eq!(circuit.next_probe_ms(), Some(5_000));
        assert!(circuit.take_probe(5_000));
        assert!(!circuit.take_probe(20_000), "the first is on its way");
        assert_eq!(circuit.next_probe_ms(), None, "nobody need ask meanwhile");
        assert!(circuit.failed(2, 5_100, ""), "spends no attempt");
        assert!(!circuit.take_probe(9_999));
        assert!(circuit.take_probe(10_000));
        circuit.gave_up(10_050);
        assert!(circuit.take_probe(10_051), "another may try at once");
        let closings = circuit.closings();
        assert!(circuit.succeeded());
        assert!(!circuit.is_open() && circuit.closings() == closings + 1);
        assert!(!circuit.take_probe(30_000) && circuit.why(30_000).is_none());
        assert_eq!(circuit.next_probe_ms(), None);
    }

    proptest! {
        /// Against a list of everything that happened.
        #[test]
        fn it_opens_exactly_when_so_many_keys_failed_in_a_row(
            steps in proptest::collection::vec((0u64..6, 0i64..4_000, any::<bool>()), 1..60),
        ) {
            let circuit = circuit(4);
            let (mut now, mut failures): (i64, Vec<(u64, i64)>) = (0, Vec::new());
            for (key, pause, fails) in steps {
                now += pause;
                if fails {
                    failures.push((key, now));
                    let recent = failures.iter().filter(|(_, at)| *at > now - 10_000);
                    let keys: std::collections::BTreeSet<u64> = recent.map(|(key, _)| *key).collect();
                    let opens = keys.len() >= 4;
                    prop_assert_eq!(circuit.failed(key, now, ""), opens);
                    prop_assert_eq!(circuit.is_open(), opens);
                    if opens {
                        prop_assert!(circuit.succeeded());
                        failures.clear();
                    }
                } else {
                    circuit.succeeded();
                    failures.clear();
                }
                prop_assert!(circuit.state().failed.len() <= 4);
            }
        }
    }
}
