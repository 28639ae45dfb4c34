//! `wasmill consume TOPIC`: shows messages of a topic without a consumer group and without changing
//! anything. Order holds per partition.

use std::borrow::Cow;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::access::{IfAbsent, Streams};
use super::error::Error;
use super::output::Out;
use super::position::Position;
use super::{Place, text};
use crate::admin::time;
use crate::admin::wire::{Blob, Message, PartitionDescription, ReadRequest, TopicDescription};

/// Messages of one page.
const PAGE_MESSAGES: u32 = 500;
/// How long the host may keep a question open while nothing arrives.
const WAIT_MS: u64 = 1_000;
/// Rest between two rounds over several partitions that had nothing.
const REST: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum OutputFormat {
    /// partition@offset, time, key and payload, separated by tabs, control characters escaped
    #[default]
    Text,
    /// One JSON object a line; bytes that are not UTF-8 as {"base64": …}
    Json,
    /// Payloads as they are, each followed by a line end; on a terminal escaped as in text
    Raw,
}

#[derive(Debug, Args)]
pub(super) struct Consume {
    topic: String,
    /// earliest, latest, an offset, a time (2013-01-31T05:15:00Z), or a span ago (-10m)
    #[arg(long, default_value = "earliest", allow_hyphen_values = true)]
    from: Position,
    /// Stop before this offset or time; without it where the topic ends now
    #[arg(long, allow_hyphen_values = true, conflicts_with = "follow")]
    to: Option<Position>,
    /// Go on with what arrives
    #[arg(short, long)]
    follow: bool,
    /// Stop after this many messages
    #[arg(short = 'n', long)]
    limit: Option<u64>,
    #[arg(long, value_enum, default_value_t)]
    format: OutputFormat,
    /// Only this partition; may be repeated
    #[arg(short, long = "partition")]
    partitions: Vec<u32>,
    /// Show headers (text)
    #[arg(long)]
    headers: bool,
}

/// One partition being read.
struct Cursor {
    partition: u32,
    next: u64,
    /// First offset that is not wanted; `None` = follow.
    stop: Option<u64>,
}

impl Cursor {
    fn is_done(&self) -> bool {
        self.stop.is_some_and(|stop| self.next >= stop)
    }
}

pub(super) fn run(consume: &Consume, place: &Place, out: &mut Out) -> Result<(), Error> {
    let streams = place.streams(IfAbsent::Refuse)?;
    if consume.follow && !streams.is_live() {
        return Err(Error::failed(
            "no host runs on this directory, so nothing can arrive",
            "start `wasmill run`, or leave --follow away",
        ));
    }
    let topic = streams.topic(&consume.topic)?;
    let mut cursors = wanted(consume, &topic)?
        .into_iter()
        .map(|partition| cursor(consume, &streams, partition))
        .collect::<Result<Vec<Cursor>, Error>>()?;
    let mut left = consume.limit.unwrap_or(u64::MAX);
    let alone = cursors.len() == 1;
    while left > 0 {
        cursors.retain(|cursor| !cursor.is_done());
        if cursors.is_empty() {
            break;
        }
        let mut any = false;
        for cursor in &mut cursors {
            let shown = page(consume, &streams, cursor, left, alone, out)?;
            left -= shown;
            any |= shown > 0;
            if left == 0 {
                break;
            }
        }
        out.flush()?;
        if consume.follow && !any && !alone {
            std::thread::sleep(REST);
        }
    }
    Ok(())
}

fn wanted<'t>(
    consume: &Consume,
    topic: &'t TopicDescription,
) -> Result<Vec<&'t PartitionDescription>, Error> {
    if consume.partitions.is_empty() {
        return Ok(topic.partitions.iter().collect());
    }
    let mut numbers = consume.partitions.clone();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
        .into_iter()
        .map(|number| {
            let found = topic.partitions.iter().find(|one| one.partition == number);
            found.ok_or_else(|| {
                let last = topic.partitions.len().saturating_sub(1);
                Error::failed(
                    format!("{} has no partition {number}", text::escape(&topic.topic)),
                    format!("its partitions are 0 to {last}"),
                )
            })
        })
        .collect()
}

fn cursor(
    consume: &Consume,
    streams: &Streams,
    partition: &PartitionDescription,
) -> Result<Cursor, Error> {
    let offset_of = |position: Position| -> Result<u64, Error> {
        Ok(match position {
            Position::Earliest => partition.earliest,
            Position::Latest => partition.end,
            Position::Offset(offset) => offset,
            Position::Time(at) => {
                streams
                    .offset_at(&consume.topic, partition.partition, at)?
                    .offset
            }
        })
    };
    let next = offset_of(consume.from)?.max(partition.earliest);
    let stop = match (consume.follow, consume.to) {
        (true, _) => None,
        (false, None) => Some(partition.end),
        (false, Some(to)) => Some(offset_of(to)?.min(partition.end)),
    };
    Ok(Cursor {
        partition: partition.partition,
        next,
        stop,
    })
}

/// Shows one page and returns how many messages it had.
fn page(
    consume: &Consume,
    streams: &Streams,
    cursor: &mut Cursor,
    left: u64,
    alone: bool,
    out: &mut Out,
) -> Result<u64, Error> {
    let request = ReadRequest {
        partition: cursor.partition,
        offset: cursor.next,
        limit: Some(PAGE_MESSAGES.min(u32::try_from(left).unwrap_or(u32::MAX))),
        wait_ms: (consume.follow && alone).then_some(WAIT_MS),
    };
    let page = streams.read(&consume.topic, &request)?;
    let mut shown = 0;
    for message in &page.messages {
        if cursor.stop.is_some_and(|stop| message.offset >= stop) {
            break;
        }
        show(consume, message, out)?;
        shown += 1;
    }
    // A page without messages that does not move on would be asked for ever: the partition ends here.
    if page.next_offset == cursor.next && cursor.stop.is_some() {
        cursor.stop = Some(cursor.next);
    }
    cursor.next = page.next_offset;
    Ok(shown)
}

fn show(consume: &Consume, message: &Message, out: &mut Out) -> Result<(), Error> {
    match consume.format {
        OutputFormat::Json => out.json_line(message),
        OutputFormat::Raw => {
            let payload = message.payload.as_ref();
            let payload = payload.map_or(&[][..], |payload| payload.0.as_slice());
            out.bytes(&raw(payload, out.is_terminal()))?;
            out.bytes(b"\n")
        }
        OutputFormat::Text => out.line(line(message, consume.headers)),
    }
}

/// A payload as it is, unless a terminal would obey it.
fn raw(payload: &[u8], to_terminal: bool) -> Cow<'_, [u8]> {
    if to_terminal {
        text::of_bytes(payload).into_bytes().into()
    } else {
        payload.into()
    }
}

/// One message on one line, escaped.
pub(super) fn line(message: &Message, headers: bool) -> String {
    let part =
        |blob: Option<&Blob>| blob.map_or(text::NONE.to_owned(), |blob| text::of_bytes(&blob.0));
    let mut line = format!(
        "{}@{}\t{}\t{}\t{}",
        message.partition,
        message.offset,
        time::rfc3339(message.timestamp_ms),
        part(message.key.as_ref()),
        part(message.payload.as_ref()),
    );
    if headers {
        for header in &message.headers {
            let value = part(header.value.as_ref());
            line.push_str(&format!("\t{}={value}", text::escape(&header.name)));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::Header;
    use proptest::prelude::*;

    const HOSTILE: &[u8] = b"\x1b]0;owned\x07\x1b[2J\r\n\xc2\x9b31m";

    proptest! {
        /// As `consume` and `tap` show it: one line, and nothing that a terminal obeys.
        #[test]
        fn a_message_of_any_bytes_is_one_line_that_no_terminal_obeys(
            mut parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 3),
            name in any::<String>(),
        ) {
            parts[0].extend_from_slice(HOSTILE);
            let mut blob = || Some(Blob(parts.pop().unwrap()));
            let message = Message {
                topic: "t".to_owned(),
                partition: 0,
                offset: 7,
                timestamp_ms: 0,
                key: blob(),
                payload: blob(),
                headers: vec![Header { name, value: blob() }],
            };
            let line = line(&message, true);
            let obeyed = line.chars().filter(|c| c.is_control() && *c != '\t');
            prop_assert_eq!(obeyed.count(), 0, "{}", line);
            let turned = '\u{202e}';
            prop_assert!(!line.contains(turned));
            prop_assert_eq!(line.matches('\t').count(), 4);
        }
    }

    #[test]
    fn a_raw_payload_is_what_it_is_in_a_file_and_escaped_on_a_terminal() {
        assert_eq!(&*raw(HOSTILE, false), HOSTILE);
        let shown = raw(HOSTILE, true);
        assert!(!shown.iter().any(u8::is_ascii_control), "{shown:?}");
        assert_eq!(&*raw(b"{\"n\": 1}", true), b"{\"n\": 1}");
    }
}
