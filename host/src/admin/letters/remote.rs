//! Dead letters of a running host, asked over its admin port.

use super::close::Verb;
use super::wire::{
    CloseReply, CloseRequest, DeadLetter, DeadLetterFilter, DeadLetterList, FailureGroupList, Job,
    MessageFacts, RedrivePreview, RedriveRequest,
};
use crate::admin::audit::AuditEntry;
use crate::admin::error::Error;
use crate::admin::remote::{Remote, segment};

impl Remote {
    pub fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<DeadLetterList, Error> {
        self.get("/v1/dlq", &query(filter))
    }

    pub fn failure_groups(&self, filter: &DeadLetterFilter) -> Result<FailureGroupList, Error> {
        self.get("/v1/dlq/groups", &query(filter))
    }

    pub fn dead_letter(&self, id: &str) -> Result<DeadLetter, Error> {
        self.get(&format!("/v1/dlq/{}", segment(id)), &[])
    }

    pub fn dead_letter_at(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
    ) -> Result<DeadLetter, Error> {
        let path = format!("/v1/dlq/{}/{partition}/{offset}", segment(topic));
        self.get(&path, &[])
    }

    pub fn close_dead_letters(
        &self,
        verb: Verb,
        request: &CloseRequest,
    ) -> Result<CloseReply, Error> {
        let path = match verb {
            Verb::Resolve => "/v1/dlq/resolve",
            Verb::Purge => "/v1/dlq/purge",
        };
        self.post(path, request)
    }

    pub fn preview_redrive(&self, request: &RedriveRequest) -> Result<RedrivePreview, Error> {
        self.post("/v1/dlq/redrive/preview", request)
    }

    pub fn start_redrive(&self, request: &RedriveRequest) -> Result<Job, Error> {
        self.post("/v1/dlq/redrive", request)
    }

    pub fn jobs(&self) -> Result<Vec<Job>, Error> {
        self.get("/v1/dlq/jobs", &[])
    }

    pub fn job(&self, id: &str) -> Result<Job, Error> {
        self.get(&format!("/v1/dlq/jobs/{}", segment(id)), &[])
    }

    pub fn cancel_redrive(&self, id: &str) -> Result<Job, Error> {
        self.post(&format!("/v1/dlq/jobs/{}/cancel", segment(id)), &())
    }

    pub fn message_facts(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
    ) -> Result<MessageFacts, Error> {
        let path = format!("/v1/messages/{}/{partition}/{offset}", segment(topic));
        self.get(&path, &[])
    }

    pub fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, Error> {
        self.get("/v1/audit", &[("limit", limit.to_string())])
    }
}

/// The filter as a query: its fields as JSON names them.
fn query(filter: &DeadLetterFilter) -> Vec<(&'static str, String)> {
    let DeadLetterFilter {
        topic,
        pipeline,
        consumer_group,
        failure_group,
        reason,
        key,
        plugin,
        from_ms,
        until_ms,
        state,
        limit,
        scan,
    } = filter.clone();
    let state = serde_json::to_value(state).ok();
    let number = |number: Option<i64>| number.map(|number| number.to_string());
    [
        ("topic", topic),
        ("pipeline", pipeline),
        ("consumer_group", consumer_group),
        ("failure_group", failure_group),
        ("reason", reason),
        ("key", key),
        ("plugin", plugin),
        ("from_ms", number(from_ms)),
        ("until_ms", number(until_ms)),
        (
            "state",
            state.and_then(|state| state.as_str().map(ToOwned::to_owned)),
        ),
        ("limit", limit.map(|limit| limit.to_string())),
        ("scan", scan.map(|scan| scan.to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
