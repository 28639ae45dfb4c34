//! What deferred retries cost (§5.2): one of them as CPU time, and what 100,000 that wait cost the path
//! they do not stand in.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use wasmill::connector::embedded::{Append, ChunkBuilder, Commit};
use wasmill::message::{HeadersBuf, MessageRef};
use wasmill::pipeline::returned::{Returned, retry_topic};

use crate::hosted::{self, Setup};
use crate::report::{self, Row};
use crate::{Arguments, Case, Measure, costs, store};

const NAME: &str = "costs";
/// The step in which a message of this bench waits for its second attempt, ms.
const STEP_MS: u64 = 1;
/// The step in which they wait all along, ms.
const HOUR_MS: u64 = 3_600_000;
const WAITING: u64 = 100_000;

/// CPU and wall time of one deferred retry, µs each: the same messages are rejected at once, or put aside
/// once, and then are dead letters too.
pub(crate) fn retries(arguments: &Arguments, echo: &Path, round: usize) -> Result<Measure, String> {
    let dir = arguments.dir.join(format!("deferred-{round}"));
    let log = costs::data(&dir, echo)?;
    costs::fill(&log, costs::Odd::Fail)?;
    log.close().map_err(|error| error.to_string())?;
    let step = retry_topic(NAME, NAME, STEP_MS);
    let mut setup = Setup::new(&dir, NAME, echo, Case::AtLeastOnce);
    setup.input = NAME;
    setup.max_attempts = 2;
    setup.has_circuit = false;
    setup.defers = true;
    // A message is finished in its step, not when it leaves its source.
    setup.also = Some((&step, costs::ODD));
    let measure = setup.run(costs::MESSAGES)?;
    store::clear(&dir)?;
    Ok(measure)
}

/// Throughput of a path on which nothing fails, without and with 100,000 messages that wait.
pub(crate) fn waiting(arguments: &Arguments, echo: &Path, rounds: usize) -> Result<(), String> {
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // Neither is always the first.
        let (first, second) = if round % 2 == 0 {
            (0, WAITING)
        } else {
            (WAITING, 0)
        };
        let one = beside(arguments, echo, first)?.rate();
        let other = beside(arguments, echo, second)?.rate();
        let (empty, full) = if first == 0 {
            (one, other)
        } else {
            (other, one)
        };
        without.push(empty);
        with.push(full);
        ratios.push(full / empty);
    }
    report::rows(
        "100,000 deferred retries that wait, messages/s of the path",
        &[
            Row::new("none waits", without),
            Row::new("100,000 wait", with),
            Row::new("ratio", ratios),
        ],
    );
    Ok(())
}

fn beside(arguments: &Arguments, echo: &Path, waiting: u64) -> Result<Measure, String> {
    let dir = arguments.dir.join("waiting");
    let log = costs::data(&dir, echo)?;
    store::create(&log, NAME)?;
    log.close().map_err(|error| error.to_string())?;
    let mut setup = Setup::new(&dir, NAME, echo, Case::AtLeastOnce);
    setup.input = NAME;
    setup.defers = true;
    // The host makes the topics in which they wait.
    hosted::stop(setup.start()?)?;
    let log = store::open(&dir)?;
    wait_for_an_hour(&log, waiting)?;
    costs::append(&log, costs::Odd::None)?;
    log.close().map_err(|error| error.to_string())?;
    let step = retry_topic(NAME, NAME, HOUR_MS);
    let measure = setup.run(costs::MESSAGES)?;
    // They waited: otherwise something else was measured.
    let log = store::open(&dir)?;
    let finished = store::Durable::of(&log, NAME, &step)?.committed()?;
    log.close().map_err(|error| error.to_string())?;
    if finished > 0 {
        return Err(format!(
            "{finished} of the messages that wait were finished"
        ));
    }
    store::clear(&dir)?;
    Ok(measure)
}

fn wait_for_an_hour(log: &wasmill::connector::embedded::Log, count: u64) -> Result<(), String> {
    let topic = log
        .topic(&retry_topic(NAME, NAME, HOUR_MS))
        .ok_or("the host made no topic for this step")?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = since.map_err(|error| error.to_string())?.as_millis() as i64;
    let mut payload = Vec::new();
    for (number, partition) in topic.partitions.iter().enumerate() {
        let mut chunk = ChunkBuilder::new();
        for sequence in (number as u64..count).step_by(topic.partitions.len()) {
            payload.clear();
            enrich_logic::sample(sequence, &mut payload).map_err(|error| error.to_string())?;
            let known = Returned {
                attempts: 1,
                due_ms: now_ms + HOUR_MS as i64,
                first_failed_at_ms: Some(now_ms),
                origin_topic: NAME.to_owned(),
                origin_partition: number as u32,
                origin_offset: sequence,
                redrive_count: 0,
                dead_letter_id: None,
            };
            let message = MessageRef {
                payload: Some(&payload),
                timestamp_ms: now_ms,
                ..MessageRef::default()
            };
            let mut headers = HeadersBuf::new();
            let record = known
                .record(&message, &mut headers)
                .ok_or("a message has too many headers")?;
            chunk.push(&record);
            if chunk.len() >= 128 {
                write(log, *partition, &mut chunk)?;
            }
        }
        if !chunk.is_empty() {
            write(log, *partition, &mut chunk)?;
        }
    }
    Ok(())
}

fn write(
    log: &wasmill::connector::embedded::Log,
    partition: wasmill::connector::embedded::PartitionId,
    chunk: &mut ChunkBuilder,
) -> Result<(), String> {
    let commit = Commit {
        appends: vec![Append {
            partition,
            chunk: chunk.finish(),
        }],
        ..Commit::default()
    };
    log.commit(commit)
        .map(drop)
        .map_err(|error| error.to_string())
}
