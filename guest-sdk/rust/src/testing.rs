//! For tests of handlers on the machine they are written on: messages to hand in, and a stand-in for
//! the host. The stand-in belongs to the thread, so tests do not see each other's.

use crate::__private::IntoResult;
use crate::{Failure, Headers, Message, Outputs, dispatch, headers};
use serde::Serialize;

/// A message for a test, by default: topic `test`, partition 0, offset 0, timestamp 0, first attempt,
/// an empty payload, no key, no headers, correlation ID `test`.
///
/// ```
/// use wasmill_sdk::Message;
///
/// let message = Message::test().topic("orders").key("ada").payload("{}").attempt(2);
/// assert_eq!(message.build().key(), Some(&b"ada"[..]));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct TestMessage {
    topic: String,
    partition: u32,
    attempt: u32,
    offset: u64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    header_count: u16,
    header_block: Vec<u8>,
    correlation_id: String,
    idempotency_key: Option<String>,
}

impl Default for TestMessage {
    fn default() -> Self {
        Self {
            topic: "test".into(),
            partition: 0,
            attempt: 1,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            payload: Some(Vec::new()),
            header_count: 0,
            header_block: Vec::new(),
            correlation_id: "test".into(),
            idempotency_key: None,
        }
    }
}

impl TestMessage {
    /// Sets the topic.
    pub fn topic(mut self, topic: &str) -> Self {
        self.topic = topic.into();
        self
    }

    /// Sets the partition.
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = partition;
        self
    }

    /// Sets the offset.
    pub fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    /// Sets the timestamp, in Unix milliseconds.
    pub fn timestamp(mut self, unix_ms: i64) -> Self {
        self.timestamp_ms = unix_ms;
        self
    }

    /// Sets the key.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the payload.
    pub fn payload(mut self, payload: impl Into<Vec<u8>>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    /// Sets the payload to `value` as JSON.
    ///
    /// # Panics
    /// When `value` has no JSON form.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(payload) => self.payload(payload),
            Err(error) => panic!("the test's payload has no JSON form: {error}"),
        }
    }

    /// Takes the payload away.
    pub fn tombstone(mut self) -> Self {
        self.payload = None;
        self
    }

    /// Adds a header.
    ///
    /// # Panics
    /// When the name is over 65,535 bytes.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let fits = headers::push(&mut self.header_block, name, value.as_ref());
        assert!(fits, "the test's header is too long");
        self.header_count += 1;
        self
    }

    /// Sets which attempt it is, from 1.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Sets the correlation ID.
    pub fn correlation_id(mut self, id: &str) -> Self {
        self.correlation_id = id.into();
        self
    }

    /// Sets the idempotency key.
    pub fn idempotency_key(mut self, key: &str) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }

    /// The message as a handler sees it.
    #[must_use]
    pub fn build(&self) -> Message<'_> {
        Message {
            topic: &self.topic,
            partition: self.partition,
            attempt: self.attempt,
            offset: self.offset,
            timestamp_ms: self.timestamp_ms,
            key: self.key.as_deref(),
            payload: self.payload.as_deref(),
            headers: Headers::new(self.header_count, &self.header_block),
            correlation_id: self.correlation_id.as_bytes(),
            idempotency_key: self.idempotency_key.as_deref().map(str::as_bytes),
        }
    }

    /// Calls `handler` with it.
    pub fn handle<R>(&self, handler: impl for<'a> Fn(Message<'a>) -> R) -> Result<Outputs, Failure>
    where
        R: IntoResult,
    {
        handler(self.build()).into_result()
    }
}

/// Answers one frame (wit/FRAME.md) as the component would. Fails on a frame that no host sends, where
/// the component ends its instance.
pub fn answer_frame<R: IntoResult>(
    frame: &[u8],
    handler: impl for<'a> Fn(Message<'a>) -> R,
) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    dispatch::answer(frame, &mut answer, &handler).map_err(|error| error.to_string())?;
    Ok(answer)
}

#[cfg(not(target_family = "wasm"))]
pub use stand_in::*;

/// What stands in for the host's imports where there is no host.
#[cfg(not(target_family = "wasm"))]
mod stand_in {
    pub use super::super::stand_in::LogLine;
    use super::super::stand_in::with;

    /// Sets one entry of the configuration.
    pub fn set_config(key: &str, value: &str) {
        with(|host| host.set_config(key, value));
    }

    /// Sets what [`crate::clock::now`] answers, in Unix milliseconds; 0 until then.
    pub fn set_clock(unix_ms: u64) {
        with(|host| host.clock_ms = unix_ms);
    }

    /// Starts [`crate::random::bytes`] anew from `seed`.
    pub fn set_random_seed(seed: u64) {
        with(|host| host.random = seed);
    }

    /// Sets how many bytes of state there may be; no limit until then.
    pub fn set_state_limit(bytes: usize) {
        with(|host| host.state_max = bytes);
    }

    /// The log lines written so far, and forgets them.
    #[must_use]
    pub fn logs() -> Vec<LogLine> {
        with(|host| std::mem::take(&mut host.lines))
    }

    /// Forgets everything this thread's stand-in was told.
    pub fn reset() {
        with(|host| *host = Default::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, config, random, state};

    #[test]
    fn configuration_is_what_was_set_last() {
        set_config("currency", "USD");
        set_config("currency", "EUR");
        assert_eq!(config::get("currency").as_deref(), Some("EUR"));
        assert_eq!(config::get("limit"), None);
        assert_eq!(config::all(), [("currency".to_owned(), "EUR".to_owned())]);
    }

    #[test]
    fn state_keeps_sorts_and_forgets() {
        for key in ["b/2", "a/1", "b/1"] {
            assert_eq!(state::set(key, key), Ok(()));
        }
        assert_eq!(state::get("a/1"), Some(b"a/1".to_vec()));
        let keys = |limit| -> Vec<String> {
            let found = state::scan("b/", limit);
            found.into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(keys(10), ["b/1", "b/2"]);
        assert_eq!(keys(1), ["b/1"]);
        state::delete("b/1");
        assert_eq!(keys(10), ["b/2"]);
    }

    #[test]
    fn state_refuses_what_the_host_would_refuse() {
        assert_eq!(state::set(&"k".repeat(1024), "v"), Ok(()));
        let too_large = Err(state::Error::TooLarge);
        assert_eq!(state::set(&"k".repeat(1025), "v"), too_large);
        assert_eq!(state::set("k", vec![0; 256 * 1024]), Ok(()));
        assert_eq!(state::set("k", vec![0; 256 * 1024 + 1]), too_large);
        reset();
        set_state_limit(4);
        assert_eq!(state::set("k", "123"), Ok(()));
        assert_eq!(
            state::set("k", "321"),
            Ok(()),
            "a replaced value counts once"
        );
        assert_eq!(state::set("l", ""), Err(state::Error::Full));
        assert!(Failure::from(state::Error::Full).is_retryable());
        assert!(Failure::from(state::Error::TooLarge).is_rejected());
    }

    #[test]
    fn clock_and_random_are_the_tests_to_set() {
        assert_eq!(clock::now(), 0);
        set_clock(1_700_000_000_000);
        assert_eq!(clock::now(), 1_700_000_000_000);
        set_random_seed(7);
        let first = random::bytes(100_000);
        assert_eq!(first.len(), 100_000);
        assert_ne!(first, random::bytes(100_000));
        set_random_seed(7);
        assert_eq!(first, random::bytes(100_000));
    }
}
