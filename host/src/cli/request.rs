//! `wasmill request TOPIC`: a message out, its answer back (§8.3); with `--file` many at once. Not here: who
//! waits for answers (`admin/requests.rs`).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::access::{IfAbsent, Streams};
use super::error::Error;
use super::output::{Format, Out};
use super::produce::{LINE_BYTES_MAX, header};
use super::record::{Reader, Shape};
use super::{Place, text};
use crate::admin;
use crate::admin::remote::Remote;
use crate::admin::requests::REQUEST_WAIT_MAX;
use crate::admin::time;
use crate::admin::wire::{Message, Record};

/// Requests in flight at most.
const IN_FLIGHT_MAX: u64 = 1_000;
/// A thread that waits for an answer needs little.
const STACK_BYTES: usize = 256 * 1024;

#[derive(Debug, Args)]
pub(super) struct Request {
    topic: String,
    /// The question; without it --file is read
    #[arg(conflicts_with = "file", required_unless_present = "file")]
    payload: Option<String>,
    /// JSON lines of questions (key, payload, headers); an answer a line comes back, with the number of its question
    #[arg(short, long)]
    file: Option<PathBuf>,
    #[arg(short, long)]
    key: Option<String>,
    /// A header; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// How long to wait for each answer
    #[arg(long, default_value = "5s", value_parser = timeout)]
    timeout: Duration,
    /// Questions of --file that wait at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX))]
    in_flight: u64,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One line of the answers to `--file`.
#[derive(Serialize)]
struct Answered<'a> {
    /// Of the question, from 1.
    line: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a admin::Error>,
}

pub(super) fn run(request: Request, place: &Place, out: &mut Out) -> Result<(), Error> {
    let Streams::There(remote) = place.streams(IfAbsent::Refuse)? else {
        return Err(Error::failed(
            "no host runs on this data directory, so nobody can answer",
            "start it with `wasmill run`",
        ));
    };
    let json_lines = request.file.is_some();
    let shape = Shape::new(json_lines, request.key, None, request.headers, None)?;
    let timeout = format!("{}ms", request.timeout.as_millis());
    match (request.payload, request.file) {
        (Some(payload), _) => {
            let record = shape
                .record(payload.as_bytes())
                .map_err(|why| Error::usage(format!("the question: {why}"), ""))?;
            let answer = remote.request(&request.topic, &record, &timeout)?;
            if request.output == Format::Json {
                return out.json(&answer);
            }
            let payload = answer.payload.as_ref();
            out.line(payload.map_or(text::NONE.to_owned(), |payload| text::of_bytes(&payload.0)))
        }
        (None, Some(file)) => {
            let input = File::open(&file).map_err(|why| {
                Error::failed(format!("cannot open {}: {why}", file.display()), "")
            })?;
            let many = Many {
                remote: &remote,
                topic: &request.topic,
                timeout: &timeout,
                threads: request.in_flight as usize,
            };
            many.run(Reader::new(BufReader::new(input), shape), out)
        }
        (None, None) => Err(Error::usage(
            "there is no question",
            "write it, or name a --file",
        )),
    }
}

struct Many<'a> {
    remote: &'a Remote,
    topic: &'a str,
    timeout: &'a str,
    threads: usize,
}

impl Many<'_> {
    /// Threads take questions as they come, and one writes the answers.
    fn run<R: Read + Send>(
        &self,
        reader: Reader<BufReader<R>>,
        out: &mut Out,
    ) -> Result<(), Error> {
        let source = Mutex::new((reader, 0u64));
        let next = || -> Result<Option<(u64, Record)>, Error> {
            let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
            let record = source.0.next(LINE_BYTES_MAX)?;
            source.1 += 1;
            Ok(record.map(|(record, _)| (source.1, record)))
        };
        let (send, answers) = sync_channel(self.threads);
        let mut failed = 0u64;
        std::thread::scope(|scope| -> Result<(), Error> {
            for _ in 0..self.threads {
                let (send, next) = (send.clone(), &next);
                let asks = move || {
                    loop {
                        let asked = match next() {
                            Ok(None) => return,
                            Ok(Some((line, record))) => {
                                Ok((line, self.remote.request(self.topic, &record, self.timeout)))
                            }
                            Err(why) => Err(why),
                        };
                        let is_last = asked.is_err();
                        if send.send(asked).is_err() || is_last {
                            return;
                        }
                    }
                };
                let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
                thread.spawn_scoped(scope, asks).map_err(|why| {
                    Error::failed(
                        format!("a thread cannot be started: {why}"),
                        "lower --in-flight",
                    )
                })?;
            }
            drop(send);
            for asked in answers {
                let (line, answered) = asked?;
                failed += u64::from(answered.is_err());
                out.json_line(&Answered {
                    line,
                    answer: answered.as_ref().ok(),
                    error: answered.as_ref().err(),
                })?;
            }
            Ok(())
        })?;
        if failed > 0 {
            return Err(Error::failed(
                format!("{failed} requests were not answered"),
                "each line says why",
            ));
        }
        Ok(())
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    time::parse_span(text)
        .filter(|wait| !wait.is_zero() && *wait <= REQUEST_WAIT_MAX)
        .ok_or_else(|| {
            format!(
                "write it as 500ms or 5s, at most {}s",
                REQUEST_WAIT_MAX.as_secs()
            )
        })
}
