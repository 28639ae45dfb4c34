//! The one thread that writes: takes jobs in order, gives offsets, makes one atomic batch and one
//! fsync of them, raises the high-water mark, shows the messages to readers, acknowledges. When
//! writing fails it reopens fjall and writes the same plan again until it is durable.

use std::sync::mpsc::SyncSender;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use fjall::{OwnedWriteBatch as WriteBatch, PersistMode, Slice};

use super::catalog::{Bucket, CompletionLog, Segment, user_key};
use super::commit::{Append, Commit, Committed, Write};
use super::completions::{Completion, GENERATIONS_PER_LOG};
use super::error::Error;
use super::mark::{Mark, MarkFile};
use super::options::{GROUPS_MAX, PARTITIONS_MAX, TOPICS_MAX};
use super::plan::{Change, Plan};
use super::preflight;
use super::queue::{AckOnce, Job, Taken};
use super::retention::{self, BucketChoice, Open};
use super::shared::{Shared, State};
use super::store::{Store, Target, chunk_key, database_dir, progress_key, state_key};
use super::topic::{GroupId, PartitionId, Topic, TopicSpec, check_group_name, check_topic_name};
use crate::config::valid::Durability;
use crate::faults;

/// First and longest pause between tries to write.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Sealed memtables of a keyspace that are waited for before fjall may wait (for ever, if its
/// workers are gone) at 4; one commit adds at most two.
const SEALED_MAX: usize = 1;
/// The same for level-0 tables: fjall stops at 30 runs.
const L0_TABLES_MAX: usize = 27;
/// Free space that is tried out before fjall is reopened, beside the plan's own bytes.
const PROBE_BYTES: usize = 256 * 1_024;

type Cause = Arc<str>;

pub(super) struct Committer {
    shared: Arc<Shared>,
    mark_file: MarkFile,
    mark: Mark,
    /// The last durable commit number.
    seq: u64,
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
    pub(super) fn new(
        shared: Arc<Shared>,
        mark_file: MarkFile,
        mark: Mark,
        seq: u64,
        next: Vec<u64>,
    ) -> Self {
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
            mark_file,
            mark,
            seq,
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
        self.end();
    }

    fn end(&mut self) {
        let state = self.shared.read_state();
        if let Some(store) = &state.store
            && let Err(error) = store.db.persist(PersistMode::SyncAll)
        {
            tracing::warn!(%error, "the journal was not synced at close");
        }
        drop(state);
        self.mark.synced_seq = self.mark.seq;
        if let Err(error) = self.mark_file.write(&self.mark, true) {
            tracing::warn!(%error, "the high-water mark was not synced at close");
        }
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
        let mut plan = Plan::new(self.seq + 1, sync);
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
            .and_then(|()| self.apply(&plan));
        if result.is_ok() {
            self.publish(plan);
        }
        let seq = self.seq;
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
        let mut plan = Plan::new(self.seq + 1, true);
        self.next.resize(partitions, 0);
        self.open.push(OpenSegment::of(&segment));
        plan.create_topic(Arc::clone(&topic), segment);
        self.apply(&plan)?;
        self.publish(plan);
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
        let mut plan = Plan::new(self.seq + 1, true);
        plan.create_group(id, name);
        self.apply(&plan)?;
        self.publish(plan);
        Ok(id)
    }

    /// Closes segments by age, drops what retention and expiry say.
    fn maintain(&mut self, now_ms: i64) -> Result<(), Error> {
        let mut plan = Plan::new(self.seq + 1, true);
        for topic in 0..self.open.len() as u32 {
            self.roll_if_due(topic, now_ms, &mut plan);
        }
        if !plan.changes.is_empty() {
            self.apply(&plan)?;
            self.publish(plan);
        }
        let mut plan = Plan::new(self.seq + 1, true);
        let state = self.shared.read_state();
        for entry in &state.catalog.topics {
            let open_bytes = self
                .open
                .get(entry.topic.id as usize)
                .map_or(0, |o| o.bytes);
            let count = retention::expired(
                &entry.segments,
                open_bytes,
                entry.topic.spec.retention,
                now_ms,
            );
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
        self.apply(&plan)?;
        self.publish(plan);
        Ok(())
    }

    /// Makes the plan durable, however long that takes; only closing ends it early.
    fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        let mut pause = PAUSE_MIN;
        let mut written = false;
        loop {
            let result = if written {
                Ok(())
            } else {
                faults::point("before_write");
                self.write_batch(plan)
            };
            let result = result.and_then(|()| {
                written = true;
                faults::point("after_sync");
                self.write_mark(plan)
            });
            let Err(cause) = result else {
                faults::point("after_mark");
                self.shared.set_ok();
                self.seq = plan.seq;
                return Ok(());
            };
            self.shared.set_failing(cause);
            loop {
                if !self.shared.queue.rest(pause) {
                    return Err(Error::Closed);
                }
                pause = (pause * 2).min(PAUSE_MAX);
                if written {
                    break;
                }
                match self.reopen(plan) {
                    Ok(already_durable) => {
                        written = already_durable;
                        break;
                    }
                    Err(cause) => self.shared.set_failing(cause),
                }
            }
        }
    }

    fn write_batch(&mut self, plan: &Plan) -> Result<(), Cause> {
        let attempt = std::panic::AssertUnwindSafe(|| {
            self.create_keyspaces(plan)?;
            let state = self.shared.read_state();
            let store = state.store().map_err(|e| cause(&e))?;
            await_room(store, plan)?;
            let mode = if plan.sync {
                PersistMode::SyncData
            } else {
                PersistMode::Buffer
            };
            let mut batch =
                WriteBatch::with_capacity(store.db.clone(), plan.puts.len()).durability(Some(mode));
            for put in &plan.puts {
                let keyspace = store.keyspace(put.target).map_err(|e| cause(&e))?;
                match &put.value {
                    Some(value) => batch.insert(keyspace, put.key.clone(), value.clone()),
                    None => batch.remove(keyspace, put.key.clone()),
                }
            }
            batch.commit().map_err(|e| cause(&e))
        });
        std::panic::catch_unwind(attempt).unwrap_or_else(|_| Err(Arc::from("fjall panicked")))
    }

    fn create_keyspaces(&self, plan: &Plan) -> Result<(), Cause> {
        for target in &plan.created {
            let mut state = self.shared.write_state();
            match &mut state.store {
                Some(store) => store.ensure(*target).map_err(|e| cause(&e))?,
                None => return Err(Arc::from("the store is not open")),
            }
        }
        Ok(())
    }

    fn write_mark(&mut self, plan: &Plan) -> Result<(), Cause> {
        self.mark.seq = plan.seq;
        if plan.sync {
            self.mark.synced_seq = plan.seq;
        }
        self.mark.ends.clone_from(&self.next);
        self.mark_file
            .write(&self.mark, plan.sync)
            .map_err(|e| cause(&e))
    }

    /// Lets go of a fjall that refuses to write and opens it again. Says whether the plan is durable
    /// already (its batch cannot be: what was not acknowledged is cut from the journal first).
    fn reopen(&mut self, plan: &Plan) -> Result<bool, Cause> {
        self.probe(plan.bytes + PROBE_BYTES)
            .map_err(|e| cause(&e))?;
        let dir = self.shared.dir.clone();
        let shared = Arc::clone(&self.shared);
        let _moving = shared
            .recent
            .moving
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = self.shared.write_state();
        state.store = None;
        preflight::check(&database_dir(&dir), self.seq, self.seq).map_err(|e| cause(&e))?;
        let store = Store::open(&dir, &self.shared.options).map_err(|e| cause(&e))?;
        let found = store.commit_seq().map_err(|e| cause(&e))?;
        if found < self.seq {
            return Err(Arc::from(format!(
                "the store lost acknowledged commits {} to {}; restore it from a backup",
                found + 1,
                self.seq
            )));
        }
        state.store = Some(store);
        Ok(found >= plan.seq)
    }

    fn probe(&self, bytes: usize) -> std::io::Result<()> {
        let path = self.shared.dir.join("probe");
        let wrote = std::fs::File::create(&path).and_then(|mut file| {
            std::io::Write::write_all(&mut file, &vec![0; bytes])?;
            file.sync_all()
        });
        let removed = std::fs::remove_file(&path);
        wrote.and(removed)
    }

    /// Shows what became durable.
    fn publish(&mut self, plan: Plan) {
        self.shared.recent.insert(plan.completions, plan.seq);
        if !plan.changes.is_empty() {
            let mut state = self.shared.write_state();
            let mut dropped = Vec::new();
            for change in plan.changes {
                change_catalog(&mut state, change, &mut dropped);
            }
            self.shared.publish_earliest(&state.catalog);
            let (partitions, groups) = (state.catalog.places.len(), state.catalog.groups.len());
            self.shared.set_counts(partitions, groups);
            delete(&mut state, &dropped);
        }
        if plan.grown.is_empty() {
            return;
        }
        for (partition, end) in &plan.grown {
            self.shared.set_end(*partition, *end);
        }
        let grown: Vec<PartitionId> = plan.grown.iter().map(|(p, _)| *p).collect();
        self.shared.wake(&grown);
    }
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

fn cause(error: &dyn std::fmt::Display) -> Cause {
    Arc::from(error.to_string())
}

/// The asker may have gone away meanwhile.
fn answer<T>(reply: &SyncSender<T>, value: T) {
    if reply.send(value).is_err() {
        tracing::debug!("nobody waits for the answer of the committer any more");
    }
}

/// fjall waits inside a commit for its own workers, without looking whether they still live; so the
/// room is waited for here.
fn await_room(store: &Store, plan: &Plan) -> Result<(), Cause> {
    let mut seen: Option<Target> = None;
    for put in &plan.puts {
        if seen == Some(put.target) {
            continue;
        }
        seen = Some(put.target);
        let keyspace = store.keyspace(put.target).map_err(|e| cause(&e))?;
        while keyspace.sealed_memtable_count() > SEALED_MAX
            || keyspace.l0_table_count() > L0_TABLES_MAX
        {
            // Fails once fjall is poisoned.
            store
                .db
                .persist(PersistMode::Buffer)
                .map_err(|e| cause(&e))?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

fn change_catalog(state: &mut State, change: Change, dropped: &mut Vec<Target>) {
    let catalog = &mut state.catalog;
    match change {
        Change::Topic(topic, segment) => catalog.add_topic(topic, vec![segment]),
        Change::Group(name) => {
            catalog.add_group(name);
        }
        Change::Roll {
            topic,
            closed,
            opened,
        } => {
            if let Some(entry) = catalog.topics.get_mut(topic as usize) {
                entry.segments.pop();
                entry.segments.extend([closed, opened]);
            }
        }
        Change::Bucket(bucket) => {
            catalog.buckets.retain(|b| b.id != bucket.id);
            catalog.buckets.push(bucket);
            catalog.next_bucket = catalog.next_bucket.max(bucket.id + 1);
        }
        Change::DropSegments { topic, count } => {
            if let Some(entry) = catalog.topics.get_mut(topic as usize) {
                let gone = entry.segments.drain(..count.min(entry.segments.len()));
                dropped.extend(gone.map(|s| Target::Segment {
                    topic,
                    segment: s.id,
                }));
            }
        }
        Change::Log(log) => {
            catalog.logs.push(log);
            catalog.next_log = catalog.next_log.max(log.id + 1);
        }
        Change::DropLogs(ids) => {
            catalog.logs.retain(|l| !ids.contains(&l.id));
            dropped.extend(ids.into_iter().map(Target::Completions));
        }
        Change::DropBuckets(ids) => {
            catalog.buckets.retain(|b| !ids.contains(&b.id));
            dropped.extend(ids.into_iter().map(Target::Bucket));
        }
    }
}

/// What cannot be deleted now is a stray at the next start and deleted there.
fn delete(state: &mut State, dropped: &[Target]) {
    let Some(store) = &mut state.store else {
        return;
    };
    for target in dropped {
        if let Err(error) = store.delete(*target) {
            tracing::warn!(%error, ?target, "a dropped keyspace was not deleted yet");
        }
    }
    // Lets fjall look at its sealed journals, which hold on to deleted keyspaces.
    if !dropped.is_empty()
        && let Ok(meta) = store.keyspace(Target::Meta)
        && let Err(error) = meta.rotate_memtable()
    {
        tracing::warn!(%error, "journals were not looked at after a deletion");
    }
}
