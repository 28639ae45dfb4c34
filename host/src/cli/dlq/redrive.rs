//! `wasmill dlq redrive|jobs`: sending dead letters back, and how that stands.

use std::time::Duration;

use clap::Args;

use super::list;
use super::plural;
use super::select::Filter;
use crate::admin::letters::redrive::MAX_REDRIVES_DEFAULT;
use crate::admin::letters::wire::{Job, JobState, RedrivePreview, RedriveRequest, StateFilter};
use crate::admin::time;
use crate::cli::access::{IfAbsent, Streams};
use crate::cli::error::Error;
use crate::cli::output::{self, Format, Out};
use crate::cli::{Place, text};

/// How often a redrive that is followed is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Without a running host everything is written to the redrive topic at once, and processed when one runs.
#[derive(Debug, Args)]
pub(in crate::cli) struct Redrive {
    /// Ids, or TOPIC/PARTITION@OFFSET
    #[arg(value_name = "DEAD_LETTER")]
    ids: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// All there are
    #[arg(long)]
    all: bool,
    /// Those that were resolved by hand, instead of new ones
    #[arg(long)]
    resolved: bool,
    /// Only say what it would do
    #[arg(long)]
    dry_run: bool,
    /// Dead letters a second at most, as 100 or 100/s
    #[arg(long, value_parser = parse_rate)]
    rate: Option<u32>,
    /// Stop when so many have failed again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    stop_after: Option<u64>,
    /// Leave those out that were redriven this often
    #[arg(long, value_name = "N", default_value_t = MAX_REDRIVES_DEFAULT)]
    max_redrives: u32,
    /// Wait until the consumer group has passed all of them
    #[arg(short, long)]
    follow: bool,
    /// Why; it is kept with the redrive and in `wasmill audit`
    #[arg(long)]
    note: Option<String>,
    /// End this redrive instead: what it has sent goes on, the rest stays as it was
    #[arg(long, value_name = "JOB", conflicts_with_all = ["ids", "all", "dry_run", "rate", "stop_after", "follow"])]
    cancel: Option<String>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Jobs {
    /// Only this one
    job: Option<String>,
    /// Show it until it has ended
    #[arg(short, long, requires = "job")]
    follow: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(redrive: &Redrive, place: &Place, out: &mut Out) -> Result<(), Error> {
    if let Some(job) = &redrive.cancel {
        let job = place.streams(IfAbsent::Refuse)?.cancel_redrive(job)?;
        return shown(&job, redrive.output, out);
    }
    let state = if redrive.resolved {
        StateFilter::Resolved
    } else {
        StateFilter::New
    };
    let request = RedriveRequest {
        selection: redrive.filter.select(&redrive.ids, redrive.all, state)?,
        rate: redrive.rate,
        stop_after: redrive.stop_after,
        max_redrives: Some(redrive.max_redrives),
        note: redrive.note.clone(),
    };
    let streams = place.streams(IfAbsent::Refuse)?;
    if redrive.dry_run {
        let preview = streams.preview_redrive(&request)?;
        return match redrive.output {
            Format::Json => out.json(&preview),
            Format::Table => show_preview(&preview, &request, out),
        };
    }
    if !streams.is_live() && redrive.stop_after.is_some() {
        return Err(Error::failed(
            "no host runs on this directory, so nothing can fail again",
            "start `wasmill run`, or leave --stop-after away",
        ));
    }
    let mut job = streams.start_redrive(&request)?;
    if let Streams::Here(console) = &streams {
        let bar = output::progress_count(job.to_look_at, "redriving");
        job = console.run_redrive_through(&job.id, |job| bar.set_position(job.looked_at))?;
        bar.finish_and_clear();
        output::note("no host runs on this directory: they are processed when one does");
    } else if redrive.follow {
        job = follow(&streams, &job.id)?;
    }
    shown(&job, redrive.output, out)?;
    if streams.is_live() && !redrive.follow && redrive.output == Format::Table {
        out.line(format!(
            "it runs inside the host; see it with: wasmill dlq jobs {} --follow",
            job.id
        ))?;
    }
    ended_well(&job)
}

pub(super) fn jobs(jobs: &Jobs, place: &Place, out: &mut Out) -> Result<(), Error> {
    let streams = place.streams(IfAbsent::Refuse)?;
    if let Some(id) = &jobs.job {
        let job = if jobs.follow {
            follow(&streams, id)?
        } else {
            streams.job(id)?
        };
        shown(&job, jobs.output, out)?;
        return if jobs.follow {
            ended_well(&job)
        } else {
            Ok(())
        };
    }
    let known = streams.jobs()?;
    match jobs.output {
        Format::Json => out.json(&known),
        Format::Table => table(&known, out),
    }
}

/// Waits until the redrive has ended.
fn follow(streams: &Streams, id: &str) -> Result<Job, Error> {
    let mut job = streams.job(id)?;
    if !streams.is_live() {
        return Ok(job);
    }
    let bar = output::progress_count(job.to_look_at + job.looked_at, "redriving");
    loop {
        bar.set_length(job.to_look_at + job.looked_at);
        bar.set_position(job.looked_at);
        bar.set_message(format!(
            "redriving: {} sent, {} waiting, {} failed again",
            job.sent, job.waiting, job.failed_again
        ));
        if !matches!(job.state, JobState::Running | JobState::Draining) {
            bar.finish_and_clear();
            return Ok(job);
        }
        if let (JobState::Draining, Some(trouble)) = (job.state, &job.trouble) {
            bar.finish_and_clear();
            return Err(Error::failed(
                format!("the redrive {id} has sent everything, but {trouble}"),
                "start the pipeline; nothing is lost meanwhile",
            ));
        }
        std::thread::sleep(LOOK);
        job = streams.job(id)?;
    }
}

/// A redrive that stopped by itself is a failure for scripts.
fn ended_well(job: &Job) -> Result<(), Error> {
    if job.state == JobState::Stopped {
        return Err(Error::failed(
            format!(
                "the redrive {} stopped: {} failed again",
                job.id, job.failed_again
            ),
            "see them with `wasmill dlq groups`",
        ));
    }
    Ok(())
}

fn shown(job: &Job, output: Format, out: &mut Out) -> Result<(), Error> {
    match output {
        Format::Json => out.json(job),
        Format::Table => table(std::slice::from_ref(job), out),
    }
}

fn table(jobs: &[Job], out: &mut Out) -> Result<(), Error> {
    let rows = jobs.iter().map(|job| {
        vec![
            job.id.clone(),
            state(job.state).to_owned(),
            job.consumer_group.clone(),
            time::rfc3339(job.started_at_ms),
            job.sent.to_string(),
            job.waiting.to_string(),
            job.failed_again.to_string(),
            job.left_out.to_string(),
            job.to_look_at.to_string(),
            job.trouble
                .clone()
                .or(job.note.clone())
                .unwrap_or(text::NONE.to_owned()),
        ]
    });
    out.table(
        &[
            "JOB",
            "STATE",
            "CONSUMER GROUP",
            "STARTED",
            "SENT",
            "WAITING",
            "FAILED AGAIN",
            "LEFT OUT",
            "TO LOOK AT",
            "NOTE",
        ],
        rows,
        "no redrives",
    )
}

const fn state(state: JobState) -> &'static str {
    match state {
        JobState::Running => "running",
        JobState::Draining => "draining",
        JobState::Done => "done",
        JobState::Stopped => "stopped",
        JobState::Cancelled => "cancelled",
    }
}

fn show_preview(
    preview: &RedrivePreview,
    request: &RedriveRequest,
    out: &mut Out,
) -> Result<(), Error> {
    let at_least = if preview.scanned.more {
        "at least "
    } else {
        ""
    };
    out.line(format!(
        "would send {at_least}{} dead letter{} back to: {}",
        preview.letters,
        plural(preview.letters),
        text::escape(&preview.consumer_groups.join(", "))
    ))?;
    list::group_table(&preview.groups, "no dead letter fits", out)?;
    if preview.left_out > 0 {
        out.line(format!(
            "left out, redriven {} times or more: {}; raise --max-redrives to send them as well",
            request.max_redrives.unwrap_or(MAX_REDRIVES_DEFAULT),
            preview.left_out
        ))?;
    }
    let bound = if preview.newer_is_lower_bound {
        " or more: not all newer messages were looked at"
    } else {
        ""
    };
    out.line(format!(
        "of {} key{}, {}{bound} have a newer message that the group has processed already: for those the redriven one comes late",
        preview.keys,
        plural(preview.keys),
        preview.newer_keys
    ))?;
    if preview.consumer_groups.len() > 1 {
        out.line("a redrive goes to one consumer group: name it with --consumer-group")?;
    }
    list::scanned(&preview.scanned, &request.selection.filter, out)
}

fn parse_rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse() {
        Ok(rate @ 1..) => Ok(rate),
        _ => Err("write a rate as 100 or 100/s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!(parse_rate("100/s"), Ok(100));
        assert_eq!(parse_rate("7"), Ok(7));
        for bad in ["", "0", "0/s", "-1", "1/m", "1.5"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
