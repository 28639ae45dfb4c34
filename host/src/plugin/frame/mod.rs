//! The frame of wit/FRAME.md, both halves: the batch that a guest reads and the outcomes that it
//! answers. Bytes only; how they cross into a guest is in `instance.rs`.

#[cfg(test)]
pub(crate) mod answers;
mod batch;
mod outcomes;
#[cfg(test)]
mod vectors;

pub use batch::{Batch, Call, FRAME_VERSION, RESERVE_ABOVE_BYTES};
pub use outcomes::{Field, Outcome, Outcomes, OutputIter, OutputRef};

pub(super) use batch::{read_batch, reserve};
pub(super) use outcomes::{OutcomeLimits, OutcomeWriter, check_reserved};
