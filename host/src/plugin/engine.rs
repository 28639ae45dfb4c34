//! The Wasm engine: wasmtime's configuration, the pool's size, the memory that all guests share, and
//! the clock by which calls are interrupted. What a plugin may import is in `imports.rs`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use wasmtime::component::Linker;
use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::cache::Cache;
use super::error::Error;
use super::guest::Guest;
use super::imports;

/// Stack that a guest's calls may take. A thread that calls guests needs twice as much.
pub const GUEST_STACK_MAX: usize = 512 * 1024;
/// Most elements of one table of a guest.
pub const TABLE_ELEMENTS_MAX: usize = 65_536;
/// How often running guests look at the time.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Core instances, tables and memories that one component may be made of (the WASI adapter adds some).
pub(super) const CORE_INSTANCES_MAX: u32 = 16;
pub(super) const TABLES_MAX: u32 = 16;
pub(super) const MEMORIES_MAX: u32 = 2;
/// Bytes of a slot that stay mapped when its instance goes, because clearing them is cheaper.
const KEEP_RESIDENT: usize = 64 * 1024;
const BACKTRACE_FRAMES_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(15);

/// How large the sandbox is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Of the compile cache; made when missing, for this user alone.
    pub cache_dir: PathBuf,
    /// Bytes of linear memory of all guests together.
    pub guest_memory: u64,
    /// Instances at the same time.
    pub instances_max: u32,
    /// Bytes of linear memory of one instance: the largest `limits.memory`.
    pub memory_max: u64,
}

/// One per process. Cheap to clone; the clock thread ends with the last clone (plugins and instances
/// hold one).
#[derive(Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) wasm: wasmtime::Engine,
    pub(super) linker: Linker<Guest>,
    pub(super) budget: Arc<Budget>,
    pub(super) cache: Cache,
    pub(super) instances_max: u32,
    memory_max: u64,
    /// Dropped first: no tick after the engine.
    _ticker: Ticker,
}

impl Engine {
    /// Instances that may exist at a time.
    #[must_use]
    pub fn instances_max(&self) -> u32 {
        self.shared.instances_max
    }

    /// Bytes of linear memory that an instance may have.
    #[must_use]
    pub fn memory_max(&self) -> u64 {
        self.shared.memory_max
    }

    /// Starts the engine and its clock thread.
    pub fn new(options: Options) -> Result<Self, Error> {
        let failed = |error: wasmtime::Error| Error::Engine(format!("{error:#}"));
        let wasm = wasmtime::Engine::new(&configuration(&options)).map_err(failed)?;
        let linker = imports::linker(&wasm).map_err(failed)?;
        let ticker = Ticker::start(wasm.clone())
            .map_err(|error| Error::Engine(format!("cannot start the clock thread: {error}")))?;
        Ok(Self {
            shared: Arc::new(Shared {
                budget: Arc::new(Budget::new(options.guest_memory)),
                cache: Cache::new(options.cache_dir, &wasm),
                instances_max: options.instances_max,
                memory_max: options.memory_max,
                linker,
                wasm,
                _ticker: ticker,
            }),
        })
    }

    /// Bytes of linear memory that guests hold now.
    #[must_use]
    pub fn guest_memory_used(&self) -> u64 {
        self.shared.budget.used()
    }
}

fn configuration(options: &Options) -> Config {
    let slots = options.instances_max.max(1);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots.saturating_mul(8))
        .total_memories(slots.saturating_add(slots / 4))
        .total_tables(slots.saturating_mul(8))
        .total_stacks(1)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(2 << 20)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(usize::try_from(options.memory_max).unwrap_or(usize::MAX))
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT);
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .max_wasm_stack(GUEST_STACK_MAX)
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES_MAX))
        .wasm_backtrace_details(wasmtime::WasmBacktraceDetails::Disable)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// The memory of all guests together, counted as they grow.
#[derive(Debug)]
pub(super) struct Budget {
    total: u64,
    used: AtomicU64,
}

impl Budget {
    const fn new(total: u64) -> Self {
        Self {
            total,
            used: AtomicU64::new(0),
        }
    }

    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, or nothing when they would exceed the total.
    pub(super) fn take(&self, bytes: u64) -> bool {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.total)
            })
            .is_ok()
    }

    pub(super) fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The thread that advances the epoch. It keeps to a schedule, so that deadlines do not drift.
struct Ticker {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: wasmtime::Engine) -> std::io::Result<Self> {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("guest-clock".to_owned())
            .spawn(move || {
                let mut next = Instant::now() + TICK;
                while let Err(RecvTimeoutError::Timeout) =
                    stopped.recv_timeout(next.saturating_duration_since(Instant::now()))
                {
                    engine.increment_epoch();
                    next += TICK;
                }
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread has nothing to panic about; if it did, there is nobody left to tell.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_never_exceeds_its_total() {
        let budget = Budget::new(100);
        assert!(budget.take(60) && !budget.take(41) && budget.take(40));
        assert!(!budget.take(1) && !budget.take(u64::MAX));
        budget.give(100);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_clock_thread_ends_with_the_engine() {
        let engine = wasmtime::Engine::default();
        let start = Instant::now();
        // Dropping waits for the thread, without waiting for its next tick.
        drop(Ticker::start(engine).unwrap());
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
