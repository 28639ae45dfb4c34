//! Random bytes from the host's generator. Needs `allow: { random: true }`. A handler that draws
//! gives another answer when it runs again.

use crate::host;

/// What the host gives in one call, in bytes.
const CALL_MAX: usize = 64 * 1024;

/// `count` random bytes.
#[must_use]
pub fn bytes(count: usize) -> Vec<u8> {
    let mut drawn = Vec::with_capacity(count);
    while drawn.len() < count {
        let part = host::random_bytes((count - drawn.len()).min(CALL_MAX) as u32);
        assert!(!part.is_empty(), "the host gave no random bytes");
        drawn.extend_from_slice(&part);
    }
    drawn
}
