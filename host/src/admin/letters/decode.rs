//! A message of a dead letter topic with its `wasmill-dlq-*` headers decoded (§6.1), leniently: what
//! is missing or cannot be read is `null`, because a person looks at it when something is wrong. The
//! strict reading, and the writing, is `pipeline/dead_letter.rs`.

use super::shape;
use super::wire::{DeadLetter, LetterState};
use crate::admin::{console, time};
use crate::message::MessageRef;

/// What every header of a dead letter begins with.
pub(super) const PREFIX: &str = "wasmill-dlq-";
/// What the names of dead letter topics end in, unless `dead_letter.topic` names another.
pub const TOPIC_SUFFIX: &str = ".dlq";

/// A dead letter where it lies: its headers read once, nothing copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) message: MessageRef<'a>,
    pub(super) id: Option<&'a str>,
    pub(super) reason: Option<&'a str>,
    pub(super) error: Option<&'a str>,
    pub(super) attempts: Option<&'a str>,
    pub(super) first_failed_at: Option<&'a str>,
    pub(super) last_failed_at: Option<&'a str>,
    pub(super) origin_topic: Option<&'a str>,
    pub(super) origin_partition: Option<&'a str>,
    pub(super) origin_offset: Option<&'a str>,
    pub(super) origin_timestamp: Option<&'a str>,
    pub(super) group: Option<&'a str>,
    pub(super) pipeline: Option<&'a str>,
    pub(super) plugin_digest: Option<&'a str>,
    pub(super) redrive_count: Option<&'a str>,
}

impl<'a> View<'a> {
    /// `None`: the message carries no ID of a dead letter.
    pub(super) fn read(message: &MessageRef<'a>) -> Option<Self> {
        let mut view = Self {
            message: *message,
            id: None,
            reason: None,
            error: None,
            attempts: None,
            first_failed_at: None,
            last_failed_at: None,
            origin_topic: None,
            origin_partition: None,
            origin_offset: None,
            origin_timestamp: None,
            group: None,
            pipeline: None,
            plugin_digest: None,
            redrive_count: None,
        };
        for (name, value) in message.headers.iter() {
            let Some(name) = name.strip_prefix(PREFIX) else {
                continue;
            };
            let field = match name {
                "id" => &mut view.id,
                "reason" => &mut view.reason,
                "error" => &mut view.error,
                "attempts" => &mut view.attempts,
                "first-failed-at" => &mut view.first_failed_at,
                "last-failed-at" => &mut view.last_failed_at,
                "origin-topic" => &mut view.origin_topic,
                "origin-partition" => &mut view.origin_partition,
                "origin-offset" => &mut view.origin_offset,
                "origin-timestamp" => &mut view.origin_timestamp,
                "group" => &mut view.group,
                "pipeline" => &mut view.pipeline,
                "plugin-digest" => &mut view.plugin_digest,
                "redrive-count" => &mut view.redrive_count,
                _ => continue,
            };
            *field = value.and_then(|value| std::str::from_utf8(value).ok());
        }
        view.id.is_some().then_some(view)
    }

    /// The round it is in.
    pub(super) fn round(&self) -> u32 {
        number(self.redrive_count).unwrap_or(0)
    }

    /// The error's shape.
    pub(super) fn shape(&self) -> String {
        shape::shape(self.error.unwrap_or_default())
    }

    /// The ID of its failure group.
    pub(super) fn failure_group(&self) -> String {
        let or_empty = |text: Option<&'a str>| text.unwrap_or_default();
        shape::group_id(
            or_empty(self.pipeline),
            or_empty(self.group),
            or_empty(self.reason),
            &self.shape(),
        )
    }

    pub(super) fn decode(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
        state: LetterState,
    ) -> DeadLetter {
        let owned = |text: Option<&str>| text.map(ToOwned::to_owned);
        let moment = |text: Option<&str>| text.and_then(time::parse_rfc3339);
        let mut shown = console::message(topic, partition, offset, &self.message);
        shown
            .headers
            .retain(|header| !header.name.starts_with(PREFIX));
        DeadLetter {
            position: place(topic, partition, offset),
            id: owned(self.id),
            state,
            reason: owned(self.reason),
            error: owned(self.error),
            failure_group: self.failure_group(),
            attempts: number(self.attempts),
            first_failed_at_ms: moment(self.first_failed_at),
            last_failed_at_ms: moment(self.last_failed_at),
            origin_topic: owned(self.origin_topic),
            origin_partition: number(self.origin_partition),
            origin_offset: number(self.origin_offset),
            origin_timestamp_ms: number(self.origin_timestamp),
            group: owned(self.group),
            pipeline: owned(self.pipeline),
            plugin_digest: owned(self.plugin_digest),
            redrive_count: number(self.redrive_count),
            message: shown,
            history: Vec::new(),
        }
    }
}

/// `topic/partition@offset`.
pub(super) fn place(topic: &str, partition: u32, offset: u64) -> String {
    format!("{topic}/{partition}@{offset}")
}

/// Reads `topic/partition@offset`.
pub(super) fn read_place(text: &str) -> Option<(&str, u32, u64)> {
    let (place, offset) = text.rsplit_once('@')?;
    let (topic, partition) = place.rsplit_once('/')?;
    (!topic.is_empty()).then_some((topic, partition.parse().ok()?, offset.parse().ok()?))
}

pub(super) fn number<T: std::str::FromStr>(text: Option<&str>) -> Option<T> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{Blob, Header};
    use crate::message::HeadersBuf;
    use crate::pipeline::letter_state::State;

    fn decoded(pairs: &[(&str, &[u8])]) -> Option<DeadLetter> {
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
        let state = LetterState {
            state: State::New,
            at_ms: None,
            by: None,
            note: None,
            job: None,
            lost: false,
        };
        Some(View::read(&message)?.decode("orders.g.dlq", 2, 9, state))
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
        ])
        .unwrap();
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
            ("wasmill-dlq-id", b"abc"),
            ("wasmill-dlq-error", b"\xff"),
            ("wasmill-dlq-attempts", b"many"),
            ("wasmill-dlq-reason", b"rejected"),
        ])
        .unwrap();
        assert_eq!((letter.error, letter.attempts), (None, None));
        assert_eq!(letter.reason.as_deref(), Some("rejected"));
        assert!(decoded(&[("wasmill-dlq-reason", b"rejected")]).is_none());
    }

    #[test]
    fn a_place_reads_back() {
        assert_eq!(read_place(&place("a/b", 3, 7)), Some(("a/b", 3, 7)));
        assert_eq!(read_place("a@1"), None);
    }
}
