//! Sequence numbers (§4.5): for each ordering key the number that was processed last, and the messages that
//! wait because one before them is missing. Bounded: what waits is an unfinished delivery of its window, and
//! of the numbers that are durable at most `KNOWN_MAX` are remembered. Pure: time is an argument (monotonic
//! ms).
//! Not here: how a number is read (`admit`), where it becomes durable (`settlement`).

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

/// Keys whose last number is remembered although it is durable; that of another is read again.
pub const KNOWN_MAX: usize = 65_536;
/// The version of a stored number.
const VERSION: u8 = 1;
/// While another message of the key is held up, a gap is looked at again after so long.
const HELD_UP_MS: i64 = 100;

/// An ordering key in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceKey {
    /// From which its messages came first: the index in the worker's list.
    pub partition: u32,
    pub hash: u128,
}

/// The number of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number {
    pub key: SequenceKey,
    pub value: i64,
}

/// Where the last numbers are kept.
pub trait Numbers: Send {
    /// The number of a key that was processed last; says why it cannot be read.
    fn last(&self, key: SequenceKey) -> Result<Option<i64>, String>;
}

/// Partition (index in the worker's list) and offset of a delivery.
pub type Id = (u32, u64);

/// Where a number stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It may be called.
    Next,
    /// It was processed before, or passed over.
    Stale { last: i64 },
    /// Numbers before it are missing.
    Gap { last: i64 },
}

#[derive(Debug, Clone, Copy)]
struct Known {
    last: Option<i64>,
    /// Of the settlement that makes it durable.
    ticket: u64,
}

/// Messages of one key that wait for a number before theirs.
#[derive(Debug)]
struct Gap<D> {
    /// By number.
    waiting: BTreeMap<(i64, Id), Parked<D>>,
    /// By the end of their wait.
    ends: BTreeSet<(i64, Id)>,
    /// Where it stands in the index.
    look_ms: i64,
    /// The end of the partition when the wait of the first one was over.
    read_to: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Parked<D> {
    delivery: D,
    end_ms: i64,
}

#[derive(Debug)]
pub struct Sequences<D> {
    known: FxHashMap<SequenceKey, Known>,
    /// The highest numbers in the current call.
    called: FxHashMap<SequenceKey, i64>,
    gaps: FxHashMap<SequenceKey, Gap<D>>,
    /// When to look at a gap.
    index: BTreeSet<(i64, SequenceKey)>,
    parked: FxHashMap<Id, Number>,
    /// Those whose wait was over: they go although numbers before them are missing.
    granted: FxHashSet<Id>,
}

impl<D> Default for Sequences<D> {
    fn default() -> Self {
        Self {
            known: FxHashMap::default(),
            called: FxHashMap::default(),
            gaps: FxHashMap::default(),
            index: BTreeSet::new(),
            parked: FxHashMap::default(),
            granted: FxHashSet::default(),
        }
    }
}

impl<D: Copy> Sequences<D> {
    /// Whether the last number of a key has to be read before anything is asked about it.
    #[must_use]
    pub fn needs(&self, key: SequenceKey) -> bool {
        !self.known.contains_key(&key)
    }

    /// What the store has of a key.
    pub fn learn(&mut self, key: SequenceKey, last: Option<i64>) {
        self.known.entry(key).or_insert(Known { last, ticket: 0 });
    }

    /// Where a number stands behind those processed and those in the current call. `tried`: the message was
    /// called before, so nothing is missing that was not missing then. The first number of a key is
    /// accepted as it is.
    #[must_use]
    pub fn standing(&self, number: Number, id: Id, tried: bool) -> Standing {
        let known = self.known.get(&number.key).and_then(|known| known.last);
        let called = self.called.get(&number.key).copied();
        let Some(last) = known.max(called) else {
            return Standing::Next;
        };
        if number.value <= last {
            return Standing::Stale { last };
        }
        let follows = last.checked_add(1) == Some(number.value);
        if follows || tried || self.granted.contains(&id) {
            return Standing::Next;
        }
        Standing::Gap { last }
    }

    /// It is in the current call.
    pub fn call(&mut self, number: Number) {
        let called = self.called.entry(number.key).or_insert(number.value);
        *called = number.value.max(*called);
    }

    /// Another call begins: of the last one those are processed that `finish` was told.
    pub fn next_call(&mut self) {
        self.called.clear();
    }

    /// The message waits for a number before it, until `end_ms` at most.
    pub fn park(&mut self, number: Number, id: Id, delivery: D, end_ms: i64) {
        let gap = self.gaps.entry(number.key).or_insert_with(|| Gap {
            waiting: BTreeMap::new(),
            ends: BTreeSet::new(),
            look_ms: i64::MAX,
            read_to: None,
        });
        gap.waiting
            .insert((number.value, id), Parked { delivery, end_ms });
        gap.ends.insert((end_ms, id));
        self.parked.insert(id, number);
        self.place(number.key, None);
    }

    /// A message with this number is finished by the settlement `ticket`. The number to store, when it is
    /// higher than the last one, and into `freed` the messages that wait no longer.
    pub fn finish(
        &mut self,
        number: Number,
        id: Id,
        ticket: u64,
        freed: &mut Vec<D>,
    ) -> Option<i64> {
        self.granted.remove(&id);
        let known = self.known.entry(number.key);
        let known = known.or_insert(Known { last: None, ticket });
        if known.last.is_some_and(|last| last >= number.value) {
            return None;
        }
        known.last = Some(number.value);
        known.ticket = ticket;
        let next = number.value.saturating_add(1);
        while let Some((value, id)) = self.first_waiting(number.key)
            && value <= next
        {
            freed.extend(self.unpark(id));
        }
        // The wait of the next one may be over, too.
        self.place(number.key, None);
        Some(number.value)
    }

    /// The message is finished and its number does not count.
    pub fn finish_without(&mut self, id: Id) {
        self.granted.remove(&id);
    }

    /// Into `freed` the first message of each key whose wait is over, when it may go (`may_go`, which also gets
    /// a place to remember how far the partition has to be read before that): what is missing may be held up,
    /// or not be read yet.
    pub fn give_up(
        &mut self,
        now_ms: i64,
        may_go: impl Fn(&D, &mut Option<u64>) -> bool,
        freed: &mut Vec<(Number, D)>,
    ) {
        while let Some(&(at, key)) = self.index.first()
            && at <= now_ms
        {
            let first = self.gaps.get_mut(&key).and_then(|gap| {
                let (&(value, id), parked) = gap.waiting.first_key_value()?;
                let goes = may_go(&parked.delivery, &mut gap.read_to);
                if goes {
                    gap.read_to = None;
                }
                Some((value, id, parked.delivery, goes))
            });
            let Some((value, id, delivery, goes)) = first else {
                self.index.remove(&(at, key));
                continue;
            };
            if goes {
                self.unpark(id);
                self.granted.insert(id);
                freed.push((Number { key, value }, delivery));
            }
            // The next of the key may run once this one did.
            self.place(key, Some(now_ms.saturating_add(HELD_UP_MS)));
        }
    }

    /// Takes one out that waits.
    pub fn unpark(&mut self, id: Id) -> Option<D> {
        let number = self.parked.remove(&id)?;
        let gap = self.gaps.get_mut(&number.key)?;
        let parked = gap.waiting.remove(&(number.value, id))?;
        gap.ends.remove(&(parked.end_ms, id));
        self.place(number.key, None);
        Some(parked.delivery)
    }

    /// The number of a message that waits, the last one processed before it, and when its wait ends.
    #[must_use]
    pub fn waits(&self, id: Id) -> Option<(i64, i64, i64)> {
        let number = self.parked.get(&id)?;
        let parked = self
            .gaps
            .get(&number.key)?
            .waiting
            .get(&(number.value, id))?;
        let last = self.known.get(&number.key).and_then(|known| known.last)?;
        Some((number.value, last, parked.end_ms))
    }

    /// All that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &D> {
        let gaps = self.gaps.values();
        gaps.flat_map(|gap| gap.waiting.values().map(|parked| &parked.delivery))
    }

    /// Forgets numbers that are durable when there are many. What somebody waits for stays.
    pub fn prune(&mut self, settled: u64) {
        if self.known.len() > KNOWN_MAX {
            let gaps = &self.gaps;
            self.known
                .retain(|key, known| known.ticket > settled || gaps.contains_key(key));
        }
    }

    fn first_waiting(&self, key: SequenceKey) -> Option<(i64, Id)> {
        let gap = self.gaps.get(&key)?;
        gap.waiting.first_key_value().map(|(first, _)| *first)
    }

    /// Puts a gap where it belongs in the index, not before `earliest`; an empty one goes.
    fn place(&mut self, key: SequenceKey, earliest: Option<i64>) {
        let Some(gap) = self.gaps.get_mut(&key) else {
            return;
        };
        self.index.remove(&(gap.look_ms, key));
        let Some(&(end_ms, _)) = gap.ends.first() else {
            self.gaps.remove(&key);
            return;
        };
        gap.look_ms = earliest.map_or(end_ms, |earliest| end_ms.max(earliest));
        self.index.insert((gap.look_ms, key));
    }
}

/// A number as it is stored.
#[must_use]
pub fn encode(number: i64) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(&number.to_le_bytes());
    value
}

/// A stored number; says why it cannot be read.
pub fn decode(value: &[u8]) -> Result<i64, String> {
    match value.split_first() {
        Some((&VERSION, number)) => {
            let number = number.try_into();
            let number = number.map_err(|_| "a stored sequence number is damaged".to_owned())?;
            Ok(i64::from_le_bytes(number))
        }
        Some((version, _)) => Err(format!(
            "a stored sequence number has version {version}, this host knows {VERSION}; use the host that wrote it, or a newer one"
        )),
        None => Err("a stored sequence number is empty".to_owned()),
    }
}

#[cfg(test)]
mod tests;
