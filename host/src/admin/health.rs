//! The health port: `/livez`, `/readyz`, `/metrics`, and nothing else. It may leave the machine, so it
//! shows states and numbers, never a message.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use super::console::Console;
use super::wire::StoreHealth;
use crate::pipeline::snapshot::{Alert, Snapshot, State as PipelineState};
use crate::telemetry::metrics::Metrics;

/// Whether the host does its work, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    pub ready: bool,
    pub store: StoreHealth,
    pub pipelines: Vec<PipelineReadiness>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PipelineReadiness {
    pub pipeline: String,
    pub ready: bool,
    pub state: PipelineState,
    pub why: Option<String>,
    /// Alerts of its configuration that fire. They do not make it unready: a restart helps none of them.
    pub alerts: Vec<Alert>,
}

impl Readiness {
    /// Ready: the store takes writes and every pipeline runs.
    #[must_use]
    pub fn of(store: StoreHealth, snapshots: &[Snapshot]) -> Self {
        let pipelines: Vec<PipelineReadiness> = snapshots
            .iter()
            .map(|snapshot| PipelineReadiness {
                pipeline: snapshot.pipeline.clone(),
                // What an operator paused is as it is wanted; the detail says so.
                ready: matches!(
                    snapshot.state,
                    PipelineState::Running | PipelineState::Paused
                ),
                state: snapshot.state,
                why: snapshot.why.clone(),
                alerts: snapshot
                    .alerts
                    .iter()
                    .filter(|a| a.firing)
                    .copied()
                    .collect(),
            })
            .collect();
        Self {
            ready: store.healthy && pipelines.iter().all(|pipeline| pipeline.ready),
            store,
            pipelines,
        }
    }
}

const LATE_REPLIES: &str = "# HELP wasmill_replies_late_total answers that came after their requests had timed out\n# TYPE wasmill_replies_late_total counter\n";

#[derive(Clone)]
struct Health {
    console: Arc<Console>,
    metrics: Metrics,
}

pub(super) fn router(console: Arc<Console>, metrics: Metrics) -> Router {
    Router::new()
        .route(
            "/livez",
            get(|| async { Json(serde_json::json!({"live": true})) }),
        )
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Health { console, metrics })
}

async fn ready(State(health): State<Health>) -> Response {
    // `alerts.oldest_age` reads the time of the oldest messages from disk.
    let looked = tokio::task::spawn_blocking(move || {
        Readiness::of(health.console.store_health(), &health.console.snapshots())
    });
    match looked.await {
        Ok(readiness) if readiness.ready => (StatusCode::OK, Json(readiness)).into_response(),
        Ok(readiness) => (StatusCode::SERVICE_UNAVAILABLE, Json(readiness)).into_response(),
        Err(failure) => {
            tracing::error!(%failure, "could not look at the pipelines");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn scrape(State(health): State<Health>) -> Response {
    // Reads the time of the oldest messages from disk.
    let rendered = tokio::task::spawn_blocking(move || {
        let console = &health.console;
        let text = health.metrics.render(
            &console.snapshots(),
            console.now_ms(),
            |topic, partition, offset| console.timestamp_ms(topic, partition, offset),
        );
        text.map(|mut text| {
            // The one count that is no pipeline's.
            let late = console.late_replies();
            text.extend_from_slice(LATE_REPLIES.as_bytes());
            text.extend_from_slice(format!("wasmill_replies_late_total {late}\n").as_bytes());
            text
        })
    });
    match rendered.await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        failure => {
            tracing::error!(?failure, "could not render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
