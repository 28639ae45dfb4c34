//! One running pipeline as the rest of the host sees it: where its workers put counts and views, and
//! where `status`, `/readyz` and `/metrics` read them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::connector::embedded::Health;
use crate::pipeline::counts::{Counts, Observer};
use crate::pipeline::snapshot::{PartitionSnapshot, Snapshot, State, Totals};
use crate::telemetry::counts::LocalCounts;
use crate::telemetry::labels::{
    DeadLetterReason, FaultReason, IdempotencyResult, Label, Outcome, PublishError, ReplyDropped,
};
use crate::telemetry::metrics::PipelineMetrics;
use prometheus::IntGauge;

use std::sync::Arc;

/// Shared by a pipeline's workers and its readers.
#[derive(Debug)]
pub struct Watch {
    pipeline: String,
    consumer_group: String,
    view: Mutex<View>,
}

#[derive(Debug)]
struct View {
    plugin_digest: String,
    state: State,
    why: Option<String>,
    /// What keeps the store from writing.
    store: Option<String>,
    totals: Totals,
    workers: Vec<Worker>,
}

#[derive(Debug, Clone, Default)]
struct Worker {
    partitions: Vec<PartitionSnapshot>,
    blocked: Option<String>,
}

impl Watch {
    #[must_use]
    pub fn new(pipeline: &str, consumer_group: &str, plugin_digest: &str, workers: usize) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            consumer_group: consumer_group.to_owned(),
            view: Mutex::new(View {
                plugin_digest: plugin_digest.to_owned(),
                state: State::Starting,
                why: None,
                store: None,
                totals: Totals::default(),
                workers: vec![Worker::default(); workers],
            }),
        }
    }

    /// It begins anew, perhaps with another plugin; what was counted stays.
    pub fn restart(&self, plugin_digest: &str, workers: usize) {
        let mut view = self.view();
        view.plugin_digest = plugin_digest.to_owned();
        view.state = State::Starting;
        view.why = None;
        view.workers = vec![Worker::default(); workers];
    }

    /// A failed pipeline stays failed.
    pub fn enter(&self, state: State, why: Option<String>) {
        let mut view = self.view();
        if view.state != State::Failed {
            view.state = state;
            view.why = why;
        }
    }

    /// A store that does not write blocks the pipeline: nothing settles.
    pub fn store(&self, health: &Health) {
        self.view().store = match health {
            Health::Ok => None,
            Health::Failing { error, .. } | Health::Dead { error } => Some(error.to_string()),
        };
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let view = self.view();
        let blocked = view
            .workers
            .iter()
            .find_map(|worker| worker.blocked.clone());
        let blocked = view.store.clone().or(blocked);
        let (state, why) = match (view.state, blocked) {
            (State::Running, Some(why)) => (State::Blocked, Some(why)),
            (state, _) => (state, view.why.clone()),
        };
        let mut partitions: Vec<PartitionSnapshot> = view
            .workers
            .iter()
            .flat_map(|worker| worker.partitions.iter().cloned())
            .collect();
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Snapshot {
            pipeline: self.pipeline.clone(),
            consumer_group: self.consumer_group.clone(),
            state,
            why,
            plugin_digest: view.plugin_digest.clone(),
            partitions,
            totals: view.totals,
        }
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one worker reports through.
pub struct WorkerWatch {
    watch: Arc<Watch>,
    worker: usize,
    local: LocalCounts,
    in_flight: IntGauge,
    calling: i64,
}

impl WorkerWatch {
    #[must_use]
    pub fn new(watch: Arc<Watch>, worker: usize, metrics: &PipelineMetrics) -> Self {
        Self {
            watch,
            worker,
            local: metrics.local(),
            in_flight: metrics.in_flight().clone(),
            calling: 0,
        }
    }
}

impl Observer for WorkerWatch {
    fn calling(&mut self, messages: usize) {
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        self.in_flight.add(messages - self.calling);
        self.calling = messages;
    }

    fn counted(&mut self, counts: &mut Counts) {
        if counts.lost_offsets == 0
            && counts.calls.is_empty()
            && counts.settlements.is_empty()
            && counts.finished() == 0
            && counts.retries == 0
            && counts.circuits_opened == 0
            && counts.gaps == 0
        {
            return;
        }
        let dead: u64 = counts.dead_letters.iter().map(|(_, n)| n).sum();
        {
            let mut view = self.watch.view();
            let totals = &mut view.totals;
            totals.consumed += counts.finished();
            totals.succeeded += counts.succeeded;
            totals.duplicates += counts.skipped + counts.replayed;
            totals.retries += counts.retries;
            totals.dead_letters += dead;
            totals.discarded += counts.discarded;
            totals.lost += counts.lost_offsets;
            totals.published += counts.published.iter().sum::<u64>();
        }
        self.count_outcomes(counts, dead);
        for (target, count) in counts.published.iter().enumerate() {
            if *count > 0 {
                self.local.published(target, *count);
            }
        }
        for (ns, _) in &counts.calls {
            self.local.handler_duration(Duration::from_nanos(*ns));
        }
        for ns in &counts.settlements {
            self.local.publish_duration(Duration::from_nanos(*ns));
        }
        self.local.flush();
        counts.clear();
    }

    fn looked(
        &mut self,
        partitions: Vec<PartitionSnapshot>,
        blocked: Option<&str>,
        memory_bytes: u64,
    ) {
        self.local.handler_memory = i64::try_from(memory_bytes).unwrap_or(i64::MAX);
        self.local.flush();
        let mut view = self.watch.view();
        if let Some(worker) = view.workers.get_mut(self.worker) {
            worker.partitions = partitions;
            worker.blocked = blocked.map(ToOwned::to_owned);
        }
    }
}

impl WorkerWatch {
    fn count_outcomes(&mut self, counts: &Counts, dead: u64) {
        let duplicates = counts.skipped + counts.replayed;
        for (outcome, count) in [
            (Outcome::Success, counts.succeeded),
            (Outcome::Duplicate, duplicates),
            (Outcome::DeadLettered, dead),
            (Outcome::Discarded, counts.discarded),
            (Outcome::Filtered, counts.filtered),
            (Outcome::Stale, counts.stale),
            (Outcome::Expired, counts.expired),
        ] {
            self.local.consumed(outcome, count);
        }
        for (result, count) in [
            (IdempotencyResult::Fresh, counts.claimed),
            (IdempotencyResult::Duplicate, counts.skipped),
            (IdempotencyResult::Replayed, counts.replayed),
            (IdempotencyResult::Waited, counts.waited),
            (IdempotencyResult::Conflict, counts.conflicts),
        ] {
            self.local.idempotency(result, count);
        }
        self.local.retries += counts.retries;
        self.local.sequence_gaps += counts.gaps;
        for (why, count) in &counts.replies_dropped {
            if let Some(label) = named::<ReplyDropped>(why.as_str()) {
                self.local.reply_dropped(label, *count);
            }
        }
        self.local.circuits_opened += counts.circuits_opened;
        for (kind, count) in &counts.faults {
            if let Some(error) = named::<PublishError>(kind)
                .or((*kind == "output_too_large").then_some(PublishError::TooLarge))
            {
                self.local.publish_error(error, *count);
            }
        }
        for (reason, count) in &counts.dead_letters {
            if let Some(label) = named::<DeadLetterReason>(reason.as_str()) {
                self.local.dead_letter(label, *count);
            }
        }
        for (kind, count) in &counts.faults {
            if let Some(label) = named::<FaultReason>(kind) {
                self.local.fault(label, *count);
            }
        }
    }
}

/// The labels have the names of what they count; a test holds them together.
fn named<L: Label>(name: &str) -> Option<L> {
    L::ALL.iter().copied().find(|label| label.as_str() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::verdict::Reason;
    use crate::plugin::FaultKind;

    #[test]
    fn every_fault_and_every_dead_letter_reason_has_a_label() {
        for kind in FaultKind::ALL {
            assert!(named::<FaultReason>(kind.as_str()).is_some(), "{kind}");
            let reason = Reason::of_fault(kind.as_str());
            // What is the host's fault is never a dead letter.
            assert!(
                kind.is_host() || named::<DeadLetterReason>(reason.as_str()).is_some(),
                "{kind}"
            );
        }
        for kind in ["unknown_output", "output_too_large"] {
            assert!(named::<FaultReason>(kind).is_some(), "{kind}");
            assert!(
                named::<DeadLetterReason>(Reason::of_fault(kind).as_str()).is_some(),
                "{kind}"
            );
        }
        for reason in [
            Reason::Rejected,
            Reason::AttemptsExhausted,
            Reason::RetryTimeExhausted,
            Reason::HostCrash,
            Reason::StaleSequence,
            Reason::RejectedByOperator,
            Reason::Undecodable,
            Reason::ExpressionFailed,
            Reason::NoIdempotencyKey,
            Reason::IdempotencyConflict,
        ] {
            assert!(
                named::<DeadLetterReason>(reason.as_str()).is_some(),
                "{reason:?}"
            );
        }
    }
}
