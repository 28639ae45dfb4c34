//! The `state` table as one call sees it: reads go to the store below, writes stay here until the
//! pipeline takes them into the settlement (§2.2), so a failed call leaves nothing behind.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::fault::{Fault, FaultKind};

/// Longest key in bytes.
pub const STATE_KEY_MAX: usize = 1024;
/// Longest value in bytes.
pub const STATE_VALUE_MAX: usize = 256 * 1024;
/// Most entries one scan returns.
pub const STATE_SCAN_MAX: u32 = 1000;
/// Most bytes of keys and values that one scan returns.
pub const STATE_SCAN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most keys one call may write.
pub const STATE_WRITES_MAX: usize = 10_000;
/// Most bytes of keys and values one call may write.
pub const STATE_WRITE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The pipeline's table as it stands before the call, writes that are not durable yet included. The
/// error is a text for a person; it fails the call as [`FaultKind::State`].
pub trait StateView: Send {
    fn get(&self, partition: u32, key: &str) -> Result<Option<Vec<u8>>, String>;

    /// Entries whose key starts with `prefix`, in key order: at most `limit`, and stopping after the
    /// entry with which keys and values together exceed `bytes_max`.
    fn scan(
        &self,
        partition: u32,
        prefix: &str,
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, String>;

    /// Bytes of keys and values that may still be added under `allow.state.max_size`.
    fn room(&self) -> u64;
}

/// One write of a call; the last one of a key wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateWrite {
    pub key: String,
    /// `None` deletes.
    pub value: Option<Vec<u8>>,
}

/// What `state.set` tells the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    TooLarge,
}

/// Reads and writes of one call.
#[derive(Default)]
pub(super) struct StateSession {
    view: Option<Box<dyn StateView>>,
    partition: u32,
    writes: BTreeMap<String, Option<Vec<u8>>>,
    /// Keys and values in `writes`.
    write_bytes: usize,
}

impl StateSession {
    pub(super) fn new(view: Option<Box<dyn StateView>>) -> Self {
        Self {
            view,
            ..Self::default()
        }
    }

    pub(super) fn begin_call(&mut self, partition: u32) {
        self.discard();
        self.partition = partition;
    }

    pub(super) fn discard(&mut self) {
        self.writes.clear();
        self.write_bytes = 0;
    }

    /// In key order.
    pub(super) fn take_writes(&mut self) -> Vec<StateWrite> {
        self.write_bytes = 0;
        std::mem::take(&mut self.writes)
            .into_iter()
            .map(|(key, value)| StateWrite { key, value })
            .collect()
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Fault> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.view()?.get(self.partition, key).map_err(store_failed),
        }
    }

    pub(super) fn set(&mut self, key: &str, value: Vec<u8>) -> Result<Result<(), Refused>, Fault> {
        if key.len() > STATE_KEY_MAX || value.len() > STATE_VALUE_MAX {
            return Ok(Err(Refused::TooLarge));
        }
        if self.growth_with(key, value.len())? > self.view()?.room() {
            return Ok(Err(Refused::Full));
        }
        self.write(key, Some(value)).map(Ok)
    }

    pub(super) fn delete(&mut self, key: &str) -> Result<(), Fault> {
        self.view()?;
        self.write(key, None)
    }

    pub(super) fn scan(&self, prefix: &str, limit: u32) -> Result<Vec<(String, Vec<u8>)>, Fault> {
        let limit = limit.min(STATE_SCAN_MAX) as usize;
        let own = || {
            self.writes
                .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
                .take_while(|(key, _)| key.starts_with(prefix))
        };
        // A write may hide a stored entry each, so that many more must be read.
        let hidden = own().count();
        let stored = self
            .view()?
            .scan(self.partition, prefix, limit + hidden, STATE_SCAN_BYTES_MAX)
            .map_err(store_failed)?;
        let stored_bytes: usize = stored.iter().map(|(k, v)| k.len() + v.len()).sum();
        if stored_bytes > STATE_SCAN_BYTES_MAX {
            return Err(scan_too_big(prefix));
        }
        let mut merged: BTreeMap<String, Vec<u8>> = stored.into_iter().collect();
        for (key, value) in own() {
            match value {
                Some(value) => drop(merged.insert(key.clone(), value.clone())),
                None => drop(merged.remove(key)),
            }
        }
        let entries: Vec<_> = merged.into_iter().take(limit).collect();
        let bytes: usize = entries.iter().map(|(k, v)| k.len() + v.len()).sum();
        if bytes > STATE_SCAN_BYTES_MAX {
            return Err(scan_too_big(prefix));
        }
        Ok(entries)
    }

    fn view(&self) -> Result<&dyn StateView, Fault> {
        self.view
            .as_deref()
            .ok_or_else(|| Fault::new(FaultKind::State, "no state is attached to this instance"))
    }

    fn write(&mut self, key: &str, value: Option<Vec<u8>>) -> Result<(), Fault> {
        let size = |value: &Option<Vec<u8>>| key.len() + value.as_ref().map_or(0, Vec::len);
        let before = self.writes.get(key).map(size);
        let bytes = self.write_bytes - before.unwrap_or(0) + size(&value);
        if bytes > STATE_WRITE_BYTES_MAX
            || (before.is_none() && self.writes.len() >= STATE_WRITES_MAX)
        {
            return Err(Fault::new(
                FaultKind::StateLimit,
                format!(
                    "more than {STATE_WRITES_MAX} keys or {STATE_WRITE_BYTES_MAX} bytes of state written in one call; use smaller batches"
                ),
            ));
        }
        self.write_bytes = bytes;
        self.writes.insert(key.to_owned(), value);
        Ok(())
    }

    /// By how many bytes this call's writes, with one more, grow the table: an upper bound where that
    /// is below the room, exact where it is not.
    fn growth_with(&self, key: &str, value_len: usize) -> Result<u64, Fault> {
        let view = self.view()?;
        let upper = (self.write_bytes + key.len() + value_len) as u64;
        if upper <= view.room() {
            return Ok(upper);
        }
        let mut added = (key.len() + value_len) as u64;
        let mut removed = 0u64;
        let other = self.writes.iter().filter(|(k, _)| k.as_str() != key);
        for (other, value) in other {
            added += value.as_ref().map_or(0, |v| other.len() + v.len()) as u64;
            removed += self.stored_size(view, other)?;
        }
        removed += self.stored_size(view, key)?;
        Ok(added.saturating_sub(removed))
    }

    fn stored_size(&self, view: &dyn StateView, key: &str) -> Result<u64, Fault> {
        let stored = view.get(self.partition, key).map_err(store_failed)?;
        Ok(stored.map_or(0, |value| key.len() + value.len()) as u64)
    }
}

fn store_failed(error: String) -> Fault {
    Fault::new(FaultKind::State, format!("the state store failed: {error}"))
}

fn scan_too_big(prefix: &str) -> Fault {
    let prefix = super::logs::escape(prefix, 64);
    Fault::new(
        FaultKind::StateLimit,
        format!(
            "a scan of `{prefix}` holds more than {STATE_SCAN_BYTES_MAX} bytes; ask for fewer entries"
        ),
    )
}
