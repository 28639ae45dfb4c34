//! `wasmill tap NAME`: what arrives in a topic from now on, or what a pipeline takes in and puts out, for
//! somebody who watches. It reads the topics and belongs to no consumer group, so it costs the path nothing.
//! It never falls behind: what comes faster than it reads is passed over and counted. Not here: everything of a
//! topic in order (`consume.rs`).

mod sieve;
mod subject;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::access::{IfAbsent, Streams};
use super::error::Error;
use super::output::{Format, Out};
use super::{Place, consume, output, text};
use crate::admin::time;
use crate::admin::wire::{Blob, Message, ReadRequest};
use crate::expression::{Condition, Expression};
use sieve::{Cursors, Sample, Sieve, Stretch, Tally};
use subject::{Kind, Part};

/// Messages read of one partition in one round; older ones are passed over.
const TAP_ROUND_MAX: u32 = 500;
/// From one look at the ends of the partitions to the next.
const ROUND: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Tap {
    /// A topic, or a pipeline as in the configuration
    name: String,
    /// Which of the two NAME is, when it is both
    #[arg(long = "as", value_name = "KIND", value_enum)]
    kind: Option<Kind>,
    /// Show only messages for which this CEL expression is true: `message.header("kind") == "order"`
    #[arg(long, value_parser = condition)]
    filter: Option<Condition>,
    /// Show one of N messages (of those that fit the filter); of a pipeline one of N correlation IDs, so that a
    /// message is shown with what came of it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,
    /// Stop after this many messages
    #[arg(short = 'n', long)]
    limit: Option<u64>,
    /// table: as `consume` shows messages, of a pipeline with what they are to it; json: one object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn condition(source: &str) -> Result<Condition, String> {
    let parsed = Expression::parse(source).map_err(|why| why.to_string())?;
    Ok(Condition::new(parsed))
}

/// A topic that is tapped.
struct Tapped {
    topic: String,
    /// What its messages are to the pipeline.
    parts: Vec<Part>,
    cursors: Cursors,
}

/// Where messages go that were read.
struct Sink<'t> {
    tap: &'t Tap,
    /// `None`: a topic is tapped.
    pipeline: Option<&'t str>,
    sieve: Sieve<'t>,
    tally: Tally,
}

/// A message of a pipeline, as JSON.
#[derive(Serialize)]
struct Line<'m> {
    pipeline: &'m str,
    /// More than one where the pipeline writes to a topic that it reads.
    parts: &'m [Part],
    correlation_id: &'m str,
    #[serde(flatten)]
    message: &'m Message,
}

pub(super) fn run(tap: &Tap, place: &Place, out: &mut Out) -> Result<(), Error> {
    let streams = place.streams(IfAbsent::Refuse)?;
    if !streams.is_live() {
        return Err(Error::failed(
            "no host runs on this directory, so nothing can arrive",
            "start `wasmill run`, or look at what is there with `wasmill consume`",
        ));
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let (kind, mut tapped) = find(tap, &streams)?;
    let (pipeline, sample) = match kind {
        Kind::Topic => (None, Sample::Messages(tap.sample)),
        Kind::Pipeline => (Some(tap.name.as_str()), Sample::Correlations(tap.sample)),
    };
    let mut sink = Sink {
        tap,
        pipeline,
        sieve: Sieve::new(tap.filter.as_ref(), sample),
        tally: Tally::default(),
    };
    output::note(&begins(tap, kind, &tapped));
    while !stop.load(Ordering::Relaxed) && !sink.is_done() {
        for one in &mut tapped {
            sink.round(one, &streams, out)?;
        }
        out.flush()?;
        if !sink.is_done() {
            std::thread::sleep(ROUND);
        }
    }
    output::note(&summary(&sink.tally, sink.sieve.failed));
    Ok(())
}

/// What the name is, and the topics that it comes to, from their ends on.
fn find(tap: &Tap, streams: &Streams) -> Result<(Kind, Vec<Tapped>), Error> {
    let topics = streams.topics()?;
    let pipelines = streams.status()?.pipelines;
    let topic_names: Vec<&str> = topics.iter().map(|topic| topic.topic.as_str()).collect();
    let pipeline_names: Vec<&str> = pipelines.iter().map(|one| one.pipeline.as_str()).collect();
    let kind = subject::kind(&tap.name, tap.kind, &topic_names, &pipeline_names)?;
    let named = match kind {
        Kind::Topic => vec![(tap.name.clone(), Vec::new())],
        Kind::Pipeline => {
            let found = pipelines.iter().find(|one| one.pipeline == tap.name);
            found.map_or_else(Vec::new, |found| subject::topics_of(&found.topics))
        }
    };
    let tapped = named.into_iter().map(|(topic, parts)| {
        let cursors = Cursors::at_end(&streams.topic(&topic)?);
        Ok(Tapped {
            topic,
            parts,
            cursors,
        })
    });
    Ok((kind, tapped.collect::<Result<_, Error>>()?))
}

fn begins(tap: &Tap, kind: Kind, tapped: &[Tapped]) -> String {
    match kind {
        Kind::Topic => format!(
            "tapping the topic {}: what arrives from now on, until Ctrl-C",
            text::escape(&tap.name)
        ),
        Kind::Pipeline => {
            let topics = tapped.iter().map(|one| {
                let parts: Vec<&str> = one.parts.iter().map(|part| part.label()).collect();
                format!("{} ({})", text::escape(&one.topic), parts.join(", "))
            });
            format!(
                "tapping the pipeline {}: what arrives from now on in {}, until Ctrl-C",
                text::escape(&tap.name),
                topics.collect::<Vec<_>>().join(", ")
            )
        }
    }
}

impl Sink<'_> {
    fn is_done(&self) -> bool {
        let limit = self.tap.limit;
        limit.is_some_and(|limit| self.tally.shown >= limit)
    }

    /// Shows what arrived in a topic since the last round.
    fn round(&mut self, one: &mut Tapped, streams: &Streams, out: &mut Out) -> Result<(), Error> {
        if self.is_done() {
            return Ok(());
        }
        let now = streams.topic(&one.topic)?;
        for stretch in one.cursors.due(&now, &mut self.tally) {
            if !self.stretch(one, streams, stretch, out)? {
                break;
            }
        }
        Ok(())
    }

    /// Shows the messages of one stretch; false when enough was shown. A page that ends earlier (its bytes are
    /// bounded) leaves the rest passed over.
    fn stretch(
        &mut self,
        one: &Tapped,
        streams: &Streams,
        stretch: Stretch,
        out: &mut Out,
    ) -> Result<bool, Error> {
        let request = ReadRequest {
            partition: stretch.partition,
            offset: stretch.from,
            limit: Some(TAP_ROUND_MAX),
            wait_ms: None,
        };
        let page = streams.read(&one.topic, &request)?;
        let mut seen = 0;
        let messages = page.messages.iter();
        for message in messages.filter(|message| message.offset < stretch.end) {
            seen += 1;
            self.tally.read += 1;
            if self.show(one, message, out)? {
                self.tally.shown += 1;
                if self.is_done() {
                    return Ok(false);
                }
            }
        }
        self.tally.passed_over += (stretch.end - stretch.from).saturating_sub(seen);
        Ok(true)
    }

    /// Shows the message if it fits; whether it does.
    fn show(&mut self, one: &Tapped, message: &Message, out: &mut Out) -> Result<bool, Error> {
        let is_json = self.tap.output == Format::Json;
        let Some(pipeline) = self.pipeline else {
            if !self.sieve.takes(message) {
                return Ok(false);
            }
            if is_json {
                out.json_line(message)?;
            } else {
                out.line(consume::line(message, false))?;
            }
            return Ok(true);
        };
        let parts = subject::parts(&one.parts, message, pipeline);
        if parts.is_empty() || !self.sieve.takes(message) {
            return Ok(false);
        }
        let correlation_id = self.sieve.correlation_id(message);
        if is_json {
            out.json_line(&Line {
                pipeline,
                parts: &parts,
                correlation_id: &correlation_id,
                message,
            })?;
        } else {
            out.line(line(&parts, &correlation_id, message))?;
        }
        Ok(true)
    }
}

/// A message of a pipeline on one line, escaped; a dead letter with its reason.
fn line(parts: &[Part], correlation_id: &str, message: &Message) -> String {
    let labels: Vec<&str> = parts.iter().map(|part| part.label()).collect();
    let bytes =
        |blob: Option<&Blob>| blob.map_or(text::NONE.to_owned(), |blob| text::of_bytes(&blob.0));
    let mut line = format!(
        "{:<11}\t{}/{}@{}\t{}\t{}\t{}\t{}",
        labels.join(", "),
        text::escape(&message.topic),
        message.partition,
        message.offset,
        time::rfc3339(message.timestamp_ms),
        bytes(message.key.as_ref()),
        text::escape(correlation_id),
        bytes(message.payload.as_ref()),
    );
    if parts.contains(&Part::DeadLetter) {
        let said = |name| subject::header(message, name).unwrap_or(text::NONE);
        line.push_str(&format!(
            "\t{}: {}",
            text::escape(said("wasmill-dlq-reason")),
            text::escape(said("wasmill-dlq-error"))
        ));
    }
    line
}

fn summary(tally: &Tally, failed: u64) -> String {
    let mut line = format!(
        "{} shown of {} read; {} passed over",
        text::count(tally.shown),
        text::count(tally.read),
        text::count(tally.passed_over)
    );
    if failed > 0 {
        line.push_str(&format!(
            "; on {} the filter had no value (they count as not fitting)",
            text::count(failed)
        ));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::Header;

    #[test]
    fn a_filter_that_is_no_expression_is_refused_with_what_was_meant() {
        let why = condition("mesage.key == \"a\"").unwrap_err();
        assert!(why.contains("message"), "{why}");
    }

    #[test]
    fn messages_on_which_the_filter_had_no_value_are_told_at_the_end() {
        assert!(summary(&Tally::default(), 1).contains("no value"));
        assert!(!summary(&Tally::default(), 0).contains("no value"));
    }

    #[test]
    fn a_line_of_a_pipeline_says_what_the_message_is_to_it_and_hides_nothing_in_it() {
        let header = |name: &str, value: &str| Header {
            name: name.into(),
            value: Some(Blob(value.as_bytes().to_vec())),
        };
        let message = Message {
            topic: "in.g.dlq".into(),
            partition: 2,
            offset: 7,
            timestamp_ms: 0,
            key: Some(Blob(b"k\n1".to_vec())),
            payload: None,
            headers: vec![
                header("wasmill-dlq-reason", "rejected"),
                header("wasmill-dlq-error", "no\u{1b}[2J"),
            ],
        };
        assert_eq!(
            line(&[Part::DeadLetter], "story-1", &message),
            "dead letter\tin.g.dlq/2@7\t1970-01-01T00:00:00.000Z\tk\\n1\tstory-1\t-\trejected: no\\u{1b}[2J"
        );
        let came_in = line(&[Part::In], "story-1", &message);
        assert!(
            came_in.starts_with("in         \tin.g.dlq/2@7"),
            "{came_in}"
        );
        assert!(!came_in.contains("rejected"), "{came_in}");
    }
}
