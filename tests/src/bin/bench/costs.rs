//! What one retry, one dead letter and one duplicate cost beyond a message that succeeds: the same topic
//! with and without them, as CPU time and wall time. Their log lines go nowhere in this process. And what
//! messages that were put aside cost those that are not.

use std::num::NonZeroU32;
use std::path::Path;

use wasmill::config::valid::RetryMode;
use wasmill::connector::embedded::{Log, TopicSpec};
use wasmill::message::MessageRef;
use wasmill::pipeline::returned::{ADDED_BYTES_MAX, Returned, retry_topic};

use crate::hosted::Setup;
use crate::report::{self, Row};
use crate::{Arguments, Case, Measure, due, store};

/// Topic, pipeline and group.
const NAME: &str = "costs";
const MESSAGES: u64 = 200_000;
/// One message in so many is another; more often one that costs little.
const ONE_IN: u64 = 20;
const REPEATED_ONE_IN: u64 = 2;
const ROUNDS: usize = 5;
/// Messages that wait, and until when: long after the run.
const WAITING: u64 = 100_000;
const WAIT_MS: u64 = 3_600_000;
/// CPU, µs (issue 4).
const LETTER_MAX: f64 = 30.0;
const RETRY_MAX: f64 = 20.0;
const DUPLICATE_MAX: f64 = 1.5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Odd {
    None,
    /// Rejected by the handler: a dead letter.
    Reject,
    /// Fails twice: a retry, then a dead letter.
    Fail,
    /// The key of the message before it.
    Repeat,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    failures(arguments, MESSAGES, ROUNDS)?;
    waiting(arguments, MESSAGES, WAITING, ROUNDS)?;
    due::run(arguments, WAITING, ROUNDS)
}

/// A few of each: the runs end, and what must be there is there.
pub(crate) fn smoke(arguments: &Arguments) -> Result<(), String> {
    failures(arguments, 4_000, 1)?;
    waiting(arguments, 4_000, 2_000, 1)?;
    due::run(arguments, 1_000, 1)
}

fn failures(arguments: &Arguments, messages: u64, rounds: usize) -> Result<(), String> {
    let echo = arguments.component("hostile")?;
    let each = |one_in| Cost::of(1e6 / (messages / one_in) as f64);
    let mut letters = each(ONE_IN);
    let (mut retries, mut deferred) = (each(ONE_IN), each(ONE_IN));
    let mut duplicates = each(REPEATED_ONE_IN);
    for round in 0..rounds {
        let run = |odd, case| {
            let trial = Trial {
                odd,
                case,
                retry: RetryMode::Inline,
                messages,
                waiting: 0,
            };
            trial.run(arguments, &echo, round)
        };
        let aside = |odd| {
            let case = Case::AtLeastOnce;
            let trial = Trial {
                odd,
                case,
                retry: RetryMode::Deferred,
                messages,
                waiting: 0,
            };
            trial.run(arguments, &echo, round)
        };
        let plain = run(Odd::None, Case::AtLeastOnce)?;
        let rejected = run(Odd::Reject, Case::AtLeastOnce)?;
        let failed = run(Odd::Fail, Case::AtLeastOnce)?;
        letters.add(&plain, &rejected);
        retries.add(&rejected, &failed);
        deferred.add(&aside(Odd::Reject)?, &aside(Odd::Fail)?);
        let keyed = run(Odd::None, Case::Idempotent)?;
        let repeated = run(Odd::Repeat, Case::Idempotent)?;
        duplicates.add(&keyed, &repeated);
    }
    report::rows(
        &format!(
            "Cost on top of a message that succeeds, µs each, one message in {ONE_IN}, of duplicates in {REPEATED_ONE_IN} (log lines not counted)"
        ),
        &[
            Row::new("a dead letter, wall time", letters.wall),
            Row::new("a dead letter, CPU", letters.cpu).limit(LETTER_MAX),
            Row::new("a retry, wall time (backoff 1 ms)", retries.wall),
            Row::new("a retry, CPU", retries.cpu).limit(RETRY_MAX),
            Row::new("a deferred retry, wall time (1 ms)", deferred.wall),
            Row::new("a deferred retry, CPU", deferred.cpu).limit(RETRY_MAX),
            Row::new(
                "a duplicate skipped, wall time (less than a message: no call)",
                duplicates.wall,
            ),
            Row::new("a duplicate skipped, CPU", duplicates.cpu).limit(DUPLICATE_MAX),
        ],
    );
    Ok(())
}

/// The same pipeline, with and without messages that wait for their time.
fn waiting(
    arguments: &Arguments,
    messages: u64,
    waiting: u64,
    rounds: usize,
) -> Result<(), String> {
    let echo = arguments.component("hostile")?;
    let (mut none, mut many, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut cpu = Vec::new();
    for round in 0..rounds {
        let run = |waiting| {
            let (odd, case, retry) = (Odd::None, Case::AtLeastOnce, RetryMode::Deferred);
            Trial {
                odd,
                case,
                retry,
                messages,
                waiting,
            }
            .run(arguments, &echo, round)
        };
        // The order alternates, so that neither always runs on the warmer machine.
        let (without, with) = if round.is_multiple_of(2) {
            (run(0)?, run(waiting)?)
        } else {
            let with = run(waiting)?;
            (run(0)?, with)
        };
        none.push(without.rate());
        many.push(with.rate());
        ratios.push(with.rate() / without.rate());
        cpu.push(with.cpu_us() - without.cpu_us());
    }
    report::rows(
        &format!("Deferred mode, {messages} messages with and without {waiting} others waiting"),
        &[
            Row::new("messages/s, none waiting", none),
            Row::new("messages/s, with those that wait", many),
            Row::new("ratio of the pair", ratios),
            Row::new("CPU more a message, µs", cpu),
        ],
    );
    Ok(())
}

struct Cost {
    /// From seconds of a run to µs of one.
    each: f64,
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Cost {
    const fn of(each: f64) -> Self {
        Self {
            each,
            wall: Vec::new(),
            cpu: Vec::new(),
        }
    }

    fn add(&mut self, without: &Measure, with: &Measure) {
        self.wall.push((with.seconds - without.seconds) * self.each);
        self.cpu
            .push((with.cpu_seconds - without.cpu_seconds) * self.each);
    }
}

/// One run on a directory of its own.
#[derive(Clone, Copy)]
struct Trial {
    odd: Odd,
    case: Case,
    retry: RetryMode,
    messages: u64,
    waiting: u64,
}

impl Trial {
    fn run(self, arguments: &Arguments, echo: &Path, round: usize) -> Result<Measure, String> {
        let dir = arguments.dir.join(format!("costs-{round}"));
        store::prepare(&dir, 0)?;
        store::warm(&dir, echo)?;
        let log = store::open(&dir)?;
        store::fill(&log, NAME, self.messages, |sequence, payload, _| {
            self.payload(sequence, payload)
        })?;
        if self.waiting > 0 {
            put_aside(&log, NAME, self.waiting, |sequence, payload| {
                enrich_logic::sample(sequence, payload).map_err(|error| error.to_string())?;
                Ok(WAIT_MS as i64)
            })?;
        }
        log.close().map_err(|error| error.to_string())?;
        let mut setup = Setup::new(&dir, NAME, echo, self.case);
        setup.input = NAME;
        setup.max_attempts = 2;
        setup.retry = self.retry;
        let letters = match self.odd {
            Odd::Reject | Odd::Fail => self.messages / ONE_IN,
            Odd::None | Odd::Repeat => 0,
        };
        let measure = setup.run_to_letters(self.messages, letters)?;
        store::clear(&dir)?;
        Ok(measure)
    }

    fn payload(self, sequence: u64, payload: &mut Vec<u8>) -> Result<(), String> {
        let one_in = match self.odd {
            Odd::Repeat => REPEATED_ONE_IN,
            Odd::None | Odd::Reject | Odd::Fail => ONE_IN,
        };
        let is_odd = sequence % one_in == 1;
        let sequence = match self.odd {
            Odd::Reject if is_odd => {
                payload.extend_from_slice(b"hostile:rejected");
                return Ok(());
            }
            Odd::Fail if is_odd => {
                payload.extend_from_slice(b"hostile:retryable");
                return Ok(());
            }
            Odd::Repeat if is_odd => sequence - 1,
            _ => sequence,
        };
        enrich_logic::sample(sequence, payload).map_err(|error| error.to_string())
    }
}

/// Fills the step of the ladder that is always there with messages as a host puts them aside when they
/// failed just now; `write` makes the payload and says when it is due, ms from now.
pub(crate) fn put_aside(
    log: &Log,
    name: &str,
    messages: u64,
    write: impl Fn(u64, &mut Vec<u8>) -> Result<i64, String>,
) -> Result<(), String> {
    let partitions = NonZeroU32::new(store::PARTITIONS).ok_or("no partitions")?;
    let mut spec = TopicSpec::new(retry_topic(name, name, WAIT_MS), partitions);
    // As the host makes it, or it would not take it for its own.
    spec.internal = true;
    spec.max_message_bytes = spec
        .max_message_bytes
        .saturating_add(ADDED_BYTES_MAX as u32);
    let topic = log.create_topic(&spec).map_err(|error| error.to_string())?;
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|error| error.to_string())?
        .as_millis() as i64;
    store::fill_topic(log, &topic, messages, |sequence, payload, headers| {
        let due_ms = now_ms + write(sequence, payload)?;
        let key = enrich_logic::sample_key(sequence);
        let returned = Returned {
            attempts: 1,
            due_ms,
            first_failed_at_ms: Some(due_ms),
            origin_topic: name.to_owned(),
            origin_partition: topic.partition_for(Some(key.as_bytes())),
            origin_offset: sequence,
            redrive_count: 0,
            dead_letter_id: None,
        };
        let message = MessageRef {
            key: Some(key.as_bytes()),
            payload: Some(payload),
            headers: wasmill::message::Headers::default(),
            timestamp_ms: now_ms,
        };
        let fits = returned.record(&message, headers).is_some();
        fits.then_some(())
            .ok_or_else(|| "too many headers".to_owned())
    })
}
