//! Chunks: many records of one partition in one value. Encoding, checking, walking; not where they
//! are stored. The bytes, little-endian:
//! `crc32c u32 | version u8 (1) | flags u8 (0) | 0 u16 | count u32 | body_len u32 | max_timestamp i64 | records`.
//! The CRC covers everything after it; records are those of `crate::message`.

use fjall::Slice;

use super::error::Error;
use super::options::CHUNK_BYTES_MAX;
use crate::message::{MessageRef, RECORD_HEADER_LEN};

/// Bytes before the first record of a chunk.
pub const CHUNK_HEADER_LEN: usize = 24;
const VERSION: u8 = 1;

/// Collects records for one partition; reusable after `finish`.
#[derive(Debug)]
pub struct ChunkBuilder {
    buffer: Vec<u8>,
    count: u32,
    max_timestamp_ms: i64,
}

/// A finished chunk, checksummed, not yet at an offset. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EncodedChunk {
    bytes: Slice,
    count: u32,
    max_timestamp_ms: i64,
}

/// A chunk at its place in a partition: an owned, cheap handle. Positions are byte offsets inside
/// `bytes()`; the first record is at position 0.
#[derive(Debug, Clone)]
pub struct Chunk {
    bytes: Slice,
    base_offset: u64,
    count: u32,
    max_timestamp_ms: i64,
}

impl Default for ChunkBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ChunkBuilder {
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffer: vec![0; CHUNK_HEADER_LEN],
            count: 0,
            max_timestamp_ms: i64::MIN,
        }
    }

    /// Appends a message. The caller has checked its size and headers.
    pub fn push(&mut self, message: &MessageRef<'_>) {
        message.write_record(&mut self.buffer);
        self.count = self.count.saturating_add(1);
        self.max_timestamp_ms = self.max_timestamp_ms.max(message.timestamp_ms);
    }

    /// Appends one record as it came out of another chunk or `MessageRef::write_record`.
    pub fn push_record(&mut self, record: &[u8]) {
        debug_assert!(matches!(MessageRef::read_record(record), Ok((_, rest)) if rest.is_empty()));
        if let Some(timestamp) = record
            .get(RECORD_HEADER_LEN - 8..RECORD_HEADER_LEN)
            .and_then(|b| b.try_into().ok())
        {
            self.max_timestamp_ms = self.max_timestamp_ms.max(i64::from_le_bytes(timestamp));
        }
        self.buffer.extend_from_slice(record);
        self.count = self.count.saturating_add(1);
    }

    /// Records so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Bytes of the records so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buffer.len().saturating_sub(CHUNK_HEADER_LEN)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Seals the chunk and empties the builder, keeping its memory.
    pub fn finish(&mut self) -> EncodedChunk {
        let body_len = self.bytes() as u32;
        let count = std::mem::take(&mut self.count);
        let max_timestamp_ms = std::mem::replace(&mut self.max_timestamp_ms, i64::MIN);
        let mut header = [0u8; CHUNK_HEADER_LEN];
        put(&mut header, 4, &[VERSION]);
        put(&mut header, 8, &count.to_le_bytes());
        put(&mut header, 12, &body_len.to_le_bytes());
        put(&mut header, 16, &max_timestamp_ms.to_le_bytes());
        put(&mut self.buffer, 0, &header);
        let crc = crc32c::crc32c(self.buffer.get(4..).unwrap_or_default());
        put(&mut self.buffer, 0, &crc.to_le_bytes());
        let bytes = Slice::new(&self.buffer);
        self.buffer.truncate(CHUNK_HEADER_LEN);
        EncodedChunk {
            bytes,
            count,
            max_timestamp_ms,
        }
    }
}

fn put(target: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = target.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

impl EncodedChunk {
    /// Records.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Bytes with the header.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    pub(super) fn slice(&self) -> &Slice {
        &self.bytes
    }

    pub(super) fn check_len(&self) -> Result<(), Error> {
        if self.bytes.len() > CHUNK_BYTES_MAX {
            return Err(Error::Limit {
                what: "a chunk",
                limit: CHUNK_BYTES_MAX as u64,
                advice: "finish chunks earlier",
            });
        }
        Ok(())
    }
}

impl Chunk {
    /// Checks version, lengths and CRC.
    pub(super) fn open(bytes: Slice, base_offset: u64) -> Result<Self, &'static str> {
        let (crc, rest) = bytes
            .split_first_chunk::<4>()
            .ok_or("a chunk is shorter than its header")?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*crc) {
            return Err("the checksum of a chunk does not match");
        }
        let (head, body) = rest
            .split_first_chunk::<{ CHUNK_HEADER_LEN - 4 }>()
            .ok_or("a chunk is shorter than its header")?;
        let [
            version,
            flags,
            _,
            _,
            c0,
            c1,
            c2,
            c3,
            l0,
            l1,
            l2,
            l3,
            timestamp @ ..,
        ] = *head;
        if version != VERSION || flags != 0 {
            return Err("a chunk has a newer version");
        }
        let count = u32::from_le_bytes([c0, c1, c2, c3]);
        if u32::from_le_bytes([l0, l1, l2, l3]) as usize != body.len() || count == 0 {
            return Err("the lengths of a chunk do not add up");
        }
        Ok(Self {
            base_offset,
            count,
            max_timestamp_ms: i64::from_le_bytes(timestamp),
            bytes,
        })
    }

    #[must_use]
    pub fn base_offset(&self) -> u64 {
        self.base_offset
    }

    /// Records, at least one.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The offset after the last record: where the next chunk begins.
    #[must_use]
    pub fn end_offset(&self) -> u64 {
        self.base_offset + u64::from(self.count)
    }

    /// The newest timestamp of its records, Unix ms.
    #[must_use]
    pub fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// The records.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(CHUNK_HEADER_LEN..).unwrap_or_default()
    }

    /// The message whose record begins at position `pos`, and the position of the next.
    #[must_use]
    pub fn message_at(&self, pos: usize) -> Option<(MessageRef<'_>, usize)> {
        let rest = self.bytes().get(pos..)?;
        let (message, tail) = MessageRef::read_record(rest).ok()?;
        Some((message, pos + rest.len() - tail.len()))
    }

    /// The bytes of the record at position `pos`.
    #[must_use]
    pub fn record_at(&self, pos: usize) -> Option<&[u8]> {
        let (_, next) = self.message_at(pos)?;
        self.bytes().get(pos..next)
    }

    /// Offset, position and message of each record.
    pub fn iter(&self) -> impl Iterator<Item = (u64, usize, MessageRef<'_>)> {
        self.iter_from(self.base_offset)
    }

    /// Like `iter`, from `offset` on; nothing when it is past the chunk.
    pub fn iter_from(&self, offset: u64) -> impl Iterator<Item = (u64, usize, MessageRef<'_>)> {
        let mut pos = 0;
        let mut next_offset = self.base_offset;
        std::iter::from_fn(move || {
            let (message, next) = self.message_at(pos)?;
            let item = (next_offset, pos, message);
            pos = next;
            next_offset += 1;
            Some(item)
        })
        .skip_while(move |(at, _, _)| *at < offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &[u8], timestamp_ms: i64) -> MessageRef<'_> {
        MessageRef {
            payload: Some(payload),
            timestamp_ms,
            ..MessageRef::default()
        }
    }

    #[test]
    fn a_chunk_gives_back_its_records_with_offsets_and_positions() {
        let mut builder = ChunkBuilder::new();
        builder.push(&message(b"a", 5));
        let mut record = Vec::new();
        message(b"bb", 9).write_record(&mut record);
        builder.push_record(&record);
        assert_eq!(builder.len(), 2);
        let encoded = builder.finish();
        assert!(builder.is_empty());
        let chunk = Chunk::open(encoded.slice().clone(), 40).unwrap();
        assert_eq!(
            (chunk.count(), chunk.end_offset(), chunk.max_timestamp_ms()),
            (2, 42, 9)
        );
        let seen: Vec<_> = chunk
            .iter()
            .map(|(o, p, m)| (o, p, m.payload.unwrap().to_vec()))
            .collect();
        assert_eq!(seen, [(40, 0, b"a".to_vec()), (41, 29, b"bb".to_vec())]);
        assert_eq!(chunk.iter_from(41).count(), 1);
        assert_eq!(chunk.record_at(29).unwrap(), record);
    }

    #[test]
    fn any_flipped_bit_of_a_chunk_is_detected() {
        let mut builder = ChunkBuilder::new();
        builder.push(&message(b"payload", 1));
        let good = builder.finish().slice().to_vec();
        assert!(Chunk::open(Slice::new(&good), 0).is_ok());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Chunk::open(Slice::new(&bad), 0).is_err(), "bit {bit}");
        }
    }
}
