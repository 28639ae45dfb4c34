//! A message, borrowed from wherever it lies, and the record: the one encoding in which messages
//! stand in the embedded log, in settlements and (headers only) in frames. Pure: no clock, no I/O.
//!
//! Record, little-endian:
//! `size u32 | key_len u32 | payload_len u32 | headers_len u32 | header_count u16 | flags u16 (0) |
//! timestamp i64 (Unix ms) | key | payload | header block`. `size` covers the whole record; a length
//! of `0xFFFF_FFFF` means absent. Header block: per header `name_len u16 | value_len u32 | name | value`,
//! where a `value_len` of `0xFFFF_FFFF` is a null value (Kafka has them).

/// Bytes before the key of a record.
pub const RECORD_HEADER_LEN: usize = 28;
/// The length that means "absent".
pub const ABSENT: u32 = u32::MAX;

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("record is cut short")]
    Truncated,
    #[error("record lengths do not add up")]
    Lengths,
    #[error("header name is not UTF-8")]
    HeaderName,
    #[error("record flags {0:#x} are from a newer version")]
    Flags(u16),
}

/// Headers in order, as their encoded block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: u16,
    block: &'a [u8],
}

/// One message, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageRef<'a> {
    pub key: Option<&'a [u8]>,
    /// Absent is a tombstone, which is not the same as empty.
    pub payload: Option<&'a [u8]>,
    pub headers: Headers<'a>,
    /// Unix milliseconds.
    pub timestamp_ms: i64,
}

impl<'a> Headers<'a> {
    /// Trusts a block that was checked before (it came out of [`HeadersBuf`] or passed [`Headers::check`]).
    #[must_use]
    pub const fn from_parts(count: u16, block: &'a [u8]) -> Self {
        Self { count, block }
    }

    /// Checks that `block` holds exactly `count` well-formed headers.
    pub fn check(count: u16, block: &'a [u8]) -> Result<Self, Error> {
        let headers = Self { count, block };
        let mut seen: u32 = 0;
        let mut rest = block;
        while !rest.is_empty() {
            let (name, _, tail) = split_header(rest).ok_or(Error::Truncated)?;
            std::str::from_utf8(name).map_err(|_| Error::HeaderName)?;
            rest = tail;
            seen += 1;
        }
        if seen == u32::from(count) {
            Ok(headers)
        } else {
            Err(Error::Lengths)
        }
    }

    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    #[must_use]
    pub const fn block(&self) -> &'a [u8] {
        self.block
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Name and value of each header in order; a null value is `None`.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.block;
        std::iter::from_fn(move || {
            let (name, value, tail) = split_header(rest)?;
            rest = tail;
            Some((std::str::from_utf8(name).unwrap_or_default(), value))
        })
    }

    /// All but the last `count` headers, and those; `None` when there are fewer.
    #[must_use]
    pub fn split_last(&self, count: u16) -> Option<(Self, Self)> {
        let kept = self.count.checked_sub(count)?;
        let mut rest = self.block;
        for _ in 0..kept {
            rest = split_header(rest)?.2;
        }
        let (first, _) = self.block.split_at_checked(self.block.len() - rest.len())?;
        let split = |count, block| Self { count, block };
        Some((split(kept, first), split(count, rest)))
    }

    /// The last value under `name`, as Kafka clients read it.
    #[must_use]
    pub fn last(&self, name: &str) -> Option<&'a [u8]> {
        let mut found = None;
        let mut rest = self.block;
        while let Some((other, value, tail)) = split_header(rest) {
            if other == name.as_bytes() {
                found = value;
            }
            rest = tail;
        }
        found
    }
}

/// Name, value, rest.
type Split<'a> = (&'a [u8], Option<&'a [u8]>, &'a [u8]);

fn split_header(rest: &[u8]) -> Option<Split<'_>> {
    let (name_len, rest) = rest.split_first_chunk::<2>()?;
    let (value_len, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*name_len)))?;
    match u32::from_le_bytes(*value_len) {
        ABSENT => Some((name, None, rest)),
        n => rest
            .split_at_checked(n as usize)
            .map(|(value, rest)| (name, Some(value), rest)),
    }
}

/// Headers of a message that is accepted. A dead letter, a deferred retry and a redrive add theirs, and the
/// format ends at 65,535.
pub const HEADERS_MAX: u16 = u16::MAX - 64;

/// Headers being built.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadersBuf {
    count: u16,
    block: Vec<u8>,
}

impl HeadersBuf {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn clear(&mut self) {
        self.count = 0;
        self.block.clear();
    }

    /// Appends a header. Returns false (and appends nothing) when the name is over 65,535 bytes, the
    /// value over 4 GiB - 2, or there are 65,535 headers already.
    #[must_use]
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) -> bool {
        let (Ok(name_len), Some(count)) = (u16::try_from(name.len()), self.count.checked_add(1))
        else {
            return false;
        };
        let value_len = match value.map(|v| u32::try_from(v.len())) {
            None => ABSENT,
            Some(Ok(n)) if n != ABSENT => n,
            Some(_) => return false,
        };
        self.count = count;
        self.block.extend_from_slice(&name_len.to_le_bytes());
        self.block.extend_from_slice(&value_len.to_le_bytes());
        self.block.extend_from_slice(name.as_bytes());
        self.block.extend_from_slice(value.unwrap_or_default());
        true
    }

    #[must_use]
    pub fn as_headers(&self) -> Headers<'_> {
        Headers {
            count: self.count,
            block: &self.block,
        }
    }
}

impl<'a> MessageRef<'a> {
    /// Bytes of the record this message makes.
    #[must_use]
    pub fn record_len(&self) -> usize {
        RECORD_HEADER_LEN
            + self.key.map_or(0, <[u8]>::len)
            + self.payload.map_or(0, <[u8]>::len)
            + self.headers.block.len()
    }

    /// Appends the record. The caller has checked the size against the topic's limit (far below 4 GiB).
    pub fn write_record(&self, out: &mut Vec<u8>) {
        let len = |part: Option<&[u8]>| part.map_or(ABSENT, |p| p.len() as u32);
        out.reserve(self.record_len());
        out.extend_from_slice(&(self.record_len() as u32).to_le_bytes());
        out.extend_from_slice(&len(self.key).to_le_bytes());
        out.extend_from_slice(&len(self.payload).to_le_bytes());
        out.extend_from_slice(&(self.headers.block.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.headers.count.to_le_bytes());
        out.extend_from_slice(&0u16.to_le_bytes());
        out.extend_from_slice(&self.timestamp_ms.to_le_bytes());
        out.extend_from_slice(self.key.unwrap_or_default());
        out.extend_from_slice(self.payload.unwrap_or_default());
        out.extend_from_slice(self.headers.block);
    }

    /// Reads the record at the head of `bytes`; returns it and the rest. Lengths are checked, header
    /// blocks are not walked (they were checked when the message was accepted).
    pub fn read_record(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Error> {
        let (head, _) = bytes
            .split_first_chunk::<RECORD_HEADER_LEN>()
            .ok_or(Error::Truncated)?;
        let word = |at: usize| {
            head.get(at..at + 4)
                .and_then(|b| b.try_into().ok())
                .map_or(0, u32::from_le_bytes)
        };
        let half = |at: usize| {
            head.get(at..at + 2)
                .and_then(|b| b.try_into().ok())
                .map_or(0, u16::from_le_bytes)
        };
        let timestamp_ms = head.last_chunk::<8>().map_or(0, |b| i64::from_le_bytes(*b));
        let (size, key_len, payload_len, headers_len) = (word(0), word(4), word(8), word(12));
        if half(18) != 0 {
            return Err(Error::Flags(half(18)));
        }
        let (record, rest) = bytes
            .split_at_checked(size as usize)
            .ok_or(Error::Truncated)?;
        let body = record.get(RECORD_HEADER_LEN..).ok_or(Error::Lengths)?;
        let (key, body) = split_optional(body, key_len)?;
        let (payload, body) = split_optional(body, payload_len)?;
        if body.len() != headers_len as usize {
            return Err(Error::Lengths);
        }
        let headers = Headers {
            count: half(16),
            block: body,
        };
        Ok((
            Self {
                key,
                payload,
                headers,
                timestamp_ms,
            },
            rest,
        ))
    }
}

fn split_optional(body: &[u8], len: u32) -> Result<(Option<&[u8]>, &[u8]), Error> {
    if len == ABSENT {
        return Ok((None, body));
    }
    body.split_at_checked(len as usize)
        .map(|(part, rest)| (Some(part), rest))
        .ok_or(Error::Lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_reads_back_as_it_was_written(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64)),
            payload in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..256)),
            headers in proptest::collection::vec((".{0,8}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..16))), 0..6),
            timestamp_ms in any::<i64>(),
        ) {
            let mut buf = HeadersBuf::new();
            for (name, value) in &headers {
                prop_assert!(buf.push(name, value.as_deref()));
            }
            let message = MessageRef { key: key.as_deref(), payload: payload.as_deref(), headers: buf.as_headers(), timestamp_ms };
            let mut out = Vec::new();
            message.write_record(&mut out);
            prop_assert_eq!(out.len(), message.record_len());
            let (back, rest) = MessageRef::read_record(&out).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(back, message);
            let names: Vec<_> = back.headers.iter().map(|(n, v)| (n.to_owned(), v.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(names, headers);
            prop_assert!(Headers::check(back.headers.count(), back.headers.block()).is_ok());
        }

        #[test]
        fn a_cut_or_garbled_record_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            if let Ok((message, rest)) = MessageRef::read_record(&bytes) {
                prop_assert_eq!(message.record_len() + rest.len(), bytes.len());
            }
        }
    }
}
