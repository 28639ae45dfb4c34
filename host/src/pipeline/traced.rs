//! What a worker tells its observer of messages that are traced: those that are sampled, and every
//! failure (§12.1). One that is not costs no allocation. Not here: spans (`telemetry/spans`). Pure.

use crate::connector::Connector;
use crate::pipeline::admit::Looked;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::run::{Clock, Entry, Work, Worker};
use crate::pipeline::settlement::Mark;
use crate::pipeline::trace::{
    Attempt, Context, Failure, Origin, SENDS_MAX, SETTLEMENT_SPANS_MAX, Times, Told, trace_of,
};
use crate::pipeline::verdict::Report;
use crate::pipeline::window::Delivery;

/// The last read of a partition, in nanoseconds of the worker's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct LastRead {
    pub from_offset: u64,
    pub begun_ns: u64,
    pub ended_ns: u64,
    /// Nobody has been told of it.
    pub is_new: bool,
}

/// An attempt that was told, and where in the settlement its publishes begin.
pub(super) struct Tracing(Told, Mark);

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// Whether a message is traced although nothing fails.
    pub(super) fn samples(&self, delivery: &Delivery, looked: &Looked<'_>) -> bool {
        let Some(sampling) = self.observer.sampling() else {
            return false;
        };
        let partition = self.partitions.get(delivery.partition as usize);
        let origin = self.plan.topics.get(usize::from(looked.topic));
        let (Some(partition), Some(origin)) = (partition, origin) else {
            return false;
        };
        let context = Context::of(&looked.message.headers);
        let trace = trace_of(origin.hash, self.reader, partition.number, looked.offset);
        let is_chosen = sampling.samples(context.as_ref(), trace);
        // What another has begun to trace goes on, and all are all.
        let goes_on = sampling.parent_based && context.is_some() || sampling.takes_all();
        is_chosen && (goes_on || self.observer.begins_trace())
    }

    /// Tells of an attempt before its consequences.
    pub(super) fn trace_attempt(&mut self, entry: &Entry, report: &Report<'_>) -> Option<Tracing> {
        self.observer.sampling()?;
        let failure = failure(report);
        // Here, where it came from, or uncharged: whoever was told of that sees how it ends.
        let has_failed = failure.is_some()
            || entry.delivery.attempts > 0
            || entry.delivery.has_waited
            || entry.returned.is_some();
        if !entry.is_sampled && !has_failed {
            return None;
        }
        let Self {
            partitions,
            plan,
            observer,
            batch,
            clock,
            reader,
            called_ns,
            judged_from,
            ..
        } = self;
        let partition = partitions.get_mut(entry.delivery.partition as usize)?;
        let message = partition.window.message(&entry.delivery)?;
        let read_from = plan.topics.get(usize::from(partition.topic))?;
        let topic = match entry.returned {
            Some(_) => plan
                .topics
                .get(usize::from(read_from.origin(partition.topic)))?,
            None => read_from,
        };
        let context = Context::of(&message.headers);
        let trace = trace_of(topic.hash, *reader, partition.number, entry.offset());
        let now_ns = clock.monotonic_ns();
        let (begun_ns, ended_ns) = match entry.work {
            Work::Call => *called_ns,
            Work::Duplicate(_)
            | Work::Filtered
            | Work::Expired
            | Work::Stale
            | Work::Refuse(..) => (now_ns, now_ns),
        };
        let origin = Origin {
            topic: &topic.name,
            partition: partition.number,
            offset: entry.offset(),
            context,
            headers: message.headers,
            trace,
        };
        let offset = entry.delivery.offset;
        if let Some(read) = partition.last_read.as_mut()
            && read.is_new
            && entry.delivery.attempts == 0
            && offset >= read.from_offset
        {
            read.is_new = false;
            let times = Times {
                begun_ns: read.begun_ns,
                ended_ns: read.ended_ns,
                now_ns,
            };
            observer.received(&origin, times);
        }
        let span = observer.attempted(&Attempt {
            correlation_id: entry.correlation.text(&message.headers),
            origin,
            number: entry.delivery.attempts + 1,
            messages: batch.len(),
            times: Times {
                begun_ns,
                ended_ns,
                now_ns,
            },
            failure,
        });
        let sends = Vec::new();
        Some(Tracing(Told { span, sends }, *judged_from))
    }

    /// What the attempt published goes with its settlement.
    pub(super) fn trace_consequences(&mut self, tracing: Option<Tracing>) {
        let Some(Tracing(mut told, mark)) = tracing else {
            return;
        };
        if self.after.told.len() >= SETTLEMENT_SPANS_MAX {
            return;
        }
        let published = self.settlement.published_since(mark).iter();
        told.sends
            .extend(published.map(|one| one.target).take(SENDS_MAX));
        self.after.told.push(told);
    }
}

fn failure<'r>(report: &Report<'r>) -> Option<Failure<'r>> {
    let (kind, error) = match *report {
        Report::Success => return None,
        Report::Retryable { reason, .. } => ("retryable", reason),
        Report::Rejected { reason } => ("rejected", reason),
        Report::Fault { kind, message } => (kind, message),
        Report::Refused { reason, error } => (reason.as_str(), error),
        Report::NoInstance { message } => ("no_instance", message),
        Report::HostFailure { message } => ("host_failure", message),
    };
    Some(Failure { kind, error })
}
