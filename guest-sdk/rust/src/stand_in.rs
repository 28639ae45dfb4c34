//! The host's imports where there is no host: native builds, which is to say tests. Same results and
//! limits as the real ones, held in memory, one for each thread.

use crate::{log, state};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What the host takes, in bytes (wit/handler.wit).
const STATE_KEY_MAX: usize = 1024;
const STATE_VALUE_MAX: usize = 256 * 1024;
/// Entries a scan returns at most.
const SCAN_MAX: usize = 1000;
/// Lines kept; a test that writes more sees the first ones.
const LINES_MAX: usize = 10_000;

thread_local! {
    static HOST: RefCell<StandIn> = RefCell::new(StandIn::default());
}

/// A line written with [`crate::log`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// How serious it is.
    pub level: log::Level,
    /// Index in its batch of the message it is about; none in a test that calls the handler itself.
    pub about: Option<u32>,
    /// The text.
    pub text: String,
}

pub(crate) struct StandIn {
    config: Vec<(String, String)>,
    state: BTreeMap<String, Vec<u8>>,
    pub(crate) state_max: usize,
    pub(crate) lines: Vec<LogLine>,
    pub(crate) clock_ms: u64,
    pub(crate) random: u64,
}

impl Default for StandIn {
    fn default() -> Self {
        Self {
            config: Vec::new(),
            state: BTreeMap::new(),
            state_max: usize::MAX,
            lines: Vec::new(),
            clock_ms: 0,
            random: 0,
        }
    }
}

impl StandIn {
    pub(crate) fn set_config(&mut self, key: &str, value: &str) {
        self.config.retain(|(found, _)| found != key);
        self.config.push((key.into(), value.into()));
    }

    fn state_size_without(&self, key: &str) -> usize {
        self.state
            .iter()
            .filter(|(found, _)| *found != key)
            .map(|(found, value)| found.len() + value.len())
            .sum()
    }
}

pub(crate) fn with<T>(act: impl FnOnce(&mut StandIn) -> T) -> T {
    HOST.with_borrow_mut(act)
}

pub(crate) fn log(level: log::Level, about: Option<u32>, text: &str) {
    with(|host| {
        if host.lines.len() < LINES_MAX {
            host.lines.push(LogLine {
                level,
                about,
                text: text.into(),
            });
        }
    });
}

pub(crate) fn with_config<T>(read: impl FnOnce(&[(String, String)]) -> T) -> T {
    with(|host| read(&host.config))
}

pub(crate) fn state_get(key: &str) -> Option<Vec<u8>> {
    with(|host| host.state.get(key).cloned())
}

pub(crate) fn state_set(key: &str, value: &[u8]) -> Result<(), state::Error> {
    if key.len() > STATE_KEY_MAX || value.len() > STATE_VALUE_MAX {
        return Err(state::Error::TooLarge);
    }
    with(|host| {
        let size = host.state_size_without(key) + key.len() + value.len();
        if size > host.state_max {
            return Err(state::Error::Full);
        }
        host.state.insert(key.into(), value.into());
        Ok(())
    })
}

pub(crate) fn state_delete(key: &str) {
    with(|host| host.state.remove(key));
}

pub(crate) fn state_scan(prefix: &str, limit: u32) -> Vec<(String, Vec<u8>)> {
    with(|host| {
        host.state
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .take((limit as usize).min(SCAN_MAX))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect()
    })
}

pub(crate) fn clock_now() -> u64 {
    with(|host| host.clock_ms)
}

/// SplitMix64: the same seed gives the same bytes. Not for secrets, and not used for any.
pub(crate) fn random_bytes(count: u32) -> Vec<u8> {
    let next = || {
        with(|host| {
            host.random = host.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (host.random ^ (host.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).to_le_bytes()[0]
        })
    };
    (0..count).map(|_| next()).collect()
}
