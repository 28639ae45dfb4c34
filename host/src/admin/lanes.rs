//! Which requests may hold the threads that block, so that each kind leaves room for the others: orders
//! wait for the host's own loop and writes for the disk, and both may take long in the very incident in
//! which somebody asks for the status. Status, metrics and health always find a thread.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Orders of operators that are being carried out or wait for it.
pub const ORDERS_AT_ONCE_MAX: usize = 4;
/// Requests that write, at a time. They wait for one fsync together.
pub const WRITES_AT_ONCE_MAX: usize = 8;
/// Requests that read messages or files, at a time.
pub const READS_AT_ONCE_MAX: usize = 4;
/// Requests of the admin port that look at how the host is, at a time: the number of open dead letters may have
/// to be counted on a slow disk.
pub const LOOKS_AT_ONCE_MAX: usize = 3;
/// Requests of both ports that may block at a time: the above, and one more for health and metrics.
pub const BLOCKING_THREADS_MAX: usize =
    ORDERS_AT_ONCE_MAX + WRITES_AT_ONCE_MAX + READS_AT_ONCE_MAX + LOOKS_AT_ONCE_MAX + 1;

/// What a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// How the host is: never waits for another lane.
    Look,
    Read,
    /// Refused at once while the store cannot write.
    Write,
    Order,
}

/// The places in the lanes of one console.
pub(super) struct Lanes {
    orders: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    looks: Arc<Semaphore>,
}

impl Default for Lanes {
    fn default() -> Self {
        let of = |places| Arc::new(Semaphore::new(places));
        Self {
            orders: of(ORDERS_AT_ONCE_MAX),
            writes: of(WRITES_AT_ONCE_MAX),
            reads: of(READS_AT_ONCE_MAX),
            looks: of(LOOKS_AT_ONCE_MAX),
        }
    }
}

impl Lanes {
    /// Waits for a place; who goes away before that leaves the queue. To be held until the work is done.
    pub(super) async fn enter(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        let places = match lane {
            Lane::Look => &self.looks,
            Lane::Read => &self.reads,
            Lane::Write => &self.writes,
            Lane::Order => &self.orders,
        };
        // They are never closed.
        Arc::clone(places).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Health and metrics do not enter, and so find a thread.
    #[test]
    fn looks_at_once_max_leaves_health_a_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let lanes = Lanes::default();
            let mut held = Vec::new();
            for _ in 0..LOOKS_AT_ONCE_MAX {
                held.push(lanes.enter(Lane::Look).await.unwrap());
            }
            let wait = Duration::from_millis(10);
            let more = tokio::time::timeout(wait, lanes.enter(Lane::Look)).await;
            assert!(more.is_err());
            drop(held);
            assert!(lanes.enter(Lane::Look).await.is_some());
        });
    }
}
