//! What a report tells the pipeline's circuit (§5.5). What the circuit makes of it is `circuit`.

use crate::connector::Connector;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::run::{Clock, Entry, Worker};
use crate::pipeline::verdict::Report;
use crate::plugin::FaultKind;

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// The failure is one of those that a dependency causes which is down, and it is down (§5.5).
    pub(super) fn tells_an_outage(&mut self, entry: &Entry, report: &Report<'_>) -> bool {
        let Some(circuit) = &self.circuit else {
            return false;
        };
        match report {
            Report::Success => {
                if circuit.succeeded() {
                    self.probes = false;
                    tracing::info!(pipeline = %self.plan.pipeline, "the circuit is closed again");
                }
                return false;
            }
            Report::Retryable { .. } => {}
            Report::Fault { kind, .. } if *kind == FaultKind::Timeout.as_str() => {}
            _ => return false,
        }
        let was_open = circuit.is_open();
        if !was_open && entry.delivery.attempts > 0 {
            // Retries of messages that fail for a reason of their own come due together, and nothing succeeds
            // between them: they say nothing new.
            return false;
        }
        let now_ms = self.now_ms();
        let key = self.circuit_key(entry);
        let open = circuit.failed(key, now_ms, report.error());
        if open {
            self.probes = false;
            if !was_open {
                self.counts.circuits_opened += 1;
                tracing::warn!(pipeline = %self.plan.pipeline, error = report.error(), "the circuit is open: a dependency seems to be down");
            }
        }
        open
    }

    /// Messages without a key count each.
    fn circuit_key(&self, entry: &Entry) -> u64 {
        let delivery = &entry.delivery;
        let partition = self.partitions.get(delivery.partition as usize);
        let message = partition.and_then(|partition| partition.window.message(delivery));
        match message.and_then(|message| message.key) {
            Some(key) => xxhash_rust::xxh3::xxh3_64(key),
            None => u64::from(delivery.partition) << 48 ^ delivery.offset,
        }
    }
}
