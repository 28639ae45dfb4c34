//! Replies (§8.1): where a message's answer may go, and the answer that a duplicate gets from the record of
//! the first. Pure. Not here: finding the topic (`connector`), and who waits for the answer (`admin`).

use crate::message::{HeadersBuf, MessageRef};
use crate::pipeline::correlation;
use crate::pipeline::output::Made;

/// The output by which a handler answers.
pub const OUTPUT: &str = "reply";
/// Where a message wants its answer.
pub const REPLY_TO: &str = "reply-to";
/// Unix ms as text: a request later than this is not executed.
pub const DEADLINE: &str = "wasmill-deadline";

/// Which request it is; its answer carries it as well. Unlike a correlation ID it is never used twice.
pub const REQUEST_ID: &str = "wasmill-request-id";
/// A longer one is not carried.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// Topics to which a pipeline answers: names, or prefixes with a final `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyRule(pub Vec<String>);

/// Why an answer goes nowhere. The message succeeds all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// The message does not say where.
    NoReplyTo,
    /// The pipeline may not answer there.
    NotAllowed,
    /// There is no such topic, or it is internal, or there are too many of them.
    NoTopic,
    /// The answer from the record of the first does not fit the topic in which a duplicate wants it.
    TooLarge,
}

impl Dropped {
    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoReplyTo => "no_reply_to",
            Self::NotAllowed => "not_allowed",
            Self::NoTopic => "no_topic",
            Self::TooLarge => "too_large",
        }
    }

    /// For who wonders where it is.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::NoReplyTo => "its message has no `reply-to` header",
            Self::NotAllowed => "`reply.topics` of the pipeline does not name its topic",
            Self::NoTopic => {
                "there is no such topic, it is internal, or there are too many; see `wasmill topics list`"
            }
            Self::TooLarge => "it is larger than its topic accepts; see `wasmill topics describe`",
        }
    }
}

impl ReplyRule {
    fn allows(&self, topic: &str) -> bool {
        self.0.iter().any(|rule| match rule.strip_suffix('*') {
            Some(prefix) => topic.starts_with(prefix),
            None => rule == topic,
        })
    }

    /// Where the answer to `message` goes.
    pub fn topic<'m>(&self, message: &MessageRef<'m>) -> Result<&'m str, Dropped> {
        let wanted = message.headers.last(REPLY_TO).unwrap_or_default();
        let topic = std::str::from_utf8(wanted).unwrap_or_default();
        if topic.is_empty() {
            return Err(Dropped::NoReplyTo);
        }
        self.allows(topic)
            .then_some(topic)
            .ok_or(Dropped::NotAllowed)
    }
}

/// Whether the message's deadline has passed. A deadline that is no number is none.
#[must_use]
pub fn is_expired(message: &MessageRef<'_>, unix_ms: i64) -> bool {
    let deadline = message.headers.last(DEADLINE);
    let deadline = deadline.and_then(|value| std::str::from_utf8(value).ok()?.parse::<i64>().ok());
    deadline.is_some_and(|deadline| unix_ms > deadline)
}

fn request_id<'m>(message: &MessageRef<'m>) -> Option<&'m str> {
    let id = message.headers.last(REQUEST_ID)?;
    let fits = id.len() <= REQUEST_ID_BYTES_MAX;
    fits.then(|| std::str::from_utf8(id).ok()).flatten()
}

/// What an answer has of its question, beside what every output has.
#[must_use]
pub fn made(question: &MessageRef<'_>) -> Made {
    let id = request_id(question).map(|id| (REQUEST_ID.to_owned(), id.to_owned()));
    Made {
        key: None,
        headers: id.into_iter().collect(),
    }
}

/// The answer that stands in a record, for another question: under that one's IDs.
pub fn again<'a>(
    stored: &MessageRef<'a>,
    question: &MessageRef<'_>,
    correlation_id: &str,
    headers: &'a mut HeadersBuf,
) -> Option<MessageRef<'a>> {
    headers.clear();
    let mut fits = headers.push(correlation::HEADER, Some(correlation_id.as_bytes()));
    let others = stored.headers.iter();
    for (name, value) in
        others.filter(|(name, _)| ![correlation::HEADER, REQUEST_ID].contains(name))
    {
        fits &= headers.push(name, value);
    }
    if let Some(id) = request_id(question) {
        fits &= headers.push(REQUEST_ID, Some(id.as_bytes()));
    }
    fits.then_some(MessageRef {
        headers: headers.as_headers(),
        ..*stored
    })
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

    #[test]
    fn an_answer_goes_where_the_message_says_and_the_pipeline_allows() {
        let rule = ReplyRule(vec!["wasmill.replies.*".into(), "answers".into()]);
        let topic = |of: &[(&str, &str)]| {
            let headers = headers(of);
            let message = MessageRef {
                headers: headers.as_headers(),
                ..MessageRef::default()
            };
            rule.topic(&message).map(str::to_owned)
        };
        assert_eq!(
            topic(&[(REPLY_TO, "wasmill.replies.7")]).unwrap(),
            "wasmill.replies.7"
        );
        assert_eq!(
            topic(&[(REPLY_TO, "x"), (REPLY_TO, "answers")]).unwrap(),
            "answers"
        );
        assert_eq!(
            topic(&[(REPLY_TO, "answers.more")]),
            Err(Dropped::NotAllowed)
        );
        assert_eq!(topic(&[(REPLY_TO, "")]), Err(Dropped::NoReplyTo));
        assert_eq!(topic(&[]), Err(Dropped::NoReplyTo));
    }

    #[test]
    fn a_deadline_is_past_after_its_millisecond_and_nonsense_is_none() {
        let expired = |value: &str| {
            let headers = headers(&[(DEADLINE, value)]);
            let message = MessageRef {
                headers: headers.as_headers(),
                ..MessageRef::default()
            };
            is_expired(&message, 1_000)
        };
        assert!(expired("999") && !expired("1000") && !expired("soon") && !expired(""));
        assert!(!is_expired(&MessageRef::default(), i64::MAX));
    }

    /// §8.2
    #[test]
    fn an_answer_given_again_carries_the_ids_of_who_asks_now() {
        let first = headers(&[
            (correlation::HEADER, "first"),
            (REQUEST_ID, "r1"),
            ("own", "kept"),
        ]);
        let stored = MessageRef {
            payload: Some(b"42"),
            headers: first.as_headers(),
            ..MessageRef::default()
        };
        let again_for = |of: &[(&str, &str)]| {
            let question = headers(of);
            let question = MessageRef {
                headers: question.as_headers(),
                ..MessageRef::default()
            };
            let mut buffer = HeadersBuf::new();
            let answer = again(&stored, &question, "second", &mut buffer).unwrap();
            assert_eq!(answer.payload, Some(&b"42"[..]));
            let found = answer.headers.iter();
            found
                .map(|(name, value)| {
                    let value = std::str::from_utf8(value.unwrap()).unwrap();
                    (name.to_owned(), value.to_owned())
                })
                .collect::<Vec<_>>()
        };
        let pairs = |of: &[(&str, &str)]| {
            let owned = of.iter().map(|&(n, v)| (n.to_owned(), v.to_owned()));
            owned.collect::<Vec<_>>()
        };
        let common = [(correlation::HEADER, "second"), ("own", "kept")];
        assert_eq!(
            again_for(&[(REQUEST_ID, "r2")]),
            pairs(&[&common[..], &[(REQUEST_ID, "r2")]].concat())
        );
        // Who has none must not get somebody else's.
        assert_eq!(again_for(&[]), pairs(&common));
    }

    #[test]
    fn request_id_bytes_max_bounds_what_is_carried() {
        let carried = |len: usize| {
            let question = headers(&[(REQUEST_ID, &"x".repeat(len))]);
            let question = MessageRef {
                headers: question.as_headers(),
                ..MessageRef::default()
            };
            made(&question).headers.len()
        };
        assert_eq!(carried(REQUEST_ID_BYTES_MAX), 1);
        assert_eq!(carried(REQUEST_ID_BYTES_MAX + 1), 0);
    }
}
