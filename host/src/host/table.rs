//! The idempotency table beside the source: the embedded log's.

use crate::connector::embedded::{GroupId, Log};
use crate::idempotency::completion::Completion;
use crate::idempotency::{KeyHash, Table, TableError};

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
