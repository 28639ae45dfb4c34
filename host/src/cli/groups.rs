//! `wasmill groups list|describe|seek`.

use clap::{Args, Subcommand};

use super::access::IfAbsent;
use super::confirm::confirm;
use super::error::Error;
use super::output::{Format, Out};
use super::position::Position;
use super::{Place, status, text};
use crate::admin::seek::{Keep, Move, SeekReply, SeekRequest, SeekTo};

#[derive(Debug, Subcommand)]
pub(super) enum Groups {
    /// All consumer groups and how far they are behind
    List {
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// One group: committed offset, lag and what holds it, per partition
    Describe {
        group: String,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Move a group to other offsets: read again from the beginning, or pass over
    Seek(Seek),
}

#[derive(Debug, Args)]
pub(super) struct Seek {
    group: String,
    /// earliest, latest, an offset (42), a time (2013-01-31T05:15:00Z) or a span ago (-10m)
    #[arg(long, allow_hyphen_values = true)]
    to: Position,
    /// Only on this topic
    #[arg(long)]
    topic: Option<String>,
    /// Only on this partition
    #[arg(long, requires = "topic")]
    partition: Option<u32>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// What becomes of the idempotency table and of sequence numbers, when the group has any
    #[arg(long, value_enum)]
    idempotency: Option<Completions>,
    /// What becomes of the handler's state, when the group has some
    #[arg(long, value_enum)]
    state: Option<State>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Completions {
    /// What was processed before stays known, and is skipped
    Keep,
    /// Nothing is known any more: everything is processed again
    NewEpoch,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum State {
    /// The handler goes on with what it has
    Keep,
    /// It begins with an empty table
    Reset,
}

pub(super) fn run(command: Groups, place: &Place, out: &mut Out) -> Result<(), Error> {
    match command {
        Groups::List { output } => list(place, output, out),
        Groups::Describe { group, output } => describe(&group, place, output, out),
        Groups::Seek(seek) => self::seek(&seek, place, out),
    }
}

fn seek(seek: &Seek, place: &Place, out: &mut Out) -> Result<(), Error> {
    let streams = place.streams(IfAbsent::Refuse)?;
    let mut request = SeekRequest {
        to: match seek.to {
            Position::Earliest => SeekTo::Earliest,
            Position::Latest => SeekTo::Latest,
            Position::Offset(offset) => SeekTo::Offset(offset),
            Position::Time(at) => SeekTo::TimestampMs(at),
        },
        topic: seek.topic.clone(),
        partition: seek.partition,
        dry_run: true,
        idempotency: seek.idempotency.map(|choice| match choice {
            Completions::Keep => Keep::Keep,
            Completions::NewEpoch => Keep::Renew,
        }),
        state: seek.state.map(|choice| match choice {
            State::Keep => Keep::Keep,
            State::Reset => Keep::Renew,
        }),
    };
    let mut reply = streams.seek(&seek.group, &request)?;
    if !seek.dry_run {
        let (again, passed) = effects(&reply);
        confirm(
            &format!(
                "{} will read {again} messages again and pass over {passed}. Go on?",
                text::escape(&seek.group)
            ),
            seek.yes,
        )?;
        request.dry_run = false;
        reply = streams.seek(&seek.group, &request)?;
    }
    if seek.output == Format::Json {
        return out.json(&reply);
    }
    let rows = reply.moves.iter().map(|one| {
        let (again, passed) = of(one);
        vec![
            one.topic.clone(),
            one.partition.to_string(),
            one.from.to_string(),
            one.to.to_string(),
            again.to_string(),
            passed.to_string(),
        ]
    });
    out.table(
        &["TOPIC", "PARTITION", "FROM", "TO", "AGAIN", "PASSED OVER"],
        rows,
        "",
    )?;
    out.line("")?;
    out.line(match reply.dry_run {
        true => "nothing was changed: this is what it would do",
        false => "done",
    })
}

/// Messages that are read again, and that are passed over.
fn effects(reply: &SeekReply) -> (u64, u64) {
    let moves = reply.moves.iter().map(of);
    moves.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

fn of(one: &Move) -> (u64, u64) {
    (
        one.from.saturating_sub(one.to),
        one.to.saturating_sub(one.from),
    )
}

fn list(place: &Place, output: Format, out: &mut Out) -> Result<(), Error> {
    let groups = place.streams(IfAbsent::Refuse)?.groups()?;
    if output == Format::Json {
        return out.json(&groups);
    }
    let rows = groups.into_iter().map(|group| {
        vec![
            group.group,
            or_none(&group.pipelines),
            or_none(&group.topics),
            text::count(group.lag),
        ]
    });
    out.table(
        &["GROUP", "PIPELINES HERE", "TOPICS", "LAG"],
        rows,
        "no consumer groups yet; a pipeline's group appears when it runs",
    )
}

fn describe(group: &str, place: &Place, output: Format, out: &mut Out) -> Result<(), Error> {
    let group = place.streams(IfAbsent::Refuse)?.group(group)?;
    if output == Format::Json {
        return out.json(&group);
    }
    out.line(out.bold(&text::escape(&group.group)))?;
    out.line(format!(
        "pipelines of this host: {}",
        text::escape(&or_none(&group.pipelines))
    ))?;
    out.line("")?;
    let rows = group.partitions.iter().map(|one| {
        vec![
            one.topic.clone(),
            one.partition.to_string(),
            one.committed.to_string(),
            one.end.to_string(),
            text::count(one.lag),
            text::count(one.held),
        ]
    });
    out.table(
        &["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "HELD"],
        rows,
        "it has committed nothing yet",
    )?;
    for one in &group.partitions {
        if let Some(holder) = &one.holder {
            out.line("")?;
            status::holder(&one.topic, one.partition, &group.group, holder, out)?;
        } else if let Some(error) = &one.last_error {
            out.line("")?;
            out.line(format!(
                "  {}/{}@{} has failed {} times and is tried again when its pipeline runs",
                text::escape(&one.topic),
                one.partition,
                one.committed,
                one.failed_attempts
            ))?;
            out.line(format!("  last error: {}", text::escape(error)))?;
        }
    }
    Ok(())
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() {
        text::NONE.to_owned()
    } else {
        names.join(", ")
    }
}
