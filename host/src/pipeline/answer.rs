//! Answering (§8): where a message's answer goes, the answer that a duplicate gets, and what is said of
//! answers that go nowhere. Not here: what an answer holds (`reply`), and the outputs that are none
//! (`judge`).

use crate::connector::Connector;
use crate::message::MessageRef;
use crate::pipeline::admit::original;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::output::HeaderRule;
use crate::pipeline::plan::Plan;
use crate::pipeline::reply::{self, Dropped};
use crate::pipeline::run::{Clock, Entry, Worker};
use crate::pipeline::settlement::Target;

/// An answer copies no headers of its question but those that every output does.
pub(super) const NO_HEADERS: HeaderRule = HeaderRule(Vec::new());

/// Between two warnings of a worker about answers that go nowhere; there may be one a message.
const WARN_EVERY_MS: i64 = 10_000;

/// Says of which messages the answer was dropped; all of them at debug, now and then one as a warning.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// Unix ms.
    warned_ms: Option<i64>,
    /// Since then.
    unsaid: u64,
}

impl Drops {
    pub(super) fn log(&mut self, plan: &Plan, why: Dropped, correlation_id: &str, now_ms: i64) {
        let pipeline = plan.pipeline.as_str();
        let (reason, unsaid) = (why.as_str(), self.unsaid);
        if self.warns(now_ms) {
            tracing::warn!(
                pipeline,
                correlation_id,
                reason,
                unsaid,
                "an answer was dropped: {}",
                why.advice()
            );
        } else {
            tracing::debug!(pipeline, correlation_id, reason, "an answer was dropped");
        }
    }

    fn warns(&mut self, now_ms: i64) -> bool {
        // A clock that was set back must not silence it.
        let is_recent = |warned: i64| (0..WARN_EVERY_MS).contains(&now_ms.saturating_sub(warned));
        if self.warned_ms.is_some_and(is_recent) {
            self.unsaid += 1;
            return false;
        }
        *self = Self {
            warned_ms: Some(now_ms),
            unsaid: 0,
        };
        true
    }
}

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// A duplicate is answered from the record of the first (§8.2): where it asks for it, under its own
    /// correlation ID. False: it goes nowhere.
    pub(super) fn answer_again(&mut self, entry: &Entry, record: &[u8]) -> bool {
        let partition = self.partitions.get(entry.delivery.partition as usize);
        let message = partition.and_then(|partition| partition.window.message(&entry.delivery));
        let (Some(message), Ok((stored, _))) = (message, MessageRef::read_record(record)) else {
            return false;
        };
        let message = original(message, entry);
        let correlation_id = entry.correlation.text(&message.headers);
        let answered = answer_to(&self.plan, &mut self.connector, &message).and_then(|target| {
            let answer = reply::again(&stored, &message, correlation_id, &mut self.headers)
                .filter(|answer| {
                    answer.record_len() <= self.connector.record_bytes_max(usize::from(target))
                })
                .ok_or(Dropped::TooLarge)?;
            self.settlement.publish(target, &answer);
            Ok(())
        });
        if let Err(why) = &answered {
            self.counts.drop_reply(*why);
            let now = self.unix_ms;
            self.drops.log(&self.plan, *why, correlation_id, now);
        }
        answered.is_ok()
    }
}

pub(super) fn answer_to<C: Connector>(
    plan: &Plan,
    connector: &mut C,
    message: &MessageRef<'_>,
) -> Result<Target, Dropped> {
    let topic = plan.reply.topic(message)?;
    connector.reply_target(topic).ok_or(Dropped::NoTopic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_go_nowhere_are_said_now_and_then() {
        let mut drops = Drops::default();
        let said: Vec<bool> = [0, 1, 9_999, 10_000, 10_001, 5_000]
            .into_iter()
            .map(|now_ms| drops.warns(now_ms))
            .collect();
        // The last: the clock was set back.
        assert_eq!(said, [true, false, false, true, false, true]);
    }
}
