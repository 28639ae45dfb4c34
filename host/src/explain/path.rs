//! The way of a message on which nothing fails: read, admitted, called, published.

use super::words::{count, list, size, time};
use super::{Rule, rule};
use crate::config::valid::{
    By, Config, Delivery, Format, IfMissing, Isolation, NullKey, OnDuplicate, Pipeline, Stale,
    Start,
};
use crate::pipeline::plan::BATCH_DEFAULT;
use crate::pipeline::{dead_letter, run};

pub(super) fn reads(pipeline: &Pipeline) -> Vec<Rule> {
    let source = &pipeline.source;
    vec![
        rule(
            "topics",
            format!(
                "{}, as consumer group {}",
                list(&source.topics),
                source.consumer_group
            ),
        ),
        rule("a new group", new_group(source.start)),
        rule(
            "room",
            format!(
                "at most {} and {} of each partition are read and not finished; then reading stops, and the log is the queue",
                count(source.window.messages.into(), "message"),
                size(source.window.bytes)
            ),
        ),
        rule("order", order(pipeline)),
    ]
}

fn new_group(start: Start) -> String {
    let at = match start {
        Start::Earliest => "begins at the first message there is".to_owned(),
        Start::Latest => {
            "begins behind the last message: it sees what comes after it exists".to_owned()
        }
        Start::Offset(offset) => format!("begins at offset {offset} of every partition"),
        Start::Timestamp(ms) => {
            format!("begins at the first message at or after Unix time {ms} ms")
        }
    };
    format!("{at}; a group that was there before goes on where it stopped, whatever `start` says")
}

fn order(pipeline: &Pipeline) -> String {
    match (pipeline.ordering.by, pipeline.ordering.null_key) {
        (By::Key, NullKey::None) => "messages with one key in one partition run one after another, different keys in parallel; messages without a key wait for nobody",
        (By::Key, NullKey::Partition) => "messages with one key in one partition run one after another, different keys in parallel; messages without a key of one partition wait for each other",
        (By::Partition, _) => "the messages of a partition run one after another, strictly by offset",
        (By::None, _) => "none: messages run as they come, and a failing one holds nobody up",
    }
    .to_owned()
}

pub(super) fn admits(pipeline: &Pipeline) -> Vec<Rule> {
    let mut rules = Vec::new();
    let lost = lost(pipeline);
    if pipeline.source.format == Format::Json {
        rules.push(rule(
            "undecodable payload",
            format!("a payload that is not JSON is never called: {lost} `undecodable`"),
        ));
    } else {
        rules.push(rule(
            "payload",
            "anything; nothing is decoded before the call",
        ));
    }
    if let Some(filter) = &pipeline.filter {
        rules.push(rule(
            "filter",
            format!("a message of which `{}` is false is finished without a call, and counted; one on which it fails: {lost} `expression_failed`", filter.source()),
        ));
    }
    if let Some(sequence) = &pipeline.sequence {
        let number = sequence.number.source();
        let stale = match sequence.stale {
            Stale::Skip => "finished without a call, and counted".to_owned(),
            Stale::DeadLetter => format!("{lost} `stale_sequence`"),
        };
        rules.push(rule(
            "sequence",
            format!("the messages of a key run in the order of `{number}`, whatever their order in the log; the number that was processed last is kept with the settlement that processed it. A number that is not above it: {stale}. No number, or none that is an integer: {lost} `expression_failed`"),
        ));
        rules.push(rule(
            "missing number",
            format!("a message whose predecessor is missing waits {} for it, and holds up its key only; then the key goes on without, with a warning and a count", time(sequence.gap_timeout)),
        ));
    }
    let Some(idempotency) = &pipeline.idempotency else {
        rules.push(rule("duplicate", "not recognised: there is no `idempotency`, so a message that was published twice is handled twice"));
        return rules;
    };
    let ttl = time(idempotency.ttl);
    let missing = match idempotency.if_missing {
        IfMissing::DeadLetter => format!("{lost} `no_idempotency_key`"),
        IfMissing::Process => "it is processed as if there were no `idempotency`".to_owned(),
    };
    let duplicate = match idempotency.on_duplicate {
        OnDuplicate::Skip => "is finished without a call",
        OnDuplicate::Replay => {
            "is finished without a call, and the stored outputs are published again"
        }
    };
    let compared = if idempotency.fingerprint.is_empty() {
        "payload".to_owned()
    } else {
        let fields: Vec<String> = idempotency
            .fingerprint
            .iter()
            .map(|e| format!("`{}`", e.source()))
            .collect();
        format!("value of {}", list(&fields))
    };
    rules.push(rule(
        "duplicate",
        format!(
            "a message whose key `{}` was finished less than {ttl} ago in this group {duplicate}",
            idempotency.key.source()
        ),
    ));
    rules.push(rule(
        "duplicate in flight",
        "it waits for the first one and spends no attempt; when that fails for now, it runs itself",
    ));
    rules.push(rule(
        "conflict",
        format!("the same key with another {compared}: {lost} `idempotency_conflict`"),
    ));
    rules.push(rule(
        "missing key",
        format!("absent, null or empty: {missing}"),
    ));
    rules
}

/// What becomes of a message that is given up, completed by the reason.
pub(super) const fn lost(pipeline: &Pipeline) -> &'static str {
    match pipeline.delivery {
        Delivery::AtMostOnce => "it is counted, logged and gone, as",
        _ => "dead letter",
    }
}

pub(super) fn calls(config: &Config, pipeline: &Pipeline) -> Vec<Rule> {
    let handler = &pipeline.handler;
    let limits = &handler.limits;
    let mut rules = vec![rule("plugin", handler.plugin.display().to_string())];
    if !handler.config.is_empty() {
        let names: Vec<String> = handler.config.keys().cloned().collect();
        rules.push(rule(
            "configuration",
            format!("the handler can read {}", list(&names)),
        ));
    }
    rules.push(rule(
        "concurrency",
        format!(
            "at most {} at the same time on a host, and at most one for each partition of the source",
            count(handler.concurrency.get().into(), "call")
        ),
    ));
    let isolated = handler.isolation == Isolation::Message;
    let batch = match handler.batch {
        _ if isolated => "1 message a call, each in a fresh instance".to_owned(),
        Some(n) => format!("at most {} a call", count(n.get().into(), "message")),
        None => format!(
            "what is ready, at most {BATCH_DEFAULT} messages and {} a call; 1 message a call when the plugin imports state",
            size(run::CALL_BYTES_MAX as u64)
        ),
    };
    rules.push(rule("batch", batch));
    if let Some(rate) = pipeline.rate_limit {
        let per = time(rate.interval);
        rules.push(rule("rate limit", format!("at most {} in {per} on each host; what was not used is saved up for at most {per}; the source is read no faster", count(rate.count.get().into(), "message"))));
    }
    rules.push(rule(
        "limits",
        format!(
            "{} for one call, {} memory of an instance ({} for all handlers of the host), {} of at most {} each for one message, {} a second",
            time(limits.time),
            size(limits.memory),
            size(config.host.guest_memory),
            count(limits.outputs.into(), "output"),
            size(limits.output_size),
            count(limits.log_lines.into(), "log line"),
        ),
    ));
    rules
}

pub(super) fn publishes(config: &Config, pipeline: &Pipeline) -> Vec<Rule> {
    let mut rules = Vec::new();
    if pipeline.outputs.is_empty() {
        rules.push(rule(
            "outputs",
            "none: a message that the handler answers with an output has failed",
        ));
    }
    for output in &pipeline.outputs {
        let mut then = format!("`{}` goes to topic {}", output.name, output.topic);
        if let Some(key) = &output.key {
            then.push_str(&format!(", under the key `{}`", key.source()));
        }
        if !output.headers.is_empty() {
            then.push_str(&format!(
                ", with the input's headers {}",
                list(&output.headers)
            ));
        }
        let set: Vec<String> = output
            .set_headers
            .iter()
            .map(|(name, value)| format!("{name} = `{}`", value.source()))
            .collect();
        if !set.is_empty() {
            then.push_str(&format!(", with {}", list(&set)));
        }
        rules.push(rule("output", then));
    }
    rules.push(rule("a reply", replies(pipeline)));
    if pipeline.delivery == Delivery::AtMostOnce {
        rules.push(rule(
            "dead letters",
            "none: `delivery: at_most_once` counts and logs failures instead",
        ));
    } else {
        rules.push(rule("dead letters", dead_letters(pipeline)));
    }
    let topics = match config.host.create_topics {
        Some(partitions) => format!(
            "made by `run` with {}; a dead letter topic with those of its source",
            count(partitions.get().into(), "partition")
        ),
        None => "not made: `run` refuses to start (`host.create_topics: false`)".to_owned(),
    };
    rules.push(rule("a topic that does not exist", topics));
    rules
}

/// Whether the handler answers or not.
const EXPIRED: &str = "A request past its `wasmill-deadline` is finished without a call";

fn replies(pipeline: &Pipeline) -> String {
    if pipeline.reply_topics.is_empty() {
        return format!(
            "goes nowhere (`reply: {{ topics: [] }}`): dropped and counted, its message succeeds. {EXPIRED}"
        );
    }
    format!(
        "goes to the topic in the message's `reply-to` if that is {} and is there, with its correlation ID; else it is dropped and counted, and its message succeeds. {EXPIRED}",
        list(&pipeline.reply_topics)
    )
}

fn dead_letters(pipeline: &Pipeline) -> String {
    let source = &pipeline.source;
    let to = match &pipeline.dead_letter.topic {
        Some(topic) => topic.clone(),
        None => {
            let each = source.topics.iter();
            list(
                &each
                    .map(|topic| dead_letter::default_topic(topic, &source.consumer_group))
                    .collect::<Vec<_>>(),
            )
        }
    };
    format!(
        "go to {to}, with key, payload and headers byte for byte; `wasmill dlq redrive` sends them back to this group only"
    )
}
