//! `POST /v1/topics/{topic}/request`: one message out, its answer back. Not here: the waiting
//! (`requests.rs`).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::console::Console;
use super::error::{Code, Error};
use super::lanes::Lane;
use super::requests::REQUEST_WAIT_MAX;
use super::routes::{Asked, Reply, Shared, Wanted, answer, json_of, path_of, query_of};
use super::time::parse_span;
use super::wire::{Message, Record};

/// How long a request waits when it does not say.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

pub(super) fn described() -> OpenApiRouter<Arc<Console>> {
    OpenApiRouter::new().routes(routes!(request))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RequestQuery {
    /// As `500ms` or `5s`, at most `50s`. Default `5s`.
    timeout: Option<String>,
}

#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/request",
    params(("topic" = String, Path), RequestQuery),
    request_body = Record,
    responses(
        (status = OK, body = Message, description = "the answer"),
        (status = GATEWAY_TIMEOUT, body = Error, description = "nobody answered in time"),
    ),
)]
async fn request(
    State(console): Shared,
    path: Wanted<String>,
    query: Asked<RequestQuery>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Reply<Message> {
    let topic = path_of(path)?;
    let timeout = timeout(query_of(query)?.timeout.as_deref())?;
    let mut record: Record = json_of(&headers, body)?;
    // The caller's clock runs from here, for the one who waits as for the one who answers.
    let until = tokio::time::Instant::now() + timeout;
    let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    let deadline_ms = console.now_ms().saturating_add(timeout_ms);
    let asked = Arc::clone(&console);
    let begun = answer(Arc::clone(&console), Lane::Write, move |console| {
        console.known_topic(&topic)?;
        let waits = console.requests()?.begin(&mut record, deadline_ms)?;
        console.produce(&topic, &[record])?;
        Ok(Begun(waits))
    })
    .await?;
    let Json(Begun(waits)) = begun;
    let left = until.saturating_duration_since(tokio::time::Instant::now());
    let answer = waits.answer(left, timeout).await;
    drop(asked);
    answer.map(Json)
}

/// A request on its way.
struct Begun(super::requests::Waits);

fn timeout(text: Option<&str>) -> Result<Duration, Error> {
    let Some(text) = text else {
        return Ok(TIMEOUT_DEFAULT);
    };
    let wait = parse_span(text).filter(|wait| !wait.is_zero() && *wait <= REQUEST_WAIT_MAX);
    wait.ok_or_else(|| {
        Error::new(
            Code::Invalid,
            format!("{text:?} is no timeout"),
            format!(
                "write it as 500ms or 5s, at most {}s",
                REQUEST_WAIT_MAX.as_secs()
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_wait_max_bounds_the_timeout_of_a_request() {
        assert_eq!(timeout(None).unwrap(), TIMEOUT_DEFAULT);
        assert_eq!(timeout(Some("50s")).unwrap(), REQUEST_WAIT_MAX);
        for bad in ["50001ms", "1h", "0s", "soon"] {
            assert_eq!(timeout(Some(bad)).unwrap_err().code, Code::Invalid, "{bad}");
        }
    }
}
