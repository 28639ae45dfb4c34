//! What a caller hands to the committer and gets back.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::chunk::EncodedChunk;
use super::error::Error;
use super::options::KEY_BYTES_MAX;
use super::topic::{GroupId, PartitionId};
use crate::config::valid::Durability;

/// Everything that becomes durable together.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub appends: Vec<Append>,
    /// Applied in order; the last of two writes of one key wins.
    pub writes: Vec<Write>,
    /// Instead of the log's own.
    pub durability: Option<Durability>,
}

/// One chunk at the end of one partition.
#[derive(Debug, Clone)]
pub struct Append {
    pub partition: PartitionId,
    pub chunk: EncodedChunk,
}

/// One entry of a table.
#[derive(Debug, Clone)]
pub enum Write {
    /// What a group has settled in a partition.
    Progress {
        group: GroupId,
        partition: PartitionId,
        value: Vec<u8>,
    },
    /// A completed idempotency key. Found until `expires_at_ms` (Unix ms on the log's clock).
    Completion {
        group: GroupId,
        hash: u128,
        expires_at_ms: i64,
        value: Vec<u8>,
    },
    /// A handler's state; `None` deletes.
    State {
        group: GroupId,
        partition: PartitionId,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
    /// Anything else; `None` deletes.
    Meta {
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    },
}

/// What became durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Per append, in order: the offset of the chunk's first record.
    pub base_offsets: Vec<u64>,
    /// Grows by one with every group of commits that became durable together.
    pub seq: u64,
}

/// A commit on its way, and its answer. Letting go of it does not take the commit back.
#[derive(Debug)]
pub struct Handed(Receiver<Result<Committed, Error>>);

impl Handed {
    pub(super) const fn new(answer: Receiver<Result<Committed, Error>>) -> Self {
        Self(answer)
    }

    pub(super) fn wait(&self) -> Result<Committed, Error> {
        self.0.recv().unwrap_or(Err(Error::Closed))
    }

    /// `None`: not yet, and it may still become durable. It is answered once; then, as of a log that is
    /// gone, `Closed`.
    #[must_use]
    pub fn answer_within(&self, patience: Duration) -> Option<Result<Committed, Error>> {
        match self.0.recv_timeout(patience) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Disconnected) => Some(Err(Error::Closed)),
            Err(RecvTimeoutError::Timeout) => None,
        }
    }
}

/// Runs once on the committer's thread; it must be tiny and not block.
pub type Ack = Box<dyn FnOnce(Result<Committed, Error>) + Send>;

impl Commit {
    /// Bytes it brings, for the bounds of the queue.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let appends: usize = self.appends.iter().map(|a| a.chunk.stored_len()).sum();
        let writes: usize = self.writes.iter().map(Write::bytes).sum();
        appends + writes
    }

    pub(super) fn check(&self, partitions: u32, groups: u32) -> Result<(), Error> {
        for append in &self.appends {
            if append.partition.0 >= partitions {
                return Err(Error::UnknownPartition(append.partition.0));
            }
            append.chunk.check_len()?;
        }
        self.writes.iter().try_for_each(|w| w.check(groups))
    }
}

impl Write {
    fn bytes(&self) -> usize {
        // With the allocations that hold it.
        const ENTRY: usize = 112;
        ENTRY
            + match self {
                Self::Progress { value, .. } | Self::Completion { value, .. } => value.len(),
                Self::State { key, value, .. } | Self::Meta { key, value } => {
                    key.len() + value.as_ref().map_or(0, Vec::len)
                }
            }
    }

    fn check(&self, groups: u32) -> Result<(), Error> {
        let group = match self {
            Self::Progress { group, .. }
            | Self::Completion { group, .. }
            | Self::State { group, .. } => Some(group.0),
            Self::Meta { .. } => None,
        };
        if let Some(group) = group
            && group >= groups
        {
            return Err(Error::GroupName(Arc::from(format!("#{group}"))));
        }
        match self {
            Self::State { key, .. } | Self::Meta { key, .. } if key.len() > KEY_BYTES_MAX => {
                Err(Error::Limit {
                    what: "a key",
                    limit: KEY_BYTES_MAX as u64,
                    advice: "use a shorter key or its hash",
                })
            }
            _ => Ok(()),
        }
    }
}
