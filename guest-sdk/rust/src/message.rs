//! What a handler is given: one delivery of one message, borrowed from the frame it came in.

use crate::{Failure, Headers, TestMessage};
use serde::Deserialize;

/// One delivery of one message. All accessors borrow; nothing is copied until you ask for it.
///
/// `Message` and `Message<'_>` are the same in a function's signature.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) attempt: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) payload: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
    pub(crate) correlation_id: &'a [u8],
    pub(crate) idempotency_key: Option<&'a [u8]>,
}

impl Message<'_> {
    /// A message for a test of your handler; see [`TestMessage`].
    pub fn test() -> TestMessage {
        TestMessage::default()
    }
}

impl<'a> Message<'a> {
    /// The topic it was read from.
    #[must_use]
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The partition it was read from.
    #[must_use]
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Its position in the partition.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// When it was published, in Unix milliseconds.
    #[must_use]
    pub fn timestamp(&self) -> i64 {
        self.timestamp_ms
    }

    /// The key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// The payload. `None` is a tombstone ("forget this key"), which is not the same as empty.
    #[must_use]
    pub fn payload(&self) -> Option<&'a [u8]> {
        self.payload
    }

    /// The payload as UTF-8; rejected when there is none or it is something else.
    pub fn text(&self) -> Result<&'a str, Failure> {
        std::str::from_utf8(self.present_payload()?)
            .map_err(|error| Failure::rejected(format!("payload is not UTF-8: {error}")))
    }

    /// The payload as JSON; rejected, with line and column, when it is not what `T` expects.
    /// Fields may borrow from the message:
    ///
    /// ```
    /// use std::borrow::Cow;
    /// use wasmill_sdk::{Failure, Message};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Order<'a> {
    ///     id: u64,
    ///     #[serde(borrow)]
    ///     customer: Cow<'a, str>,
    /// }
    ///
    /// let message = Message::test().payload(r#"{"id": 7, "customer": "ada"}"#);
    /// let order: Order = message.build().json()?;
    /// assert_eq!((order.id, &*order.customer), (7, "ada"));
    /// # Ok::<(), Failure>(())
    /// ```
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, Failure> {
        serde_json::from_slice(self.present_payload()?).map_err(|error| {
            Failure::rejected(format!("payload is not the JSON expected here: {error}"))
        })
    }

    /// The headers, in order.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        self.headers
    }

    /// The last value of the header `name`.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.get(name)
    }

    /// 1 the first time, one more for each further attempt.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The ID that follows this message through everything it causes. Outputs get it by themselves.
    #[must_use]
    pub fn correlation_id(&self) -> &'a str {
        text_from_host(self.correlation_id)
    }

    /// What the pipeline's `idempotency.key` came to, when it has one. Pass it on to whatever you
    /// call, so that a repeated call there is recognised too.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&'a str> {
        self.idempotency_key.map(text_from_host)
    }

    fn present_payload(&self) -> Result<&'a [u8], Failure> {
        self.payload
            .ok_or_else(|| Failure::rejected("payload is absent (a tombstone)"))
    }
}

impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Message")
            .field("topic", &self.topic())
            .field("partition", &self.partition)
            .field("offset", &self.offset)
            .field("timestamp", &self.timestamp_ms)
            .field("key", &self.key.map(String::from_utf8_lossy))
            .field("payload", &self.payload.map(String::from_utf8_lossy))
            .field("headers", &self.headers)
            .field("attempt", &self.attempt)
            .field("correlation_id", &self.correlation_id())
            .field("idempotency_key", &self.idempotency_key())
            .finish()
    }
}

/// The frame promises UTF-8 here; it is looked at only when somebody reads it.
fn text_from_host(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_does_not_fit_is_rejected_with_line_and_column() {
        #[derive(Debug, serde::Deserialize)]
        struct Order {
            #[serde(rename = "id")]
            _id: u64,
        }
        let message = Message::test().payload("{\n  \"id\": \"seven\"}");
        let failure = message.build().json::<Order>().unwrap_err();
        assert!(failure.is_rejected());
        assert_eq!(
            failure.reason(),
            "payload is not the JSON expected here: invalid type: string \"seven\", expected u64 at line 2 column 15"
        );
    }

    #[test]
    fn a_tombstone_is_no_json_and_no_text() {
        let message = Message::test().tombstone();
        assert!(message.build().payload().is_none());
        assert!(message.build().json::<u8>().unwrap_err().is_rejected());
        assert!(message.build().text().unwrap_err().is_rejected());
    }

    #[test]
    fn an_empty_payload_is_not_a_tombstone() {
        let message = Message::test().payload("");
        assert_eq!(message.build().payload(), Some(&b""[..]));
        assert_eq!(message.build().text(), Ok(""));
    }
}
