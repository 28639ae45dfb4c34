//! One pipeline as its workers need it: policies and names resolved to indices, nothing that changes.

use std::time::Duration;

use crate::config::valid::{
    Delivery, Format, Idempotency, Isolation, OnLostOffset, Ordering, Retry, Sequence, Window,
};
use crate::expression::{Condition, Expression};
use crate::pipeline::output::HeaderRule;
use crate::pipeline::reply::ReplyRule;
use crate::pipeline::settlement::Target;

/// Messages in one call of a handler that only computes.
pub const BATCH_DEFAULT: u32 = 256;

#[derive(Debug)]
pub struct Plan {
    pub pipeline: String,
    pub consumer_group: String,
    pub plugin_digest: String,
    pub delivery: Delivery,
    pub ordering: Ordering,
    pub retry: Retry,
    pub idempotency: Option<Idempotency>,
    pub filter: Option<Condition>,
    pub sequence: Option<Sequence>,
    pub format: Format,
    pub on_lost_offset: OnLostOffset,
    pub window: Window,
    pub isolation: Isolation,
    /// Messages in one call at most.
    pub batch_max: u32,
    /// The handler may write state: its writes of a call are those of one message, so a call has one.
    pub has_state: bool,
    pub topics: Vec<SourceTopic>,
    pub outputs: Vec<PlanOutput>,
    pub reply: ReplyRule,
}

/// What a topic of a pipeline is to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One of `source.topics`.
    Source,
    /// Messages of the source topic with this index that wait until they are due, each for so long, ms.
    Retries { of: u16, delay_ms: u64 },
    /// Dead letters of the source topic with this index on their way back.
    Redrives { of: u16 },
}

/// A step of the ladder of deferred retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub delay_ms: u64,
    pub target: Target,
}

#[derive(Debug)]
pub struct SourceTopic {
    pub name: String,
    pub role: Role,
    /// [`crate::pipeline::correlation::topic_hash`] of the name.
    pub hash: u64,
    pub dead_letter: Target,
    /// `retry.mode: deferred`: where messages are put aside, by delay, ascending.
    pub steps: Vec<Step>,
}

#[derive(Debug)]
pub struct PlanOutput {
    pub name: String,
    pub target: Target,
    pub rule: HeaderRule,
    /// Of the input; instead of the key that the guest gives.
    pub key: Option<Expression>,
    /// Headers with values made of the input.
    pub set_headers: Vec<(String, Expression)>,
}

impl SourceTopic {
    /// The index of the topic from which its messages came first; `own` is that of this one.
    #[must_use]
    pub const fn origin(&self, own: u16) -> u16 {
        match self.role {
            Role::Source => own,
            Role::Retries { of, .. } | Role::Redrives { of } => of,
        }
    }

    /// The step in which a message waits for `delay` at least, or for the longest there is; when that is more
    /// than what is `left`, the longest that is not, unless that is less than the handler asked for (`after`).
    #[must_use]
    pub fn step(&self, delay: Duration, after: Duration, left: Option<Duration>) -> Option<Step> {
        let wait = |step: &Step| Duration::from_millis(step.delay_ms);
        let up = self.steps.iter().find(|step| wait(step) >= delay);
        let up = up.or(self.steps.last());
        let ends = |step: &Step| left.is_none_or(|left| wait(step) <= left);
        let found = if up.is_some_and(ends) {
            up
        } else {
            let mut shorter = self.steps.iter().rev();
            shorter
                .find(|step| ends(step))
                .filter(|step| wait(step) >= after)
        };
        found.copied()
    }
}

impl Plan {
    /// The output a guest names.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&PlanOutput> {
        self.outputs.iter().find(|output| output.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// §5.1, §5.2: the ladder rounds up, and never past `max_elapsed`.
    #[test]
    fn a_step_is_rounded_up_but_never_past_the_time_that_is_left() {
        let topic = SourceTopic {
            name: "in".to_owned(),
            role: Role::Source,
            hash: 0,
            dead_letter: 0,
            steps: [2, 8, 60]
                .into_iter()
                .map(|s| Step {
                    delay_ms: s * 1_000,
                    target: 1,
                })
                .collect(),
        };
        let s = Duration::from_secs;
        let step = |delay, after, left: Option<u64>| {
            let found = topic.step(s(delay), s(after), left.map(s));
            found.map(|step| step.delay_ms / 1_000)
        };
        assert_eq!(step(2, 0, None), Some(2));
        assert_eq!(step(3, 3, None), Some(8));
        assert_eq!(step(3_600, 3_600, None), Some(60));
        assert_eq!(step(8, 0, Some(8)), Some(8));
        // The last try comes early rather than late.
        assert_eq!(step(7, 0, Some(7)), Some(2));
        assert_eq!(step(20, 0, Some(59)), Some(8));
        // Not earlier than the handler asked for.
        assert_eq!(step(7, 5, Some(7)), None);
        assert_eq!(step(7, 2, Some(7)), Some(2));
        assert_eq!(step(1, 0, Some(1)), None);
    }
}
