//! What a round runs on: a data directory with orders in six partitions and a warm compile cache, and
//! what is read from it meanwhile.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wasmill::config::valid::Allow;
use wasmill::connector::embedded::{
    Append, ChunkBuilder, Commit, GroupId, Log, Options, Topic, TopicSpec,
};
use wasmill::message::{HeadersBuf, MessageRef};
use wasmill::pipeline::offsets::Progress;
use wasmill::plugin::{self, Engine, Plugin};

use crate::hosted;

pub(crate) const PARTITIONS: u32 = 6;
/// Of the first message, Unix ms; each is a millisecond after the one before.
pub(crate) const TIMESTAMP_FIRST_MS: i64 = 1_795_000_000_000;
pub(crate) const INPUT: &str = "orders";
/// The idempotency key of an order.
pub(crate) const KEY: &str = "message.json.order_id";
/// Messages in a chunk, as a producer with some batching makes them.
const CHUNK: usize = 128;
/// Chunks in a commit.
const COMMIT_CHUNKS: usize = 32;
const CACHE: &str = "plugin-cache";

pub(crate) fn output_of(pipeline: &str) -> String {
    format!("{pipeline}-out")
}

pub(crate) fn open(dir: &Path) -> Result<Log, String> {
    Log::open(dir.join(wasmill::host::LOG_DIR), Options::default())
        .map_err(|error| error.to_string())
}

pub(crate) fn create(log: &Log, name: &str) -> Result<Arc<Topic>, String> {
    let partitions = NonZeroU32::new(PARTITIONS).ok_or("no partitions")?;
    log.create_topic(&TopicSpec::new(name, partitions))
        .map_err(|error| error.to_string())
}

/// Makes the data directory anew with `messages` orders.
pub(crate) fn prepare(dir: &Path, messages: u64) -> Result<(), String> {
    clear(dir)?;
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    let log = open(dir)?;
    fill(&log, INPUT, messages, |sequence, payload, _| {
        enrich_logic::sample(sequence, payload).map_err(|error| error.to_string())
    })?;
    log.close().map_err(|error| error.to_string())
}

/// Messages in a topic; none when there is no such topic.
pub(crate) fn messages(log: &Log, topic: &str) -> Result<u64, String> {
    let Some(topic) = log.topic(topic) else {
        return Ok(0);
    };
    let mut sum = 0;
    for partition in &topic.partitions {
        sum += log.end(*partition).map_err(|error| error.to_string())?;
    }
    Ok(sum)
}

pub(crate) fn clear(dir: &Path) -> Result<(), String> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Writes `messages` records with the orders' keys; `write` makes payload and headers.
pub(crate) fn fill(
    log: &Log,
    topic: &str,
    messages: u64,
    write: impl Fn(u64, &mut Vec<u8>, &mut HeadersBuf) -> Result<(), String>,
) -> Result<(), String> {
    fill_topic(log, &create(log, topic)?, messages, write)
}

/// The same with a topic that is there.
pub(crate) fn fill_topic(
    log: &Log,
    topic: &Arc<Topic>,
    messages: u64,
    write: impl Fn(u64, &mut Vec<u8>, &mut HeadersBuf) -> Result<(), String>,
) -> Result<(), String> {
    let mut appender = Appender::new(topic);
    let (mut payload, mut headers) = (Vec::new(), HeadersBuf::new());
    for sequence in 0..messages {
        payload.clear();
        headers.clear();
        write(sequence, &mut payload, &mut headers)?;
        appender.push(sequence, &payload, &headers, CHUNK);
        if appender.commit.appends.len() >= COMMIT_CHUNKS {
            log.commit(std::mem::take(&mut appender.commit))
                .map_err(|error| error.to_string())?;
        }
    }
    log.commit(appender.finish())
        .map(drop)
        .map_err(|error| error.to_string())
}

/// Collects records of one topic into a commit.
pub(crate) struct Appender {
    topic: Arc<Topic>,
    builders: Vec<ChunkBuilder>,
    commit: Commit,
}

impl Appender {
    pub(crate) fn new(topic: &Arc<Topic>) -> Self {
        Self {
            topic: Arc::clone(topic),
            builders: topic
                .partitions
                .iter()
                .map(|_| ChunkBuilder::new())
                .collect(),
            commit: Commit::default(),
        }
    }

    /// Adds the record of this number; a chunk is finished at `chunk` records.
    pub(crate) fn push(
        &mut self,
        sequence: u64,
        payload: &[u8],
        headers: &HeadersBuf,
        chunk: usize,
    ) {
        let key = enrich_logic::sample_key(sequence);
        let index = self.topic.partition_for(Some(key.as_bytes())) as usize;
        let (Some(builder), Some(partition)) = (
            self.builders.get_mut(index),
            self.topic.partitions.get(index),
        ) else {
            return;
        };
        builder.push(&MessageRef {
            key: Some(key.as_bytes()),
            payload: Some(payload),
            headers: headers.as_headers(),
            timestamp_ms: TIMESTAMP_FIRST_MS + sequence as i64,
        });
        if builder.len() >= chunk {
            self.commit.appends.push(Append {
                partition: *partition,
                chunk: builder.finish(),
            });
        }
    }

    /// Everything that was pushed and is in no commit yet.
    pub(crate) fn finish(&mut self) -> Commit {
        for (builder, partition) in self.builders.iter_mut().zip(&self.topic.partitions) {
            if !builder.is_empty() {
                self.commit.appends.push(Append {
                    partition: *partition,
                    chunk: builder.finish(),
                });
            }
        }
        std::mem::take(&mut self.commit)
    }
}

/// What a group has durably finished in a topic.
pub(crate) struct Durable<'l> {
    log: &'l Log,
    group: GroupId,
    topic: Arc<Topic>,
}

impl<'l> Durable<'l> {
    pub(crate) fn of(log: &'l Log, group: &str, topic: &str) -> Result<Self, String> {
        Ok(Self {
            log,
            group: log.find_group(group).ok_or("the group is not there")?,
            topic: log.topic(topic).ok_or("the topic is not there")?,
        })
    }

    /// The sum over all partitions.
    pub(crate) fn committed(&self) -> Result<u64, String> {
        let mut sum = 0;
        for partition in &self.topic.partitions {
            let value = self
                .log
                .progress(self.group, *partition)
                .map_err(|error| error.to_string())?;
            if let Some(value) = value {
                sum += Progress::decode(&value)
                    .map_err(|error| error.to_string())?
                    .committed;
            }
        }
        Ok(sum)
    }
}

/// A plugin with the limits of the host.
pub(crate) fn load(cache_dir: PathBuf, plugin: &Path, allow: &Allow) -> Result<Plugin, String> {
    let engine = Engine::new(plugin::Options {
        cache_dir,
        guest_memory: 2 << 30,
        instances_max: hosted::WORKERS * 2,
        memory_max: hosted::GUEST_MEMORY,
    })
    .map_err(|error| error.to_string())?;
    engine
        .load(plugin, allow, &hosted::limits())
        .map_err(|error| error.to_string())
}

/// Compiles `plugin` into the cache of the data directory `dir`.
pub(crate) fn warm(dir: &Path, plugin: &Path) -> Result<(), String> {
    load(dir.join(CACHE), plugin, &Allow::default()).map(drop)
}

/// CPU time of this process so far, seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// CPU time of this thread so far, seconds.
pub(crate) fn thread_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
