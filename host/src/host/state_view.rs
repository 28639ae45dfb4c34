//! A handler's state as its instance reads it: what is settled but not yet in the store, then the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::connector::embedded::{GroupId, Log, PartitionId};
use crate::pipeline::overlay::Overlay;
use crate::plugin::StateView;

/// Bytes of keys and values of a pipeline's state, over all its workers, against `allow.state.max_size`.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) used: Arc<AtomicU64>,
    pub(super) max: u64,
}

/// `partition` in its methods is the index in the worker's list.
pub(super) struct LogState {
    pub(super) log: Log,
    pub(super) group: GroupId,
    pub(super) partitions: Vec<PartitionId>,
    pub(super) overlay: Arc<Overlay>,
    pub(super) usage: Arc<Usage>,
}

impl LogState {
    fn id(&self, partition: u32) -> Result<PartitionId, String> {
        self.partitions
            .get(partition as usize)
            .copied()
            .ok_or_else(|| format!("partition {partition} is not this worker's"))
    }
}

impl StateView for LogState {
    fn get(&self, partition: u32, key: &str) -> Result<Option<Vec<u8>>, String> {
        if let Some(value) = self.overlay.get(partition, key) {
            return Ok(value);
        }
        let id = self.id(partition)?;
        let stored = self
            .log
            .state_get(self.group, id, key.as_bytes())
            .map_err(|error| error.to_string())?;
        Ok(stored.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        partition: u32,
        prefix: &str,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, String> {
        let id = self.id(partition)?;
        let ask = limit.saturating_add(self.overlay.deletions(partition, prefix));
        let stored = self
            .log
            .state_scan(self.group, id, prefix.as_bytes(), ask, bytes_max)
            .map_err(|error| error.to_string())?
            .into_iter()
            .map(|(key, value)| (String::from_utf8_lossy(&key).into_owned(), value.to_vec()))
            .collect();
        Ok(self.overlay.scan(partition, prefix, stored, limit))
    }

    fn room(&self) -> u64 {
        self.usage
            .max
            .saturating_sub(self.usage.used.load(Ordering::Relaxed))
    }
}
