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
