//! The states of dead letters in the log's meta table, and which blocks of a dead letter partition hold
//! nothing open any more, so that nobody looks at them again. Not here: who may change a state.
//!
//! A block is [`BLOCK`] offsets of a partition, aligned. When somebody has looked at all of one and every
//! dead letter in it was closed, that becomes durable under `dlq-closed/<partition id>/<block>`; whatever
//! opens a letter again takes the entry away in the same commit.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::change::{Change, Changing};
use super::decode::{View, number};
use super::wire::{LetterState, Round};
use crate::admin::console::Console;
use crate::admin::error::{Code, Error};
use crate::connector::embedded::{Commit, PartitionId, Write};
use crate::pipeline::letter_state::{self, Record, State};
use crate::pipeline::offsets::Progress;
use crate::pipeline::returned;

/// Offsets of one block.
pub(super) const BLOCK: u64 = 4_096;
/// Rounds of one dead letter that are shown.
const ROUNDS_SHOWN_MAX: usize = 100;
/// Entries of blocks that retention removed, taken away with one mark.
const STALE_BLOCKS: usize = 64;

/// What everybody who changes states shares: one per open log.
#[derive(Default)]
pub struct Shared {
    changing: Changing,
    /// Letters that were opened again, so that a block that was looked at before is not marked as closed.
    opened: AtomicU64,
    pub(super) jobs: Mutex<super::runner::Jobs>,
}

impl Shared {
    /// States are read and changed by one at a time.
    pub(super) fn change(&self) -> Result<Change<'_>, Error> {
        self.changing.begin()
    }

    pub(super) fn is_answered(&self) -> bool {
        self.changing.is_answered()
    }

    #[cfg(test)]
    pub(super) fn set_patience(&self, patience: std::time::Duration) {
        self.changing.set_patience(patience);
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Acquire)
    }

    /// Call it while holding `change`, before the commit that opens letters.
    pub(super) fn count_opened(&self) {
        self.opened.fetch_add(1, Ordering::AcqRel);
    }
}

/// Looks states up, remembering what it needs for several.
pub(super) struct Lookup<'c> {
    console: &'c Console,
    /// By redrive topic and partition: what its consumer group has passed.
    passed: HashMap<(String, u32), Option<u64>>,
}

impl<'c> Lookup<'c> {
    pub(super) fn new(console: &'c Console) -> Self {
        Self {
            console,
            passed: HashMap::new(),
        }
    }

    pub(super) fn state(&mut self, letter: &View<'_>) -> Result<LetterState, Error> {
        let id = letter.id.unwrap_or_default();
        let record = self.console.state_record(id, letter.round())?;
        self.shown(letter, record)
    }

    fn shown(&mut self, letter: &View<'_>, record: Option<Record>) -> Result<LetterState, Error> {
        let Some(record) = record else {
            return Ok(new());
        };
        if record.state != State::Redriving || !self.is_passed(letter, &record)? {
            return Ok(of_record(record));
        }
        // The settlement that went past it may have come between the two looks: it would have closed it.
        let id = letter.id.unwrap_or_default();
        match self.console.state_record(id, letter.round())? {
            Some(still) if still.state == State::Redriving => Ok(LetterState {
                lost: still.redrive_offset == record.redrive_offset,
                ..of_record(still)
            }),
            Some(closed) => Ok(of_record(closed)),
            None => Ok(new()),
        }
    }

    /// Whether its consumer group has gone past it on the redrive topic.
    fn is_passed(&mut self, letter: &View<'_>, record: &Record) -> Result<bool, Error> {
        let (Some(topic), Some(group), Some(partition), Some(offset)) = (
            letter.origin_topic,
            letter.group,
            number::<u32>(letter.origin_partition),
            record.redrive_offset,
        ) else {
            return Ok(false);
        };
        let key = (returned::redrive_topic(topic, group), partition);
        let passed = match self.passed.get(&key) {
            Some(passed) => *passed,
            None => {
                let passed = self.console.passed(&key.0, group, partition)?;
                self.passed.insert(key, passed);
                passed
            }
        };
        Ok(passed.is_some_and(|passed| passed > offset))
    }

    /// Every round that is known of the letter, the first one first.
    pub(super) fn history(&mut self, letter: &View<'_>) -> Result<Vec<Round>, Error> {
        let id = letter.id.unwrap_or_default();
        let mut rounds = self.console.rounds(id)?;
        let own = letter.round();
        let state = self.state(letter)?;
        rounds.retain(|round| round.redrive_count != own);
        rounds.push(Round {
            redrive_count: own,
            state,
        });
        rounds.sort_by_key(|round| round.redrive_count);
        Ok(rounds)
    }
}

impl Console {
    pub(super) fn state_record(&self, id: &str, round: u32) -> Result<Option<Record>, Error> {
        let found = self.log.meta_get(&letter_state::key(id, round))?;
        found.map(|value| read(&value)).transpose()
    }

    /// The rounds of a dead letter that have a record.
    pub(super) fn rounds(&self, id: &str) -> Result<Vec<Round>, Error> {
        let prefix = letter_state::rounds_prefix(id);
        let found = self.log.meta_scan(&prefix, b"", ROUNDS_SHOWN_MAX)?;
        let mut rounds = Vec::new();
        for (key, value) in found {
            if let Some((_, redrive_count)) = letter_state::read_key(&key) {
                rounds.push(Round {
                    redrive_count,
                    state: of_record(read(&value)?),
                });
            }
        }
        Ok(rounds)
    }

    /// The first offset of a partition that a group has not settled; `None` when it has settled none.
    pub(super) fn passed(
        &self,
        topic: &str,
        group: &str,
        partition: u32,
    ) -> Result<Option<u64>, Error> {
        let (Some(topic), Some(group)) = (self.log.topic(topic), self.log.find_group(group)) else {
            return Ok(None);
        };
        let Some(id) = topic.partition(partition) else {
            return Ok(None);
        };
        let Some(bytes) = self.log.progress(group, id)? else {
            return Ok(None);
        };
        let progress = Progress::decode(&bytes).map_err(|why| {
            Error::new(
                Code::StoreUnavailable,
                format!("the progress on {} cannot be read: {why}", topic.name),
                "it was written by a newer wasmill, or the store is damaged",
            )
        })?;
        Ok(Some(progress.committed))
    }

    pub(super) fn is_block_closed(
        &self,
        partition: PartitionId,
        block: u64,
    ) -> Result<bool, Error> {
        Ok(self.log.meta_get(&block_key(partition, block))?.is_some())
    }

    /// Remembers blocks in which somebody saw only closed letters since `opened` was read. Not being able
    /// to is no failure: they are looked at again.
    pub(super) fn mark_closed(&self, blocks: &[(PartitionId, u64)], opened: u64) {
        if blocks.is_empty() {
            return;
        }
        // Somebody who changes states walks as well.
        let Some(mut change) = self.letters.changing.try_begin() else {
            return;
        };
        if self.letters.opened() != opened {
            return;
        }
        let mut writes: Vec<Write> = Vec::new();
        for (partition, block) in blocks {
            writes.push(Write::Meta {
                key: block_key(*partition, *block),
                value: Some(vec![1]),
            });
        }
        let mut partitions: Vec<PartitionId> = blocks.iter().map(|(id, _)| *id).collect();
        partitions.dedup();
        for partition in partitions {
            writes.extend(self.stale_blocks(partition));
        }
        let commit = Commit {
            writes,
            ..Commit::default()
        };
        if let Err(error) = change.commit(&self.log, commit) {
            tracing::debug!(%error, "closed blocks of dead letters were not marked");
        }
    }

    /// Entries of blocks that retention removed.
    fn stale_blocks(&self, partition: PartitionId) -> Vec<Write> {
        let Ok(earliest) = self.log.earliest(partition) else {
            return Vec::new();
        };
        let prefix = block_prefix(partition);
        let found = self.log.meta_scan(&prefix, b"", STALE_BLOCKS);
        let kept = block_key(partition, earliest / BLOCK);
        found
            .unwrap_or_default()
            .into_iter()
            .filter(|(key, _)| **key < *kept)
            .map(|(key, _)| Write::Meta {
                key: key.to_vec(),
                value: None,
            })
            .collect()
    }
}

/// The write that takes away that the block of an offset is closed.
pub(super) fn open_block(partition: PartitionId, offset: u64) -> Write {
    Write::Meta {
        key: block_key(partition, offset / BLOCK),
        value: None,
    }
}

/// The write of a state.
pub(super) fn write(id: &str, round: u32, record: &Record) -> Write {
    Write::Meta {
        key: letter_state::key(id, round),
        value: Some(record.encode()),
    }
}

const fn new() -> LetterState {
    LetterState {
        state: State::New,
        at_ms: None,
        by: None,
        note: None,
        job: None,
        lost: false,
    }
}

fn of_record(record: Record) -> LetterState {
    LetterState {
        state: record.state,
        at_ms: Some(record.at_ms),
        by: Some(record.by),
        note: record.note,
        job: record.job,
        lost: false,
    }
}

fn read(value: &[u8]) -> Result<Record, Error> {
    Record::decode(value).map_err(|why| Error::new(Code::StoreUnavailable, why.to_string(), ""))
}

fn block_prefix(partition: PartitionId) -> Vec<u8> {
    format!("dlq-closed/{:08x}/", partition.0).into_bytes()
}

fn block_key(partition: PartitionId, block: u64) -> Vec<u8> {
    format!("dlq-closed/{:08x}/{block:014x}", partition.0).into_bytes()
}
