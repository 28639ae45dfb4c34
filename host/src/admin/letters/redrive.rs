//! Sending dead letters back to the consumer group that failed (§6.4): what it would do, starting it,
//! cancelling it. Not here: the steps of a redrive that runs (`job.rs`) and when they are taken
//! (`runner.rs`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::decode::{View, number};
use super::groups::Groups;
use super::job::{JobRecord, Range};
use super::list::Found;
use super::scan::Place;
use super::wire::{
    DeadLetterFilter, Job, JobState, RedrivePreview, RedriveRequest, Scanned, Selection,
    StateFilter,
};
use crate::admin::console::Console;
use crate::admin::error::{Code, Error};
use crate::connector::embedded::Commit;

/// A dead letter that was redriven this often is left out.
pub const MAX_REDRIVES_DEFAULT: u32 = 5;
/// Redrives that are remembered, finished ones included.
pub const JOBS_KEPT_MAX: usize = 100;
/// Keys of which a preview looks for newer messages.
pub const PREVIEW_KEYS_MAX: usize = 10_000;
/// Messages of origin topics a preview looks at, and how long.
pub const PREVIEW_MESSAGES_MAX: u64 = 500_000;
const PREVIEW_TIME: Duration = Duration::from_millis(500);

/// The origins of previewed letters.
#[derive(Default)]
struct Origins {
    /// By topic, partition, consumer group: key → the lowest offset of its letters.
    keys: HashMap<(String, u32, String), HashMap<Vec<u8>, u64>>,
    letters: HashSet<(String, u32, u64)>,
    count: usize,
    full: bool,
}

impl Origins {
    fn add(&mut self, letter: &View<'_>) {
        let (Some(topic), Some(partition), Some(offset), Some(group), Some(key)) = (
            letter.origin_topic,
            number::<u32>(letter.origin_partition),
            number::<u64>(letter.origin_offset),
            letter.group,
            letter.message.key,
        ) else {
            return;
        };
        if self.count >= PREVIEW_KEYS_MAX {
            self.full = true;
            return;
        }
        self.letters.insert((topic.to_owned(), partition, offset));
        let place = (topic.to_owned(), partition, group.to_owned());
        let lowest = self.keys.entry(place).or_default();
        match lowest.get_mut(key) {
            Some(lowest) => *lowest = (*lowest).min(offset),
            None => {
                lowest.insert(key.to_vec(), offset);
                self.count += 1;
            }
        }
    }
}

impl Console {
    /// What a redrive would do; changes nothing.
    pub fn preview_redrive(&self, request: &RedriveRequest) -> Result<RedrivePreview, Error> {
        request.selection.check()?;
        let max_redrives = request.max_redrives.unwrap_or(MAX_REDRIVES_DEFAULT);
        let mut groups = Groups::default();
        let mut consumer_groups = BTreeSet::new();
        let mut origins = Origins::default();
        let (mut letters, mut left_out) = (0, 0);
        let scanned = self.each_selected(&request.selection, |place, letter| {
            if letter.round() >= max_redrives {
                left_out += 1;
                return Ok(true);
            }
            letters += 1;
            consumer_groups.insert(letter.group.unwrap_or_default().to_owned());
            groups.add(place, letter);
            origins.add(letter);
            Ok(true)
        })?;
        let (newer_keys, newer_is_whole) = self.newer_keys(&origins)?;
        Ok(RedrivePreview {
            consumer_groups: consumer_groups.into_iter().collect(),
            letters,
            groups: groups.finish().0,
            left_out,
            keys: origins.count as u64,
            newer_keys,
            newer_is_lower_bound: !newer_is_whole || origins.full || scanned.more,
            scanned,
        })
    }

    /// Starts a redrive; it is durable on return and runs inside the host.
    pub fn start_redrive(&self, request: &RedriveRequest, who: &str) -> Result<Job, Error> {
        if request.rate == Some(0) {
            return Err(Error::new(
                Code::Invalid,
                "at a rate of 0 a second nothing moves",
                "leave the rate out to redrive as fast as it goes",
            ));
        }
        let selection = &request.selection;
        selection.check()?;
        let consumer_group = self.one_consumer_group(selection)?;
        let ranges = self.ranges(selection)?;
        let mut filter = selection.filter.clone();
        filter.consumer_group = Some(consumer_group.clone());
        let now = self.now_ms();
        let mut jobs = self.letters.jobs();
        let mut change = self.letters.change()?;
        self.load_jobs(&mut jobs, true)?;
        if let Some(other) = jobs.running(&consumer_group) {
            return Err(Error::new(
                Code::Conflict,
                format!(
                    "the redrive {} sends to the consumer group {consumer_group}",
                    other.id
                ),
                format!(
                    "wait for it (`wasmill dlq jobs`), or end it with `wasmill dlq redrive --cancel {}`",
                    other.id
                ),
            ));
        }
        let record = JobRecord::new(
            self.new_job_id(now)?,
            consumer_group,
            filter,
            !selection.ids.is_empty(),
            request,
            who,
            now,
            ranges,
        );
        let target = format!("{}: {}", record.id, selection.described());
        let mut writes = vec![record.write()];
        writes.extend(
            self.audit
                .writes(who, "dlq redrive", &target, request.note.as_deref())?,
        );
        writes.extend(self.old_jobs()?);
        let committed = change.commit(
            &self.log,
            Commit {
                writes,
                ..Commit::default()
            },
        );
        if let Err(error) = committed {
            // It may begin all the same.
            jobs.forget_loading();
            return Err(error);
        }
        let shown = self.shown_job(&record, None)?;
        jobs.add(record);
        Ok(shown)
    }

    /// Ends a redrive: what it has sent goes on, the rest stays as it was.
    pub fn cancel_redrive(&self, id: &str, who: &str) -> Result<Job, Error> {
        let mut jobs = self.letters.jobs();
        let mut change = self.letters.change()?;
        self.load_jobs(&mut jobs, true)?;
        let mut record = self.job_record(id)?;
        if !matches!(record.state, JobState::Running | JobState::Draining) {
            return Err(Error::new(
                Code::Conflict,
                format!("the redrive {id} has ended"),
                "",
            ));
        }
        record.state = JobState::Cancelled;
        record.changed_at_ms = self.now_ms();
        let mut writes = vec![record.write()];
        writes.extend(self.audit.writes(who, "dlq redrive --cancel", id, None)?);
        change.commit(
            &self.log,
            Commit {
                writes,
                ..Commit::default()
            },
        )?;
        jobs.remove(id);
        self.shown_job(&record, None)
    }

    /// Shows `see` the letters that a redrive of the selection would send, but for the loop guard.
    fn each_selected(
        &self,
        selection: &Selection,
        mut see: impl FnMut(&Place<'_>, &View<'_>) -> Result<bool, Error>,
    ) -> Result<Scanned, Error> {
        if selection.ids.is_empty() {
            redrivable(&selection.filter)?;
            return self.each_fitting(&selection.filter, |place, letter, _| see(place, letter));
        }
        let found = self.find(&selection.ids)?;
        for found in &found {
            self.letter_at(found, |place, letter| see(place, letter).map(|_| ()))?;
        }
        Ok(Scanned {
            looked_at: found.len() as u64,
            ..Scanned::default()
        })
    }

    /// The one consumer group that the selection is about.
    fn one_consumer_group(&self, selection: &Selection) -> Result<String, Error> {
        if let (Some(group), true) = (&selection.filter.consumer_group, selection.ids.is_empty()) {
            redrivable(&selection.filter)?;
            return Ok(group.clone());
        }
        let mut groups = BTreeSet::new();
        let scanned = self.each_selected(selection, |_, letter| {
            groups.insert(letter.group.unwrap_or_default().to_owned());
            Ok(groups.len() < 20)
        })?;
        let names: Vec<String> = groups.into_iter().collect();
        match names.as_slice() {
            [one] => Ok(one.clone()),
            [] => Err(Error::new(
                Code::UnknownDeadLetter,
                if scanned.more {
                    format!("no dead letter fits among the newest {}", scanned.looked_at)
                } else {
                    "no dead letter fits".to_owned()
                },
                if scanned.hints.is_empty() {
                    "with a consumer group named, older ones are looked for too".to_owned()
                } else {
                    scanned.hints.join("\n")
                },
            )),
            several => Err(Error::new(
                Code::Invalid,
                format!(
                    "these dead letters are of several consumer groups: {}",
                    several.join(", ")
                ),
                "a redrive goes to one: name it with --consumer-group",
            )),
        }
    }

    /// What a redrive of the selection looks at: the letters that are there now.
    fn ranges(&self, selection: &Selection) -> Result<Vec<Range>, Error> {
        if !selection.ids.is_empty() {
            let found = self.find(&selection.ids)?;
            return Ok(found.into_iter().map(Range::of).collect());
        }
        let filter = &selection.filter;
        let mut ranges = Vec::new();
        for topic in self.holding_topics(filter.topic.as_deref())? {
            for (partition, id) in (0..).zip(&topic.partitions) {
                let mut next = self.log.earliest(*id)?;
                let mut end = self.log.end(*id)?;
                if let Some(from) = filter.from_ms {
                    next = next.max(self.log.offset_at(*id, from)?);
                }
                if let Some(until) = filter.until_ms {
                    end = end.min(self.log.offset_at(*id, until.saturating_add(1))?);
                }
                if next < end {
                    ranges.push(Range {
                        topic: topic.name.clone(),
                        partition,
                        next,
                        end,
                    });
                }
            }
        }
        Ok(ranges)
    }

    /// How many of the keys have a newer message that their group has passed; false: perhaps more.
    fn newer_keys(&self, origins: &Origins) -> Result<(u64, bool), Error> {
        let until = Instant::now() + PREVIEW_TIME;
        let (mut looked_at, mut newer, mut whole) = (0u64, 0, true);
        for ((topic, partition, group), keys) in &origins.keys {
            let Some(lowest) = keys.values().min() else {
                continue;
            };
            let passed = self.passed(topic, group, *partition)?.unwrap_or(0);
            let origin = self.log.topic(topic);
            let Some(id) = origin.and_then(|origin| origin.partition(*partition)) else {
                whole = false;
                continue;
            };
            let mut found: HashSet<&[u8]> = HashSet::new();
            self.walk(id, *lowest + 1, |offset, message| {
                looked_at += 1;
                let over = looked_at > PREVIEW_MESSAGES_MAX
                    || (looked_at.is_multiple_of(256) && Instant::now() > until);
                whole &= !over;
                if offset >= passed || over {
                    return false;
                }
                if let Some((key, letter)) = message.key.and_then(|key| keys.get_key_value(key))
                    && *letter < offset
                    && !origins
                        .letters
                        .contains(&(topic.clone(), *partition, offset))
                {
                    found.insert(key);
                }
                true
            })?;
            newer += found.len() as u64;
        }
        Ok((newer, whole))
    }
}

impl Range {
    fn of(found: Found) -> Self {
        Self {
            topic: found.topic,
            partition: found.partition,
            next: found.offset,
            end: found.offset + 1,
        }
    }
}

fn redrivable(filter: &DeadLetterFilter) -> Result<(), Error> {
    match filter.state {
        StateFilter::New | StateFilter::Resolved => Ok(()),
        _ => Err(Error::new(
            Code::Invalid,
            "only new and resolved dead letters are redriven",
            "a letter on its way back is decided by what comes of it; see `wasmill dlq jobs`",
        )),
    }
}
