//! The pipeline's `handler.config`: fixed for as long as this instance lives, always granted.

use crate::host;

/// The value under `key`. Asked of the host once; later calls are a look-up.
#[must_use]
pub fn get(key: &str) -> Option<String> {
    host::with_config(|config| {
        config
            .iter()
            .find(|(found, _)| found == key)
            .map(|(_, value)| value.clone())
    })
}

/// All keys and values.
#[must_use]
pub fn all() -> Vec<(String, String)> {
    host::with_config(<[_]>::to_vec)
}
