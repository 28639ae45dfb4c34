//! State writes that are settled but not readable from the store yet: what the next call must see.
//! Pure; shared by a worker and the view its handler reads through.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::connector::Ticket;

type Key = (u32, String);
type Entry = (Ticket, Option<Vec<u8>>);

/// Bounded by the settlements in flight.
#[derive(Debug, Default)]
pub struct Overlay(Mutex<BTreeMap<Key, Entry>>);

impl Overlay {
    /// `value` of `None` is a deletion; it becomes readable from the store with `ticket`.
    pub fn put(&self, partition: u32, key: &str, value: Option<Vec<u8>>, ticket: Ticket) {
        self.entries()
            .insert((partition, key.to_owned()), (ticket, value));
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsettled_writes_are_read_back_until_the_store_has_them() {
        let overlay = Overlay::default();
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
        let overlay = Overlay::default();
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
}
