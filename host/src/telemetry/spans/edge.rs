//! Messages that enter at our edge (HTTP and command line): a `send` span each when they are sampled,
//! and `traceparent` written into those that have none, sampled or not (§12.1).

use std::sync::Arc;
use std::time::Instant;

use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use crate::message::HeadersBuf;
use crate::pipeline::correlation::{Correlation, topic_hash};
use crate::pipeline::trace::{Context, Failure, HEADER, SpanRef, Times};

use super::span::{Made, Operation, Parent};
use super::worker::span_id;
use super::{On, Spans};

/// What `traceparent` adds to a record: lengths, name, value.
const HEADER_BYTES: usize = 6 + 11 + 55;

/// One request to publish.
pub struct Publishing(Option<Traced>);

struct Traced {
    on: Arc<On>,
    random: SmallRng,
    begun: Instant,
    sent: Vec<Sent>,
}

struct Sent {
    at: SpanRef,
    parent: Option<Context>,
    partition: u32,
    /// Among the request's messages of its partition.
    place: u64,
    headers: HeadersBuf,
}

impl Spans {
    /// A request to publish begins.
    #[must_use]
    pub fn publishing(&self) -> Publishing {
        Publishing(self.0.clone().map(|on| Traced {
            on,
            random: SmallRng::from_rng(&mut rand::rng()),
            begun: Instant::now(),
            sent: Vec::new(),
        }))
    }
}

impl Publishing {
    /// Decides about a message that is going to be published, with so much `room` for another header, and
    /// writes the decision into it, also when it is no: whoever reads the message would decide anew. It
    /// never makes a message too large: then it is not traced here.
    #[must_use]
    pub fn message(&mut self, headers: &mut HeadersBuf, room: usize) -> Option<Sending> {
        let traced = self.0.as_mut()?;
        let parent = Context::of(&headers.as_headers());
        let is_there = headers.as_headers().last(HEADER).is_some();
        let own: u128 = traced.random.random::<u128>().max(1);
        let sampling = &traced.on.sampling;
        let goes_on = sampling.parent_based && parent.is_some() || sampling.takes_all();
        let is_sampled =
            sampling.samples(parent.as_ref(), own) && (goes_on || traced.on.allowance.take());
        let at = SpanRef {
            trace: parent.map_or(own, |context| context.at.trace),
            span: span_id(&mut traced.random),
        };
        // One that is there goes untouched, whatever it says.
        let is_written = is_there
            || (room >= HEADER_BYTES
                && headers.push(HEADER, Some(at.traceparent(is_sampled).as_bytes())));
        (is_sampled && is_written).then_some(Sending { at, parent })
    }

    /// Where it goes.
    pub fn goes(
        &mut self,
        sending: Option<Sending>,
        partition: u32,
        place: u64,
        headers: &HeadersBuf,
    ) {
        if let (Some(traced), Some(Sending { at, parent })) = (&mut self.0, sending) {
            traced.sent.push(Sent {
                at,
                parent,
                partition,
                place,
                headers: headers.clone(),
            });
        }
    }

    /// All are durable, or none for this reason; `first_offset` of a partition.
    pub fn ended(
        self,
        topic: &str,
        error: Option<&str>,
        first_offset: impl Fn(u32) -> Option<u64>,
    ) {
        let Some(traced) = self.0 else { return };
        let times = Times {
            begun_ns: 0,
            ended_ns: traced.begun.elapsed().as_nanos() as u64,
            now_ns: traced.begun.elapsed().as_nanos() as u64,
        };
        let hash = topic_hash(topic);
        for sent in traced.sent {
            let parent = sent.parent.map(|context| Parent {
                span: context.at.span,
                is_remote: true,
            });
            let mut made = Made::new(Operation::Send, Some(topic), sent.at, parent, times)
                .with(
                    "messaging.destination.partition.id",
                    sent.partition.to_string(),
                )
                .failed(error.map(|error| Failure {
                    kind: "not_durable",
                    error,
                }));
            if let Some(first) = first_offset(sent.partition) {
                let offset = first + sent.place;
                let headers = sent.headers.as_headers();
                let correlation = Correlation::of(&headers, hash, sent.partition, offset);
                made = made.with("wasmill.offset", offset as i64).with(
                    "messaging.message.conversation_id",
                    correlation.text(&headers).to_owned(),
                );
            }
            traced.on.send(made.done());
        }
    }
}

/// A message that is sampled, on its way into a request.
#[derive(Debug, Clone, Copy)]
pub struct Sending {
    at: SpanRef,
    parent: Option<Context>,
}
