//! `wasmill groups list|describe`.

use clap::Subcommand;

use super::access::IfAbsent;
use super::error::Error;
use super::output::{Format, Out};
use super::{Place, status, text};

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
}

pub(super) fn run(command: &Groups, place: &Place, out: &mut Out) -> Result<(), Error> {
    match command {
        Groups::List { output } => list(place, *output, out),
        Groups::Describe { group, output } => describe(group, place, *output, out),
    }
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
            status::holder(&one.topic, one.partition, holder, out)?;
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
