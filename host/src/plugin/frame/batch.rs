//! The batch half of the frame (wit/FRAME.md): a batch is written straight into one reused buffer, and
//! read back where a guest wants records. The outcome half is in `outcomes.rs`.

use crate::message::{ABSENT, Headers, MessageRef};

/// The frame version this host writes, and the newest it accepts.
pub const FRAME_VERSION: u16 = 1;
/// A frame above this is announced with a reserve frame first.
pub const RESERVE_ABOVE_BYTES: usize = 900 * 1024;

/// Bytes of a frame's head.
pub(super) const HEAD_LEN: usize = 8;
pub(super) const KIND_BATCH: u16 = 0;
pub(super) const KIND_RESERVE: u16 = 1;
/// Bytes of one message before its key.
const MESSAGE_HEADER_LEN: usize = 48;
const ABSENT_KEY: u16 = u16::MAX;

/// One message for the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Call<'a> {
    /// Index into the topics that the batch was made with.
    pub topic: u16,
    pub partition: u32,
    pub offset: u64,
    pub message: MessageRef<'a>,
    /// From 1.
    pub attempt: u32,
    /// At most 65,535 bytes.
    pub correlation_id: &'a str,
    /// At most 65,534 bytes.
    pub idempotency_key: Option<&'a str>,
}

/// Messages for one call, as the frame that the guest will read. Reuse it: `clear` keeps the buffer.
#[derive(Debug, Clone)]
pub struct Batch {
    frame: Vec<u8>,
    /// Length of head and topics, which `clear` keeps.
    prefix: usize,
    count: u32,
}

impl Batch {
    /// `topics` are those of the pipeline's source; a name is at most 65,535 bytes (brokers allow 249).
    #[must_use]
    pub fn new(topics: &[&str]) -> Self {
        let topics = topics.get(..usize::from(u16::MAX)).unwrap_or(topics);
        let mut frame = head(KIND_BATCH, 0).to_vec();
        frame.extend_from_slice(&(topics.len() as u16).to_le_bytes());
        for topic in topics {
            let name = topic
                .get(..topic.floor_char_boundary(usize::from(u16::MAX)))
                .unwrap_or_default();
            frame.extend_from_slice(&(name.len() as u16).to_le_bytes());
            frame.extend_from_slice(name.as_bytes());
        }
        Self {
            prefix: frame.len(),
            frame,
            count: 0,
        }
    }

    /// Forgets the messages and keeps topics and memory.
    pub fn clear(&mut self) {
        self.frame.truncate(self.prefix);
        self.set_count(0);
    }

    /// Appends a message. Returns false and appends nothing when the correlation ID or the idempotency
    /// key is too long, or the message does not fit 4 GiB.
    #[must_use]
    pub fn push(&mut self, call: &Call<'_>) -> bool {
        let MessageRef {
            key,
            payload,
            headers,
            timestamp_ms,
        } = call.message;
        let part = |bytes: Option<&[u8]>| bytes.unwrap_or_default().len();
        let idempotency_key = call.idempotency_key.unwrap_or_default();
        let size = MESSAGE_HEADER_LEN
            + part(key)
            + part(payload)
            + headers.block().len()
            + call.correlation_id.len()
            + idempotency_key.len();
        if call.correlation_id.len() > usize::from(u16::MAX)
            || idempotency_key.len() >= usize::from(ABSENT_KEY)
            || size >= ABSENT as usize
        {
            return false;
        }
        let length = |bytes: Option<&[u8]>| bytes.map_or(ABSENT, |b| b.len() as u32);
        let idempotency_len = call.idempotency_key.map_or(ABSENT_KEY, |k| k.len() as u16);
        let mut fixed = Fixed::<MESSAGE_HEADER_LEN>::new();
        fixed
            .u32(size as u32)
            .u16(call.topic)
            .u16(headers.count())
            .u64(call.offset)
            .u64(timestamp_ms as u64)
            .u32(call.partition)
            .u32(call.attempt)
            .u32(length(key))
            .u32(length(payload))
            .u32(headers.block().len() as u32)
            .u16(call.correlation_id.len() as u16)
            .u16(idempotency_len);
        self.frame.reserve(size);
        self.frame.extend_from_slice(&fixed.bytes);
        self.frame.extend_from_slice(key.unwrap_or_default());
        self.frame.extend_from_slice(payload.unwrap_or_default());
        self.frame.extend_from_slice(headers.block());
        self.frame.extend_from_slice(call.correlation_id.as_bytes());
        self.frame.extend_from_slice(idempotency_key.as_bytes());
        self.set_count(self.count.saturating_add(1));
        true
    }

    /// Messages in the batch.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the frame so far.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.frame.len()
    }

    /// The frame as the guest gets it.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    fn set_count(&mut self, count: u32) {
        self.count = count;
        if let Some(slot) = self.frame.get_mut(4..HEAD_LEN) {
            slot.copy_from_slice(&count.to_le_bytes());
        }
    }
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::plugin) enum Error {
    #[error("frame is cut short")]
    Truncated,
    #[error("frame version {0} is unknown")]
    Version(u16),
    #[error("frame kind {0} is unknown")]
    Kind(u16),
    #[error("lengths do not add up")]
    Lengths,
    #[error("text is not UTF-8")]
    Text,
    #[error("topic index {0} is out of range")]
    Topic(u16),
    #[error("bytes are left over")]
    LeftOver,
}

/// The messages of a batch frame, each with its topic's name; everything is checked.
pub(in crate::plugin) fn read_batch(frame: &[u8]) -> Result<Vec<(&str, Call<'_>)>, Error> {
    let (head, rest) = frame
        .split_first_chunk::<HEAD_LEN>()
        .ok_or(Error::Truncated)?;
    let (version, kind, count) = read_head(head);
    if version != FRAME_VERSION {
        return Err(Error::Version(version));
    }
    if kind != KIND_BATCH {
        return Err(Error::Kind(kind));
    }
    let mut rest = Reader(rest);
    let topic_count = rest.u16()?;
    let mut topics = Vec::new();
    for _ in 0..topic_count {
        let len = rest.u16()?;
        topics.push(text(rest.take(usize::from(len))?)?);
    }
    let mut calls = Vec::new();
    for _ in 0..count {
        let call = read_message(&mut rest)?;
        let topic = topics
            .get(usize::from(call.topic))
            .ok_or(Error::Topic(call.topic))?;
        calls.push((*topic, call));
    }
    if rest.0.is_empty() {
        Ok(calls)
    } else {
        Err(Error::LeftOver)
    }
}

fn read_message<'a>(rest: &mut Reader<'a>) -> Result<Call<'a>, Error> {
    let size = Reader(rest.0).u32()? as usize;
    let mut message = Reader(rest.take(size)?);
    message.u32()?;
    let topic = message.u16()?;
    let header_count = message.u16()?;
    let offset = message.u64()?;
    let timestamp_ms = message.u64()? as i64;
    let partition = message.u32()?;
    let attempt = message.u32()?;
    let (key_len, payload_len, block_len) = (message.u32()?, message.u32()?, message.u32()?);
    let (correlation_len, idempotency_len) = (message.u16()?, message.u16()?);
    let key = message.optional(key_len)?;
    let payload = message.optional(payload_len)?;
    let block = message.take(block_len as usize)?;
    let headers = Headers::check(header_count, block).map_err(|error| match error {
        crate::message::Error::HeaderName => Error::Text,
        _ => Error::Lengths,
    })?;
    let correlation_id = text(message.take(usize::from(correlation_len))?)?;
    let idempotency_key = match idempotency_len {
        ABSENT_KEY => None,
        len => Some(text(message.take(usize::from(len))?)?),
    };
    if !message.0.is_empty() {
        return Err(Error::Lengths);
    }
    let message = MessageRef {
        key,
        payload,
        headers,
        timestamp_ms,
    };
    Ok(Call {
        topic,
        partition,
        offset,
        message,
        attempt,
        correlation_id,
        idempotency_key,
    })
}

/// The frame that announces one of `bytes`.
pub(in crate::plugin) fn reserve(bytes: usize) -> [u8; HEAD_LEN] {
    head(KIND_RESERVE, u32::try_from(bytes).unwrap_or(u32::MAX))
}

pub(super) fn head(kind: u16, count: u32) -> [u8; HEAD_LEN] {
    let mut fixed = Fixed::<HEAD_LEN>::new();
    fixed.u16(FRAME_VERSION).u16(kind).u32(count);
    fixed.bytes
}

/// Version, kind and count.
pub(super) const fn read_head(head: &[u8; HEAD_LEN]) -> (u16, u16, u32) {
    let [a, b, c, d, e, f, g, h] = *head;
    (
        u16::from_le_bytes([a, b]),
        u16::from_le_bytes([c, d]),
        u32::from_le_bytes([e, f, g, h]),
    )
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| Error::Text)
}

/// A fixed block being filled from the front.
pub(super) struct Fixed<const N: usize> {
    pub(super) bytes: [u8; N],
    at: usize,
}

impl<const N: usize> Fixed<N> {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; N],
            at: 0,
        }
    }

    #[inline]
    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    #[inline]
    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    #[inline]
    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.put(&value.to_le_bytes())
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.put(&[value])
    }

    #[inline]
    fn put(&mut self, value: &[u8]) -> &mut Self {
        let end = self.at + value.len();
        if let Some(slot) = self.bytes.get_mut(self.at..end) {
            slot.copy_from_slice(value);
        }
        self.at = end;
        self
    }
}

/// Reads from the front of a slice.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (part, rest) = self.0.split_at_checked(len).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(part)
    }

    /// `ABSENT` is `None`.
    fn optional(&mut self, len: u32) -> Result<Option<&'a [u8]>, Error> {
        if len == ABSENT {
            return Ok(None);
        }
        self.take(len as usize).map(Some)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (part, rest) = self.0.split_first_chunk::<N>().ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(*part)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HeadersBuf;
    use proptest::prelude::*;

    #[test]
    fn the_layout_is_the_one_of_frame_md() {
        let mut headers = HeadersBuf::new();
        assert!(headers.push("h", Some(b"v")));
        let mut batch = Batch::new(&["ab"]);
        assert!(batch.push(&Call {
            topic: 0,
            partition: 3,
            offset: 4,
            message: MessageRef {
                key: Some(b"k"),
                payload: None,
                headers: headers.as_headers(),
                timestamp_ms: -1,
            },
            attempt: 2,
            correlation_id: "c",
            idempotency_key: Some("i"),
        }));
        let mut expected = vec![1, 0, 0, 0, 1, 0, 0, 0]; // head: version 1, kind 0, one message
        expected.extend([1, 0, 2, 0, b'a', b'b']); // one topic of two bytes
        expected.extend([59, 0, 0, 0, 0, 0, 1, 0]); // size, topic, one header
        expected.extend([4, 0, 0, 0, 0, 0, 0, 0]); // offset
        expected.extend([0xFF; 8]); // timestamp
        expected.extend([3, 0, 0, 0, 2, 0, 0, 0]); // partition, attempt
        expected.extend([1, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 8, 0, 0, 0, 1, 0, 1, 0]);
        expected.push(b'k');
        expected.extend([1, 0, 1, 0, 0, 0, b'h', b'v']);
        expected.extend(*b"ci");
        assert_eq!(batch.frame(), expected);
    }

    #[test]
    fn a_correlation_id_over_64_kib_is_not_taken() {
        let mut batch = Batch::new(&["t"]);
        let before = batch.frame().to_vec();
        let long = "x".repeat(65_536);
        assert!(!batch.push(&Call {
            correlation_id: &long,
            ..Call::default()
        }));
        assert_eq!(batch.frame(), before);
    }

    #[test]
    fn a_cleared_batch_is_as_new() {
        let mut batch = Batch::new(&["t"]);
        let before = batch.frame().to_vec();
        assert!(batch.push(&Call::default()));
        batch.clear();
        assert_eq!(batch.frame(), before);
        assert!(batch.is_empty());
    }

    proptest! {
        #[test]
        fn a_batch_reads_back_as_it_was_written(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
            payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..256)),
            names in proptest::collection::vec(".{0,8}", 0..5),
            (topic, partition, offset, timestamp_ms, attempt) in (0u16..2, any::<u32>(), any::<u64>(), any::<i64>(), any::<u32>()),
            correlation_id in ".{0,20}",
            idempotency_key in proptest::option::of(".{0,20}"),
            copies in 0usize..4,
        ) {
            let mut headers = HeadersBuf::new();
            for name in &names {
                prop_assert!(headers.push(name, None));
            }
            let message = MessageRef { key: key.as_deref(), payload: payload.as_deref(), headers: headers.as_headers(), timestamp_ms };
            let call = Call { topic, partition, offset, message, attempt, correlation_id: &correlation_id, idempotency_key: idempotency_key.as_deref() };
            let mut batch = Batch::new(&["first", "second"]);
            for _ in 0..copies {
                prop_assert!(batch.push(&call));
            }
            prop_assert_eq!(batch.len(), copies);
            let name = if topic == 0 { "first" } else { "second" };
            prop_assert_eq!(read_batch(batch.frame()).unwrap(), vec![(name, call); copies]);
        }

        #[test]
        fn a_garbled_batch_is_an_error_and_never_a_panic(at in 0usize..120, byte in any::<u8>(), cut in 0usize..120) {
            let mut batch = Batch::new(&["t"]);
            let call = Call { correlation_id: "c", idempotency_key: Some("i"), ..Call::default() };
            prop_assert!(batch.push(&call));
            let mut frame = batch.frame().to_vec();
            if let Some(slot) = frame.get_mut(at) {
                *slot = byte;
            }
            drop(read_batch(&frame));
            frame.truncate(cut);
            if cut < batch.bytes() {
                prop_assert!(read_batch(&frame).is_err());
            }
        }
    }
}
