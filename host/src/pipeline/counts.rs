//! What a worker counts while it works: plain numbers, handed to whoever observes once per batch. Pure.

use crate::pipeline::reply::Dropped;
use crate::pipeline::settlement::Target;
use crate::pipeline::snapshot::PartitionSnapshot;
use crate::pipeline::trace::{Attempt, Origin, Sampling, SpanRef, Times, Told};
use crate::pipeline::verdict::Reason;

/// Since the last hand-over.
#[derive(Debug, Default)]
pub struct Counts {
    pub succeeded: u64,
    pub skipped: u64,
    pub replayed: u64,
    pub discarded: u64,
    /// Passed over by the pipeline's filter.
    pub filtered: u64,
    /// Passed over because a later sequence number of their key was processed before.
    pub stale: u64,
    /// Messages that went on although sequence numbers before theirs are missing.
    pub gaps: u64,
    /// Requests past their deadline.
    pub expired: u64,
    /// Answers that went nowhere, by why.
    pub replies_dropped: Vec<(Dropped, u64)>,
    pub circuits_opened: u64,
    pub retries: u64,
    /// Idempotency keys that were new.
    pub claimed: u64,
    /// Deliveries that waited for another with the same key.
    pub waited: u64,
    pub conflicts: u64,
    /// Finished without an idempotency key.
    pub missing: u64,
    /// A handful of reasons at most: a list is faster than a map.
    pub dead_letters: Vec<(Reason, u64)>,
    pub faults: Vec<(&'static str, u64)>,
    /// Records published by target.
    pub published: Vec<u64>,
    /// Nanoseconds and messages of each call.
    pub calls: Vec<(u64, u32)>,
    /// Nanoseconds from handing a settlement on to its acknowledgement.
    pub settlements: Vec<u64>,
    pub lost_offsets: u64,
}

impl Counts {
    pub fn dead_letter(&mut self, reason: Reason) {
        bump(&mut self.dead_letters, reason);
    }

    pub fn drop_reply(&mut self, why: Dropped) {
        bump(&mut self.replies_dropped, why);
    }

    pub fn fault(&mut self, kind: &'static str) {
        bump(&mut self.faults, kind);
    }

    pub fn publish(&mut self, target: Target) {
        let target = usize::from(target);
        if self.published.len() <= target {
            self.published.resize(target + 1, 0);
        }
        if let Some(count) = self.published.get_mut(target) {
            *count += 1;
        }
    }

    /// Deliveries finished.
    #[must_use]
    pub fn finished(&self) -> u64 {
        let dead: u64 = self.dead_letters.iter().map(|(_, n)| n).sum();
        self.succeeded
            + self.skipped
            + self.replayed
            + self.discarded
            + self.filtered
            + self.stale
            + self.expired
            + dead
    }

    /// Empties it and keeps the buffers.
    pub fn clear(&mut self) {
        let Self {
            dead_letters,
            faults,
            replies_dropped,
            published,
            calls,
            settlements,
            ..
        } = self;
        let kept = Self {
            dead_letters: emptied(dead_letters),
            faults: emptied(faults),
            replies_dropped: emptied(replies_dropped),
            published: emptied(published),
            calls: emptied(calls),
            settlements: emptied(settlements),
            ..Self::default()
        };
        *self = kept;
    }
}

fn emptied<T>(list: &mut Vec<T>) -> Vec<T> {
    list.clear();
    std::mem::take(list)
}

fn bump<K: PartialEq>(list: &mut Vec<(K, u64)>, key: K) {
    match list.iter_mut().find(|(k, _)| *k == key) {
        Some((_, count)) => *count += 1,
        None => list.push((key, 1)),
    }
}

/// Receives counts and looks at a pipeline from outside.
pub trait Observer {
    /// So many messages are inside a call from now on.
    fn calling(&mut self, messages: usize);
    /// Takes over what was counted and clears it.
    fn counted(&mut self, counts: &mut Counts);
    /// How the worker's partitions stand, why it is blocked if it is, whether by the circuit, bytes of its
    /// instance's memory.
    fn looked(
        &mut self,
        partitions: Vec<PartitionSnapshot>,
        blocked: Option<&str>,
        is_circuit_open: bool,
        memory_bytes: u64,
    );
    /// Which messages are traced; `None`: none is, and nothing below is called.
    fn sampling(&self) -> Option<&Sampling> {
        None
    }
    /// Whether one more may be traced that only the share of [`Self::sampling`] has chosen.
    fn begins_trace(&self) -> bool {
        true
    }
    /// The read that brought a traced message.
    fn received(&mut self, origin: &Origin<'_>, times: Times);
    /// An attempt on a traced message ended.
    fn attempted(&mut self, attempt: &Attempt<'_>) -> SpanRef;
    /// These are durable.
    fn settled(&mut self, told: &[Told], times: Times);
}
