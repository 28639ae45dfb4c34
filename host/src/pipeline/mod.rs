//! From delivery to settlement.
pub mod dead_letter;
pub mod lane;
pub mod offsets;
pub mod snapshot;
pub mod verdict;
