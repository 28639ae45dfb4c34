//! `wasmill dlq list|show`: dead letters with what their headers say (§6.1).

use clap::{Args, Subcommand};

use super::access::IfAbsent;
use super::error::Error;
use super::output::{Format, Out};
use super::position::MessagePlace;
use super::{Place, text};
use crate::admin::time;
use crate::admin::wire::{Blob, DeadLetter, DeadLetterFilter};
use crate::expression::nearest;
use crate::telemetry::labels::{DeadLetterReason, Label};

#[derive(Debug, Subcommand)]
pub(super) enum Dlq {
    /// Dead letters, newest first
    List(List),
    /// One dead letter in full
    Show {
        /// Its id, or TOPIC/PARTITION@OFFSET
        dead_letter: String,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only of this pipeline
    #[arg(long)]
    pipeline: Option<String>,
    /// Only in this dead letter topic; also one whose name does not end in .dlq
    #[arg(long)]
    topic: Option<String>,
    /// Only for this reason, as in the column REASON
    #[arg(long)]
    reason: Option<String>,
    /// How many at most
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u32,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(command: Dlq, place: &Place, out: &mut Out) -> Result<(), Error> {
    match command {
        Dlq::List(list) => self::list(list, place, out),
        Dlq::Show {
            dead_letter,
            output,
        } => show(&dead_letter, place, output, out),
    }
}

fn list(list: List, place: &Place, out: &mut Out) -> Result<(), Error> {
    let filter = DeadLetterFilter {
        topic: list.topic,
        pipeline: list.pipeline,
        reason: list.reason,
        limit: Some(list.limit),
    };
    let found = place.streams(IfAbsent::Refuse)?.dead_letters(&filter)?;
    if list.output == Format::Json {
        return out.json(&found);
    }
    let rows = found.dead_letters.iter().map(|letter| {
        vec![
            letter.position.clone(),
            letter
                .last_failed_at_ms
                .map_or(text::NONE.to_owned(), time::rfc3339),
            or_none(letter.pipeline.as_deref()),
            or_none(letter.reason.as_deref()),
            letter
                .attempts
                .map_or(text::NONE.to_owned(), |attempts| attempts.to_string()),
            blob(letter.message.key.as_ref()),
            or_none(letter.error.as_deref()),
        ]
    });
    out.table(
        &[
            "POSITION", "FAILED", "PIPELINE", "REASON", "ATTEMPTS", "KEY", "ERROR",
        ],
        rows,
        &nothing(filter.reason.as_deref()),
    )?;
    if found.more {
        out.line(
            "there are more: narrow it with --topic, --pipeline or --reason, or raise --limit",
        )?;
    }
    if let Some(first) = found.dead_letters.first() {
        out.line("")?;
        out.line(format!(
            "see one in full: wasmill dlq show {}",
            text::escape(&first.position)
        ))?;
    }
    Ok(())
}

/// Why there may be nothing to list.
fn nothing(reason: Option<&str>) -> String {
    let Some(reason) = reason.filter(|reason| DeadLetterReason::named(reason).is_none()) else {
        return "no dead letters".to_owned();
    };
    let known = DeadLetterReason::ALL.iter().map(|known| known.as_str());
    let meant = nearest(reason, known).map(|meant| format!("; did you mean {meant}?"));
    format!(
        "no dead letters, and {} is no reason this version knows{}",
        text::escape(reason),
        meant.unwrap_or_default()
    )
}

fn show(wanted: &str, place: &Place, output: Format, out: &mut Out) -> Result<(), Error> {
    let streams = place.streams(IfAbsent::Refuse)?;
    let letter = match MessagePlace::parse(wanted) {
        Some(at) => streams.dead_letter_at(&at.topic, at.partition, at.offset)?,
        None => streams.dead_letter(wanted)?,
    };
    if output == Format::Json {
        return out.json(&letter);
    }
    for (name, value) in facts(&letter) {
        let name = out.bold(&format!("{name:<14}"));
        out.line(format!("{name} {}", text::escape(&value)))?;
    }
    out.line("")?;
    out.line(out.bold("headers of the message"))?;
    if letter.message.headers.is_empty() {
        out.line("  none")?;
    }
    for header in &letter.message.headers {
        let value = blob(header.value.as_ref());
        out.line(format!("  {}: {value}", text::escape(&header.name)))?;
    }
    out.line("")?;
    out.line(format!(
        "{} {}",
        out.bold("key"),
        blob(letter.message.key.as_ref())
    ))?;
    out.line(out.bold("payload"))?;
    out.line(blob(letter.message.payload.as_ref()))
}

fn facts(letter: &DeadLetter) -> Vec<(&'static str, String)> {
    let number = |number: Option<u64>| number.map_or(text::NONE.to_owned(), |n| n.to_string());
    let moment = |ms: Option<i64>| ms.map_or(text::NONE.to_owned(), time::rfc3339);
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
        ("reason", or_none(letter.reason.as_deref())),
        ("error", or_none(letter.error.as_deref())),
        ("attempts", number(letter.attempts.map(u64::from))),
        ("first failed", moment(letter.first_failed_at_ms)),
        ("last failed", moment(letter.last_failed_at_ms)),
        ("origin", origin),
        ("origin time", moment(letter.origin_timestamp_ms)),
        ("pipeline", or_none(letter.pipeline.as_deref())),
        ("group", or_none(letter.group.as_deref())),
        ("plugin", or_none(letter.plugin_digest.as_deref())),
        ("redrives", number(letter.redrive_count.map(u64::from))),
    ]
}

fn or_none(text: Option<&str>) -> String {
    text.unwrap_or(text::NONE).to_owned()
}

fn blob(blob: Option<&Blob>) -> String {
    blob.map_or(text::NONE.to_owned(), |blob| text::of_bytes(&blob.0))
}
