//! What one retry, one dead letter and one duplicate cost beyond a message that succeeds: the same topic
//! with and without them, as CPU time and wall time. Their log lines go nowhere in this process.

use std::path::Path;

use wasmill::connector::embedded::Log;

use crate::hosted::Setup;
use crate::report::{self, Row};
use crate::{Arguments, Case, Measure, deferred, store};

pub(crate) const MESSAGES: u64 = 200_000;
/// One message in so many is another.
const ONE_IN: u64 = 20;
/// So many are.
pub(crate) const ODD: u64 = MESSAGES / ONE_IN;
const ROUNDS: usize = 5;
const TOPIC: &str = "costs";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odd {
    None,
    /// Rejected by the handler: a dead letter.
    Reject,
    /// Fails twice: a retry, then a dead letter.
    Fail,
    /// The key of the message before it.
    Repeat,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let echo = arguments.component("hostile")?;
    let (mut letters, mut retries) = (Cost::default(), Cost::default());
    let (mut put_aside, mut duplicates) = (Cost::default(), Cost::default());
    for round in 0..ROUNDS {
        let run = |odd, case| one(arguments, &echo, round, odd, case);
        let plain = run(Odd::None, Case::AtLeastOnce)?;
        let rejected = run(Odd::Reject, Case::AtLeastOnce)?;
        let failed = run(Odd::Fail, Case::AtLeastOnce)?;
        letters.add(&plain, &rejected);
        retries.add(&rejected, &failed);
        put_aside.add(&rejected, &deferred::retries(arguments, &echo, round)?);
        let keyed = run(Odd::None, Case::Idempotent)?;
        let repeated = run(Odd::Repeat, Case::Idempotent)?;
        duplicates.add(&keyed, &repeated);
    }
    report::rows(
        &format!(
            "Cost on top of a message that succeeds, µs each, one message in {ONE_IN} (log lines not counted)"
        ),
        &[
            Row::new("a dead letter, wall time", letters.wall),
            Row::new("a dead letter, CPU", letters.cpu),
            Row::new("a retry, wall time (backoff 1 ms)", retries.wall),
            Row::new("a retry, CPU", retries.cpu),
            Row::new("a deferred retry, wall time (waits 1 ms)", put_aside.wall),
            Row::new("a deferred retry, CPU", put_aside.cpu),
            Row::new(
                "a duplicate skipped, wall time (less than a message: no call)",
                duplicates.wall,
            ),
            Row::new("a duplicate skipped, CPU", duplicates.cpu),
        ],
    );
    deferred::waiting(arguments, &echo, ROUNDS)
}

#[derive(Default)]
struct Cost {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Cost {
    fn add(&mut self, without: &Measure, with: &Measure) {
        let each = 1e6 / (MESSAGES / ONE_IN) as f64;
        self.wall.push((with.seconds - without.seconds) * each);
        self.cpu
            .push((with.cpu_seconds - without.cpu_seconds) * each);
    }
}

fn one(
    arguments: &Arguments,
    echo: &Path,
    round: usize,
    odd: Odd,
    case: Case,
) -> Result<Measure, String> {
    let dir = arguments.dir.join(format!("costs-{round}"));
    let log = data(&dir, echo)?;
    fill(&log, odd)?;
    log.close().map_err(|error| error.to_string())?;
    let mut setup = Setup::new(&dir, TOPIC, echo, case);
    setup.input = TOPIC;
    setup.max_attempts = 2;
    setup.has_circuit = false;
    let measure = setup.run(MESSAGES)?;
    store::clear(&dir)?;
    Ok(measure)
}

/// A data directory without orders.
pub(crate) fn data(dir: &Path, echo: &Path) -> Result<Log, String> {
    store::prepare(dir, 0)?;
    store::warm(dir, echo)?;
    store::open(dir)
}

pub(crate) fn fill(log: &Log, odd: Odd) -> Result<(), String> {
    store::create(log, TOPIC)?;
    append(log, odd)
}

/// The messages of this bench, into a topic that is there.
pub(crate) fn append(log: &Log, odd: Odd) -> Result<(), String> {
    let topic = log.topic(TOPIC).ok_or("the topic is not there")?;
    store::append(log, &topic, MESSAGES, |sequence, payload, _| {
        let is_odd = sequence % ONE_IN == 1;
        match odd {
            Odd::Reject if is_odd => payload.extend_from_slice(b"hostile:rejected"),
            Odd::Fail if is_odd => payload.extend_from_slice(b"hostile:retryable"),
            Odd::Repeat if is_odd => {
                return enrich_logic::sample(sequence - 1, payload)
                    .map_err(|error| error.to_string());
            }
            _ => {
                return enrich_logic::sample(sequence, payload).map_err(|error| error.to_string());
            }
        }
        Ok(())
    })
}
