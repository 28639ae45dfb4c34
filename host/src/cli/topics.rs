//! `wasmill topics list|create|describe`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Place;
use super::access::IfAbsent;
use super::error::Error;
use super::output::{Format, Out};
use super::text;
use crate::admin::time;
use crate::admin::wire::{CreateTopic, TopicDescription};

#[derive(Debug, Subcommand)]
pub(super) enum Topics {
    /// All topics and how many messages they keep
    List {
        /// Also those in which a host keeps messages on their way back to a pipeline
        #[arg(short, long)]
        all: bool,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Create a topic
    Create(Create),
    /// One topic: partitions, offsets, retention, consumer groups
    Describe {
        topic: String,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

#[derive(Debug, Args)]
pub(super) struct Create {
    topic: String,
    /// How many partitions; a key always goes to the same one
    #[arg(short, long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Remove messages older than this (12h, 7d); without it they stay
    #[arg(long, value_name = "SPAN", value_parser = span)]
    retention: Option<Duration>,
    /// Bytes the topic may keep (64KiB, 10GiB); without it all stay
    #[arg(long, value_name = "SIZE", value_parser = super::parse_size)]
    retention_size: Option<u64>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub(super) fn run(command: Topics, place: &Place, out: &mut Out) -> Result<(), Error> {
    match command {
        Topics::List { all, output } => list(place, all, output, out),
        Topics::Create(create) => make(create, place, out),
        Topics::Describe { topic, output } => {
            let topic = place.streams(IfAbsent::Refuse)?.topic(&topic)?;
            match output {
                Format::Json => out.json(&topic),
                Format::Table => describe(&topic, out),
            }
        }
    }
}

fn list(place: &Place, all: bool, output: Format, out: &mut Out) -> Result<(), Error> {
    let mut topics = place.streams(IfAbsent::Refuse)?.topics()?;
    topics.retain(|topic| all || !topic.internal);
    if output == Format::Json {
        return out.json(&topics);
    }
    let rows = topics.into_iter().map(|topic| {
        vec![
            topic.topic,
            topic.partitions.to_string(),
            text::count(topic.messages),
        ]
    });
    out.table(
        &["TOPIC", "PARTITIONS", "MESSAGES"],
        rows,
        "no topics yet; create one with `wasmill topics create NAME`",
    )
}

fn make(create: Create, place: &Place, out: &mut Out) -> Result<(), Error> {
    let wanted = CreateTopic {
        name: create.topic,
        partitions: create.partitions,
        retention_ms: create
            .retention
            .map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)),
        retention_bytes: create.retention_size,
    };
    let made = place.streams(IfAbsent::Create)?.create_topic(&wanted)?;
    match create.output {
        Format::Json => out.json(&made),
        Format::Table => out.line(format!(
            "created {} with {} partitions",
            text::escape(&made.topic),
            made.partitions.len()
        )),
    }
}

fn describe(topic: &TopicDescription, out: &mut Out) -> Result<(), Error> {
    out.line(out.bold(&text::escape(&topic.topic)))?;
    let age = topic.retention_ms.map_or("for ever".to_owned(), time::span);
    let bytes = topic.retention_bytes.map_or("all".to_owned(), text::size);
    out.line(format!("keeps messages: {age}, {bytes}"))?;
    out.line(format!(
        "largest message: {}",
        text::size(topic.message_bytes_max)
    ))?;
    let groups = if topic.groups.is_empty() {
        "none yet".to_owned()
    } else {
        text::escape(&topic.groups.join(", ")).into_owned()
    };
    out.line(format!("consumer groups: {groups}"))?;
    out.line("")?;
    let rows = topic.partitions.iter().map(|partition| {
        vec![
            partition.partition.to_string(),
            partition.earliest.to_string(),
            partition.end.to_string(),
            text::count(partition.end.saturating_sub(partition.earliest)),
        ]
    });
    out.table(&["PARTITION", "EARLIEST", "END", "MESSAGES"], rows, "")
}

fn span(text: &str) -> Result<Duration, String> {
    time::parse_span(text)
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "write a span as 30m, 12h or 7d".to_owned())
}
