//! One running pipeline as the rest of the host sees it: where its workers put counts and views, and
//! where `status`, `/readyz` and `/metrics` read them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::valid::Alerts;
use crate::connector::embedded::Health;
use crate::pipeline::counts::{Counts, Observer};
use crate::pipeline::snapshot::{
    Alert, AlertName, PartitionSnapshot, Snapshot, State, Topics, Totals,
};
use crate::pipeline::trace::{Attempt, Origin, Sampling, SpanRef, Times, Told};
use crate::telemetry::counts::LocalCounts;
use crate::telemetry::labels::{
    DeadLetterReason, FaultReason, IdempotencyResult, Label, Outcome, PublishError, ReplyDropped,
};
use crate::telemetry::metrics::PipelineMetrics;
use crate::telemetry::spans::WorkerSpans;
use prometheus::IntGauge;

use std::sync::Arc;

/// Shared by a pipeline's workers and its readers.
#[derive(Debug)]
pub struct Watch {
    pipeline: String,
    consumer_group: String,
    /// Messages inside calls, of all workers.
    in_flight: AtomicI64,
    view: Mutex<View>,
}

#[derive(Debug)]
struct View {
    plugin_digest: String,
    topics: Topics,
    state: State,
    why: Option<String>,
    /// What keeps the store from writing.
    store: Option<String>,
    totals: Totals,
    workers: Vec<Worker>,
    alerts: Alerts,
    letters: Recent,
}

#[derive(Debug, Clone, Default)]
struct Worker {
    partitions: Vec<PartitionSnapshot>,
    blocked: Option<String>,
    memory_bytes: u64,
}

impl Watch {
    #[must_use]
    pub fn new(pipeline: &str, consumer_group: &str, plugin_digest: &str, workers: usize) -> Self {
        Self {
            pipeline: pipeline.to_owned(),
            consumer_group: consumer_group.to_owned(),
            in_flight: AtomicI64::new(0),
            view: Mutex::new(View {
                plugin_digest: plugin_digest.to_owned(),
                topics: Topics::default(),
                state: State::Starting,
                why: None,
                store: None,
                totals: Totals::default(),
                workers: vec![Worker::default(); workers],
                alerts: Alerts::default(),
                letters: Recent::default(),
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

    /// From now on these are watched.
    pub fn alerts(&self, alerts: Alerts) {
        self.view().alerts = alerts;
    }

    /// From now on it reads and writes these.
    pub fn topics(&self, topics: Topics) {
        self.view().topics = topics;
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
        let mut snapshot = Snapshot {
            pipeline: self.pipeline.clone(),
            consumer_group: self.consumer_group.clone(),
            state,
            why,
            plugin_digest: view.plugin_digest.clone(),
            topics: view.topics.clone(),
            partitions,
            totals: view.totals,
            in_flight: u64::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or_default(),
            handler_memory_bytes: view.workers.iter().map(|worker| worker.memory_bytes).sum(),
            alerts: Vec::new(),
        };
        snapshot.alerts = view.judged(snapshot.lag(), Instant::now());
        snapshot
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// What is watched, but for the age, which is in the log.
    fn judged(&self, lag: u64, now: Instant) -> Vec<Alert> {
        let mut alerts = Vec::new();
        if let Some(limit) = self.alerts.lag {
            alerts.push(Alert::new(AlertName::Lag, lag, limit));
        }
        if let Some(limit) = self.alerts.oldest_age {
            let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            alerts.push(Alert::new(AlertName::OldestAge, 0, limit));
        }
        if let Some(watched) = self.alerts.dead_letters {
            let value = self.letters.within(watched.per, now);
            let limit = watched.count.get().into();
            alerts.push(Alert::new(AlertName::DeadLetters, value, limit));
        }
        alerts
    }
}

/// Entries of [`Recent`].
const RECENT_MAX: u32 = 60;

/// Dead letters of the last while, in steps of a sixtieth of it.
#[derive(Debug, Default)]
struct Recent {
    /// When a step began, and how many came in it; oldest first.
    steps: VecDeque<(Instant, u64)>,
}

impl Recent {
    fn add(&mut self, count: u64, per: Duration, now: Instant) {
        let step = per / RECENT_MAX;
        match self.steps.back_mut() {
            Some((began, so_far)) if now.duration_since(*began) < step => *so_far += count,
            _ => self.steps.push_back((now, count)),
        }
        while self
            .steps
            .front()
            .is_some_and(|(began, _)| now.duration_since(*began) >= per)
        {
            self.steps.pop_front();
        }
    }

    fn within(&self, per: Duration, now: Instant) -> u64 {
        let recent = self
            .steps
            .iter()
            .filter(|(began, _)| now.duration_since(*began) < per);
        recent.map(|(_, count)| count).sum()
    }
}

/// What one worker reports through.
pub struct WorkerWatch {
    watch: Arc<Watch>,
    worker: usize,
    local: LocalCounts,
    in_flight: IntGauge,
    calling: i64,
    spans: WorkerSpans,
}

impl WorkerWatch {
    #[must_use]
    pub fn new(
        watch: Arc<Watch>,
        worker: usize,
        metrics: &PipelineMetrics,
        spans: WorkerSpans,
    ) -> Self {
        Self {
            watch,
            worker,
            local: metrics.local(),
            in_flight: metrics.in_flight().clone(),
            calling: 0,
            spans,
        }
    }
}

impl Observer for WorkerWatch {
    fn calling(&mut self, messages: usize) {
        let messages = i64::try_from(messages).unwrap_or(i64::MAX);
        let more = messages - self.calling;
        self.in_flight.add(more);
        self.watch.in_flight.fetch_add(more, Ordering::Relaxed);
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
            let mut guard = self.watch.view();
            let view = &mut *guard;
            let totals = &mut view.totals;
            totals.consumed += counts.finished();
            totals.succeeded += counts.succeeded;
            totals.duplicates += counts.skipped + counts.replayed;
            totals.retries += counts.retries;
            totals.dead_letters += dead;
            totals.discarded += counts.discarded;
            totals.lost += counts.lost_offsets;
            totals.published += counts.published.iter().sum::<u64>();
            if let (Some(alert), true) = (view.alerts.dead_letters, dead > 0) {
                view.letters.add(dead, alert.per, Instant::now());
            }
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
        is_circuit_open: bool,
        memory_bytes: u64,
    ) {
        self.local.handler_memory = i64::try_from(memory_bytes).unwrap_or(i64::MAX);
        self.local.circuit_open = is_circuit_open;
        self.local.flush();
        let mut view = self.watch.view();
        if let Some(worker) = view.workers.get_mut(self.worker) {
            worker.partitions = partitions;
            worker.blocked = blocked.map(ToOwned::to_owned);
            worker.memory_bytes = memory_bytes;
        }
    }

    fn sampling(&self) -> Option<&Sampling> {
        self.spans.sampling()
    }

    fn begins_trace(&self) -> bool {
        self.spans.begins_trace()
    }

    fn received(&mut self, origin: &Origin<'_>, times: Times) {
        self.spans.received(origin, times);
    }

    fn attempted(&mut self, attempt: &Attempt<'_>) -> SpanRef {
        self.spans.attempted(attempt)
    }

    fn settled(&mut self, told: &[Told], times: Times) {
        self.spans.settled(told, times);
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
            (IdempotencyResult::Missing, counts.missing),
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
    use crate::config::valid::DeadLetterAlert;

    #[test]
    fn recent_max_bounds_what_is_remembered_of_dead_letters() {
        let per = Duration::from_secs(600);
        let (mut recent, start) = (Recent::default(), Instant::now());
        for second in 0..5_000 {
            recent.add(1, per, start + Duration::from_secs(second));
        }
        assert!(recent.steps.len() <= RECENT_MAX as usize + 1);
        let now = start + Duration::from_secs(4_999);
        let within = recent.within(per, now);
        assert!((590..=600).contains(&within), "{within}");
        assert_eq!(recent.within(per, now + per), 0);
    }

    #[test]
    fn alerts_are_judged_by_what_was_counted() {
        let watch = Watch::new("p", "g", "d", 1);
        assert_eq!(watch.snapshot().alerts, []);
        watch.alerts(Alerts {
            lag: Some(10),
            oldest_age: None,
            dead_letters: Some(DeadLetterAlert {
                count: std::num::NonZeroU32::MIN,
                per: Duration::from_secs(60),
            }),
        });
        let partition = PartitionSnapshot {
            topic: "t".into(),
            partition: 0,
            committed: 0,
            position: 5,
            end: 11,
            held: 5,
            held_bytes: 0,
            oldest_unfinished_ms: None,
            holder: None,
        };
        watch.view().workers[0].partitions = vec![partition];
        let fires = |watch: &Watch| -> Vec<_> {
            let alerts = watch.snapshot().alerts.into_iter();
            alerts
                .map(|a| (a.alert.as_str(), a.value, a.firing))
                .collect()
        };
        assert_eq!(
            fires(&watch),
            [("lag", 11, true), ("dead_letters", 0, false)]
        );
        watch.view().workers[0].partitions[0].held = 4;
        watch
            .view()
            .letters
            .add(1, Duration::from_secs(60), Instant::now());
        assert_eq!(
            fires(&watch),
            [("lag", 10, false), ("dead_letters", 1, true)]
        );
    }
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
