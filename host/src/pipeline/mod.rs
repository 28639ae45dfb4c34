//! From delivery to settlement.
pub mod snapshot;
