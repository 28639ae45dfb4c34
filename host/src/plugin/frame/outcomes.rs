//! The outcome half of the frame (wit/FRAME.md): checked in full when it arrives, then read without
//! failing. Limits on single messages become part of the outcome; a frame that is not one is a fault.

use std::time::Duration;

use super::batch::{self, FRAME_VERSION, Fixed, HEAD_LEN, KIND_BATCH, KIND_RESERVE, Reader};
use crate::message::{ABSENT, Headers};
use crate::plugin::fault::{Fault, FaultKind};

const STATUS_OUTPUTS: u8 = 0;
const STATUS_RETRYABLE: u8 = 1;
const STATUS_REJECTED: u8 = 2;
const FIELD_INHERIT: u8 = 0;
const FIELD_NONE: u8 = 1;
const FIELD_VALUE: u8 = 2;
const RESULT_HEADER_LEN: usize = 12;
const OUTPUT_HEADER_LEN: usize = 24;
const ABSENT_AFTER: u64 = u64::MAX;

/// What one message may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) struct OutcomeLimits {
    pub(in crate::plugin) outputs: u32,
    /// Bytes of key, payload and headers of one output.
    pub(in crate::plugin) output_size: u64,
}

/// What the handler said about each message of a batch, in order. Owns the bytes.
#[derive(Debug, Clone)]
pub struct Outcomes {
    frame: Vec<u8>,
    entries: Vec<Entry>,
}

/// What the handler said about one message, or which limit it broke.
#[derive(Debug, Clone)]
pub enum Outcome<'a> {
    /// Success; no outputs is a success with nothing to say.
    Outputs(OutputIter<'a>),
    Retryable {
        reason: &'a str,
        /// Wait at least this long; `None` = the pipeline's backoff.
        after: Option<Duration>,
    },
    Rejected {
        reason: &'a str,
    },
    /// More or bigger outputs than allowed: only this message is at fault, the instance lives on.
    OverLimit(Fault),
}

/// One output of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputRef<'a> {
    /// An entry of `outputs:`; not checked here.
    pub name: &'a str,
    pub key: Field<'a>,
    pub payload: Field<'a>,
    pub headers: Headers<'a>,
}

/// An output's key or payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// The input's.
    Inherit,
    /// None at all; a payload of none is a tombstone.
    None,
    Value(&'a [u8]),
}

/// The outputs of one message, in order.
#[derive(Debug, Clone)]
pub struct OutputIter<'a> {
    rest: &'a [u8],
    left: u32,
}

#[derive(Debug, Clone)]
struct Entry {
    status: Status,
    start: usize,
    len: usize,
}

#[derive(Debug, Clone)]
enum Status {
    Outputs(u32),
    Retryable(Option<Duration>),
    Rejected,
    OverLimit(Box<Fault>),
}

impl Outcomes {
    /// Checks the whole frame that a guest returned for `messages` messages.
    pub(in crate::plugin) fn read(
        bytes: Vec<u8>,
        messages: usize,
        limits: OutcomeLimits,
    ) -> Result<Self, Fault> {
        let mut rest = Reader(&bytes);
        let head = rest
            .array::<HEAD_LEN>()
            .map_err(|_| undecodable("shorter than its head"))?;
        let (version, kind, count) = batch::read_head(&head);
        if version != FRAME_VERSION {
            return Err(undecodable(&format!("frame version {version} is unknown")));
        }
        if kind != KIND_BATCH {
            return Err(undecodable(&format!("frame kind {kind} is unknown")));
        }
        if count as usize != messages {
            return Err(undecodable(&format!(
                "{count} results for {messages} messages"
            )));
        }
        let mut entries = Vec::with_capacity(messages);
        for index in 0..messages {
            let entry = read_result(&mut rest, bytes.len(), limits)
                .map_err(|what| undecodable(&format!("result {index}: {what}")))?;
            entries.push(entry);
        }
        if !rest.0.is_empty() {
            return Err(undecodable(&format!(
                "{} bytes are left over after the last result",
                rest.0.len()
            )));
        }
        Ok(Self {
            frame: bytes,
            entries,
        })
    }

    /// One per message of the batch.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In the order of the batch.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Outcome<'_>> {
        self.entries.iter().map(|entry| self.outcome(entry))
    }

    /// What was said about the message at `index` of the batch.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<Outcome<'_>> {
        self.entries.get(index).map(|entry| self.outcome(entry))
    }

    fn outcome(&self, entry: &Entry) -> Outcome<'_> {
        let body = self
            .frame
            .get(entry.start..entry.start + entry.len)
            .unwrap_or_default();
        // `read` checked that the reason is there and is UTF-8.
        let reason = || {
            body.get(8..)
                .and_then(|text| std::str::from_utf8(text).ok())
                .unwrap_or_default()
        };
        match &entry.status {
            Status::Outputs(left) => Outcome::Outputs(OutputIter {
                rest: body,
                left: *left,
            }),
            Status::Retryable(after) => Outcome::Retryable {
                reason: reason(),
                after: *after,
            },
            Status::Rejected => Outcome::Rejected { reason: reason() },
            Status::OverLimit(fault) => Outcome::OverLimit((**fault).clone()),
        }
    }
}

impl OutputIter<'_> {
    /// Outputs that are left.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.left as usize
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.left == 0
    }
}

impl<'a> Iterator for OutputIter<'a> {
    type Item = OutputRef<'a>;

    fn next(&mut self) -> Option<OutputRef<'a>> {
        self.left = self.left.checked_sub(1)?;
        let mut rest = Reader(self.rest);
        let output = read_output(&mut rest).ok()?;
        self.rest = rest.0;
        let name = std::str::from_utf8(output.name).ok()?;
        let headers = Headers::from_parts(output.header_count, output.block);
        Some(OutputRef {
            name,
            key: output.key,
            payload: output.payload,
            headers,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

fn undecodable(what: &str) -> Fault {
    Fault::new(
        FaultKind::Undecodable,
        format!("the handler returned an outcome frame that is not one: {what}"),
    )
}

fn read_result(
    rest: &mut Reader<'_>,
    total: usize,
    limits: OutcomeLimits,
) -> Result<Entry, String> {
    const SHORT: &str = "cut short";
    let [status, _, _, _] = rest.array::<4>().map_err(|_| SHORT)?;
    let len = rest.u32().map_err(|_| SHORT)? as usize;
    let outputs = rest.u32().map_err(|_| SHORT)?;
    let start = total - rest.0.len();
    let body = rest.take(len).map_err(|_| SHORT)?;
    let status = match status {
        STATUS_OUTPUTS => match check_outputs(body, outputs, limits)? {
            None => Status::Outputs(outputs),
            Some(fault) => Status::OverLimit(Box::new(fault)),
        },
        STATUS_RETRYABLE | STATUS_REJECTED => {
            if outputs != 0 {
                return Err("a failure cannot have outputs".to_owned());
            }
            let mut body = Reader(body);
            let after = body.u64().map_err(|_| SHORT)?;
            std::str::from_utf8(body.0).map_err(|_| "the reason is not UTF-8")?;
            if status == STATUS_REJECTED {
                Status::Rejected
            } else {
                Status::Retryable((after != ABSENT_AFTER).then(|| Duration::from_millis(after)))
            }
        }
        other => return Err(format!("status {other} is unknown")),
    };
    Ok(Entry { status, start, len })
}

/// Walks all outputs of one message, unless there are too many. `Some` = a limit is broken.
fn check_outputs(body: &[u8], count: u32, limits: OutcomeLimits) -> Result<Option<Fault>, String> {
    if count > limits.outputs {
        return Ok(Some(Fault::new(
            FaultKind::OutputLimit,
            format!(
                "{count} outputs for one message, limits.outputs allows {}",
                limits.outputs
            ),
        )));
    }
    let mut rest = Reader(body);
    let mut broken = None;
    for index in 0..count {
        let output = read_output(&mut rest).map_err(|what| format!("output {index}: {what}"))?;
        std::str::from_utf8(output.name)
            .map_err(|_| format!("output {index}: the name is not UTF-8"))?;
        Headers::check(output.header_count, output.block)
            .map_err(|error| format!("output {index}: {error}"))?;
        if output.size() > limits.output_size && broken.is_none() {
            broken = Some(Fault::new(
                FaultKind::OutputLimit,
                format!(
                    "output {index} has {} bytes, limits.output_size allows {}",
                    output.size(),
                    limits.output_size
                ),
            ));
        }
    }
    if rest.0.is_empty() {
        Ok(broken)
    } else {
        Err(format!(
            "{} bytes are left over after the last output",
            rest.0.len()
        ))
    }
}

struct RawOutput<'a> {
    name: &'a [u8],
    key: Field<'a>,
    payload: Field<'a>,
    header_count: u16,
    block: &'a [u8],
}

impl RawOutput<'_> {
    fn size(&self) -> u64 {
        (self.key.len() + self.payload.len() + self.block.len()) as u64
    }
}

impl Field<'_> {
    const fn len(&self) -> usize {
        match self {
            Self::Inherit | Self::None => 0,
            Self::Value(bytes) => bytes.len(),
        }
    }

    const fn tag(&self) -> u8 {
        match self {
            Self::Inherit => FIELD_INHERIT,
            Self::None => FIELD_NONE,
            Self::Value(_) => FIELD_VALUE,
        }
    }

    const fn bytes(&self) -> &[u8] {
        match self {
            Self::Inherit | Self::None => &[],
            Self::Value(bytes) => bytes,
        }
    }
}

fn read_output<'a>(rest: &mut Reader<'a>) -> Result<RawOutput<'a>, &'static str> {
    const SHORT: &str = "cut short";
    let size = Reader(rest.0).u32().map_err(|_| SHORT)? as usize;
    let mut output = Reader(rest.take(size).map_err(|_| SHORT)?);
    // One load each: this runs twice for every output.
    #[rustfmt::skip]
    let [
        _, _, _, _, key, payload, n0, n1, k0, k1, k2, k3, p0, p1, p2, p3, h0, h1, _, _, b0, b1, b2, b3,
    ] = output.array::<OUTPUT_HEADER_LEN>().map_err(|_| SHORT)?;
    let name_len = u16::from_le_bytes([n0, n1]);
    let key_len = u32::from_le_bytes([k0, k1, k2, k3]);
    let payload_len = u32::from_le_bytes([p0, p1, p2, p3]);
    let header_count = u16::from_le_bytes([h0, h1]);
    let block_len = u32::from_le_bytes([b0, b1, b2, b3]);
    let name = output.take(usize::from(name_len)).map_err(|_| SHORT)?;
    let key = read_field(&mut output, key, key_len)?;
    let payload = read_field(&mut output, payload, payload_len)?;
    let block = output.take(block_len as usize).map_err(|_| SHORT)?;
    if !output.0.is_empty() {
        return Err("its size and its lengths do not add up");
    }
    Ok(RawOutput {
        name,
        key,
        payload,
        header_count,
        block,
    })
}

fn read_field<'a>(rest: &mut Reader<'a>, tag: u8, len: u32) -> Result<Field<'a>, &'static str> {
    match (tag, len) {
        (FIELD_INHERIT, 0) => Ok(Field::Inherit),
        (FIELD_NONE, 0) => Ok(Field::None),
        (FIELD_INHERIT | FIELD_NONE, _) => Err("bytes for a key or payload that has no value"),
        (FIELD_VALUE, len) => rest
            .take(len as usize)
            .map(Field::Value)
            .map_err(|_| "cut short"),
        _ => Err("a key or payload of unknown kind"),
    }
}

/// Checks the answer to a reserve frame.
pub(in crate::plugin) fn check_reserved(answer: &[u8]) -> Result<(), Fault> {
    match answer
        .split_first_chunk::<HEAD_LEN>()
        .map(|(h, rest)| (batch::read_head(h), rest))
    {
        Some(((FRAME_VERSION, KIND_RESERVE, 0), [])) => Ok(()),
        _ => Err(Fault::new(
            FaultKind::Undecodable,
            "the handler did not answer the reserve frame with an empty head of kind 1",
        )),
    }
}

/// Writes an outcome frame, for guests that speak records.
pub(in crate::plugin) struct OutcomeWriter {
    frame: Vec<u8>,
    count: u32,
}

impl OutcomeWriter {
    pub(in crate::plugin) fn new() -> Self {
        Self {
            frame: batch::head(KIND_BATCH, 0).to_vec(),
            count: 0,
        }
    }

    pub(in crate::plugin) fn outputs<'a>(&mut self, outputs: impl Iterator<Item = OutputRef<'a>>) {
        let start = self.begin(STATUS_OUTPUTS);
        let mut count = 0u32;
        for output in outputs {
            self.output(&output);
            count += 1;
        }
        self.end(start, count);
    }

    pub(in crate::plugin) fn retryable(&mut self, reason: &str, after_ms: Option<u64>) {
        self.failure(STATUS_RETRYABLE, reason, after_ms.unwrap_or(ABSENT_AFTER));
    }

    pub(in crate::plugin) fn rejected(&mut self, reason: &str) {
        self.failure(STATUS_REJECTED, reason, ABSENT_AFTER);
    }

    pub(in crate::plugin) fn finish(mut self) -> Vec<u8> {
        self.patch(4, self.count);
        self.frame
    }

    fn failure(&mut self, status: u8, reason: &str, after: u64) {
        let start = self.begin(status);
        self.frame.extend_from_slice(&after.to_le_bytes());
        self.frame.extend_from_slice(reason.as_bytes());
        self.end(start, 0);
    }

    fn begin(&mut self, status: u8) -> usize {
        let start = self.frame.len();
        self.frame.extend_from_slice(&[0; RESULT_HEADER_LEN]);
        if let Some(slot) = self.frame.get_mut(start) {
            *slot = status;
        }
        start
    }

    fn end(&mut self, start: usize, outputs: u32) {
        let len = self.frame.len() - start - RESULT_HEADER_LEN;
        self.patch(start + 4, u32::try_from(len).unwrap_or(ABSENT));
        self.patch(start + 8, outputs);
        self.count += 1;
    }

    fn output(&mut self, output: &OutputRef<'_>) {
        let name = output.name.as_bytes();
        let (key, payload, block) = (
            output.key.bytes(),
            output.payload.bytes(),
            output.headers.block(),
        );
        let size = OUTPUT_HEADER_LEN + name.len() + key.len() + payload.len() + block.len();
        let mut fixed = Fixed::<OUTPUT_HEADER_LEN>::new();
        fixed
            .u32(u32::try_from(size).unwrap_or(ABSENT))
            .u8(output.key.tag())
            .u8(output.payload.tag())
            .u16(u16::try_from(name.len()).unwrap_or(u16::MAX))
            .u32(key.len() as u32)
            .u32(payload.len() as u32)
            .u16(output.headers.count())
            .u16(0)
            .u32(block.len() as u32);
        self.frame.extend_from_slice(&fixed.bytes);
        for part in [name, key, payload, block] {
            self.frame.extend_from_slice(part);
        }
    }

    fn patch(&mut self, at: usize, value: u32) {
        if let Some(slot) = self.frame.get_mut(at..at + 4) {
            slot.copy_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: OutcomeLimits = OutcomeLimits {
        outputs: 2,
        output_size: 10,
    };

    fn value(payload: &[u8]) -> OutputRef<'_> {
        OutputRef {
            name: "default",
            key: Field::Inherit,
            payload: Field::Value(payload),
            headers: Headers::default(),
        }
    }

    #[test]
    fn a_message_over_its_output_limits_does_not_touch_its_neighbours() {
        let mut writer = OutcomeWriter::new();
        writer.outputs([value(b"0123456789"), value(b"")].into_iter());
        writer.outputs([value(b"0123456789a")].into_iter());
        writer.outputs([value(b""); 3].into_iter());
        writer.rejected("no");
        let outcomes = Outcomes::read(writer.finish(), 4, LIMITS).unwrap();
        let kinds: Vec<_> = outcomes
            .iter()
            .map(|outcome| match outcome {
                Outcome::Outputs(outputs) => format!("{} outputs", outputs.len()),
                Outcome::OverLimit(fault) => fault.message,
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(
            kinds,
            [
                "2 outputs",
                "output 0 has 11 bytes, limits.output_size allows 10",
                "3 outputs for one message, limits.outputs allows 2",
                "Rejected { reason: \"no\" }"
            ]
        );
    }

    fn frame() -> Vec<u8> {
        let mut headers = crate::message::HeadersBuf::new();
        assert!(headers.push("h", Some(b"v")));
        let mut writer = OutcomeWriter::new();
        let output = OutputRef {
            headers: headers.as_headers(),
            key: Field::Value(b"k"),
            ..value(b"p")
        };
        writer.outputs([output, value(b"")].into_iter());
        writer.retryable("later", Some(5));
        writer.finish()
    }

    proptest! {
        #[test]
        fn a_garbled_outcome_is_a_fault_or_reads_to_its_end(at in 0usize..200, byte in any::<u8>()) {
            let mut bytes = frame();
            if let Some(slot) = bytes.get_mut(at) {
                *slot = byte;
            }
            if let Ok(outcomes) = Outcomes::read(bytes, 2, LIMITS) {
                for outcome in outcomes.iter() {
                    if let Outcome::Outputs(outputs) = outcome {
                        let promised = outputs.len();
                        prop_assert_eq!(outputs.count(), promised);
                    }
                }
            }
        }

        #[test]
        fn any_bytes_are_an_outcome_or_a_fault(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), messages in 0usize..3) {
            for (slot, good) in bytes.iter_mut().zip([1, 0, 0, 0, messages as u8, 0, 0, 0]) {
                *slot = good;
            }
            drop(Outcomes::read(bytes, messages, LIMITS));
        }

        #[test]
        fn a_cut_outcome_is_a_fault(cut in 0usize..200) {
            let mut bytes = frame();
            if cut < bytes.len() {
                bytes.truncate(cut);
                prop_assert!(Outcomes::read(bytes, 2, LIMITS).is_err());
            }
        }
    }
}
