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

    /// The step in which a message waits for `delay` at least, or for the longest there is.
    #[must_use]
    pub fn step(&self, delay: Duration) -> Option<Step> {
        let fits = |step: &&Step| Duration::from_millis(step.delay_ms) >= delay;
        self.steps.iter().find(fits).or(self.steps.last()).copied()
    }
}

impl Plan {
    /// The output a guest names.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&PlanOutput> {
        self.outputs.iter().find(|output| output.name == name)
    }
}
