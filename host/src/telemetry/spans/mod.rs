//! Spans of messages (§12.1), exported over OTLP: `settings.rs` reads the `OTEL_…` variables,
//! `span.rs` gives spans their names and attributes, `worker.rs` makes those of a pipeline's worker,
//! `edge.rs` those of messages that enter at our ports and commands, `export.rs` sends them from a
//! thread of its own. Nothing here waits for a receiver: what finds the queue full is dropped and counted.

mod edge;
mod export;
mod settings;
mod span;
mod worker;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_sdk::trace::SpanData;
use prometheus::IntCounter;

use crate::config::valid::{CreationContext, RateLimit};
use crate::pipeline::rate::Rate;
use crate::pipeline::trace::Sampling;

pub use edge::{Publishing, Sending};
use export::Exporter;
use settings::Settings;
pub use worker::{Described, WorkerSpans};

/// Spans that wait to be sent, when `OTEL_BSP_MAX_QUEUE_SIZE` does not say.
pub const QUEUE_SPANS_MAX: usize = 2048;
/// Messages a second that a command traces because its share has chosen them.
const TRACES_PER_SECOND: NonZeroU32 = NonZeroU32::new(500).unwrap();
/// How long the end of the process waits for spans to be sent.
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// Where spans go; cheap to clone. Off, it costs one branch.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<On>>);

/// Spans and traces that nobody got.
#[derive(Debug, Clone)]
pub struct Lost {
    /// Spans.
    pub dropped: IntCounter,
    /// Messages that were sampled and not traced, because there were too many.
    pub left_out: IntCounter,
}

struct On {
    sampling: Sampling,
    allowance: Allowance,
    parent: CreationContext,
    exporter: Exporter,
}

impl Spans {
    /// As the environment says; off without an endpoint, and with a line in the log when what it says
    /// cannot be done. `per_second`: messages without a context that are sampled at most.
    #[must_use]
    pub fn from_env(parent: CreationContext, per_second: NonZeroU32, lost: Lost) -> Self {
        let settings = match Settings::read(|name| std::env::var(name).ok()) {
            Ok(Some(settings)) => settings,
            Ok(None) => return Self::default(),
            Err(why) => {
                tracing::error!("tracing is off: {why}");
                return Self::default();
            }
        };
        let sampling = settings.sampling;
        match Exporter::start(settings, lost.dropped) {
            Ok(exporter) => Self(Some(Arc::new(On {
                sampling,
                allowance: Allowance::new(per_second, lost.left_out),
                parent,
                exporter,
            }))),
            Err(why) => {
                tracing::error!("tracing is off: {why}");
                Self::default()
            }
        }
    }

    /// Of a command, which has no metrics: sent when it is dropped.
    #[must_use]
    pub fn of_a_command() -> Self {
        let counter = |name| IntCounter::new(name, "of one command");
        match (counter("dropped"), counter("left_out")) {
            (Ok(dropped), Ok(left_out)) => Self::from_env(
                CreationContext::default(),
                TRACES_PER_SECOND,
                Lost { dropped, left_out },
            ),
            _ => Self::default(),
        }
    }

    /// Sends what waits, for [`FLUSH_TIME_MAX`] at most; what is told afterwards is dropped.
    pub fn close(&self) {
        if let Some(on) = &self.0 {
            on.exporter.close(FLUSH_TIME_MAX);
        }
    }
}

/// How many messages may be traced that only their share has chosen: a host at full speed would spend
/// itself on the spans of messages that all look the same.
struct Allowance {
    rate: Rate,
    started: Instant,
    left_out: IntCounter,
}

impl Allowance {
    fn new(per_second: NonZeroU32, left_out: IntCounter) -> Self {
        // What was saved up may be traced at once: no more than a tenth of a second's.
        let tenth = NonZeroU32::new(per_second.get() / 10);
        let limit = RateLimit {
            count: tenth.unwrap_or(per_second),
            interval: Duration::from_millis(if tenth.is_some() { 100 } else { 1_000 }),
        };
        Self {
            rate: Rate::new(limit),
            started: Instant::now(),
            left_out,
        }
    }

    /// Takes one; false, and counted, when there is none.
    fn take(&self) -> bool {
        let now_ns = self.started.elapsed().as_nanos() as u64;
        let is_free = self.rate.take(1, now_ns).is_ok();
        if !is_free {
            self.left_out.inc();
        }
        is_free
    }
}

impl On {
    fn send(&self, span: SpanData) {
        self.exporter.send(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_messages_a_second_are_traced_than_traces_per_second_and_the_others_are_counted() {
        let left_out = IntCounter::new("left_out", "of a test").unwrap();
        let allowance = Allowance::new(NonZeroU32::new(50).unwrap(), left_out.clone());
        let began = (0..10_000).filter(|_| allowance.take()).count();
        let within = 5 + allowance.started.elapsed().as_millis() as usize / 20 + 1;
        assert!((5..=within).contains(&began), "{began} of {within}");
        assert_eq!(left_out.get() as usize, 10_000 - began);
        std::thread::sleep(Duration::from_millis(30));
        assert!(allowance.take());
    }
}
