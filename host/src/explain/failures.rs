//! What happens when something fails, from an answer of the handler to the end of the process.

use std::time::Duration;

use super::words::{about, count, list, time};
use super::{Rule, rule};
use crate::config::ladder;
use crate::config::valid::{
    By, Config, Delivery, Durability, OnDeadLetter, OnLostOffset, Pipeline, Retry, RetryMode,
};
use crate::pipeline::returned;
use crate::pipeline::verdict::{AFTER_MAX, backoff};

/// Waits that are told one by one.
const WAITS_SHOWN_MAX: usize = 6;

pub(super) fn handler(pipeline: &Pipeline) -> Vec<Rule> {
    if pipeline.delivery == Delivery::AtMostOnce {
        return vec![
            rule(
                "retryable",
                "not tried again: counted, logged and passed over",
            ),
            rule("rejected", "the same"),
            rule(
                "fault",
                "a trap, too much memory, an answer that is none: the same, and the instance is thrown away; of a call with several messages the others run again one by one",
            ),
            rule(
                "timeout",
                format!(
                    "a call is cut off after {}, however many messages it has: a fault like any other",
                    time(pipeline.handler.limits.time)
                ),
            ),
        ];
    }
    let spent = give_up(pipeline);
    let mut rules = vec![
        rule("retryable", retryable(&pipeline.retry)),
        rule("waits", waits(pipeline)),
        rule(
            "handler asks for a later try (`retry after`)",
            after(&pipeline.retry),
        ),
    ];
    if let Some(max) = pipeline.retry.max_elapsed {
        rules.push(rule(
            "time limit",
            format!(
                "no try later than {} after the first failure: dead letter `retry_time_exhausted`",
                time(max)
            ),
        ));
    }
    rules.extend([
        rule("attempts spent", spent),
        rule("rejected", "dead letter at once, without another try"),
        rule(
            "fault",
            format!("a trap, too much memory, too many outputs, an answer that is none: the instance is thrown away and the message has failed like a retryable one, {} in all; of a call with several messages nothing counts, and they run again one by one, so that only the culprit is charged", attempts(&pipeline.retry)),
        ),
        rule("timeout", format!("a call is cut off after {}, however many messages it has, also in a tight loop: a fault like any other; those of a call with several then run one by one with as much time each", time(pipeline.handler.limits.time))),
        rule("output to a name that is not in `outputs`, or too large for its topic", "nothing of it is published: a fault like any other"),
    ]);
    rules.push(circuit(pipeline));
    rules
}

fn attempts(retry: &Retry) -> String {
    count(retry.max_attempts.get().into(), "attempt")
}

fn retryable(retry: &Retry) -> String {
    if retry.max_attempts.get() == 1 {
        return "1 attempt in all, so dead letter at once".to_owned();
    }
    format!(
        "tried again, {} in all; an attempt that failed is durable before its wait begins, so that a restart forgets none",
        attempts(retry)
    )
}

/// Bounds (inline) or lengths (deferred) of the waits between attempts, in order.
fn lengths(retry: &Retry) -> Vec<Duration> {
    let steps = match retry.mode {
        RetryMode::Inline => Vec::new(),
        // Refused by `config` when there are too many.
        RetryMode::Deferred => ladder::ladder(&retry.backoff).unwrap_or_default(),
    };
    let rounded = |wait: Duration| {
        let step = steps
            .iter()
            .map(|ms| Duration::from_millis(*ms))
            .find(|step| *step >= wait);
        step.unwrap_or(wait)
    };
    (1..retry.max_attempts.get())
        .map(|attempt| rounded(backoff(&retry.backoff, attempt, 1.0)))
        .collect()
}

fn waits(pipeline: &Pipeline) -> String {
    let retry = &pipeline.retry;
    let lengths = lengths(retry);
    if lengths.is_empty() {
        return "none".to_owned();
    }
    let mut shown: Vec<String> = lengths
        .iter()
        .take(WAITS_SHOWN_MAX)
        .map(|d| time(*d))
        .collect();
    if let Some(more) = lengths
        .len()
        .checked_sub(WAITS_SHOWN_MAX)
        .filter(|n| *n > 0)
    {
        shown.push(format!(
            "{more} more of at most {}",
            time(retry.backoff.max_interval)
        ));
    }
    let total: Duration = lengths.iter().sum();
    let growth = format!(
        "(from {}, {} times as long each time, never over {})",
        time(retry.backoff.initial_interval),
        retry.backoff.multiplier,
        time(retry.backoff.max_interval)
    );
    match retry.mode {
        RetryMode::Inline => {
            let held = match pipeline.ordering.by {
                By::Key => "later messages of its key wait, other keys go on",
                By::Partition => "its whole partition waits",
                By::None => "no other message waits",
            };
            format!(
                "a random time from 0 to {} {growth}: {} at the longest, half of it on average, and the time of the calls; {held}",
                list(&shown),
                about(total)
            )
        }
        RetryMode::Deferred => {
            let source = &pipeline.source;
            let topics: Vec<String> = source
                .topics
                .iter()
                .take(1)
                .flat_map(|topic| {
                    let steps = ladder::ladder(&retry.backoff).unwrap_or_default();
                    steps
                        .into_iter()
                        .map(|ms| returned::retry_topic(topic, &source.consumer_group, ms))
                        .take(1)
                })
                .collect();
            let order = if pipeline.ordering.by == By::None {
                "no other message waits"
            } else {
                "later messages of its key overtake it (`relaxed`)"
            };
            format!(
                "{} {growth}: {} in all, and the time of the calls; it is put aside in an internal topic for each wait, such as {}, holds nobody up and takes no memory; {order}",
                list(&shown),
                about(total),
                list(&topics)
            )
        }
    }
}

fn after(retry: &Retry) -> String {
    let longest = time(AFTER_MAX);
    match retry.mode {
        RetryMode::Inline => format!("at least as long as it asked, at most {longest}"),
        RetryMode::Deferred => {
            let steps = ladder::ladder(&retry.backoff).unwrap_or_default();
            let steps: Vec<String> = steps
                .iter()
                .map(|ms| time(Duration::from_millis(*ms)))
                .collect();
            format!("rounded up to one of {}; at most {longest}", list(&steps))
        }
    }
}

fn give_up(pipeline: &Pipeline) -> String {
    let next = match (pipeline.ordering.by, pipeline.ordering.on_dead_letter) {
        (By::None, _) => "",
        (_, OnDeadLetter::Continue) => "; later messages go on at once",
        (_, OnDeadLetter::BlockLane) => "; later messages wait until the dead letter is durable",
    };
    let key = match &pipeline.idempotency {
        Some(idempotency) => format!(
            "; its key stands as failed for {}, so that duplicates of it are not tried, until it is redriven",
            time(idempotency.ttl)
        ),
        None => String::new(),
    };
    format!(
        "after {}: dead letter, named `attempts_exhausted` or by the last fault{next}{key}",
        attempts(&pipeline.retry)
    )
}

fn circuit(pipeline: &Pipeline) -> Rule {
    let then = match pipeline.circuit {
        None => "not recognised (`circuit: false`): while it is down, messages spend their attempts and become dead letters".to_owned(),
        Some(circuit) => {
            let keys = count(circuit.distinct_keys.get().into(), "different key");
            let few = match pipeline.ordering.by {
                By::Partition => format!("; a failing message holds its partition, so at most one for each partition counts until it is given up: with fewer than {} it is not recognised", count(circuit.distinct_keys.get().into(), "partition")),
                _ => String::new(),
            };
            format!(
                "when the first attempts on messages with {keys} (without a key each counts) fail with retryable errors or timeouts within {} and nothing succeeds in between, the pipeline pauses and is unhealthy; later attempts do not count{few}; one message every {} probes and spends no attempt; the first success lets it go on",
                time(circuit.window),
                time(circuit.probe_interval)
            )
        }
    };
    rule("a dependency is down", then)
}

pub(super) fn host(config: &Config, pipeline: &Pipeline) -> Vec<Rule> {
    let mut rules = Vec::new();
    if pipeline.delivery != Delivery::AtMostOnce {
        rules.push(rule("a dead letter cannot be written", "it is part of the settlement of its message: the pipeline is blocked and unhealthy, tries the same again, and drops nothing"));
    }
    rules.push(rule("full disk", "nothing settles: the pipeline is blocked, says why, and goes on by itself when there is room; producers are refused, what is stored stays readable"));
    let durable = match config.host.durability {
        Durability::Fsync => "after fsync",
        Durability::Os => {
            "when the operating system has it (`durability: os`): a crash of the machine loses the newest of it"
        }
    };
    rules.push(rule("something counts as written", durable));
    let lost = match pipeline.source.on_lost_offset {
        OnLostOffset::Halt => {
            "the pipeline stops, unhealthy, until a person decides (`wasmill groups seek`)"
        }
        OnLostOffset::Earliest => {
            "it goes on at the first message there is; what was lost is counted and logged"
        }
    };
    rules.push(rule(
        "lost offset",
        format!("retention removed messages that the group had not finished: {lost}"),
    ));
    rules.push(rule("no instance of the plugin can be made", "the pipeline stops with the message unfinished; when only room is missing, the message waits and spends no attempt"));
    rules
}

pub(super) fn ends(config: &Config, pipeline: &Pipeline) -> Vec<Rule> {
    let shutdown = time(config.host.shutdown_timeout);
    if pipeline.delivery == Delivery::AtMostOnce {
        return vec![
            rule(
                "crash before the progress is durable",
                "the message is read again; nothing was called",
            ),
            rule(
                "crash after it, before or during the call",
                "the message is lost, and not counted",
            ),
            rule(
                "shutdown",
                format!("what was called may end within {shutdown}; what has not is lost"),
            ),
        ];
    }
    vec![
        rule(
            "crash before or during a call",
            "the message is called again; nothing of the first call is visible",
        ),
        rule(
            "crash after the call, before the settlement is durable",
            "the same: outputs, state, key and progress appear together or not at all",
        ),
        rule(
            "crash after the settlement is durable",
            "it is not called again",
        ),
        rule(
            "crash during a wait for the next attempt",
            match pipeline.retry.mode {
                RetryMode::Inline => "the attempt counts; the wait may start anew",
                RetryMode::Deferred => "the attempt counts, and the due time stays",
            },
        ),
        rule(
            "crash again and again",
            format!(
                "after 2 unclean exits the messages in flight run one at a time with each attempt durable first; one that kills the host becomes a dead letter `host_crash` after {}, and at most one more for each kill",
                attempts(&pipeline.retry)
            ),
        ),
        rule(
            "shutdown",
            format!(
                "SIGTERM: nothing new is called, what was called may end within {shutdown} and is settled; what has not ended is cut off and delivered again"
            ),
        ),
    ]
}
