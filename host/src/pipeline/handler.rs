//! What the worker needs of a handler; a plugin's instance is one, a test may bring another.

use crate::plugin::frame::{Batch, Outcomes};
use crate::plugin::{Fault, Instance, LogLine, StateWrite};

pub trait Handler {
    /// One call. `state_partition` is the partition whose namespace `state` reads and writes.
    fn call(&mut self, batch: &Batch, state_partition: u32) -> Result<Outcomes, Fault>;
    /// Forgets the state writes of the last call.
    fn discard(&mut self);
    /// The next call gets a fresh instance.
    fn reset(&mut self);
    fn take_logs(&mut self) -> Vec<LogLine>;
    fn take_state_writes(&mut self) -> Vec<StateWrite>;
    fn memory_bytes(&self) -> u64;
}

impl Handler for Instance {
    fn call(&mut self, batch: &Batch, state_partition: u32) -> Result<Outcomes, Fault> {
        Instance::call(self, batch, state_partition)
    }

    fn discard(&mut self) {
        Instance::discard(self);
    }

    fn reset(&mut self) {
        Instance::reset(self);
    }

    fn take_logs(&mut self) -> Vec<LogLine> {
        Instance::take_logs(self)
    }

    fn take_state_writes(&mut self) -> Vec<StateWrite> {
        Instance::take_state_writes(self)
    }

    fn memory_bytes(&self) -> u64 {
        Instance::memory_bytes(self)
    }
}
