//! State writes that are settled but not readable from the store yet: what the next call must see.
//! Pure; shared by a worker and the view its handler reads through.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::connector::Ticket;

type Key = (u32, String);
type Entry = (Ticket, Option<Vec<u8>>);

/// Bytes (key and value) that the store has under a key of a partition.
pub type StoredBytes = Box<dyn Fn(u32, &str) -> u64 + Send + Sync>;

/// Bounded by the settlements in flight.
pub struct Overlay {
    entries: Mutex<BTreeMap<Key, Entry>>,
    /// Bytes of keys and values of the pipeline's state, over all its workers.
    used: Arc<AtomicU64>,
    stored_bytes: StoredBytes,
}

impl Overlay {
    #[must_use]
    pub fn new(used: Arc<AtomicU64>, stored_bytes: StoredBytes) -> Self {
        Self {
            entries: Mutex::default(),
            used,
            stored_bytes,
        }
    }

    /// `value` of `None` is a deletion; it becomes readable from the store with `ticket`.
    pub fn put(&self, partition: u32, key: &str, value: Option<Vec<u8>>, ticket: Ticket) {
        let size =
            |value: &Option<Vec<u8>>| value.as_ref().map_or(0, |v| (key.len() + v.len()) as u64);
        let now = size(&value);
        let before = self
            .entries()
            .insert((partition, key.to_owned()), (ticket, value));
        let before = match before {
            Some((_, value)) => size(&value),
            None => (self.stored_bytes)(partition, key),
        };
        self.used.fetch_add(now, Ordering::Relaxed);
        let take = |used: u64| Some(used.saturating_sub(before));
        // Always `Ok`: `take` never declines.
        let _updated = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
    }

    /// `None`: ask the store.
    #[must_use]
    pub fn get(&self, partition: u32, key: &str) -> Option<Option<Vec<u8>>> {
        self.entries()
            .get(&(partition, key.to_owned()))
            .map(|(_, value)| value.clone())
    }

    /// Lays the writes over what the store has under `prefix` (key order kept), at most `limit`.
    #[must_use]
    pub fn scan(
        &self,
        partition: u32,
        prefix: &str,
        stored: Vec<(String, Vec<u8>)>,
        limit: usize,
    ) -> Vec<(String, Vec<u8>)> {
        let entries = self.entries();
        let mut merged: BTreeMap<String, Vec<u8>> = stored.into_iter().collect();
        for ((_, key), (_, value)) in entries
            .range((partition, prefix.to_owned())..)
            .take_while(|((p, k), _)| *p == partition && k.starts_with(prefix))
        {
            match value {
                Some(value) => merged.insert(key.clone(), value.clone()),
                None => merged.remove(key),
            };
        }
        merged.into_iter().take(limit).collect()
    }

    /// How many deletions lie over `prefix`: so many more the store must be asked for.
    #[must_use]
    pub fn deletions(&self, partition: u32, prefix: &str) -> usize {
        let entries = self.entries();
        entries
            .range((partition, prefix.to_owned())..)
            .take_while(|((p, k), _)| *p == partition && k.starts_with(prefix))
            .filter(|(_, (_, value))| value.is_none())
            .count()
    }

    /// The store has everything up to `settled`.
    pub fn prune(&self, settled: Ticket) {
        self.entries().retain(|_, (ticket, _)| *ticket > settled);
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsettled_writes_are_read_back_until_the_store_has_them() {
        let overlay = Overlay::new(Arc::default(), Box::new(|_, _| 0));
        overlay.put(0, "a", Some(b"1".to_vec()), 1);
        overlay.put(0, "b", None, 2);
        assert_eq!(overlay.get(0, "a"), Some(Some(b"1".to_vec())));
        assert_eq!(overlay.get(0, "b"), Some(None));
        assert_eq!(overlay.get(1, "a"), None);
        overlay.prune(1);
        assert_eq!(overlay.get(0, "a"), None);
        assert_eq!(overlay.get(0, "b"), Some(None));
    }

    #[test]
    fn a_scan_lays_writes_and_deletions_over_the_store() {
        let overlay = Overlay::new(Arc::default(), Box::new(|_, _| 0));
        overlay.put(0, "k1", None, 1);
        overlay.put(0, "k3", Some(b"3".to_vec()), 1);
        overlay.put(0, "x", Some(b"x".to_vec()), 1);
        let stored = vec![
            ("k1".to_owned(), b"1".to_vec()),
            ("k2".to_owned(), b"2".to_vec()),
        ];
        assert_eq!(overlay.deletions(0, "k"), 1);
        let seen = overlay.scan(0, "k", stored, 10);
        assert_eq!(
            seen,
            [
                ("k2".to_owned(), b"2".to_vec()),
                ("k3".to_owned(), b"3".to_vec())
            ]
        );
    }

    #[test]
    fn the_bytes_in_use_follow_writes_over_other_writes_and_over_the_store() {
        let used = Arc::new(AtomicU64::new(10));
        let overlay = Overlay::new(
            Arc::clone(&used),
            Box::new(|_, key| if key == "old" { 10 } else { 0 }),
        );
        overlay.put(0, "old", Some(vec![0; 2]), 1);
        assert_eq!(used.load(Ordering::Relaxed), 5);
        overlay.put(0, "old", None, 2);
        assert_eq!(used.load(Ordering::Relaxed), 0);
        overlay.put(0, "new", Some(vec![0; 7]), 3);
        assert_eq!(used.load(Ordering::Relaxed), 10);
    }
}
