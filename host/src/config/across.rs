//! What pipelines must agree on, with the host and among each other: names, groups, topics that feed
//! themselves, guarantees that what is configured beside them weakens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::build::Built;
use super::check::Checked;
use super::problem::{Code, Place, Problems};
use super::valid::{By, Config, Delivery, Durability, Format, Pipeline, Retry, RetryMode};
use super::yaml::Key;

/// Names and groups are compared even when the pipelines have other problems.
pub(super) fn names(built: &[Built], problems: &mut Problems) {
    let mut names: BTreeMap<&str, &Place> = BTreeMap::new();
    let mut groups: BTreeMap<(&str, &str), (&str, &Place)> = BTreeMap::new();
    for Built { checked, .. } in built {
        let name = checked.get("name");
        let text = name.and_then(Checked::text);
        if let (Some(text), Some(place)) = (text, name.and_then(|n| n.place.as_ref())) {
            if let Some(first) = names.get(text) {
                let help = format!(
                    "it is already at {}; name one of them otherwise",
                    problems.line_of(first)
                );
                problems.error(
                    Code::Conflict,
                    place,
                    format!("there are two pipelines `{text}`"),
                    help,
                );
            } else {
                names.insert(text, place);
            }
        }
        let Some(source) = checked.get("source") else {
            continue;
        };
        let group = source.get("consumer_group");
        let (Some(group), Some(place)) = (
            group.and_then(Checked::text),
            group.and_then(|g| g.place.as_ref()),
        ) else {
            continue;
        };
        let topics = source
            .get("topics")
            .and_then(Checked::list)
            .unwrap_or_default();
        let distinct: BTreeSet<_> = topics.iter().filter_map(Checked::text).collect();
        for topic in distinct {
            let this = (text.unwrap_or("another"), place);
            if let Some((other, first)) = groups.get(&(group, topic)) {
                let message = format!(
                    "group `{group}` reads `{topic}` twice: pipelines `{other}` and `{}`",
                    this.0
                );
                let help = format!(
                    "the other is at {}; give one of them a group of its own",
                    problems.line_of(first)
                );
                problems.error(Code::Conflict, place, message, help);
            } else {
                groups.insert((group, topic), this);
            }
        }
    }
}

/// `source.connection` must be declared.
pub(super) fn connections(built: &[Built], declared: &[Key], problems: &mut Problems) {
    for Built { checked, .. } in built {
        let connection = checked
            .get("source")
            .and_then(|source| source.get("connection"));
        let Some((name, place)) = connection.and_then(|c| Some((c.text()?, c.place.as_ref()?)))
        else {
            continue;
        };
        if declared.iter().any(|key| key.text == name) {
            continue;
        }
        let near = crate::expression::nearest(name, declared.iter().map(|key| key.text.as_str()));
        let help = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if declared.is_empty() => {
                "there are no `connections`; without the key the embedded log is read".to_owned()
            }
            None => "add it to `connections`".to_owned(),
        };
        problems.error(
            Code::Conflict,
            place,
            format!("there is no connection `{name}`"),
            help,
        );
    }
}

/// What a configuration without errors may still get wrong.
pub(super) fn meaning(config: &Config, built: &[Built], problems: &mut Problems) {
    for (pipeline, Built { checked, .. }) in config.pipelines.iter().zip(built) {
        guarantees(config, pipeline, checked, problems);
        keys(pipeline, checked, problems);
        sequence(pipeline, checked, problems);
        memory(config, pipeline, checked, problems);
        own_topics(pipeline, checked, problems);
        times(config, pipeline, checked, problems);
    }
    cycles(config, built, problems);
}

fn guarantees(config: &Config, pipeline: &Pipeline, checked: &Checked, problems: &mut Problems) {
    let delivery = checked.place_of("delivery");
    match (pipeline.delivery, delivery) {
        (Delivery::ExactlyOnce, Some(place)) if config.host.durability == Durability::Os => {
            let message = "`exactly_once` on `durability: os` holds when the host dies, not when the machine does";
            problems.warning(Code::Doubtful, place, message, "use `durability: fsync`");
        }
        (Delivery::AtMostOnce, _) => {
            if let Some(place) = checked.place_of("retry") {
                problems.warning(
                    Code::Doubtful,
                    place,
                    "`retry` has no effect",
                    "`delivery: at_most_once` never tries again",
                );
            }
            if let Some(place) = checked.place_of("dead_letter") {
                let help = "`delivery: at_most_once` counts and logs failures instead of dead-lettering them";
                problems.warning(Code::Doubtful, place, "`dead_letter` has no effect", help);
            }
        }
        _ => {}
    }
}

fn keys(pipeline: &Pipeline, checked: &Checked, problems: &mut Problems) {
    let Some(idempotency) = &pipeline.idempotency else {
        return;
    };
    let block = checked.get("idempotency");
    let Some(place) = block.and_then(|block| block.place_of("key")) else {
        return;
    };
    if idempotency.key.uses_json() && pipeline.source.format != Format::Json {
        let message = "the key reads `message.json` while `format` is `bytes`";
        let help = "with `source.format: json` a payload that is not JSON is dead-lettered as `undecodable` instead of `no_idempotency_key`";
        problems.warning(Code::Doubtful, place, message, help);
    }
    if idempotency.key.joins_headers() {
        let message = "a header that is not there counts as empty text in this key";
        let help = "messages without it share a key and pass for duplicates; write `message.header(\"a\") == \"\" ? \"\" : message.header(\"a\") + …`, which is missing then";
        problems.warning(Code::Doubtful, place, message, help);
    }
}

/// Times that cannot have been meant together.
fn times(config: &Config, pipeline: &Pipeline, checked: &Checked, problems: &mut Problems) {
    let shown = super::scalar::written_duration;
    let limits = checked
        .get("handler")
        .and_then(|handler| handler.get("limits"));
    let (time, shutdown) = (pipeline.handler.limits.time, config.host.shutdown_timeout);
    if let Some(place) = limits.and_then(|limits| limits.place_of("time"))
        && time > shutdown
    {
        let message = format!(
            "a call may take {}, longer than a host that is stopped waits: {}",
            shown(time),
            shown(shutdown)
        );
        let help = "raise `host.shutdown_timeout`; calls that are cut off then are made again";
        problems.warning(Code::Doubtful, place, message, help);
    }
    let retry = &pipeline.retry;
    if pipeline.delivery == Delivery::AtMostOnce || retry.max_attempts.get() == 1 {
        return;
    }
    let waits = longest(retry).min(retry.max_elapsed.unwrap_or(Duration::MAX));
    let about = shown(Duration::from_secs(waits.as_secs()));
    if let Some(place) = checked.place_of("retry")
        && pipeline.circuit.is_none()
        && waits < OUTAGE
    {
        let message = format!("retries end within {about}, and there is no circuit");
        let help = "a dependency that is away for longer, as in an ordinary failover, pours its messages into the dead letters; retry for a minute or more, or leave out `circuit: false`";
        problems.warning(Code::Doubtful, place, message, help);
    }
    if let Some(idempotency) = &pipeline.idempotency
        && let Some(block) = checked.get("idempotency")
        && let Some(place) = block.place_of("ttl")
        && idempotency.ttl < waits
    {
        let message = format!(
            "keys are remembered for {}, and retries may take {about}",
            shown(idempotency.ttl)
        );
        let help = "a copy that is finished meanwhile is forgotten before the first comes back, which is then handled again; raise `ttl` above the time of the retries";
        problems.warning(Code::Doubtful, place, message, help);
    }
}

/// What a failover takes.
const OUTAGE: Duration = Duration::from_secs(60);

/// All waits between attempts at their longest.
fn longest(retry: &Retry) -> Duration {
    let max = retry.backoff.max_interval.as_secs_f64();
    let mut wait = retry.backoff.initial_interval.as_secs_f64();
    let mut total = 0.0;
    for _ in 1..retry.max_attempts.get() {
        total += wait.min(max);
        wait = (wait * retry.backoff.multiplier).min(max);
    }
    Duration::try_from_secs_f64(total).unwrap_or(Duration::MAX)
}

/// What gives up the order of a key, or a message, cannot keep the order of its numbers (§4.5).
fn sequence(pipeline: &Pipeline, checked: &Checked, problems: &mut Problems) {
    let Some(sequence) = &pipeline.sequence else {
        return;
    };
    let block = checked.get("sequence");
    let Some(place) = block.and_then(|block| block.place_of("number")) else {
        return;
    };
    let mut refuse = |message, help| problems.error(Code::Conflict, place, message, help);
    if pipeline.ordering.by != By::Key {
        refuse(
            "sequence numbers are those of an ordering key",
            "use `ordering: { by: key }`, or leave `sequence` out",
        );
    }
    if pipeline.retry.mode == RetryMode::Deferred {
        refuse(
            "a message that is put aside leaves a gap in the numbers of its key",
            "use `retry: { mode: inline }`, or leave `sequence` out",
        );
    }
    if pipeline.delivery == Delivery::AtMostOnce {
        refuse(
            "`delivery: at_most_once` does not remember which number was processed",
            "use another `delivery`, or leave `sequence` out",
        );
    }
    if sequence.number.reads() == crate::expression::Reads::default() {
        refuse(
            "the number is the same for every message: it reads nothing of it",
            "read the number that the producer gave it, such as `message.json.version`",
        );
    }
}

fn memory(config: &Config, pipeline: &Pipeline, checked: &Checked, problems: &mut Problems) {
    let Some(handler) = checked.get("handler") else {
        return;
    };
    let one = pipeline.handler.limits.memory;
    let all = one.saturating_mul(u64::from(pipeline.handler.concurrency.get()));
    let shown = super::scalar::written_size;
    let limits = handler
        .get("limits")
        .and_then(|limits| limits.place_of("memory"));
    let place = limits.or(handler.place_of("concurrency"));
    let Some(place) = place.or(checked.place_of("name")) else {
        return;
    };
    let host = config.host.guest_memory;
    if one > host {
        let message = format!(
            "one instance may take {}, more than all may together: {}",
            shown(one),
            shown(host)
        );
        problems.error(
            Code::Conflict,
            place,
            message,
            "raise `host.guest_memory` or lower `limits.memory`",
        );
    } else if all > host && handler.place_of("concurrency").is_some() {
        let message = format!(
            "{} instances may take {}, more than `host.guest_memory`: {}",
            pipeline.handler.concurrency,
            shown(all),
            shown(host)
        );
        problems.warning(
            Code::Doubtful,
            place,
            message,
            "raise `host.guest_memory`, or lower `concurrency` or `limits.memory`",
        );
    }
}

/// A pipeline that feeds itself would never end.
fn own_topics(pipeline: &Pipeline, checked: &Checked, problems: &mut Problems) {
    let outputs = checked
        .get("outputs")
        .and_then(Checked::named)
        .unwrap_or_default();
    for (output, (_, written)) in pipeline.outputs.iter().zip(outputs) {
        if pipeline.source.topics.contains(&output.topic)
            && let Some(place) = written.place_of("topic")
        {
            let message = format!(
                "output `{}` goes to `{}`, which the pipeline itself reads",
                output.name, output.topic
            );
            problems.error(
                Code::Cycle,
                place,
                message,
                "it would process its own outputs without end; use another topic",
            );
        }
    }
    let dead_letter = checked.get("dead_letter").and_then(|d| d.place_of("topic"));
    let Some((topic, place)) = pipeline.dead_letter.topic.as_ref().zip(dead_letter) else {
        return;
    };
    if pipeline.source.topics.contains(topic) {
        let message = format!("dead letters go to `{topic}`, which the pipeline itself reads");
        problems.error(
            Code::Cycle,
            place,
            message,
            "it would fail on them without end; use another topic",
        );
    } else if pipeline.outputs.iter().any(|output| output.topic == *topic) {
        let message = format!("dead letters go to `{topic}`, as an output does");
        problems.warning(
            Code::Doubtful,
            place,
            message,
            "use a topic of their own, so that both can be told apart",
        );
    }
}

/// Finds pipelines that feed each other in a circle (§13.2). A circle can be meant, when a handler ends it.
fn cycles(config: &Config, built: &[Built], problems: &mut Problems) {
    let pipelines = &config.pipelines;
    let mut readers: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, pipeline) in pipelines.iter().enumerate() {
        for topic in &pipeline.source.topics {
            readers.entry(topic).or_default().push(at);
        }
    }
    let fed = |(at, from): (usize, &Pipeline)| {
        let topics = from.outputs.iter().map(|o| o.topic.as_str());
        let fed = topics.filter_map(|topic| readers.get(topic)).flatten();
        let fed: BTreeSet<usize> = fed.copied().filter(|to| *to != at).collect();
        fed.into_iter().collect()
    };
    let next: Vec<Vec<usize>> = pipelines.iter().enumerate().map(fed).collect();
    for (start, Built { checked, .. }) in built.iter().enumerate() {
        // Each circle is told once, at its first pipeline.
        let Some(path) = way_back(&next, start) else {
            continue;
        };
        let names: Vec<_> = path
            .iter()
            .filter_map(|at| pipelines.get(*at))
            .map(|p| format!("`{}`", p.name))
            .collect();
        let second = path.get(1).unwrap_or(&start);
        let topics = pipelines.get(*second).map(|p| &p.source.topics);
        let outputs = checked.get("outputs").and_then(Checked::named);
        let feeding = outputs.unwrap_or_default().iter().find(|(_, output)| {
            let topic = output.get("topic").and_then(Checked::text);
            topic.is_some_and(|t| topics.is_some_and(|topics| topics.iter().any(|u| u == t)))
        });
        let Some(place) = feeding.and_then(|(_, output)| output.place_of("topic")) else {
            continue;
        };
        let message = format!(
            "pipelines feed each other in a circle: {} → back",
            names.join(" → ")
        );
        problems.warning(
            Code::Cycle,
            place,
            message,
            "make sure that a handler ends it",
        );
    }
}

/// The shortest way from `start` back to it over later pipelines.
fn way_back(next: &[Vec<usize>], start: usize) -> Option<Vec<usize>> {
    let mut came_from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut queue = std::collections::VecDeque::from([start]);
    while let Some(here) = queue.pop_front() {
        for &to in next.get(here)? {
            if to == start {
                let mut path = vec![here];
                while let Some(before) = path
                    .last()
                    .filter(|at| **at != start)
                    .and_then(|at| came_from.get(at))
                {
                    path.push(*before);
                }
                path.reverse();
                return Some(path);
            }
            if to > start && !came_from.contains_key(&to) {
                came_from.insert(to, here);
                queue.push_back(to);
            }
        }
    }
    None
}
