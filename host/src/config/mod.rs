//! YAML to validated types.
pub mod valid;
