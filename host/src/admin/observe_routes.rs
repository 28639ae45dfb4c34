//! The routes that tell what happened: log lines, and the story of one message.

use std::sync::Arc;

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::console::Console;
use super::lanes::Lane;
use super::logs::{LogPage, LogQuery};
use super::routes::{Asked, Reply, Shared, Wanted, answer, path_of, query_of};
use super::trace::{Trace, TraceQuery};

pub(super) fn described() -> OpenApiRouter<Arc<Console>> {
    OpenApiRouter::new()
        .routes(routes!(logs))
        .routes(routes!(trace))
}

#[utoipa::path(
    get,
    path = "/v1/logs",
    params(LogQuery),
    responses((status = OK, body = LogPage, description = "the newest log lines of the host and of handlers, oldest first")),
)]
async fn logs(State(console): Shared, query: Asked<LogQuery>) -> Reply<LogPage> {
    let query = query_of(query)?;
    answer(console, Lane::Read, move |console| console.logs(&query)).await
}

#[utoipa::path(
    get,
    path = "/v1/trace/{id}",
    params(("id" = String, Path), TraceQuery),
    responses((status = OK, body = Trace, description = "what happened to the messages with this correlation ID, in order of time")),
)]
async fn trace(
    State(console): Shared,
    path: Wanted<String>,
    query: Asked<TraceQuery>,
) -> Reply<Trace> {
    let (id, query) = (path_of(path)?, query_of(query)?);
    answer(console, Lane::Read, move |console| {
        console.trace(&id, &query)
    })
    .await
}
