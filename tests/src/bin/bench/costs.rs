//! What one retry, one dead letter and one duplicate cost beyond a message that succeeds: the same topic
//! with and without them, as CPU time and wall time. Their log lines go nowhere in this process.

use std::path::Path;

use crate::hosted::Setup;
use crate::report::{self, Row};
use crate::{Arguments, Case, Measure, store};

const MESSAGES: u64 = 200_000;
/// One message in so many is another.
const ONE_IN: u64 = 20;
const ROUNDS: usize = 5;
/// What they may cost, µs of the host's CPU.
const RETRY_US_MAX: f64 = 20.0;
const LETTER_US_MAX: f64 = 30.0;
const DUPLICATE_US_MAX: f64 = 1.5;

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
    let echo = arguments.component("hostile")?;
    let (mut letters, mut retries, mut duplicates) =
        (Cost::default(), Cost::default(), Cost::default());
    for round in 0..ROUNDS {
        let run = |odd, case| one(arguments, &echo, round, odd, case);
        let plain = run(Odd::None, Case::AtLeastOnce)?;
        let rejected = run(Odd::Reject, Case::AtLeastOnce)?;
        let failed = run(Odd::Fail, Case::AtLeastOnce)?;
        letters.add(&plain, &rejected);
        retries.add(&rejected, &failed);
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
            Row::new("a dead letter, CPU", letters.cpu).limit(LETTER_US_MAX),
            Row::new("a retry, wall time (backoff 1 ms)", retries.wall),
            Row::new("a retry, CPU", retries.cpu).limit(RETRY_US_MAX),
            Row::new(
                "a duplicate skipped, wall time (less than a message: no call)",
                duplicates.wall,
            ),
            Row::new("a duplicate skipped, CPU", duplicates.cpu).limit(DUPLICATE_US_MAX),
        ],
    );
    Ok(())
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
    store::prepare(&dir, 0)?;
    store::warm(&dir, echo)?;
    let log = store::open(&dir)?;
    store::fill(&log, "costs", MESSAGES, |sequence, payload, _| {
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
    })?;
    log.close().map_err(|error| error.to_string())?;
    let mut setup = Setup::new(&dir, "costs", echo, case);
    setup.input = "costs";
    setup.max_attempts = 2;
    let measure = setup.run(MESSAGES)?;
    store::clear(&dir)?;
    Ok(measure)
}
