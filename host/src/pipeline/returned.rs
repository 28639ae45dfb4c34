//! Messages on their way back to the pipeline that had them: deferred retries (§5.2) and redriven dead
//! letters (§6.4). They lie in internal topics, one for each step of the ladder of delays and one for
//! redrives, with the partitions of the source topic; the owner of a partition reads its namesakes too.
//! Here: the names of those topics, the ladder, and the headers that carry what the host knows about the
//! message. Pure. Not here: who publishes when (`judge`, `admin`), and when they are due (`admit`).
//!
//! The host's headers stand behind those of the message, always all of them and in one order, so that the
//! message is what is left without them, byte for byte. They are believed on internal topics only (§8.4).

use crate::message::{Headers, HeadersBuf, MessageRef};
use crate::pipeline::dead_letter::named_topic;

/// Bytes that the host's headers add to a message at most, when topic names have at most 249 bytes.
pub const ADDED_BYTES_MAX: usize = 1024;

const RETRY_COUNT: &str = "x-retry-count";
const DUE: &str = "wasmill-retry-due";
const FIRST_FAILED_AT: &str = "wasmill-first-failed-at";
const ORIGIN_TOPIC: &str = "wasmill-origin-topic";
const ORIGIN_PARTITION: &str = "wasmill-origin-partition";
const ORIGIN_OFFSET: &str = "wasmill-origin-offset";
const REDRIVE_COUNT: &str = "wasmill-redrive-count";
const DEAD_LETTER_ID: &str = "wasmill-dlq-id";
/// How many there are.
const HEADERS: u16 = 8;

/// What the host knows about a message that comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    /// Attempts that failed in this round.
    pub attempts: u32,
    /// Not before this, Unix ms.
    pub due_ms: i64,
    /// Unix ms; `None` before the first failure of this round.
    pub first_failed_at_ms: Option<i64>,
    pub origin_topic: String,
    pub origin_partition: u32,
    pub origin_offset: u64,
    /// The round: 0 for a message that never was a dead letter, else one more than its dead letter says.
    pub redrive_count: u32,
    /// The dead letter that was sent again. Its state is kept under this and `redrive_count` - 1.
    pub dead_letter_id: Option<String>,
}

/// Why a message of an internal topic cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header {0} is missing or cannot be read")]
pub struct Unreadable(&'static str);

/// Whether a message was a dead letter that somebody sent again.
#[must_use]
pub fn is_redriven(returned: &Option<Box<Returned>>) -> bool {
    returned
        .as_ref()
        .is_some_and(|returned| returned.redrive_count > 0)
}

impl Returned {
    /// `message` (its own headers only) with the host's headers behind its own, in `headers`. `None` when
    /// there are too many.
    #[must_use]
    pub fn record<'b>(
        &self,
        message: &MessageRef<'b>,
        headers: &'b mut HeadersBuf,
    ) -> Option<MessageRef<'b>> {
        headers.clear();
        let mut fits = true;
        for (name, value) in message.headers.iter() {
            fits &= headers.push(name, value);
        }
        let first_failed = self.first_failed_at_ms.map(|ms| ms.to_string());
        let own: [(&str, Option<&str>); HEADERS as usize] = [
            (RETRY_COUNT, Some(&self.attempts.to_string())),
            (DUE, Some(&self.due_ms.to_string())),
            (FIRST_FAILED_AT, first_failed.as_deref()),
            (ORIGIN_TOPIC, Some(&self.origin_topic)),
            (ORIGIN_PARTITION, Some(&self.origin_partition.to_string())),
            (ORIGIN_OFFSET, Some(&self.origin_offset.to_string())),
            (REDRIVE_COUNT, Some(&self.redrive_count.to_string())),
            (DEAD_LETTER_ID, self.dead_letter_id.as_deref()),
        ];
        for (name, value) in own {
            fits &= headers.push(name, value.map(str::as_bytes));
        }
        fits.then_some(MessageRef {
            headers: headers.as_headers(),
            ..*message
        })
    }

    /// What the last headers say, and the message without them.
    pub fn read<'m>(message: &MessageRef<'m>) -> Result<(Self, MessageRef<'m>), Unreadable> {
        let (original, own) = message
            .headers
            .split_last(HEADERS)
            .ok_or(Unreadable(RETRY_COUNT))?;
        let mut fields = Fields(own);
        let returned = Self {
            attempts: fields.number(RETRY_COUNT)?,
            due_ms: fields.number(DUE)?,
            first_failed_at_ms: match fields.text(FIRST_FAILED_AT)? {
                None => None,
                Some(text) => Some(text.parse().map_err(|_| Unreadable(FIRST_FAILED_AT))?),
            },
            origin_topic: fields
                .text(ORIGIN_TOPIC)?
                .ok_or(Unreadable(ORIGIN_TOPIC))?
                .to_owned(),
            origin_partition: fields.number(ORIGIN_PARTITION)?,
            origin_offset: fields.number(ORIGIN_OFFSET)?,
            redrive_count: fields.number(REDRIVE_COUNT)?,
            dead_letter_id: fields.text(DEAD_LETTER_ID)?.map(str::to_owned),
        };
        let headers = original;
        Ok((
            returned,
            MessageRef {
                headers,
                ..*message
            },
        ))
    }
}

/// The headers of the host, taken one after the other.
struct Fields<'a>(Headers<'a>);

impl<'a> Fields<'a> {
    fn text(&mut self, name: &'static str) -> Result<Option<&'a str>, Unreadable> {
        let (found, value) = self.0.iter().next().ok_or(Unreadable(name))?;
        let left = self.0.count().saturating_sub(1);
        let (_, rest) = self.0.split_last(left).ok_or(Unreadable(name))?;
        self.0 = rest;
        if found != name {
            return Err(Unreadable(name));
        }
        match value.map(std::str::from_utf8) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(Unreadable(name)),
        }
    }

    fn number<T: std::str::FromStr>(&mut self, name: &'static str) -> Result<T, Unreadable> {
        let text = self.text(name)?.ok_or(Unreadable(name))?;
        text.parse().map_err(|_| Unreadable(name))
    }
}

/// The topic of deferred retries of `topic` in `group` that wait for `delay_ms`:
/// `<topic>.<group>.retry.<delay>`, such as `orders.email.retry.30s`.
#[must_use]
pub fn retry_topic(topic: &str, group: &str, delay_ms: u64) -> String {
    named_topic(topic, group, &format!("retry.{}", written(delay_ms)))
}

/// The delay of a topic that [`retry_topic`] named for this topic and group.
#[must_use]
pub fn delay_of(name: &str, topic: &str, group: &str) -> Option<u64> {
    let (_, last) = name.rsplit_once('.')?;
    let unit_at = last.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = last.split_at_checked(unit_at)?;
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    let delay_ms = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (retry_topic(topic, group, delay_ms) == name).then_some(delay_ms)
}

/// The topic of dead letters of `topic` in `group` on their way back: `<topic>.<group>.redrive`.
#[must_use]
pub fn redrive_topic(topic: &str, group: &str) -> String {
    named_topic(topic, group, "redrive")
}

/// In the largest unit that leaves no rest.
fn written(ms: u64) -> String {
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms >= size && ms.is_multiple_of(size) {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn returned() -> Returned {
        Returned {
            attempts: 2,
            due_ms: 1_700_000_000_123,
            first_failed_at_ms: Some(1_699_999_999_000),
            origin_topic: "orders".into(),
            origin_partition: 3,
            origin_offset: u64::MAX,
            redrive_count: 1,
            dead_letter_id: Some("0123".into()),
        }
    }

    proptest! {
        #[test]
        fn a_message_comes_back_byte_for_byte_with_what_is_known_about_it(
            headers in proptest::collection::vec(("[a-z-]{0,12}|x-retry-count|wasmill-dlq-id", proptest::option::of(any::<Vec<u8>>())), 0..6),
            payload in proptest::option::of(any::<Vec<u8>>()),
            attempts in any::<u32>(),
            first in proptest::option::of(any::<i64>()),
            id in proptest::option::of("[0-9a-f]{32}"),
        ) {
            let mut own = HeadersBuf::new();
            for (name, value) in &headers {
                prop_assert!(own.push(name, value.as_deref()));
            }
            let message = MessageRef {
                key: Some(b"k"),
                payload: payload.as_deref(),
                headers: own.as_headers(),
                timestamp_ms: -1,
            };
            let known = Returned { attempts, first_failed_at_ms: first, dead_letter_id: id, ..returned() };
            let mut buffer = HeadersBuf::new();
            let record = known.record(&message, &mut buffer).unwrap();
            let (back, original) = Returned::read(&record).unwrap();
            prop_assert_eq!(back, known);
            prop_assert_eq!(original, message);
        }

        #[test]
        fn what_is_not_ours_is_unreadable_and_never_a_panic(
            headers in proptest::collection::vec(("[a-z-]{0,8}", proptest::option::of(any::<Vec<u8>>())), 0..12),
        ) {
            let mut own = HeadersBuf::new();
            for (name, value) in &headers {
                prop_assert!(own.push(name, value.as_deref()));
            }
            let message = MessageRef { headers: own.as_headers(), ..MessageRef::default() };
            prop_assert!(Returned::read(&message).is_err());
        }
    }

    #[test]
    fn added_bytes_max_holds_for_the_longest_names() {
        let known = Returned {
            attempts: u32::MAX,
            due_ms: i64::MIN,
            first_failed_at_ms: Some(i64::MIN),
            origin_topic: "t".repeat(249),
            origin_partition: u32::MAX,
            redrive_count: u32::MAX,
            dead_letter_id: Some("f".repeat(32)),
            ..returned()
        };
        let message = MessageRef::default();
        let mut buffer = HeadersBuf::new();
        let record = known.record(&message, &mut buffer).unwrap();
        assert!(record.record_len() - message.record_len() <= ADDED_BYTES_MAX);
    }

    #[test]
    fn a_name_says_the_delay_and_gives_it_back() {
        assert_eq!(
            retry_topic("orders", "email", 30_000),
            "orders.email.retry.30s"
        );
        assert_eq!(redrive_topic("orders", "email"), "orders.email.redrive");
        for delay in [1, 200, 999, 1_000, 1_500, 60_000, 90_000, 3_600_000] {
            for group in ["email", "a.group.with.dots"] {
                let name = retry_topic("orders.v1", group, delay);
                assert_eq!(delay_of(&name, "orders.v1", group), Some(delay), "{name}");
                assert_eq!(delay_of(&name, "orders.v1", "other"), None);
            }
        }
        for other in [
            "orders.email.retry",
            "orders.email.retry.",
            "orders.email.retry.30x",
            "orders.email.redrive",
        ] {
            assert_eq!(delay_of(other, "orders", "email"), None, "{other}");
        }
    }
}
