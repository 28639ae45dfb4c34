//! Writes a plan: one batch, its fsync, the high-water mark, then what changes in memory. When writing
//! fails it reopens fjall and writes the same plan again until it is durable. Not what is in a plan.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use fjall::{OwnedWriteBatch as WriteBatch, PersistMode};

use super::error::Error;
use super::mark::{Mark, MarkFile};
use super::plan::{Change, Plan};
use super::preflight;
use super::shared::{Shared, State};
use super::store::{Store, Target, database_dir};
use super::topic::PartitionId;
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

pub(super) struct Writer {
    shared: Arc<Shared>,
    mark_file: MarkFile,
    mark: Mark,
    /// The last durable commit number.
    seq: u64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, mark_file: MarkFile, mark: Mark, seq: u64) -> Self {
        Self {
            shared,
            mark_file,
            mark,
            seq,
        }
    }

    /// The last durable commit number.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Makes the plan durable, however long that takes; only closing ends it early.
    pub(super) fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
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

    /// The last thing that is done: what durability `os` left to the operating system is synced.
    pub(super) fn end(&mut self) {
        let state = self.shared.read_state();
        let synced = state.store().and_then(|store| {
            let sync = store.db.persist(PersistMode::SyncAll);
            sync.map_err(|e| Error::Failing { cause: cause(&e) })
        });
        drop(state);
        if let Err(error) = synced {
            tracing::warn!(%error, "the journal was not synced at close");
            return;
        }
        self.mark.synced_seq = self.mark.seq;
        if let Err(error) = self.mark_file.write(&self.mark, true) {
            tracing::warn!(%error, "the high-water mark was not synced at close");
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
        for (partition, end) in &plan.grown {
            let at = partition.0 as usize;
            if self.mark.ends.len() <= at {
                self.mark.ends.resize(at + 1, 0);
            }
            if let Some(place) = self.mark.ends.get_mut(at) {
                *place = *end;
            }
        }
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
    pub(super) fn publish(&mut self, plan: Plan) {
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

fn cause(error: &dyn std::fmt::Display) -> Cause {
    Arc::from(error.to_string())
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
        Change::Renamed(id, name) => catalog.rename_group(id, name),
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
