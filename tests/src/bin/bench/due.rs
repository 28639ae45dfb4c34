//! How late messages that were put aside are tried again, when many of them wait: they fall due evenly, fail
//! for good, and their dead letters say when they were due and when they failed.

use wasmill::admin::time;
use wasmill::config::valid::RetryMode;
use wasmill::connector::embedded::Log;
use wasmill::pipeline::dead_letter::{Parsed, default_topic};

use crate::hosted::Setup;
use crate::report::{self, Row};
use crate::{Arguments, Case, costs, store};

/// Topic, pipeline and group.
const NAME: &str = "due";
/// The first is due so long after it was put aside: the host has started by then.
const FIRST_MS: i64 = 3_000;
/// So many fall due in a second.
const RATE: u64 = 20_000;
/// Issue 4, ms.
const LATE_MAX: f64 = 100.0;

pub(crate) fn run(arguments: &Arguments, messages: u64, rounds: usize) -> Result<(), String> {
    let echo = arguments.component("hostile")?;
    let (mut median, mut high, mut most) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let dir = arguments.dir.join(format!("due-{round}"));
        store::prepare(&dir, 0)?;
        store::warm(&dir, &echo)?;
        let log = store::open(&dir)?;
        store::create(&log, NAME)?;
        costs::put_aside(&log, NAME, messages, |sequence, payload| {
            payload.extend_from_slice(b"hostile:retryable");
            Ok(FIRST_MS + (sequence * 1_000 / RATE) as i64)
        })?;
        log.close().map_err(|error| error.to_string())?;
        let mut setup = Setup::new(&dir, NAME, &echo, Case::AtLeastOnce);
        setup.input = NAME;
        setup.max_attempts = 2;
        setup.retry = RetryMode::Deferred;
        setup.run_to_letters(0, messages)?;
        let log = store::open(&dir)?;
        let late = lateness(&log)?;
        log.close().map_err(|error| error.to_string())?;
        let at = |share: f64| {
            let index = (late.len().saturating_sub(1)) as f64 * share;
            late.get(index as usize).map_or(f64::NAN, |ms| *ms as f64)
        };
        median.push(at(0.5));
        high.push(at(0.99));
        most.push(at(1.0));
        store::clear(&dir)?;
    }
    report::rows(
        &format!(
            "{messages} messages that wait, {RATE} falling due a second: how late their next attempt began, ms"
        ),
        &[
            Row::new("the median message", median),
            Row::new("of 99 % at most", high).limit(LATE_MAX),
            Row::new("the last", most),
        ],
    );
    Ok(())
}

/// Of each dead letter, from when it was due (which stands there as its first failure) to its failure; ms,
/// sorted.
fn lateness(log: &Log) -> Result<Vec<i64>, String> {
    let topic = log
        .topic(&default_topic(NAME, NAME))
        .ok_or("there is no dead letter topic")?;
    let mut late = Vec::new();
    for partition in &topic.partitions {
        let mut position = 0;
        while let Some(chunk) = log
            .read(*partition, position)
            .map_err(|error| error.to_string())?
        {
            for (_, _, message) in chunk.iter_from(position) {
                let letter = Parsed::read(message.headers).map_err(|error| error.to_string())?;
                let ms = |text| time::parse_rfc3339(text).ok_or("no time");
                late.push(ms(letter.last_failed_at)? - ms(letter.first_failed_at)?);
            }
            position = chunk.end_offset();
        }
    }
    late.sort_unstable();
    Ok(late)
}
