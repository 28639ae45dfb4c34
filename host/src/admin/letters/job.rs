//! A redrive as it is kept, and its steps. A step is one commit: records appended to the redrive topic,
//! their letters' states, the cursor. So a host that is killed repeats nothing, and a restart goes on.
//! Not here: when a step is taken (`runner.rs`).

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::change::Change;
use super::decode::{View, number};
use super::filter::Wanted;
use super::redrive::{JOBS_KEPT_MAX, MAX_REDRIVES_DEFAULT};
use super::scan::Place;
use super::state::{self, BLOCK, Lookup};
use super::wire::{DeadLetterFilter, Job, JobState, LetterState, RedriveRequest, StateFilter};
use crate::admin::console::Console;
use crate::admin::console::unknown;
use crate::admin::error::{Code, Error};
use crate::connector::embedded::{Append, ChunkBuilder, Commit, PartitionId, TopicSpec, Write};
use crate::message::{HeadersBuf, MessageRef};
use crate::pipeline::letter_state::{Record, State};
use crate::pipeline::returned::{self, ADDED_BYTES_MAX, Returned};

/// Dead letters sent by one step.
pub const STEP_LETTERS_MAX: usize = 500;
/// Bytes after which a step ends.
const STEP_BYTES_MAX: usize = 1 << 20;
/// Messages a step looks at.
const STEP_LOOKS_MAX: u64 = 5_000;
const PREFIX: &[u8] = b"redrive/";
const VERSION: u8 = 1;

/// Offsets of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) next: u64,
    /// Exclusive.
    pub(super) end: u64,
}

/// A letter that was sent and has not come to anything yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    letter: String,
    round: u32,
    /// Index in the job's targets.
    target: usize,
}

/// A redrive as it is kept under `redrive/<id>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    version: u8,
    pub(super) id: String,
    pub(super) state: JobState,
    pub(super) consumer_group: String,
    filter: DeadLetterFilter,
    /// The letters were named one by one.
    named: bool,
    pub(super) rate: Option<u32>,
    pub(super) stop_after: Option<u64>,
    max_redrives: u32,
    note: Option<String>,
    by: String,
    started_at_ms: i64,
    pub(super) changed_at_ms: i64,
    /// What it has yet to look at.
    ranges: Vec<Range>,
    /// What it has written to the redrive topic ends there.
    targets: Vec<Range>,
    /// With `stop_after`: letters that run ahead of what is known of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ahead: Vec<Sent>,
    /// Where dead letters of a higher round would appear.
    watched: Vec<Range>,
    looked_at: u64,
    pub(super) sent: u64,
    left_out: u64,
    failed_again: u64,
}

/// What a step collects before its commit.
#[derive(Default)]
struct Step {
    chunks: BTreeMap<PartitionId, Chunk>,
    writes: Vec<Write>,
    /// ID and round of what it sends: two places may hold one, and it is sent once.
    letters: HashSet<(String, u32)>,
    /// How long the log is waited for.
    patience: Duration,
    sent: usize,
    bytes: usize,
    looks: u64,
    opens: bool,
}

/// What a step appends to one partition of a redrive topic.
struct Chunk {
    topic: String,
    partition: u32,
    /// Where it will begin: nobody else writes there.
    base: u64,
    builder: ChunkBuilder,
}

impl Step {
    fn is_full(&self, letters_max: usize) -> bool {
        self.sent >= letters_max || self.bytes >= STEP_BYTES_MAX || self.looks >= STEP_LOOKS_MAX
    }
}

impl JobRecord {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of a new job, each of another kind"
    )]
    pub(super) fn new(
        id: String,
        consumer_group: String,
        filter: DeadLetterFilter,
        named: bool,
        request: &RedriveRequest,
        who: &str,
        now_ms: i64,
        ranges: Vec<Range>,
    ) -> Self {
        Self {
            version: VERSION,
            id,
            state: JobState::Running,
            consumer_group,
            filter,
            named,
            rate: request.rate,
            stop_after: request.stop_after,
            max_redrives: request.max_redrives.unwrap_or(MAX_REDRIVES_DEFAULT),
            note: request.note.clone(),
            by: who.to_owned(),
            started_at_ms: now_ms,
            changed_at_ms: now_ms,
            ranges,
            targets: Vec::new(),
            ahead: Vec::new(),
            watched: Vec::new(),
            looked_at: 0,
            sent: 0,
            left_out: 0,
            failed_again: 0,
        }
    }

    pub(super) fn write(&self) -> Write {
        Write::Meta {
            key: key(&self.id),
            // Plain data: writing it to memory cannot fail.
            value: Some(serde_json::to_vec(self).unwrap_or_default()),
        }
    }

    fn is_eligible(&self, state: &LetterState) -> bool {
        let is_open = state.state == State::New || state.lost;
        let is_resolved = state.state == State::Resolved;
        if self.named {
            return is_open || is_resolved;
        }
        match self.filter.state {
            StateFilter::New => is_open,
            StateFilter::Resolved => is_resolved,
            _ => false,
        }
    }

    /// Where its records on a partition of the redrive topic end; the index of that partition.
    fn set_target(&mut self, topic: &str, partition: u32, end: u64) -> usize {
        let is_it = |one: &Range| one.topic == topic && one.partition == partition;
        let known = self.targets.iter().position(is_it);
        let index = known.unwrap_or(self.targets.len());
        match self.targets.get_mut(index) {
            Some(known) => known.end = end,
            None => self.targets.push(Range {
                topic: topic.to_owned(),
                partition,
                next: 0,
                end,
            }),
        }
        index
    }
}

impl Console {
    /// One step of a redrive, from `record`, which is how the log has it; what is durable afterwards is
    /// `record` again. Up to `letters_max` letters.
    pub(super) fn step_job(
        &self,
        record: &mut JobRecord,
        letters_max: usize,
        change: &mut Change<'_>,
    ) -> Result<usize, Error> {
        let mut next = record.clone();
        if next.sent == 0 && next.watched.is_empty() {
            next.watched = self.watched(&next)?;
        }
        self.count_failures(&mut next)?;
        if next
            .stop_after
            .is_some_and(|stop_after| next.failed_again >= stop_after)
        {
            next.state = JobState::Stopped;
        }
        let mut step = Step {
            patience: change.patience(),
            ..Step::default()
        };
        if next.state == JobState::Running {
            self.collect(&mut next, &mut step, letters_max.min(STEP_LETTERS_MAX))?;
            if next.ranges.is_empty() {
                next.state = JobState::Draining;
            }
        }
        let is_over = next.ahead.is_empty() && self.waiting(&next)? == 0;
        if next.state == JobState::Draining && step.sent == 0 && is_over {
            next.state = JobState::Done;
        }
        if next != *record {
            next.changed_at_ms = self.now_ms();
            self.commit_step(&next, &mut step, change)?;
            *record = next;
        }
        Ok(step.sent)
    }

    fn commit_step(
        &self,
        next: &JobRecord,
        step: &mut Step,
        change: &mut Change<'_>,
    ) -> Result<(), Error> {
        let mut commit = Commit::default();
        let mut bases = Vec::new();
        for (id, chunk) in &mut step.chunks {
            bases.push(chunk.base);
            commit.appends.push(Append {
                partition: *id,
                chunk: chunk.builder.finish(),
            });
        }
        commit.writes.append(&mut step.writes);
        commit.writes.push(next.write());
        if step.opens {
            self.letters.count_opened();
        }
        let committed = change.commit(&self.log, commit)?;
        if committed.base_offsets != bases {
            tracing::error!(
                job = next.id,
                "somebody else wrote to a redrive topic: letters that get lost there stay redriving"
            );
        }
        Ok(())
    }

    /// Fills `step` with letters from where the job stands, and moves it on.
    fn collect(
        &self,
        job: &mut JobRecord,
        step: &mut Step,
        letters_max: usize,
    ) -> Result<(), Error> {
        let wanted = Wanted::new(&job.filter)?;
        let past_closed = !job.named && job.filter.state == StateFilter::New;
        let mut lookup = Lookup::new(self);
        while let Some(mut range) = job.ranges.first().cloned() {
            let Some(topic) = self.log.topic(&range.topic) else {
                job.ranges.remove(0);
                continue;
            };
            let id = self.known_partition(&topic, range.partition)?;
            range.next = range.next.max(self.log.earliest(id)?);
            while range.next < range.end && !step.is_full(letters_max) {
                let block = range.next / BLOCK;
                let stop = ((block + 1) * BLOCK).min(range.end);
                if past_closed && self.is_block_closed(id, block)? {
                    job.looked_at += stop - range.next;
                    range.next = stop;
                    continue;
                }
                let (mut failed, mut stopped) = (None, false);
                self.walk(id, range.next, |offset, message| {
                    if offset >= stop {
                        return false;
                    }
                    if step.is_full(letters_max) {
                        stopped = true;
                        return false;
                    }
                    step.looks += 1;
                    job.looked_at += 1;
                    range.next = offset + 1;
                    let place = Place {
                        topic: &topic,
                        partition: range.partition,
                        id,
                        offset,
                    };
                    if let Some(letter) = View::read(message)
                        && (job.named || wanted.fits(&letter))
                    {
                        failed = self.take(job, step, &mut lookup, &place, &letter).err();
                    }
                    failed.is_none()
                })?;
                if let Some(failed) = failed {
                    return Err(failed);
                }
                if !stopped {
                    range.next = stop;
                }
            }
            if range.next >= range.end {
                job.ranges.remove(0);
            } else if let Some(first) = job.ranges.first_mut() {
                *first = range;
            }
            if step.is_full(letters_max) {
                break;
            }
        }
        Ok(())
    }

    /// Adds one letter to the step, unless it is not to be sent.
    fn take(
        &self,
        job: &mut JobRecord,
        step: &mut Step,
        lookup: &mut Lookup<'_>,
        place: &Place<'_>,
        letter: &View<'_>,
    ) -> Result<(), Error> {
        let state = lookup.state(letter)?;
        if !job.is_eligible(&state) {
            return Ok(());
        }
        let origin = (
            letter.origin_topic,
            number::<u32>(letter.origin_partition),
            number::<u64>(letter.origin_offset),
        );
        let (Some(topic), Some(partition), Some(offset)) = origin else {
            job.left_out += 1;
            return Ok(());
        };
        if letter.round() >= job.max_redrives {
            job.left_out += 1;
            return Ok(());
        }
        let sent = (letter.id.unwrap_or_default().to_owned(), letter.round());
        if step.letters.contains(&sent) {
            return Ok(());
        }
        let returned = Returned {
            origin_topic: topic.to_owned(),
            origin_partition: partition,
            origin_offset: offset,
            attempts: 0,
            // At once; `trace` shows when that was.
            due_ms: self.now_ms(),
            first_failed_at_ms: None,
            redrive_count: letter.round() + 1,
            dead_letter_id: letter.id.map(ToOwned::to_owned),
        };
        let target = self.target(step, topic, &job.consumer_group, partition);
        let (id, chunk) = match target {
            Ok(target) => target,
            // Its topic is gone or has fewer partitions: there is no way back.
            Err(why) if matches!(why.code, Code::UnknownTopic | Code::UnknownPartition) => {
                job.left_out += 1;
                return Ok(());
            }
            Err(why) => return Err(why),
        };
        let redrive_offset = chunk.base + chunk.builder.len() as u64;
        let before = chunk.builder.bytes();
        push(chunk, letter, &returned)?;
        let target = job.set_target(&chunk.topic, chunk.partition, redrive_offset + 1);
        step.bytes += step
            .chunks
            .get(&id)
            .map_or(0, |chunk| chunk.builder.bytes())
            - before;
        step.sent += 1;
        job.sent += 1;
        let record = Record::redriving(self.now_ms(), "host", &job.id, redrive_offset);
        step.writes.push(state::write(&sent.0, sent.1, &record));
        if job.stop_after.is_some() {
            job.ahead.push(Sent {
                letter: sent.0.clone(),
                round: sent.1,
                target,
            });
        }
        step.letters.insert(sent);
        if state.state.is_closed() {
            step.opens = true;
            step.writes.push(state::open_block(place.id, place.offset));
        }
        Ok(())
    }

    /// The chunk of the step for a partition of the redrive topic.
    fn target<'s>(
        &self,
        step: &'s mut Step,
        topic: &str,
        group: &str,
        partition: u32,
    ) -> Result<(PartitionId, &'s mut Chunk), Error> {
        let name = returned::redrive_topic(topic, group);
        let redrive = match self.log.topic(&name) {
            Some(redrive) => redrive,
            None => {
                let origin = self.known_topic(topic)?;
                let spec = TopicSpec {
                    internal: true,
                    max_message_bytes: origin
                        .spec
                        .max_message_bytes
                        .saturating_add(ADDED_BYTES_MAX as u32),
                    ..TopicSpec::new(name, origin.spec.partitions)
                };
                self.log.create_topic_within(&spec, step.patience)?
            }
        };
        let id = self.known_partition(&redrive, partition)?;
        let base = self.log.end(id)?;
        let chunk = step.chunks.entry(id).or_insert_with(|| Chunk {
            topic: redrive.name.clone(),
            partition,
            base,
            builder: ChunkBuilder::new(),
        });
        Ok((id, chunk))
    }

    /// The ends of the partitions in which letters that fail again appear.
    fn watched(&self, job: &JobRecord) -> Result<Vec<Range>, Error> {
        let mut watched = Vec::new();
        let mut names: Vec<&str> = job
            .ranges
            .iter()
            .map(|range| range.topic.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let Some(topic) = self.log.topic(name) else {
                continue;
            };
            for (partition, id) in (0..).zip(&topic.partitions) {
                let end = self.log.end(*id)?;
                watched.push(Range {
                    topic: topic.name.clone(),
                    partition,
                    next: end,
                    end,
                });
            }
        }
        Ok(watched)
    }

    /// Counts dead letters of a higher round since the last step.
    fn count_failures(&self, job: &mut JobRecord) -> Result<(), Error> {
        let mut looks = 0;
        for range in &mut job.watched {
            let Some(topic) = self.log.topic(&range.topic) else {
                continue;
            };
            let id = self.known_partition(&topic, range.partition)?;
            range.next = self.walk(id, range.next, |_, message| {
                looks += 1;
                if let Some(letter) = View::read(message)
                    && letter.round() > 0
                    && letter.group == Some(job.consumer_group.as_str())
                {
                    job.failed_again += 1;
                }
                looks < STEP_LOOKS_MAX
            })?;
            range.end = range.next;
        }
        Ok(())
    }

    /// Forgets those of `ahead` of which something is known: they are over, or lost. One that is put aside
    /// until its next attempt has left the redrive topic, and nothing is known of it.
    pub(super) fn look_ahead(&self, job: &mut JobRecord) -> Result<(), Error> {
        let mut passed = Vec::new();
        for target in &job.targets {
            passed.push(self.passed(&target.topic, &job.consumer_group, target.partition)?);
        }
        let mut left = Vec::new();
        for sent in std::mem::take(&mut job.ahead) {
            let Some(record) = self.state_record(&sent.letter, sent.round)? else {
                continue;
            };
            let passed = passed.get(sent.target).copied().flatten().unwrap_or(0);
            let is_lost = record.redrive_offset.is_some_and(|offset| offset < passed);
            if record.state == State::Redriving && !is_lost {
                left.push(sent);
            }
        }
        job.ahead = left;
        Ok(())
    }

    /// Letters the job has sent that its consumer group has not passed.
    pub(super) fn waiting(&self, job: &JobRecord) -> Result<u64, Error> {
        let mut waiting = 0;
        for target in &job.targets {
            let passed = self.passed(&target.topic, &job.consumer_group, target.partition)?;
            let from = match passed {
                Some(passed) => passed,
                None => self.earliest_of(&target.topic, target.partition)?,
            };
            waiting += target.end.saturating_sub(from);
        }
        Ok(waiting.min(job.sent))
    }

    fn earliest_of(&self, topic: &str, partition: u32) -> Result<u64, Error> {
        let topic = self.known_topic(topic)?;
        let id = self.known_partition(&topic, partition)?;
        Ok(self.log.earliest(id)?)
    }

    /// All redrives that are remembered, the newest first.
    pub fn jobs(&self) -> Result<Vec<Job>, Error> {
        let mut shown = Vec::new();
        for record in self.job_records()?.iter().rev() {
            shown.push(self.shown_job(record, self.letters.trouble(&record.id))?);
        }
        Ok(shown)
    }

    pub fn job(&self, id: &str) -> Result<Job, Error> {
        self.shown_job(&self.job_record(id)?, self.letters.trouble(id))
    }

    pub(super) fn shown_job(&self, job: &JobRecord, trouble: Option<String>) -> Result<Job, Error> {
        let waiting = self.waiting(job)?;
        let trouble = trouble.or_else(|| {
            let is_over = waiting == 0 && job.state != JobState::Running;
            (!is_over && !self.is_read(&job.consumer_group)).then(|| {
                format!(
                    "no pipeline of this host reads as {}: they wait until one does",
                    job.consumer_group
                )
            })
        });
        Ok(Job {
            id: job.id.clone(),
            state: job.state,
            consumer_group: job.consumer_group.clone(),
            filter: job.filter.clone(),
            rate: job.rate,
            stop_after: job.stop_after,
            max_redrives: job.max_redrives,
            note: job.note.clone(),
            by: job.by.clone(),
            started_at_ms: job.started_at_ms,
            changed_at_ms: job.changed_at_ms,
            to_look_at: job.ranges.iter().map(|range| range.end - range.next).sum(),
            looked_at: job.looked_at,
            sent: job.sent,
            waiting,
            left_out: job.left_out,
            failed_again: job.failed_again,
            trouble,
        })
    }

    /// Whether a pipeline of the running host reads as the group; without a host nobody can tell.
    fn is_read(&self, group: &str) -> bool {
        let pipelines = self.snapshots();
        pipelines.is_empty() || pipelines.iter().any(|one| one.consumer_group == group)
    }

    pub(super) fn job_record(&self, id: &str) -> Result<JobRecord, Error> {
        match self.log.meta_get(&key(id))? {
            Some(value) => read(&value),
            None => {
                let known = self.job_records()?;
                let names = known.iter().map(|job| job.id.as_str());
                Err(unknown(Code::UnknownJob, "redrive", id, names, "dlq jobs"))
            }
        }
    }

    /// The oldest first.
    pub(super) fn job_records(&self) -> Result<Vec<JobRecord>, Error> {
        let found = self.log.meta_scan(PREFIX, b"", 2 * JOBS_KEPT_MAX)?;
        found.iter().map(|(_, value)| read(value)).collect()
    }

    /// Writes that forget the oldest redrives that ended, so that one more has room.
    pub(super) fn old_jobs(&self) -> Result<Vec<Write>, Error> {
        let known = self.job_records()?;
        let over = (known.len() + 1).saturating_sub(JOBS_KEPT_MAX);
        Ok(known
            .iter()
            .filter(|job| !matches!(job.state, JobState::Running | JobState::Draining))
            .take(over)
            .map(|job| Write::Meta {
                key: key(&job.id),
                value: None,
            })
            .collect())
    }

    /// IDs sort by time.
    pub(super) fn new_job_id(&self, now_ms: i64) -> Result<String, Error> {
        let mut at = now_ms;
        loop {
            let id = format!("r{at:x}");
            if self.log.meta_get(&key(&id))?.is_none() {
                return Ok(id);
            }
            at += 1;
        }
    }
}

/// Appends the letter as its message was, with the host's headers of a returned one.
fn push(chunk: &mut Chunk, letter: &View<'_>, returned: &Returned) -> Result<(), Error> {
    let mut original = HeadersBuf::new();
    for (name, value) in letter.message.headers.iter() {
        if !name.starts_with(super::decode::PREFIX) {
            // It fitted among the letter's headers.
            _ = original.push(name, value);
        }
    }
    let message = MessageRef {
        headers: original.as_headers(),
        timestamp_ms: number(letter.origin_timestamp).unwrap_or(letter.message.timestamp_ms),
        ..letter.message
    };
    let mut headers = HeadersBuf::new();
    let Some(record) = returned.record(&message, &mut headers) else {
        return Err(Error::internal("the headers of a dead letter do not fit"));
    };
    chunk.builder.push(&record);
    Ok(())
}

fn read(value: &[u8]) -> Result<JobRecord, Error> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u8,
    }
    let bad = |why: String| {
        Error::new(
            Code::StoreUnavailable,
            format!("the record of a redrive cannot be read: {why}"),
            "it was written by a newer wasmill, or the store is damaged",
        )
    };
    let found: Versioned = serde_json::from_slice(value).map_err(|why| bad(why.to_string()))?;
    if found.version != VERSION {
        return Err(bad(format!("it has version {}", found.version)));
    }
    serde_json::from_slice(value).map_err(|why| bad(why.to_string()))
}

fn key(id: &str) -> Vec<u8> {
    [PREFIX, id.as_bytes()].concat()
}
