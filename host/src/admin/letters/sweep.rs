//! What nobody waits for. Forgetting the states of dead letters that retention has removed: they would
//! pile up for ever. A letter fails before anybody changes its state, so a state that is older than every
//! letter still kept is that of a letter that is gone. And looking for blocks in which all letters are
//! closed by now, so that questions need not. Bounded parts, one after the other.

use std::time::Duration;

use super::decode::View;
use super::wire::DeadLetterFilter;
use crate::admin::console::Console;
use crate::admin::error::Error;
use crate::connector::embedded::{Commit, Write};
use crate::pipeline::letter_state::{KEY_PREFIX, Record};

/// States looked at in one part.
const PART: usize = 2_000;
/// Between two parts while there is something to look at, and between two rounds.
pub(super) const PART_EVERY: Duration = Duration::from_secs(1);
pub(super) const ROUND_EVERY: Duration = Duration::from_secs(600);
/// Letters looked at in one part, and parts of one round.
const PART_LETTERS: u64 = 20_000;
const PARTS: u32 = 50;
/// Messages at the head of a partition among which its first letter is looked for.
pub(super) const HEAD_LOOKS: u64 = 1_000;
/// Clocks of hosts that wrote the letters may have differed so much.
const SLACK_MS: i64 = 3_600_000;

/// How far a round is.
#[derive(Default)]
pub(super) struct Sweep {
    next: Vec<u8>,
    /// Where the look for closed blocks goes on, backwards in time.
    until_ms: Option<i64>,
    parts: u32,
}

impl Console {
    /// One part of a round; how long to wait before the next.
    pub(super) fn sweep(&self, sweep: &mut Sweep) -> Result<Duration, Error> {
        let blocks = self.sweep_blocks(sweep)?;
        let states = self.sweep_states(sweep)?;
        Ok(blocks.min(states))
    }

    /// Looks at letters, newest first, which marks the blocks that are closed.
    fn sweep_blocks(&self, sweep: &mut Sweep) -> Result<Duration, Error> {
        let filter = DeadLetterFilter {
            until_ms: sweep.until_ms,
            scan: Some(PART_LETTERS),
            ..DeadLetterFilter::default()
        };
        let scanned = self.each_fitting(&filter, |_, _, _| Ok(true))?;
        let stands = scanned.back_to_ms == sweep.until_ms;
        sweep.until_ms = scanned.back_to_ms.filter(|_| scanned.more && !stands);
        sweep.parts = (sweep.parts + 1) % PARTS;
        if sweep.until_ms.is_none() || sweep.parts == 0 {
            return Ok(ROUND_EVERY);
        }
        Ok(PART_EVERY)
    }

    /// Forgets states, in key order.
    pub(super) fn sweep_states(&self, sweep: &mut Sweep) -> Result<Duration, Error> {
        let Some(oldest_ms) = self.oldest_letter_ms()? else {
            return Ok(ROUND_EVERY);
        };
        let found = self
            .log
            .meta_scan(KEY_PREFIX.as_bytes(), &sweep.next, PART)?;
        let mut writes = Vec::new();
        for (key, value) in &found {
            let record = Record::decode(value).ok();
            // What this version cannot read is not its to delete.
            let is_gone = record.is_some_and(|record| {
                record.state.is_closed() && record.at_ms < oldest_ms.saturating_sub(SLACK_MS)
            });
            if is_gone {
                writes.push(Write::Meta {
                    key: key.to_vec(),
                    value: None,
                });
            }
        }
        if !writes.is_empty() {
            let count = writes.len();
            self.log.commit_within(
                Commit {
                    writes,
                    ..Commit::default()
                },
                super::close::COMMIT_TIME_MAX,
            )?;
            tracing::debug!(count, "states of dead letters that are gone were forgotten");
        }
        match found.last() {
            Some((key, _)) if found.len() == PART => {
                sweep.next = [key, b"\0".as_slice()].concat();
                Ok(PART_EVERY)
            }
            _ => {
                sweep.next.clear();
                Ok(ROUND_EVERY)
            }
        }
    }

    /// When the oldest dead letter that is kept failed, Unix ms; now when none is. `None`: it cannot be told,
    /// or retention has removed none.
    fn oldest_letter_ms(&self) -> Result<Option<i64>, Error> {
        let (mut oldest_ms, mut any_removed) = (self.now_ms(), false);
        let holding = self.holding_topics(None)?;
        for topic in self.log.topics() {
            if topic.spec.internal {
                continue;
            }
            let holds = holding.iter().any(|one| one.name == topic.name);
            // What somebody else wrote there may stand before the letters.
            let most = if holds { HEAD_LOOKS } else { 1 };
            for id in &topic.partitions {
                let earliest = self.log.earliest(*id)?;
                let (mut looks, mut found) = (0, None);
                self.walk(*id, earliest, |_, message| {
                    looks += 1;
                    if View::read(message).is_some() {
                        found = Some(message.timestamp_ms);
                    }
                    found.is_none() && looks < most
                })?;
                if holds && found.is_none() && looks == most {
                    return Ok(None);
                }
                any_removed |= earliest > 0 && (holds || found.is_some());
                oldest_ms = found.map_or(oldest_ms, |at_ms| oldest_ms.min(at_ms));
            }
        }
        Ok(any_removed.then_some(oldest_ms))
    }
}
