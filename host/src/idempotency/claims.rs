//! Who is processing which idempotency key right now (§7.3, §7.4): one table for a consumer group, used
//! by several worker threads. In memory only, because one process owns the table; completions are what
//! outlives it. No clock and no I/O: time and the table's answer are arguments.
//! Not here: the table (`connector`), and what becomes of duplicates and conflicts (`pipeline`).
//!
//! A key: absent → in progress → settled → absent here, because the table has it. Every step after the
//! claim names the claim's fence, and a fence that is not the current one changes nothing.

use std::collections::hash_map::Entry as Slot;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;

use super::KeyHash;
use super::completion::{Completion, Status};

/// Locks; a power of two. Workers are as many as cores, so two rarely want the same one.
const SHARDS: usize = 64;

/// The delivery that claims. The same one may claim again (a retry, a replay), which takes the claim from
/// its former self.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub worker: u16,
    /// Names the topic's partition uniquely within the worker.
    pub partition: u32,
    pub offset: u64,
}

/// Names one claim; later ones are larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(u64);

/// Another claim took the place of this one: its outcome settles nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the claim was taken over by another delivery; drop this outcome")]
pub struct Stale;

/// What asking for a key comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Process it.
    Taken(Fence),
    /// Another delivery is processing it: ask again when `generation` has changed.
    Wait,
    /// It was processed before, with the same content.
    Duplicate(Completion),
    /// It was processed before, with other content.
    Conflict,
}

#[derive(Debug)]
enum State {
    /// `waited`: someone was told to wait for it.
    InProgress { owner: Owner, waited: bool },
    /// Its settlement was handed on and is not known to be durable.
    Settled {
        owner: Owner,
        completion: Completion,
        /// A delivery of another worker waits until this is durable.
        waited: bool,
    },
}

#[derive(Debug)]
struct Entry {
    fence: Fence,
    state: State,
}

type Shard = FxHashMap<KeyHash, Entry>;

/// The claims of one consumer group.
#[derive(Debug)]
pub struct Claims {
    shards: Box<[Mutex<Shard>; SHARDS]>,
    fences: AtomicU64,
    generation: AtomicU64,
    now_ms: AtomicI64,
}

impl Default for Claims {
    fn default() -> Self {
        Self {
            shards: Box::new(std::array::from_fn(|_| Mutex::default())),
            fences: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            now_ms: AtomicI64::new(i64::MIN),
        }
    }
}

impl Claims {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The latest time that anyone has seen, this one included (Unix ms): what expiry is counted from,
    /// so that a clock that steps back and forth expires nothing early.
    pub fn now(&self, now_ms: i64) -> i64 {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms)
    }

    /// Claims a key for a delivery. What is in memory decides; else `stored`, the table's answer, which is
    /// asked under the key's lock: it must hold everything that was reported `durable`. An error of it
    /// changes nothing. `reopens`: the message's own failure does not count as processed (§7.5); one with
    /// other content is another message's, and stands.
    pub fn claim<E>(
        &self,
        hash: KeyHash,
        fingerprint: u64,
        owner: Owner,
        reopens: bool,
        now_ms: i64,
        stored: impl FnOnce() -> Result<Option<Completion>, E>,
    ) -> Result<Claim, E> {
        let now_ms = self.now(now_ms);
        let is_reopened = |completion: &Completion| {
            reopens && completion.status == Status::Failed && completion.fingerprint == fingerprint
        };
        let mut shard = self.shard(hash);
        let slot = shard.entry(hash);
        let entry = match slot {
            Slot::Vacant(vacant) => {
                let stands = |completion: &Completion| {
                    completion.expires_at_ms > now_ms && !is_reopened(completion)
                };
                let live = stored()?.filter(stands);
                if let Some(completion) = live {
                    return Ok(answer(&completion, fingerprint));
                }
                let fence = self.next_fence();
                vacant.insert(Entry::in_progress(fence, owner));
                return Ok(Claim::Taken(fence));
            }
            Slot::Occupied(occupied) => occupied.into_mut(),
        };
        match &mut entry.state {
            State::InProgress {
                owner: other,
                waited,
            } if *other != owner => {
                *waited = true;
                return Ok(Claim::Wait);
            }
            State::Settled {
                owner: other,
                completion,
                waited,
            } if *other != owner && completion.expires_at_ms > now_ms => {
                if other.worker != owner.worker {
                    *waited = true;
                    return Ok(Claim::Wait);
                }
                if !is_reopened(completion) {
                    return Ok(answer(completion, fingerprint));
                }
                let waited = false;
                entry.state = State::InProgress { owner, waited };
            }
            // Itself before (its settlement was not made, or the host would know it as finished), or
            // expired. Who waits goes on waiting for the new claim.
            State::InProgress { .. } => {}
            State::Settled { .. } => {
                entry.state = State::InProgress {
                    owner,
                    waited: false,
                }
            }
        }
        entry.fence = self.next_fence();
        Ok(Claim::Taken(entry.fence))
    }

    /// The message is finished. Duplicates of the same worker are answered from now on, although it is not
    /// durable yet: their settlements stand behind it or are the same one. Those of other workers wait for
    /// [`Claims::durable`], since nothing orders their settlements behind it.
    pub fn complete(
        &self,
        hash: KeyHash,
        fence: Fence,
        completion: Completion,
    ) -> Result<(), Stale> {
        let mut shard = self.shard(hash);
        let entry = shard
            .get_mut(&hash)
            .filter(|entry| entry.fence == fence)
            .ok_or(Stale)?;
        let State::InProgress { owner, waited } = entry.state else {
            return Err(Stale);
        };
        entry.state = State::Settled {
            owner,
            completion,
            // Who waited asks again, and waits on when it is of another worker.
            waited: false,
        };
        drop(shard);
        self.changed(waited);
        Ok(())
    }

    /// The settlement is durable: the table answers from now on. False when the fence is stale.
    pub fn durable(&self, hash: KeyHash, fence: Fence) -> bool {
        self.forget(hash, fence, |state| match state {
            State::Settled { waited, .. } => Some(*waited),
            State::InProgress { .. } => None,
        })
    }

    /// The message is not finished (a retryable failure, or its turn did not come): the key is free again.
    /// False, and nothing changed, when the fence is stale or the claim is settled.
    pub fn release(&self, hash: KeyHash, fence: Fence) -> bool {
        self.forget(hash, fence, |state| match state {
            State::InProgress { waited, .. } => Some(*waited),
            State::Settled { .. } => None,
        })
    }

    /// Drops the claim when the fence is its own and `waited` says, with whether someone waits, that its
    /// state allows it.
    fn forget(
        &self,
        hash: KeyHash,
        fence: Fence,
        waited: impl FnOnce(&State) -> Option<bool>,
    ) -> bool {
        let mut shard = self.shard(hash);
        let entry = shard.get(&hash).filter(|entry| entry.fence == fence);
        let Some(waited) = entry.and_then(|entry| waited(&entry.state)) else {
            return false;
        };
        shard.remove(&hash);
        drop(shard);
        self.changed(waited);
        true
    }

    /// Changes when a claim that someone waits for is completed or released. Read it before claiming, or a
    /// change in between goes unseen.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Keys in progress or on their way to the table: at most the deliveries in the windows of all
    /// workers and in their settlements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn changed(&self, waited: bool) {
        if waited {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn next_fence(&self) -> Fence {
        Fence(self.fences.fetch_add(1, Ordering::Relaxed))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the index is taken modulo the array's length"
    )]
    fn shard(&self, hash: KeyHash) -> MutexGuard<'_, Shard> {
        // The high bits: the map uses the low ones.
        lock(&self.shards[(hash >> 96) as usize % SHARDS])
    }
}

impl Entry {
    fn in_progress(fence: Fence, owner: Owner) -> Self {
        Self {
            fence,
            state: State::InProgress {
                owner,
                waited: false,
            },
        }
    }
}

fn answer(completion: &Completion, fingerprint: u64) -> Claim {
    if completion.fingerprint == fingerprint {
        Claim::Duplicate(completion.clone())
    } else {
        Claim::Conflict
    }
}

/// A thread that panicked while it held the lock left the map whole: every change is one step.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
