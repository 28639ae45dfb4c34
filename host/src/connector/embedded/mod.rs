//! The embedded log: topics, consumer groups' progress, state and completed idempotency keys in one
//! data directory, made durable together. This file is its public face; below it, in reading order:
//! `commit` (what a caller hands over) → `queue` → `committer` (one batch, one fsync, one mark) with
//! `plan`, `retention` → `store` (fjall) and `mark` → `read`. `preflight` and `lock` guard the opening.
//! Not here: what a settlement means, whose turn it is to read what, the sandbox.
//!
//! What holds: commits become durable in the order of `submit`, each as a whole; nothing is readable
//! before it is durable; nothing acknowledged is missing after any crash, or opening and reading fail
//! with [`Error::Damaged`].

mod catalog;
mod chunk;
mod commit;
mod committer;
mod completions;
pub mod epoch;
mod error;
mod lock;
mod mark;
mod options;
mod partitioner;
mod plan;
mod preflight;
mod queue;
mod read;
mod retention;
mod shared;
pub mod source;
mod store;
#[cfg(test)]
mod tests;
mod topic;
mod writer;

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

pub use chunk::{CHUNK_HEADER_LEN, Chunk, ChunkBuilder, EncodedChunk};
pub use commit::{Ack, Append, Commit, Committed, Handed, Write};
pub use error::Error;
pub use fjall::Slice;
pub use options::{
    BUCKETS_MAX, CHUNK_BYTES_MAX, GROUPS_MAX, KEY_BYTES_MAX, MESSAGE_BYTES_DEFAULT, Options,
    PARTITIONS_MAX, SEGMENTS_MAX, SEGMENTS_PER_TOPIC, TOPICS_MAX,
};
pub use partitioner::partition_of_key;
pub use shared::Health;
pub use topic::{GroupId, NAME_BYTES_MAX, PartitionId, Retention, Topic, TopicSpec};

use catalog::Catalog;
use committer::Committer;
use lock::{DirectoryLock, Format};
use mark::{Mark, MarkFile, boot_id};
use queue::{AckOnce, Job};
use shared::Shared;
use store::{Store, Target, database_dir};
use writer::Writer;

/// How long making a topic or a group is waited for: whoever wants one has others to look after.
const MAKE_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 10 });

/// An open log. Clones are the same log; the last one to go closes it.
#[derive(Clone)]
pub struct Log(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

/// What close has to end, in this order.
struct Running {
    committer: JoinHandle<()>,
    mover: JoinHandle<()>,
    lock: DirectoryLock,
}

/// Wakes a thread (unpark) when a partition grows, until it is dropped. Look at the ends after
/// subscribing and before parking.
pub struct Subscription {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.remove_subscriber(self.id);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(%error, "the embedded log was not closed cleanly");
        }
    }
}

impl Handle {
    fn close(&self) -> Result<(), Error> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = running.take() else {
            return Ok(());
        };
        self.shared.queue.close();
        if running.committer.thread().id() == std::thread::current().id() {
            // The last handle went inside an acknowledgement: nobody is left to wait.
            self.shared.recent.stop();
            return Ok(());
        }
        let ended = running.committer.join();
        self.shared.recent.stop();
        let ended = ended.and(running.mover.join());
        let mut state = self.shared.write_state();
        state.closed = true;
        state.store = None;
        drop(state);
        drop(running.lock);
        match (ended, self.shared.health()) {
            (Ok(()), Health::Ok) => Ok(()),
            (_, Health::Failing { error, .. } | Health::Dead { error }) => {
                Err(Error::Failing { cause: error })
            }
            (Err(_), Health::Ok) => Err(Error::Closed),
        }
    }
}

impl Log {
    /// Opens the log in `dir`, creating it when the directory is empty or absent.
    ///
    /// # Errors
    /// `Held` (another process has it), `Newer`, `Damaged` (something acknowledged is missing), `Io`.
    pub fn open(dir: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, &e))?;
        let dir = &std::path::absolute(dir).map_err(|e| Error::io("find", dir, &e))?;
        let lock = DirectoryLock::acquire(dir)?;
        let (mark_file, mark, store, catalog) = match Format::read(dir)? {
            Format::Ready => open_existing(dir, &options)?,
            Format::Creating => create(dir, &options)?,
            Format::Absent => {
                refuse_remains(dir)?;
                create(dir, &options)?
            }
        };
        let seq = store.commit_seq()?;
        let ends = store.recover_ends(&catalog, &mark)?;
        let shared = Arc::new(Shared::new(dir.clone(), options, store, catalog, &ends));
        shared.recover_recent()?;
        let mark = Mark {
            ends: ends.clone(),
            ..mark
        };
        let writer = Writer::new(Arc::clone(&shared), mark_file, mark, seq);
        let committer = Committer::new(Arc::clone(&shared), writer, ends);
        let for_mover = Arc::clone(&shared);
        let running = Running {
            committer: spawn("log-committer", dir, move || committer.run())?,
            mover: spawn("log-mover", dir, move || {
                completions::move_generations(&for_mover)
            })?,
            lock,
        };
        Ok(Self(Arc::new(Handle {
            shared,
            running: Mutex::new(Some(running)),
        })))
    }

    /// Does what was submitted, syncs, lets go of the directory. Later calls do nothing.
    ///
    /// # Errors
    /// `Failing` when something could not be written: it was not acknowledged.
    pub fn close(&self) -> Result<(), Error> {
        self.0.close()
    }

    fn shared(&self) -> &Shared {
        &self.0.shared
    }

    /// Creates a topic, durable on return. The same specification again gives the same topic.
    pub fn create_topic(&self, spec: &TopicSpec) -> Result<Arc<Topic>, Error> {
        if let Some(topic) = self.topic(&spec.name)
            && topic.spec == *spec
        {
            return Ok(topic);
        }
        self.ask_within(MAKE_TIME_MAX, |reply| Job::CreateTopic(spec.clone(), reply))
    }

    /// The same, waiting at most about `patience`; after that it may still come to be.
    pub fn create_topic_within(
        &self,
        spec: &TopicSpec,
        patience: Duration,
    ) -> Result<Arc<Topic>, Error> {
        self.ask_within(patience, |reply| Job::CreateTopic(spec.clone(), reply))
    }

    fn ask<T>(
        &self,
        job: impl FnOnce(std::sync::mpsc::SyncSender<Result<T, Error>>) -> Job,
    ) -> Result<T, Error> {
        let (reply, answer) = sync_channel(1);
        self.shared().queue.push(job(reply), 0, None)?;
        answer.recv().unwrap_or(Err(Error::Closed))
    }

    /// After `Busy` or `Failing` it may still be done.
    fn ask_within<T>(
        &self,
        patience: Duration,
        job: impl FnOnce(std::sync::mpsc::SyncSender<Result<T, Error>>) -> Job,
    ) -> Result<T, Error> {
        let began = Instant::now();
        let (reply, answer) = sync_channel(1);
        let queue = &self.shared().queue;
        queue.push(job(reply), 0, Some(began + patience))?;
        let left = patience.saturating_sub(began.elapsed());
        match answer.recv_timeout(left) {
            Ok(made) => made,
            Err(RecvTimeoutError::Disconnected) => Err(Error::Closed),
            Err(RecvTimeoutError::Timeout) => Err(self.why_late(began.elapsed())),
        }
    }

    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        let state = self.shared().read_state();
        let id = state.catalog.topic_ids.get(name)?;
        let entry = state.catalog.topics.get(*id as usize)?;
        Some(Arc::clone(&entry.topic))
    }

    /// In the order of their creation.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<Topic>> {
        let state = self.shared().read_state();
        state
            .catalog
            .topics
            .iter()
            .map(|t| Arc::clone(&t.topic))
            .collect()
    }

    /// Hands a commit over; first in, first out. Waits while the queue is full. The acknowledgement
    /// runs on the committer's thread: it must be tiny, and must not submit. `Err(Closed)` in an
    /// acknowledgement of a log that was failing means: perhaps durable, perhaps not.
    pub fn submit(&self, commit: Commit, ack: Ack) -> Result<(), Error> {
        self.submit_until(commit, ack, None)
    }

    /// Like `submit`, but gives up with `Busy` at the deadline.
    pub fn submit_before(&self, commit: Commit, ack: Ack, deadline: Instant) -> Result<(), Error> {
        self.submit_until(commit, ack, Some(deadline))
    }

    fn submit_until(
        &self,
        commit: Commit,
        ack: Ack,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let shared = self.shared();
        let (partitions, groups) = shared.counts();
        commit.check(partitions, groups)?;
        let bytes = commit.bytes();
        let job = Job::Commit(commit, AckOnce::new(ack));
        shared.queue.push(job, bytes, deadline)
    }

    /// Submits and waits.
    pub fn commit(&self, commit: Commit) -> Result<Committed, Error> {
        self.commit_until(commit, None)
    }

    /// Submits and waits, at most about `patience`; after `Busy` from waiting for the acknowledgement
    /// the commit may still become durable.
    pub fn commit_within(&self, commit: Commit, patience: Duration) -> Result<Committed, Error> {
        self.commit_until(commit, Some(Instant::now() + patience))
    }

    fn commit_until(&self, commit: Commit, deadline: Option<Instant>) -> Result<Committed, Error> {
        let began = Instant::now();
        let handed = self.hand_over(commit, deadline)?;
        match deadline {
            None => handed.wait(),
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                handed
                    .answer_within(left)
                    .unwrap_or_else(|| Err(self.why_late(began.elapsed())))
            }
        }
    }

    /// Like `submit`, or `submit_before` with a deadline; the answer can be asked for later. An error: it
    /// was not taken and will not become durable.
    pub fn hand_over(&self, commit: Commit, deadline: Option<Instant>) -> Result<Handed, Error> {
        let (reply, answer) = sync_channel(1);
        let ack: Ack = Box::new(move |result| {
            if reply.send(result).is_err() {
                tracing::debug!("nobody waits for a commit any more");
            }
        });
        self.submit_until(commit, ack, deadline)?;
        Ok(Handed::new(answer))
    }

    /// Why a commit that was handed over is not answered after that time.
    #[must_use]
    pub fn why_late(&self, waited: Duration) -> Error {
        match self.health() {
            Health::Failing { error, .. } | Health::Dead { error } => {
                Error::Failing { cause: error }
            }
            Health::Ok => Error::Busy { waited },
        }
    }

    /// The chunk that holds offset `from`; `None` at the end.
    ///
    /// # Errors
    /// `OffsetOutOfRange`; `Damaged` where a message should be and is not, or is not what was written.
    pub fn read(&self, partition: PartitionId, from: u64) -> Result<Option<Chunk>, Error> {
        self.shared().read(partition, from)
    }

    /// The first offset that is still there.
    pub fn earliest(&self, partition: PartitionId) -> Result<u64, Error> {
        self.shared().earliest(partition)
    }

    /// The first offset that is not durable and readable yet.
    pub fn end(&self, partition: PartitionId) -> Result<u64, Error> {
        self.shared().end(partition)
    }

    /// The first offset whose message has this Unix time in ms or a later one; the end if none has.
    pub fn offset_at(&self, partition: PartitionId, timestamp_ms: i64) -> Result<u64, Error> {
        self.shared().offset_at(partition, timestamp_ms)
    }

    /// Wakes `thread` when one of the partitions grows.
    #[must_use]
    pub fn subscribe(&self, partitions: &[PartitionId], thread: Thread) -> Subscription {
        Subscription {
            id: self.shared().add_subscriber(partitions.to_vec(), thread),
            shared: Arc::clone(&self.0.shared),
        }
    }

    /// Finds a consumer group or creates it, durable on return.
    pub fn group(&self, name: &str) -> Result<GroupId, Error> {
        match self.find_group(name) {
            Some(id) => Ok(id),
            None => self.ask_within(MAKE_TIME_MAX, |reply| {
                Job::CreateGroup(name.to_owned(), reply)
            }),
        }
    }

    /// Gives a group's number to another name, durable on return. For those that hold nothing but state, of which
    /// there is none any more, and that nobody uses.
    fn rename_group(&self, id: GroupId, from: &str, to: &str) -> Result<GroupId, Error> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.ask_within(MAKE_TIME_MAX, |reply| Job::RenameGroup(id, from, to, reply))
    }

    #[must_use]
    pub fn find_group(&self, name: &str) -> Option<GroupId> {
        self.shared()
            .read_state()
            .catalog
            .group_ids
            .get(name)
            .copied()
    }

    /// In the order of their creation.
    #[must_use]
    pub fn groups(&self) -> Vec<(GroupId, String)> {
        let state = self.shared().read_state();
        (0..)
            .map(GroupId)
            .zip(state.catalog.groups.iter().cloned())
            .collect()
    }

    /// The last progress written.
    pub fn progress(&self, group: GroupId, partition: PartitionId) -> Result<Option<Slice>, Error> {
        self.shared().progress(group, partition)
    }

    /// Every partition's progress of a group, by partition.
    pub fn progress_of(&self, group: GroupId) -> Result<Vec<(PartitionId, Slice)>, Error> {
        self.shared().progress_of(group)
    }

    /// The value of a completion that has not expired at `now_ms` (see [`Log::now_ms`]).
    pub fn completion(
        &self,
        group: GroupId,
        hash: u128,
        now_ms: i64,
    ) -> Result<Option<Slice>, Error> {
        self.shared().completion(group, hash, now_ms)
    }

    /// Whether any key of the group may be known as processed.
    #[must_use]
    pub fn has_completions(&self, group: GroupId) -> bool {
        let state = self.shared().read_state();
        state.catalog.buckets.iter().any(|b| b.group == group)
    }

    pub fn state_get(
        &self,
        group: GroupId,
        partition: PartitionId,
        key: &[u8],
    ) -> Result<Option<Slice>, Error> {
        self.shared().state_get(group, partition, key)
    }

    /// Up to `limit` entries (key, value) whose key begins with `prefix`, in key order; ends after the entry
    /// with which they are more than `bytes_max` bytes.
    pub fn state_scan(
        &self,
        group: GroupId,
        partition: PartitionId,
        prefix: &[u8],
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Slice, Slice)>, Error> {
        self.shared()
            .state_scan(group, partition, prefix, limit, bytes_max)
    }

    /// Bytes of keys and values of a group's state, over all partitions. Reads all of it.
    pub fn state_bytes(&self, group: GroupId) -> Result<u64, Error> {
        self.shared().state_bytes(group)
    }

    fn state_is_empty(&self, group: GroupId) -> Result<bool, Error> {
        self.shared().state_is_empty(group)
    }

    pub fn meta_get(&self, key: &[u8]) -> Result<Option<Slice>, Error> {
        self.shared().meta_get(key)
    }

    /// Up to `limit` entries (key, value) whose key begins with `prefix`, in key order, from the key `from`
    /// on (empty: from the first).
    pub fn meta_scan(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Slice, Slice)>, Error> {
        self.shared().meta_scan(prefix, from, limit)
    }

    #[must_use]
    pub fn health(&self) -> Health {
        self.shared().health()
    }

    /// The log's clock, Unix ms: a step of the system's clock does not move it.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.shared().now_ms()
    }

    /// Applies retention and expiry now, as if it were `now_ms`; the log does it by itself as well.
    pub fn maintain(&self, now_ms: i64) -> Result<(), Error> {
        self.ask(|reply| Job::Maintain(now_ms, reply))
    }
}

fn spawn(
    name: &str,
    dir: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| Error::io("start a thread for", dir, &e))
}

type Opened = (MarkFile, Mark, Store, Catalog);

fn create(dir: &Path, options: &Options) -> Result<Opened, Error> {
    Format::Creating.write(dir)?;
    let path = database_dir(dir);
    if path.exists() {
        std::fs::remove_dir_all(&path).map_err(|e| Error::io("remove", &path, &e))?;
    }
    let mut mark_file = MarkFile::create(dir)?;
    let mut store = Store::open(dir, options)?;
    for target in [Target::Meta, Target::Progress, Target::State] {
        store
            .ensure(target)
            .map_err(|e| Error::from_fjall("a new store", &e))?;
    }
    let mark = Mark {
        boot_id: boot_id(),
        ..Mark::default()
    };
    let path = dir.join("mark");
    mark_file
        .write(&mark, true)
        .map_err(|e| Error::io("write", &path, &e))?;
    Format::Ready.write(dir)?;
    Ok((mark_file, mark, store, Catalog::default()))
}

/// A store without its format file is not ours to overwrite.
fn refuse_remains(dir: &Path) -> Result<(), Error> {
    for name in ["mark", "store"] {
        let path = dir.join(name);
        if path.exists() {
            return Err(Error::damaged(format!(
                "{} is there, but the file {} is missing",
                path.display(),
                dir.join("format").display()
            )));
        }
    }
    Ok(())
}

fn open_existing(dir: &Path, options: &Options) -> Result<Opened, Error> {
    let (mark_file, mut mark) = MarkFile::open(dir)?;
    // What the operating system had and the disk had not is gone after a crash of the machine; that
    // is what `durability: os` means.
    let boot = boot_id();
    if mark.boot_id != boot {
        if mark.synced_seq < mark.seq {
            tracing::warn!("the machine went down: commits that were not synced may be lost");
            mark.seq = mark.synced_seq;
            mark.ends.clear();
        }
        mark.boot_id = boot;
    }
    preflight::check(&database_dir(dir), mark.seq, u64::MAX)?;
    let mut store = Store::open(dir, options)?;
    let found = if store.has(Target::Meta) {
        store.commit_seq()?
    } else {
        0
    };
    if found < mark.seq {
        return Err(Error::damaged(format!(
            "commits {} to {} were acknowledged and are missing",
            found + 1,
            mark.seq
        )));
    }
    let catalog = store.load_catalog()?;
    store.delete_strays(&catalog)?;
    preflight::delete_set_aside(&database_dir(dir))?;
    Ok((mark_file, mark, store, catalog))
}
