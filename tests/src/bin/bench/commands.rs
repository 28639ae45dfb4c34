//! How long commands take on a large log, as a person waits for them: the real program as a process, from
//! its start to its end, on a directory that no host holds.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use wasmill::connector::embedded::{Commit, Write};
use wasmill::message::MessageRef;
use wasmill::pipeline::correlation;
use wasmill::pipeline::dead_letter::{self, DeadLetter};
use wasmill::pipeline::offsets::Offsets;
use wasmill::pipeline::verdict::Reason;

use crate::report::{self, Row};
use crate::store::{self, INPUT};
use crate::{Arguments, machine};

const GROUP: &str = "billing";
/// Messages in the topic for each message that was asked for, and dead letters.
const TIMES: u64 = 10;
const LETTER_TIMES: u64 = 2;
const ROUNDS: usize = 5;
/// Seconds, issue 4: `seek` and `dlq list`.
const ANSWER_MAX: f64 = 1.0;

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let dir = arguments.dir.join("commands");
    let (messages, letters) = (
        arguments.messages * TIMES,
        arguments.messages * LETTER_TIMES,
    );
    let begun = Instant::now();
    prepare(&dir, messages, letters)?;
    report::say(&format!(
        "{messages} messages and {letters} dead letters written in {:.0} s",
        begun.elapsed().as_secs_f64()
    ));
    let half = store::TIMESTAMP_FIRST_MS + messages as i64 / 2;
    let at = dead_letter::rfc3339(half);
    let (middle, none) = (id_of(messages / 2), "no-such-id".to_owned());
    let asked: [(&str, Vec<&str>, bool); 8] = [
        (
            "groups seek --to a time, dry run",
            vec!["groups", "seek", GROUP, "--to", &at, "--dry-run"],
            true,
        ),
        (
            "groups seek --to a time",
            vec!["groups", "seek", GROUP, "--to", &at, "--yes"],
            true,
        ),
        (
            "groups seek --to earliest",
            vec!["groups", "seek", GROUP, "--to", "earliest", "--yes"],
            true,
        ),
        ("dlq list, the newest", vec!["dlq", "list"], true),
        (
            "dlq list of a reason that none has",
            vec!["dlq", "list", "--reason", "host_crash"],
            true,
        ),
        ("dlq groups", vec!["dlq", "groups"], true),
        (
            "trace of a message in the middle",
            vec!["trace", &middle, "--messages", "100000000"],
            false,
        ),
        (
            "trace of an ID that nothing has",
            vec!["trace", &none],
            false,
        ),
    ];
    let mut rows = Vec::new();
    for (name, command, is_bounded) in asked {
        let mut seconds = Vec::new();
        for _ in 0..ROUNDS {
            seconds.push(took(arguments, &dir, &command)?);
        }
        let row = Row::new(&format!("`{name}`, s"), seconds);
        rows.push(if is_bounded {
            row.limit(ANSWER_MAX)
        } else {
            row
        });
    }
    report::rows(
        &format!(
            "Commands on {messages} messages and {letters} dead letters (load {})",
            machine::load()
        ),
        &rows,
    );
    store::clear(&dir)
}

fn id_of(sequence: u64) -> String {
    format!("order-{sequence}")
}

fn prepare(dir: &Path, messages: u64, letters: u64) -> Result<(), String> {
    let shown = |error: &dyn std::fmt::Display| error.to_string();
    store::clear(dir)?;
    std::fs::create_dir_all(dir).map_err(|error| shown(&error))?;
    let log = store::open(dir)?;
    store::fill(&log, INPUT, messages, |sequence, payload, headers| {
        _ = headers.push(correlation::HEADER, Some(id_of(sequence).as_bytes()));
        enrich_logic::sample(sequence, payload).map_err(|error| shown(&error))
    })?;
    let topic = dead_letter::default_topic(INPUT, GROUP);
    store::fill(&log, &topic, letters, |sequence, payload, headers| {
        enrich_logic::sample(sequence, payload).map_err(|error| shown(&error))?;
        let failed_at_ms = store::TIMESTAMP_FIRST_MS + sequence as i64;
        let letter = DeadLetter {
            reason: Reason::AttemptsExhausted,
            error: "the ledger refused the entry",
            attempts: 5,
            first_failed_at_ms: failed_at_ms,
            last_failed_at_ms: failed_at_ms,
            origin_topic: INPUT,
            origin_partition: (sequence % u64::from(store::PARTITIONS)) as u32,
            origin_offset: sequence,
            group: GROUP,
            pipeline: "billing",
            plugin_digest: "sha256:0000",
            redrive_count: 0,
            correlation_id: &id_of(sequence),
        };
        let message = MessageRef {
            payload: Some(payload),
            ..MessageRef::default()
        };
        letter
            .record(&message, headers)
            .map(drop)
            .ok_or_else(|| "too many headers".to_owned())
    })?;
    let group = log.group(GROUP).map_err(|error| shown(&error))?;
    let topic = log.topic(INPUT).ok_or("the topic is not there")?;
    let mut commit = Commit::default();
    for partition in &topic.partitions {
        let mut value = Vec::new();
        let end = log.end(*partition).map_err(|error| shown(&error))?;
        Offsets::start(end).encode_progress(&mut value);
        commit.writes.push(Write::Progress {
            group,
            partition: *partition,
            value,
        });
    }
    log.commit(commit).map_err(|error| shown(&error))?;
    log.close().map_err(|error| shown(&error))
}

fn took(arguments: &Arguments, dir: &Path, command: &[&str]) -> Result<f64, String> {
    let begun = Instant::now();
    let done = Command::new(&arguments.host)
        .args(command)
        .arg("--data-dir")
        .arg(dir)
        .output()
        .map_err(|error| format!("{}: {error}", arguments.host.display()))?;
    let seconds = begun.elapsed().as_secs_f64();
    // `trace` of nothing says so by its status.
    if done.status.success() || command.first() == Some(&"trace") {
        return Ok(seconds);
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr)
    ))
}
