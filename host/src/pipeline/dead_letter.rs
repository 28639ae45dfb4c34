//! Dead letters (§6.1): their topic's name, their ID, their headers, and reading those back. Pure.
//! Not here: when a message becomes one (`verdict`), and writing it (`settlement`).
//!
//! A dead letter is the message byte for byte, with the headers below in place of any earlier
//! `wasmill-dlq-*`. `first-failed-at` and `last-failed-at` are RFC 3339 in UTC with milliseconds, because
//! people read them; `origin-timestamp` is Unix milliseconds as the log has it, because brokers also hold
//! -1 (none) there. The record's own timestamp is that of the last failure, so that retention of the dead
//! letter topic counts from there.

use sha2::{Digest, Sha256};

use crate::message::{HEADERS_MAX, Headers, HeadersBuf, MessageRef};
use crate::pipeline::offsets::truncated;
use crate::pipeline::verdict::Reason;

/// What the log line of a dead letter says; `trace` knows it by that.
pub const LOGGED: &str = "dead-lettered";
/// What every header of a dead letter begins with.
pub const PREFIX: &str = "wasmill-dlq-";
/// Bytes of the error that are kept.
pub const ERROR_BYTES_MAX: usize = 1024;
/// The longest topic name, Kafka's limit too.
pub const TOPIC_BYTES_MAX: usize = 249;
/// What the headers add to a message at most, when topic, group, pipeline and correlation ID are at most
/// 249 bytes each: the dead letter topic must accept that much more than the source (§6.1).
pub const ADDED_BYTES_MAX: usize = 8 << 10;

const CORRELATION_ID: &str = "correlation-id";
/// How many headers of the message are not in its dead letter.
const HEADERS_LEFT_OUT: &str = "wasmill-dlq-headers-left-out";
const HASH_HEX_LEN: usize = 32;

/// What the host knows about a failed message. [`Parsed`] is what can be read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    pub reason: Reason,
    /// Cut to [`ERROR_BYTES_MAX`].
    pub error: &'a str,
    /// Attempts made.
    pub attempts: u32,
    /// Unix ms.
    pub first_failed_at_ms: i64,
    /// Unix ms.
    pub last_failed_at_ms: i64,
    pub origin_topic: &'a str,
    pub origin_partition: u32,
    pub origin_offset: u64,
    pub group: &'a str,
    pub pipeline: &'a str,
    /// `sha256:…`.
    pub plugin_digest: &'a str,
    /// How often it was sent again out of the dead letters.
    pub redrive_count: u32,
    /// Becomes a header when the message has none.
    pub correlation_id: &'a str,
}

/// A dead letter's headers, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<'a> {
    pub id: &'a str,
    /// As written; a newer host may know reasons that this one does not.
    pub reason: &'a str,
    pub error: &'a str,
    pub attempts: u32,
    /// RFC 3339.
    pub first_failed_at: &'a str,
    /// RFC 3339.
    pub last_failed_at: &'a str,
    pub origin_topic: &'a str,
    pub origin_partition: u32,
    pub origin_offset: u64,
    /// Unix ms, or what the broker has for none.
    pub origin_timestamp_ms: i64,
    pub group: &'a str,
    pub pipeline: &'a str,
    pub plugin_digest: &'a str,
    pub redrive_count: u32,
    pub correlation_id: Option<&'a str>,
}

/// The message is not a dead letter of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("header {PREFIX}{0} is missing")]
    Missing(&'static str),
    #[error("header {PREFIX}{0} cannot be read")]
    Unreadable(&'static str),
}

impl DeadLetter<'_> {
    /// The dead letter of `message`, with its headers in `headers`. `None` when the message has so many
    /// headers that ours do not fit (65,535 in all): nothing of it may be dropped.
    #[must_use]
    pub fn record<'b>(
        &self,
        message: &MessageRef<'b>,
        headers: &'b mut HeadersBuf,
    ) -> Option<MessageRef<'b>> {
        let fits = self.write_headers(message, headers);
        fits.then_some(MessageRef {
            key: message.key,
            payload: message.payload,
            headers: headers.as_headers(),
            timestamp_ms: self.last_failed_at_ms,
        })
    }

    /// The same for a message with too many headers: its last ones are left out, and their number is said.
    pub fn cut<'b>(&self, message: &MessageRef<'b>, headers: &'b mut HeadersBuf) -> MessageRef<'b> {
        let count = message.headers.count();
        let left_out = count.saturating_sub(HEADERS_MAX);
        let kept = message.headers.split_last(left_out);
        let kept = kept.map_or(message.headers, |(kept, _)| kept);
        let kept = MessageRef {
            headers: kept,
            ..*message
        };
        _ = self.write_headers(&kept, headers)
            && headers.push(HEADERS_LEFT_OUT, Some(left_out.to_string().as_bytes()));
        MessageRef {
            headers: headers.as_headers(),
            timestamp_ms: self.last_failed_at_ms,
            ..*message
        }
    }

    /// The same for every dead letter of one delivery.
    #[must_use]
    pub fn id(&self) -> String {
        id(
            self.group,
            self.origin_topic,
            self.origin_partition,
            self.origin_offset,
        )
    }

    /// False when there are too many.
    fn write_headers(&self, message: &MessageRef, out: &mut HeadersBuf) -> bool {
        out.clear();
        let original = message.headers.iter();
        let mut has_correlation_id = false;
        for (name, value) in original.filter(|(name, _)| !name.starts_with(PREFIX)) {
            has_correlation_id |= name == CORRELATION_ID;
            // It fitted among the original's headers.
            _ = out.push(name, value);
        }
        let correlation_id = (!has_correlation_id).then_some((CORRELATION_ID, self.correlation_id));
        let id = self.id();
        let added: [(&str, &str); 14] = [
            ("wasmill-dlq-id", &id),
            ("wasmill-dlq-reason", self.reason.as_str()),
            ("wasmill-dlq-error", truncated(self.error, ERROR_BYTES_MAX)),
            ("wasmill-dlq-attempts", &self.attempts.to_string()),
            (
                "wasmill-dlq-first-failed-at",
                &rfc3339(self.first_failed_at_ms),
            ),
            (
                "wasmill-dlq-last-failed-at",
                &rfc3339(self.last_failed_at_ms),
            ),
            ("wasmill-dlq-origin-topic", self.origin_topic),
            (
                "wasmill-dlq-origin-partition",
                &self.origin_partition.to_string(),
            ),
            ("wasmill-dlq-origin-offset", &self.origin_offset.to_string()),
            (
                "wasmill-dlq-origin-timestamp",
                &message.timestamp_ms.to_string(),
            ),
            ("wasmill-dlq-group", self.group),
            ("wasmill-dlq-pipeline", self.pipeline),
            ("wasmill-dlq-plugin-digest", self.plugin_digest),
            ("wasmill-dlq-redrive-count", &self.redrive_count.to_string()),
        ];
        correlation_id
            .iter()
            .chain(&added)
            .all(|(name, value)| out.push(name, Some(value.as_bytes())))
    }
}

impl<'a> Parsed<'a> {
    /// Reads the headers of a dead letter.
    pub fn read(headers: Headers<'a>) -> Result<Self, Error> {
        Ok(Self {
            id: text(headers, "id")?,
            reason: text(headers, "reason")?,
            error: text(headers, "error")?,
            attempts: number(headers, "attempts")?,
            first_failed_at: text(headers, "first-failed-at")?,
            last_failed_at: text(headers, "last-failed-at")?,
            origin_topic: text(headers, "origin-topic")?,
            origin_partition: number(headers, "origin-partition")?,
            origin_offset: number(headers, "origin-offset")?,
            origin_timestamp_ms: number(headers, "origin-timestamp")?,
            group: text(headers, "group")?,
            pipeline: text(headers, "pipeline")?,
            plugin_digest: text(headers, "plugin-digest")?,
            redrive_count: number(headers, "redrive-count")?,
            correlation_id: headers
                .last(CORRELATION_ID)
                .and_then(|value| std::str::from_utf8(value).ok()),
        })
    }
}

/// `<topic>.<group>.dlq`, or `<topic>.<group>.<hash>.dlq` with characters replaced and cut where the plain
/// name is not a topic's name, too long, or could be that of another pair. The plain name is used only
/// when the group has no dot (so the last two dots tell the parts) and does not look like a hash; the
/// other kind always ends in a hash of both names: no two pairs share a name.
#[must_use]
pub fn default_topic(topic: &str, group: &str) -> String {
    named_topic(topic, group, "dlq")
}

/// The same with another last part (`suffix`, which is a topic's name by itself and short).
#[must_use]
pub fn named_topic(topic: &str, group: &str, suffix: &str) -> String {
    let plain = format!("{topic}.{group}.{suffix}");
    let is_hash = group.len() == HASH_HEX_LEN
        && group
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_plain = !topic.is_empty()
        && !group.is_empty()
        && !group.contains('.')
        && !is_hash
        && plain.len() <= TOPIC_BYTES_MAX
        && plain.bytes().all(is_topic_byte);
    if is_plain {
        return plain;
    }
    let hash = hash_hex(&[topic.as_bytes(), group.as_bytes()]);
    let shown_max = TOPIC_BYTES_MAX.saturating_sub("..".len() + suffix.len() + HASH_HEX_LEN);
    let shown: String = format!("{topic}.{group}")
        .chars()
        .map(|c| {
            if c.is_ascii() && is_topic_byte(c as u8) {
                c
            } else {
                '_'
            }
        })
        .take(shown_max)
        .collect();
    format!("{shown}.{hash}.{suffix}")
}

/// The same for every dead letter of one delivery: who reads two of them can tell.
#[must_use]
pub fn id(group: &str, topic: &str, partition: u32, offset: u64) -> String {
    hash_hex(&[
        group.as_bytes(),
        topic.as_bytes(),
        &partition.to_le_bytes(),
        &offset.to_le_bytes(),
    ])
}

/// Unix milliseconds as RFC 3339 in UTC, `2013-01-01T10:15:00.000Z`; years before 0 and after 9999, which
/// it cannot name, become its first and last moment.
#[must_use]
pub fn rfc3339(unix_ms: i64) -> String {
    const FIRST_MS: i64 = -62_167_219_200_000;
    const LAST_MS: i64 = 253_402_300_799_999;
    let ms = unix_ms.clamp(FIRST_MS, LAST_MS);
    let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil(days);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a number of days since 1970 (proleptic Gregorian), by the algorithm of
/// <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Counted from March, so that the leap day is the last of its year.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The bytes that Kafka allows in a topic's name.
fn is_topic_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

/// 128 bits of SHA-256 over the parts with their lengths, in lowercase hex.
fn hash_hex(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut hex = String::with_capacity(HASH_HEX_LEN);
    for byte in hasher.finalize().iter().take(HASH_HEX_LEN / 2) {
        for half in [byte >> 4, byte & 15] {
            hex.extend(char::from_digit(u32::from(half), 16));
        }
    }
    hex
}

fn text<'a>(headers: Headers<'a>, name: &'static str) -> Result<&'a str, Error> {
    let value = headers
        .iter()
        .filter(|(full, _)| full.strip_prefix(PREFIX) == Some(name))
        .last()
        .ok_or(Error::Missing(name))?;
    let bytes = value.1.ok_or(Error::Unreadable(name))?;
    std::str::from_utf8(bytes).map_err(|_| Error::Unreadable(name))
}

fn number<T: std::str::FromStr>(headers: Headers, name: &'static str) -> Result<T, Error> {
    text(headers, name)?
        .parse()
        .map_err(|_| Error::Unreadable(name))
}

#[cfg(test)]
mod tests;
