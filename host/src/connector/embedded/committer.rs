//! The one thread that writes: takes jobs in order, gives offsets, plans one atomic batch of them, has
//! it made durable, acknowledges. How a plan becomes durable is the `writer`'s.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use fjall::Slice;

use super::catalog::{Bucket, CompletionLog, Segment, TopicEntry, user_key};
use super::commit::{Append, Commit, Committed, Write};
use super::completions::{Completion, GENERATIONS_PER_LOG};
use super::error::Error;
use super::options::{GROUPS_MAX, PARTITIONS_MAX, TOPICS_MAX};
use super::plan::Plan;
use super::queue::{AckOnce, Job, Taken};
use super::retention::{self, BucketChoice, Open};
use super::shared::{Shared, State};
use super::store::{Target, chunk_key, progress_key, state_key};
use super::topic::{GroupId, PartitionId, Topic, TopicSpec, check_group_name, check_topic_name};
use super::writer::Writer;
use crate::config::valid::Durability;
use crate::pipeline::offsets::Progress;

pub(super) struct Committer {
    shared: Arc<Shared>,
    writer: Writer,
    /// Next offset by partition id, those of the plan in hand included.
    next: Vec<u64>,
    /// The open segment by topic id, the plan in hand included.
    open: Vec<OpenSegment>,
    buckets: Vec<Bucket>,
    next_bucket: u32,
    last_bucket: Option<(Bucket, i64)>,
    /// Logs of packed completions; the last is written to.
    logs: Vec<CompletionLog>,
    next_log: u32,
    /// Completions in the last of them.
    logged: usize,
    moved_through: u64,
    maintained: Instant,
}

#[derive(Debug, Clone, Copy)]
struct OpenSegment {
    id: u64,
    bytes: u64,
    max_timestamp_ms: i64,
    created_at_ms: i64,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, writer: Writer, next: Vec<u64>) -> Self {
        let state = shared.read_state();
        let open = state
            .catalog
            .topics
            .iter()
            .map(|topic| {
                let target = |id| Target::Segment {
                    topic: topic.topic.id,
                    segment: id,
                };
                let last = topic.segments.last();
                let stored = last.and_then(|s| {
                    let keyspace = state.store.as_ref()?.keyspace(target(s.id)).ok()?;
                    Some(keyspace.disk_space())
                });
                OpenSegment {
                    id: last.map_or(0, |s| s.id),
                    // Not exact after a restart (the journal is not counted): good enough to roll by.
                    bytes: stored.unwrap_or(0),
                    max_timestamp_ms: i64::MAX,
                    created_at_ms: last.map_or(0, |s| s.created_at_ms),
                }
            })
            .collect();
        let buckets = state.catalog.buckets.clone();
        let next_bucket = state.catalog.next_bucket;
        let (logs, next_log) = (state.catalog.logs.clone(), state.catalog.next_log);
        let moved_through = state.catalog.moved_through;
        drop(state);
        Self {
            shared,
            writer,
            next,
            open,
            buckets,
            next_bucket,
            last_bucket: None,
            logs,
            next_log,
            // A new one is begun after a restart.
            logged: usize::MAX,
            moved_through,
            maintained: Instant::now(),
        }
    }

    /// Works until the queue closes and is empty. A panic ends it as `Dead`, never as a hang.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.work()));
        if let Err(panic) = ended {
            let text = panic
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(panic = %text, "the committer of the embedded log panicked");
            shared.set_dead(Arc::from(format!(
                "the committer panicked: {text}; restart the host"
            )));
        }
        shared.queue.kill();
    }

    fn work(&mut self) {
        loop {
            let interval = self.shared.options.maintenance_interval;
            let patience = interval.saturating_sub(self.maintained.elapsed());
            match self
                .shared
                .queue
                .take(self.shared.options.group_bytes, patience)
            {
                Taken::Jobs(jobs) => self.run_jobs(jobs),
                Taken::Idle => {}
                Taken::Closed => break,
            }
            if self.maintained.elapsed() >= interval {
                self.maintained = Instant::now();
                if let Err(error) = self.maintain(self.shared.now_ms()) {
                    tracing::warn!(%error, "retention of the embedded log was not applied");
                }
            }
        }
        self.writer.end();
    }

    fn run_jobs(&mut self, jobs: Vec<Job>) {
        let mut commits = Vec::new();
        for job in jobs {
            if let Job::Commit(commit, ack) = job {
                commits.push((commit, ack));
                continue;
            }
            self.commit(std::mem::take(&mut commits));
            match job {
                Job::Commit(..) => {}
                Job::CreateTopic(spec, reply) => answer(&reply, self.create_topic(spec)),
                Job::CreateGroup(name, reply) => answer(&reply, self.create_group(&name)),
                Job::RenameGroup(id, from, to, reply) => {
                    answer(&reply, self.rename_group(id, &from, &to));
                }
                Job::Maintain(now_ms, reply) => answer(&reply, self.maintain(now_ms)),
                #[cfg(test)]
                Job::Panic => panic!("asked for by a test"),
            }
        }
        self.commit(commits);
    }

    /// One batch, one fsync, one mark for all of them.
    fn commit(&mut self, commits: Vec<(Commit, AckOnce)>) {
        if commits.is_empty() {
            return;
        }
        let own = self.shared.options.durability;
        let sync = commits
            .iter()
            .any(|(c, _)| c.durability.unwrap_or(own) == Durability::Fsync);
        let now_ms = self.shared.now_ms();
        let mut plan = Plan::new(self.writer.seq() + 1, sync);
        let mut acks = Vec::with_capacity(commits.len());
        for (commit, ack) in commits {
            let mut base_offsets = Vec::with_capacity(commit.appends.len());
            for append in commit.appends {
                base_offsets.push(self.append(append, now_ms, &mut plan));
            }
            for write in commit.writes {
                self.write(write, now_ms, &mut plan);
            }
            acks.push((ack, base_offsets));
        }
        let result = self
            .log_completions(&mut plan)
            .and_then(|()| self.writer.apply(&plan));
        if result.is_ok() {
            self.writer.publish(plan);
        }
        let seq = self.writer.seq();
        for (ack, base_offsets) in acks {
            let result = result.clone();
            ack.give(result.map(|()| Committed { base_offsets, seq }));
        }
    }

    fn append(&mut self, append: Append, now_ms: i64, plan: &mut Plan) -> u64 {
        let id = append.partition;
        let Append { chunk, .. } = append;
        let topic = self.shared.read_state().catalog.place(id).map(|p| p.topic);
        // Submitters were checked against the number of partitions, which never shrinks.
        let topic = topic.unwrap_or_default();
        self.roll_if_due(topic, now_ms, plan);
        let Some(next) = self.next.get_mut(id.0 as usize) else {
            return 0;
        };
        let base = *next;
        *next += u64::from(chunk.count());
        let end = *next;
        if chunk.count() == 0 {
            return base;
        }
        let mut segment = 0;
        if let Some(open) = self.open.get_mut(topic as usize) {
            open.bytes += chunk.stored_len() as u64;
            open.max_timestamp_ms = open.max_timestamp_ms.max(chunk.max_timestamp_ms());
            segment = open.id;
        }
        let key = Slice::new(&chunk_key(id.0, base));
        plan.put(
            Target::Segment { topic, segment },
            key,
            Some(chunk.slice().clone()),
        );
        plan.grown.push((id, end));
        base
    }

    fn roll_if_due(&mut self, topic: u32, now_ms: i64, plan: &mut Plan) {
        let Some(open) = self.open.get_mut(topic as usize) else {
            return;
        };
        if open.bytes == 0
            || open.bytes < super::options::ROLL_CHECK_BYTES && open.created_at_ms >= now_ms
        {
            return;
        }
        let state = self.shared.read_state();
        let Ok(entry) = state.catalog.topic(topic) else {
            return;
        };
        let closed_bytes = entry.segments.iter().map(|s| s.bytes).sum();
        let due = retention::must_roll(
            Open {
                bytes: open.bytes,
                created_at_ms: open.created_at_ms,
            },
            closed_bytes,
            state.catalog.segment_count(),
            entry.topic.spec.retention,
            entry.topic.spec.internal,
            &self.shared.options,
            now_ms,
        );
        let Some(last) = entry.segments.last().filter(|s| due && s.id == open.id) else {
            return;
        };
        let mut closed = last.clone();
        closed.closed_at_ms = Some(now_ms);
        closed.bytes = open.bytes;
        closed.max_timestamp_ms = open.max_timestamp_ms;
        let starts = entry
            .topic
            .partitions
            .iter()
            .map(|p| self.next.get(p.0 as usize).copied().unwrap_or(0))
            .collect();
        let opened = new_segment(closed.id + 1, starts, now_ms);
        *open = OpenSegment::of(&opened);
        drop(state);
        plan.roll(topic, closed, opened);
    }

    fn write(&mut self, write: Write, now_ms: i64, plan: &mut Plan) {
        match write {
            Write::Progress {
                group,
                partition,
                value,
            } => plan.put(
                Target::Progress,
                Slice::new(&progress_key(group.0, partition.0)),
                Some(Slice::from(value)),
            ),
            Write::State {
                group,
                partition,
                key,
                value,
            } => plan.put(
                Target::State,
                Slice::from(state_key(group.0, partition.0, &key)),
                value.map(Slice::from),
            ),
            Write::Meta { key, value } => plan.put(
                Target::Meta,
                Slice::from(user_key(&key)),
                value.map(Slice::from),
            ),
            Write::Completion {
                group,
                hash,
                expires_at_ms,
                value,
            } => {
                let bucket = self.bucket_for(group, expires_at_ms, now_ms, plan);
                plan.completions.push(Completion {
                    group,
                    bucket,
                    hash,
                    expires_at_ms,
                    value: Slice::from(value),
                });
            }
        }
    }

    fn bucket_for(
        &mut self,
        group: GroupId,
        expires_at_ms: i64,
        now_ms: i64,
        plan: &mut Plan,
    ) -> u32 {
        if let Some((bucket, from_ms)) = self.last_bucket
            && bucket.group == group
            && (from_ms..=bucket.until_ms).contains(&expires_at_ms)
        {
            return bucket.id;
        }
        let choice = retention::choose_bucket(&self.buckets, group, expires_at_ms, now_ms);
        let bucket = match choice {
            BucketChoice::Existing(id) => self.buckets.iter().find(|b| b.id == id).copied(),
            BucketChoice::New(until_ms) => {
                let bucket = Bucket {
                    id: self.next_bucket,
                    group,
                    until_ms,
                };
                self.next_bucket += 1;
                self.buckets.push(bucket);
                plan.set_bucket(bucket);
                Some(bucket)
            }
            BucketChoice::Extend(id, until_ms) => {
                let found = self.buckets.iter_mut().find(|b| b.id == id);
                found.map(|bucket| {
                    bucket.until_ms = until_ms;
                    plan.set_bucket(*bucket);
                    *bucket
                })
            }
        };
        let Some(bucket) = bucket else { return 0 };
        self.last_bucket = Some((bucket, expires_at_ms));
        bucket.id
    }

    /// Packs the plan's completions; waits while two generations are full.
    fn log_completions(&mut self, plan: &mut Plan) -> Result<(), Error> {
        if plan.completions.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        if !shared.recent.await_room(|| shared.queue.is_open()) {
            return Err(Error::Closed);
        }
        if self.logged
            >= shared
                .recent
                .entries_max()
                .saturating_mul(GENERATIONS_PER_LOG)
        {
            let log = CompletionLog {
                id: self.next_log,
                from_seq: plan.seq,
            };
            self.next_log += 1;
            self.logged = 0;
            self.logs.push(log);
            plan.open_log(log);
        }
        self.logged += plan.completions.len();
        if let Some(log) = self.logs.last() {
            plan.seal_completions(log.id);
        }
        let moved = shared.recent.moved_through();
        if moved > self.moved_through {
            self.moved_through = moved;
            // A log is done with when the next one begins at or below what is to be read again.
            let done = self
                .logs
                .windows(2)
                .take_while(|pair| matches!(pair, [_, next] if next.from_seq <= moved + 1));
            let ids: Vec<u32> = done.filter_map(|pair| pair.first().map(|l| l.id)).collect();
            self.logs.retain(|l| !ids.contains(&l.id));
            plan.moved_through(moved, ids);
        }
        Ok(())
    }

    fn create_topic(&mut self, spec: TopicSpec) -> Result<Arc<Topic>, Error> {
        check_topic_name(&spec.name)?;
        let state = self.shared.read_state();
        let catalog = &state.catalog;
        if let Some(id) = catalog.topic_ids.get(&spec.name) {
            let topic = &catalog.topic(*id)?.topic;
            return if topic.spec == spec {
                Ok(Arc::clone(topic))
            } else {
                Err(Error::TopicExists(Arc::from(spec.name)))
            };
        }
        limit(
            "topics",
            catalog.topics.len() + 1,
            TOPICS_MAX,
            "use fewer topics",
        )?;
        let partitions = catalog.places.len() + spec.partitions.get() as usize;
        limit(
            "partitions",
            partitions,
            PARTITIONS_MAX,
            "use fewer partitions a topic",
        )?;
        let (id, first) = (catalog.topics.len() as u32, catalog.places.len() as u32);
        drop(state);
        let topic = Arc::new(Topic::new(id, first, spec));
        let starts = vec![0; topic.partitions.len()];
        let segment = new_segment(1, starts, self.shared.now_ms());
        let mut plan = Plan::new(self.writer.seq() + 1, true);
        self.next.resize(partitions, 0);
        self.open.push(OpenSegment::of(&segment));
        plan.create_topic(Arc::clone(&topic), segment);
        self.writer.apply(&plan)?;
        self.writer.publish(plan);
        Ok(topic)
    }

    fn create_group(&mut self, name: &str) -> Result<GroupId, Error> {
        check_group_name(name)?;
        let state = self.shared.read_state();
        if let Some(id) = state.catalog.group_ids.get(name) {
            return Ok(*id);
        }
        let count = state.catalog.groups.len();
        drop(state);
        limit("consumer groups", count + 1, GROUPS_MAX, "use fewer groups")?;
        let id = GroupId(count as u32);
        let mut plan = Plan::new(self.writer.seq() + 1, true);
        plan.create_group(id, name);
        self.writer.apply(&plan)?;
        self.writer.publish(plan);
        Ok(id)
    }

    fn rename_group(&mut self, id: GroupId, from: &str, to: &str) -> Result<GroupId, Error> {
        check_group_name(to)?;
        let state = self.shared.read_state();
        if let Some(id) = state.catalog.group_ids.get(to) {
            return Ok(*id);
        }
        if state.catalog.group_ids.get(from) != Some(&id) {
            return Err(Error::GroupName(Arc::from(from)));
        }
        drop(state);
        let mut plan = Plan::new(self.writer.seq() + 1, true);
        plan.rename_group(id, to);
        self.writer.apply(&plan)?;
        self.writer.publish(plan);
        Ok(id)
    }

    /// Closes segments by age, drops what retention and expiry say.
    fn maintain(&mut self, now_ms: i64) -> Result<(), Error> {
        let mut plan = Plan::new(self.writer.seq() + 1, true);
        for topic in 0..self.open.len() as u32 {
            self.roll_if_due(topic, now_ms, &mut plan);
        }
        if !plan.changes.is_empty() {
            self.writer.apply(&plan)?;
            self.writer.publish(plan);
        }
        let mut plan = Plan::new(self.writer.seq() + 1, true);
        let state = self.shared.read_state();
        for entry in &state.catalog.topics {
            let open_bytes = self
                .open
                .get(entry.topic.id as usize)
                .map_or(0, |o| o.bytes);
            let count = if entry.topic.spec.internal {
                retention::passed(&entry.segments, &passed(&state, entry)?)
            } else {
                retention::expired(
                    &entry.segments,
                    open_bytes,
                    entry.topic.spec.retention,
                    now_ms,
                )
            };
            let ids: Vec<u64> = entry.segments.iter().take(count).map(|s| s.id).collect();
            if !ids.is_empty() {
                plan.drop_segments(entry.topic.id, &ids);
            }
        }
        drop(state);
        let expired = |b: &&Bucket| b.until_ms < now_ms;
        let ids: Vec<u32> = self.buckets.iter().filter(expired).map(|b| b.id).collect();
        if !ids.is_empty() {
            self.buckets.retain(|b| !ids.contains(&b.id));
            self.last_bucket = None;
            plan.drop_buckets(ids);
        }
        if plan.changes.is_empty() {
            return Ok(());
        }
        self.writer.apply(&plan)?;
        self.writer.publish(plan);
        Ok(())
    }
}

/// The lowest committed offset of all groups on each partition of a topic; 0 where nobody has been.
fn passed(state: &State, topic: &TopicEntry) -> Result<Vec<u64>, Error> {
    if topic.segments.len() < 2 {
        return Ok(Vec::new());
    }
    let store = state.store()?;
    let lowest = |id: &PartitionId| {
        let mut lowest = None;
        for group in 0..state.catalog.groups.len() as u32 {
            let Some(bytes) = store.get(Target::Progress, &progress_key(group, id.0))? else {
                continue;
            };
            // What cannot be read holds everything back; who needs it reports it.
            let committed = Progress::decode(&bytes).map_or(0, |progress| progress.committed);
            lowest = Some(lowest.map_or(committed, |other: u64| other.min(committed)));
        }
        Ok(lowest.unwrap_or(0))
    };
    topic.topic.partitions.iter().map(lowest).collect()
}

impl OpenSegment {
    fn of(segment: &Segment) -> Self {
        Self {
            id: segment.id,
            bytes: 0,
            max_timestamp_ms: i64::MIN,
            created_at_ms: segment.created_at_ms,
        }
    }
}

fn new_segment(id: u64, starts: Vec<u64>, now_ms: i64) -> Segment {
    Segment {
        id,
        starts,
        created_at_ms: now_ms,
        closed_at_ms: None,
        bytes: 0,
        max_timestamp_ms: i64::MAX,
    }
}

fn limit(what: &'static str, wanted: usize, max: usize, advice: &'static str) -> Result<(), Error> {
    if wanted > max {
        return Err(Error::Limit {
            what,
            limit: max as u64,
            advice,
        });
    }
    Ok(())
}

/// The asker may have gone away meanwhile.
fn answer<T>(reply: &SyncSender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for the answer of the committer any more");
    }
}
