//! One pipeline as its workers need it: policies and names resolved to indices, nothing that changes.

use crate::config::valid::{
    Delivery, Format, Idempotency, Isolation, OnLostOffset, Ordering, Retry, Window,
};
use crate::pipeline::output::HeaderRule;
use crate::pipeline::settlement::Target;

#[derive(Debug)]
pub struct Plan {
    pub pipeline: String,
    pub consumer_group: String,
    pub plugin_digest: String,
    pub delivery: Delivery,
    pub ordering: Ordering,
    pub retry: Retry,
    pub idempotency: Option<Idempotency>,
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
}

#[derive(Debug)]
pub struct SourceTopic {
    pub name: String,
    /// [`crate::pipeline::correlation::topic_hash`] of the name.
    pub hash: u64,
    pub dead_letter: Target,
}

#[derive(Debug)]
pub struct PlanOutput {
    pub name: String,
    pub target: Target,
    pub rule: HeaderRule,
}

impl Plan {
    /// The output a guest names.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&PlanOutput> {
        self.outputs.iter().find(|output| output.name == name)
    }
}
