//! `wasmill dlq list|groups|show`: dead letters with what their headers say (§6.1) and what became of them.

use clap::Args;

use super::plural;
use super::select::Filter;
use crate::admin::letters::wire::{
    DeadLetter, DeadLetterFilter, FailureGroup, LetterState, Round, Scanned, StateFilter,
};
use crate::admin::time;
use crate::admin::wire::{Blob, Message};
use crate::cli::access::IfAbsent;
use crate::cli::error::Error;
use crate::cli::output::{Format, Out};
use crate::cli::position::MessagePlace;
use crate::cli::{Place, text};
use crate::expression::nearest;
use crate::telemetry::labels::{DeadLetterReason, Label};

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    filter: Filter,
    /// Only in this state; `new` also shows those that failed again or were lost on their way back
    #[arg(long, value_enum, default_value_t)]
    state: StateFilter,
    /// How many at most
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u32,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Groups {
    #[command(flatten)]
    filter: Filter,
    /// Only in this state
    #[arg(long, value_enum, default_value_t)]
    state: StateFilter,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn list(list: &List, place: &Place, out: &mut Out) -> Result<(), Error> {
    let filter = list.filter.in_state(list.state, Some(list.limit))?;
    let found = place.streams(IfAbsent::Refuse)?.dead_letters(&filter)?;
    if list.output == Format::Json {
        return out.json(&found);
    }
    let with_state = list.state == StateFilter::All;
    let rows = found.dead_letters.iter().map(|letter| {
        let mut row = vec![
            letter.position.clone(),
            moment(letter.last_failed_at_ms),
            or_none(letter.pipeline.as_deref()),
            or_none(letter.reason.as_deref()),
            or_none(letter.attempts),
            or_none(letter.redrive_count),
            letter.failure_group.clone(),
            blob(letter.message.key.as_ref()),
            or_none(letter.error.as_deref()),
        ];
        if with_state {
            row.insert(1, state(&letter.state));
        }
        row
    });
    let mut head = vec![
        "POSITION", "FAILED", "PIPELINE", "REASON", "ATTEMPTS", "REDRIVES", "GROUP", "KEY", "ERROR",
    ];
    if with_state {
        head.insert(1, "STATE");
    }
    out.table(&head, rows, &nothing(&filter))?;
    scanned(&found.scanned, &filter, out)?;
    if let Some(first) = found.dead_letters.first() {
        out.line("")?;
        out.line(format!(
            "see one in full: wasmill dlq show {}",
            text::escape(&first.position)
        ))?;
    }
    Ok(())
}

pub(super) fn groups(groups: &Groups, place: &Place, out: &mut Out) -> Result<(), Error> {
    let filter = groups.filter.in_state(groups.state, None)?;
    let found = place.streams(IfAbsent::Refuse)?.failure_groups(&filter)?;
    if groups.output == Format::Json {
        return out.json(&found);
    }
    group_table(&found.groups, &nothing(&filter), out)?;
    if found.other > 0 {
        out.line(format!(
            "and {} dead letter{} of further groups; narrow it with --pipeline or --reason",
            found.other,
            plural(found.other)
        ))?;
    }
    scanned(&found.scanned, &filter, out)?;
    if let Some(first) = found.groups.first() {
        out.line("")?;
        out.line(format!(
            "an example in full: wasmill dlq show {}",
            text::escape(&first.example)
        ))?;
        out.line(format!(
            "send a group back: wasmill dlq redrive --group {} --dry-run",
            first.id
        ))?;
    }
    Ok(())
}

pub(super) fn group_table(
    groups: &[FailureGroup],
    empty: &str,
    out: &mut Out,
) -> Result<(), Error> {
    let rows = groups.iter().map(|group| {
        let plugins: Vec<&str> = group.plugins.iter().map(|one| short(one)).collect();
        vec![
            group.id.clone(),
            group.count.to_string(),
            group.pipeline.clone(),
            group.consumer_group.clone(),
            group.reason.clone(),
            time::rfc3339(group.first_at_ms),
            time::rfc3339(group.last_at_ms),
            plugins.join(" "),
            group.error.clone(),
        ]
    });
    out.table(
        &[
            "GROUP",
            "COUNT",
            "PIPELINE",
            "CONSUMER GROUP",
            "REASON",
            "FIRST",
            "LAST",
            "PLUGIN",
            "ERROR",
        ],
        rows,
        empty,
    )
}

/// What an answer did not look at.
pub(super) fn scanned(
    scanned: &Scanned,
    filter: &DeadLetterFilter,
    out: &mut Out,
) -> Result<(), Error> {
    for hint in &scanned.hints {
        out.line(text::escape(hint))?;
    }
    if scanned.more {
        let back_to = scanned
            .back_to_ms
            .map(|at| format!(", back to {}", time::rfc3339(at)))
            .unwrap_or_default();
        out.line(format!(
            "there are more: this looked at {} message{}{back_to}; go on with --until, narrow it, or raise --limit or --scan",
            scanned.looked_at,
            plural(scanned.looked_at)
        ))?;
    }
    if scanned.redriving > 0 && filter.state == StateFilter::New {
        out.line(format!(
            "{} more on the way back to their consumer group (--state redriving; wasmill dlq jobs)",
            scanned.redriving
        ))?;
    }
    Ok(())
}

/// Why there may be nothing to list.
fn nothing(filter: &DeadLetterFilter) -> String {
    let none = match filter.state {
        StateFilter::New => "no dead letters that anybody has to look at",
        _ => "no dead letters",
    };
    let reason = filter.reason.as_deref();
    let Some(reason) = reason.filter(|reason| DeadLetterReason::named(reason).is_none()) else {
        return none.to_owned();
    };
    let known = DeadLetterReason::ALL.iter().map(|known| known.as_str());
    let meant = nearest(reason, known).map(|meant| format!("; did you mean {meant}?"));
    format!(
        "{none}, and {} is no reason this version knows{}",
        text::escape(reason),
        meant.unwrap_or_default()
    )
}

pub(super) fn show(
    wanted: &str,
    place: &Place,
    output: Format,
    out: &mut Out,
) -> Result<(), Error> {
    let streams = place.streams(IfAbsent::Refuse)?;
    let letter = match MessagePlace::parse(wanted) {
        Some(at) => streams.dead_letter_at(&at.topic, at.partition, at.offset)?,
        None => streams.dead_letter(wanted)?,
    };
    if output == Format::Json {
        return out.json(&letter);
    }
    show_letter(&letter, out)
}

/// A dead letter in full.
pub(in crate::cli) fn show_letter(letter: &DeadLetter, out: &mut Out) -> Result<(), Error> {
    for (name, value) in facts(letter) {
        let name = out.bold(&format!("{name:<14}"));
        out.line(format!("{name} {}", text::escape(&value)))?;
    }
    if letter.history.len() > 1 {
        out.line("")?;
        out.line(out.bold("history"))?;
        for round in &letter.history {
            out.line(format!("  {}", text::escape(&told(round))))?;
        }
    }
    show_message(&letter.message, out)
}

/// Headers, key and payload of a message.
pub(in crate::cli) fn show_message(message: &Message, out: &mut Out) -> Result<(), Error> {
    out.line("")?;
    out.line(out.bold("headers of the message"))?;
    if message.headers.is_empty() {
        out.line("  none")?;
    }
    for header in &message.headers {
        let value = blob(header.value.as_ref());
        out.line(format!("  {}: {value}", text::escape(&header.name)))?;
    }
    out.line("")?;
    out.line(format!(
        "{} {}",
        out.bold("key"),
        blob(message.key.as_ref())
    ))?;
    out.line(out.bold("payload"))?;
    out.line(blob(message.payload.as_ref()))
}

fn told(round: &Round) -> String {
    format!("round {}: {}", round.redrive_count, state(&round.state))
}

/// The state with when, by whom and why.
fn state(state: &LetterState) -> String {
    let mut told = state.state.as_str().to_owned();
    if state.lost {
        told.push_str(" (lost: its consumer group went past it; redrive it again)");
    }
    if let (Some(at), Some(by)) = (state.at_ms, &state.by) {
        told.push_str(&format!(" since {} by {by}", time::rfc3339(at)));
    }
    if let Some(job) = &state.job {
        told.push_str(&format!(", redrive {job}"));
    }
    if let Some(note) = &state.note {
        told.push_str(&format!(": {note}"));
    }
    told
}

fn facts(letter: &DeadLetter) -> Vec<(&'static str, String)> {
    let origin = match (
        &letter.origin_topic,
        letter.origin_partition,
        letter.origin_offset,
    ) {
        (Some(topic), Some(partition), Some(offset)) => format!("{topic}/{partition}@{offset}"),
        _ => text::NONE.to_owned(),
    };
    vec![
        ("position", letter.position.clone()),
        ("id", or_none(letter.id.as_deref())),
        ("state", state(&letter.state)),
        ("reason", or_none(letter.reason.as_deref())),
        ("error", or_none(letter.error.as_deref())),
        ("failure group", letter.failure_group.clone()),
        ("attempts", or_none(letter.attempts)),
        ("first failed", moment(letter.first_failed_at_ms)),
        ("last failed", moment(letter.last_failed_at_ms)),
        ("origin", origin),
        ("origin time", moment(letter.origin_timestamp_ms)),
        ("pipeline", or_none(letter.pipeline.as_deref())),
        ("group", or_none(letter.group.as_deref())),
        ("plugin", or_none(letter.plugin_digest.as_deref())),
        ("redrives", or_none(letter.redrive_count)),
    ]
}

/// A digest as it is shown where there is little room.
fn short(digest: &str) -> &str {
    let bare = digest.strip_prefix("sha256:").unwrap_or(digest);
    bare.get(..8).unwrap_or(bare)
}

fn or_none(value: Option<impl ToString>) -> String {
    value.map_or(text::NONE.to_owned(), |value| value.to_string())
}

fn moment(ms: Option<i64>) -> String {
    or_none(ms.map(time::rfc3339))
}

fn blob(blob: Option<&Blob>) -> String {
    blob.map_or(text::NONE.to_owned(), |blob| text::of_bytes(&blob.0))
}
