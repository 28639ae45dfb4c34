//! One message to publish, kept in the bytes in which it will stand in the outgoing frame.

use crate::{Failure, Headers, headers, spare};
use serde::Serialize;

/// What an output takes for its key or its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// The input's, unchanged.
    Inherit,
    /// None at all. A payload of none is a tombstone.
    None,
    /// These bytes.
    Value(&'a [u8]),
}

/// One message to publish. It starts with the key and the payload of its input; nothing that was
/// forgotten can turn into a tombstone.
///
/// ```
/// use wasmill_sdk::{Failure, Field, Output};
///
/// let output = Output::to("suspicious")
///     .key("customer-7")
///     .json(&serde_json::json!({"score": 0.97}))?
///     .header("rule", "velocity");
/// assert_eq!(output.payload_field(), Field::Value(br#"{"score":0.97}"#));
/// # Ok::<(), Failure>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Output {
    key: Presence,
    payload: Presence,
    /// A name or a header did not fit the frame. Kept here so that builder methods need not fail.
    oversize: bool,
    header_count: u16,
    name_len: usize,
    key_len: usize,
    payload_len: usize,
    /// Name, key, payload, header block.
    body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Inherit = 0,
    None = 1,
    Value = 2,
}

/// Bytes before the body of an output in a frame.
const HEADER_LEN: usize = 24;

impl Output {
    /// An output to the entry `name` under `outputs:` of the pipeline (not the name of a topic).
    #[must_use]
    pub fn to(name: &str) -> Self {
        let mut body = spare::take();
        body.extend_from_slice(name.as_bytes());
        Self {
            key: Presence::Inherit,
            payload: Presence::Inherit,
            oversize: name.len() > usize::from(u16::MAX),
            header_count: 0,
            name_len: name.len(),
            key_len: 0,
            payload_len: 0,
            body,
        }
    }

    /// Publishes under this key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.set_key(Presence::Value, key.as_ref());
        self
    }

    /// Publishes without a key.
    #[must_use]
    pub fn no_key(mut self) -> Self {
        self.set_key(Presence::None, &[]);
        self
    }

    /// Publishes under the key of the input. This is the default.
    #[must_use]
    pub fn inherit_key(mut self) -> Self {
        self.set_key(Presence::Inherit, &[]);
        self
    }

    /// Publishes these bytes.
    #[must_use]
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.set_payload(Presence::Value, payload.as_ref());
        self
    }

    /// Publishes the payload of the input. This is the default.
    #[must_use]
    pub fn inherit_payload(mut self) -> Self {
        self.set_payload(Presence::Inherit, &[]);
        self
    }

    /// Publishes no payload at all: on a compacted topic, "forget this key".
    #[must_use]
    pub fn tombstone(mut self) -> Self {
        self.set_payload(Presence::None, &[]);
        self
    }

    /// Publishes `value` as JSON, written where it will be sent from. Rejected when `value` has no
    /// JSON form (a map whose keys are not text, for example).
    pub fn json<T: Serialize + ?Sized>(mut self, value: &T) -> Result<Self, Failure> {
        let start = self.name_len + self.key_len;
        // Empty, and so free of cost, unless headers were added first.
        let headers = self.body.split_off(start + self.payload_len);
        self.body.truncate(start);
        let written = serde_json::to_writer(&mut self.body, value);
        self.payload = Presence::Value;
        self.payload_len = self.body.len() - start;
        self.body.extend_from_slice(&headers);
        match written {
            Ok(()) => Ok(self),
            Err(error) => Err(Failure::rejected(format!(
                "output `{}` cannot be written as JSON: {error}",
                self.name()
            ))),
        }
    }

    /// Adds a header. Headers of the input are not copied; the pipeline's `outputs.*.headers` does that.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        match self.header_count.checked_add(1) {
            Some(count) if headers::push(&mut self.body, name, value.as_ref()) => {
                self.header_count = count;
            }
            _ => self.oversize = true,
        }
        self
    }

    /// The entry under `outputs:` it goes to.
    #[must_use]
    pub fn name(&self) -> &str {
        std::str::from_utf8(self.section(0, self.name_len)).unwrap_or_default()
    }

    /// What it takes for its key.
    #[must_use]
    pub fn key_field(&self) -> Field<'_> {
        field(self.key, self.section(self.name_len, self.key_len))
    }

    /// What it takes for its payload.
    #[must_use]
    pub fn payload_field(&self) -> Field<'_> {
        let start = self.name_len + self.key_len;
        field(self.payload, self.section(start, self.payload_len))
    }

    /// The payload given here read as JSON: for tests. Rejected when it is inherited or absent.
    pub fn parse_json<'a, T: serde::Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        match self.payload_field() {
            Field::Value(bytes) => Ok(serde_json::from_slice(bytes)?),
            Field::Inherit | Field::None => {
                Err(Failure::rejected("the output has no payload of its own"))
            }
        }
    }

    /// The headers added here.
    #[must_use]
    pub fn headers(&self) -> Headers<'_> {
        let start = self.name_len + self.key_len + self.payload_len;
        Headers::new(
            self.header_count,
            self.body.get(start..).unwrap_or_default(),
        )
    }

    fn set_key(&mut self, presence: Presence, key: &[u8]) {
        self.replace(self.name_len, self.key_len, key);
        self.key = presence;
        self.key_len = key.len();
    }

    fn set_payload(&mut self, presence: Presence, payload: &[u8]) {
        self.replace(self.name_len + self.key_len, self.payload_len, payload);
        self.payload = presence;
        self.payload_len = payload.len();
    }

    fn replace(&mut self, start: usize, old_len: usize, new: &[u8]) {
        if start + old_len == self.body.len() {
            self.body.truncate(start);
            self.body.extend_from_slice(new);
        } else {
            self.body
                .splice(start..start + old_len, new.iter().copied());
        }
    }

    fn section(&self, start: usize, len: usize) -> &[u8] {
        self.body.get(start..start + len).unwrap_or_default()
    }

    /// Whether its lengths fit the fields of a frame.
    pub(crate) fn fits(&self) -> bool {
        !self.oversize && u32::try_from(HEADER_LEN + self.body.len()).is_ok()
    }

    /// Appends it as FRAME.md says. The caller has asked [`Output::fits`], so no length is cut.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let headers_len = self.body.len() - self.name_len - self.key_len - self.payload_len;
        let mut head = [0; HEADER_LEN];
        let mut rest = head.as_mut_slice();
        put(
            &mut rest,
            ((HEADER_LEN + self.body.len()) as u32).to_le_bytes(),
        );
        put(&mut rest, [self.key as u8, self.payload as u8]);
        put(&mut rest, (self.name_len as u16).to_le_bytes());
        put(&mut rest, (self.key_len as u32).to_le_bytes());
        put(&mut rest, (self.payload_len as u32).to_le_bytes());
        put(&mut rest, self.header_count.to_le_bytes());
        put(&mut rest, [0; 2]);
        put(&mut rest, (headers_len as u32).to_le_bytes());
        out.extend_from_slice(&head);
        out.extend_from_slice(&self.body);
    }
}

/// Writes `bytes` at the front of `rest` and moves past them.
fn put<const N: usize>(rest: &mut &mut [u8], bytes: [u8; N]) {
    if let Some((slot, tail)) = std::mem::take(rest).split_first_chunk_mut() {
        *slot = bytes;
        *rest = tail;
    }
}

fn field(presence: Presence, value: &[u8]) -> Field<'_> {
    match presence {
        Presence::Inherit => Field::Inherit,
        Presence::None => Field::None,
        Presence::Value => Field::Value(value),
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        spare::give_back(std::mem::take(&mut self.body));
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        struct Readable<'a>(Field<'a>);
        impl std::fmt::Debug for Readable<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self.0 {
                    Field::Value(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
                    other => write!(f, "{other:?}"),
                }
            }
        }
        f.debug_struct("Output")
            .field("name", &self.name())
            .field("key", &Readable(self.key_field()))
            .field("payload", &Readable(self.payload_field()))
            .field("headers", &self.headers())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_payload_is_inherited_and_never_a_tombstone() {
        // §2.5
        let output = Output::to("default");
        assert_eq!(output.key_field(), Field::Inherit);
        assert_eq!(output.payload_field(), Field::Inherit);
    }

    #[test]
    fn parts_may_be_set_in_any_order_and_again() {
        let expected = Output::to("a")
            .key("key")
            .payload("[1]")
            .header("h", "1")
            .header("i", "2");
        let other_way = Output::to("a")
            .header("h", "1")
            .payload("something longer to be replaced")
            .header("i", "2")
            .key("old")
            .json(&[1])
            .unwrap()
            .key("key");
        assert_eq!(other_way, expected);
        assert_eq!(expected.name(), "a");
        assert_eq!(expected.key_field(), Field::Value(b"key"));
        assert_eq!(expected.payload_field(), Field::Value(b"[1]"));
        assert_eq!(
            expected.headers().iter().collect::<Vec<_>>(),
            [("h", &b"1"[..]), ("i", &b"2"[..])]
        );
    }

    #[test]
    fn going_back_to_inherit_or_none_removes_the_bytes() {
        let plain = Output::to("a").no_key().tombstone();
        let back = Output::to("a")
            .key("k")
            .payload("p")
            .header("h", "v")
            .no_key()
            .tombstone();
        assert_eq!(back.key_field(), Field::None);
        assert_eq!(back.payload_field(), Field::None);
        assert_eq!(back.body.len(), plain.body.len() + 2 + 4 + 2);
        assert_eq!(
            back.clone().inherit_key().inherit_payload().key_field(),
            Field::Inherit
        );
    }

    #[test]
    fn a_value_without_json_form_is_rejected() {
        let map = std::collections::BTreeMap::from([((1, 2), 3)]);
        let failure = Output::to("a").json(&map).unwrap_err();
        assert!(failure.is_rejected());
        assert_eq!(
            failure.reason(),
            "output `a` cannot be written as JSON: key must be a string"
        );
    }

    #[test]
    fn names_and_headers_that_do_not_fit_the_frame_are_noticed() {
        assert!(Output::to(&"n".repeat(65_535)).fits());
        assert!(!Output::to(&"n".repeat(65_536)).fits());
        assert!(!Output::to("a").header(&"n".repeat(65_536), "").fits());
        let full = (0..65_535).fold(Output::to("a"), |output, _| output.header("", ""));
        assert!(full.fits());
        assert!(!full.header("", "").fits());
    }
}
