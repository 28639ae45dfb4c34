//! Reading: messages by offset and time, table entries. Readers take a read lock for the length of one
//! call and hand out owned, cheap slices.

use fjall::Slice;

use super::catalog::{TopicEntry, user_key};
use super::chunk::Chunk;
use super::error::Error;
use super::shared::{Shared, State};
use super::store::{Store, Target, progress_key, state_key};
use super::topic::{GroupId, PartitionId};

impl Shared {
    pub(super) fn read(&self, partition: PartitionId, from: u64) -> Result<Option<Chunk>, Error> {
        let end = self.end(partition)?;
        if from == end {
            return Ok(None);
        }
        let state = self.read_state();
        let earliest = self.earliest(partition)?;
        if from < earliest || from > end {
            return Err(Error::OffsetOutOfRange {
                offset: from,
                earliest,
                end,
            });
        }
        find(&state, partition, from).map(Some)
    }

    pub(super) fn offset_at(
        &self,
        partition: PartitionId,
        timestamp_ms: i64,
    ) -> Result<u64, Error> {
        let end = self.end(partition)?;
        let mut from = self
            .skip_older(partition, timestamp_ms)?
            .max(self.earliest(partition)?);
        while from < end {
            let chunk = match self.read(partition, from) {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                // Retention came in between.
                Err(Error::OffsetOutOfRange { earliest, .. }) if earliest > from => {
                    from = earliest;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if chunk.max_timestamp_ms() >= timestamp_ms {
                let found = chunk
                    .iter_from(from)
                    .find(|(_, _, m)| m.timestamp_ms >= timestamp_ms);
                if let Some((offset, _, _)) = found {
                    return Ok(offset);
                }
            }
            from = chunk.end_offset();
        }
        Ok(end)
    }

    /// Where the first segment begins that may hold a timestamp this new.
    fn skip_older(&self, partition: PartitionId, timestamp_ms: i64) -> Result<u64, Error> {
        let state = self.read_state();
        let place = state.catalog.place(partition)?;
        let entry = state.catalog.topic(place.topic)?;
        let segment = entry
            .segments
            .iter()
            .find(|s| s.max_timestamp_ms >= timestamp_ms)
            .or(entry.segments.last());
        let start = segment.and_then(|s| s.starts.get(place.index as usize).copied());
        Ok(start.unwrap_or(0))
    }

    /// Fills the completions in memory from their log.
    pub(super) fn recover_recent(&self) -> Result<(), Error> {
        let state = self.read_state();
        self.recent.set_moved_through(state.catalog.moved_through);
        state
            .store()?
            .recover_completions(&state.catalog, |seq, completions| {
                self.recent.insert(completions, seq);
            })
    }

    pub(super) fn get(&self, target: Target, key: &[u8]) -> Result<Option<Slice>, Error> {
        self.read_state().store()?.get(target, key)
    }

    pub(super) fn progress(
        &self,
        group: GroupId,
        partition: PartitionId,
    ) -> Result<Option<Slice>, Error> {
        self.get(Target::Progress, &progress_key(group.0, partition.0))
    }

    pub(super) fn progress_of(&self, group: GroupId) -> Result<Vec<(PartitionId, Slice)>, Error> {
        let state = self.read_state();
        let entries = scan(
            state.store()?,
            Target::Progress,
            &group.0.to_be_bytes(),
            usize::MAX,
            usize::MAX,
        )?;
        Ok(entries
            .into_iter()
            .filter_map(|(key, value)| {
                let id = key.get(4..)?.try_into().ok()?;
                Some((PartitionId(u32::from_be_bytes(id)), value))
            })
            .collect())
    }

    pub(super) fn state_get(
        &self,
        group: GroupId,
        partition: PartitionId,
        key: &[u8],
    ) -> Result<Option<Slice>, Error> {
        self.get(Target::State, &state_key(group.0, partition.0, key))
    }

    pub(super) fn state_scan(
        &self,
        group: GroupId,
        partition: PartitionId,
        prefix: &[u8],
        limit: usize,
        bytes_max: usize,
    ) -> Result<Vec<(Slice, Slice)>, Error> {
        let state = self.read_state();
        let whole = state_key(group.0, partition.0, prefix);
        let entries = scan(state.store()?, Target::State, &whole, limit, bytes_max)?;
        let bare = |key: Slice| Slice::new(key.get(8..).unwrap_or_default());
        Ok(entries.into_iter().map(|(k, v)| (bare(k), v)).collect())
    }

    pub(super) fn state_bytes(&self, group: GroupId) -> Result<u64, Error> {
        let state = self.read_state();
        let keyspace = state.store()?.keyspace(Target::State)?;
        let whole = state_key(group.0, 0, b"");
        let prefix = whole.get(..4).unwrap_or_default();
        let mut bytes = 0;
        for entry in keyspace.prefix(prefix) {
            let (key, value) = entry
                .into_inner()
                .map_err(|e| Error::from_fjall("a table", &e))?;
            bytes += (key.len().saturating_sub(8) + value.len()) as u64;
        }
        Ok(bytes)
    }

    pub(super) fn state_is_empty(&self, group: GroupId) -> Result<bool, Error> {
        let state = self.read_state();
        let keyspace = state.store()?.keyspace(Target::State)?;
        let first = keyspace.prefix(group.0.to_be_bytes()).next();
        match first.map(fjall::Guard::into_inner) {
            None => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(why)) => Err(Error::from_fjall("a table", &why)),
        }
    }

    pub(super) fn meta_get(&self, key: &[u8]) -> Result<Option<Slice>, Error> {
        self.get(Target::Meta, &user_key(key))
    }

    pub(super) fn meta_scan(
        &self,
        prefix: &[u8],
        from: &[u8],
        limit: usize,
    ) -> Result<Vec<(Slice, Slice)>, Error> {
        let state = self.read_state();
        let prefix = user_key(prefix);
        let first = user_key(from).max(prefix.clone());
        let keyspace = state.store()?.keyspace(Target::Meta)?;
        let mut found = Vec::new();
        for entry in keyspace.range(first..).take(limit) {
            let (key, value) = entry
                .into_inner()
                .map_err(|e| Error::from_fjall("keyspace meta", &e))?;
            if !key.starts_with(&prefix) {
                break;
            }
            found.push((Slice::new(key.get(1..).unwrap_or_default()), value));
        }
        Ok(found)
    }

    /// The value of a completion that has not expired.
    pub(super) fn completion(
        &self,
        group: GroupId,
        hash: u128,
        now_ms: i64,
    ) -> Result<Option<Slice>, Error> {
        // Before the buckets: what is moved meanwhile is then in them.
        let mut newest = self
            .recent
            .get(group, hash)
            .filter(|(expires, _)| *expires > now_ms);
        if let Some((_, value)) = newest {
            return Ok(Some(value));
        }
        let state = self.read_state();
        let store = state.store()?;
        let key = hash.to_be_bytes();
        for bucket in &state.catalog.buckets {
            if bucket.group != group || bucket.until_ms < now_ms {
                continue;
            }
            let Some(entry) = store.get(Target::Bucket(bucket.id), &key)? else {
                continue;
            };
            let (expires, value) = entry
                .split_first_chunk::<8>()
                .ok_or_else(|| Error::damaged(format!("completion {hash:032x} is cut short")))?;
            let expires = i64::from_le_bytes(*expires);
            if expires > now_ms && newest.as_ref().is_none_or(|(other, _)| *other < expires) {
                newest = Some((expires, Slice::new(value)));
            }
        }
        Ok(newest.map(|(_, value)| value))
    }
}

/// The chunk that holds `from`, which exists: anything else is damage.
fn find(state: &State, partition: PartitionId, from: u64) -> Result<Chunk, Error> {
    let place = state.catalog.place(partition)?;
    let entry = state.catalog.topic(place.topic)?;
    let hole = || {
        Error::damaged(format!(
            "topic {} partition {} has no message at offset {from}",
            entry.topic.name, place.index
        ))
    };
    let segment = entry.segment_of(place.index, from).ok_or_else(hole)?;
    let target = Target::Segment {
        topic: place.topic,
        segment: segment.id,
    };
    let chunk = state
        .store()?
        .chunk_at_or_before(target, partition.0, from)
        .map_err(|e| name_place(e, entry, place.index, from))?
        .ok_or_else(hole)?;
    if chunk.end_offset() <= from {
        return Err(hole());
    }
    Ok(chunk)
}

fn name_place(error: Error, entry: &TopicEntry, index: u32, from: u64) -> Error {
    match error {
        Error::Damaged { what } => Error::damaged(format!(
            "topic {} partition {index} near offset {from}: {what}",
            entry.topic.name
        )),
        other => other,
    }
}

fn scan(
    store: &Store,
    target: Target,
    prefix: &[u8],
    limit: usize,
    bytes_max: usize,
) -> Result<Vec<(Slice, Slice)>, Error> {
    let keyspace = store.keyspace(target)?;
    let mut found = Vec::new();
    let mut bytes = 0;
    for entry in keyspace.prefix(prefix).take(limit) {
        let (key, value) = entry
            .into_inner()
            .map_err(|e| Error::from_fjall("a table", &e))?;
        bytes += key.len() + value.len();
        found.push((key, value));
        if bytes > bytes_max {
            break;
        }
    }
    Ok(found)
}
