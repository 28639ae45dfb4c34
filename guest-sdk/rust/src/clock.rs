//! Wall clock. Needs `allow: { clock: true }`. A handler that decides by the clock gives another
//! answer when it runs again; prefer the message's own timestamp.

use crate::host;

/// Unix milliseconds.
#[must_use]
pub fn now() -> u64 {
    host::clock_now()
}
