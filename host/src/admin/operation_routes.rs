//! The routes by which an operator changes a running host: what `operations.rs` and `seek.rs` describe. The
//! verbs of a pipeline stand behind a slash.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::console::Console;
use super::error::{Code, Error};
use super::lanes::Lane;
use super::operations::{Changes, Order, RejectRequest, ReloadRequest};
use super::routes::{Reply, Shared, Wanted, answer, json_of, path_of};
use super::seek::{SeekReply, SeekRequest};
use crate::expression::nearest;
use crate::pipeline::snapshot::{PartitionSnapshot, Snapshot};

type Body = Result<Bytes, BytesRejection>;

pub(super) fn described() -> OpenApiRouter<Arc<Console>> {
    OpenApiRouter::new()
        .routes(routes!(pipelines))
        .routes(routes!(pipeline))
        .routes(routes!(partitions))
        .routes(routes!(pause))
        .routes(routes!(drain))
        .routes(routes!(resume))
        .routes(routes!(reload))
        .routes(routes!(seek))
        .routes(routes!(reject))
}

#[utoipa::path(
    get,
    path = "/v1/pipelines",
    responses((status = OK, body = Vec<Snapshot>, description = "how all pipelines stand")),
)]
async fn pipelines(State(console): Shared) -> Reply<Vec<Snapshot>> {
    answer(console, Lane::Look, |console| Ok(console.snapshots())).await
}

#[utoipa::path(
    get,
    path = "/v1/pipelines/{name}",
    params(("name" = String, Path)),
    responses((status = OK, body = Snapshot, description = "how the pipeline stands")),
)]
async fn pipeline(State(console): Shared, path: Wanted<String>) -> Reply<Snapshot> {
    let name = path_of(path)?;
    answer(console, Lane::Look, move |console| known(console, &name)).await
}

#[utoipa::path(
    get,
    path = "/v1/pipelines/{name}/partitions",
    params(("name" = String, Path)),
    responses((status = OK, body = Vec<PartitionSnapshot>, description = "its partitions, and what holds them")),
)]
async fn partitions(State(console): Shared, path: Wanted<String>) -> Reply<Vec<PartitionSnapshot>> {
    let name = path_of(path)?;
    answer(console, Lane::Look, move |console| {
        Ok(known(console, &name)?.partitions)
    })
    .await
}

#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/pause",
    params(("name" = String, Path)),
    responses((status = OK, body = Changes, description = "it reads and calls no more, until it is resumed")),
)]
async fn pause(State(console): Shared, path: Wanted<String>) -> Reply<Changes> {
    let pipeline = path_of(path)?;
    answer(console, Lane::Order, move |console| {
        console.order(Order::Pause { pipeline })
    })
    .await
}

#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/drain",
    params(("name" = String, Path)),
    responses((status = OK, body = Changes, description = "what it had read is finished, and it is paused")),
)]
async fn drain(State(console): Shared, path: Wanted<String>) -> Reply<Changes> {
    let pipeline = path_of(path)?;
    answer(console, Lane::Order, move |console| {
        console.order(Order::Drain { pipeline })
    })
    .await
}

#[utoipa::path(
    post,
    path = "/v1/pipelines/{name}/resume",
    params(("name" = String, Path)),
    responses((status = OK, body = Changes, description = "it runs")),
)]
async fn resume(State(console): Shared, path: Wanted<String>) -> Reply<Changes> {
    let pipeline = path_of(path)?;
    answer(console, Lane::Order, move |console| {
        console.order(Order::Resume { pipeline })
    })
    .await
}

#[utoipa::path(
    post,
    path = "/v1/reload",
    request_body = ReloadRequest,
    responses((status = OK, body = Changes, description = "the configuration of its files holds; all of it, or nothing was changed")),
)]
async fn reload(State(console): Shared, headers: HeaderMap, body: Body) -> Reply<Changes> {
    let ReloadRequest { accept_change } = json_of(&headers, body)?;
    answer(console, Lane::Order, move |console| {
        console.order(Order::Reload { accept_change })
    })
    .await
}

#[utoipa::path(
    post,
    path = "/v1/groups/{group}/seek",
    params(("group" = String, Path)),
    request_body = SeekRequest,
    responses((status = OK, body = SeekReply, description = "where the group is now, or would be")),
)]
async fn seek(
    State(console): Shared,
    path: Wanted<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply<SeekReply> {
    let group = path_of(path)?;
    let request: SeekRequest = json_of(&headers, body)?;
    answer(console, Lane::Order, move |console| {
        console.seek(&group, &request)
    })
    .await
}

#[utoipa::path(
    post,
    path = "/v1/groups/{group}/reject",
    params(("group" = String, Path)),
    request_body = RejectRequest,
    responses((status = OK, body = Changes, description = "the message becomes a dead letter")),
)]
async fn reject(
    State(console): Shared,
    path: Wanted<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply<Changes> {
    let group = path_of(path)?;
    let request: RejectRequest = json_of(&headers, body)?;
    answer(console, Lane::Order, move |console| {
        console.order(Order::Reject { group, request })
    })
    .await
}

fn known(console: &Console, name: &str) -> Result<Snapshot, Error> {
    let snapshots = console.snapshots();
    let found = snapshots.iter().find(|snapshot| snapshot.pipeline == name);
    found.cloned().ok_or_else(|| {
        let names = snapshots.iter().map(|snapshot| snapshot.pipeline.as_str());
        let help = nearest(name, names).map(|meant| format!("did you mean {meant}?"));
        Error::new(
            Code::UnknownPipeline,
            format!("there is no pipeline {name}"),
            help.unwrap_or_default(),
        )
    })
}
