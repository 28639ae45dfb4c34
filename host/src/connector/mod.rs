//! Poll, settle, commit: one folder per kind of broker. Connectors never import each other.
pub mod embedded;
