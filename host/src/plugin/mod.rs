//! The plugin runtime: everything that knows wasmtime. A plugin is loaded once per pipeline, gives an
//! instance to each worker, and an instance turns a batch into outcomes or a fault. What an outcome or
//! a fault leads to is not decided here.

mod fault;
mod frame;
mod outcomes;
#[cfg(test)]
mod vectors;

pub use fault::{FAULT_MESSAGE_MAX, Fault, FaultKind};
pub use frame::{Batch, Call, FRAME_VERSION, RESERVE_ABOVE_BYTES};
pub use outcomes::{Field, Outcome, Outcomes, OutputIter, OutputRef};
