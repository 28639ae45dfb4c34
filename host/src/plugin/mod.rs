//! The plugin runtime: everything that knows wasmtime. A plugin is loaded once per pipeline, gives an
//! instance to each worker, and an instance turns a batch into outcomes or a fault. What an outcome or
//! a fault leads to is not decided here.

mod blame;
mod cache;
mod componentize;
mod contract;
mod engine;
mod error;
mod fault;
pub mod frame;
mod guest;
mod imports;
mod instance;
mod load;
mod logs;
mod records;
mod state;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod wasi;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use cache::CACHED_PLUGINS_MAX;
pub use componentize::componentize;
pub use contract::{Import, Need, WIT, WIT_VERSION, World};
pub use engine::{Engine, GUEST_STACK_MAX, Options, TABLE_ELEMENTS_MAX};
pub use error::Error;
pub use fault::{FAULT_MESSAGE_MAX, Fault, FaultKind};
pub use imports::RANDOM_BYTES_MAX;
pub use instance::{HANDLES_MAX, Instance, RESULT_BYTES_MAX};
pub use load::{Inspection, PLUGIN_BYTES_MAX, Plugin, inspect};
pub use logs::{LOG_LINES_HELD_MAX, LOG_TEXT_MAX, LogLevel, LogLine};
pub use state::{
    STATE_KEY_MAX, STATE_SCAN_BYTES_MAX, STATE_SCAN_MAX, STATE_VALUE_MAX, STATE_WRITE_BYTES_MAX,
    STATE_WRITES_MAX, StateView, StateWrite,
};

/// What these locks guard is whole between statements, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
