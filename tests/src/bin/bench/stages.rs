//! Where the time goes: the CPU time of each thread of a running host, and each stage of a message done
//! alone on the same input. What a worker takes beyond its stages is lanes, window, offsets, verdicts
//! and metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmill::config::valid::Allow;
use wasmill::connector::embedded::{Append, Chunk, ChunkBuilder, Commit, Log, Topic};
use wasmill::message::{HeadersBuf, MessageRef};
use wasmill::pipeline::correlation::{self, Correlation};
use wasmill::pipeline::output::{self, HeaderRule};
use wasmill::pipeline::settlement::Settlement;
use wasmill::plugin::frame::{Batch, Call, Outcome, Outcomes};

use crate::hosted::Setup;
use crate::report::{self, Row};
use crate::store::{self, INPUT};
use crate::{Arguments, Case};

/// Messages of a call, as the host's default.
const BATCH: usize = 256;
/// Messages of a settlement when the disk is busy, as the host's.
const SETTLEMENT: u32 = 4096;
const IN_FLIGHT_MAX: u64 = 4;
const MESSAGES: u64 = 200_000;
const ROUNDS: usize = 7;

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    threads(arguments)?;
    pieces(arguments)
}

/// CPU time by thread of the host's runs.
fn threads(arguments: &Arguments) -> Result<(), String> {
    let plugin = arguments.component("enrich")?;
    let mut by_thread: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut walls = Vec::new();
    for round in 0..arguments.pairs.min(5) {
        let dir = arguments.dir.join(format!("threads-{round}"));
        store::prepare(&dir, arguments.messages)?;
        store::warm(&dir, &plugin)?;
        let mut seen = Vec::new();
        let measure = Setup::new(&dir, "worker", &plugin, Case::AtLeastOnce)
            .run_and(arguments.messages, || seen.push(cpu_by_thread()))?;
        let (Some(before), Some(after)) = (seen.first(), seen.last()) else {
            return Err("the threads were not looked at".to_owned());
        };
        for (name, nanoseconds) in after {
            let used = nanoseconds - before.get(name).copied().unwrap_or(0.0);
            let each = used / measure.messages as f64;
            if each >= 1.0 {
                by_thread.entry(name.clone()).or_default().push(each);
            }
        }
        walls.push(1e9 / measure.rate());
        store::clear(&dir)?;
    }
    let mut rows = vec![Row::new("wall time", walls)];
    rows.extend(
        by_thread
            .into_iter()
            .map(|(name, values)| Row::new(&format!("thread(s) {name}"), values)),
    );
    report::rows("CPU time of a running host by thread, ns a message", &rows);
    Ok(())
}

/// Nanoseconds on a CPU by name of the thread, numbers at its end left out.
fn cpu_by_thread() -> BTreeMap<String, f64> {
    let mut found: BTreeMap<String, f64> = BTreeMap::new();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return found;
    };
    for task in tasks.flatten() {
        let read = |file| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let (name, times) = (read("comm"), read("schedstat"));
        let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit());
        let used = times.split(' ').next().and_then(|text| text.parse().ok());
        *found.entry(name.to_owned()).or_default() += used.unwrap_or(0.0);
    }
    found
}

#[derive(Default)]
struct Stages {
    read: Vec<f64>,
    native: Vec<f64>,
    frame: Vec<f64>,
    guest: Vec<f64>,
    outputs: Vec<f64>,
    chunks: Vec<f64>,
    commit_cpu: Vec<f64>,
    commit_wall: Vec<f64>,
}

fn pieces(arguments: &Arguments) -> Result<(), String> {
    let plugin = arguments.component("enrich")?;
    let dir = arguments.dir.join("stages");
    store::prepare(&dir, MESSAGES)?;
    let loaded = store::load(dir.join("plugin-cache"), &plugin, &Allow::default())?;
    let mut instance = loaded.instance(&BTreeMap::new(), None);
    let log = store::open(&dir)?;
    let mut stages = Stages::default();
    for round in 0..ROUNDS {
        let target = store::create(&log, &format!("stages-{round}"))?;
        let chunks = read(&log, &mut stages)?;
        native(&chunks, &mut stages)?;
        let batches = frames(&chunks, &mut stages)?;
        let mut answers = Vec::new();
        let began = store::thread_seconds();
        for batch in &batches {
            answers.push(instance.call(batch, 0).map_err(|fault| fault.message)?);
        }
        stages.guest.push(since(began));
        let settlements = outputs(&chunks, &answers, &mut stages)?;
        let commits = build(&settlements, &target, &mut stages)?;
        commit(&log, commits, &mut stages)?;
    }
    log.close().map_err(|error| error.to_string())?;
    store::clear(&dir)?;
    report::rows(
        "Each stage alone, ns a message of the input (one thread, CPU time)",
        &[
            Row::new("read: chunks found, checksummed, walked", stages.read),
            Row::new("handler as native code, for comparison", stages.native),
            Row::new("frame: correlation ID, encode", stages.frame),
            Row::new("guest: call of 256, answer checked", stages.guest),
            Row::new("outcomes walked, outputs and headers built", stages.outputs),
            Row::new("partition, chunk, checksum", stages.chunks),
            Row::new("commit, CPU of all threads", stages.commit_cpu),
            Row::new("commit, wall time with fsync", stages.commit_wall),
        ],
    );
    Ok(())
}

fn since(began: f64) -> f64 {
    (store::thread_seconds() - began) * 1e9 / MESSAGES as f64
}

fn read(log: &Log, stages: &mut Stages) -> Result<Vec<(u32, Chunk)>, String> {
    let topic = log.topic(INPUT).ok_or("no input")?;
    let began = store::thread_seconds();
    let (mut chunks, mut bytes) = (Vec::new(), 0);
    for (number, partition) in topic.partitions.iter().enumerate() {
        let mut position = 0;
        while let Some(chunk) = log
            .read(*partition, position)
            .map_err(|error| error.to_string())?
        {
            bytes += chunk.iter().map(|(_, _, m)| m.record_len()).sum::<usize>();
            position = chunk.end_offset();
            chunks.push((number as u32, chunk));
        }
    }
    stages.read.push(since(began));
    if bytes == 0 {
        return Err("nothing was read".to_owned());
    }
    Ok(chunks)
}

/// Place and message of everything in `chunks`.
fn messages(chunks: &[(u32, Chunk)]) -> impl Iterator<Item = (u32, u64, MessageRef<'_>)> + use<'_> {
    chunks.iter().flat_map(|(number, chunk)| {
        chunk
            .iter()
            .map(|(offset, _, message)| (*number, offset, message))
    })
}

fn native(chunks: &[(u32, Chunk)], stages: &mut Stages) -> Result<(), String> {
    let began = store::thread_seconds();
    let mut out = Vec::new();
    for (_, _, message) in messages(chunks) {
        out.clear();
        enrich_logic::enrich_into(message.payload.unwrap_or_default(), &mut out)
            .map_err(|error| error.to_string())?;
        std::hint::black_box(&out);
    }
    stages.native.push(since(began));
    Ok(())
}

fn frames(chunks: &[(u32, Chunk)], stages: &mut Stages) -> Result<Vec<Batch>, String> {
    let hash = correlation::topic_hash(INPUT);
    // Made before: a worker has one batch and fills it again and again.
    let mut batches: Vec<Batch> = (0..MESSAGES.div_ceil(BATCH as u64))
        .map(|_| {
            let mut batch = Batch::new(&[INPUT]);
            let filler = vec![0; 100 << 10];
            let filled = batch.push(&Call {
                message: MessageRef {
                    payload: Some(&filler),
                    ..MessageRef::default()
                },
                ..Call::default()
            });
            debug_assert!(filled);
            batch.clear();
            batch
        })
        .collect();
    let began = store::thread_seconds();
    for (index, (partition, offset, message)) in messages(chunks).enumerate() {
        let correlation = Correlation::of(&message.headers, hash, partition, offset);
        let pushed = batches.get_mut(index / BATCH).is_some_and(|batch| {
            batch.push(&Call {
                topic: 0,
                partition,
                offset,
                message,
                attempt: 1,
                correlation_id: correlation.text(&message.headers),
                idempotency_key: None,
            })
        });
        if !pushed {
            return Err("a batch is full".to_owned());
        }
    }
    stages.frame.push(since(began));
    Ok(batches)
}

fn outputs(
    chunks: &[(u32, Chunk)],
    answers: &[Outcomes],
    stages: &mut Stages,
) -> Result<Vec<Settlement>, String> {
    let hash = correlation::topic_hash(INPUT);
    let rule = HeaderRule::default();
    let mut headers = HeadersBuf::new();
    let mut settlements = vec![];
    let mut open = Settlement::default();
    let began = store::thread_seconds();
    let outcomes = answers.iter().flat_map(Outcomes::iter);
    for ((partition, offset, message), outcome) in messages(chunks).zip(outcomes) {
        let Outcome::Outputs(outputs) = outcome else {
            return Err("an order failed".to_owned());
        };
        let correlation = Correlation::of(&message.headers, hash, partition, offset);
        for output in outputs {
            let id = correlation.text(&message.headers);
            let made = output::Made::default();
            let record = output::build(&output, &message, id, &rule, &made, &mut headers)
                .ok_or("an output cannot be built")?;
            open.publish(0, &record);
        }
        open.count_delivery();
        if open.deliveries() >= SETTLEMENT {
            settlements.push(std::mem::take(&mut open));
        }
    }
    settlements.push(open);
    stages.outputs.push(since(began));
    Ok(settlements)
}

fn build(
    settlements: &[Settlement],
    target: &Topic,
    stages: &mut Stages,
) -> Result<Vec<Commit>, String> {
    let mut builders: Vec<ChunkBuilder> = target
        .partitions
        .iter()
        .map(|_| ChunkBuilder::new())
        .collect();
    let began = store::thread_seconds();
    let mut commits = Vec::new();
    for settlement in settlements {
        for publish in settlement.publishes() {
            let record = settlement.record(publish);
            let (message, _) =
                MessageRef::read_record(record).map_err(|error| error.to_string())?;
            let index = target.partition_for(message.key) as usize;
            if let Some(builder) = builders.get_mut(index) {
                builder.push_record(record);
            }
        }
        let mut commit = Commit::default();
        for (partition, builder) in target.partitions.iter().zip(&mut builders) {
            if !builder.is_empty() {
                commit.appends.push(Append {
                    partition: *partition,
                    chunk: builder.finish(),
                });
            }
        }
        commits.push(commit);
    }
    stages.chunks.push(since(began));
    Ok(commits)
}

fn commit(log: &Log, commits: Vec<Commit>, stages: &mut Stages) -> Result<(), String> {
    let acknowledged = Arc::new(AtomicU64::new(0));
    let (cpu, began) = (store::cpu_seconds(), Instant::now());
    let wait = |until: u64| {
        while acknowledged.load(Ordering::Acquire) < until {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    };
    let mut sent: u64 = 0;
    for commit in commits {
        sent += 1;
        let (acknowledged, thread) = (Arc::clone(&acknowledged), std::thread::current());
        let ack = Box::new(move |_: Result<_, _>| {
            acknowledged.fetch_add(1, Ordering::Release);
            thread.unpark();
        });
        log.submit(commit, ack).map_err(|error| error.to_string())?;
        wait(sent.saturating_sub(IN_FLIGHT_MAX));
    }
    wait(sent);
    let each = 1e9 / MESSAGES as f64;
    stages.commit_cpu.push((store::cpu_seconds() - cpu) * each);
    stages
        .commit_wall
        .push(began.elapsed().as_secs_f64() * each);
    Ok(())
}
