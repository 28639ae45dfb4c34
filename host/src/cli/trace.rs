//! `wasmill trace CORRELATION_ID`: what happened to one message, across pipelines, as a timeline.

use anstyle::AnsiColor;
use clap::Args;

use super::access::IfAbsent;
use super::error::Error;
use super::output::{Format, Out};
use super::{Place, logs, text};
use crate::admin::time;
use crate::admin::trace::{Event, Stand, Trace as Answer, TraceQuery, What};

#[derive(Debug, Args)]
pub(super) struct Trace {
    correlation_id: String,
    /// Leave out what is older: a span ago (10m) or a time
    #[arg(long, value_parser = logs::since, allow_hyphen_values = true)]
    since: Option<i64>,
    /// Messages to look at, the newest of every partition first [default: 5,000,000]
    #[arg(long)]
    messages: Option<u64>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(command: &Trace, place: &Place, out: &mut Out) -> Result<(), Error> {
    let query = TraceQuery {
        since_ms: command.since,
        messages: command.messages,
    };
    let streams = place.streams(IfAbsent::Refuse)?;
    let answer = streams.trace(&command.correlation_id, &query)?;
    if command.output == Format::Json {
        return out.json(&answer);
    }
    show(&answer, out)
}

fn show(answer: &Answer, out: &mut Out) -> Result<(), Error> {
    if answer.events.is_empty() {
        out.line(format!(
            "nothing bears the correlation ID {} ({} messages looked at)",
            text::escape(&answer.correlation_id),
            text::count(answer.looked_at)
        ))?;
    }
    let begin = answer.events.first().map_or(0, |event| event.at_ms);
    for event in &answer.events {
        out.line(line(event, begin, out))?;
        if let Some(error) = &event.error {
            out.line(format!("{:38}error: {}", "", text::escape(error)))?;
        }
    }
    for stand in &answer.groups {
        out.line(standing(stand))?;
    }
    if !answer.complete {
        out.line(format!(
            "{}: {} messages were looked at; look at more with --messages, or at less time with --since",
            out.paint("not complete", AnsiColor::Yellow),
            text::count(answer.looked_at)
        ))?;
    }
    Ok(())
}

fn line(event: &Event, begin: i64, out: &Out) -> String {
    let after = u64::try_from(event.at_ms.saturating_sub(begin)).unwrap_or_default();
    let (word, colour) = match event.what {
        What::Published => ("published", AnsiColor::Green),
        What::Output => ("output", AnsiColor::Green),
        What::Guest => ("handler", AnsiColor::Cyan),
        What::Attempt => ("host", AnsiColor::Yellow),
        What::Retry => ("put aside", AnsiColor::Yellow),
        What::DeadLetter => ("dead letter", AnsiColor::Red),
        What::Redrive => ("redrive", AnsiColor::Cyan),
        What::Audit => ("audit", AnsiColor::Cyan),
    };
    let mut parts = vec![format!(
        "{} +{:<10} {}",
        time::rfc3339(event.at_ms),
        time::span(after),
        out.paint(word, colour)
    )];
    if event.what == What::DeadLetter {
        parts.extend(
            event
                .state
                .as_ref()
                .map(|state| format!("({})", text::escape(state))),
        );
    }
    parts.extend(
        event
            .place
            .as_deref()
            .map(|place| out.bold(&text::escape(place))),
    );
    parts.extend(
        event
            .pipeline
            .as_ref()
            .map(|name| format!("pipeline {}", text::escape(name))),
    );
    parts.extend(event.attempt.map(|attempt| match event.what {
        What::Attempt => format!("attempt {attempt}"),
        _ => format!("after {attempt} attempts"),
    }));
    if !event.text.is_empty() {
        parts.push(text::escape(&event.text).into_owned());
    }
    parts.extend(event.next_try_ms.map(|at| match event.what {
        What::Attempt => format!("next try {}", time::rfc3339(at)),
        _ => "due".to_owned(),
    }));
    parts.join(" ")
}

fn standing(stand: &Stand) -> String {
    let (group, place) = (text::escape(&stand.group), text::escape(&stand.place));
    match (stand.finished, &stand.last_error) {
        (true, _) => format!("group {group} has finished {place}"),
        (false, Some(error)) => format!(
            "group {group} has not finished {place}: {} attempts failed, the last: {}",
            stand.failed_attempts,
            text::escape(error)
        ),
        (false, None) => format!("group {group} has not finished {place}"),
    }
}
