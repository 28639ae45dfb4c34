//! What the committer and everybody else share: the open store with its catalogue, the ends of
//! partitions, the queue, health, subscribers, the clock.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::Thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::catalog::Catalog;
use super::completions::Recent;
use super::error::Error;
use super::options::{Options, PARTITIONS_MAX};
use super::queue::Queue;
use super::store::Store;
use super::topic::PartitionId;

pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) queue: Queue,
    state: RwLock<State>,
    /// By partition id, all of the limit: reading an end takes no lock.
    ends: Box<[Ends]>,
    partitions: AtomicU64,
    groups: AtomicU64,
    health: Mutex<Health>,
    subscribers: Mutex<Vec<(u64, Vec<PartitionId>, Thread)>>,
    next_subscriber: AtomicU64,
    clock: Clock,
    pub(super) recent: Recent,
}

/// The store (absent while it is being reopened, and after close) and what is in it.
pub(super) struct State {
    pub(super) store: Option<Store>,
    pub(super) catalog: Catalog,
    pub(super) closed: bool,
}

#[derive(Default)]
struct Ends {
    earliest: AtomicU64,
    end: AtomicU64,
}

/// Whether commits go through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Health {
    #[default]
    Ok,
    /// Commits wait; the log tries again by itself. Readers go on.
    Failing {
        error: Arc<str>,
        /// Unix ms.
        since_ms: i64,
    },
    /// The committer is gone; only a restart helps.
    Dead { error: Arc<str> },
}

/// Unix time at open, moved on by the monotonic clock: a clock step expires nothing early (§7.3).
struct Clock {
    opened: Instant,
    opened_ms: i64,
}

impl State {
    pub(super) fn store(&self) -> Result<&Store, Error> {
        match &self.store {
            Some(store) => Ok(store),
            None if self.closed => Err(Error::Closed),
            None => Err(Error::Failing {
                cause: Arc::from("the store is being reopened"),
            }),
        }
    }
}

impl Shared {
    pub(super) fn new(
        dir: PathBuf,
        options: Options,
        store: Store,
        catalog: Catalog,
        ends: &[u64],
    ) -> Self {
        let opened_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX));
        let recent_max = options.recent_completions;
        let shared = Self {
            queue: Queue::new(options.queue_commits, options.queue_bytes),
            dir,
            options,
            ends: (0..PARTITIONS_MAX).map(|_| Ends::default()).collect(),
            partitions: AtomicU64::new(catalog.places.len() as u64),
            groups: AtomicU64::new(catalog.groups.len() as u64),
            state: RwLock::new(State {
                store: Some(store),
                catalog,
                closed: false,
            }),
            recent: Recent::new(recent_max),
            health: Mutex::default(),
            subscribers: Mutex::default(),
            next_subscriber: AtomicU64::new(0),
            clock: Clock {
                opened: Instant::now(),
                opened_ms,
            },
        };
        for (id, end) in ends.iter().enumerate() {
            shared.set_end(PartitionId(id as u32), *end);
        }
        shared.publish_earliest(&shared.read_state().catalog);
        shared
    }

    pub(super) fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write_state(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_ms(&self) -> i64 {
        let passed = i64::try_from(self.clock.opened.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.clock.opened_ms.saturating_add(passed)
    }

    fn ends_of(&self, partition: PartitionId) -> Result<&Ends, Error> {
        if u64::from(partition.0) >= self.partitions.load(Ordering::Acquire) {
            return Err(Error::UnknownPartition(partition.0));
        }
        self.ends
            .get(partition.0 as usize)
            .ok_or(Error::UnknownPartition(partition.0))
    }

    pub(super) fn end(&self, partition: PartitionId) -> Result<u64, Error> {
        Ok(self.ends_of(partition)?.end.load(Ordering::Acquire))
    }

    pub(super) fn earliest(&self, partition: PartitionId) -> Result<u64, Error> {
        Ok(self.ends_of(partition)?.earliest.load(Ordering::Acquire))
    }

    /// Partitions and groups that exist.
    pub(super) fn counts(&self) -> (u32, u32) {
        let count = |n: &AtomicU64| u32::try_from(n.load(Ordering::Acquire)).unwrap_or(u32::MAX);
        (count(&self.partitions), count(&self.groups))
    }

    pub(super) fn set_counts(&self, partitions: usize, groups: usize) {
        self.partitions.store(partitions as u64, Ordering::Release);
        self.groups.store(groups as u64, Ordering::Release);
    }

    pub(super) fn set_end(&self, partition: PartitionId, end: u64) {
        if let Some(ends) = self.ends.get(partition.0 as usize) {
            ends.end.store(end, Ordering::Release);
        }
    }

    /// Moves every `earliest` to the first segment that is left.
    pub(super) fn publish_earliest(&self, catalog: &Catalog) {
        for (id, place) in catalog.places.iter().enumerate() {
            let first = catalog
                .topics
                .get(place.topic as usize)
                .and_then(|t| t.segments.first())
                .and_then(|s| s.starts.get(place.index as usize).copied());
            if let (Some(ends), Some(first)) = (self.ends.get(id), first) {
                ends.earliest.store(first, Ordering::Release);
            }
        }
    }

    fn lock_health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn health(&self) -> Health {
        self.lock_health().clone()
    }

    pub(super) fn set_ok(&self) {
        let mut health = self.lock_health();
        if matches!(*health, Health::Failing { .. }) {
            tracing::info!("the embedded log writes again");
            *health = Health::Ok;
        }
    }

    pub(super) fn set_failing(&self, cause: Arc<str>) {
        let now = self.now_ms();
        let mut health = self.lock_health();
        match &mut *health {
            Health::Failing { error, .. } => *error = cause,
            Health::Ok => {
                tracing::error!(%cause, "the embedded log cannot write");
                *health = Health::Failing {
                    error: cause,
                    since_ms: now,
                };
            }
            Health::Dead { .. } => {}
        }
    }

    pub(super) fn set_dead(&self, error: Arc<str>) {
        *self.lock_health() = Health::Dead { error };
    }

    fn lock_subscribers(&self) -> MutexGuard<'_, Vec<(u64, Vec<PartitionId>, Thread)>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add_subscriber(&self, partitions: Vec<PartitionId>, thread: Thread) -> u64 {
        let id = self.next_subscriber.fetch_add(1, Ordering::Relaxed);
        self.lock_subscribers().push((id, partitions, thread));
        id
    }

    pub(super) fn remove_subscriber(&self, id: u64) {
        self.lock_subscribers().retain(|(other, _, _)| *other != id);
    }

    /// Waits until fjall's own threads have flushed what is sealed, so that files can be copied.
    #[cfg(test)]
    pub(super) fn settle_for_test(&self) {
        let state = self.read_state();
        let store = state.store.as_ref().unwrap();
        while store.is_busy_for_test() {
            std::thread::yield_now();
        }
    }

    #[cfg(test)]
    pub(super) fn subscriber_count(&self) -> usize {
        self.lock_subscribers().len()
    }

    /// Wakes everybody who waits for one of the partitions.
    pub(super) fn wake(&self, grown: &[PartitionId]) {
        for (_, partitions, thread) in self.lock_subscribers().iter() {
            if grown.iter().any(|p| partitions.contains(p)) {
                thread.unpark();
            }
        }
    }
}
