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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    type Labels = BTreeSet<String>;

    /// Families by name, with the labels that series have beside those of the pipeline.
    fn told() -> BTreeMap<String, Labels> {
        let snapshot: Snapshot = serde_json::from_value(serde_json::json!({
            "pipeline": "p", "consumer_group": "g", "state": "running", "why": null, "plugin_digest": "",
            "alerts": [Alert::new(crate::pipeline::snapshot::AlertName::Lag, 0, 1)],
            "totals": crate::pipeline::snapshot::Totals::default(),
            "partitions": [{"topic": "t", "partition": 0, "committed": 0, "position": 0, "end": 1,
                "held": 0, "held_bytes": 0, "oldest_unfinished_ms": null, "holder": null}],
        }))
        .unwrap();
        let metrics = Metrics::new().unwrap();
        let _series_at_zero = metrics.answering_pipeline("p", "g", &["t"]);
        let text = metrics.render(&[snapshot], 0, |_, _, _| None).unwrap();
        let text = String::from_utf8(text).unwrap() + LATE_REPLIES;
        let families = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        let labels = |family: &str| -> Labels {
            let series = text.lines().filter_map(|line| line.strip_prefix(family));
            let braced = series.filter_map(|rest| rest.split_once('{')?.1.split_once('}'));
            let pairs = braced.flat_map(|(pairs, _)| pairs.split(','));
            let names = pairs.filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
            names
                .filter(|name| !["pipeline", "consumer_group", "le"].contains(&name.as_str()))
                .collect()
        };
        families
            .map(|family| (family.to_owned(), labels(family)))
            .collect()
    }

    #[test]
    fn the_documentation_tells_of_every_metric_with_its_labels_and_of_no_other() {
        let page = include_str!("../../../docs/observing.md");
        let rows = page.lines().filter(|line| line.starts_with("| `wasmill_"));
        let words = |cell: &str| -> Labels {
            let odd = cell.split('`').skip(1).step_by(2);
            odd.map(str::to_owned).collect()
        };
        let documented: BTreeMap<String, Labels> = rows
            .map(|row| {
                let mut cells = row.trim_matches('|').split('|');
                let name = words(cells.next().unwrap()).into_iter().next().unwrap();
                (name, words(cells.next().unwrap()))
            })
            .collect();
        assert_eq!(documented, told());
    }
}
