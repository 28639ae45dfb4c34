//! fjall as this log uses it: which keyspaces there are, how they are tuned, opening, reading back
//! what was recovered. Not who writes when (the committer) and not the catalogue's meaning.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PinningPolicy,
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, Slice};
use rustc_hash::FxHashMap;

use super::catalog::{self, Catalog};
use super::chunk::Chunk;
use super::completions::{Completion, unpack};
use super::error::Error;
use super::mark::Mark;
use super::options::Options;
use super::preflight::COMMIT_KEY;

/// Level-0 tables of a segment before fjall merges them: a segment of the default size never is.
const SEGMENT_L0_TABLES: u8 = 18;
/// Level-0 tables of a bucket before fjall merges them.
const BUCKET_L0_TABLES: u8 = 8;
/// fjall's open files.
const OPEN_FILES: usize = 512;
/// Key of a chunk: partition id u32 BE, base offset u64 BE.
pub(super) const CHUNK_KEY_LEN: usize = 12;

/// A keyspace of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// Catalogue, commit number, user's meta.
    Meta,
    Progress,
    State,
    Segment {
        topic: u32,
        segment: u64,
    },
    Bucket(u32),
    /// Packed completions that may not be in their buckets yet, by commit number u64 BE.
    Completions(u32),
}

/// The open database.
pub(super) struct Store {
    pub(super) db: Database,
    keyspaces: FxHashMap<Target, Keyspace>,
    memtable_bytes: u64,
}

impl Target {
    fn name(self) -> String {
        match self {
            Self::Meta => "meta".to_owned(),
            Self::Progress => "progress".to_owned(),
            Self::State => "state".to_owned(),
            Self::Segment { topic, segment } => format!("segment-{topic}-{segment}"),
            Self::Bucket(id) => format!("bucket-{id}"),
            Self::Completions(id) => format!("completions-{id}"),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "meta" => Some(Self::Meta),
            "progress" => Some(Self::Progress),
            "state" => Some(Self::State),
            _ => {
                if let Some(id) = name.strip_prefix("bucket-") {
                    return id.parse().ok().map(Self::Bucket);
                }
                if let Some(id) = name.strip_prefix("completions-") {
                    return id.parse().ok().map(Self::Completions);
                }
                let (topic, segment) = name.strip_prefix("segment-")?.split_once('-')?;
                Some(Self::Segment {
                    topic: topic.parse().ok()?,
                    segment: segment.parse().ok()?,
                })
            }
        }
    }

    fn options(self, memtable_bytes: u64) -> KeyspaceCreateOptions {
        let base = KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes);
        let leveled =
            |l0: u8| Arc::new(fjall::compaction::Leveled::default().with_l0_threshold(l0));
        match self {
            Self::Segment { .. } => base
                .data_block_size_policy(BlockSizePolicy::all(16 * 1_024))
                .compaction_strategy(leveled(SEGMENT_L0_TABLES)),
            Self::Bucket(_) => base
                .filter_policy(FilterPolicy::all(FilterPolicyEntry::Bloom(
                    BloomConstructionPolicy::BitsPerKey(12.0),
                )))
                .filter_block_pinning_policy(PinningPolicy::all(true))
                .index_block_pinning_policy(PinningPolicy::all(true))
                .compaction_strategy(leveled(BUCKET_L0_TABLES)),
            Self::Completions(_) => base.compaction_strategy(leveled(SEGMENT_L0_TABLES)),
            // States of dead letters are looked up by random keys, and there may be millions.
            Self::Meta => base
                .filter_block_pinning_policy(PinningPolicy::all(true))
                .index_block_pinning_policy(PinningPolicy::all(true)),
            Self::Progress | Self::State => base,
        }
    }
}

/// Where fjall's files lie inside the data directory.
pub(super) fn database_dir(dir: &Path) -> PathBuf {
    dir.join("store")
}

impl Store {
    /// Opens or creates; a panic inside fjall (it expects sound files) is damage.
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Self::open_database(dir, options)
        }));
        match opened {
            Ok(result) => result,
            Err(_) => Err(Error::damaged(format!(
                "fjall panicked while it opened {}",
                database_dir(dir).display()
            ))),
        }
    }

    fn open_database(dir: &Path, options: &Options) -> Result<Self, Error> {
        let path = database_dir(dir);
        let what = path.display().to_string();
        let db = Database::builder(&path)
            .cache_size(options.cache_bytes)
            .max_journaling_size(options.journal_bytes.max(64 << 20))
            .max_cached_files(Some(OPEN_FILES))
            .worker_threads(2)
            .open()
            .map_err(|e| Error::from_fjall(&what, &e))?;
        let mut store = Self {
            db,
            keyspaces: FxHashMap::default(),
            memtable_bytes: options.memtable_bytes,
        };
        for name in store.db.list_keyspace_names() {
            if let Some(target) = Target::parse(&name) {
                store
                    .ensure(target)
                    .map_err(|e| Error::from_fjall(&what, &e))?;
            }
        }
        Ok(store)
    }

    #[cfg(test)]
    pub(super) fn is_busy_for_test(&self) -> bool {
        let flushing = |k: &Keyspace| k.sealed_memtable_count() > 0 || k.l0_table_count() > 8;
        self.keyspaces.values().any(flushing) || self.db.active_compactions() > 0
    }

    pub(super) fn has(&self, target: Target) -> bool {
        self.keyspaces.contains_key(&target)
    }

    /// Opens a keyspace, creating it when it does not exist.
    pub(super) fn ensure(&mut self, target: Target) -> Result<(), fjall::Error> {
        if !self.has(target) {
            let memtable = self.memtable_bytes;
            let keyspace = self
                .db
                .keyspace(&target.name(), || target.options(memtable))?;
            self.keyspaces.insert(target, keyspace);
        }
        Ok(())
    }

    /// A keyspace that the catalogue says exists.
    pub(super) fn keyspace(&self, target: Target) -> Result<&Keyspace, Error> {
        self.keyspaces
            .get(&target)
            .ok_or_else(|| Error::damaged(format!("keyspace {} is missing", target.name())))
    }

    /// Deletes a keyspace and its files.
    pub(super) fn delete(&mut self, target: Target) -> Result<(), fjall::Error> {
        match self.keyspaces.remove(&target) {
            Some(keyspace) => self.db.delete_keyspace(keyspace),
            None => Ok(()),
        }
    }

    pub(super) fn get(&self, target: Target, key: &[u8]) -> Result<Option<Slice>, Error> {
        self.keyspace(target)?
            .get(key)
            .map_err(|e| Error::from_fjall(&format!("keyspace {}", target.name()), &e))
    }

    /// The commit number of the newest batch; 0 in a new store.
    pub(super) fn commit_seq(&self) -> Result<u64, Error> {
        match self.get(Target::Meta, COMMIT_KEY)? {
            None => Ok(0),
            Some(value) => value
                .first_chunk::<8>()
                .map(|b| u64::from_le_bytes(*b))
                .ok_or_else(|| Error::damaged("the commit number cannot be read")),
        }
    }

    /// Reads the catalogue and holds it against what fjall recovered.
    pub(super) fn load_catalog(&self) -> Result<Catalog, Error> {
        let meta = self.keyspace(Target::Meta)?;
        let mut records = Vec::new();
        // Around the user's entries: of those there may be millions.
        let (user, after) = catalog::user_range();
        for entry in meta.range(..user).chain(meta.range(after..)) {
            let (key, value) = entry
                .into_inner()
                .map_err(|e| Error::from_fjall("keyspace meta", &e))?;
            records.extend(catalog::decode(&key, &value)?);
        }
        let catalog = Catalog::from_records(records)?;
        for topic in &catalog.topics {
            for segment in &topic.segments {
                self.keyspace(Target::Segment {
                    topic: topic.topic.id,
                    segment: segment.id,
                })?;
            }
        }
        for bucket in &catalog.buckets {
            self.keyspace(Target::Bucket(bucket.id))?;
        }
        for log in &catalog.logs {
            self.keyspace(Target::Completions(log.id))?;
        }
        self.keyspace(Target::Progress)?;
        self.keyspace(Target::State)?;
        Ok(catalog)
    }

    /// Reads the packed completions that were not moved to their buckets, with their commit numbers.
    pub(super) fn recover_completions(
        &self,
        catalog: &Catalog,
        mut each: impl FnMut(u64, Vec<Completion>),
    ) -> Result<(), Error> {
        for log in &catalog.logs {
            let keyspace = self.keyspace(Target::Completions(log.id))?;
            let from = (catalog.moved_through + 1).to_be_bytes();
            for entry in keyspace.range(from..) {
                let (key, value) = entry
                    .into_inner()
                    .map_err(|e| Error::from_fjall("the log of completions", &e))?;
                let seq = key.first_chunk::<8>().map(|b| u64::from_be_bytes(*b));
                let (Some(seq), Some(completions)) = (seq, unpack(&value)) else {
                    return Err(Error::damaged(
                        "an entry in the log of completions cannot be read",
                    ));
                };
                each(seq, completions);
            }
        }
        Ok(())
    }

    /// Deletes keyspaces that the catalogue does not know: their creation was not committed or their
    /// deletion not finished.
    pub(super) fn delete_strays(&mut self, catalog: &Catalog) -> Result<(), Error> {
        let known = |target: &Target| match *target {
            Target::Segment { topic, segment } => catalog
                .topics
                .get(topic as usize)
                .is_some_and(|t| t.segments.iter().any(|s| s.id == segment)),
            Target::Bucket(id) => catalog.buckets.iter().any(|b| b.id == id),
            Target::Completions(id) => catalog.logs.iter().any(|l| l.id == id),
            Target::Meta | Target::Progress | Target::State => true,
        };
        let strays: Vec<Target> = self
            .keyspaces
            .keys()
            .filter(|t| !known(t))
            .copied()
            .collect();
        for stray in strays {
            self.delete(stray)
                .map_err(|e| Error::from_fjall("a stray keyspace", &e))?;
        }
        Ok(())
    }

    /// The end of each partition, from its last chunk; never below the mark.
    pub(super) fn recover_ends(&self, catalog: &Catalog, mark: &Mark) -> Result<Vec<u64>, Error> {
        let mut ends = Vec::with_capacity(catalog.places.len());
        for (id, place) in catalog.places.iter().enumerate() {
            let topic = catalog.topic(place.topic)?;
            let end = self.recover_end(id as u32, place.index, topic)?;
            let acknowledged = mark.ends.get(id).copied().unwrap_or(0);
            if end < acknowledged {
                return Err(Error::damaged(format!(
                    "topic {} partition {} ends at offset {end}, but {acknowledged} was acknowledged",
                    topic.topic.name, place.index
                )));
            }
            ends.push(end);
        }
        Ok(ends)
    }

    fn recover_end(&self, id: u32, index: u32, topic: &catalog::TopicEntry) -> Result<u64, Error> {
        let Some(open) = topic.segments.last() else {
            return Ok(0);
        };
        let start = open.starts.get(index as usize).copied().unwrap_or(0);
        let target = Target::Segment {
            topic: topic.topic.id,
            segment: open.id,
        };
        let last = self.chunk_at_or_before(target, id, u64::MAX)?;
        match last {
            Some(chunk) if chunk.base_offset() >= start => Ok(chunk.end_offset()),
            Some(chunk) => Err(Error::damaged(format!(
                "topic {} partition {index} has offset {} in a segment that begins at {start}",
                topic.topic.name,
                chunk.base_offset()
            ))),
            None => Ok(start),
        }
    }

    /// The chunk that begins at `offset`, or else the last that begins before it.
    pub(super) fn chunk_at_or_before(
        &self,
        target: Target,
        partition: u32,
        offset: u64,
    ) -> Result<Option<Chunk>, Error> {
        let keyspace = self.keyspace(target)?;
        let what = || format!("keyspace {}", target.name());
        let key = chunk_key(partition, offset);
        let exact = keyspace
            .get(key)
            .map_err(|e| Error::from_fjall(&what(), &e))?;
        if let Some(value) = exact {
            return open_chunk(value, partition, offset).map(Some);
        }
        let Some(entry) = keyspace.range(chunk_key(partition, 0)..key).next_back() else {
            return Ok(None);
        };
        let (key, value) = entry
            .into_inner()
            .map_err(|e| Error::from_fjall(&what(), &e))?;
        let base = base_of(&key).ok_or_else(|| Error::damaged(format!("a key in {}", what())))?;
        open_chunk(value, partition, base).map(Some)
    }
}

fn open_chunk(value: Slice, partition: u32, offset: u64) -> Result<Chunk, Error> {
    Chunk::open(value, offset).map_err(|what| {
        Error::damaged(format!("partition #{partition} at offset {offset}: {what}"))
    })
}

pub(super) fn chunk_key(partition: u32, offset: u64) -> [u8; CHUNK_KEY_LEN] {
    let mut key = [0; CHUNK_KEY_LEN];
    let (head, tail) = key.split_at_mut(4);
    head.copy_from_slice(&partition.to_be_bytes());
    tail.copy_from_slice(&offset.to_be_bytes());
    key
}

fn base_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(4..)?.try_into().ok()?))
}

/// Key of a progress entry: group u32 BE, partition u32 BE.
pub(super) fn progress_key(group: u32, partition: u32) -> [u8; 8] {
    ((u64::from(group) << 32) | u64::from(partition)).to_be_bytes()
}

/// Key of a state entry: group, partition, key.
pub(super) fn state_key(group: u32, partition: u32, key: &[u8]) -> Vec<u8> {
    [progress_key(group, partition).as_slice(), key].concat()
}
