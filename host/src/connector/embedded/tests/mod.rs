//! Tests of the whole log, by subject; what they share is here.

mod basics;
mod crash;
mod damage;
mod failing;

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::message::MessageRef;

/// Small enough that segments roll and tables are flushed in a short test.
fn small() -> Options {
    Options {
        segment_bytes: 32 * 1_024,
        memtable_bytes: 16 * 1_024,
        cache_bytes: 1 << 20,
        recent_completions: 50,
        ..Options::default()
    }
}

fn open(dir: &Path) -> Log {
    Log::open(dir, small()).unwrap()
}

fn topic(log: &Log, name: &str, partitions: u32) -> Arc<Topic> {
    log.create_topic(&TopicSpec::new(name, NonZeroU32::new(partitions).unwrap()))
        .unwrap()
}

fn chunk(payloads: &[&[u8]], timestamp_ms: i64) -> EncodedChunk {
    let mut builder = ChunkBuilder::new();
    for payload in payloads {
        builder.push(&MessageRef {
            payload: Some(payload),
            timestamp_ms,
            ..MessageRef::default()
        });
    }
    builder.finish()
}

fn append(partition: PartitionId, payloads: &[&[u8]]) -> Commit {
    append_at(partition, payloads, 0)
}

fn append_at(partition: PartitionId, payloads: &[&[u8]], timestamp_ms: i64) -> Commit {
    Commit {
        appends: vec![Append {
            partition,
            chunk: chunk(payloads, timestamp_ms),
        }],
        ..Commit::default()
    }
}

fn writes(writes: Vec<Write>) -> Commit {
    Commit {
        writes,
        ..Commit::default()
    }
}

/// Everything readable of a partition from its earliest offset, in order.
fn read_all(log: &Log, partition: PartitionId) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let mut from = log.earliest(partition)?;
    let mut seen = Vec::new();
    while let Some(chunk) = log.read(partition, from)? {
        for (offset, _, message) in chunk.iter_from(from) {
            seen.push((offset, message.payload.unwrap_or_default().to_vec()));
        }
        from = chunk.end_offset();
    }
    Ok(seen)
}
