//! Where a message waits for its next attempt: in its lane, or put aside in a topic of its own (§5.2). Pure.
//! Not here: whether there is another attempt (`verdict`), and what is written (`returned`).

use std::time::Duration;

use crate::connector::Connector;
use crate::faults;
use crate::pipeline::admit::original;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::plan::Step;
use crate::pipeline::returned::Returned;
use crate::pipeline::run::{Clock, Entry, Worker};
use crate::pipeline::verdict::{Reason, Report, time_left};

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// In its lane, or put aside (§5.2).
    pub(super) fn try_again(
        &mut self,
        entry: &Entry,
        report: &Report<'_>,
        delay: Duration,
        now_ms: i64,
    ) {
        let Some(origin) = self.defers_from(entry) else {
            self.retry(entry, report, delay.as_millis() as u64, now_ms);
            return;
        };
        // From now, not from before the call.
        let at_ms = self.clock.unix_ms();
        let first_failed_at_ms = self.first_failed_ms(entry).unwrap_or(now_ms);
        let left = time_left(&self.plan.retry, Some(first_failed_at_ms), at_ms);
        let topic = self.plan.topics.get(usize::from(origin));
        let step = topic.and_then(|topic| topic.step(delay, report.after(), left));
        let Some(step) = step else {
            self.dead_letter(entry, report, Reason::RetryTimeExhausted, now_ms);
            return;
        };
        if !self.put_aside(entry, origin, step, first_failed_at_ms, at_ms) {
            // It has so many headers that those of the host do not fit: it waits where it is.
            self.retry(entry, report, step.delay_ms, now_ms);
            return;
        }
        self.counts.retries += 1;
        self.log_failure(
            entry,
            report,
            "the attempt failed; the message is put aside and tried again",
            Some(step.delay_ms),
        );
        self.handler.discard();
        faults::point("put_aside");
        self.release_claim(entry);
        self.finish(entry);
    }

    /// The topic it came from, when its retries are deferred.
    fn defers_from(&self, entry: &Entry) -> Option<u16> {
        let partition = self.partitions.get(entry.delivery.partition as usize)?;
        let topic = self.plan.topics.get(usize::from(partition.topic))?;
        let origin = topic.origin(partition.topic);
        let defers = !self.plan.topics.get(usize::from(origin))?.steps.is_empty();
        defers.then_some(origin)
    }

    /// The attempt and the next try become durable with the message itself, in its new place. False when it
    /// has too many headers for that.
    fn put_aside(
        &mut self,
        entry: &Entry,
        origin: u16,
        step: Step,
        first_failed_at_ms: i64,
        at_ms: i64,
    ) -> bool {
        let Some(partition) = self.partitions.get(entry.delivery.partition as usize) else {
            return false;
        };
        let (Some(message), Some(topic)) = (
            partition.window.message(&entry.delivery),
            self.plan.topics.get(usize::from(origin)),
        ) else {
            return false;
        };
        let returned = entry.returned.as_deref();
        let known = Returned {
            attempts: entry.delivery.attempts + 1,
            due_ms: at_ms.saturating_add(i64::try_from(step.delay_ms).unwrap_or(i64::MAX)),
            first_failed_at_ms: Some(first_failed_at_ms),
            origin_topic: topic.name.clone(),
            origin_partition: partition.number,
            origin_offset: entry.offset(),
            redrive_count: returned.map_or(0, |returned| returned.redrive_count),
            dead_letter_id: returned.and_then(|returned| returned.dead_letter_id.clone()),
        };
        let Some(record) = known.record(&original(message, entry), &mut self.headers) else {
            return false;
        };
        self.settlement
            .publish_to(step.target, partition.number, &record);
        self.counts.publish(step.target);
        self.letter_waits(entry);
        true
    }
}
