//! Lanes that are held up (§4.1, §4.2): which deliveries wait behind which, and when they may run. A
//! lane without trouble is not here and costs nothing. Pure: time is an argument, in ms of one clock that
//! does not go back.
//! Not here: why a lane is held (`verdict`, `idempotency`), and the messages (the worker's window, which
//! also bounds how much can wait: every delivery in a lane is an unfinished one).
//!
//! A worker's round: `pop_due` until the call is full, fresh messages of lanes that `blocks` does not
//! name; the call; for each failure `hold` its lane and `insert` it and the later ones of that lane (in
//! any order: a lane sorts); then `call_finished`, which lets the rest of the lanes that ran go on.

use std::collections::{BTreeSet, VecDeque};

use rustc_hash::FxHashMap;
use xxhash_rust::xxh3::xxh3_64;

use crate::config::valid::{By, NullKey, Ordering};

/// Two ordering keys with the same hash share a lane, which costs parallelism and nothing else.
pub type LaneKey = u64;

/// The lane of a delivery. `partition` names the topic's partition uniquely within the worker.
#[must_use]
pub fn lane_of(ordering: Ordering, key: Option<&[u8]>, partition: u32, offset: u64) -> LaneKey {
    let partition = u64::from(partition);
    match (ordering.by, key, ordering.null_key) {
        (By::Key, Some(key), _) => mix(xxh3_64(key) ^ mix(partition)),
        (By::Partition, ..) | (By::Key, None, NullKey::Partition) => mix(!partition),
        (By::None, ..) | (By::Key, None, NullKey::None) => mix(mix(partition).wrapping_add(offset)),
    }
}

/// What a lane waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// This time, ms.
    Time(i64),
    /// A change of another delivery's idempotency claim: `wake_claims`.
    Claim,
    /// The acknowledgement of a settlement, on which the worker calls `release` or `hold`.
    Ack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waits(Until),
    /// May run.
    Ready,
    /// Deliveries of it are in the current call.
    Runs,
}

#[derive(Debug, Clone)]
struct Lane<D> {
    state: State,
    /// Where it stands in the index.
    place: Option<Place>,
    /// Ascending. Empty while all that waited are in the call, or nothing came since the hold.
    queue: VecDeque<D>,
}

/// The index's order: within a kind by time, or by turn.
type Place = (Kind, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ready,
    Runs,
    Time,
    Claim,
}

/// The held lanes of one worker. `D` is the handle of a delivery, ordered by partition and offset.
#[derive(Debug, Clone)]
pub struct Lanes<D> {
    lanes: FxHashMap<LaneKey, Lane<D>>,
    /// Every lane but those that wait for an acknowledgement.
    index: BTreeSet<(Kind, i64, LaneKey)>,
    turn: i64,
    /// The lane that was popped from last; while it runs its turn goes on.
    popping: Option<LaneKey>,
    len: usize,
}

impl<D> Default for Lanes<D> {
    fn default() -> Self {
        Self {
            lanes: FxHashMap::default(),
            index: BTreeSet::new(),
            turn: 0,
            popping: None,
            len: 0,
        }
    }
}

impl<D: Copy + Ord> Lanes<D> {
    /// No lane is held: `blocks` would be false for each.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Deliveries that wait in lanes; those popped for the current call are not among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// A message of this lane has to be inserted rather than called.
    #[must_use]
    pub fn blocks(&self, lane: LaneKey) -> bool {
        !self.lanes.is_empty() && self.lanes.contains_key(&lane)
    }

    /// Holds a lane until something happens, whatever it waited for before. A lane may be held with
    /// nothing in it; it vanishes if nothing came when the wait is over.
    pub fn hold(&mut self, lane: LaneKey, until: Until) {
        self.set(lane, State::Waits(until));
    }

    /// Puts a delivery into its place in a lane. A lane that was not held may run at once.
    pub fn insert(&mut self, lane: LaneKey, delivery: D) {
        let Self {
            lanes, index, turn, ..
        } = self;
        let entry = lanes.entry(lane).or_insert_with(|| {
            *turn += 1;
            index.insert((Kind::Ready, *turn, lane));
            Lane {
                state: State::Ready,
                place: Some((Kind::Ready, *turn)),
                queue: VecDeque::new(),
            }
        });
        let queue = &mut entry.queue;
        if queue.back().is_none_or(|last| *last < delivery) {
            queue.push_back(delivery);
        } else {
            queue.insert(queue.partition_point(|other| *other < delivery), delivery);
        }
        self.len += 1;
    }

    /// The next delivery that may run: all of one lane in order, then the next lane, those that were due
    /// first first. The lane then runs until `call_finished`, `hold` or `release`.
    pub fn pop_due(&mut self, now_ms: i64) -> Option<(LaneKey, D)> {
        if let Some(lane) = self.popping
            && let Some(delivery) = self.pop(lane)
        {
            return Some((lane, delivery));
        }
        while let Some((at, lane)) = self.first(Kind::Time)
            && at <= now_ms
        {
            self.release(lane);
        }
        let lane = self.first(Kind::Ready).map(|(_, lane)| lane);
        self.popping = lane;
        let lane = lane?;
        self.set(lane, State::Runs);
        self.pop(lane).map(|delivery| (lane, delivery))
    }

    /// The delivery that stands first in a lane.
    #[must_use]
    pub fn next_of(&self, lane: LaneKey) -> Option<&D> {
        self.lanes.get(&lane)?.queue.front()
    }

    /// The next delivery of this one lane, when it may run. The lane then runs, as with [`Self::pop_due`].
    pub fn pop_ready(&mut self, lane: LaneKey) -> Option<D> {
        if !matches!(self.lanes.get(&lane)?.state, State::Ready) {
            return None;
        }
        self.set(lane, State::Runs);
        self.pop(lane)
    }

    /// The call is over and its failures are held: the lanes that ran go on with what waits in them,
    /// behind the others that may run, or are free again.
    pub fn call_finished(&mut self) {
        while let Some((_, lane)) = self.first(Kind::Runs) {
            self.release(lane);
        }
    }

    /// Lets a lane go on: it may run, or is free when nothing waits in it.
    pub fn release(&mut self, lane: LaneKey) {
        let Some(entry) = self.lanes.get(&lane) else {
            return;
        };
        if !entry.queue.is_empty() {
            self.set(lane, State::Ready);
            return;
        }
        let place = entry.place;
        self.lanes.remove(&lane);
        self.leave(lane, place);
    }

    /// A claim that someone waited for has changed: those who wait for claims ask again.
    pub fn wake_claims(&mut self) {
        while let Some((_, lane)) = self.first(Kind::Claim) {
            self.release(lane);
        }
    }

    /// Lanes that wait for a time need not wait any longer.
    pub fn wake_timed(&mut self) {
        while let Some((_, lane)) = self.first(Kind::Time) {
            self.release(lane);
        }
    }

    /// The lane that waits for the earliest time need not wait any longer.
    pub fn wake_first_timed(&mut self) {
        if let Some((_, lane)) = self.first(Kind::Time) {
            self.release(lane);
        }
    }

    /// When the next lane may run: `i64::MIN` when one may already, `None` when none waits for time.
    #[must_use]
    pub fn next_due(&self) -> Option<i64> {
        if self.first(Kind::Ready).is_some() {
            return Some(i64::MIN);
        }
        self.first(Kind::Time).map(|(at, _)| at)
    }

    /// What a lane waits for; `None` when it is not held, may run or runs.
    #[must_use]
    pub fn until(&self, lane: LaneKey) -> Option<Until> {
        match self.lanes.get(&lane)?.state {
            State::Waits(until) => Some(until),
            State::Ready | State::Runs => None,
        }
    }

    /// All deliveries that wait, with their lanes: by lane in no order, within a lane in order.
    pub fn iter(&self) -> impl Iterator<Item = (LaneKey, &D)> {
        self.lanes
            .iter()
            .flat_map(|(lane, entry)| entry.queue.iter().map(|delivery| (*lane, delivery)))
    }

    /// The first of a kind in the index.
    fn first(&self, kind: Kind) -> Option<(i64, LaneKey)> {
        let &(found, at, lane) = self.index.range((kind, i64::MIN, LaneKey::MIN)..).next()?;
        (found == kind).then_some((at, lane))
    }

    fn set(&mut self, lane: LaneKey, state: State) {
        self.turn += 1;
        let place = match state {
            State::Ready => Some((Kind::Ready, self.turn)),
            State::Runs => Some((Kind::Runs, self.turn)),
            State::Waits(Until::Time(at)) => Some((Kind::Time, at)),
            State::Waits(Until::Claim) => Some((Kind::Claim, self.turn)),
            State::Waits(Until::Ack) => None,
        };
        let entry = self.lanes.entry(lane).or_insert_with(|| Lane {
            state,
            place: None,
            queue: VecDeque::new(),
        });
        entry.state = state;
        let before = std::mem::replace(&mut entry.place, place);
        self.leave(lane, before);
        if let Some((kind, at)) = place {
            self.index.insert((kind, at, lane));
        }
    }

    fn leave(&mut self, lane: LaneKey, place: Option<Place>) {
        if let Some((kind, at)) = place {
            self.index.remove(&(kind, at, lane));
        }
    }

    fn pop(&mut self, lane: LaneKey) -> Option<D> {
        let entry = self.lanes.get_mut(&lane)?;
        if entry.state != State::Runs {
            return None;
        }
        let delivery = entry.queue.pop_front()?;
        self.len -= 1;
        Some(delivery)
    }
}

/// The finalizer of splitmix64: a bijection, so that distinct partitions and offsets stay distinct.
fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests;
