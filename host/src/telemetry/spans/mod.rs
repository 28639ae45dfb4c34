//! Spans of messages (§12.1), exported over OTLP: `settings.rs` reads the `OTEL_…` variables,
//! `span.rs` gives spans their names and attributes, `worker.rs` makes those of a pipeline's worker,
//! `edge.rs` those of messages that enter at our ports and commands, `export.rs` sends them from a
//! thread of its own. Nothing here waits for a receiver: what finds the queue full is dropped and counted.

mod edge;
mod export;
mod settings;
mod span;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;
use prometheus::IntCounter;

use crate::config::valid::CreationContext;
use crate::pipeline::trace::Sampling;

pub use edge::{Publishing, Sending};
use export::Exporter;
use settings::Settings;
pub use worker::{Described, WorkerSpans};

/// Spans that wait to be sent, when `OTEL_BSP_MAX_QUEUE_SIZE` does not say.
pub const QUEUE_SPANS_MAX: usize = 2048;
/// How long the end of the process waits for spans to be sent.
pub const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// Where spans go; cheap to clone. Off, it costs one branch.
#[derive(Clone, Default)]
pub struct Spans(Option<Arc<On>>);

struct On {
    sampling: Sampling,
    parent: CreationContext,
    exporter: Exporter,
}

impl Spans {
    /// As the environment says; off without an endpoint, and with a line in the log when what it says
    /// cannot be done. `dropped` counts spans that no receiver got.
    #[must_use]
    pub fn from_env(parent: CreationContext, dropped: IntCounter) -> Self {
        let settings = match Settings::read(|name| std::env::var(name).ok()) {
            Ok(Some(settings)) => settings,
            Ok(None) => return Self::default(),
            Err(why) => {
                tracing::error!("tracing is off: {why}");
                return Self::default();
            }
        };
        let sampling = settings.sampling;
        match Exporter::start(settings, dropped) {
            Ok(exporter) => Self(Some(Arc::new(On {
                sampling,
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
        match IntCounter::new("spans_dropped_total", "spans that no receiver got") {
            Ok(dropped) => Self::from_env(CreationContext::default(), dropped),
            Err(_) => Self::default(),
        }
    }

    /// Sends what waits, for [`FLUSH_TIME_MAX`] at most; what is told afterwards is dropped.
    pub fn close(&self) {
        if let Some(on) = &self.0 {
            on.exporter.close(FLUSH_TIME_MAX);
        }
    }
}

impl On {
    fn send(&self, span: SpanData) {
        self.exporter.send(span);
    }
}
