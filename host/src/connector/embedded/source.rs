//! The embedded log as a worker sees it: chunks read from its partitions, settlements as atomic commits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{
    Append, Chunk, ChunkBuilder, Commit, Error, GroupId, Log, PartitionId, Subscription, Topic,
    Write,
};
use crate::connector::{Connector, Messages, Next, NoTarget, ReadError, SettleError, Ticket};
use crate::message::MessageRef;
use crate::pipeline::letter_state;
use crate::pipeline::settlement::{Settlement, Target};

/// A chunk is closed at this size and another begun; far below what the log accepts.
const CHUNK_BYTES: usize = 64 << 20;
/// Topics of replies that one worker keeps ready.
pub const REPLY_TOPICS_MAX: usize = 256;

/// Under which names a pipeline's tables are kept.
#[derive(Debug, Clone, Copy)]
pub struct Groups {
    /// Progress and completions.
    pub progress: GroupId,
    /// The handler's state.
    pub state: GroupId,
}

/// Made on the worker's own thread, which it wakes.
pub struct Source {
    log: Log,
    groups: Groups,
    partitions: Vec<PartitionId>,
    targets: Vec<TargetTopic>,
    /// Those of the plan, in front.
    planned: usize,
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
    fn new(topic: &Arc<Topic>) -> Self {
        let builders = topic.partitions.iter().map(|_| ChunkBuilder::new());
        Self {
            topic: Arc::clone(topic),
            builders: builders.collect(),
        }
    }
}

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
        let targets: Vec<TargetTopic> = targets.iter().map(TargetTopic::new).collect();
        Self {
            log: log.clone(),
            groups,
            partitions,
            planned: targets.len(),
            targets,
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
        for write in settlement.letters.drain(..) {
            commit.writes.push(Write::Meta {
                key: letter_state::key(&write.id, write.redrive_count),
                value: Some(write.record.encode()),
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

    fn reply_target(&mut self, topic: &str) -> Result<Target, NoTarget> {
        let is_it = |target: &TargetTopic| target.topic.name == topic;
        let place = match self.targets.iter().position(is_it) {
            Some(place) => place,
            None => {
                let topic = self.log.topic(topic).ok_or(NoTarget::Unknown)?;
                if self.targets.len() - self.planned >= REPLY_TOPICS_MAX && !topic.spec.internal {
                    return Err(NoTarget::TooMany);
                }
                if !topic.spec.internal {
                    self.targets.push(TargetTopic::new(&topic));
                    return Ok((self.targets.len() - 1) as Target);
                }
                return Err(NoTarget::Internal);
            }
        };
        match self.targets.get(place) {
            Some(target) if !target.topic.spec.internal => Ok(place as Target),
            _ => Err(NoTarget::Internal),
        }
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

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::connector::embedded::{Options, TopicSpec};

    fn topic(log: &Log, name: &str, internal: bool) -> Arc<Topic> {
        let spec = TopicSpec {
            internal,
            ..TopicSpec::new(name, NonZeroU32::MIN)
        };
        log.create_topic(&spec).unwrap()
    }

    /// §8.1
    #[test]
    fn reply_topics_max_bounds_the_targets_found_at_run_time() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let group = log.group("g").unwrap();
        let groups = Groups {
            progress: group,
            state: group,
        };
        let planned = [topic(&log, "out", false), topic(&log, "out.retry", true)];
        topic(&log, "hidden", true);
        let mut source = Source::new(&log, groups, Vec::new(), &planned);
        assert_eq!(source.reply_target("out"), Ok(0), "one of the plan's");
        assert_eq!(source.reply_target("nowhere"), Err(NoTarget::Unknown));
        assert!(log.topic("nowhere").is_none(), "none is created");
        for internal in ["out.retry", "hidden"] {
            assert_eq!(source.reply_target(internal), Err(NoTarget::Internal));
        }
        for n in 0..REPLY_TOPICS_MAX {
            let name = format!("replies.{n}");
            topic(&log, &name, false);
            let expected = Ok((planned.len() + n) as Target);
            assert_eq!(source.reply_target(&name), expected);
            assert_eq!(source.reply_target(&name), expected, "found again");
        }
        topic(&log, "one.more", false);
        assert_eq!(source.reply_target("one.more"), Err(NoTarget::TooMany));
        assert_eq!(source.reply_target("replies.0"), Ok(2));
        let mut settlement = Settlement::default();
        let message = MessageRef {
            payload: Some(b"answer"),
            ..MessageRef::default()
        };
        settlement.publish(2, &message);
        source.settle(&mut settlement).unwrap();
        while source.settled().unwrap() < 1 {
            source.wait(Duration::from_millis(10));
        }
        let partition = log.topic("replies.0").unwrap().partitions[0];
        assert_eq!(log.end(partition), Ok(1));
    }
}
