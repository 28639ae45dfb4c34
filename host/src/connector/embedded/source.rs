//! The embedded log as a worker sees it: chunks read from its partitions, settlements as atomic commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{
    Append, Chunk, ChunkBuilder, Commit, Error, GroupId, Log, PartitionId, Subscription, Topic,
    Write,
};
use crate::connector::{Connector, Messages, Next, ReadError, SettleError, Ticket};
use crate::message::MessageRef;
use crate::pipeline::letter_state;
use crate::pipeline::sequence;
use crate::pipeline::settlement::{Settlement, Target};

/// A chunk is closed at this size and another begun; far below what the log accepts.
const CHUNK_BYTES: usize = 64 << 20;

/// Under which names a pipeline's tables are kept.
#[derive(Debug, Clone, Copy)]
pub struct Groups {
    /// Progress and completions.
    pub progress: GroupId,
    /// The handler's state.
    pub state: GroupId,
    /// Sequence numbers.
    pub numbers: GroupId,
}

/// Made on the worker's own thread, which it wakes.
pub struct Source {
    log: Log,
    groups: Groups,
    partitions: Vec<PartitionId>,
    targets: Vec<TargetTopic>,
    /// Topics that were answered to, behind those of the plan.
    replies: FxHashMap<String, Target>,
    tickets: Ticket,
    shared: Arc<Shared>,
    _subscription: Subscription,
}

struct TargetTopic {
    topic: Arc<Topic>,
    /// One for each partition, reused.
    builders: Vec<ChunkBuilder>,
}

impl TargetTopic {
    fn of(topic: &Arc<Topic>) -> Self {
        let partitions = topic.partitions.iter();
        Self {
            topic: Arc::clone(topic),
            builders: partitions.map(|_| ChunkBuilder::new()).collect(),
        }
    }
}

/// Topics that one worker answers to.
pub const REPLY_TOPICS_MAX: usize = 1_024;

#[derive(Debug, Default)]
struct Shared {
    settled: AtomicU64,
    failed: Mutex<Option<String>>,
}

impl Source {
    /// `targets` in the order of the plan's target indices.
    #[must_use]
    pub fn new(
        log: &Log,
        groups: Groups,
        partitions: Vec<PartitionId>,
        targets: &[Arc<Topic>],
    ) -> Self {
        let subscription = log.subscribe(&partitions, std::thread::current());
        let targets = targets.iter().map(TargetTopic::of).collect();
        Self {
            log: log.clone(),
            groups,
            partitions,
            targets,
            replies: FxHashMap::default(),
            tickets: 0,
            shared: Arc::default(),
            _subscription: subscription,
        }
    }

    fn partition(&self, index: usize) -> Result<PartitionId, SettleError> {
        self.partitions
            .get(index)
            .copied()
            .ok_or_else(|| SettleError(format!("partition {index} is not this worker's")))
    }

    fn commit(&mut self, settlement: &mut Settlement) -> Result<Commit, SettleError> {
        let mut commit = Commit::default();
        for publish in settlement.publishes() {
            let record = settlement.record(publish);
            let (message, _) =
                MessageRef::read_record(record).map_err(|error| SettleError(error.to_string()))?;
            let Some(target) = self.targets.get_mut(usize::from(publish.target)) else {
                continue;
            };
            let partition = match publish.partition {
                Some(partition) => partition,
                None => target.topic.partition_for(message.key),
            };
            if let Some(builder) = target.builders.get_mut(partition as usize) {
                builder.push_record(record);
                if builder.bytes() >= CHUNK_BYTES
                    && let Some(partition) = target.topic.partition(partition)
                {
                    commit.appends.push(Append {
                        partition,
                        chunk: builder.finish(),
                    });
                }
            }
        }
        for target in &mut self.targets {
            for (partition, builder) in target.topic.partitions.iter().zip(&mut target.builders) {
                if !builder.is_empty() {
                    commit.appends.push(Append {
                        partition: *partition,
                        chunk: builder.finish(),
                    });
                }
            }
        }
        for write in settlement.progress.drain(..) {
            let partition = self.partition(write.partition as usize)?;
            commit.writes.push(Write::Progress {
                group: self.groups.progress,
                partition,
                value: write.value,
            });
        }
        for write in settlement.completions.drain(..) {
            commit.writes.push(Write::Completion {
                group: self.groups.progress,
                hash: write.hash,
                expires_at_ms: write.expires_at_ms,
                value: write.value,
            });
        }
        for write in settlement.state.drain(..) {
            let partition = self.partition(write.partition as usize)?;
            commit.writes.push(Write::State {
                group: self.groups.state,
                partition,
                key: write.key.into_bytes(),
                value: write.value,
            });
        }
        for write in settlement.numbers.drain(..) {
            let partition = self.partition(write.key.partition as usize)?;
            commit.writes.push(Write::State {
                group: self.groups.numbers,
                partition,
                key: write.key.hash.to_be_bytes().to_vec(),
                value: Some(sequence::encode(write.last)),
            });
        }
        for write in settlement.letters.drain(..) {
            commit.writes.push(Write::Meta {
                key: letter_state::key(&write.id, write.redrive_count),
                value: write.record.map(|record| record.encode()),
            });
        }
        settlement.clear();
        Ok(commit)
    }
}

impl Connector for Source {
    type Messages = Chunk;

    fn read(&mut self, partition: usize, from: u64) -> Result<Option<Chunk>, ReadError> {
        let id = self
            .partition(partition)
            .map_err(|error| ReadError::Fatal(error.0))?;
        self.log.read(id, from).map_err(|error| match error {
            Error::OffsetOutOfRange { earliest, .. } if from < earliest => ReadError::Lost {
                asked: from,
                earliest,
            },
            error @ (Error::Failing { .. } | Error::Io(_)) => {
                ReadError::Transient(error.to_string())
            }
            error => ReadError::Fatal(error.to_string()),
        })
    }

    fn end(&self, partition: usize) -> u64 {
        self.partitions
            .get(partition)
            .and_then(|id| self.log.end(*id).ok())
            .unwrap_or(0)
    }

    fn reply_target(&mut self, topic: &str) -> Option<Target> {
        if let Some(known) = self.replies.get(topic) {
            return Some(*known);
        }
        let found = self.log.topic(topic).filter(|topic| !topic.spec.internal)?;
        if self.replies.len() >= REPLY_TOPICS_MAX {
            return None;
        }
        let target = Target::try_from(self.targets.len()).ok()?;
        self.targets.push(TargetTopic::of(&found));
        self.replies.insert(topic.to_owned(), target);
        Some(target)
    }

    fn record_bytes_max(&self, target: usize) -> usize {
        self.targets
            .get(target)
            .map_or(0, |target| target.topic.spec.max_message_bytes as usize)
    }

    fn settle(&mut self, settlement: &mut Settlement) -> Result<Ticket, SettleError> {
        let commit = self.commit(settlement)?;
        let ticket = self.tickets + 1;
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::current();
        let ack = Box::new(move |result: Result<super::Committed, Error>| {
            match result {
                Ok(_) => shared.settled.store(ticket, Ordering::Release),
                Err(error) => {
                    *shared.failed.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(error.to_string());
                }
            }
            thread.unpark();
        });
        self.log
            .submit(commit, ack)
            .map_err(|error| SettleError(error.to_string()))?;
        self.tickets = ticket;
        Ok(ticket)
    }

    fn settled(&mut self) -> Result<Ticket, SettleError> {
        if let Some(error) = self
            .shared
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
        {
            return Err(SettleError(error.clone()));
        }
        Ok(self.shared.settled.load(Ordering::Acquire))
    }

    fn wait(&mut self, timeout: Duration) {
        std::thread::park_timeout(timeout);
    }
}

/// A place is the index of the record in the upper half and its position in the lower.
impl Messages for Chunk {
    fn seek(&self, offset: u64) -> Option<u64> {
        let (at, position, _) = self.iter_from(offset).next()?;
        Some(((at - self.base_offset()) << 32) | position as u64)
    }

    fn message(&self, place: u64) -> Option<Next<'_>> {
        let (index, position) = (place >> 32, place & 0xffff_ffff);
        let (message, next) = self.message_at(position as usize)?;
        Some(Next {
            offset: self.base_offset() + index,
            message,
            next: ((index + 1) << 32) | next as u64,
        })
    }

    fn bytes(&self) -> usize {
        Chunk::bytes(self).len()
    }
}
