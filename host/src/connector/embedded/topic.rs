//! Topics and consumer group names: their rules and what is remembered about them. Not where their
//! messages are.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::options::MESSAGE_BYTES_DEFAULT;
use super::partitioner::partition_of_key;

/// Longest topic or group name, bytes (Kafka's).
pub const NAME_BYTES_MAX: usize = 249;
/// Messages without a key that go to one partition before the next one takes over.
const STICKY_RUN: u64 = 64;

/// A partition of a topic, unique in the whole log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

/// A consumer group, unique in the whole log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GroupId(pub u32);

/// How long messages stay. `None` is for ever. Whole segments go, so a little more stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Since a segment was closed, on the host's clock.
    pub age: Option<Duration>,
    /// Stored bytes of the whole topic.
    pub bytes: Option<u64>,
}

/// What a topic is created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: NonZeroU32,
    pub retention: Retention,
    /// Bytes of one record. Default 1 MiB.
    pub max_message_bytes: u32,
    /// The host's own: read by one consumer group, and kept until that has passed it.
    pub internal: bool,
}

impl TopicSpec {
    /// A topic that keeps everything and takes messages up to 1 MiB.
    #[must_use]
    pub fn new(name: impl Into<String>, partitions: NonZeroU32) -> Self {
        Self {
            name: name.into(),
            partitions,
            retention: Retention::default(),
            max_message_bytes: MESSAGE_BYTES_DEFAULT,
            internal: false,
        }
    }
}

/// A topic that exists.
#[derive(Debug)]
pub struct Topic {
    /// Unique in the log; never used again.
    pub id: u32,
    pub name: String,
    /// By index.
    pub partitions: Vec<PartitionId>,
    pub spec: TopicSpec,
    keyless: AtomicU64,
}

impl Topic {
    pub(super) fn new(id: u32, first_partition: u32, spec: TopicSpec) -> Self {
        Self {
            id,
            name: spec.name.clone(),
            partitions: (first_partition..first_partition + spec.partitions.get())
                .map(PartitionId)
                .collect(),
            spec,
            keyless: AtomicU64::new(0),
        }
    }

    /// The index (in `partitions`) for a message: by key as Kafka does it; without a key, runs of 64
    /// messages go round.
    #[must_use]
    pub fn partition_for(&self, key: Option<&[u8]>) -> u32 {
        match key {
            Some(key) => partition_of_key(key, self.spec.partitions),
            None => {
                let turn = self.keyless.fetch_add(1, Ordering::Relaxed) / STICKY_RUN;
                (turn % u64::from(self.spec.partitions.get())) as u32
            }
        }
    }

    /// The global id of partition `index`.
    #[must_use]
    pub fn partition(&self, index: u32) -> Option<PartitionId> {
        self.partitions.get(index as usize).copied()
    }
}

/// Kafka's rule for topic names.
pub(super) fn check_topic_name(name: &str) -> Result<(), Error> {
    let legal = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if legal {
        Ok(())
    } else {
        Err(Error::TopicName(Arc::from(name)))
    }
}

pub(super) fn check_group_name(name: &str) -> Result<(), Error> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(Error::GroupName(Arc::from(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_follow_kafkas_rule() {
        for good in ["a", "orders.v1", "A_b-c.9", &"x".repeat(249)] {
            assert!(check_topic_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "ä", "a/b", &"x".repeat(250)] {
            assert!(check_topic_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_without_a_key_reach_every_partition_in_runs() {
        let topic = Topic::new(1, 10, TopicSpec::new("t", NonZeroU32::new(3).unwrap()));
        let seen: Vec<u32> = (0..64 * 3).map(|_| topic.partition_for(None)).collect();
        assert_eq!(seen[0..64], [0; 64]);
        assert_eq!(seen[64..128], [1; 64]);
        assert_eq!(seen[128..192], [2; 64]);
        assert_eq!(topic.partition(2), Some(PartitionId(12)));
    }
}
