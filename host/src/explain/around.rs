//! What stands around the path: the sandbox, alerts, and the edges of the promise.

use super::words::{count, size, time};
use super::{Rule, rule};
use crate::config::valid::{By, Config, CreationContext, Delivery, Durability, Pipeline};

pub(super) fn grants(pipeline: &Pipeline) -> Vec<Rule> {
    let allow = &pipeline.handler.allow;
    let yes = |granted: bool| if granted { "granted" } else { "not granted" };
    let state = match &allow.state {
        Some(state) => format!(
            "granted: `{}`, version {}, at most {}; writes count only when their message is finished",
            state.name,
            state.version,
            size(state.max_size)
        ),
        None => "not granted".to_owned(),
    };
    vec![
        rule("state", state),
        rule("clock", yes(allow.clock)),
        rule("random numbers", yes(allow.random)),
        rule(
            "anything else",
            "network, files, environment, secrets: not there; a plugin that imports what is not granted does not start",
        ),
    ]
}

pub(super) fn watched(config: &Config, pipeline: &Pipeline) -> Vec<Rule> {
    let mut rules = alerts(pipeline);
    rules.push(traces(config));
    rules
}

fn alerts(pipeline: &Pipeline) -> Vec<Rule> {
    let alerts = &pipeline.alerts;
    let mut rules = Vec::new();
    if let Some(lag) = alerts.lag {
        rules.push(rule(
            "lag",
            format!(
                "alert when more than {} are not finished",
                count(lag, "message")
            ),
        ));
    }
    if let Some(age) = alerts.oldest_age {
        rules.push(rule(
            "oldest message",
            format!(
                "alert when the oldest message that is not finished is older than {}",
                time(age)
            ),
        ));
    }
    if let Some(letters) = alerts.dead_letters {
        rules.push(rule(
            "dead letters",
            format!(
                "alert when there are {} or more within {}",
                count(letters.count.get().into(), "dead letter"),
                time(letters.per)
            ),
        ));
    }
    if !rules.is_empty() {
        rules.push(rule("an alert", "shows in the metric `wasmill_alert` and in `/readyz`, which stays ready; `wasmill alerts` prints rules for Prometheus"));
    }
    rules
}

/// How attempts are told to a receiver of traces, when there is one.
fn traces(config: &Config) -> Rule {
    let context = match config.host.creation_context {
        CreationContext::Link => "in a trace of its own with a link to the one of its message",
        CreationContext::Parent => {
            "in the trace of its message (`tracing: { creation_context: parent }`)"
        }
    };
    rule(
        "an attempt is traced",
        format!(
            "{context}, when `OTEL_EXPORTER_OTLP_ENDPOINT` names a receiver and the message is sampled (without a context of its own at most {} a second) or has failed",
            config.host.traces_per_second
        ),
    )
}

pub(super) fn limits_of_promise(config: &Config, pipeline: &Pipeline) -> Vec<Rule> {
    let promise = match pipeline.delivery {
        Delivery::AtLeastOnce => {
            "a message is handled until it succeeded or became a dead letter (`at_least_once`); a crash repeats what was not settled, so a handler can run more than once for a message"
        }
        Delivery::ExactlyOnce => {
            "outputs, dead letter, state, key and progress of a message appear together, once (`exactly_once`); the handler itself can run more than once for a message"
        }
        Delivery::AtMostOnce => {
            "a message is settled before its call (`at_most_once`): no crash brings it back, and a crash or a failure loses it"
        }
    };
    let mut rules = vec![rule("the promise", promise)];
    if pipeline.delivery != Delivery::AtMostOnce {
        rules.push(rule(
            "outside the log",
            "what a handler does elsewhere happens at least once in every mode",
        ));
    }
    if pipeline.idempotency.is_none() {
        rules.push(rule(
            "copies",
            "two copies of one event are two messages; only an `idempotency` key makes them one",
        ));
    }
    if let Some(idempotency) = &pipeline.idempotency {
        rules.push(rule("copies", format!("a copy that comes {} after the first was finished, or later, is a new message; so is one with another key", time(idempotency.ttl))));
    }
    if pipeline.ordering.by != By::None {
        rules.push(rule(
            "order",
            "holds within a partition; a dead letter leaves it, and more partitions move keys",
        ));
    }
    if config.host.durability == Durability::Os {
        rules.push(rule(
            "a crash of the machine",
            "loses messages that were acknowledged last (`durability: os`)",
        ));
    }
    rules.push(rule(
        "loss of the disk",
        "loses the log: there is one copy of it",
    ));
    rules
}
