//! A message of a dead letter topic with its `wasmill-dlq-*` headers decoded (§6.1), leniently: what
//! is missing or cannot be read is `null`, because a person looks at it when something is wrong. The
//! strict reading, and the writing, is `pipeline/dead_letter.rs`.

use super::time;
use super::wire::DeadLetter;
use crate::message::{Headers, MessageRef};

/// What every header of a dead letter begins with.
pub(super) const PREFIX: &str = "wasmill-dlq-";
/// What the names of dead letter topics end in, unless `dead_letter.topic` names another.
pub const TOPIC_SUFFIX: &str = ".dlq";

/// Whether the message carries the ID of a dead letter.
pub(super) fn is_dead_letter(message: &MessageRef<'_>) -> bool {
    text(&message.headers, "id").is_some()
}

/// The dead letter's ID is `wanted`; cheaper than decoding it.
pub(super) fn has_id(message: &MessageRef<'_>, wanted: &str) -> bool {
    text(&message.headers, "id") == Some(wanted)
}

pub(super) fn decode(
    topic: &str,
    partition: u32,
    offset: u64,
    message: &MessageRef<'_>,
) -> DeadLetter {
    let headers = &message.headers;
    let owned = |name| text(headers, name).map(ToOwned::to_owned);
    let moment = |name| text(headers, name).and_then(time::parse_rfc3339);
    let mut shown = super::console::message(topic, partition, offset, message);
    shown
        .headers
        .retain(|header| !header.name.starts_with(PREFIX));
    DeadLetter {
        position: format!("{topic}/{partition}@{offset}"),
        id: owned("id"),
        reason: owned("reason"),
        error: owned("error"),
        attempts: number(headers, "attempts"),
        first_failed_at_ms: moment("first-failed-at"),
        last_failed_at_ms: moment("last-failed-at"),
        origin_topic: owned("origin-topic"),
        origin_partition: number(headers, "origin-partition"),
        origin_offset: number(headers, "origin-offset"),
        origin_timestamp_ms: number(headers, "origin-timestamp"),
        group: owned("group"),
        pipeline: owned("pipeline"),
        plugin_digest: owned("plugin-digest"),
        redrive_count: number(headers, "redrive-count"),
        message: shown,
    }
}

fn text<'a>(headers: &Headers<'a>, name: &str) -> Option<&'a str> {
    let value = headers.iter().filter_map(|(found, value)| {
        (found.strip_prefix(PREFIX) == Some(name))
            .then_some(value)
            .flatten()
    });
    std::str::from_utf8(value.last()?).ok()
}

fn number<T: std::str::FromStr>(headers: &Headers<'_>, name: &str) -> Option<T> {
    text(headers, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{Blob, Header};
    use crate::message::HeadersBuf;

    fn decoded(pairs: &[(&str, &[u8])]) -> DeadLetter {
        let mut headers = HeadersBuf::new();
        for (name, value) in pairs {
            assert!(headers.push(name, Some(value)));
        }
        let message = MessageRef {
            key: Some(b"k"),
            payload: Some(b"{}"),
            headers: headers.as_headers(),
            timestamp_ms: 5,
        };
        decode("orders.g.dlq", 2, 9, &message)
    }

    #[test]
    fn headers_are_decoded_and_the_messages_own_are_kept_apart() {
        let letter = decoded(&[
            ("tenant", b"a"),
            ("wasmill-dlq-id", b"abc"),
            ("wasmill-dlq-reason", b"rejected"),
            ("wasmill-dlq-attempts", b"5"),
            ("wasmill-dlq-last-failed-at", b"1970-01-01T00:00:01.500Z"),
            ("wasmill-dlq-origin-topic", b"orders"),
            ("wasmill-dlq-origin-partition", b"2"),
            ("wasmill-dlq-origin-offset", b"41"),
            ("wasmill-dlq-origin-timestamp", b"-1"),
        ]);
        assert_eq!(letter.position, "orders.g.dlq/2@9");
        assert_eq!(letter.id.as_deref(), Some("abc"));
        assert_eq!(letter.attempts, Some(5));
        assert_eq!(letter.last_failed_at_ms, Some(1_500));
        assert_eq!(
            (letter.origin_partition, letter.origin_offset),
            (Some(2), Some(41))
        );
        assert_eq!(letter.origin_timestamp_ms, Some(-1));
        let own = Header {
            name: "tenant".into(),
            value: Some(Blob(b"a".to_vec())),
        };
        assert_eq!(letter.message.headers, [own]);
    }

    #[test]
    fn a_header_that_cannot_be_read_hides_nothing_else() {
        let letter = decoded(&[
            ("wasmill-dlq-id", b"\xff"),
            ("wasmill-dlq-attempts", b"many"),
            ("wasmill-dlq-reason", b"rejected"),
        ]);
        assert_eq!((letter.id, letter.attempts), (None, None));
        assert_eq!(letter.reason.as_deref(), Some("rejected"));
    }
}
