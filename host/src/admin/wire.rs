//! What goes over the admin port, as JSON: the shapes shared by its routes, by the client and by the
//! command line's `-o json`. Not here: how the answers come about (`console.rs`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type};
use utoipa::{IntoParams, PartialSchema, ToSchema};

pub use super::letters::wire::*;
use crate::pipeline::snapshot::{Holder, Snapshot};

/// Bytes of a key, payload or header value: a JSON string when they are UTF-8, else
/// `{"base64": "…"}`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Blob(pub Vec<u8>);

/// A header; a null value (Kafka has them) is `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Header {
    pub name: String,
    pub value: Option<Blob>,
}

/// A message that stands in a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Message {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    /// Unix ms.
    pub timestamp_ms: i64,
    pub key: Option<Blob>,
    /// `null` is a tombstone.
    pub payload: Option<Blob>,
    pub headers: Vec<Header>,
}

/// A message to write.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Record {
    #[serde(default)]
    pub key: Option<Blob>,
    #[serde(default)]
    pub payload: Option<Blob>,
    #[serde(default)]
    pub headers: Vec<Header>,
    /// Unix ms; the host's clock when absent.
    #[serde(default)]
    pub timestamp_ms: Option<i64>,
    /// By the key when absent.
    #[serde(default)]
    pub partition: Option<u32>,
}

/// `POST /v1/topics/{topic}/messages`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProduceRequest {
    pub records: Vec<Record>,
}

/// All records of the request are durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProduceReply {
    pub acknowledged: u64,
    pub partitions: Vec<AppendedRange>,
    /// Of each record: its own `correlation-id`, or the one it was given because it had none (§12.2).
    #[serde(default)]
    pub correlation_ids: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppendedRange {
    pub partition: u32,
    pub first_offset: u64,
    pub count: u64,
}

/// `GET /v1/topics/{topic}/messages?partition=&offset=&limit=&wait_ms=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ReadRequest {
    pub partition: u32,
    /// First offset wanted; one that retention removed is moved up to the earliest kept.
    pub offset: u64,
    /// Messages at most. Default and cap: [`super::console::PAGE_MESSAGES_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
    /// How long to wait for a first message when there is none, ms.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Page {
    pub messages: Vec<Message>,
    /// Where the next page begins.
    pub next_offset: u64,
    /// Next offset to be written in the partition.
    pub end_offset: u64,
}

/// `GET /v1/topics/{topic}/partitions/{partition}/offset?timestamp_ms=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OffsetReply {
    /// Of the first message at or after the time; the end when there is none.
    pub offset: u64,
}

/// `POST /v1/topics`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTopic {
    pub name: String,
    pub partitions: u32,
    /// Messages older than this are removed; `null` keeps them.
    #[serde(default)]
    pub retention_ms: Option<u64>,
    /// Bytes kept per partition; `null` keeps all.
    #[serde(default)]
    pub retention_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicSummary {
    pub topic: String,
    pub partitions: u32,
    pub messages: u64,
    /// Only a host writes to it: messages on their way back to a pipeline.
    #[serde(default)]
    pub internal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicDescription {
    pub topic: String,
    pub retention_ms: Option<u64>,
    pub retention_bytes: Option<u64>,
    /// Largest message accepted, bytes of its record.
    pub message_bytes_max: u64,
    pub partitions: Vec<PartitionDescription>,
    /// Groups that have committed on it.
    pub groups: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartitionDescription {
    pub partition: u32,
    /// Earliest offset kept.
    pub earliest: u64,
    /// Next offset to be written.
    pub end: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupSummary {
    pub group: String,
    /// Pipelines of this host that read as the group.
    pub pipelines: Vec<String>,
    pub topics: Vec<String>,
    pub lag: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupDescription {
    pub group: String,
    pub pipelines: Vec<String>,
    pub partitions: Vec<GroupPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupPartition {
    pub topic: String,
    pub partition: u32,
    /// First offset that is not settled.
    pub committed: u64,
    pub end: u64,
    /// `end - committed`.
    pub lag: u64,
    /// Messages read and not finished, when a host runs.
    pub held: u64,
    /// Of the message at `committed`: attempts that failed, as the log remembers them.
    pub failed_attempts: u32,
    /// Of the last of them.
    pub last_error: Option<String>,
    pub holder: Option<Holder>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterTopic {
    pub topic: String,
    pub messages: u64,
}

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The running host; `null` when a command opened the directory itself.
    pub host: Option<HostFacts>,
    pub store: StoreHealth,
    pub pipelines: Vec<Snapshot>,
    pub dead_letters: Vec<DeadLetterTopic>,
    #[serde(default)]
    pub backlogs: Vec<Backlog>,
}

/// What waits beside the path of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backlog {
    pub pipeline: String,
    /// Deferred retries, until they are due and done.
    pub retries_waiting: u64,
    /// Dead letters on their way back.
    pub redrives_waiting: u64,
    /// Dead letters that somebody has to look at: new, failed again, or lost on their way back.
    pub dead_letters_open: u64,
    /// There may be more of them than were counted.
    pub dead_letters_more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HostFacts {
    pub pid: u32,
    pub version: String,
    /// Unix ms.
    pub started_at_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreHealth {
    pub healthy: bool,
    pub why: Option<String>,
}

impl PartialSchema for Blob {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let encoded = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("base64", text())
            .required("base64");
        OneOfBuilder::new()
            .item(text())
            .item(encoded)
            .description(Some("bytes: text when they are UTF-8, else base64"))
            .into()
    }
}

impl ToSchema for Blob {}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &STANDARD.encode(&self.0))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BlobVisitor)
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a string or {\"base64\": \"…\"}")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Blob, E> {
        Ok(Blob(text.as_bytes().to_vec()))
    }

    fn visit_string<E: serde::de::Error>(self, text: String) -> Result<Blob, E> {
        Ok(Blob(text.into_bytes()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Blob, A::Error> {
        let Some((name, text)) = map.next_entry::<String, String>()? else {
            return Err(A::Error::custom("expected {\"base64\": \"…\"}"));
        };
        if name != "base64" || map.next_key::<String>()?.is_some() {
            return Err(A::Error::custom("expected the single field \"base64\""));
        }
        STANDARD
            .decode(&text)
            .map(Blob)
            .map_err(|why| A::Error::custom(format!("not base64: {why}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_read_back_as_they_were_written(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let blob = Blob(bytes);
            let json = serde_json::to_string(&blob).unwrap();
            prop_assert_eq!(serde_json::from_str::<Blob>(&json).unwrap(), blob);
        }
    }

    #[test]
    fn text_is_a_string_and_other_bytes_are_base64() {
        assert_eq!(
            serde_json::to_string(&Blob(b"abc".to_vec())).unwrap(),
            r#""abc""#
        );
        assert_eq!(
            serde_json::to_string(&Blob(vec![0xff, 0])).unwrap(),
            r#"{"base64":"/wA="}"#
        );
    }

    #[test]
    fn a_blob_that_is_neither_is_refused() {
        for json in [
            r#"{"base64":"*"}"#,
            r#"{"hex":"00"}"#,
            "{}",
            "7",
            r#"{"base64":"","x":""}"#,
        ] {
            assert!(serde_json::from_str::<Blob>(json).is_err(), "{json}");
        }
    }
}
