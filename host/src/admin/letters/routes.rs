//! The routes of dead letters, redrives, single messages and the audit trail. Not here: who may call
//! them (`admin/guard.rs`).

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::close::Verb;
use super::wire::{
    CloseReply, CloseRequest, DeadLetter, DeadLetterFilter, DeadLetterList, FailureGroupList, Job,
    MessageFacts, RedrivePreview, RedriveRequest,
};
use crate::admin::audit::{self, AUDIT_ENTRIES_MAX, AuditEntry};
use crate::admin::console::Console;
use crate::admin::lanes::Lane;
use crate::admin::routes::{Asked, Reply, Shared, Wanted, answer, json_of, path_of, query_of};

type Body = Result<Bytes, BytesRejection>;

pub(in crate::admin) fn described() -> OpenApiRouter<Arc<Console>> {
    OpenApiRouter::new()
        .routes(routes!(dead_letters))
        .routes(routes!(groups))
        .routes(routes!(dead_letter))
        .routes(routes!(dead_letter_at))
        .routes(routes!(resolve))
        .routes(routes!(purge))
        .routes(routes!(preview))
        .routes(routes!(redrive))
        .routes(routes!(jobs))
        .routes(routes!(job))
        .routes(routes!(cancel))
        .routes(routes!(message))
        .routes(routes!(audit_trail))
}

#[utoipa::path(
    get,
    path = "/v1/dlq",
    params(DeadLetterFilter),
    responses((status = OK, body = DeadLetterList, description = "dead letters, newest first")),
)]
async fn dead_letters(
    State(console): Shared,
    query: Asked<DeadLetterFilter>,
) -> Reply<DeadLetterList> {
    let filter = query_of(query)?;
    answer(console, Lane::Read, move |console| {
        console.dead_letters(&filter)
    })
    .await
}

#[utoipa::path(
    get,
    path = "/v1/dlq/groups",
    params(DeadLetterFilter),
    responses((status = OK, body = FailureGroupList, description = "dead letters by what went wrong, the largest group first")),
)]
async fn groups(State(console): Shared, query: Asked<DeadLetterFilter>) -> Reply<FailureGroupList> {
    let filter = query_of(query)?;
    answer(console, Lane::Read, move |console| {
        console.failure_groups(&filter)
    })
    .await
}

#[utoipa::path(
    get,
    path = "/v1/dlq/{id}",
    params(("id" = String, Path)),
    responses((status = OK, body = DeadLetter, description = "the newest dead letter with this ID")),
)]
async fn dead_letter(State(console): Shared, path: Wanted<String>) -> Reply<DeadLetter> {
    let id = path_of(path)?;
    answer(console, Lane::Read, move |console| console.dead_letter(&id)).await
}

#[utoipa::path(
    get,
    path = "/v1/dlq/{topic}/{partition}/{offset}",
    params(("topic" = String, Path), ("partition" = u32, Path), ("offset" = u64, Path)),
    responses((status = OK, body = DeadLetter, description = "the dead letter at this place")),
)]
async fn dead_letter_at(
    State(console): Shared,
    path: Wanted<(String, u32, u64)>,
) -> Reply<DeadLetter> {
    let (topic, partition, offset) = path_of(path)?;
    answer(console, Lane::Read, move |console| {
        console.dead_letter_at(&topic, partition, offset)
    })
    .await
}

#[utoipa::path(
    post,
    path = "/v1/dlq/resolve",
    request_body = CloseRequest,
    responses((status = OK, body = CloseReply, description = "how many are resolved now; ask again while there are more")),
)]
async fn resolve(State(console): Shared, headers: HeaderMap, body: Body) -> Reply<CloseReply> {
    close(console, Verb::Resolve, &headers, body).await
}

#[utoipa::path(
    post,
    path = "/v1/dlq/purge",
    request_body = CloseRequest,
    responses((status = OK, body = CloseReply, description = "how many are discarded now; ask again while there are more")),
)]
async fn purge(State(console): Shared, headers: HeaderMap, body: Body) -> Reply<CloseReply> {
    close(console, Verb::Purge, &headers, body).await
}

async fn close(
    console: Arc<Console>,
    verb: Verb,
    headers: &HeaderMap,
    body: Body,
) -> Reply<CloseReply> {
    let request: CloseRequest = json_of(headers, body)?;
    let who = audit::who(headers);
    answer(console, Lane::Write, move |console| {
        console.close_dead_letters(verb, &request, who)
    })
    .await
}

#[utoipa::path(
    post,
    path = "/v1/dlq/redrive/preview",
    request_body = RedriveRequest,
    responses((status = OK, body = RedrivePreview, description = "what the redrive would do; nothing is changed")),
)]
async fn preview(State(console): Shared, headers: HeaderMap, body: Body) -> Reply<RedrivePreview> {
    let request: RedriveRequest = json_of(&headers, body)?;
    answer(console, Lane::Read, move |console| {
        console.preview_redrive(&request)
    })
    .await
}

#[utoipa::path(
    post,
    path = "/v1/dlq/redrive",
    request_body = RedriveRequest,
    responses((status = OK, body = Job, description = "the redrive, started and durable")),
)]
async fn redrive(State(console): Shared, headers: HeaderMap, body: Body) -> Reply<Job> {
    let request: RedriveRequest = json_of(&headers, body)?;
    let who = audit::who(&headers);
    answer(console, Lane::Write, move |console| {
        console.start_redrive(&request, who)
    })
    .await
}

#[utoipa::path(
    get,
    path = "/v1/dlq/jobs",
    responses((status = OK, body = Vec<Job>, description = "redrives, the newest first")),
)]
async fn jobs(State(console): Shared) -> Reply<Vec<Job>> {
    answer(console, Lane::Read, |console| console.jobs()).await
}

#[utoipa::path(
    get,
    path = "/v1/dlq/jobs/{job}",
    params(("job" = String, Path)),
    responses((status = OK, body = Job, description = "how the redrive stands")),
)]
async fn job(State(console): Shared, path: Wanted<String>) -> Reply<Job> {
    let id = path_of(path)?;
    answer(console, Lane::Read, move |console| console.job(&id)).await
}

#[utoipa::path(
    post,
    path = "/v1/dlq/jobs/{job}/cancel",
    params(("job" = String, Path)),
    responses((status = OK, body = Job, description = "the redrive, ended: what it has sent goes on")),
)]
async fn cancel(State(console): Shared, path: Wanted<String>, headers: HeaderMap) -> Reply<Job> {
    let id = path_of(path)?;
    let who = audit::who(&headers);
    answer(console, Lane::Write, move |console| {
        console.cancel_redrive(&id, who)
    })
    .await
}

#[utoipa::path(
    get,
    path = "/v1/messages/{topic}/{partition}/{offset}",
    params(("topic" = String, Path), ("partition" = u32, Path), ("offset" = u64, Path)),
    responses((status = OK, body = MessageFacts, description = "the message, and what the host knows of it")),
)]
async fn message(State(console): Shared, path: Wanted<(String, u32, u64)>) -> Reply<MessageFacts> {
    let (topic, partition, offset) = path_of(path)?;
    answer(console, Lane::Read, move |console| {
        console.message_facts(&topic, partition, offset)
    })
    .await
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// At most this many, the newest. All that are kept when absent.
    limit: Option<usize>,
}

#[utoipa::path(
    get,
    path = "/v1/audit",
    params(AuditQuery),
    responses((status = OK, body = Vec<AuditEntry>, description = "who did what, the newest first")),
)]
async fn audit_trail(State(console): Shared, query: Asked<AuditQuery>) -> Reply<Vec<AuditEntry>> {
    let limit = query_of(query)?.limit.unwrap_or(AUDIT_ENTRIES_MAX);
    answer(console, Lane::Read, move |console| console.audit(limit)).await
}
