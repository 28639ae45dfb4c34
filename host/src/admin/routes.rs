//! The routes of the admin port (`/v1/…`): JSON in, one call of the [`Console`], JSON out. Not here:
//! who may call them (`guard.rs`), what they do (`console.rs`).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use axum::{Json, Router, middleware};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::IntoParams;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::console::Console;
use super::error::{Code, Error};
use super::fingerprint::Fingerprint;
use super::guard::{Guarded, body_too_large, guard};
use super::letters;
use super::observe_routes;
use super::openapi;
use super::operation_routes;
use super::request_routes;
use super::wire::{
    CreateTopic, GroupDescription, GroupSummary, OffsetReply, Page, ProduceReply, ProduceRequest,
    ReadRequest, Status, TopicDescription, TopicSummary,
};

/// Body of a request, bytes.
pub const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest wait of a long poll.
pub const WAIT_MAX: Duration = Duration::from_secs(20);
/// How often a long poll looks again.
const WAIT_STEP: Duration = Duration::from_millis(20);

pub(super) type Shared = State<Arc<Console>>;
pub(super) type Reply<T> = Result<Json<T>, Error>;
pub(super) type Wanted<T> = Result<Path<T>, PathRejection>;
pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;

/// All routes behind the guard; also an unknown route and a wrong method need the token.
pub(super) fn router(console: Arc<Console>, guarded: Guarded) -> Router {
    let (router, _) = described();
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(guarded, guard))
        .with_state(console)
}

/// The routes and their description, read off the same handlers: neither has what the other has not.
pub(super) fn described() -> (Router<Arc<Console>>, OpenApi) {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(topics, create_topic))
        .routes(routes!(topic))
        .routes(routes!(read, produce))
        .routes(routes!(offset))
        .routes(routes!(groups))
        .routes(routes!(group))
        .routes(routes!(fingerprint))
        .routes(routes!(openapi_json))
        .merge(letters::routes::described())
        .merge(observe_routes::described())
        .merge(operation_routes::described())
        .merge(request_routes::described())
        .split_for_parts()
}

#[utoipa::path(
    get,
    path = "/v1/status",
    responses((status = OK, body = Status, description = "the host, its store and its pipelines")),
)]
async fn status(State(console): Shared) -> Reply<Status> {
    answer(console, |console| console.status()).await
}

#[utoipa::path(
    get,
    path = "/v1/topics",
    responses((status = OK, body = Vec<TopicSummary>, description = "all topics")),
)]
async fn topics(State(console): Shared) -> Reply<Vec<TopicSummary>> {
    answer(console, |console| console.topics()).await
}

#[utoipa::path(
    post,
    path = "/v1/topics",
    request_body = CreateTopic,
    responses((status = CREATED, body = TopicDescription, description = "the topic, now there")),
)]
async fn create_topic(
    State(console): Shared,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<TopicDescription>), Error> {
    let wanted: CreateTopic = json_of(&headers, body)?;
    let made = answer(console, move |console| console.create_topic(&wanted)).await?;
    Ok((StatusCode::CREATED, made))
}

#[utoipa::path(
    get,
    path = "/v1/topics/{topic}",
    params(("topic" = String, Path)),
    responses((status = OK, body = TopicDescription, description = "its partitions, limits and groups")),
)]
async fn topic(State(console): Shared, path: Wanted<String>) -> Reply<TopicDescription> {
    let topic = path_of(path)?;
    answer(console, move |console| console.topic(&topic)).await
}

#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/messages",
    params(("topic" = String, Path)), request_body = ProduceRequest,
    responses((status = OK, body = ProduceReply, description = "all records are durable")),
)]
async fn produce(
    State(console): Shared,
    path: Wanted<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Reply<ProduceReply> {
    let topic = path_of(path)?;
    let request: ProduceRequest = json_of(&headers, body)?;
    answer(console, move |console| {
        console.produce(&topic, &request.records)
    })
    .await
}

#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/messages",
    params(("topic" = String, Path), ReadRequest),
    responses((status = OK, body = Page, description = "one page of messages; empty at the end")),
)]
async fn read(
    State(console): Shared,
    path: Wanted<String>,
    query: Asked<ReadRequest>,
) -> Reply<Page> {
    let topic: Arc<str> = path_of(path)?.into();
    let request = query_of(query)?;
    let wait = Duration::from_millis(request.wait_ms.unwrap_or(0)).min(WAIT_MAX);
    let until = tokio::time::Instant::now() + wait;
    loop {
        let (wanted, console) = (Arc::clone(&topic), Arc::clone(&console));
        let Json(page) = answer(console, move |console| console.read(&wanted, &request)).await?;
        if !page.messages.is_empty() || tokio::time::Instant::now() >= until {
            return Ok(Json(page));
        }
        tokio::time::sleep(WAIT_STEP).await;
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct OffsetQuery {
    /// Unix ms.
    timestamp_ms: i64,
}

#[utoipa::path(
    get,
    path = "/v1/topics/{topic}/partitions/{partition}/offset",
    params(("topic" = String, Path), ("partition" = u32, Path), OffsetQuery),
    responses((status = OK, body = OffsetReply, description = "the first offset at or after a time")),
)]
async fn offset(
    State(console): Shared,
    path: Wanted<(String, u32)>,
    query: Asked<OffsetQuery>,
) -> Reply<OffsetReply> {
    let (topic, partition) = path_of(path)?;
    let at = query_of(query)?.timestamp_ms;
    answer(console, move |console| {
        console.offset_at(&topic, partition, at)
    })
    .await
}

#[utoipa::path(
    get,
    path = "/v1/groups",
    responses((status = OK, body = Vec<GroupSummary>, description = "all consumer groups")),
)]
async fn groups(State(console): Shared) -> Reply<Vec<GroupSummary>> {
    answer(console, |console| console.groups()).await
}

#[utoipa::path(
    get,
    path = "/v1/groups/{group}",
    params(("group" = String, Path)),
    responses((status = OK, body = GroupDescription, description = "where the group stands on each partition")),
)]
async fn group(State(console): Shared, path: Wanted<String>) -> Reply<GroupDescription> {
    let group = path_of(path)?;
    answer(console, move |console| console.group(&group)).await
}

#[utoipa::path(
    get,
    path = "/v1/groups/{group}/fingerprints/{pipeline}",
    params(("group" = String, Path), ("pipeline" = String, Path)),
    responses((status = OK, body = Fingerprint, description = "what the data of the group was written under by the pipeline")),
)]
async fn fingerprint(State(console): Shared, path: Wanted<(String, String)>) -> Reply<Fingerprint> {
    let (group, pipeline) = path_of(path)?;
    answer(console, move |console| {
        console.fingerprint(&group, &pipeline)
    })
    .await
}

#[utoipa::path(
    get,
    path = "/openapi.json",
    responses((status = OK, description = "this description, OpenAPI 3.1")),
)]
async fn openapi_json() -> Result<Json<OpenApi>, Error> {
    Ok(Json(openapi::describe()))
}

async fn unknown_route() -> Error {
    Error::new(
        Code::UnknownRoute,
        "there is no such route",
        "`/openapi.json` describes all there are",
    )
}

async fn wrong_method() -> Error {
    Error::new(
        Code::MethodNotAllowed,
        "the route does not know this method",
        "",
    )
}

/// Runs `ask` on a thread that may block: the log reads from disk and waits for fsync.
pub(super) async fn answer<T: Send + 'static>(
    console: Arc<Console>,
    ask: impl FnOnce(&Console) -> Result<T, Error> + Send + 'static,
) -> Reply<T> {
    match tokio::task::spawn_blocking(move || ask(&console)).await {
        Ok(answer) => answer.map(Json),
        Err(failure) => {
            tracing::error!(%failure, "an admin request failed");
            Err(Error::internal("the request failed inside the host"))
        }
    }
}

pub(super) fn path_of<T>(path: Wanted<T>) -> Result<T, Error> {
    path.map(|Path(value)| value)
        .map_err(|why| Error::new(Code::Invalid, format!("the path: {}", why.body_text()), ""))
}

pub(super) fn query_of<T>(query: Asked<T>) -> Result<T, Error> {
    query
        .map(|Query(value)| value)
        .map_err(|why| Error::new(Code::Invalid, format!("the query: {}", why.body_text()), ""))
}

pub(super) fn json_of<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Error> {
    // A form of another site can post text/plain without asking first, but not this type.
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
    if !is_json {
        return Err(Error::new(
            Code::Invalid,
            "the body must be JSON",
            "send the header `Content-Type: application/json`",
        ));
    }
    let body = body.map_err(|why| match why.status() {
        StatusCode::PAYLOAD_TOO_LARGE => body_too_large(),
        _ => Error::new(Code::Invalid, format!("the body: {}", why.body_text()), ""),
    })?;
    // A list would do for an object without required fields, in the order of its fields.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::new(
            Code::Invalid,
            "the body must be a JSON object",
            "",
        ));
    }
    serde_json::from_slice(&body)
        .map_err(|why| Error::new(Code::Invalid, format!("the body: {why}"), ""))
}
