//! Prometheus rules for what a configuration watches (`wasmill alerts`), over the names of `metrics.rs`.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::valid::{Config, Pipeline};
use crate::config::{Shown, written_duration};

/// A file of rules. `pending`, in whole seconds, is how long a
/// condition must hold before its alert fires.
#[must_use]
pub fn yaml(config: &Config, pending: Duration) -> String {
    Shown::from(rules(config, pending)).yaml(false)
}

fn rules(config: &Config, pending: Duration) -> Json {
    let pipelines = config.pipelines.iter();
    let rules: Vec<Json> = pipelines.flat_map(|p| pipeline(p, pending)).collect();
    json!({"groups": [{"name": "wasmill", "rules": rules}]})
}

fn pipeline(pipeline: &Pipeline, pending: Duration) -> Vec<Json> {
    // Names are letters, digits, `.`, `_` and `-`, so nothing has to be escaped.
    let name = &pipeline.name;
    let own = format!("pipeline=\"{name}\"");
    let by = "by (pipeline, consumer_group)";
    let mut rules = vec![rule(
        "WasmillPipelineAbsent",
        // A host that is dead has no series by which another rule could fire.
        &format!("absent(wasmill_pipeline_state{{{own}}})"),
        pending,
        "critical",
        format!("no host tells of pipeline {name}"),
        "is the host running, and is its health port scraped? see: wasmill status".to_owned(),
    )];
    rules.push(rule(
        "WasmillPipelineDown",
        &format!("max {by} (wasmill_pipeline_state{{{own},state=~\"blocked|failed\"}}) == 1"),
        pending,
        "critical",
        format!("pipeline {name} does not work"),
        "see why: wasmill status".to_owned(),
    ));
    if let Some(lag) = pipeline.alerts.lag {
        rules.push(rule(
            "WasmillLag",
            &format!("sum {by} (wasmill_queue_depth{{{own}}}) > {lag}"),
            pending,
            "warning",
            format!("pipeline {name} is more than {lag} messages behind"),
            "{{ $value }} messages are not finished; see what holds them: wasmill status"
                .to_owned(),
        ));
    }
    if let Some(age) = pipeline.alerts.oldest_age {
        let seconds = age.as_secs_f64();
        rules.push(rule(
            "WasmillOldestMessage",
            &format!("max {by} (wasmill_oldest_message_age_seconds{{{own}}}) > {seconds}"),
            pending,
            "warning",
            format!(
                "a message of pipeline {name} is older than {}",
                written_duration(age)
            ),
            "the oldest is {{ $value | humanizeDuration }} old; see what holds it: wasmill status"
                .to_owned(),
        ));
    }
    if let Some(letters) = pipeline.alerts.dead_letters {
        let per = written_duration(letters.per);
        rules.push(rule(
            "WasmillDeadLetters",
            // `increase` extrapolates to the ends of its window, so it is rarely whole. It has no value in a
            // window that is shorter than two scrapes; there the host's own count, in its own window, is asked.
            &format!(
                "round(sum {by} (increase(wasmill_dead_letters_total{{{own}}}[{per}]))) >= {} or max {by} (wasmill_alert{{{own},alert=\"dead_letters\"}}) == 1",
                letters.count
            ),
            // The window is a wait already.
            Duration::ZERO,
            "warning",
            format!(
                "pipeline {name} has {} dead letters or more within {per}",
                letters.count
            ),
            "see what went wrong: wasmill dlq groups".to_owned(),
        ));
    }
    rules
}

fn rule(
    alert: &str,
    expr: &str,
    pending: Duration,
    severity: &str,
    summary: String,
    description: String,
) -> Json {
    json!({
        "alert": alert,
        "expr": expr,
        "for": format!("{}s", pending.as_secs()),
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(alerts: &str) -> Config {
        let text = format!(
            "version: 1\npipelines:\n  - {{ name: p, source: {{ topics: [t], consumer_group: g, start: earliest }}, handler: {{ plugin: p.wasm }}, alerts: {alerts} }}\n"
        );
        let loaded = crate::config::load_text(std::path::Path::new("a.yaml"), &text, &|_| None);
        loaded.unwrap().config
    }

    #[test]
    fn each_configured_alert_is_a_rule_with_its_number_and_names_that_metrics_have() {
        let config =
            config("{ lag: 10000, oldest_age: 5m, dead_letters: { count: 10, per: 10m } }");
        let rules = rules(&config, Duration::from_secs(60));
        let of = |n: usize| {
            rules["groups"][0]["rules"][n]["expr"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            of(0),
            "absent(wasmill_pipeline_state{pipeline=\"p\"})",
            "of a dead host there is nothing else to see"
        );
        assert!(of(2).ends_with("> 10000"), "{}", of(2));
        assert!(of(3).ends_with("> 300"), "{}", of(3));
        assert!(
            of(4).contains("[10m]") && of(4).contains(">= 10 or max "),
            "{}",
            of(4)
        );
        let metrics = crate::telemetry::metrics::Metrics::new().unwrap();
        let _series_at_zero = metrics.pipeline("p", "g", &[]);
        let snapshot: crate::pipeline::snapshot::Snapshot = serde_json::from_value(json!({
            "pipeline": "p", "consumer_group": "g", "state": "running", "why": null,
            "plugin_digest": "", "alerts": [crate::pipeline::snapshot::Alert::new(
                crate::pipeline::snapshot::AlertName::DeadLetters, 0, 1)], "totals": crate::pipeline::snapshot::Totals::default(),
            "partitions": [{"topic": "t", "partition": 0, "committed": 0, "position": 0, "end": 1,
                "held": 0, "held_bytes": 0, "oldest_unfinished_ms": null, "holder": null}],
        }))
        .unwrap();
        let text = metrics.render(&[snapshot], 0, |_, _, _| None).unwrap();
        let text = String::from_utf8(text).unwrap();
        for n in 0..5 {
            let expr = of(n);
            for (at, _) in expr.match_indices("wasmill_") {
                let name = expr[at..].split('{').next().unwrap();
                assert!(text.contains(&format!("{name}{{")), "{name} in\n{text}");
            }
        }
    }

    #[test]
    fn a_pipeline_without_alerts_has_the_rules_that_it_is_there_and_works() {
        let rules = rules(&config("{}"), Duration::ZERO);
        let rules = rules["groups"][0]["rules"].as_array().unwrap();
        assert_eq!(rules.len(), 2);
        assert_eq!(rules[0]["for"], "0s");
    }
}
