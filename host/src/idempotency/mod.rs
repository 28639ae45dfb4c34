//! Which messages were processed before (§7): the record and its encoding (`completion`), and the claims
//! of messages in progress (`claims`). Pure. Not here: where completions are kept (`connector`), and how
//! keys are read from messages (`expression`).

pub mod claims;
pub mod completion;

use completion::Completion;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The hash of an idempotency key in its canonical form.
pub type KeyHash = u128;

/// What a payload that is absent (a tombstone) counts as; an empty one has the hash of no bytes.
const TOMBSTONE: u64 = 0x746f_6d62_7374_6f6e;

/// Where completions are kept.
pub trait Table: Send {
    /// The completion of a key, when there is one that has not expired at `now_ms`.
    fn completion(&self, hash: KeyHash, now_ms: i64) -> Result<Option<Completion>, TableError>;
}

/// The table cannot be read now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TableError(pub String);

/// The hash of a key. `canonical` names the key's type too: `1` is not `"1"` (§7.1).
#[must_use]
pub fn hash(canonical: &[u8]) -> KeyHash {
    xxh3_128(canonical)
}

/// The hash of a key in an epoch of its group's table. That of epoch 0 is the plain one.
#[must_use]
pub fn hash_in(epoch: u64, canonical: &[u8]) -> KeyHash {
    if epoch == 0 {
        return hash(canonical);
    }
    hash(canonical) ^ xxh3_128(&epoch.to_le_bytes())
}

/// What has to agree between duplicates (§7.4), when that is the whole payload.
#[must_use]
pub fn fingerprint(payload: Option<&[u8]>) -> u64 {
    payload.map_or(TOMBSTONE, xxh3_64)
}

/// What has to agree between duplicates, when that is chosen fields: their canonical values in order.
#[must_use]
pub fn fingerprint_fields<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    fields.into_iter().fold(0, |sum, field| {
        // Each field is hashed by itself, so that bytes cannot move from one to the next unseen.
        let mut pair = [0; 16];
        let (before, this) = pair.split_at_mut(8);
        before.copy_from_slice(&u64::to_le_bytes(sum));
        this.copy_from_slice(&xxh3_64(field).to_le_bytes());
        xxh3_64(&pair)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_is_not_an_empty_payload() {
        assert_ne!(fingerprint(None), fingerprint(Some(b"")));
        assert_ne!(fingerprint(Some(b"a")), fingerprint(Some(b"b")));
        assert_eq!(fingerprint(Some(b"a")), fingerprint(Some(b"a")));
    }

    #[test]
    fn bytes_that_move_from_one_field_to_the_next_change_the_fingerprint() {
        let of = |fields: &[&'static str]| fingerprint_fields(fields.iter().map(|f| f.as_bytes()));
        let all = [
            of(&[]),
            of(&[""]),
            of(&["ab"]),
            of(&["a", "b"]),
            of(&["b", "a"]),
            of(&["", "ab"]),
        ];
        for (i, a) in all.iter().enumerate() {
            assert_eq!(all.iter().position(|b| b == a), Some(i));
        }
    }

    #[test]
    fn the_hash_of_a_key_is_stable_because_it_stands_in_the_table() {
        assert_eq!(hash(b"order-1"), xxhash_rust::xxh3::xxh3_128(b"order-1"));
        assert_eq!(hash(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
        assert_eq!(fingerprint(Some(b"")), 0x2d06_8005_38d3_94c2);
    }
}
