//! What becomes durable together because deliveries are finished: outputs, dead letters, idempotency
//! records, state writes, progress. Every connector gets this same value and makes it durable in its
//! own way. Pure: buffers and indices, reused from one settlement to the next.

use crate::message::MessageRef;
use crate::pipeline::letter_state;
use crate::pipeline::sequence::SequenceKey;

/// Index of an output or dead letter topic in the pipeline's list of targets.
pub type Target = u16;

/// One record to publish; its bytes are `settlement.record(&publish)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    pub target: Target,
    /// `None`: by the key, as for every producer.
    pub partition: Option<u32>,
    start: usize,
    len: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgressWrite {
    /// Index in the worker's list of partitions.
    pub partition: u32,
    /// An encoded [`crate::pipeline::offsets::Progress`].
    pub value: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletionWrite {
    pub hash: u128,
    pub expires_at_ms: i64,
    /// An encoded [`crate::idempotency::completion::Completion`].
    pub value: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    /// Index in the worker's list of partitions.
    pub partition: u32,
    pub key: String,
    /// `None` deletes.
    pub value: Option<Vec<u8>>,
}

/// The sequence number of a key that was processed last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceWrite {
    pub key: SequenceKey,
    pub last: i64,
}

/// The state of a dead letter: of one that was sent back, or of one that this settlement writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterWrite {
    pub id: String,
    /// The round it is about.
    pub redrive_count: u32,
    /// `None`: new. A message that is read again after a seek may become the dead letter that it was
    /// before, and somebody closed that one.
    pub record: Option<letter_state::Record>,
}

/// The open settlement of a worker.
#[derive(Debug, Default)]
pub struct Settlement {
    arena: Vec<u8>,
    publishes: Vec<Publish>,
    pub progress: Vec<ProgressWrite>,
    pub completions: Vec<CompletionWrite>,
    pub state: Vec<StateWrite>,
    pub letters: Vec<LetterWrite>,
    pub numbers: Vec<SequenceWrite>,
    deliveries: u32,
    /// Bytes of state writes, completions and sequence numbers.
    table_bytes: usize,
}

/// A point to return to when a message turns out not to succeed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mark {
    arena: usize,
    publishes: usize,
}

impl Settlement {
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark {
            arena: self.arena.len(),
            publishes: self.publishes.len(),
        }
    }

    /// Forgets everything published since `mark`.
    pub fn rollback(&mut self, mark: Mark) {
        self.arena.truncate(mark.arena);
        self.publishes.truncate(mark.publishes);
    }

    /// Adds a record for `target`.
    pub fn publish(&mut self, target: Target, message: &MessageRef<'_>) {
        let start = self.arena.len();
        message.write_record(&mut self.arena);
        self.push(target, None, start);
    }

    /// The same into one partition of `target`, whatever the key.
    pub fn publish_to(&mut self, target: Target, partition: u32, message: &MessageRef<'_>) {
        let start = self.arena.len();
        message.write_record(&mut self.arena);
        self.push(target, Some(partition), start);
    }

    /// Adds a record that is already encoded (a stored output replayed).
    pub fn publish_record(&mut self, target: Target, record: &[u8]) {
        let start = self.arena.len();
        self.arena.extend_from_slice(record);
        self.push(target, None, start);
    }

    fn push(&mut self, target: Target, partition: Option<u32>, start: usize) {
        let len = self.arena.len() - start;
        self.publishes.push(Publish {
            target,
            partition,
            start,
            len,
        });
    }

    pub fn write_state(&mut self, write: StateWrite) {
        self.table_bytes += write.key.len() + write.value.as_ref().map_or(0, Vec::len);
        self.state.push(write);
    }

    pub fn complete(&mut self, write: CompletionWrite) {
        self.table_bytes += write.value.len();
        self.completions.push(write);
    }

    pub fn write_number(&mut self, write: SequenceWrite) {
        // Of one key the last one counts.
        match self.numbers.last_mut() {
            Some(last) if last.key == write.key => *last = write,
            _ => {
                self.table_bytes += size_of::<SequenceWrite>();
                self.numbers.push(write);
            }
        }
    }

    /// One delivery more is finished by this settlement.
    pub fn count_delivery(&mut self) {
        self.deliveries += 1;
    }

    /// Deliveries finished by it.
    #[must_use]
    pub const fn deliveries(&self) -> u32 {
        self.deliveries
    }

    #[must_use]
    pub fn publishes(&self) -> &[Publish] {
        &self.publishes
    }

    /// What was published since `mark`.
    #[must_use]
    pub fn published_since(&self, mark: Mark) -> &[Publish] {
        self.publishes.get(mark.publishes..).unwrap_or_default()
    }

    #[must_use]
    pub fn record(&self, publish: &Publish) -> &[u8] {
        self.arena
            .get(publish.start..publish.start + publish.len)
            .unwrap_or_default()
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.table_bytes
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.publishes.is_empty()
            && self.progress.is_empty()
            && self.completions.is_empty()
            && self.state.is_empty()
            && self.letters.is_empty()
            && self.numbers.is_empty()
            && self.deliveries == 0
    }

    /// Takes the records for some targets out, into a settlement of their own. Only a mutant of the
    /// tests does that: what is finished together becomes durable together.
    pub(super) fn split_off(&mut self, is_taken: impl Fn(Target) -> bool) -> Self {
        let mut taken = Self::default();
        let (out, kept) = std::mem::take(&mut self.publishes)
            .into_iter()
            .partition(|publish| is_taken(publish.target));
        self.publishes = kept;
        let out: Vec<Publish> = out;
        for publish in out {
            taken.publish_record(publish.target, self.record(&publish));
        }
        taken
    }

    /// Empties it and keeps the buffers.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.publishes.clear();
        self.progress.clear();
        self.completions.clear();
        self.state.clear();
        self.letters.clear();
        self.numbers.clear();
        self.deliveries = 0;
        self.table_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_leaves_what_was_published_before_the_mark() {
        let mut settlement = Settlement::default();
        let first = MessageRef {
            payload: Some(b"1"),
            ..Default::default()
        };
        settlement.publish(0, &first);
        let mark = settlement.mark();
        settlement.publish(
            1,
            &MessageRef {
                payload: Some(b"2"),
                ..Default::default()
            },
        );
        settlement.rollback(mark);
        assert_eq!(settlement.publishes().len(), 1);
        let (back, _) =
            MessageRef::read_record(settlement.record(&settlement.publishes()[0])).unwrap();
        assert_eq!(back, first);
        settlement.clear();
        assert!(settlement.is_empty());
    }

    #[test]
    fn state_writes_and_completions_count_against_the_size_of_a_settlement() {
        let mut settlement = Settlement::default();
        settlement.write_state(StateWrite {
            partition: 0,
            key: "key".to_owned(),
            value: Some(vec![0; 100]),
        });
        settlement.complete(CompletionWrite {
            hash: 1,
            expires_at_ms: 2,
            value: vec![0; 17],
        });
        assert_eq!(settlement.bytes(), 120);
        settlement.clear();
        assert_eq!(settlement.bytes(), 0);
    }
}
