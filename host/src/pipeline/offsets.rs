//! Offsets of one partition (§4.3): which are finished, up to where that may be committed, and what a
//! restart has to remember above it (finished offsets, attempts). Pure: no clock, no I/O.
//! Not here: the deliveries themselves (`lane`, the worker) and where progress is kept (`connector`).
//!
//! Progress, version 1, little-endian: `version u8 | committed u64 | finished | attempts`.
//! Finished is `kind u8` and then nothing (0), or runs (1): `count varint`, per run `gap varint | len
//! varint`, or a bitmap (2): `bytes u16 | bytes`, bit i for offset `committed rounded down to 64, + i`.
//! Attempts: `count u8`, per attempt `offset - committed u16 | count u32 | first i64 | last i64 |
//! error_len u16 | error`.

use std::collections::BTreeMap;
use std::ops::Range;

/// Offsets between the first unfinished one and the next to be read, at most (§4.3).
pub const SPAN_MAX: u64 = 16_384;
/// Attempts in one encoded progress. When more messages than that have failed, those with the lowest
/// offsets are kept: they hold the committed offset, and each of the others moves up as they finish.
/// In memory every unfinished message keeps its attempt, so only a restart can forget one.
pub const ATTEMPTS_MAX: usize = 250;
/// Bytes of an attempt's error that are kept.
pub const ERROR_BYTES_MAX: usize = 256;
/// Bytes of an encoded progress, at most.
pub const PROGRESS_BYTES_MAX: usize =
    9 + 3 + BITMAP_BYTES_MAX + 1 + ATTEMPTS_MAX * (ATTEMPT_BYTES + ERROR_BYTES_MAX);

const VERSION: u8 = 1;
const FINISHED_NONE: u8 = 0;
const FINISHED_RUNS: u8 = 1;
const FINISHED_BITMAP: u8 = 2;
/// Kafka's offsets are signed; leaving the top bit free keeps sums here from overflowing.
const OFFSET_MAX: u64 = i64::MAX as u64;
const WORDS: usize = (SPAN_MAX / 64) as usize;
/// One word more than the ring: a span that does not begin on a word's edge ends inside the next.
const BITMAP_BYTES_MAX: usize = (WORDS + 1) * 8;
const ATTEMPT_BYTES: usize = 2 + 4 + 8 + 8 + 2;

/// Why bytes are not a progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "progress of version {0} was written by a newer host; this one reads version {VERSION}"
    )]
    Version(u8),
    #[error("progress is cut short")]
    Truncated,
    #[error("progress is damaged: {0}")]
    Invalid(&'static str),
}

/// Failed attempts of one message that is not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    pub offset: u64,
    /// Attempts made.
    pub count: u32,
    /// Unix ms.
    pub first_failed_at_ms: i64,
    /// Unix ms.
    pub last_failed_at_ms: i64,
    /// Of the last attempt, at most [`ERROR_BYTES_MAX`] bytes.
    pub error: String,
}

/// What outlives a restart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The first offset that is not finished.
    pub committed: u64,
    /// Finished offsets above it, ascending and disjoint, below `committed + SPAN_MAX`.
    pub completed: Vec<Range<u64>>,
    /// Ascending by offset, at most [`ATTEMPTS_MAX`].
    pub attempts: Vec<Attempt>,
}

/// What to do with an offset that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Never tried, as far as is known.
    Fresh,
    /// It failed before; `attempts` were made.
    Again { attempts: u32 },
    /// Finished or admitted before: skip it.
    Done,
    /// It lies [`SPAN_MAX`] or more above the first unfinished offset and was not taken in: ask again
    /// when that one is finished. Callers that read no further than `room()` see it only after a gap.
    Full,
}

/// Finished and unfinished offsets of one partition.
#[derive(Debug, Clone)]
pub struct Offsets {
    committed: u64,
    position: u64,
    unfinished: u64,
    /// Bits for `committed..committed + SPAN_MAX`; a set bit is a finished offset. Never set: the bit
    /// of `committed`, and that of `position` (a remembered completion is passed over at once).
    finished: Ring,
    /// Set bits.
    remembered: u64,
    /// Of offsets that are not finished, read or not yet read again.
    attempts: BTreeMap<u64, Attempt>,
}

impl Offsets {
    /// A partition on which everything below `committed` is finished and nothing above it.
    #[must_use]
    pub fn start(committed: u64) -> Self {
        let committed = committed.min(OFFSET_MAX);
        Self {
            committed,
            position: committed,
            unfinished: 0,
            finished: Ring::new(),
            remembered: 0,
            attempts: BTreeMap::new(),
        }
    }

    /// A partition as it was when `progress` was taken, to be read again from `position()`.
    #[must_use]
    pub fn restore(progress: Progress) -> Self {
        let mut this = Self::start(progress.committed);
        let end = this.committed + SPAN_MAX;
        for range in progress.completed {
            let range = range.start.clamp(this.committed, end)..range.end.min(end);
            this.remembered += this.finished.set(range);
        }
        for attempt in progress.attempts {
            let offset = attempt.offset;
            if offset >= this.committed && offset < end && !this.finished.get(offset) {
                this.attempts.insert(offset, attempt);
            }
        }
        this.pass_remembered();
        this
    }

    /// The next offset to read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The first offset that is not finished; `position()` when all are.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed
    }

    /// Admitted and not finished.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.unfinished
    }

    /// Offsets from the first unfinished one to the next to be read.
    #[must_use]
    pub fn span(&self) -> u64 {
        self.position - self.committed
    }

    /// How many more offsets may be admitted before one has to be finished.
    #[must_use]
    pub fn room(&self) -> u64 {
        SPAN_MAX - self.span()
    }

    /// Takes an offset in. Offsets come ascending; those between the last one and this were never
    /// delivered (compaction, markers) and count as finished.
    pub fn admit(&mut self, offset: u64) -> Admission {
        if offset < self.position {
            return Admission::Done;
        }
        if !self.pass_gap(offset) {
            return Admission::Full;
        }
        if offset < self.position {
            return Admission::Done;
        }
        // At the limit the slot of `offset` is still that of `committed`.
        if self.room() == 0 {
            return Admission::Full;
        }
        self.position = offset + 1;
        self.unfinished += 1;
        if self.remembered != 0 {
            self.pass_remembered();
        }
        match self.attempt(offset) {
            None => Admission::Fresh,
            Some(attempt) => Admission::Again {
                attempts: attempt.count,
            },
        }
    }

    /// The offset is settled: it was put into a settlement. In any order; again or unknown does nothing.
    pub fn finish(&mut self, offset: u64) {
        if !self.is_unfinished(offset) {
            return;
        }
        self.unfinished -= 1;
        if !self.attempts.is_empty() {
            self.attempts.remove(&offset);
        }
        if offset != self.committed {
            self.remembered += self.finished.set(offset..offset + 1);
            return;
        }
        self.committed += 1;
        if self.remembered != 0 {
            self.commit_finished();
        }
    }

    /// Remembers a failed attempt until the offset is finished. `count` attempts were made by now.
    pub fn fail(&mut self, offset: u64, count: u32, now_ms: i64, error: &str) {
        if !self.is_unfinished(offset) {
            return;
        }
        let attempt = self.attempts.entry(offset).or_insert_with(|| Attempt {
            offset,
            count,
            first_failed_at_ms: now_ms,
            last_failed_at_ms: now_ms,
            error: String::new(),
        });
        attempt.count = count;
        attempt.last_failed_at_ms = now_ms;
        attempt.error.clear();
        attempt.error.push_str(truncated(error, ERROR_BYTES_MAX));
    }

    /// What is known of an unfinished offset's failures.
    #[must_use]
    pub fn attempt(&self, offset: u64) -> Option<&Attempt> {
        if self.attempts.is_empty() {
            return None;
        }
        self.attempts.get(&offset)
    }

    /// Offsets below `offset` that were not read are lost and count as finished; what was read goes on.
    /// False, and nothing changed, when that would exceed [`SPAN_MAX`] above an unfinished offset: try
    /// again when it is finished.
    #[must_use]
    pub fn skip_to(&mut self, offset: u64) -> bool {
        self.pass_gap(offset)
    }

    /// A snapshot for a settlement.
    #[must_use]
    pub fn progress(&self) -> Progress {
        Progress {
            committed: self.committed,
            completed: self.finished.ranges(self.committed),
            attempts: self.attempts.values().take(ATTEMPTS_MAX).cloned().collect(),
        }
    }

    /// Appends what [`Progress::encode`] would, without the copy: 11 bytes while nothing fails and
    /// messages finish in order.
    pub fn encode_progress(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.extend_from_slice(&self.committed.to_le_bytes());
        if self.remembered == 0 {
            out.push(FINISHED_NONE);
        } else {
            self.finished.encode(self.committed, out);
        }
        let count = self.attempts.len().min(ATTEMPTS_MAX);
        out.push(count as u8);
        for attempt in self.attempts.values().take(count) {
            attempt.encode(self.committed, out);
        }
    }

    fn is_unfinished(&self, offset: u64) -> bool {
        offset >= self.committed && offset < self.position && !self.finished.get(offset)
    }

    /// Moves the position up to `offset`, if it is lower, with all between finished.
    fn pass_gap(&mut self, offset: u64) -> bool {
        if offset <= self.position {
            return true;
        }
        let gap = self.position..offset;
        if offset > OFFSET_MAX {
            return false;
        } else if self.unfinished == 0 {
            self.remembered -= self.finished.clear(gap.clone());
            self.committed = offset;
        } else if offset - self.committed <= SPAN_MAX {
            self.remembered += self.finished.set(gap.clone());
        } else {
            return false;
        }
        if !self.attempts.is_empty() {
            self.attempts.retain(|at, _| !gap.contains(at));
        }
        self.position = offset;
        self.pass_remembered();
        true
    }

    /// Moves the position past offsets that were finished before the restart.
    fn pass_remembered(&mut self) {
        let limit = self.committed + SPAN_MAX;
        self.position += self.finished.run(self.position..limit);
        self.commit_finished();
    }

    /// Moves the committed offset up to the first unfinished one, or the position.
    fn commit_finished(&mut self) {
        let run = self.finished.run(self.committed..self.position);
        self.remembered -= self.finished.clear(self.committed..self.committed + run);
        self.committed += run;
    }
}

impl Progress {
    /// Appends the encoding; at most [`PROGRESS_BYTES_MAX`] bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Offsets::restore(self.clone()).encode_progress(out);
    }

    /// Reads what [`Progress::encode`] wrote, all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader(bytes);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let committed = u64::from_le_bytes(reader.array()?);
        if committed > OFFSET_MAX {
            return Err(Error::Invalid("the committed offset is out of range"));
        }
        let completed = match reader.byte()? {
            FINISHED_NONE => Vec::new(),
            FINISHED_RUNS => decode_runs(committed, &mut reader)?,
            FINISHED_BITMAP => decode_bitmap(committed, &mut reader)?,
            _ => return Err(Error::Invalid("finished offsets are of an unknown kind")),
        };
        let attempts = decode_attempts(committed, &mut reader)?;
        if reader.0.is_empty() {
            Ok(Self {
                committed,
                completed,
                attempts,
            })
        } else {
            Err(Error::Invalid("bytes are left over"))
        }
    }
}

impl Attempt {
    fn encode(&self, committed: u64, out: &mut Vec<u8>) {
        let error = truncated(&self.error, ERROR_BYTES_MAX);
        out.extend_from_slice(&((self.offset - committed) as u16).to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.first_failed_at_ms.to_le_bytes());
        out.extend_from_slice(&self.last_failed_at_ms.to_le_bytes());
        out.extend_from_slice(&(error.len() as u16).to_le_bytes());
        out.extend_from_slice(error.as_bytes());
    }
}

/// The longest prefix of `text` that is at most `bytes_max` bytes and whole characters.
#[must_use]
pub fn truncated(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max))
        .unwrap_or(text)
}

fn decode_runs(committed: u64, reader: &mut Reader) -> Result<Vec<Range<u64>>, Error> {
    let count = reader.varint()?;
    if count > SPAN_MAX {
        return Err(Error::Invalid("too many runs"));
    }
    let mut runs = Vec::new();
    let mut at = committed;
    for _ in 0..count {
        let (gap, len) = (reader.varint()?, reader.varint()?);
        if gap == 0 || len == 0 || gap > SPAN_MAX || len > SPAN_MAX {
            return Err(Error::Invalid("a run is out of range"));
        }
        runs.push(at + gap..at + gap + len);
        at += gap + len;
        if at > committed + SPAN_MAX {
            return Err(Error::Invalid("a run is out of range"));
        }
    }
    Ok(runs)
}

fn decode_bitmap(committed: u64, reader: &mut Reader) -> Result<Vec<Range<u64>>, Error> {
    let len = usize::from(u16::from_le_bytes(reader.array()?));
    if len > BITMAP_BYTES_MAX {
        return Err(Error::Invalid("the bitmap is too long"));
    }
    let base = committed & !63;
    let mut ranges = Vec::new();
    for (i, byte) in (0u64..).zip(reader.bytes(len)?) {
        for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
            let offset = base + i * 8 + bit;
            if offset <= committed || offset >= committed + SPAN_MAX {
                return Err(Error::Invalid("the bitmap is out of range"));
            }
            extend(&mut ranges, offset..offset + 1);
        }
    }
    Ok(ranges)
}

fn decode_attempts(committed: u64, reader: &mut Reader) -> Result<Vec<Attempt>, Error> {
    let count = usize::from(reader.byte()?);
    if count > ATTEMPTS_MAX {
        return Err(Error::Invalid("too many attempts"));
    }
    let mut attempts: Vec<Attempt> = Vec::with_capacity(count);
    for _ in 0..count {
        let offset = committed + u64::from(u16::from_le_bytes(reader.array()?));
        if offset >= committed + SPAN_MAX || attempts.last().is_some_and(|a| a.offset >= offset) {
            return Err(Error::Invalid("an attempt is out of range or order"));
        }
        let count = u32::from_le_bytes(reader.array()?);
        let first_failed_at_ms = i64::from_le_bytes(reader.array()?);
        let last_failed_at_ms = i64::from_le_bytes(reader.array()?);
        let error_len = usize::from(u16::from_le_bytes(reader.array()?));
        if error_len > ERROR_BYTES_MAX {
            return Err(Error::Invalid("an attempt's error is too long"));
        }
        let error = std::str::from_utf8(reader.bytes(error_len)?)
            .map_err(|_| Error::Invalid("an attempt's error is not UTF-8"))?;
        attempts.push(Attempt {
            offset,
            count,
            first_failed_at_ms,
            last_failed_at_ms,
            error: error.to_owned(),
        });
    }
    Ok(attempts)
}

/// Appends a range, joined to the last one where they touch.
fn extend(ranges: &mut Vec<Range<u64>>, next: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == next.start => last.end = next.end,
        _ => ranges.push(next),
    }
}

/// `SPAN_MAX` bits, one per offset modulo `SPAN_MAX`.
#[derive(Debug, Clone)]
struct Ring {
    words: Box<[u64; WORDS]>,
}

impl Ring {
    fn new() -> Self {
        Self {
            words: Box::new([0; WORDS]),
        }
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the index is taken modulo the array's length"
    )]
    fn word(&self, offset: u64) -> u64 {
        self.words[(offset / 64) as usize % WORDS]
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the index is taken modulo the array's length"
    )]
    fn word_mut(&mut self, offset: u64) -> &mut u64 {
        &mut self.words[(offset / 64) as usize % WORDS]
    }

    fn get(&self, offset: u64) -> bool {
        self.word(offset) >> (offset % 64) & 1 == 1
    }

    /// Sets the bits of a range of at most `SPAN_MAX`; how many were not set before.
    fn set(&mut self, range: Range<u64>) -> u64 {
        let mut changed = 0;
        for (at, mask) in masks(range) {
            let word = self.word_mut(at);
            changed += u64::from((mask & !*word).count_ones());
            *word |= mask;
        }
        changed
    }

    /// Clears the bits of a range of any length; how many were set before.
    fn clear(&mut self, range: Range<u64>) -> u64 {
        let mut changed = 0;
        let end = range.end.min(range.start + SPAN_MAX);
        for (at, mask) in masks(range.start..end) {
            let word = self.word_mut(at);
            changed += u64::from((mask & *word).count_ones());
            *word &= !mask;
        }
        changed
    }

    /// How many offsets at the beginning of the range have their bit set.
    fn run(&self, range: Range<u64>) -> u64 {
        let mut at = range.start;
        while at < range.end {
            let ones = u64::from((self.word(at) >> (at % 64)).trailing_ones());
            at += ones;
            if ones == 0 || !at.is_multiple_of(64) {
                break;
            }
        }
        at.min(range.end) - range.start.min(range.end)
    }

    /// The words of `base..base + SPAN_MAX` with the offsets of their lowest bits, lowest first; the
    /// first and the last are the two parts of one word of the ring unless `base` is a word's edge.
    fn window(&self, base: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
        masks(base..base + SPAN_MAX).map(|(at, mask)| (at & !63, self.word(at) & mask))
    }

    fn ranges(&self, base: u64) -> Vec<Range<u64>> {
        let mut ranges = Vec::new();
        for (at, mut word) in self.window(base) {
            while word != 0 {
                let start = word.trailing_zeros();
                let len = (word >> start).trailing_ones();
                extend(
                    &mut ranges,
                    at + u64::from(start)..at + u64::from(start + len),
                );
                word &= !(low_bits(len) << start);
            }
        }
        ranges
    }

    /// Whichever of runs and bitmap is shorter, told by at most four bytes a run.
    fn encode(&self, base: u64, out: &mut Vec<u8>) {
        let (mut runs, mut words, mut carry) = (0, 0, 0);
        for (i, (_, word)) in (1..).zip(self.window(base)) {
            runs += (word & !(word << 1 | carry)).count_ones() as usize;
            carry = word >> 63;
            if word != 0 {
                words = i;
            }
        }
        if runs * 4 > words * 8 {
            out.push(FINISHED_BITMAP);
            out.extend_from_slice(&(words as u16 * 8).to_le_bytes());
            out.extend(
                self.window(base)
                    .take(words)
                    .flat_map(|(_, word)| word.to_le_bytes()),
            );
            return;
        }
        out.push(FINISHED_RUNS);
        push_varint(runs as u64, out);
        let mut at = base;
        for range in self.ranges(base) {
            push_varint(range.start - at, out);
            push_varint(range.end - range.start, out);
            at = range.end;
        }
    }
}

fn low_bits(count: u32) -> u64 {
    u64::MAX.checked_shr(64 - count).unwrap_or(0)
}

/// The range cut at the edges of words: the first offset of each part, and its bits within the word.
fn masks(range: Range<u64>) -> impl Iterator<Item = (u64, u64)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        if at >= range.end {
            return None;
        }
        let len = (64 - at % 64).min(range.end - at);
        let part = (at, low_bits(len as u32) << (at % 64));
        at += len;
        Some(part)
    })
}

fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes bytes off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Error::Truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    /// At most three bytes: no count here reaches 2^21.
    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in [0, 7, 14] {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Error::Invalid("a number is too long"))
    }
}

#[cfg(test)]
mod tests;
