//! Names and attributes of spans, after OpenTelemetry's messaging conventions. Text from messages is cut.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::pipeline::trace::{Failure, SpanRef, Times};

/// Of an error's text, bytes.
pub(super) const TEXT_BYTES_MAX: usize = 1024;

/// As many as the span of a failed attempt has.
const ATTRIBUTES: usize = 14;

/// What a span does, as `messaging.operation.name` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Send,
    Receive,
    Process,
    Settle,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Receive => "receive",
            Self::Process => "process",
            Self::Settle => "settle",
        }
    }

    const fn kind(self) -> SpanKind {
        match self {
            Self::Send => SpanKind::Producer,
            Self::Receive | Self::Settle => SpanKind::Client,
            Self::Process => SpanKind::Consumer,
        }
    }
}

/// A span that is being made.
pub(super) struct Made(SpanData);

impl Made {
    /// `at` is its own place; `parent` lies in the same trace.
    pub(super) fn new(
        operation: Operation,
        destination: Option<&str>,
        at: SpanRef,
        parent: Option<Parent>,
        times: Times,
    ) -> Self {
        let now = SystemTime::now();
        let ago = |ns: u64| {
            let past = Duration::from_nanos(times.now_ns.saturating_sub(ns));
            now.checked_sub(past).unwrap_or(now)
        };
        let mut attributes = Vec::with_capacity(ATTRIBUTES);
        attributes.extend([
            KeyValue::new("messaging.system", "wasmill"),
            KeyValue::new("messaging.operation.name", operation.name()),
            KeyValue::new("messaging.operation.type", operation.name()),
        ]);
        let name = match destination {
            Some(topic) => {
                attributes.push(KeyValue::new(
                    "messaging.destination.name",
                    topic.to_owned(),
                ));
                Cow::Owned(format!("{} {topic}", operation.name()))
            }
            None => Cow::Borrowed(operation.name()),
        };
        Self(SpanData {
            span_context: context(at, TraceState::NONE, false),
            parent_span_id: parent.map_or(SpanId::INVALID, |p| SpanId::from(p.span)),
            parent_span_is_remote: parent.is_some_and(|p| p.is_remote),
            span_kind: operation.kind(),
            name,
            start_time: ago(times.begun_ns),
            end_time: ago(times.ended_ns),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: scope(),
        })
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.attributes.push(KeyValue::new(name, value));
        self
    }

    /// With what many spans say.
    pub(super) fn said(mut self, attribute: &KeyValue) -> Self {
        self.0.attributes.push(attribute.clone());
        self
    }

    pub(super) fn linked(mut self, to: SpanRef, state: TraceState, is_remote: bool) -> Self {
        let link = Link::with_context(context(to, state, is_remote));
        self.0.links.links.push(link);
        self
    }

    pub(super) fn failed(mut self, failure: Option<Failure<'_>>) -> Self {
        if let Some(failure) = failure {
            self.0.status = Status::error(cut(failure.error).to_owned());
            return self.with("error.type", failure.kind.to_owned());
        }
        self
    }

    pub(super) fn done(self) -> SpanData {
        self.0
    }
}

/// The parent of a span.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parent {
    pub(super) span: u64,
    /// Of another process.
    pub(super) is_remote: bool,
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("wasmill")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

fn context(at: SpanRef, state: TraceState, is_remote: bool) -> SpanContext {
    SpanContext::new(
        TraceId::from(at.trace),
        SpanId::from(at.span),
        TraceFlags::SAMPLED,
        is_remote,
        state,
    )
}

/// At most [`TEXT_BYTES_MAX`] bytes of it.
fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_BYTES_MAX))
        .unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_cut_at_text_bytes_max_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = format!("{}ü", "x".repeat(TEXT_BYTES_MAX - 1));
        assert_eq!(cut(&long), "x".repeat(TEXT_BYTES_MAX - 1));
    }

    #[test]
    fn times_of_the_workers_clock_become_times_of_the_wall() {
        let times = Times {
            begun_ns: 1_000,
            ended_ns: 5_001_000,
            now_ns: 6_001_000,
        };
        let at = SpanRef { trace: 1, span: 2 };
        let span = Made::new(Operation::Process, Some("orders"), at, None, times).done();
        let took = span.end_time.duration_since(span.start_time).unwrap();
        assert_eq!(took, Duration::from_millis(5));
        assert_eq!(span.name, "process orders");
        assert_eq!(span.span_kind, SpanKind::Consumer);
    }
}
