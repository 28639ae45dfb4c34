//! The completion table. A random key costs fjall microseconds, so completions are never written one
//! by one: a batch carries all of its completions as one packed entry of a sequential log, readers
//! find them in memory, and when enough are there a thread of its own sorts them into the tables of
//! their time buckets. After a restart the packed entries that were not moved are read again.
//!
//! Packed entry, little-endian: `crc32c u32 | version u8 (1) | 0 u8 ×3 | count u32 | entries`, each
//! `group u32 | bucket u32 | hash u128 | expires_at_ms i64 | len u32 | value`.
//! Not here: which bucket a completion belongs to (`retention`), when a batch is written (`committer`).

use std::collections::hash_map::Entry as Slot;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use fjall::Slice;

use super::error::Error;
use super::shared::Shared;
use super::store::Target;
use super::topic::GroupId;

const VERSION: u8 = 1;
const HEAD: usize = 12;
const ENTRY_HEAD: usize = 36;
/// Generations whose packed entries share one keyspace of the log.
pub(super) const GENERATIONS_PER_LOG: usize = 8;
/// Bytes of values in memory before a generation is moved, whatever its number.
const GENERATION_BYTES: usize = 16 << 20;
/// Pause before moving a generation is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// One completion on its way to its bucket.
#[derive(Debug, Clone)]
pub(super) struct Completion {
    pub(super) group: GroupId,
    pub(super) bucket: u32,
    pub(super) hash: u128,
    pub(super) expires_at_ms: i64,
    pub(super) value: Slice,
}

/// Hashes are hashes already.
#[derive(Default)]
pub(super) struct TakeLow(u64);

impl Hasher for TakeLow {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u128(&mut self, n: u128) {
        self.0 ^= (n as u64) ^ ((n >> 64) as u64).rotate_left(32);
    }
    fn write_u32(&mut self, n: u32) {
        self.0 ^= u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

type Table = std::collections::HashMap<(u128, u32), Held, BuildHasherDefault<TakeLow>>;

#[derive(Debug)]
struct Held {
    bucket: u32,
    expires_at_ms: i64,
    value: Slice,
}

/// Completions up to a commit number.
#[derive(Default)]
struct Generation {
    table: Table,
    bytes: usize,
    through_seq: u64,
}

#[derive(Default)]
struct Generations {
    active: Generation,
    frozen: Option<Arc<Generation>>,
}

/// The newest completions, in memory.
pub(super) struct Recent {
    generations: RwLock<Generations>,
    entries_max: usize,
    /// Everything up to this commit number is in its bucket.
    moved_through: AtomicU64,
    control: Mutex<Control>,
    changed: Condvar,
    /// Held while fjall's handles are used without the lock of the state.
    pub(super) moving: Mutex<()>,
}

#[derive(Default)]
struct Control {
    stop: bool,
    dead: bool,
}

impl Recent {
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            generations: RwLock::default(),
            entries_max: entries_max.max(1),
            moved_through: AtomicU64::new(0),
            control: Mutex::default(),
            changed: Condvar::new(),
            moving: Mutex::default(),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Generations> {
        self.generations
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn entries_max(&self) -> usize {
        self.entries_max
    }

    /// Takes what a batch made durable.
    pub(super) fn insert(&self, completions: Vec<Completion>, seq: u64) {
        if completions.is_empty() {
            return;
        }
        let mut generations = self
            .generations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let active = &mut generations.active;
        active.through_seq = seq;
        for c in completions {
            active.bytes += c.value.len();
            let held = Held {
                bucket: c.bucket,
                expires_at_ms: c.expires_at_ms,
                value: c.value,
            };
            match active.table.entry((c.hash, c.group.0)) {
                Slot::Occupied(mut slot) => {
                    slot.insert(held);
                }
                Slot::Vacant(slot) => {
                    slot.insert(held);
                }
            }
        }
        if self.is_full(active) && generations.frozen.is_none() {
            let capacity = self.entries_max.min(1 << 20);
            let fresh = Generation {
                table: Table::with_capacity_and_hasher(capacity, BuildHasherDefault::default()),
                ..Generation::default()
            };
            let full = std::mem::replace(&mut generations.active, fresh);
            generations.frozen = Some(Arc::new(full));
            drop(generations);
            self.changed.notify_all();
        }
    }

    fn is_full(&self, generation: &Generation) -> bool {
        generation.table.len() >= self.entries_max || generation.bytes >= GENERATION_BYTES
    }

    /// Waits until another batch of completions may come in. `go_on` is asked meanwhile; false from it
    /// ends the waiting, and the answer is false.
    pub(super) fn await_room(&self, go_on: impl Fn() -> bool) -> bool {
        loop {
            let generations = self.read();
            let room = generations.frozen.is_none() || !self.is_full(&generations.active);
            drop(generations);
            if room {
                return true;
            }
            let control = self.control();
            if control.dead || !go_on() {
                return false;
            }
            drop(
                self.changed
                    .wait_timeout(control, Duration::from_millis(5))
                    .unwrap_or_else(PoisonError::into_inner),
            );
        }
    }

    pub(super) fn get(&self, group: GroupId, hash: u128) -> Option<(i64, Slice)> {
        let generations = self.read();
        let key = (hash, group.0);
        let held = generations
            .active
            .table
            .get(&key)
            .or_else(|| generations.frozen.as_ref()?.table.get(&key))?;
        Some((held.expires_at_ms, held.value.clone()))
    }

    pub(super) fn moved_through(&self) -> u64 {
        self.moved_through.load(Ordering::Acquire)
    }

    pub(super) fn set_moved_through(&self, seq: u64) {
        self.moved_through.store(seq, Ordering::Release);
    }

    /// Ends the mover; a generation it did not finish is read again from the log.
    pub(super) fn stop(&self) {
        self.control().stop = true;
        self.changed.notify_all();
    }

    fn next_frozen(&self) -> Option<Arc<Generation>> {
        let mut control = self.control();
        loop {
            if control.stop {
                return None;
            }
            if let Some(frozen) = &self.read().frozen {
                return Some(Arc::clone(frozen));
            }
            control = self
                .changed
                .wait_timeout(control, PAUSE)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn moved(&self, generation: &Generation) {
        self.set_moved_through(generation.through_seq);
        let mut generations = self
            .generations
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let gone = generations.frozen.take();
        drop(generations);
        // Freed outside the lock: it is large.
        drop(gone);
        self.changed.notify_all();
    }
}

/// The mover: sorts frozen generations into their buckets until it is stopped.
pub(super) fn move_generations(shared: &Shared) {
    let work = || {
        while let Some(generation) = shared.recent.next_frozen() {
            match move_generation(shared, &generation) {
                Ok(()) => shared.recent.moved(&generation),
                Err(error) => {
                    tracing::warn!(%error, "completions were not moved to their buckets yet");
                    let control = shared.recent.control();
                    if !control.stop {
                        drop(
                            shared
                                .recent
                                .changed
                                .wait_timeout(control, PAUSE)
                                .unwrap_or_else(PoisonError::into_inner),
                        );
                    }
                }
            }
        }
    };
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err() {
        shared.recent.control().dead = true;
        shared.recent.changed.notify_all();
    }
}

fn move_generation(shared: &Shared, generation: &Generation) -> Result<(), Error> {
    let mut entries: Vec<(u32, u128, &Held)> = generation
        .table
        .iter()
        .map(|((hash, _), held)| (held.bucket, *hash, held))
        .collect();
    entries.sort_unstable_by_key(|(bucket, hash, _)| (*bucket, *hash));
    for part in entries.chunk_by(|a, b| a.0 == b.0) {
        let Some((bucket, _, _)) = part.first() else {
            continue;
        };
        let _moving = shared
            .recent
            .moving
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let state = shared.read_state();
        if !state.catalog.buckets.iter().any(|b| b.id == *bucket) {
            // Expired meanwhile.
            continue;
        }
        let keyspace = state.store()?.keyspace(Target::Bucket(*bucket))?.clone();
        drop(state);
        let failed = |e: fjall::Error| Error::Failing {
            cause: Arc::from(e.to_string()),
        };
        let mut ingestion = keyspace.start_ingestion().map_err(failed)?;
        let mut value = Vec::new();
        for (_, hash, held) in part {
            value.clear();
            value.extend_from_slice(&held.expires_at_ms.to_le_bytes());
            value.extend_from_slice(&held.value);
            ingestion
                .write(Slice::new(&hash.to_be_bytes()), Slice::new(&value))
                .map_err(failed)?;
        }
        ingestion.finish().map_err(failed)?;
    }
    Ok(())
}

/// All completions of one batch as one value.
pub(super) fn pack(completions: &[Completion]) -> Slice {
    let bytes = completions
        .iter()
        .map(|c| ENTRY_HEAD + c.value.len())
        .sum::<usize>();
    let mut out = Vec::with_capacity(HEAD + bytes);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[VERSION, 0, 0, 0]);
    out.extend_from_slice(&(completions.len() as u32).to_le_bytes());
    for c in completions {
        out.extend_from_slice(&c.group.0.to_le_bytes());
        out.extend_from_slice(&c.bucket.to_le_bytes());
        out.extend_from_slice(&c.hash.to_le_bytes());
        out.extend_from_slice(&c.expires_at_ms.to_le_bytes());
        out.extend_from_slice(&(c.value.len() as u32).to_le_bytes());
        out.extend_from_slice(&c.value);
    }
    let crc = crc32c::crc32c(out.get(4..).unwrap_or_default());
    if let Some(place) = out.first_chunk_mut::<4>() {
        *place = crc.to_le_bytes();
    }
    Slice::from(out)
}

pub(super) fn unpack(bytes: &[u8]) -> Option<Vec<Completion>> {
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (head, mut rest) = rest.split_first_chunk::<8>()?;
    let [VERSION, 0, 0, 0, count @ ..] = *head else {
        return None;
    };
    let mut completions = Vec::new();
    for _ in 0..u32::from_le_bytes(count) {
        let (group, tail) = rest.split_first_chunk::<4>()?;
        let (bucket, tail) = tail.split_first_chunk::<4>()?;
        let (hash, tail) = tail.split_first_chunk::<16>()?;
        let (expires, tail) = tail.split_first_chunk::<8>()?;
        let (len, tail) = tail.split_first_chunk::<4>()?;
        let (value, tail) = tail.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        rest = tail;
        completions.push(Completion {
            group: GroupId(u32::from_le_bytes(*group)),
            bucket: u32::from_le_bytes(*bucket),
            hash: u128::from_le_bytes(*hash),
            expires_at_ms: i64::from_le_bytes(*expires),
            value: Slice::new(value),
        });
    }
    rest.is_empty().then_some(completions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(hash: u128) -> Completion {
        Completion {
            group: GroupId(3),
            bucket: 4,
            hash,
            expires_at_ms: -5,
            value: Slice::new(b"value"),
        }
    }

    #[test]
    fn packed_completions_come_back_and_any_flipped_bit_is_detected() {
        let packed = pack(&[completion(1), completion(u128::MAX)]).to_vec();
        let back = unpack(&packed).unwrap();
        assert_eq!((back.len(), back[1].hash), (2, u128::MAX));
        assert_eq!(
            (back[0].group, back[0].bucket, &*back[0].value),
            (GroupId(3), 4, b"value".as_slice())
        );
        for bit in 0..packed.len() * 8 {
            let mut bad = packed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&bad).is_none(), "bit {bit}");
        }
    }

    #[test]
    fn a_full_generation_is_frozen_and_still_found() {
        let recent = Recent::new(2);
        recent.insert(vec![completion(1)], 1);
        assert!(recent.read().frozen.is_none());
        recent.insert(vec![completion(2)], 2);
        recent.insert(vec![completion(3)], 3);
        assert!(recent.get(GroupId(3), 1).is_some() && recent.get(GroupId(3), 3).is_some());
        assert!(recent.get(GroupId(4), 1).is_none());
        recent.insert(vec![completion(4)], 4);
        assert!(
            !recent.await_room(|| false),
            "two full generations are the bound"
        );
        let frozen = recent.next_frozen().unwrap();
        recent.moved(&frozen);
        assert_eq!(recent.moved_through(), 2);
        assert!(recent.await_room(|| false));
        assert!(recent.get(GroupId(3), 1).is_none());
    }
}
