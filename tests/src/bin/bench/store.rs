//! The input of a round: orders in six partitions of the embedded log.

use std::num::NonZeroU32;
use std::path::Path;

use wasmill::connector::embedded::{Append, ChunkBuilder, Commit, Log, Options, TopicSpec};
use wasmill::message::MessageRef;

pub(crate) const PARTITIONS: u32 = 6;
pub(crate) const INPUT: &str = "orders";
const CHUNK: usize = 128;

pub(crate) fn open(dir: &Path) -> Result<Log, String> {
    Log::open(dir.join(wasmill::host::LOG_DIR), Options::default())
        .map_err(|error| error.to_string())
}

pub(crate) fn create(log: &Log, name: &str) -> Result<(), String> {
    let partitions = NonZeroU32::new(PARTITIONS).ok_or("no partitions")?;
    log.create_topic(&TopicSpec::new(name, partitions))
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Makes the store anew with `messages` orders.
pub(crate) fn prepare(dir: &Path, messages: u64) -> Result<(), String> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|error| error.to_string())?;
    }
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    let log = open(dir)?;
    create(&log, INPUT)?;
    let topic = log.topic(INPUT).ok_or("the topic is gone")?;
    let mut builders: Vec<ChunkBuilder> = topic
        .partitions
        .iter()
        .map(|_| ChunkBuilder::new())
        .collect();
    let mut payload = Vec::new();
    let mut commit = Commit::default();
    for sequence in 0..messages {
        payload.clear();
        enrich_logic::sample(sequence, &mut payload).map_err(|error| error.to_string())?;
        let key = enrich_logic::sample_key(sequence);
        let index = topic.partition_for(Some(key.as_bytes())) as usize;
        let (Some(builder), Some(partition)) =
            (builders.get_mut(index), topic.partitions.get(index))
        else {
            continue;
        };
        builder.push(&MessageRef {
            key: Some(key.as_bytes()),
            payload: Some(&payload),
            timestamp_ms: 1_795_000_000_000 + sequence as i64,
            ..MessageRef::default()
        });
        if builder.len() >= CHUNK {
            commit.appends.push(Append {
                partition: *partition,
                chunk: builder.finish(),
            });
        }
        if commit.appends.len() >= 32 {
            log.commit(std::mem::take(&mut commit))
                .map_err(|error| error.to_string())?;
        }
    }
    for (builder, partition) in builders.iter_mut().zip(&topic.partitions) {
        if !builder.is_empty() {
            commit.appends.push(Append {
                partition: *partition,
                chunk: builder.finish(),
            });
        }
    }
    log.commit(commit).map_err(|error| error.to_string())?;
    log.close().map_err(|error| error.to_string())
}

/// CPU time of this process so far, seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
