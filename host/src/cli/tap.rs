//! `wasmill tap TOPIC`: what arrives in a topic from now on, for somebody who watches. It never falls
//! behind: what comes faster than it reads is passed over and counted. It belongs to no consumer group.
//! Not here: everything of a topic in order (`consume.rs`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;

use super::access::{IfAbsent, Streams};
use super::error::Error;
use super::output::{Format, Out};
use super::{Place, consume, output, text};
use crate::admin::wire::{Message, ReadRequest, TopicDescription};
use crate::expression::{Condition, Expression};
use crate::message::{HeadersBuf, MessageRef};

/// Messages read of one partition in one round; older ones are passed over.
const TAP_ROUND_MAX: u32 = 500;
/// From one look at the ends of the partitions to the next.
const ROUND: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct Tap {
    topic: String,
    /// Show only messages for which this CEL expression is true: `message.header("kind") == "order"`
    #[arg(long, value_parser = condition)]
    filter: Option<Condition>,
    /// Show one of N messages (of those that fit the filter)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    sample: u64,
    /// Stop after this many messages
    #[arg(short = 'n', long)]
    limit: Option<u64>,
    /// table: as `consume` shows messages; json: one object a line
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

fn condition(source: &str) -> Result<Condition, String> {
    let parsed = Expression::parse(source).map_err(|why| why.to_string())?;
    Ok(Condition::new(parsed))
}

/// Which of the messages that were read are shown. Pure.
struct Sieve<'f> {
    filter: Option<&'f Condition>,
    sample: u64,
    fitting: u64,
    /// Messages on which the filter has no value.
    failed: u64,
    headers: HeadersBuf,
    scratch: Vec<u8>,
}

impl<'f> Sieve<'f> {
    fn new(filter: Option<&'f Condition>, sample: u64) -> Self {
        Self {
            filter,
            sample,
            fitting: 0,
            failed: 0,
            headers: HeadersBuf::new(),
            scratch: Vec::new(),
        }
    }

    fn takes(&mut self, message: &Message) -> bool {
        if !self.fits(message) {
            return false;
        }
        self.fitting += 1;
        (self.fitting - 1).is_multiple_of(self.sample)
    }

    fn fits(&mut self, message: &Message) -> bool {
        let Some(filter) = self.filter else {
            return true;
        };
        self.headers.clear();
        for header in &message.headers {
            let value = header.value.as_ref().map(|value| value.0.as_slice());
            if !self.headers.push(&header.name, value) {
                self.failed += 1;
                return false;
            }
        }
        let seen = MessageRef {
            key: message.key.as_ref().map(|key| key.0.as_slice()),
            payload: message.payload.as_ref().map(|payload| payload.0.as_slice()),
            headers: self.headers.as_headers(),
            timestamp_ms: message.timestamp_ms,
        };
        match filter.holds(&seen, &mut self.scratch) {
            Ok(fits) => fits,
            Err(_) => {
                self.failed += 1;
                false
            }
        }
    }
}

/// What was read and what was not.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    read: u64,
    shown: u64,
    passed_over: u64,
}

/// Where reading of each partition goes on.
struct Cursors {
    next: Vec<(u32, u64)>,
}

impl Cursors {
    /// From the ends of the partitions on.
    fn at_end(topic: &TopicDescription) -> Self {
        let ends = topic.partitions.iter();
        Self {
            next: ends.map(|one| (one.partition, one.end)).collect(),
        }
    }

    /// What one round reads: (partition, offset), the newest [`TAP_ROUND_MAX`] messages at most; the rest
    /// is passed over.
    fn due(&mut self, now: &TopicDescription, tally: &mut Tally) -> Vec<(u32, u64)> {
        let mut due = Vec::new();
        for (partition, next) in &mut self.next {
            let found = now
                .partitions
                .iter()
                .find(|one| one.partition == *partition);
            let Some(end) = found.map(|one| one.end).filter(|end| end > next) else {
                continue;
            };
            let from = end.saturating_sub(u64::from(TAP_ROUND_MAX)).max(*next);
            tally.passed_over += from - *next;
            due.push((*partition, from));
            *next = end;
        }
        due
    }
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
    let mut cursors = Cursors::at_end(&streams.topic(&tap.topic)?);
    let mut sieve = Sieve::new(tap.filter.as_ref(), tap.sample);
    let mut tally = Tally::default();
    output::note(&format!(
        "tapping {}: what arrives from now on, until Ctrl-C",
        tap.topic
    ));
    while !stop.load(Ordering::Relaxed) && !is_done(tap, &tally) {
        let now = streams.topic(&tap.topic)?;
        for (partition, from) in cursors.due(&now, &mut tally) {
            let end = cursors.next.iter().find(|one| one.0 == partition);
            let end = end.map_or(from, |one| one.1);
            let whole = page(
                tap,
                &streams,
                (partition, from, end),
                &mut sieve,
                &mut tally,
                out,
            )?;
            if !whole {
                break;
            }
        }
        out.flush()?;
        if !is_done(tap, &tally) {
            std::thread::sleep(ROUND);
        }
    }
    output::note(&summary(&tally, sieve.failed));
    Ok(())
}

fn is_done(tap: &Tap, tally: &Tally) -> bool {
    tap.limit.is_some_and(|limit| tally.shown >= limit)
}

/// Shows the messages of one partition from an offset to another; false when enough was shown. A page that
/// ends earlier (its bytes are bounded) leaves the rest passed over.
fn page(
    tap: &Tap,
    streams: &Streams,
    (partition, from, end): (u32, u64, u64),
    sieve: &mut Sieve<'_>,
    tally: &mut Tally,
    out: &mut Out,
) -> Result<bool, Error> {
    let request = ReadRequest {
        partition,
        offset: from,
        limit: Some(TAP_ROUND_MAX),
        wait_ms: None,
    };
    let page = streams.read(&tap.topic, &request)?;
    let mut seen = 0;
    for message in page.messages.iter().filter(|one| one.offset < end) {
        seen += 1;
        tally.read += 1;
        if !sieve.takes(message) {
            continue;
        }
        if tap.output == Format::Json {
            out.json_line(message)?;
        } else {
            out.line(consume::line(message, false))?;
        }
        tally.shown += 1;
        if is_done(tap, tally) {
            return Ok(false);
        }
    }
    tally.passed_over += (end - from).saturating_sub(seen);
    Ok(true)
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
    use crate::admin::wire::{Blob, Header, PartitionDescription};

    fn topic(ends: &[u64]) -> TopicDescription {
        TopicDescription {
            topic: "t".into(),
            retention_ms: None,
            retention_bytes: None,
            message_bytes_max: 1,
            partitions: (0..)
                .zip(ends)
                .map(|(partition, end)| PartitionDescription {
                    partition,
                    earliest: 0,
                    end: *end,
                })
                .collect(),
            groups: Vec::new(),
        }
    }

    fn message(kind: &str) -> Message {
        Message {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            payload: Some(Blob(b"{\"n\": 7}".to_vec())),
            headers: vec![Header {
                name: "kind".into(),
                value: Some(Blob(kind.as_bytes().to_vec())),
            }],
        }
    }

    #[test]
    fn what_comes_faster_than_tap_round_max_is_passed_over_and_counted() {
        let mut cursors = Cursors::at_end(&topic(&[10, 20]));
        let mut tally = Tally::default();
        assert!(cursors.due(&topic(&[10, 20]), &mut tally).is_empty());
        let round = u64::from(TAP_ROUND_MAX);
        let due = cursors.due(&topic(&[10 + round, 20 + round + 5]), &mut tally);
        assert_eq!(due, [(0, 10), (1, 25)]);
        assert_eq!(tally.passed_over, 5);
        assert!(
            cursors
                .due(&topic(&[10 + round, 20 + round + 5]), &mut tally)
                .is_empty()
        );
    }

    #[test]
    fn a_sample_is_of_the_messages_that_fit_and_a_filter_without_a_value_is_counted() {
        let filter = condition("message.header(\"kind\") == \"order\"").unwrap();
        let mut sieve = Sieve::new(Some(&filter), 3);
        let mut taken = Vec::new();
        for number in 0..14 {
            let kind = if number % 2 == 0 { "order" } else { "note" };
            if sieve.takes(&message(kind)) {
                taken.push(number);
            }
        }
        assert_eq!(taken, [0, 6, 12]);
        let filter = condition("message.json.gone == 1").unwrap();
        let mut sieve = Sieve::new(Some(&filter), 1);
        assert!(!sieve.takes(&message("order")));
        assert_eq!(sieve.failed, 1);
        assert!(summary(&Tally::default(), sieve.failed).contains("no value"));
    }

    #[test]
    fn a_filter_that_is_no_expression_is_refused_with_what_was_meant() {
        let why = condition("mesage.key == \"a\"").unwrap_err();
        assert!(why.contains("message"), "{why}");
    }
}
