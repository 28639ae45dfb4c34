//! `wasmill status`: what runs, in which state and why, how far behind, and for each partition that
//! is held, by which message and what to do about it.

use anstyle::AnsiColor;
use clap::Args;

use super::access::IfAbsent;
use super::error::Error;
use super::output::{Format, Out};
use super::{Place, text};
use crate::admin::time;
use crate::admin::wire::{Backlog, Status as Answer};
use crate::pipeline::snapshot::{Holder, Snapshot, State, WaitsFor};

#[derive(Debug, Args)]
pub(super) struct Status {
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(status: &Status, place: &Place, out: &mut Out) -> Result<(), Error> {
    let answer = place.streams(IfAbsent::Refuse)?.status()?;
    if status.output == Format::Json {
        return out.json(&answer);
    }
    out.line(place.described())?;
    show(&answer, time::now_ms(), out)
}

fn show(answer: &Answer, now_ms: i64, out: &mut Out) -> Result<(), Error> {
    head(answer, now_ms, out)?;
    if answer.host.is_some() {
        out.line("")?;
        pipelines(answer, now_ms, out)?;
    }
    for pipeline in &answer.pipelines {
        for one in &pipeline.partitions {
            if let Some(found) = &one.holder {
                out.line("")?;
                out.line(format!("pipeline {}:", text::escape(&pipeline.pipeline)))?;
                let group = &pipeline.consumer_group;
                holder(&one.topic, one.partition, group, found, out)?;
            }
        }
    }
    if !answer.dead_letters.is_empty() {
        out.line("")?;
        let rows = answer
            .dead_letters
            .iter()
            .map(|one| vec![one.topic.clone(), text::count(one.messages)]);
        out.table(&["DEAD LETTER TOPIC", "MESSAGES"], rows, "")?;
        out.line("closed ones count as well; those to look at: `wasmill dlq list`")?;
        for one in &answer.backlogs {
            if one.dead_letters_open > 0 || one.dead_letters_more {
                out.line(format!(
                    "{}: {} open",
                    text::escape(&one.pipeline),
                    open_letters(one)
                ))?;
            }
        }
    }
    Ok(())
}

fn head(answer: &Answer, now_ms: i64, out: &mut Out) -> Result<(), Error> {
    match &answer.host {
        Some(host) => {
            let up = u64::try_from(now_ms.saturating_sub(host.started_at_ms)).unwrap_or_default();
            out.line(format!(
                "host: process {}, wasmill {}, up {}",
                host.pid,
                text::escape(&host.version),
                time::span(up)
            ))?;
        }
        None => out.line("host: none runs on this directory; start one with `wasmill run`")?,
    }
    match (&answer.store.why, answer.store.healthy) {
        (_, true) => out.line(format!("store: {}", out.paint("healthy", AnsiColor::Green))),
        (why, false) => out.line(format!(
            "store: {}: {}",
            out.paint("failing", AnsiColor::Red),
            text::escape(why.as_deref().unwrap_or("see the host's log"))
        )),
    }
}

fn pipelines(answer: &Answer, now_ms: i64, out: &mut Out) -> Result<(), Error> {
    let rows = answer
        .pipelines
        .iter()
        .map(|pipeline| row(pipeline, backlog(answer, &pipeline.pipeline), now_ms));
    out.table(
        &[
            "PIPELINE",
            "STATE",
            "UNSTARTED",
            "HELD",
            "OLDEST",
            "CONSUMED",
            "DUPLICATES",
            "RETRIES",
            "WAITING",
            "DEAD",
            "OPEN",
            "PLUGIN",
        ],
        rows,
        "no pipelines",
    )?;
    for pipeline in &answer.pipelines {
        if let Some(why) = &pipeline.why {
            let colour = match pipeline.state {
                State::Failed | State::Blocked => AnsiColor::Red,
                _ => AnsiColor::Yellow,
            };
            out.line(format!(
                "{} is {}: {}",
                text::escape(&pipeline.pipeline),
                out.paint(state(pipeline.state), colour),
                text::escape(why)
            ))?;
        }
    }
    Ok(())
}

pub(super) fn backlog<'a>(answer: &'a Answer, pipeline: &str) -> Option<&'a Backlog> {
    let mut all = answer.backlogs.iter();
    all.find(|backlog| backlog.pipeline == pipeline)
}

/// `1,000+` when there may be more than were counted.
pub(super) fn open_letters(backlog: &Backlog) -> String {
    let more = if backlog.dead_letters_more { "+" } else { "" };
    format!("{}{more}", text::count(backlog.dead_letters_open))
}

fn row(pipeline: &Snapshot, backlog: Option<&Backlog>, now_ms: i64) -> Vec<String> {
    let unstarted: u64 = pipeline
        .partitions
        .iter()
        .map(|one| one.end.saturating_sub(one.position))
        .sum();
    let held: u64 = pipeline.partitions.iter().map(|one| one.held).sum();
    let oldest = pipeline
        .partitions
        .iter()
        .filter_map(|one| one.oldest_unfinished_ms)
        .min()
        .map_or(text::NONE.to_owned(), |since| {
            time::span(u64::try_from(now_ms.saturating_sub(since)).unwrap_or_default())
        });
    vec![
        pipeline.pipeline.clone(),
        state(pipeline.state).to_owned(),
        text::count(unstarted),
        text::count(held),
        oldest,
        text::count(pipeline.totals.consumed),
        text::count(pipeline.totals.duplicates),
        text::count(pipeline.totals.retries),
        backlog.map_or(text::NONE.to_owned(), |one| {
            text::count(one.retries_waiting)
        }),
        text::count(pipeline.totals.dead_letters),
        backlog.map_or(text::NONE.to_owned(), open_letters),
        short_digest(&pipeline.plugin_digest).to_owned(),
    ]
}

/// The message that holds a partition, and what to do.
pub(super) fn holder(
    topic: &str,
    partition: u32,
    group: &str,
    holder: &Holder,
    out: &mut Out,
) -> Result<(), Error> {
    let place = format!("{}/{partition}@{}", text::escape(topic), holder.offset);
    for line in holder_lines(&out.bold(&place), topic, partition, group, holder) {
        out.line(format!("  {line}"))?;
    }
    Ok(())
}

/// The same as lines, escaped; `place` is how the message's place is shown.
pub(super) fn holder_lines(
    place: &str,
    topic: &str,
    partition: u32,
    group: &str,
    holder: &Holder,
) -> Vec<String> {
    let key = holder
        .key
        .as_deref()
        .map_or("without a key".to_owned(), |key| {
            format!("key {}", text::escape(key))
        });
    let mut lines = vec![
        format!(
            "{place} holds the partition: {key}, correlation ID {}",
            text::escape(&holder.correlation_id)
        ),
        waiting(holder, time::now_ms()),
    ];
    if let Some(error) = &holder.error {
        lines.push(format!("last error: {}", text::escape(error)));
    }
    lines.push(format!("what to do: {}", advice(holder)));
    for command in commands(topic, partition, group, holder) {
        lines.push(format!("  {}", text::escape(&command)));
    }
    lines
}

/// To copy: what the message is, what happened to it, and how to let the partition go on without it.
fn commands(topic: &str, partition: u32, group: &str, holder: &Holder) -> Vec<String> {
    let (topic, group, id) = (shell(topic), shell(group), shell(&holder.correlation_id));
    let offset = holder.offset;
    let mut commands = vec![
        format!("wasmill show {topic}/{partition}@{offset}"),
        format!("wasmill trace {id}"),
        format!("wasmill logs --correlation-id {id}"),
    ];
    if holder.waits_for == WaitsFor::Retry {
        commands.push(format!(
            "wasmill reject {topic}/{partition}@{offset} --group {group} --note 'why it is given up'"
        ));
    }
    commands
}

/// One word for a shell: correlation IDs are whatever a stranger wrote.
fn shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

fn waiting(holder: &Holder, now_ms: i64) -> String {
    let attempts = format!("attempt {} of {}", holder.attempts, holder.max_attempts);
    match holder.waits_for {
        WaitsFor::Retry => match holder.next_try_ms {
            Some(at) => {
                let wait = u64::try_from(at.saturating_sub(now_ms)).unwrap_or_default();
                format!(
                    "{attempts} failed; next try in {} ({})",
                    time::span(wait),
                    time::rfc3339(at)
                )
            }
            None => format!(
                "{} of {} attempts are spent; it waits for the circuit to close",
                holder.attempts, holder.max_attempts
            ),
        },
        WaitsFor::Claim => "waits for another message with the same idempotency key".to_owned(),
        WaitsFor::Sequence => format!(
            "{}; it waits until {}",
            holder
                .error
                .as_deref()
                .unwrap_or("a number before it is missing"),
            holder.next_try_ms.map_or_else(String::new, time::rfc3339)
        ),
        WaitsFor::Settlement => format!("{attempts}; what it caused is not durable yet"),
        WaitsFor::Call => format!("{attempts} runs"),
    }
}

fn advice(holder: &Holder) -> String {
    match holder.waits_for {
        WaitsFor::Retry => format!(
            "repair what the error names; after attempt {} it becomes a dead letter and the partition goes on",
            holder.max_attempts
        ),
        WaitsFor::Claim => "nothing: it goes on when the other one is finished".to_owned(),
        WaitsFor::Sequence => {
            "nothing: it goes on when the number comes, or without it after sequence.gap_timeout".to_owned()
        }
        WaitsFor::Settlement => {
            "if this lasts, the store does not take writes: see the store above, and the free disk space"
                .to_owned()
        }
        WaitsFor::Call => {
            "nothing: a call that lasts longer than handler.limits.time is stopped".to_owned()
        }
    }
}

pub(super) const fn state(state: State) -> &'static str {
    match state {
        State::Starting => "starting",
        State::Running => "running",
        State::Blocked => "blocked",
        State::Draining => "draining",
        State::Paused => "paused",
        State::Stopped => "stopped",
        State::Failed => "failed",
    }
}

/// Twelve hex digits are enough for people; `-o json` has all.
fn short_digest(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(waits_for: WaitsFor) -> Holder {
        Holder {
            offset: 7,
            key: Some("N1".into()),
            correlation_id: "c".into(),
            waits_for,
            attempts: 3,
            max_attempts: 5,
            error: Some("no".into()),
            next_try_ms: Some(12_000),
        }
    }

    #[test]
    fn a_holder_that_waits_says_its_attempt_and_when_it_tries_again() {
        let line = waiting(&held(WaitsFor::Retry), 2_000);
        assert_eq!(
            line,
            "attempt 3 of 5 failed; next try in 10s (1970-01-01T00:00:12.000Z)"
        );
        assert!(advice(&held(WaitsFor::Retry)).contains("after attempt 5"));
    }

    #[test]
    fn the_commands_to_copy_are_safe_whatever_the_correlation_id_says() {
        let mut holder = held(WaitsFor::Retry);
        holder.correlation_id = "x'; rm -rf ~".into();
        let commands = commands("orders", 3, "g", &holder);
        assert_eq!(
            commands[..2],
            [
                "wasmill show orders/3@7",
                r"wasmill trace 'x'\''; rm -rf ~'",
            ]
        );
        assert!(commands[3].starts_with("wasmill reject orders/3@7 --group g "));
    }

    #[test]
    fn a_digest_is_shortened_and_a_strange_one_is_left() {
        assert_eq!(short_digest("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_digest("x"), "x");
    }
}
