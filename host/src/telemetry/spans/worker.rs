//! The spans of one worker: `receive`, `process` for each attempt, `send` for what it published, and
//! `settle`.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::trace::TraceState;
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::config::valid::CreationContext;
use crate::message::Headers;
use crate::pipeline::trace::{Attempt, Origin, Sampling, SpanRef, Times, Told};

use super::span::{Made, Operation, Parent};
use super::{On, Spans};

/// What all spans of a pipeline say. Shared by all of them: a span copies none of it.
#[derive(Debug)]
pub struct Described {
    pipeline: KeyValue,
    consumer_group: KeyValue,
    plugin_digest: KeyValue,
    targets: Vec<Arc<str>>,
}

impl Described {
    /// `targets` are the topics it publishes to, in the order of its plan.
    #[must_use]
    pub fn new<'a>(
        pipeline: &str,
        consumer_group: &str,
        plugin_digest: &str,
        targets: impl Iterator<Item = &'a str>,
    ) -> Self {
        let shared = |name, value: &str| KeyValue::new(name, Arc::<str>::from(value));
        Self {
            pipeline: shared("wasmill.pipeline", pipeline),
            consumer_group: shared("messaging.consumer.group.name", consumer_group),
            plugin_digest: shared("wasmill.plugin.digest", plugin_digest),
            targets: targets.map(Arc::from).collect(),
        }
    }
}

/// Owned by one worker.
pub struct WorkerSpans {
    on: Option<Arc<On>>,
    described: Arc<Described>,
    random: SmallRng,
}

impl WorkerSpans {
    #[must_use]
    pub fn new(spans: &Spans, described: Arc<Described>) -> Self {
        Self {
            on: spans.0.clone(),
            described,
            random: SmallRng::from_rng(&mut rand::rng()),
        }
    }

    /// `None` when tracing is off.
    #[must_use]
    pub fn sampling(&self) -> Option<&Sampling> {
        self.on.as_ref().map(|on| &on.sampling)
    }

    /// Whether another message may be traced that only its share has chosen.
    #[must_use]
    pub fn begins_trace(&self) -> bool {
        self.on.as_ref().is_some_and(|on| on.allowance.take())
    }

    /// The read that brought a message.
    pub fn received(&mut self, origin: &Origin<'_>, times: Times) {
        let Some(on) = self.on.clone() else { return };
        let at = SpanRef {
            trace: origin.trace,
            span: span_id(&mut self.random),
        };
        let made = Made::new(Operation::Receive, Some(origin.topic), at, None, times);
        let made = self.common(made, origin.partition.to_string());
        on.send(linked(made, origin).done());
    }

    /// One attempt; in the trace of its creation context or in one of its own with a link to it.
    pub fn attempted(&mut self, attempt: &Attempt<'_>) -> SpanRef {
        let span = span_id(&mut self.random);
        let origin = &attempt.origin;
        let nowhere = SpanRef {
            trace: origin.trace,
            span,
        };
        let Some(on) = self.on.clone() else {
            return nowhere;
        };
        let parent = origin
            .context
            .filter(|_| on.parent == CreationContext::Parent);
        let at = parent.map_or(nowhere, |context| SpanRef {
            trace: context.at.trace,
            span,
        });
        let above = parent.map(|context| Parent {
            span: context.at.span,
            is_remote: true,
        });
        let made = Made::new(
            Operation::Process,
            Some(origin.topic),
            at,
            above,
            attempt.times,
        );
        let mut made = self
            .common(made, origin.partition.to_string())
            .with(
                "messaging.message.conversation_id",
                attempt.correlation_id.to_owned(),
            )
            .with("messaging.batch.message_count", attempt.messages as i64)
            .with("wasmill.offset", origin.offset as i64)
            .with("wasmill.attempt", i64::from(attempt.number))
            .failed(attempt.failure);
        if parent.is_none() {
            made = linked(made, origin);
        }
        on.send(made.done());
        at
    }

    /// What was told is durable, with what it published.
    pub fn settled(&mut self, told: &[Told], times: Times) {
        let Some(on) = self.on.clone() else { return };
        let Some(first) = told.first() else { return };
        for told in told {
            for target in &told.sends {
                self.sent(&on, told.span, usize::from(*target), times);
            }
        }
        let at = SpanRef {
            trace: first.span.trace,
            span: span_id(&mut self.random),
        };
        let parent = Parent {
            span: first.span.span,
            is_remote: false,
        };
        let mut made = Made::new(Operation::Settle, None, at, Some(parent), times)
            .said(&self.described.consumer_group)
            .said(&self.described.pipeline)
            .with("messaging.batch.message_count", told.len() as i64);
        for told in told {
            made = made.linked(told.span, TraceState::NONE, false);
        }
        on.send(made.done());
    }

    fn sent(&mut self, on: &On, process: SpanRef, target: usize, times: Times) {
        let Some(topic) = self.described.targets.get(target) else {
            return;
        };
        let at = SpanRef {
            trace: process.trace,
            span: span_id(&mut self.random),
        };
        let parent = Parent {
            span: process.span,
            is_remote: false,
        };
        let made = Made::new(Operation::Send, Some(topic), at, Some(parent), times)
            .said(&self.described.pipeline);
        on.send(made.done());
    }

    fn common(&self, made: Made, partition: String) -> Made {
        let described = &self.described;
        made.with("messaging.destination.partition.id", partition)
            .said(&described.consumer_group)
            .said(&described.pipeline)
            .said(&described.plugin_digest)
    }
}

fn linked(made: Made, origin: &Origin<'_>) -> Made {
    match origin.context {
        Some(context) => made.linked(context.at, state(&origin.headers), true),
        None => made,
    }
}

/// `tracestate`, when it is well-formed.
pub(super) fn state(headers: &Headers<'_>) -> TraceState {
    let text = headers
        .last("tracestate")
        .and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Not 0, which stands for none.
pub(super) fn span_id(random: &mut SmallRng) -> u64 {
    random.random::<u64>().max(1)
}
