//! The Prometheus registry: names, labels and buckets of every metric (§12.3). Counters are resolved
//! once per pipeline ([`PipelineMetrics`]) and fed once per batch (`counts.rs`); gauges are filled from
//! snapshots when somebody scrapes. Labels come from the configuration and closed sets only.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::counts::LocalCounts;
use super::labels::{
    DeadLetterReason, FaultReason, IdempotencyResult, Label, Outcome, PublishError, ReplyDropped,
};
use super::spans::Lost;
use crate::pipeline::snapshot::{Origin, PartitionSnapshot, Snapshot, State};

/// Why metrics could not be made or shown.
#[derive(Debug, thiserror::Error)]
#[error("metrics: {0}; this is a fault of wasmill, please report it")]
pub struct Error(#[from] prometheus::Error);

/// Buckets of the publish duration: one settlement with its fsync.
const PUBLISH_BUCKETS_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Buckets of the handler duration: one call.
const HANDLER_BUCKETS_SECONDS: &[f64] = &[
    0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0,
    60.0,
];

const PIPELINE_LABELS: &[&str] = &["pipeline", "consumer_group"];
const PARTITION_LABELS: &[&str] = &["pipeline", "consumer_group", "topic", "partition"];

const STATES: &[(State, &str)] = &[
    (State::Starting, "starting"),
    (State::Running, "running"),
    (State::Blocked, "blocked"),
    (State::Draining, "draining"),
    (State::Paused, "paused"),
    (State::Stopped, "stopped"),
    (State::Failed, "failed"),
];

/// All metrics of one host. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    families: Arc<Families>,
}

/// One pipeline's counters, resolved once and shared by its workers.
#[derive(Clone)]
pub struct PipelineMetrics {
    pub(super) published: Vec<IntCounter>,
    pub(super) publish_errors: Vec<IntCounter>,
    pub(super) replies_dropped: Vec<IntCounter>,
    pub(super) consumed: Vec<IntCounter>,
    pub(super) faults: Vec<IntCounter>,
    pub(super) retries: IntCounter,
    pub(super) circuits_opened: IntCounter,
    pub(super) circuit_open: IntGauge,
    pub(super) sequence_gaps: IntCounter,
    pub(super) dead_letters: Vec<IntCounter>,
    pub(super) idempotency: Vec<IntCounter>,
    pub(super) publish_duration: Histogram,
    pub(super) handler_duration: Histogram,
    pub(super) handler_memory: IntGauge,
    in_flight: IntGauge,
}

impl Metrics {
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            families: Arc::new(Families::register(Registry::new())?),
        })
    }

    /// The counters of one pipeline. `output_topics` are the topics it publishes to in the order in
    /// which [`LocalCounts::published`] counts them (outputs of the file, then dead letter topics).
    /// Every series exists from now on, at zero.
    #[must_use]
    pub fn pipeline(
        &self,
        pipeline: &str,
        consumer_group: &str,
        output_topics: &[&str],
    ) -> PipelineMetrics {
        let families = &self.families;
        let own = &[pipeline, consumer_group];
        PipelineMetrics {
            published: output_topics
                .iter()
                .map(|topic| {
                    families
                        .published
                        .with_label_values(&[pipeline, consumer_group, topic])
                })
                .collect(),
            publish_errors: each::<PublishError>(&families.publish_errors, own),
            replies_dropped: each::<ReplyDropped>(&families.replies_dropped, own),
            consumed: each::<Outcome>(&families.consumed, own),
            faults: each::<FaultReason>(&families.faults, own),
            retries: families.retries.with_label_values(own),
            circuits_opened: families.circuits_opened.with_label_values(own),
            circuit_open: families.circuit_open.with_label_values(own),
            sequence_gaps: families.sequence_gaps.with_label_values(own),
            dead_letters: each::<DeadLetterReason>(&families.dead_letters, own),
            idempotency: each::<IdempotencyResult>(&families.idempotency, own),
            publish_duration: families.publish_duration.with_label_values(own),
            handler_duration: families.handler_duration.with_label_values(own),
            handler_memory: families.handler_memory.with_label_values(own),
            in_flight: families.in_flight.with_label_values(own),
        }
    }

    /// Spans that no receiver got, and messages whose spans were not made.
    #[must_use]
    pub fn spans_lost(&self) -> Lost {
        Lost {
            dropped: self.families.spans_dropped.clone(),
            left_out: self.families.traces_left_out.clone(),
        }
    }

    /// Fills the gauges from `snapshots` and writes everything in Prometheus' text format.
    ///
    /// `timestamp_ms` answers with the Unix time of the message at (topic, partition, offset), or
    /// nothing when it is not there; it is asked once per partition that is behind.
    pub fn render(
        &self,
        snapshots: &[Snapshot],
        now_ms: i64,
        timestamp_ms: impl Fn(&str, u32, u64) -> Option<i64>,
    ) -> Result<Vec<u8>, Error> {
        let families = &self.families;
        // One scrape at a time: the gauges are emptied and filled again.
        let _one_scrape = families
            .scrape
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        families.clear_gauges();
        for snapshot in snapshots {
            families.fill(snapshot, now_ms, &timestamp_ms);
        }
        let mut text = Vec::new();
        TextEncoder::new().encode(&families.registry.gather(), &mut text)?;
        Ok(text)
    }
}

impl PipelineMetrics {
    /// Counters of one worker, flushed into these once per batch.
    #[must_use]
    pub fn local(&self) -> LocalCounts {
        LocalCounts::new(self)
    }

    /// Messages inside calls of the handler: add when a call begins, subtract when it ends.
    #[must_use]
    pub const fn in_flight(&self) -> &IntGauge {
        &self.in_flight
    }
}

struct Families {
    registry: Registry,
    scrape: Mutex<()>,
    published: IntCounterVec,
    publish_duration: HistogramVec,
    publish_errors: IntCounterVec,
    replies_dropped: IntCounterVec,
    consumed: IntCounterVec,
    handler_duration: HistogramVec,
    faults: IntCounterVec,
    retries: IntCounterVec,
    retries_waiting: IntGaugeVec,
    circuits_opened: IntCounterVec,
    circuit_open: IntGaugeVec,
    sequence_gaps: IntCounterVec,
    dead_letters: IntCounterVec,
    idempotency: IntCounterVec,
    in_flight: IntGaugeVec,
    handler_memory: IntGaugeVec,
    queue_depth: IntGaugeVec,
    oldest_message_age: GaugeVec,
    consumer_lag: IntGaugeVec,
    committed_offset: IntGaugeVec,
    unfinished_age: GaugeVec,
    pipeline_state: IntGaugeVec,
    alert: IntGaugeVec,
    spans_dropped: IntCounter,
    traces_left_out: IntCounter,
}

impl Families {
    fn register(registry: Registry) -> Result<Self, Error> {
        let own = PIPELINE_LABELS;
        let with = |label: &'static str| [PIPELINE_LABELS, &[label]].concat();
        let lag_labels = [PARTITION_LABELS, &["kind"]].concat();
        Ok(Self {
            scrape: Mutex::new(()),
            published: counters(
                &registry,
                "messages_published_total",
                "messages made durable in a topic",
                &with("topic"),
            )?,
            publish_duration: histograms(
                &registry,
                "publish_duration_seconds",
                "time from handing a settlement on until it was durable",
                PUBLISH_BUCKETS_SECONDS,
            )?,
            publish_errors: counters(
                &registry,
                "publish_errors_total",
                "messages that could not be published",
                &with("reason"),
            )?,
            replies_dropped: counters(
                &registry,
                "replies_dropped_total",
                "answers that went nowhere; their messages succeeded",
                &with("reason"),
            )?,
            consumed: counters(
                &registry,
                "messages_consumed_total",
                "deliveries finished",
                &with("outcome"),
            )?,
            handler_duration: histograms(
                &registry,
                "handler_duration_seconds",
                "time of one call of the handler (a call may carry a batch)",
                HANDLER_BUCKETS_SECONDS,
            )?,
            faults: counters(
                &registry,
                "faults_total",
                "traps, timeouts and other faults of the handler",
                &with("reason"),
            )?,
            retries: counters(
                &registry,
                "retries_total",
                "attempts that failed and will be made again",
                own,
            )?,
            retries_waiting: int_gauges(
                &registry,
                "retries_waiting",
                "deferred retries that are not due or not done yet",
                own,
            )?,
            circuits_opened: counters(
                &registry,
                "circuit_opened_total",
                "times the circuit opened and paused the pipeline",
                own,
            )?,
            circuit_open: int_gauges(
                &registry,
                "circuit_open",
                "1 while the circuit is open: a dependency seems to be down",
                own,
            )?,
            sequence_gaps: counters(
                &registry,
                "sequence_gaps_total",
                "messages that went on although sequence numbers before theirs were missing",
                own,
            )?,
            dead_letters: counters(
                &registry,
                "dead_letters_total",
                "messages written to a dead letter topic",
                &with("reason"),
            )?,
            idempotency: counters(
                &registry,
                "idempotency_total",
                "answers of the idempotency table",
                &with("result"),
            )?,
            in_flight: int_gauges(
                &registry,
                "in_flight",
                "messages inside calls of the handler",
                own,
            )?,
            handler_memory: int_gauges(
                &registry,
                "handler_memory_bytes",
                "linear memory of the pipeline's instances",
                own,
            )?,
            queue_depth: int_gauges(
                &registry,
                "queue_depth",
                "messages of the partition that the group has not settled",
                PARTITION_LABELS,
            )?,
            oldest_message_age: gauges(
                &registry,
                "oldest_message_age_seconds",
                "age of the oldest message the group has not settled; 0 when there is none",
                PARTITION_LABELS,
            )?,
            consumer_lag: int_gauges(
                &registry,
                "consumer_lag",
                "messages behind: unstarted = not read yet, held = read and not finished",
                &lag_labels,
            )?,
            committed_offset: int_gauges(
                &registry,
                "committed_offset",
                "first offset that is not settled",
                PARTITION_LABELS,
            )?,
            unfinished_age: gauges(
                &registry,
                "unfinished_age_seconds",
                "age of the oldest message that was read and is not finished; 0 when there is none",
                PARTITION_LABELS,
            )?,
            pipeline_state: int_gauges(
                &registry,
                "pipeline_state",
                "1 for the state the pipeline is in",
                &with("state"),
            )?,
            alert: int_gauges(
                &registry,
                "alert",
                "1 while an alert of the configuration fires",
                &with("alert"),
            )?,
            spans_dropped: registered(
                &registry,
                IntCounter::with_opts(Opts::new(
                    named("spans_dropped_total"),
                    "spans that no receiver got: the queue was full or the export failed",
                ))?,
            )?,
            traces_left_out: registered(
                &registry,
                IntCounter::with_opts(Opts::new(
                    named("traces_left_out_total"),
                    "messages that were sampled and not traced: there were more than traces_per_second",
                ))?,
            )?,
            registry,
        })
    }

    /// Gauges of pipelines and partitions that are gone must not stay at their last value.
    fn clear_gauges(&self) {
        self.queue_depth.reset();
        self.oldest_message_age.reset();
        self.consumer_lag.reset();
        self.committed_offset.reset();
        self.unfinished_age.reset();
        self.pipeline_state.reset();
        self.alert.reset();
        self.retries_waiting.reset();
    }

    fn fill(
        &self,
        snapshot: &Snapshot,
        now_ms: i64,
        timestamp_ms: &impl Fn(&str, u32, u64) -> Option<i64>,
    ) {
        let (pipeline, group) = (snapshot.pipeline.as_str(), snapshot.consumer_group.as_str());
        for (state, name) in STATES {
            self.pipeline_state
                .with_label_values(&[pipeline, group, name])
                .set(i64::from(*state == snapshot.state));
        }
        for alert in &snapshot.alerts {
            self.alert
                .with_label_values(&[pipeline, group, alert.alert.as_str()])
                .set(i64::from(alert.firing));
        }
        self.retries_waiting
            .with_label_values(&[pipeline, group])
            .set(as_gauge(snapshot.waiting(Origin::Retries)));
        for partition in &snapshot.partitions {
            let number = partition.partition.to_string();
            let labels: [&str; 4] = [pipeline, group, &partition.topic, &number];
            self.fill_partition(partition, &labels, now_ms, timestamp_ms);
        }
    }

    fn fill_partition(
        &self,
        partition: &PartitionSnapshot,
        labels: &[&str; 4],
        now_ms: i64,
        timestamp_ms: &impl Fn(&str, u32, u64) -> Option<i64>,
    ) {
        let unstarted = partition.end.saturating_sub(partition.position);
        let depth = unstarted.saturating_add(partition.held);
        let [pipeline, group, topic, number] = *labels;
        for (kind, value) in [("unstarted", unstarted), ("held", partition.held)] {
            self.consumer_lag
                .with_label_values(&[pipeline, group, topic, number, kind])
                .set(as_gauge(value));
        }
        self.queue_depth
            .with_label_values(labels)
            .set(as_gauge(depth));
        self.committed_offset
            .with_label_values(labels)
            .set(as_gauge(partition.committed));
        let oldest = (partition.committed < partition.end)
            .then(|| timestamp_ms(&partition.topic, partition.partition, partition.committed))
            .flatten()
            .or(partition.oldest_unfinished_ms);
        set_age(
            &self.oldest_message_age.with_label_values(labels),
            oldest,
            now_ms,
        );
        set_age(
            &self.unfinished_age.with_label_values(labels),
            partition.oldest_unfinished_ms,
            now_ms,
        );
    }
}

fn as_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "ages in ms are far below 2^52")]
fn set_age(gauge: &Gauge, since_ms: Option<i64>, now_ms: i64) {
    let age_ms = since_ms.map_or(0, |since| now_ms.saturating_sub(since).max(0));
    gauge.set(age_ms as f64 / 1_000.0);
}

fn each<L: Label>(family: &IntCounterVec, own: &[&str; 2]) -> Vec<IntCounter> {
    let [pipeline, group] = *own;
    L::ALL
        .iter()
        .map(|label| family.with_label_values(&[pipeline, group, label.as_str()]))
        .collect()
}

fn named(name: &str) -> String {
    format!("wasmill_{name}")
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> Result<C, Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, Error> {
    registered(
        registry,
        IntCounterVec::new(Opts::new(named(name), help), labels)?,
    )
}

fn int_gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, Error> {
    registered(
        registry,
        IntGaugeVec::new(Opts::new(named(name), help), labels)?,
    )
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec, Error> {
    registered(
        registry,
        GaugeVec::new(Opts::new(named(name), help), labels)?,
    )
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
) -> Result<HistogramVec, Error> {
    let opts = HistogramOpts::new(named(name), help).buckets(buckets.to_vec());
    registered(registry, HistogramVec::new(opts, PIPELINE_LABELS)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::snapshot::{Alert, AlertName, Topics, Totals};

    fn partition() -> PartitionSnapshot {
        PartitionSnapshot {
            topic: "orders".into(),
            partition: 3,
            committed: 100,
            position: 140,
            end: 200,
            held: 7,
            held_bytes: 700,
            oldest_unfinished_ms: Some(40_000),
            holder: None,
        }
    }

    fn snapshot(state: State) -> Snapshot {
        Snapshot {
            topics: Topics::default(),
            pipeline: "p".into(),
            consumer_group: "g".into(),
            state,
            why: None,
            plugin_digest: "sha256:00".into(),
            partitions: vec![partition()],
            totals: Totals::default(),
            alerts: Vec::new(),
            in_flight: 0,
            handler_memory_bytes: 0,
        }
    }

    fn render(metrics: &Metrics, snapshots: &[Snapshot]) -> String {
        let text = metrics.render(snapshots, 50_000, |_, _, _| Some(30_000));
        String::from_utf8(text.unwrap()).unwrap()
    }

    #[test]
    fn an_alert_is_one_while_it_fires_and_is_there_for_what_is_configured_only() {
        let mut watched = snapshot(State::Running);
        watched.alerts = vec![
            Alert::new(AlertName::Lag, 67, 66),
            Alert::new(AlertName::OldestAge, 0, 15_000),
        ];
        let metrics = Metrics::new().unwrap();
        for (age_limit_ms, fires) in [(19_999, 1), (20_000, 0)] {
            watched.alerts[1].limit = age_limit_ms;
            watched.judge_age(50_000, |_, _, _| Some(30_000));
            let text = render(&metrics, std::slice::from_ref(&watched));
            let of = r#"consumer_group="g",pipeline="p""#;
            assert_line(&text, &format!("wasmill_alert{{alert=\"lag\",{of}}} 1"));
            let line = format!("wasmill_alert{{alert=\"oldest_age\",{of}}} {fires}");
            assert_line(&text, &line);
            assert!(!text.contains("dead_letters\""), "{text}");
        }
    }

    #[track_caller]
    fn assert_line(text: &str, line: &str) {
        assert!(
            text.lines().any(|l| l == line),
            "no line {line:?} in\n{text}"
        );
    }

    #[test]
    fn gauges_are_filled_from_the_snapshot_at_scrape_and_lag_is_split() {
        let text = render(&Metrics::new().unwrap(), &[snapshot(State::Running)]);
        let of = r#"consumer_group="g",partition="3",pipeline="p",topic="orders""#;
        assert_line(&text, &format!("wasmill_queue_depth{{{of}}} 67"));
        assert_line(&text, &format!("wasmill_committed_offset{{{of}}} 100"));
        assert_line(
            &text,
            &format!("wasmill_oldest_message_age_seconds{{{of}}} 20"),
        );
        assert_line(&text, &format!("wasmill_unfinished_age_seconds{{{of}}} 10"));
        for (kind, value) in [("unstarted", 60), ("held", 7)] {
            let labels = format!(
                r#"consumer_group="g",kind="{kind}",partition="3",pipeline="p",topic="orders""#
            );
            assert_line(&text, &format!("wasmill_consumer_lag{{{labels}}} {value}"));
        }
    }

    #[test]
    fn exactly_one_state_is_one() {
        for (is, _) in STATES {
            let text = render(&Metrics::new().unwrap(), &[snapshot(*is)]);
            for (state, name) in STATES {
                // As the state is called everywhere else.
                assert_eq!(serde_json::to_value(state).unwrap(), *name);
                let own = r#"consumer_group="g",pipeline="p""#;
                let value = i32::from(state == is);
                let line = format!(r#"wasmill_pipeline_state{{{own},state="{name}"}} {value}"#);
                assert_line(&text, &line);
            }
        }
    }

    #[test]
    fn deferred_retries_that_wait_are_a_gauge_of_their_own() {
        let mut waiting = snapshot(State::Running);
        let mut retries = partition();
        retries.topic = "orders.g.retry.30s".into();
        waiting.partitions.push(retries);
        let text = render(&Metrics::new().unwrap(), &[waiting]);
        let own = r#"consumer_group="g",pipeline="p""#;
        assert_line(&text, &format!("wasmill_retries_waiting{{{own}}} 100"));
    }

    #[test]
    fn gauges_of_a_pipeline_that_is_gone_disappear() {
        let metrics = Metrics::new().unwrap();
        assert!(render(&metrics, &[snapshot(State::Running)]).contains("wasmill_queue_depth"));
        assert!(!render(&metrics, &[]).contains("wasmill_queue_depth{"));
    }

    #[test]
    fn a_partition_that_is_settled_has_no_age() {
        let mut settled = snapshot(State::Running);
        let one = settled.partitions.first_mut().unwrap();
        (one.committed, one.position, one.held) = (200, 200, 0);
        one.oldest_unfinished_ms = None;
        let text = render(&Metrics::new().unwrap(), &[settled]);
        let of = r#"consumer_group="g",partition="3",pipeline="p",topic="orders""#;
        assert_line(
            &text,
            &format!("wasmill_oldest_message_age_seconds{{{of}}} 0"),
        );
        assert_line(&text, &format!("wasmill_unfinished_age_seconds{{{of}}} 0"));
    }

    #[test]
    fn every_counter_exists_at_zero_before_anything_happened() {
        let metrics = Metrics::new().unwrap();
        let _pipeline = metrics.pipeline("p", "g", &["out", "orders.g.dlq"]);
        let text = render(&metrics, &[]);
        let own = r#"consumer_group="g",pipeline="p""#;
        for line in [
            format!(r#"wasmill_messages_published_total{{{own},topic="out"}} 0"#),
            format!(r#"wasmill_messages_published_total{{{own},topic="orders.g.dlq"}} 0"#),
            format!(r#"wasmill_publish_errors_total{{{own},reason="unknown_output"}} 0"#),
            r#"wasmill_messages_consumed_total{consumer_group="g",outcome="success",pipeline="p"} 0"#
                .to_owned(),
            format!(r#"wasmill_faults_total{{{own},reason="timeout"}} 0"#),
            format!("wasmill_retries_total{{{own}}} 0"),
            format!(r#"wasmill_dead_letters_total{{{own},reason="rejected"}} 0"#),
            format!(r#"wasmill_idempotency_total{{{own},result="duplicate"}} 0"#),
            format!("wasmill_in_flight{{{own}}} 0"),
            format!("wasmill_handler_memory_bytes{{{own}}} 0"),
            format!("wasmill_circuit_open{{{own}}} 0"),
            format!("wasmill_publish_duration_seconds_count{{{own}}} 0"),
            format!("wasmill_handler_duration_seconds_count{{{own}}} 0"),
        ] {
            assert_line(&text, &line);
        }
    }
}
