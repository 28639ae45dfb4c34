//! A plan: the entries of one atomic batch and what changes in memory once it is durable. Plans hold
//! no handle of fjall, so that the same plan can be written again after fjall was reopened.

use std::sync::Arc;

use fjall::Slice;

use super::catalog::{self, Bucket, CompletionLog, Segment};
use super::completions::{Completion, pack};
use super::preflight::COMMIT_KEY;
use super::store::Target;
use super::topic::{GroupId, PartitionId, Topic};

/// One entry; no value deletes.
pub(super) struct Put {
    pub(super) target: Target,
    pub(super) key: Slice,
    pub(super) value: Option<Slice>,
}

/// A change of the catalogue.
pub(super) enum Change {
    Topic(Arc<Topic>, Segment),
    Group(String),
    Renamed(GroupId, String),
    /// The topic's open segment is closed as this, and that one opened.
    Roll {
        topic: u32,
        closed: Segment,
        opened: Segment,
    },
    Bucket(Bucket),
    DropSegments {
        topic: u32,
        count: usize,
    },
    DropBuckets(Vec<u32>),
    Log(CompletionLog),
    DropLogs(Vec<u32>),
}

pub(super) struct Plan {
    pub(super) seq: u64,
    pub(super) sync: bool,
    pub(super) puts: Vec<Put>,
    pub(super) bytes: usize,
    pub(super) changes: Vec<Change>,
    /// Partitions that grew, with their new ends.
    pub(super) grown: Vec<(PartitionId, u64)>,
    pub(super) completions: Vec<Completion>,
    /// Keyspaces that may have to be created.
    pub(super) created: Vec<Target>,
}

impl Plan {
    pub(super) fn new(seq: u64, sync: bool) -> Self {
        let mut plan = Self {
            seq,
            sync,
            puts: Vec::new(),
            bytes: 0,
            changes: Vec::new(),
            grown: Vec::new(),
            completions: Vec::new(),
            created: Vec::new(),
        };
        // First in its batch: the check of journals before opening relies on it.
        plan.put(
            Target::Meta,
            Slice::new(COMMIT_KEY),
            Some(Slice::new(&seq.to_le_bytes())),
        );
        plan
    }

    pub(super) fn put(&mut self, target: Target, key: Slice, value: Option<Slice>) {
        self.bytes += key.len() + value.as_ref().map_or(0, |v| v.len());
        self.puts.push(Put { target, key, value });
    }

    fn meta(&mut self, key: Vec<u8>, value: Option<Slice>) {
        self.put(Target::Meta, Slice::from(key), value);
    }

    pub(super) fn create_topic(&mut self, topic: Arc<Topic>, segment: Segment) {
        self.meta(
            catalog::topic_key(topic.id),
            Some(catalog::topic_value(&topic)),
        );
        self.open_segment(topic.id, &segment);
        self.changes.push(Change::Topic(topic, segment));
    }

    fn open_segment(&mut self, topic: u32, segment: &Segment) {
        self.meta(
            catalog::segment_key(topic, segment.id),
            Some(catalog::segment_value(segment)),
        );
        self.created.push(Target::Segment {
            topic,
            segment: segment.id,
        });
    }

    pub(super) fn create_group(&mut self, id: GroupId, name: &str) {
        self.meta(catalog::group_key(id), Some(catalog::group_value(name)));
        self.changes.push(Change::Group(name.to_owned()));
    }

    pub(super) fn rename_group(&mut self, id: GroupId, name: &str) {
        self.meta(catalog::group_key(id), Some(catalog::group_value(name)));
        self.changes.push(Change::Renamed(id, name.to_owned()));
    }

    pub(super) fn roll(&mut self, topic: u32, closed: Segment, opened: Segment) {
        self.meta(
            catalog::segment_key(topic, closed.id),
            Some(catalog::segment_value(&closed)),
        );
        self.open_segment(topic, &opened);
        self.changes.push(Change::Roll {
            topic,
            closed,
            opened,
        });
    }

    pub(super) fn set_bucket(&mut self, bucket: Bucket) {
        self.meta(
            catalog::bucket_key(bucket.id),
            Some(catalog::bucket_value(&bucket)),
        );
        self.created.push(Target::Bucket(bucket.id));
        self.changes.push(Change::Bucket(bucket));
    }

    pub(super) fn open_log(&mut self, log: CompletionLog) {
        self.meta(
            catalog::log_key(log.id),
            Some(catalog::number_value(log.from_seq)),
        );
        self.created.push(Target::Completions(log.id));
        self.changes.push(Change::Log(log));
    }

    /// All completions of the plan, as one entry of that log.
    pub(super) fn seal_completions(&mut self, log: u32) {
        let key = Slice::new(&self.seq.to_be_bytes());
        let value = pack(&self.completions);
        self.put(Target::Completions(log), key, Some(value));
    }

    pub(super) fn moved_through(&mut self, seq: u64, ids: Vec<u32>) {
        self.meta(catalog::moved_key(), Some(catalog::number_value(seq)));
        for id in &ids {
            self.meta(catalog::log_key(*id), None);
        }
        if !ids.is_empty() {
            self.changes.push(Change::DropLogs(ids));
        }
    }

    pub(super) fn drop_segments(&mut self, topic: u32, segments: &[u64]) {
        for id in segments {
            self.meta(catalog::segment_key(topic, *id), None);
        }
        self.changes.push(Change::DropSegments {
            topic,
            count: segments.len(),
        });
    }

    pub(super) fn drop_buckets(&mut self, ids: Vec<u32>) {
        for id in &ids {
            self.meta(catalog::bucket_key(*id), None);
        }
        self.changes.push(Change::DropBuckets(ids));
    }
}
