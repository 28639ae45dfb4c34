//! The idempotency table and the sequence numbers beside the source: the embedded log's.

use crate::connector::embedded::{GroupId, Log, PartitionId};
use crate::idempotency::completion::Completion;
use crate::idempotency::{KeyHash, Table, TableError};
use crate::pipeline::sequence::{self, Numbers, SequenceKey};

pub(super) struct LogTable {
    pub(super) log: Log,
    pub(super) group: GroupId,
}

impl Table for LogTable {
    fn completion(&self, hash: KeyHash, now_ms: i64) -> Result<Option<Completion>, TableError> {
        let Some(value) = self
            .log
            .completion(self.group, hash, now_ms)
            .map_err(|error| TableError(error.to_string()))?
        else {
            return Ok(None);
        };
        Completion::decode(&value).map(Some).map_err(|error| {
            TableError(format!(
                "a record of the idempotency table is damaged: {error}"
            ))
        })
    }
}

pub(super) struct LogNumbers {
    pub(super) log: Log,
    pub(super) group: GroupId,
    /// In the order of the worker's list.
    pub(super) partitions: Vec<PartitionId>,
}

impl Numbers for LogNumbers {
    fn last(&self, key: SequenceKey) -> Result<Option<i64>, String> {
        let id = self.partitions.get(key.partition as usize);
        let id = id.ok_or_else(|| format!("partition {} is not this worker's", key.partition))?;
        let stored = self
            .log
            .state_get(self.group, *id, &key.hash.to_be_bytes())
            .map_err(|error| error.to_string())?;
        stored.map(|value| sequence::decode(&value)).transpose()
    }
}
