//! One worker's counters: plain integers that cost nothing to count, added to the shared ones once
//! per batch (§12.3). Not here: names and labels (`metrics.rs`, `labels.rs`).

use std::time::Duration;

use prometheus::local::LocalHistogram;

use super::labels::{
    DeadLetterReason, FaultReason, IdempotencyResult, Label, Outcome, PublishError, ReplyDropped,
};
use super::metrics::PipelineMetrics;

/// Counts since the last flush. Owned by one worker; flush once per batch. What was not flushed is
/// flushed when it is dropped.
pub struct LocalCounts {
    shared: PipelineMetrics,
    /// By place in the `output_topics` the metrics were made with.
    published: Vec<u64>,
    publish_errors: Vec<u64>,
    replies_dropped: Vec<u64>,
    consumed: Vec<u64>,
    faults: Vec<u64>,
    pub retries: u64,
    pub circuits_opened: u64,
    pub sequence_gaps: u64,
    dead_letters: Vec<u64>,
    idempotency: Vec<u64>,
    publish_duration: LocalHistogram,
    handler_duration: LocalHistogram,
    /// Bytes of linear memory of this worker's instances now; set, not added.
    pub handler_memory: i64,
    handler_memory_flushed: i64,
    /// As this worker saw it last; the pipeline's workers have one circuit.
    pub circuit_open: bool,
    circuit_open_flushed: bool,
}

impl LocalCounts {
    pub(super) fn new(shared: &PipelineMetrics) -> Self {
        Self {
            published: vec![0; shared.published.len()],
            publish_errors: vec![0; PublishError::ALL.len()],
            replies_dropped: vec![0; ReplyDropped::ALL.len()],
            consumed: vec![0; Outcome::ALL.len()],
            faults: vec![0; FaultReason::ALL.len()],
            retries: 0,
            circuits_opened: 0,
            sequence_gaps: 0,
            dead_letters: vec![0; DeadLetterReason::ALL.len()],
            idempotency: vec![0; IdempotencyResult::ALL.len()],
            publish_duration: shared.publish_duration.local(),
            handler_duration: shared.handler_duration.local(),
            handler_memory: 0,
            handler_memory_flushed: 0,
            circuit_open: false,
            circuit_open_flushed: false,
            shared: shared.clone(),
        }
    }

    /// `count` messages became durable in the topic at place `output` of the pipeline's topics.
    pub fn published(&mut self, output: usize, count: u64) {
        add(&mut self.published, output, count);
    }

    pub fn reply_dropped(&mut self, why: ReplyDropped, count: u64) {
        add(&mut self.replies_dropped, why.index(), count);
    }

    pub fn publish_error(&mut self, reason: PublishError, count: u64) {
        add(&mut self.publish_errors, reason.index(), count);
    }

    pub fn consumed(&mut self, outcome: Outcome, count: u64) {
        add(&mut self.consumed, outcome.index(), count);
    }

    pub fn fault(&mut self, reason: FaultReason, count: u64) {
        add(&mut self.faults, reason.index(), count);
    }

    pub fn dead_letter(&mut self, reason: DeadLetterReason, count: u64) {
        add(&mut self.dead_letters, reason.index(), count);
    }

    pub fn idempotency(&mut self, result: IdempotencyResult, count: u64) {
        add(&mut self.idempotency, result.index(), count);
    }

    /// One settlement was durable after `elapsed`.
    pub fn publish_duration(&mut self, elapsed: Duration) {
        self.publish_duration.observe(elapsed.as_secs_f64());
    }

    /// One call of the handler took `elapsed`.
    pub fn handler_duration(&mut self, elapsed: Duration) {
        self.handler_duration.observe(elapsed.as_secs_f64());
    }

    /// Adds everything to the shared counters and begins again at zero.
    pub fn flush(&mut self) {
        let shared = &self.shared;
        for (counts, counters) in [
            (&mut self.published, &shared.published),
            (&mut self.publish_errors, &shared.publish_errors),
            (&mut self.replies_dropped, &shared.replies_dropped),
            (&mut self.consumed, &shared.consumed),
            (&mut self.faults, &shared.faults),
            (&mut self.dead_letters, &shared.dead_letters),
            (&mut self.idempotency, &shared.idempotency),
        ] {
            for (count, counter) in counts.iter_mut().zip(counters) {
                if *count > 0 {
                    counter.inc_by(std::mem::take(count));
                }
            }
        }
        if self.circuits_opened > 0 {
            let opened = std::mem::take(&mut self.circuits_opened);
            shared.circuits_opened.inc_by(opened);
        }
        if self.sequence_gaps > 0 {
            let gaps = std::mem::take(&mut self.sequence_gaps);
            shared.sequence_gaps.inc_by(gaps);
        }
        if self.retries > 0 {
            shared.retries.inc_by(std::mem::take(&mut self.retries));
        }
        if self.circuit_open != self.circuit_open_flushed {
            shared.circuit_open.set(i64::from(self.circuit_open));
            self.circuit_open_flushed = self.circuit_open;
        }
        if self.handler_memory != self.handler_memory_flushed {
            shared
                .handler_memory
                .add(self.handler_memory - self.handler_memory_flushed);
            self.handler_memory_flushed = self.handler_memory;
        }
        self.publish_duration.flush();
        self.handler_duration.flush();
    }
}

impl Drop for LocalCounts {
    fn drop(&mut self) {
        // A worker that is gone holds no memory and asks for nothing.
        self.handler_memory = 0;
        self.circuit_open = false;
        self.flush();
    }
}

fn add(counts: &mut [u64], place: usize, count: u64) {
    if let Some(one) = counts.get_mut(place) {
        *one += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render(&[], 0, |_, _, _| None).unwrap()).unwrap()
    }

    const OWN: &str = r#"consumer_group="g",pipeline="p""#;

    #[test]
    fn counts_are_invisible_until_the_batch_is_flushed_and_then_exact() {
        let metrics = Metrics::new().unwrap();
        let pipeline = metrics.pipeline("p", "g", &["a", "b"]);
        let (mut one, mut two) = (pipeline.local(), pipeline.local());
        one.published(0, 3);
        one.published(1, 1);
        one.consumed(Outcome::Success, 4);
        one.retries += 2;
        one.dead_letter(DeadLetterReason::Rejected, 1);
        one.fault(FaultReason::Timeout, 1);
        one.idempotency(IdempotencyResult::Duplicate, 5);
        one.handler_duration(Duration::from_millis(2));
        two.published(0, 10);
        assert!(text(&metrics).contains(&format!(r#"published_total{{{OWN},topic="a"}} 0"#)));
        one.flush();
        one.flush();
        two.flush();
        let text = text(&metrics);
        for line in [
            format!(r#"wasmill_messages_published_total{{{OWN},topic="a"}} 13"#),
            format!(r#"wasmill_messages_published_total{{{OWN},topic="b"}} 1"#),
            format!("wasmill_retries_total{{{OWN}}} 2"),
            format!(r#"wasmill_dead_letters_total{{{OWN},reason="rejected"}} 1"#),
            format!(r#"wasmill_faults_total{{{OWN},reason="timeout"}} 1"#),
            format!(r#"wasmill_idempotency_total{{{OWN},result="duplicate"}} 5"#),
            format!("wasmill_handler_duration_seconds_count{{{OWN}}} 1"),
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn an_output_beyond_the_configured_ones_opens_no_series() {
        let metrics = Metrics::new().unwrap();
        let mut counts = metrics.pipeline("p", "g", &["a"]).local();
        counts.published(7, 1);
        counts.flush();
        assert_eq!(
            text(&metrics).matches("messages_published_total{").count(),
            1
        );
    }

    #[test]
    fn an_open_circuit_shows_until_it_closes_or_its_workers_are_gone() {
        let metrics = Metrics::new().unwrap();
        let pipeline = metrics.pipeline("p", "g", &[]);
        let (mut one, mut two) = (pipeline.local(), pipeline.local());
        let shows = |open: u8| text(&metrics).contains(&format!("circuit_open{{{OWN}}} {open}"));
        one.circuit_open = true;
        one.flush();
        // It has not looked yet.
        two.flush();
        assert!(shows(1));
        one.circuit_open = false;
        one.flush();
        assert!(shows(0));
        two.circuit_open = true;
        two.flush();
        assert!(shows(1));
        drop(two);
        assert!(shows(0));
    }

    #[test]
    fn memory_is_the_sum_over_workers_and_goes_with_them() {
        let metrics = Metrics::new().unwrap();
        let pipeline = metrics.pipeline("p", "g", &[]);
        let (mut one, mut two) = (pipeline.local(), pipeline.local());
        one.handler_memory = 100;
        two.handler_memory = 50;
        one.flush();
        two.flush();
        assert!(text(&metrics).contains(&format!("handler_memory_bytes{{{OWN}}} 150")));
        drop(one);
        assert!(text(&metrics).contains(&format!("handler_memory_bytes{{{OWN}}} 50")));
    }
}
