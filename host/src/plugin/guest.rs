//! What the host keeps beside one instance inside its store: the memory account, the session that the
//! imports work on, and WASI's empty world for the guests that need one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use wasmtime::ResourceLimiter;

use super::engine::{Budget, CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use super::logs::{LineRate, LogBuffer};
use super::state::StateSession;
use super::wasi::Wasi;

/// The data of a store.
pub(super) struct Guest {
    pub(super) memory: MemoryAccount,
    pub(super) session: Arc<Mutex<Session>>,
    pub(super) wasi: Wasi,
    /// When the running call is over its time; for host calls that wait.
    pub(super) deadline: Instant,
}

/// What outlives the store of an instance: lines and writes are taken after the call, also when it
/// ended in a fault.
pub(super) struct Session {
    pub(super) logs: LogBuffer,
    pub(super) rate: Arc<LineRate>,
    pub(super) state: StateSession,
    pub(super) config: Arc<BTreeMap<String, String>>,
    /// Messages in the running call.
    pub(super) messages: u32,
}

/// Counts an instance's linear memory against its own limit and the budget of all guests.
pub(super) struct MemoryAccount {
    budget: Arc<Budget>,
    max: u64,
    bytes: u64,
    /// Of the growth that is under way, to give back if it fails.
    pending: u64,
    /// The latest refusal since the call began.
    pub(super) refused: Option<Refusal>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `limits.memory`.
    Memory { asked: u64, max: u64 },
    /// `host.guest_memory`.
    Budget { total: u64 },
    /// Elements of a table.
    Table { asked: usize },
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory { asked, max } => {
                write!(
                    f,
                    "it asked for {asked} bytes of memory, limits.memory allows {max}"
                )
            }
            Self::Budget { total } => write!(
                f,
                "all guests together hold the {total} bytes that host.guest_memory allows"
            ),
            Self::Table { asked } => write!(
                f,
                "it asked for a table of {asked} elements, {TABLE_ELEMENTS_MAX} are allowed"
            ),
        }
    }
}

impl MemoryAccount {
    pub(super) const fn new(budget: Arc<Budget>, max: u64) -> Self {
        Self {
            budget,
            max,
            bytes: 0,
            pending: 0,
            refused: None,
        }
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for MemoryAccount {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

impl ResourceLimiter for MemoryAccount {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current) as u64;
        let asked = self.bytes.saturating_add(more);
        self.pending = 0;
        if asked > self.max {
            self.refused = Some(Refusal::Memory {
                asked,
                max: self.max,
            });
            return Ok(false);
        }
        if !self.budget.take(more) {
            self.refused = Some(Refusal::Budget {
                total: self.budget.total(),
            });
            return Ok(false);
        }
        self.bytes = asked;
        self.pending = more;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        // The pool's slots are as large as the largest limit, or the machine has no memory left.
        self.refused = Some(Refusal::Memory {
            asked: self.bytes,
            max: self.max,
        });
        let pending = std::mem::take(&mut self.pending);
        self.budget.give(pending);
        self.bytes -= pending;
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let allowed = desired <= TABLE_ELEMENTS_MAX;
        if !allowed {
            self.refused = Some(Refusal::Table { asked: desired });
        }
        Ok(allowed)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}
