//! `wasmill produce TOPIC`: lines of stdin or a file become messages; each batch is acknowledged
//! before the next is read. Not here: where they go (`admin/console.rs`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::access::{IfAbsent, Streams};
use super::error::Error;
use super::output::{self, Format, Out};
use super::record::{Reader, Shape};
use super::{Place, text};
use crate::admin::wire::Record;

/// Messages of one batch.
const BATCH_MESSAGES_MAX: usize = 1_000;
/// Bytes of lines of one batch; a line longer than that is a batch alone.
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of one line.
pub(super) const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum InputFormat {
    /// A line is a payload
    #[default]
    Lines,
    /// A line is a JSON object: key, payload, headers, timestamp_ms, partition
    JsonLines,
}

#[derive(Debug, Args)]
pub(super) struct Produce {
    topic: String,
    /// One message; without it stdin or --file is read, a message a line
    #[arg(conflicts_with = "file")]
    payload: Option<String>,
    /// Read lines from a file instead of stdin
    #[arg(short, long)]
    file: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    format: InputFormat,
    /// The same key for every message
    #[arg(short, long, conflicts_with = "key_expression")]
    key: Option<String>,
    /// The key taken from each message, as in `message.json.order_id`
    #[arg(long, value_name = "EXPRESSION")]
    key_expression: Option<String>,
    /// A header for every message; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Write to this partition instead of the key's
    #[arg(short, long)]
    partition: Option<u32>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What was acknowledged.
#[derive(Debug, Serialize)]
struct Produced<'t> {
    topic: &'t str,
    acknowledged: u64,
    seconds: f64,
    /// Of a single message: for `wasmill trace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
}

pub(super) fn run(produce: Produce, place: &Place, out: &mut Out) -> Result<(), Error> {
    let shape = Shape::new(
        produce.format == InputFormat::JsonLines,
        produce.key,
        produce.key_expression.as_deref(),
        produce.headers,
        produce.partition,
    )?;
    let began = Instant::now();
    let (acknowledged, correlation_id) = match produce.payload {
        Some(payload) => one(&produce.topic, &shape, &payload, place)?,
        None => (
            all(&produce.topic, shape, produce.file.as_ref(), place)?,
            None,
        ),
    };
    let seconds = began.elapsed().as_secs_f64();
    match produce.output {
        Format::Json => out.json(&Produced {
            topic: &produce.topic,
            acknowledged,
            seconds,
            correlation_id,
        }),
        Format::Table => out.line(format!(
            "acknowledged {} messages in {seconds:.1} s",
            text::count(acknowledged)
        )),
    }
}

/// What was typed is the payload, line ends inside it too.
fn one(
    topic: &str,
    shape: &Shape,
    payload: &str,
    place: &Place,
) -> Result<(u64, Option<String>), Error> {
    let record = shape
        .record(payload.as_bytes())
        .map_err(|why| Error::usage(format!("the message: {why}"), ""))?;
    let streams = place.streams(IfAbsent::Create)?;
    let mut reply = streams.produce(topic, &[record])?;
    Ok((reply.acknowledged, reply.correlation_ids.pop()))
}

fn all(topic: &str, shape: Shape, file: Option<&PathBuf>, place: &Place) -> Result<u64, Error> {
    let (input, size) = open(file)?;
    let streams = place.streams(IfAbsent::Create)?;
    // A topic that is not there must not be found out after a million lines.
    streams.topic(topic)?;
    let bar = output::progress_bytes(size, "producing");
    let mut reader = Reader::new(input, shape);
    let acknowledged = send_all(&streams, topic, &mut reader, &bar);
    bar.finish_and_clear();
    acknowledged
}

fn send_all(
    streams: &Streams,
    topic: &str,
    reader: &mut Reader<Box<dyn BufRead>>,
    bar: &indicatif::ProgressBar,
) -> Result<u64, Error> {
    let mut acknowledged = 0;
    let mut batch: Vec<Record> = Vec::with_capacity(BATCH_MESSAGES_MAX);
    loop {
        batch.clear();
        let mut bytes = 0;
        let mut ended = Ok(false);
        while batch.len() < BATCH_MESSAGES_MAX && bytes < BATCH_BYTES_MAX {
            match reader.next(LINE_BYTES_MAX) {
                Ok(Some((record, len))) => {
                    batch.push(record);
                    bytes += len;
                }
                Ok(None) => {
                    ended = Ok(true);
                    break;
                }
                Err(why) => {
                    ended = Err(why);
                    break;
                }
            }
        }
        // What was read before a bad line is sent: the count in the error is then exact.
        if !batch.is_empty() {
            let reply = streams.produce(topic, &batch);
            acknowledged += reply
                .map_err(|why| interrupted(&why, acknowledged))?
                .acknowledged;
            bar.set_position(reader.bytes_read());
        }
        match ended {
            Ok(false) => {}
            Ok(true) => return Ok(acknowledged),
            Err(why) => return Err(interrupted(&why, acknowledged)),
        }
    }
}

fn interrupted(why: &Error, acknowledged: u64) -> Error {
    let mut help: Vec<&str> = why.help().collect();
    let durable = format!(
        "{} messages before it are durable; do not send them again",
        text::count(acknowledged)
    );
    help.push(&durable);
    Error::failed(why.to_string(), help.join("\n"))
}

/// The input and its size in bytes, 0 when that is not known.
fn open(file: Option<&PathBuf>) -> Result<(Box<dyn BufRead>, u64), Error> {
    let Some(path) = file.filter(|path| path.as_os_str() != "-") else {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            output::note("reading messages from the terminal, one a line; end with Ctrl-D");
        }
        let input: Box<dyn Read> = Box::new(stdin.lock());
        return Ok((Box::new(BufReader::new(input)), 0));
    };
    let failed = |why: io::Error| {
        Error::failed(
            format!("cannot read {}: {why}", path.display()),
            "check the path of --file",
        )
    };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::failed(
            format!("{} is a directory", path.display()),
            "name a file with one message a line",
        ));
    }
    Ok((
        Box::new(BufReader::with_capacity(256 * 1024, file)),
        metadata.len(),
    ))
}

pub(super) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write a header as NAME=VALUE".to_owned()),
    }
}
