//! A table of the pipeline's own, one namespace for each source partition. Writes become durable
//! together with the message's settlement or not at all. Needs `allow: { state: {} }`.

use crate::{Failure, host};

/// Why a write was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// `allow.state.max_size` would be exceeded.
    Full,
    /// The key is over 1 KiB or the value over 256 KiB.
    TooLarge,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Full => "state is full: raise `allow.state.max_size` or delete entries",
            Self::TooLarge => "state entry is too large: at most 1 KiB of key and 256 KiB of value",
        })
    }
}

impl std::error::Error for Error {}

/// Full is retryable, because the limit may be raised; too large is rejected.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Full => Self::retryable(error.to_string()),
            Error::TooLarge => Self::rejected(error.to_string()),
        }
    }
}

/// The value under `key`, with the writes of the message being handled.
#[must_use]
pub fn get(key: &str) -> Option<Vec<u8>> {
    host::state_get(key)
}

/// Puts `value` under `key`.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
    host::state_set(key, value.as_ref())
}

/// Removes `key`; nothing happens when it is not there.
pub fn delete(key: &str) {
    host::state_delete(key);
}

/// Entries whose key starts with `prefix`, in key order, at most `limit` (and never more than 1,000).
#[must_use]
pub fn scan(prefix: &str, limit: u32) -> Vec<(String, Vec<u8>)> {
    host::state_scan(prefix, limit)
}
