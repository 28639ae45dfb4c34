//! Checked values to the validated types, one function a block, and what a block's own values must agree
//! on. What pipelines must agree on among each other is [`super::across`].

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::check::Checked;
use super::ladder;
use super::problem::{Code, Place, Problems};
use super::valid::{
    Alerts, Allow, Backoff, By, Circuit, Config, CreationContext, DeadLetter, DeadLetterAlert,
    Delivery, Durability, Format, Handler, Host, Idempotency, IfMissing, Isolation, Limits,
    LogFiles, NullKey, OnDeadLetter, OnDuplicate, OnLostOffset, Ordering, Output, Pipeline,
    RateLimit, Retry, RetryMode, SecretName, Sequence, Source, Stale, Start, StateGrant, Tls,
    Window,
};
use super::written;
use crate::expression::Condition;

/// A pipeline with what later checks point at.
pub(super) struct Built {
    /// `None` when a problem stands in the way.
    pub(super) pipeline: Option<Pipeline>,
    pub(super) checked: Checked,
}

pub(super) fn host(block: &Checked, problems: &mut Problems) -> Option<Host> {
    let admin = block.get("admin")?;
    let admin_listen = admin.get("listen")?.address();
    if let (Some(address), Some(place)) = (admin_listen, admin.place_of("listen"))
        && !address.ip().is_loopback()
        && admin.get("tls").is_some_and(Checked::is_absent)
    {
        let message =
            format!("the administration port cannot leave loopback without TLS: {address}");
        let help = "add `tls: { certificate: FILE, key: FILE }`, or use 127.0.0.1 and reach it through a tunnel such as ssh";
        problems.error(Code::Conflict, place, message, help);
    }
    let health = block.get("health")?;
    let health_listen = health.get("listen")?.address();
    if let (Some(a), Some(h)) = (admin_listen, health_listen)
        && a == h
        && a.port() != 0
        && let Some(place) = health.place_of("listen").or(admin.place_of("listen"))
    {
        problems.error(
            Code::Conflict,
            place,
            format!("the health port is the administration port: {h}"),
            "give each its own port",
        );
    }
    Some(Host {
        data_dir: PathBuf::from(block.get("data_dir")?.text()?),
        admin_listen: admin_listen?,
        admin_tls: admin.optional("tls", |block| tls(block, problems))?,
        admin_token: admin.optional("token", |token| {
            Some(SecretName(token.get("secret")?.text()?.to_owned()))
        })?,
        health_listen: health_listen?,
        shutdown_timeout: block.get("shutdown_timeout")?.duration()?,
        guest_memory: block.get("guest_memory")?.size()?,
        durability: match block.get("durability")?.choice()? {
            "os" => Durability::Os,
            _ => Durability::Fsync,
        },
        create_topics: create_topics(block.get("create_topics")?)?,
        creation_context: match block.get("tracing")?.get("creation_context")?.choice()? {
            "parent" => CreationContext::Parent,
            _ => CreationContext::Link,
        },
        traces_per_second: block.get("tracing")?.get("traces_per_second")?.nonzero()?,
        logs: logs(block.get("logs")?)?,
    })
}

fn tls(block: &Checked, problems: &Problems) -> Option<Tls> {
    let path = |name| {
        let value = block.get(name)?;
        let folder = problems.folder_of(value.place.as_ref()?);
        Some(beside(folder, value.text()?))
    };
    Some(Tls {
        certificate: path("certificate")?,
        key: path("key")?,
    })
}

/// Where answers may go when nothing else is said.
const REPLY_TOPICS: &str = "wasmill.replies.*";

/// Partitions of a topic that is created because a pipeline names it, when nothing else is said.
const PARTITIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(5);

fn create_topics(value: &Checked) -> Option<Option<NonZeroU32>> {
    match value.bool() {
        Some(true) => Some(Some(PARTITIONS)),
        Some(false) => Some(None),
        None => value.get("partitions")?.nonzero().map(Some),
    }
}

const LOGS: LogFiles = LogFiles {
    size: 16 << 20,
    files: 4,
};

fn logs(value: &Checked) -> Option<Option<LogFiles>> {
    match value.bool() {
        Some(true) => Some(Some(LOGS)),
        Some(false) => Some(None),
        None => Some(Some(LogFiles {
            size: value.get("size")?.size()?,
            files: value.get("files")?.nonzero()?.get(),
        })),
    }
}

/// `cores` is how many calls run at once when nothing is said.
pub(super) fn pipeline(
    block: &Checked,
    cores: NonZeroU32,
    problems: &mut Problems,
) -> Option<Pipeline> {
    // Each part is built before any is given up, so that all of them are looked at.
    let delivery = block.get("delivery").and_then(|value| {
        Some(match value.choice()? {
            "exactly_once" => Delivery::ExactlyOnce,
            "at_most_once" => Delivery::AtMostOnce,
            _ => Delivery::AtLeastOnce,
        })
    });
    let source = block
        .get("source")
        .and_then(|value| source(value, problems));
    let ordering = block
        .get("ordering")
        .and_then(|value| ordering(value, problems));
    let retry = block.get("retry").and_then(|value| retry(value, problems));
    if let (Some(retry), Some(ordering), Some(written)) = (retry, ordering, block.get("retry")) {
        deferred(&retry, ordering, written, problems);
    }
    let idempotency = block
        .optional("idempotency", Some)
        .and_then(|value| match value {
            Some(value) => idempotency(value, problems).map(Some),
            None => Some(None),
        });
    let filter = block.optional("filter", |value| Some(Condition::new(value.expression()?)));
    let sequence = block.optional("sequence", sequence);
    let circuit = block.get("circuit").and_then(circuit);
    let rate_limit = block.optional("rate_limit", |value| {
        Some(RateLimit {
            count: value.get("count")?.nonzero()?,
            interval: value.get("interval")?.duration()?,
        })
    });
    let handler = block
        .get("handler")
        .and_then(|value| handler(value, cores, problems));
    let outputs = block.get("outputs").and_then(outputs);
    let reply_topics = block.get("reply").and_then(|value| {
        let topics = |topics: &Checked| topics.all(|topic| topic.text().map(str::to_owned));
        let topics = value.optional("topics", topics)?;
        Some(topics.unwrap_or_else(|| vec![REPLY_TOPICS.to_owned()]))
    });
    let dead_letter = block.get("dead_letter").and_then(|value| {
        let topic = value.optional("topic", Checked::text)?;
        Some(DeadLetter {
            topic: topic.map(str::to_owned),
        })
    });
    let alerts = block.get("alerts").and_then(alerts);
    Some(Pipeline {
        name: block.get("name")?.text()?.to_owned(),
        written: written::digest(block),
        delivery: delivery?,
        source: source?,
        ordering: ordering?,
        retry: retry?,
        idempotency: idempotency?,
        filter: filter?,
        sequence: sequence?,
        circuit: circuit?,
        rate_limit: rate_limit?,
        handler: handler?,
        outputs: outputs?,
        reply_topics: reply_topics?,
        dead_letter: dead_letter?,
        alerts: alerts?,
    })
}

fn source(block: &Checked, problems: &mut Problems) -> Option<Source> {
    let start = block.get("start").and_then(|value| start(value, problems));
    let window = block.get("window")?;
    let topics = block.get("topics")?;
    if let Some(topics) = topics.list() {
        for (at, topic) in topics.iter().enumerate() {
            let again = topics
                .iter()
                .take(at)
                .any(|earlier| earlier.text().is_some() && earlier.text() == topic.text());
            if let (true, Some(place), Some(name)) = (again, &topic.place, topic.text()) {
                problems.error(
                    Code::Conflict,
                    place,
                    format!("the topic `{name}` is there twice"),
                    "keep one",
                );
            }
        }
    }
    Some(Source {
        topics: topics.all(|topic| topic.text().map(str::to_owned))?,
        consumer_group: block.get("consumer_group")?.text()?.to_owned(),
        start: start?,
        format: match block.get("format")?.choice()? {
            "json" => Format::Json,
            _ => Format::Bytes,
        },
        on_lost_offset: match block.get("on_lost_offset")?.choice()? {
            "earliest" => OnLostOffset::Earliest,
            _ => OnLostOffset::Halt,
        },
        window: Window {
            messages: window.get("messages")?.u32()?,
            bytes: window.get("bytes")?.size()?,
        },
    })
}

fn start(value: &Checked, problems: &mut Problems) -> Option<Start> {
    match value.choice() {
        Some("latest") => return Some(Start::Latest),
        Some(_) => return Some(Start::Earliest),
        None => {}
    }
    let offset = value.optional("offset", Checked::integer)?;
    let timestamp = value.optional("timestamp", Checked::timestamp)?;
    match (offset, timestamp) {
        (Some(offset), None) => Some(Start::Offset(offset)),
        (None, Some(timestamp)) => Some(Start::Timestamp(timestamp)),
        _ => {
            let place = value.place.as_ref()?;
            let help = "expected `earliest`, `latest`, `{ offset: 0 }` or `{ timestamp: 2026-01-31T08:00:00Z }`";
            problems.error(
                Code::Conflict,
                place,
                "`start` needs exactly one of `offset` and `timestamp`",
                help,
            );
            None
        }
    }
}

fn ordering(block: &Checked, problems: &mut Problems) -> Option<Ordering> {
    let by = match block.get("by")?.choice()? {
        "partition" => By::Partition,
        "none" => By::None,
        _ => By::Key,
    };
    if let (By::Partition | By::None, Some(place)) = (by, block.place_of("null_key")) {
        problems.warning(
            Code::Doubtful,
            place,
            "`null_key` has no effect",
            "it is for `by: key`",
        );
    }
    if let (By::None, Some(place)) = (by, block.place_of("on_dead_letter")) {
        problems.warning(
            Code::Doubtful,
            place,
            "`on_dead_letter` has no effect",
            "with `by: none` no message waits for another",
        );
    }
    Some(Ordering {
        by,
        null_key: match block.get("null_key")?.choice()? {
            "partition" => NullKey::Partition,
            _ => NullKey::None,
        },
        on_dead_letter: match block.get("on_dead_letter")?.choice()? {
            "block_lane" => OnDeadLetter::BlockLane,
            _ => OnDeadLetter::Continue,
        },
    })
}

fn retry(block: &Checked, problems: &mut Problems) -> Option<Retry> {
    let backoff = block.get("backoff")?;
    let initial = backoff.get("initial_interval")?.duration();
    let max = backoff.get("max_interval")?.duration();
    if let (Some(initial), Some(max)) = (initial, max)
        && initial > max
        && let Some(place) = backoff
            .place_of("max_interval")
            .or(backoff.place_of("initial_interval"))
    {
        let shown = super::scalar::written_duration;
        let message = format!(
            "`max_interval` ({}) is below `initial_interval` ({})",
            shown(max),
            shown(initial)
        );
        problems.error(
            Code::Conflict,
            place,
            message,
            "raise the one or lower the other",
        );
    }
    let mode = match block.get("mode")?.choice()? {
        "deferred" => RetryMode::Deferred,
        _ => RetryMode::Inline,
    };
    Some(Retry {
        mode,
        max_attempts: block.get("max_attempts")?.nonzero()?,
        max_elapsed: block.optional("max_elapsed", Checked::duration)?,
        backoff: Backoff {
            initial_interval: initial?,
            multiplier: backoff.get("multiplier")?.number()?,
            max_interval: max?,
        },
    })
}

fn alerts(block: &Checked) -> Option<Alerts> {
    Some(Alerts {
        lag: block.optional("lag", Checked::integer)?,
        oldest_age: block.optional("oldest_age", Checked::duration)?,
        dead_letters: block.optional("dead_letters", |letters| {
            Some(DeadLetterAlert {
                count: letters.get("count")?.nonzero()?,
                per: letters.get("per")?.duration()?,
            })
        })?,
    })
}

fn circuit(value: &Checked) -> Option<Option<Circuit>> {
    match value.bool() {
        Some(false) => Some(None),
        Some(true) => Some(Some(Circuit::default())),
        None => Some(Some(Circuit {
            distinct_keys: value.get("distinct_keys")?.nonzero()?,
            window: value.get("window")?.duration()?,
            probe_interval: value.get("probe_interval")?.duration()?,
        })),
    }
}

fn sequence(block: &Checked) -> Option<Sequence> {
    Some(Sequence {
        number: block.get("number")?.expression()?,
        stale: match block.get("stale")?.choice()? {
            "dead_letter" => Stale::DeadLetter,
            _ => Stale::Skip,
        },
        gap_timeout: block.get("gap_timeout")?.duration()?,
    })
}

/// What deferred retries need: that order may be given up, and few different waits.
fn deferred(retry: &Retry, ordering: Ordering, written: &Checked, problems: &mut Problems) {
    let Some(place) = written.place_of("mode").or(written.place.as_ref()) else {
        return;
    };
    if retry.mode == RetryMode::Inline {
        if written.get("relaxed").and_then(Checked::bool) == Some(true) {
            let help = "add `mode: deferred`, or leave `relaxed` out";
            let message = "`relaxed` means something with `mode: deferred` only";
            problems.error(Code::Conflict, place, message, help);
        }
        return;
    }
    let relaxed = written.get("relaxed").and_then(Checked::bool) == Some(true);
    if ordering.by != By::None && !relaxed {
        problems.error(
            Code::Conflict,
            place,
            "deferred retries break the order of a lane: messages overtake one that is put aside",
            "use `ordering: { by: none }`, or say `relaxed: true` under `retry` if later messages may go first",
        );
    }
    if let Err(steps) = ladder::ladder(&retry.backoff) {
        let message = format!(
            "the backoff has {steps} different waits or more; deferred retries keep a topic for each and take at most {}",
            ladder::STEPS_MAX
        );
        let help = "raise `multiplier` or `initial_interval`, or lower `max_interval`";
        problems.error(Code::Conflict, place, message, help);
    }
}

fn idempotency(block: &Checked, problems: &mut Problems) -> Option<Idempotency> {
    let key = block.get("key")?;
    if let (Some(expression), Some(place)) = (key.expression(), &key.place)
        && expression.reads() == crate::expression::Reads::default()
    {
        let help = "read what makes it one of a kind, such as `message.json.order_id`";
        problems.error(
            Code::BadExpression,
            place,
            "the key is the same for every message: it reads nothing of it",
            help,
        );
    }
    let fingerprint = block.optional("fingerprint", |list| list.all(Checked::expression))?;
    Some(Idempotency {
        key: key.expression()?,
        ttl: block.get("ttl")?.duration()?,
        on_duplicate: match block.get("on_duplicate")?.choice()? {
            "replay" => OnDuplicate::Replay,
            _ => OnDuplicate::Skip,
        },
        if_missing: match block.get("if_missing")?.choice()? {
            "process" => IfMissing::Process,
            _ => IfMissing::DeadLetter,
        },
        fingerprint: fingerprint.unwrap_or_default(),
    })
}

fn handler(block: &Checked, cores: NonZeroU32, problems: &mut Problems) -> Option<Handler> {
    let plugin = block.get("plugin")?;
    if let (Some(true), Some(place)) = (
        plugin.text().map(|p| p.starts_with("oci://")),
        &plugin.place,
    ) {
        let help = "write the path of a file, relative to this one";
        problems.error(
            Code::NotInThisVersion,
            place,
            "plugins from a registry are not in this version",
            help,
        );
        return None;
    }
    let config = block.get("config")?.named()?;
    let config: Option<_> = config
        .iter()
        .map(|(key, value)| Some((key.text.clone(), value.text()?.to_owned())))
        .collect();
    Some(Handler {
        plugin: beside(problems.folder_of(plugin.place.as_ref()?), plugin.text()?),
        config: config?,
        allow: allow(block.get("allow")?)?,
        limits: limits(block.get("limits")?)?,
        concurrency: block
            .optional("concurrency", Checked::nonzero)?
            .unwrap_or(cores),
        batch: block.optional("batch", Checked::nonzero)?,
        isolation: match block.get("isolation")?.choice()? {
            "message" => Isolation::Message,
            _ => Isolation::Worker,
        },
    })
}

/// `./a` beside `x/y.yaml` is `x/a`.
fn beside(folder: &Path, path: &str) -> PathBuf {
    let path = Path::new(path);
    folder.join(path.strip_prefix(".").unwrap_or(path))
}

fn allow(block: &Checked) -> Option<Allow> {
    let state = block.optional("state", |state| {
        Some(StateGrant {
            max_size: state.get("max_size")?.size()?,
            name: state.get("name")?.text()?.to_owned(),
            version: u32::try_from(state.get("version")?.integer()?).ok()?,
        })
    })?;
    Some(Allow {
        state,
        clock: block.get("clock")?.bool()?,
        random: block.get("random")?.bool()?,
    })
}

fn limits(block: &Checked) -> Option<Limits> {
    Some(Limits {
        memory: block.get("memory")?.size()?,
        time: block.get("time")?.duration()?,
        outputs: block.get("outputs")?.u32()?,
        output_size: block.get("output_size")?.size()?,
        log_lines: block.get("log_lines")?.u32()?,
    })
}

fn outputs(block: &Checked) -> Option<Vec<Output>> {
    let one = |(key, value): &(super::yaml::Key, Checked)| {
        Some(Output {
            name: key.text.clone(),
            topic: value.get("topic")?.text()?.to_owned(),
            key: value.optional("key", Checked::expression)?,
            set_headers: value
                .get("set_headers")?
                .named()?
                .iter()
                .map(|(name, value)| Some((name.text.clone(), value.expression()?)))
                .collect::<Option<_>>()?,
            headers: value
                .get("headers")?
                .all(|header| header.text().map(str::to_owned))?,
        })
    };
    block.named()?.iter().map(one).collect()
}

/// Puts the parts together. An absent part without a problem would be a mistake of this module; it is
/// reported as one instead of passing for a configuration.
pub(super) fn config(
    host: Option<Host>,
    built: &[Built],
    problems: &mut Problems,
) -> Option<Config> {
    let pipelines: Option<Vec<_>> = built.iter().map(|b| b.pipeline.clone()).collect();
    if let (Some(host), Some(pipelines)) = (host, pipelines) {
        return Some(Config { host, pipelines });
    }
    if !problems.has_errors() {
        let place = Place {
            file: 0,
            span: 0..0,
        };
        let help = "please report this with the file";
        problems.error(
            Code::BadValue,
            &place,
            "the configuration has the right shape and could not be read",
            help,
        );
    }
    None
}
