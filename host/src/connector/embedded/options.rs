//! Options of the embedded log and its fixed limits (docs/limits.md lists them).

use std::time::Duration;

use crate::config::valid::Durability;

/// Topics of one log.
pub const TOPICS_MAX: usize = 1_024;
/// Partitions of all topics of one log.
pub const PARTITIONS_MAX: usize = 4_096;
/// Consumer groups of one log.
pub const GROUPS_MAX: usize = 1_024;
/// Segments of all topics; above it the open segment of a topic grows instead of being replaced.
pub const SEGMENTS_MAX: usize = 4_096;
/// Segments a topic aims for: its segments grow with it.
pub const SEGMENTS_PER_TOPIC: u64 = 64;
/// Time buckets of the completion table, over all groups; above it buckets get wider.
pub const BUCKETS_MAX: usize = 256;
/// Bytes of a user's meta, state or progress key.
pub const KEY_BYTES_MAX: usize = 16 * 1_024;
/// Bytes of a chunk with its header. Far below fjall's 4 GiB.
pub const CHUNK_BYTES_MAX: usize = 256 * 1_024 * 1_024;
/// Below this an open segment is looked at only when its age changed.
pub(super) const ROLL_CHECK_BYTES: u64 = 4 * 1_024;
/// Default maximum size of one message's record, bytes.
pub const MESSAGE_BYTES_DEFAULT: u32 = 1_024 * 1_024;

/// How the log stores and how much it holds at once.
#[derive(Debug, Clone)]
pub struct Options {
    /// When a commit counts as done.
    pub durability: Durability,
    /// Bytes after which a segment is closed. Default 128 MiB; more than 18 memtables are merged once.
    pub segment_bytes: u64,
    /// Age after which a segment that is not empty is closed. Default 24 h.
    pub segment_age: Duration,
    /// Commits that wait for the committer. Default 1,024.
    pub queue_commits: usize,
    /// Bytes that wait for the committer. Default 16 MiB. One commit above it passes alone.
    pub queue_bytes: usize,
    /// Bytes made durable by one fsync. Default 4 MiB.
    pub group_bytes: usize,
    /// Block cache. Default 16 MiB.
    pub cache_bytes: u64,
    /// Memory of a segment's or table's newest writes before they are flushed. Default 8 MiB.
    pub memtable_bytes: u64,
    /// Journals on disk before tables are flushed to get rid of them. Default 128 MiB, at least 64 MiB.
    pub journal_bytes: u64,
    /// Completions that are held in memory before they are moved to their bucket; up to twice as many
    /// are held while they are. Default 114,688 (a hash table of 2^17 slots).
    pub recent_completions: usize,
    /// How often retention and bucket expiry are looked at. Default 10 s.
    pub maintenance_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::Fsync,
            segment_bytes: 128 << 20,
            segment_age: Duration::from_secs(24 * 3_600),
            queue_commits: 1_024,
            queue_bytes: 16 << 20,
            group_bytes: 4 << 20,
            cache_bytes: 16 << 20,
            memtable_bytes: 8 << 20,
            journal_bytes: 128 << 20,
            recent_completions: 114_688,
            maintenance_interval: Duration::from_secs(10),
        }
    }
}
