//! The frame of wit/FRAME.md: reads a batch in place, writes outcomes. Pure; calls nobody.

use crate::failure::Kind;
use crate::{Failure, Headers, Message, Output, Outputs};
use std::time::Duration;

pub(crate) const VERSION: u16 = 1;
const KIND_BATCH: u16 = 0;
const KIND_RESERVE: u16 = 1;
const ABSENT_U16: u16 = u16::MAX;
const ABSENT_U32: u32 = u32::MAX;
const ABSENT_U64: u64 = u64::MAX;
const STATUS_OUTPUTS: u8 = 0;
const STATUS_RETRYABLE: u8 = 1;
const STATUS_REJECTED: u8 = 2;

/// Why a frame cannot be read. The host made it, so the guest can only stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Error {
    Version(u16),
    Kind(u16),
    /// Lengths that do not add up, or a topic that is not in the list.
    Lengths,
    /// A topic that is not UTF-8.
    Text,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(version) => {
                write!(
                    f,
                    "the host sent frame version {version}, this is {VERSION}"
                )
            }
            Self::Kind(kind) => write!(f, "the host sent a frame of unknown kind {kind}"),
            Self::Lengths => f.write_str("the host sent a frame whose lengths do not add up"),
            Self::Text => f.write_str("the host sent a topic that is not UTF-8"),
        }
    }
}

/// What the host sent.
pub(crate) enum Frame<'a> {
    Batch(Batch<'a>),
    /// Larger frames are coming. Memory grows when they do, so the announced size is not kept.
    Reserve,
}

/// The messages of a batch, read one by one.
pub(crate) struct Batch<'a> {
    count: u32,
    topics: Topics<'a>,
    rest: &'a [u8],
}

/// The list of topics, with the one used last at hand: nearly all batches have one topic.
struct Topics<'a> {
    /// `len u16 | UTF-8 bytes` each, checked.
    list: &'a [u8],
    last: (u16, &'a str),
}

impl<'a> Frame<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields(bytes);
        let version = fields.u16()?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let kind = fields.u16()?;
        let number = fields.u32()?;
        match kind {
            KIND_BATCH => Batch::read(number, fields.0).map(Self::Batch),
            KIND_RESERVE => Ok(Self::Reserve),
            other => Err(Error::Kind(other)),
        }
    }
}

impl<'a> Batch<'a> {
    fn read(count: u32, bytes: &'a [u8]) -> Result<Self, Error> {
        let mut fields = Fields(bytes);
        let topic_count = fields.u16()?;
        let list = fields.0;
        let mut first = None;
        for _ in 0..topic_count {
            let topic = fields.text()?;
            first = first.or(Some(topic));
        }
        let list_len = list.len() - fields.0.len();
        let list = list.get(..list_len).ok_or(Error::Lengths)?;
        // Without topics no index may be found, so the one at hand is one that cannot be asked for.
        let last = first.map_or((ABSENT_U16, ""), |topic| (0, topic));
        Ok(Self {
            count,
            topics: Topics { list, last },
            rest: fields.0,
        })
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The next message. Call it [`Batch::count`] times, then [`Batch::end`].
    pub(crate) fn next(&mut self) -> Result<Message<'a>, Error> {
        let (size, _) = self.rest.split_first_chunk().ok_or(Error::Lengths)?;
        let size = u32::from_le_bytes(*size) as usize;
        let (message, rest) = self.rest.split_at_checked(size).ok_or(Error::Lengths)?;
        self.rest = rest;
        read_message(message, &mut self.topics)
    }

    pub(crate) fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Error::Lengths)
        }
    }
}

fn read_message<'a>(message: &'a [u8], topics: &mut Topics<'a>) -> Result<Message<'a>, Error> {
    let mut head = Fields(message);
    let _size = head.u32()?;
    let topic = head.u16()?;
    let header_count = head.u16()?;
    let offset = u64::from_le_bytes(head.array()?);
    let timestamp_ms = i64::from_le_bytes(head.array()?);
    let partition = head.u32()?;
    let attempt = head.u32()?;
    let key_len = head.u32()?;
    let payload_len = head.u32()?;
    let headers_len = head.u32()?;
    let correlation_id_len = head.u16()?;
    let idempotency_key_len = head.u16()?;
    let mut body = head;
    let message = Message {
        topic: topics.get(topic)?,
        partition,
        attempt,
        offset,
        timestamp_ms,
        key: body.optional(key_len)?,
        payload: body.optional(payload_len)?,
        headers: Headers::check(header_count, body.bytes(headers_len as usize)?)
            .ok_or(Error::Lengths)?,
        correlation_id: body.bytes(usize::from(correlation_id_len))?,
        idempotency_key: match idempotency_key_len {
            ABSENT_U16 => None,
            len => Some(body.bytes(usize::from(len))?),
        },
    };
    if body.0.is_empty() {
        Ok(message)
    } else {
        Err(Error::Lengths)
    }
}

impl<'a> Topics<'a> {
    fn get(&mut self, index: u16) -> Result<&'a str, Error> {
        if index != self.last.0 {
            self.last = (index, self.find(index)?);
        }
        Ok(self.last.1)
    }

    fn find(&self, index: u16) -> Result<&'a str, Error> {
        let mut fields = Fields(self.list);
        for _ in 0..index {
            let len = fields.u16()?;
            fields.bytes(usize::from(len))?;
        }
        fields.text()
    }
}

/// Bytes not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Error::Lengths)?;
        self.0 = rest;
        Ok(*array)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(Error::Lengths)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// `len u16 | UTF-8 bytes`.
    fn text(&mut self) -> Result<&'a str, Error> {
        let len = self.u16()?;
        std::str::from_utf8(self.bytes(usize::from(len))?).map_err(|_| Error::Text)
    }

    fn optional(&mut self, len: u32) -> Result<Option<&'a [u8]>, Error> {
        match len {
            ABSENT_U32 => Ok(None),
            len => self.bytes(len as usize).map(Some),
        }
    }
}

/// Starts the outcome of `count` messages.
pub(crate) fn write_outcome_head(out: &mut Vec<u8>, count: u32) {
    write_head(out, KIND_BATCH, count);
}

/// Answers a reserve.
pub(crate) fn write_reserve_answer(out: &mut Vec<u8>) {
    write_head(out, KIND_RESERVE, 0);
}

fn write_head(out: &mut Vec<u8>, kind: u16, number: u32) {
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&number.to_le_bytes());
}

/// Appends what became of one message. Outputs that do not fit the frame turn into a rejection: the
/// message is kept as a dead letter that says so.
pub(crate) fn write_result(out: &mut Vec<u8>, result: &Result<Outputs, Failure>) {
    match result {
        Ok(outputs) => match outputs.iter().find(|output| !output.fits()) {
            None => write_outputs(out, outputs),
            Some(output) => write_failure(out, &does_not_fit(output)),
        },
        Err(failure) => write_failure(out, failure),
    }
}

fn does_not_fit(output: &Output) -> Failure {
    let name: String = output.name().chars().take(64).collect();
    Failure::rejected(format!(
        "output `{name}` does not fit a frame: at most 65,535 bytes of name, 65,535 headers, \
         65,535 bytes of header name, 4 GiB in all"
    ))
}

fn write_outputs(out: &mut Vec<u8>, outputs: &Outputs) {
    out.extend_from_slice(&[STATUS_OUTPUTS, 0, 0, 0]);
    let body_len_at = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(outputs.len() as u32).to_le_bytes());
    let body_at = out.len();
    for output in outputs.iter() {
        output.write(out);
    }
    // A body beyond 4 GiB does not exist on a 32-bit machine.
    let body_len = (out.len() - body_at) as u32;
    if let Some(slot) = out.get_mut(body_len_at..body_at - 4) {
        slot.copy_from_slice(&body_len.to_le_bytes());
    }
}

fn write_failure(out: &mut Vec<u8>, failure: &Failure) {
    let (status, after) = match failure.kind() {
        Kind::Retryable { after } => (STATUS_RETRYABLE, after),
        Kind::Rejected => (STATUS_REJECTED, None),
    };
    let reason = failure.reason().as_bytes();
    out.extend_from_slice(&[status, 0, 0, 0]);
    out.extend_from_slice(&((8 + reason.len()) as u32).to_le_bytes());
    out.extend_from_slice(&0u32.to_le_bytes());
    out.extend_from_slice(&after.map_or(ABSENT_U64, milliseconds).to_le_bytes());
    out.extend_from_slice(reason);
}

/// Rounded up, and never the value that means "not given".
fn milliseconds(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos().div_ceil(1_000_000))
        .map_or(ABSENT_U64 - 1, |ms| ms.min(ABSENT_U64 - 1))
}
