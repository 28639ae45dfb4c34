//! How many dead letters of each pipeline are open, for `status`: asked every second, so it looks at few
//! and says when there may be more. Not here: which they are (`list.rs`).

use std::collections::BTreeMap;

use super::wire::DeadLetterFilter;
use crate::admin::console::Console;
use crate::admin::error::Error;
use crate::admin::wire::Backlog;
use crate::pipeline::dead_letter;
use crate::pipeline::snapshot::{Origin, Snapshot};

/// Open dead letters that are counted in one topic.
pub const OPEN_LETTERS_MAX: u64 = 1_000;
/// Messages of dead letter topics that one count looks at.
pub const OPEN_SCAN_MAX: u64 = 10_000;
/// Pipelines of which one count tells.
pub const OPEN_PIPELINES_MAX: usize = 1_000;

impl Console {
    /// Of the pipelines that run, and of those whose names open dead letters bear.
    pub(in crate::admin) fn backlogs(&self, running: &[Snapshot]) -> Result<Vec<Backlog>, Error> {
        let mut backlogs: BTreeMap<String, Backlog> = BTreeMap::new();
        for snapshot in running {
            let backlog = Backlog {
                retries_waiting: snapshot.waiting(Origin::Retries),
                redrives_waiting: snapshot.waiting(Origin::Redrives),
                ..Backlog::of(&snapshot.pipeline)
            };
            backlogs.insert(snapshot.pipeline.clone(), backlog);
        }
        let mut left = OPEN_SCAN_MAX;
        for topic in self.holding_topics(None)? {
            let (open, looked_at, whole) = self.open_in(&topic.name, left)?;
            left = left.saturating_sub(looked_at);
            let owner = running.iter().find(|one| is_default(&topic.name, one));
            for (pipeline, count) in &open {
                if !backlogs.contains_key(pipeline) && backlogs.len() >= OPEN_PIPELINES_MAX {
                    continue;
                }
                let entry = backlogs.entry(pipeline.clone());
                let backlog = entry.or_insert_with(|| Backlog::of(pipeline));
                backlog.dead_letters_open += count;
                backlog.dead_letters_more |= !whole;
            }
            if whole {
                continue;
            }
            // What was not looked at is of the pipeline whose topic it is, or may be of any.
            for backlog in backlogs.values_mut() {
                let is_other = owner.is_some_and(|owner| owner.pipeline != backlog.pipeline);
                backlog.dead_letters_more |= !is_other;
            }
        }
        Ok(backlogs.into_values().collect())
    }

    /// Open ones by pipeline, messages looked at, and whether that was everything.
    fn open_in(&self, topic: &str, scan: u64) -> Result<(BTreeMap<String, u64>, u64, bool), Error> {
        let filter = DeadLetterFilter {
            topic: Some(topic.to_owned()),
            scan: Some(scan),
            ..DeadLetterFilter::default()
        };
        let mut open: BTreeMap<String, u64> = BTreeMap::new();
        let mut counted = 0;
        let scanned = self.each_fitting(&filter, |_, letter, _| {
            if counted == OPEN_LETTERS_MAX {
                return Ok(false);
            }
            counted += 1;
            let pipeline = letter.pipeline.unwrap_or_default();
            match open.get_mut(pipeline) {
                Some(count) => *count += 1,
                None => {
                    open.insert(pipeline.to_owned(), 1);
                }
            }
            Ok(true)
        })?;
        Ok((open, scanned.looked_at, !scanned.more))
    }
}

impl Backlog {
    fn of(pipeline: &str) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            retries_waiting: 0,
            redrives_waiting: 0,
            dead_letters_open: 0,
            dead_letters_more: false,
        }
    }
}

/// Whether `topic` is where the dead letters of this pipeline go when nothing else is said.
fn is_default(topic: &str, of: &Snapshot) -> bool {
    let mut partitions = of.partitions.iter();
    partitions.any(|one| dead_letter::default_topic(&one.topic, &of.consumer_group) == topic)
}
