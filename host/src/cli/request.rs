//! `wasmill request TOPIC`: asks a pipeline of the running host and shows the reply; with `--file` many at
//! once. Not here: how a reply finds its request (`admin/requests.rs`).

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
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
use crate::admin::requests::TIMEOUT_MAX;
use crate::admin::wire::{Message, Record};
use crate::config;

/// Requests that one command has under way at a time.
pub(super) const IN_FLIGHT_MAX: u16 = 1_000;
/// Each waits on a thread of its own, which needs little.
const STACK_BYTES: usize = 512 * 1024;

#[derive(Debug, Args)]
pub(super) struct Request {
    topic: String,
    /// The payload of one request
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    payload: Option<String>,
    /// A request a line, as JSON: key, payload, headers (`-`: stdin); prints one JSON line an answer
    #[arg(short, long)]
    file: Option<PathBuf>,
    /// With --file: requests under way at a time
    #[arg(long, default_value_t = 64, requires = "file", value_parser = clap::value_parser!(u16).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u16,
    #[arg(short, long)]
    key: Option<String>,
    /// A header for every request; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// How long to wait for a reply, up to 50s
    #[arg(long, default_value = "5s", value_parser = timeout)]
    timeout: Duration,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// What one line of the file came to.
#[derive(Debug, Serialize)]
struct Answered {
    /// Of the file, from 1.
    line: u64,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Reply(Message),
    Error(admin::Error),
}

fn timeout(text: &str) -> Result<Duration, String> {
    config::duration(text)
        .filter(|timeout| !timeout.is_zero() && *timeout <= TIMEOUT_MAX)
        .ok_or_else(|| "write a time as 500ms or 5s, up to 50s".to_owned())
}

pub(super) fn run(request: Request, place: &Place, out: &mut Out) -> Result<(), Error> {
    let json_lines = request.file.is_some();
    let shape = Shape::new(json_lines, request.key, None, request.headers, None)?;
    let Streams::There(remote) = place.streams(IfAbsent::Refuse)? else {
        return Err(Error::failed(
            "no host runs on this data directory, so no pipeline can answer",
            "start it with `wasmill run`",
        ));
    };
    let asked = Asked {
        remote: &remote,
        topic: &request.topic,
        timeout: request.timeout,
    };
    if let Some(path) = &request.file {
        return many(&asked, path, shape, request.in_flight, out);
    }
    let payload = request.payload.unwrap_or_default();
    let record = shape
        .record(payload.as_bytes())
        .map_err(|why| Error::usage(format!("the request: {why}"), ""))?;
    let reply = asked.ask(&record)?;
    match request.output {
        Format::Json => out.json(&reply),
        Format::Table => {
            let payload = reply.payload.map(|payload| payload.0).unwrap_or_default();
            out.line(text::escape(&String::from_utf8_lossy(&payload)))
        }
    }
}

struct Asked<'a> {
    remote: &'a Remote,
    topic: &'a str,
    timeout: Duration,
}

impl Asked<'_> {
    fn ask(&self, record: &Record) -> Result<Message, admin::Error> {
        self.remote.request(self.topic, record, self.timeout)
    }
}

fn many(
    asked: &Asked<'_>,
    path: &Path,
    shape: Shape,
    in_flight: u16,
    out: &mut Out,
) -> Result<(), Error> {
    let input: Box<dyn BufRead + Send> = if path.as_os_str() == "-" {
        Box::new(BufReader::new(io::stdin()))
    } else {
        let opened = File::open(path)
            .map_err(|why| Error::failed(format!("cannot read {}: {why}", path.display()), ""))?;
        Box::new(BufReader::new(opened))
    };
    let lines = Mutex::new(Lines {
        reader: Some(Reader::new(input, shape)),
        bad: None,
    });
    let failed = AtomicU64::new(0);
    let (sender, answers) = sync_channel::<Answered>(usize::from(in_flight));
    let printed = std::thread::scope(|scope| {
        for _ in 0..in_flight {
            let (sender, lines, failed) = (sender.clone(), &lines, &failed);
            let work = move || {
                while let Some((line, record)) = next(lines) {
                    let outcome = match asked.ask(&record) {
                        Ok(reply) => Outcome::Reply(reply),
                        Err(why) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            Outcome::Error(why)
                        }
                    };
                    if sender.send(Answered { line, outcome }).is_err() {
                        return;
                    }
                }
            };
            std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, work)
                .map_err(Error::Output)?;
        }
        drop(sender);
        answers
            .into_iter()
            .try_for_each(|answer| out.json_line(&answer))
    });
    printed?;
    let lines = lines.into_inner().unwrap_or_else(PoisonError::into_inner);
    match (lines.bad, failed.into_inner()) {
        (Some(why), _) => Err(why),
        (None, 0) => Ok(()),
        (None, failed) => Err(Error::failed(
            format!("{} requests had no reply", text::count(failed)),
            "each is printed with its line and its error",
        )),
    }
}

/// The requests that are left.
struct Lines {
    /// Gone at the end, and after a bad line.
    reader: Option<Reader<Box<dyn BufRead + Send>>>,
    bad: Option<Error>,
}

fn next(lines: &Mutex<Lines>) -> Option<(u64, Record)> {
    let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
    let reader = lines.reader.as_mut()?;
    match reader.next(LINE_BYTES_MAX) {
        Ok(Some((record, _))) => Some((reader.line_number(), record)),
        Ok(None) => {
            lines.reader = None;
            None
        }
        Err(why) => {
            lines.reader = None;
            lines.bad = Some(why);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        request: Request,
    }

    fn parsed(arguments: &[&str]) -> Result<Request, clap::Error> {
        let all = ["request"].iter().chain(arguments);
        Command::try_parse_from(all).map(|command| command.request)
    }

    #[test]
    fn in_flight_max_bounds_what_one_command_asks_at_once() {
        let in_flight = |n: &str| parsed(&["t", "--file", "f", "--in-flight", n]);
        assert_eq!(in_flight("1000").unwrap().in_flight, IN_FLIGHT_MAX);
        assert!(in_flight("1001").is_err() && in_flight("0").is_err());
        assert_eq!(parsed(&["t", "--file", "f"]).unwrap().in_flight, 64);
    }

    #[test]
    fn one_payload_or_a_file_and_a_timeout_that_the_host_takes() {
        assert!(parsed(&["t"]).is_err());
        assert!(parsed(&["t", "p", "--file", "f"]).is_err());
        assert!(parsed(&["t", "p", "--timeout", "51s"]).is_err());
        let request = parsed(&["t", "p", "--timeout", "500ms"]).unwrap();
        assert_eq!(request.timeout, Duration::from_millis(500));
    }
}
