//! `wasmill logs`: log lines of the host and of its handlers, from the files of the data directory or
//! over the admin port.

use std::time::Duration;

use anstyle::AnsiColor;
use clap::Args;

use super::error::Error;
use super::output::{Format, Out};
use super::position::Position;
use super::{Place, access, text};
use crate::admin::logs::{self, LEVELS, LogLine, LogPage, LogQuery};
use crate::admin::time;
use crate::expression::nearest;
use crate::telemetry::log_files::LOGS_DIR;

/// Between two looks for new lines.
const REST: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct Logs {
    #[arg(long)]
    pipeline: Option<String>,
    /// This level and the more urgent ones: error, warn, info, debug, trace
    #[arg(long, value_parser = level)]
    level: Option<String>,
    /// Lines about one message, of host and handler
    #[arg(long, value_name = "ID")]
    correlation_id: Option<String>,
    /// A span ago (10m) or a time
    #[arg(long, value_parser = since, allow_hyphen_values = true)]
    since: Option<i64>,
    /// Go on with new lines
    #[arg(short, long)]
    follow: bool,
    /// The newest lines, at most
    #[arg(short = 'n', long = "lines", default_value_t = 100)]
    lines: u32,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Reads `10m` or a time as Unix ms.
pub(super) fn since(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(Position::Time(at)) => Ok(at),
        _ => Err("write a span ago (10m) or a time (2013-01-31T05:15:00Z)".to_owned()),
    }
}

fn level(text: &str) -> Result<String, String> {
    if LEVELS.contains(&text) {
        return Ok(text.to_owned());
    }
    let known = LEVELS.join(", ");
    Err(match nearest(text, LEVELS.into_iter()) {
        Some(meant) => format!("did you mean {meant}? the levels are {known}"),
        None => format!("the levels are {known}"),
    })
}

pub(super) fn run(command: &Logs, place: &Place, out: &mut Out) -> Result<(), Error> {
    let mut query = LogQuery {
        pipeline: command.pipeline.clone(),
        level: command.level.clone(),
        correlation_id: command.correlation_id.clone(),
        since_ms: command.since,
        limit: Some(command.lines),
        after: None,
    };
    loop {
        let page = ask(place, &query)?;
        if command.output == Format::Json && !command.follow {
            return out.json(&page);
        }
        for line in &page.lines {
            show(line, command.output, out)?;
        }
        if !command.follow {
            return end(&page, out);
        }
        out.flush()?;
        query.after = Some(page.next);
        query.limit = None;
        std::thread::sleep(REST);
    }
}

/// The files need no lock, so a host that runs here is not asked.
fn ask(place: &Place, query: &LogQuery) -> Result<LogPage, Error> {
    if access::url().is_some() {
        return place.streams(access::IfAbsent::Refuse)?.logs(query);
    }
    Ok(logs::read(&place.data_dir().join(LOGS_DIR), query)?)
}

fn end(page: &LogPage, out: &mut Out) -> Result<(), Error> {
    if page.lines.is_empty() {
        out.line("no log lines fit")?;
    }
    if !page.complete {
        out.line("older files were not read; they are in the folder logs of the data directory")?;
    }
    Ok(())
}

fn show(line: &LogLine, format: Format, out: &mut Out) -> Result<(), Error> {
    if format == Format::Json {
        return out.json_line(line);
    }
    let colour = match line.level.as_str() {
        "ERROR" => AnsiColor::Red,
        "WARN" => AnsiColor::Yellow,
        _ => AnsiColor::Green,
    };
    let mut shown = format!(
        "{} {:5} ",
        time::rfc3339(line.timestamp_ms),
        out.paint(&text::escape(&line.level), colour)
    );
    if line.target == "guest" {
        shown.push_str("[handler] ");
    }
    shown.push_str(&text::escape(&line.message));
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    for (name, value) in [
        ("pipeline", line.pipeline.clone()),
        ("place", line.place.clone()),
        ("attempt", number(line.attempt.map(u64::from))),
        ("error", line.error.clone()),
        ("delay_ms", number(line.delay_ms)),
        ("correlation_id", line.correlation_id.clone()),
    ] {
        if let Some(value) = value {
            shown.push_str(&format!(" {name}={}", text::escape(&value)));
        }
    }
    for (name, value) in &line.fields {
        shown.push_str(&format!(" {}={}", text::escape(name), text::escape(value)));
    }
    out.line(shown)
}
