//! The route by which somebody asks a pipeline something and waits for its reply (§8.3).

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
use super::requests::{TIMEOUT_DEFAULT, TIMEOUT_MAX};
use super::routes::{Asked, Reply, Shared, Wanted, answer, json_of, path_of, query_of};
use super::wire::{Message, Record};
use crate::config;

pub(super) fn described() -> OpenApiRouter<Arc<Console>> {
    OpenApiRouter::new().routes(routes!(request))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RequestQuery {
    /// How long to wait, as in `500ms` or `5s` (the default); at most `50s`.
    timeout: Option<String>,
}

#[utoipa::path(
    post,
    path = "/v1/topics/{topic}/request",
    params(("topic" = String, Path), RequestQuery), request_body = Record,
    responses(
        (status = OK, body = Message, description = "the reply"),
        (status = GATEWAY_TIMEOUT, body = Error, description = "no reply within the timeout"),
        (status = SERVICE_UNAVAILABLE, body = Error, description = "too many requests wait already"),
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
    let timeout = timeout_of(query_of(query)?.timeout.as_deref())?;
    let record: Record = json_of(&headers, body)?;
    let reply_to = match console.reply_topic()? {
        Some(topic) => topic,
        None => {
            let opening = Arc::clone(&console);
            let Json(name) = answer(opening, |console| {
                console.open_requests().map(|topic| topic.to_string())
            })
            .await?;
            name.as_str().into()
        }
    };
    console
        .request(&topic, record, &reply_to, timeout)
        .await
        .map(Json)
}

fn timeout_of(text: Option<&str>) -> Result<Duration, Error> {
    let Some(text) = text else {
        return Ok(TIMEOUT_DEFAULT);
    };
    config::duration(text)
        .filter(|timeout| !timeout.is_zero() && *timeout <= TIMEOUT_MAX)
        .ok_or_else(|| {
            Error::new(
                Code::Invalid,
                format!("the timeout {text:?} is none that a request may have"),
                format!("write it as 500ms or 5s, up to {} s", TIMEOUT_MAX.as_secs()),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeout_max_bounds_how_long_a_request_waits() {
        assert_eq!(timeout_of(None), Ok(TIMEOUT_DEFAULT));
        assert_eq!(timeout_of(Some("50s")), Ok(TIMEOUT_MAX));
        for bad in ["51s", "0ms", "5", "", "-1s", "99999999999999999999s"] {
            let error = timeout_of(Some(bad)).unwrap_err();
            assert_eq!(error.code, Code::Invalid, "{bad}");
        }
    }
}
