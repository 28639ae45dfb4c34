//! The log's own list of what exists: topics, their segments, groups, completion buckets, as they lie
//! in the meta keyspace and in memory. Not the messages and not the tables.

use std::sync::Arc;

use fjall::Slice;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::error::Error;
use super::topic::{GroupId, PartitionId, Retention, Topic, TopicSpec};

/// Version of every record in this file.
const VERSION: u8 = 1;

/// Everything that exists, in memory. The committer changes it after its change became durable.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    /// By topic id.
    pub(super) topics: Vec<TopicEntry>,
    pub(super) topic_ids: FxHashMap<String, u32>,
    /// By partition id: topic and index in it.
    pub(super) places: Vec<Place>,
    /// By group id.
    pub(super) groups: Vec<String>,
    pub(super) group_ids: FxHashMap<String, GroupId>,
    pub(super) buckets: Vec<Bucket>,
    pub(super) next_bucket: u32,
    /// Oldest first.
    pub(super) logs: Vec<CompletionLog>,
    pub(super) next_log: u32,
    /// Completions up to this commit number are in their buckets.
    pub(super) moved_through: u64,
}

/// A keyspace of packed completions; it holds commit numbers from `from_seq` to that of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompletionLog {
    pub(super) id: u32,
    pub(super) from_seq: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) topic: u32,
    pub(super) index: u32,
}

#[derive(Debug)]
pub(super) struct TopicEntry {
    pub(super) topic: Arc<Topic>,
    /// Oldest first, never empty; the last one is open.
    pub(super) segments: Vec<Segment>,
}

/// One segment. `starts` holds, by partition index, the first offset that may lie in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) id: u64,
    pub(super) starts: Vec<u64>,
    pub(super) created_at_ms: i64,
    /// `None`: open.
    pub(super) closed_at_ms: Option<i64>,
    /// Stored bytes of its chunks; of an open segment only known in memory.
    pub(super) bytes: u64,
    /// Newest timestamp in it; `i64::MAX` when not known.
    pub(super) max_timestamp_ms: i64,
}

/// Completions of one group that expire at about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    pub(super) id: u32,
    pub(super) group: GroupId,
    /// Nothing in it is valid after this.
    pub(super) until_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct TopicRecord {
    version: u8,
    name: String,
    first_partition: u32,
    partitions: std::num::NonZeroU32,
    retention_age_ms: Option<u64>,
    retention_bytes: Option<u64>,
    max_message_bytes: u32,
    /// Absent in topics of before there were internal ones.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    internal: bool,
}

#[derive(Serialize, Deserialize)]
struct SegmentRecord {
    version: u8,
    starts: Vec<u64>,
    created_at_ms: i64,
    closed_at_ms: Option<i64>,
    bytes: u64,
    max_timestamp_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct BucketRecord {
    version: u8,
    group: GroupId,
    until_ms: i64,
}

/// A commit number.
#[derive(Serialize, Deserialize)]
struct NumberRecord {
    version: u8,
    number: u64,
}

#[derive(Serialize, Deserialize)]
struct GroupRecord {
    version: u8,
    name: String,
}

/// One record of the catalogue, read back.
pub(super) enum Record {
    Topic(u32, u32, TopicSpec),
    Segment(u32, Segment),
    Group(GroupId, String),
    Bucket(Bucket),
    Log(CompletionLog),
    MovedThrough(u64),
}

pub(super) fn topic_key(id: u32) -> Vec<u8> {
    [b"t".as_slice(), &id.to_be_bytes()].concat()
}

pub(super) fn segment_key(topic: u32, segment: u64) -> Vec<u8> {
    [
        b"s".as_slice(),
        &topic.to_be_bytes(),
        &segment.to_be_bytes(),
    ]
    .concat()
}

pub(super) fn group_key(id: GroupId) -> Vec<u8> {
    [b"g".as_slice(), &id.0.to_be_bytes()].concat()
}

pub(super) fn bucket_key(id: u32) -> Vec<u8> {
    [b"b".as_slice(), &id.to_be_bytes()].concat()
}

pub(super) fn log_key(id: u32) -> Vec<u8> {
    [b"c".as_slice(), &id.to_be_bytes()].concat()
}

pub(super) fn moved_key() -> Vec<u8> {
    b"i".to_vec()
}

pub(super) fn number_value(number: u64) -> Slice {
    json(&NumberRecord {
        version: VERSION,
        number,
    })
}

/// Where the keys of users' meta entries begin, and the first key after them.
pub(super) fn user_range() -> (&'static [u8], &'static [u8]) {
    (b"m", b"n")
}

/// Key of a user's meta entry.
pub(super) fn user_key(key: &[u8]) -> Vec<u8> {
    [b"m".as_slice(), key].concat()
}

pub(super) fn topic_value(topic: &Topic) -> Slice {
    let spec = &topic.spec;
    json(&TopicRecord {
        version: VERSION,
        name: spec.name.clone(),
        first_partition: topic.partitions.first().map_or(0, |p| p.0),
        partitions: spec.partitions,
        retention_age_ms: spec
            .retention
            .age
            .map(|a| u64::try_from(a.as_millis()).unwrap_or(u64::MAX)),
        retention_bytes: spec.retention.bytes,
        max_message_bytes: spec.max_message_bytes,
        internal: spec.internal,
    })
}

pub(super) fn segment_value(segment: &Segment) -> Slice {
    json(&SegmentRecord {
        version: VERSION,
        starts: segment.starts.clone(),
        created_at_ms: segment.created_at_ms,
        closed_at_ms: segment.closed_at_ms,
        bytes: segment.bytes,
        max_timestamp_ms: segment.max_timestamp_ms,
    })
}

pub(super) fn group_value(name: &str) -> Slice {
    json(&GroupRecord {
        version: VERSION,
        name: name.to_owned(),
    })
}

pub(super) fn bucket_value(bucket: &Bucket) -> Slice {
    json(&BucketRecord {
        version: VERSION,
        group: bucket.group,
        until_ms: bucket.until_ms,
    })
}

fn json<T: Serialize>(value: &T) -> Slice {
    // These structs always serialise: no maps with other keys than strings, no fallible types.
    Slice::from(serde_json::to_vec(value).unwrap_or_default())
}

/// Reads one entry of the meta keyspace; `None` for entries that are not the catalogue's.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Option<Record>, Error> {
    let Some((kind, rest)) = key.split_first() else {
        return Ok(None);
    };
    let record = match kind {
        b't' => decode_topic(rest, value),
        b's' => decode_segment(rest, value),
        b'g' => decode_group(rest, value),
        b'b' => decode_bucket(rest, value),
        b'c' => decode_number(value).and_then(|from_seq| {
            let id = u32::from_be_bytes(rest.try_into().ok()?);
            Some(Record::Log(CompletionLog { id, from_seq }))
        }),
        b'i' => decode_number(value).map(Record::MovedThrough),
        _ => return Ok(None),
    };
    match record {
        Some(record) => Ok(Some(record)),
        None => Err(Error::damaged(format!(
            "catalogue entry {} cannot be read",
            key.escape_ascii()
        ))),
    }
}

fn decode_topic(key: &[u8], value: &[u8]) -> Option<Record> {
    let r: TopicRecord = serde_json::from_slice(value).ok()?;
    let spec = TopicSpec {
        name: r.name,
        partitions: r.partitions,
        retention: Retention {
            age: r.retention_age_ms.map(std::time::Duration::from_millis),
            bytes: r.retention_bytes,
        },
        max_message_bytes: r.max_message_bytes,
        internal: r.internal,
    };
    let id = u32::from_be_bytes(key.try_into().ok()?);
    (r.version == VERSION).then_some(Record::Topic(id, r.first_partition, spec))
}

fn decode_segment(key: &[u8], value: &[u8]) -> Option<Record> {
    let r: SegmentRecord = serde_json::from_slice(value).ok()?;
    let (topic, id) = key.split_first_chunk::<4>()?;
    let segment = Segment {
        id: u64::from_be_bytes(id.try_into().ok()?),
        starts: r.starts,
        created_at_ms: r.created_at_ms,
        closed_at_ms: r.closed_at_ms,
        bytes: r.bytes,
        max_timestamp_ms: r.max_timestamp_ms,
    };
    (r.version == VERSION).then_some(Record::Segment(u32::from_be_bytes(*topic), segment))
}

fn decode_group(key: &[u8], value: &[u8]) -> Option<Record> {
    let r: GroupRecord = serde_json::from_slice(value).ok()?;
    let id = GroupId(u32::from_be_bytes(key.try_into().ok()?));
    (r.version == VERSION).then_some(Record::Group(id, r.name))
}

fn decode_bucket(key: &[u8], value: &[u8]) -> Option<Record> {
    let r: BucketRecord = serde_json::from_slice(value).ok()?;
    let bucket = Bucket {
        id: u32::from_be_bytes(key.try_into().ok()?),
        group: r.group,
        until_ms: r.until_ms,
    };
    (r.version == VERSION).then_some(Record::Bucket(bucket))
}

fn decode_number(value: &[u8]) -> Option<u64> {
    let r: NumberRecord = serde_json::from_slice(value).ok()?;
    (r.version == VERSION).then_some(r.number)
}

impl Catalog {
    /// Puts records (in key order) together and checks that none is missing.
    pub(super) fn from_records(records: Vec<Record>) -> Result<Self, Error> {
        let mut catalog = Self::default();
        let mut segments: FxHashMap<u32, Vec<Segment>> = FxHashMap::default();
        let mut topics = Vec::new();
        for record in records {
            match record {
                Record::Topic(id, first, spec) => topics.push((id, first, spec)),
                Record::Segment(topic, segment) => {
                    segments.entry(topic).or_default().push(segment);
                }
                Record::Group(id, name) => {
                    if id.0 as usize != catalog.groups.len() {
                        return Err(Error::damaged(format!(
                            "group record {} is missing",
                            catalog.groups.len()
                        )));
                    }
                    catalog.add_group(name);
                }
                Record::Bucket(bucket) => {
                    catalog.next_bucket = catalog.next_bucket.max(bucket.id + 1);
                    catalog.buckets.push(bucket);
                }
                Record::Log(log) => {
                    catalog.next_log = catalog.next_log.max(log.id + 1);
                    catalog.logs.push(log);
                }
                Record::MovedThrough(seq) => catalog.moved_through = seq,
            }
        }
        for (id, first, spec) in topics {
            let segments = segments.remove(&id).unwrap_or_default();
            catalog.check_topic(id, first, &spec, &segments)?;
            catalog.add_topic(Arc::new(Topic::new(id, first, spec)), segments);
        }
        match segments.keys().next() {
            Some(topic) => Err(Error::damaged(format!("topic record {topic} is missing"))),
            None => Ok(catalog),
        }
    }

    fn check_topic(
        &self,
        id: u32,
        first: u32,
        spec: &TopicSpec,
        segments: &[Segment],
    ) -> Result<(), Error> {
        if id as usize != self.topics.len() || first as usize != self.places.len() {
            return Err(Error::damaged(format!(
                "topic record {} is missing",
                self.topics.len()
            )));
        }
        let whole = segments
            .iter()
            .all(|s| s.starts.len() == spec.partitions.get() as usize)
            && segments.last().is_some_and(|s| s.closed_at_ms.is_none())
            && segments
                .windows(2)
                .all(|pair| matches!(pair, [a, b] if a.id + 1 == b.id && a.closed_at_ms.is_some()));
        if whole {
            Ok(())
        } else {
            Err(Error::damaged(format!(
                "segment records of topic {} are missing",
                spec.name
            )))
        }
    }

    pub(super) fn add_topic(&mut self, topic: Arc<Topic>, segments: Vec<Segment>) {
        for index in 0..topic.spec.partitions.get() {
            self.places.push(Place {
                topic: topic.id,
                index,
            });
        }
        self.topic_ids.insert(topic.name.clone(), topic.id);
        self.topics.push(TopicEntry { topic, segments });
    }

    pub(super) fn add_group(&mut self, name: String) -> GroupId {
        let id = GroupId(self.groups.len() as u32);
        self.group_ids.insert(name.clone(), id);
        self.groups.push(name);
        id
    }

    pub(super) fn rename_group(&mut self, id: GroupId, name: String) {
        if let Some(known) = self.groups.get_mut(id.0 as usize) {
            self.group_ids.remove(known);
            self.group_ids.insert(name.clone(), id);
            *known = name;
        }
    }

    pub(super) fn place(&self, partition: PartitionId) -> Result<Place, Error> {
        self.places
            .get(partition.0 as usize)
            .copied()
            .ok_or(Error::UnknownPartition(partition.0))
    }

    pub(super) fn topic(&self, id: u32) -> Result<&TopicEntry, Error> {
        self.topics
            .get(id as usize)
            .ok_or_else(|| Error::damaged(format!("topic {id} is missing")))
    }

    pub(super) fn segment_count(&self) -> usize {
        self.topics.iter().map(|t| t.segments.len()).sum()
    }
}

impl TopicEntry {
    /// The segment in which `offset` of partition `index` lies.
    pub(super) fn segment_of(&self, index: u32, offset: u64) -> Option<&Segment> {
        let start = |s: &Segment| s.starts.get(index as usize).copied().unwrap_or(u64::MAX);
        let after = self.segments.partition_point(|s| start(s) <= offset);
        after.checked_sub(1).and_then(|at| self.segments.get(at))
    }
}
