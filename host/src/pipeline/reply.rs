//! Replies (§8): to whom the output `reply` goes and what it carries, when a request is too late, and the
//! same reply once more for a duplicate. Pure. Not here: who waits for one (`admin/requests.rs`).

use crate::connector::{Connector, NoTarget};
use crate::message::{Headers, HeadersBuf, MessageRef};
use crate::pipeline::correlation;
use crate::pipeline::output::{HeaderRule, Made};
use crate::pipeline::settlement::{Settlement, Target};

/// The name of the output that goes to whoever asked.
pub const OUTPUT: &str = "reply";
/// Header of a request: the topic that the reply goes to.
pub const REPLY_TO: &str = "reply-to";
/// Header of a request: Unix ms from which on nobody waits for the reply.
pub const DEADLINE: &str = "wasmill-deadline";
/// Header of a request that its reply carries as well. Unlike a correlation ID it is never used twice.
pub const REQUEST_ID: &str = "wasmill-request-id";
/// A longer request ID is not carried back.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// How often a worker says that it dropped replies.
const SAY_NS: u64 = 10_000_000_000;

/// Topics that replies may go to: names, or prefixes with a final `*`.
#[derive(Debug, Clone, Default)]
pub struct ReplyRule(pub Vec<String>);

impl ReplyRule {
    fn allows(&self, topic: &str) -> bool {
        self.0.iter().any(|rule| match rule.strip_suffix('*') {
            Some(prefix) => topic.starts_with(prefix),
            None => rule == topic,
        })
    }
}

/// Why a reply was not sent; its message succeeds all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The message has no `reply-to`: nobody asked.
    NoReplyTo,
    /// `reply.topics` does not allow the topic, or it is an internal one.
    NotAllowed,
    UnknownTopic,
    /// The worker has sent replies to as many topics as it keeps ready.
    TooManyTopics,
    /// For its topic.
    TooLarge,
}

impl Dropped {
    pub const ALL: [Self; 5] = [
        Self::NoReplyTo,
        Self::NotAllowed,
        Self::UnknownTopic,
        Self::TooManyTopics,
        Self::TooLarge,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoReplyTo => "no_reply_to",
            Self::NotAllowed => "not_allowed",
            Self::UnknownTopic => "unknown_topic",
            Self::TooManyTopics => "too_many_topics",
            Self::TooLarge => "too_large",
        }
    }
}

impl From<NoTarget> for Dropped {
    fn from(why: NoTarget) -> Self {
        match why {
            NoTarget::Unknown => Self::UnknownTopic,
            NoTarget::Internal => Self::NotAllowed,
            NoTarget::TooMany => Self::TooManyTopics,
        }
    }
}

/// Whether nobody waits for the answer to this message any more.
#[must_use]
pub fn is_expired(headers: &Headers<'_>, now_ms: i64) -> bool {
    if headers.is_empty() {
        return false;
    }
    let text = headers
        .last(DEADLINE)
        .and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse::<i64>().ok())
        .is_some_and(|deadline_ms| now_ms > deadline_ms)
}

/// A reply copies no headers of its request.
pub(super) static NO_HEADERS: HeaderRule = HeaderRule(Vec::new());

/// What a reply has of its request, beside what every output has.
pub(super) fn made(request: &Headers<'_>) -> Made {
    let id = request_id(request).map(|id| (REQUEST_ID.to_owned(), id.to_owned()));
    Made {
        key: None,
        headers: id.into_iter().collect(),
    }
}

fn request_id<'h>(request: &Headers<'h>) -> Option<&'h str> {
    let id = request.last(REQUEST_ID)?;
    let fits = id.len() <= REQUEST_ID_BYTES_MAX;
    fits.then(|| std::str::from_utf8(id).ok()).flatten()
}

/// Adds a reply to the settlement of its request.
pub(super) fn send<C: Connector>(
    connector: &mut C,
    settlement: &mut Settlement,
    rule: &ReplyRule,
    request: &Headers<'_>,
    reply: &MessageRef<'_>,
) -> Result<Target, Dropped> {
    let to = request.last(REPLY_TO).ok_or(Dropped::NoReplyTo)?;
    let to = std::str::from_utf8(to).map_err(|_| Dropped::NotAllowed)?;
    if !rule.allows(to) {
        return Err(Dropped::NotAllowed);
    }
    let target = connector.reply_target(to)?;
    if reply.record_len() > connector.record_bytes_max(usize::from(target)) {
        return Err(Dropped::TooLarge);
    }
    settlement.publish(target, reply);
    Ok(target)
}

/// A stored reply as the answer to a duplicate: under the duplicate's own IDs. `None` when the headers do
/// not fit.
pub(super) fn again<'a>(
    stored: &MessageRef<'a>,
    duplicate: &Headers<'_>,
    correlation_id: &str,
    headers: &'a mut HeadersBuf,
) -> Option<MessageRef<'a>> {
    headers.clear();
    let mut ok = headers.push(correlation::HEADER, Some(correlation_id.as_bytes()));
    for (name, value) in stored.headers.iter() {
        if name != correlation::HEADER && name != REQUEST_ID {
            ok &= headers.push(name, value);
        }
    }
    if let Some(id) = request_id(duplicate) {
        ok &= headers.push(REQUEST_ID, Some(id.as_bytes()));
    }
    ok.then(|| MessageRef {
        headers: headers.as_headers(),
        ..*stored
    })
}

/// Says that replies were dropped, seldom enough for any number of them.
#[derive(Debug, Default)]
pub(super) struct Notice {
    said_ns: Option<u64>,
    unsaid: u64,
}

impl Notice {
    /// How many there were since the last time, when it is time to say so again.
    pub(super) fn one_more(&mut self, now_ns: u64) -> Option<u64> {
        self.unsaid += 1;
        let is_due = self
            .said_ns
            .is_none_or(|said| now_ns.saturating_sub(said) >= SAY_NS);
        is_due.then(|| {
            self.said_ns = Some(now_ns);
            std::mem::take(&mut self.unsaid)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&str, &str)]) -> HeadersBuf {
        let mut headers = HeadersBuf::new();
        for (name, value) in of {
            assert!(headers.push(name, Some(value.as_bytes())));
        }
        headers
    }

    /// §8.1
    #[test]
    fn a_topic_is_allowed_by_its_name_or_by_a_prefix() {
        let rule = ReplyRule(vec!["exact".to_owned(), "pricing.replies.*".to_owned()]);
        for (topic, allowed) in [
            ("exact", true),
            ("exactly", false),
            ("pricing.replies.", true),
            ("pricing.replies.eu", true),
            ("pricing.reply", false),
            ("", false),
        ] {
            assert_eq!(rule.allows(topic), allowed, "{topic:?}");
        }
        assert!(!ReplyRule::default().allows("exact"));
    }

    /// §8.2
    #[test]
    fn a_request_expires_after_its_deadline_and_only_with_one_that_is_a_number() {
        let expired = |text: &str| is_expired(&headers(&[(DEADLINE, text)]).as_headers(), 1_000);
        assert!(expired("999") && expired("-1"));
        for text in ["1000", "1001", "", "soon", "9e99", "99999999999999999999"] {
            assert!(!expired(text), "{text:?}");
        }
        assert!(!is_expired(&Headers::default(), i64::MAX));
    }

    /// §8.2: the duplicate's own IDs, everything else as it was.
    #[test]
    fn a_duplicate_is_answered_under_its_own_ids() {
        let first = headers(&[
            ("correlation-id", "one"),
            ("own", "kept"),
            (REQUEST_ID, "r1"),
        ]);
        let stored = MessageRef {
            key: Some(b"k"),
            payload: Some(b"p"),
            headers: first.as_headers(),
            timestamp_ms: 5,
        };
        let mut buffer = HeadersBuf::new();
        let duplicate = headers(&[(REQUEST_ID, "r2")]);
        let answer = again(&stored, &duplicate.as_headers(), "two", &mut buffer).unwrap();
        let found: Vec<_> = answer
            .headers
            .iter()
            .map(|(name, value)| (name, std::str::from_utf8(value.unwrap()).unwrap()))
            .collect();
        let expected = [
            ("correlation-id", "two"),
            ("own", "kept"),
            (REQUEST_ID, "r2"),
        ];
        assert_eq!(found, expected);
        assert_eq!((answer.payload, answer.timestamp_ms), (stored.payload, 5));
        // Who did not give one must not get somebody else's.
        let mut buffer = HeadersBuf::new();
        let answer = again(&stored, &Headers::default(), "three", &mut buffer).unwrap();
        assert_eq!(answer.headers.last(REQUEST_ID), None);
    }

    #[test]
    fn request_id_bytes_max_bounds_what_is_carried_back() {
        let (fits, long) = (
            "x".repeat(REQUEST_ID_BYTES_MAX),
            "x".repeat(REQUEST_ID_BYTES_MAX + 1),
        );
        let carried = |id: &str| {
            made(&headers(&[(REQUEST_ID, id)]).as_headers())
                .headers
                .len()
        };
        assert_eq!((carried(&fits), carried(&long)), (1, 0));
    }

    #[test]
    fn dropped_replies_are_said_at_once_and_then_seldom_with_their_number() {
        let mut notice = Notice::default();
        assert_eq!(notice.one_more(5), Some(1));
        for _ in 0..1_000 {
            assert_eq!(notice.one_more(SAY_NS), None);
        }
        assert_eq!(notice.one_more(SAY_NS + 5), Some(1_001));
    }
}
