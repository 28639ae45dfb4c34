//! What a pipeline looks like from outside at one moment: read by `status`, `/readyz` and the gauges.
//! Plain data; the workers write it, nobody else changes it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    pub pipeline: String,
    pub consumer_group: String,
    pub state: State,
    /// Why, when the state is not `running`; lowercase, says what to do.
    pub why: Option<String>,
    /// `sha256:…` of the plugin file.
    pub plugin_digest: String,
    pub partitions: Vec<PartitionSnapshot>,
    pub totals: Totals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Starting,
    Running,
    /// Something holds it up (store failing, dead letters that cannot be written): it goes on by itself.
    Blocked,
    Draining,
    /// An operator paused it; its configuration says that it runs.
    Paused,
    Stopped,
    /// It stopped and needs a person.
    Failed,
}

/// Since this host started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Deliveries finished, whatever the outcome.
    pub consumed: u64,
    pub succeeded: u64,
    pub duplicates: u64,
    pub retries: u64,
    pub dead_letters: u64,
    /// at_most_once failures.
    pub discarded: u64,
    pub published: u64,
    /// Offsets that retention took before they were read (`on_lost_offset: earliest`).
    #[serde(default)]
    pub lost: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartitionSnapshot {
    pub topic: String,
    pub partition: u32,
    /// First offset that is not settled.
    pub committed: u64,
    /// Next offset to read.
    pub position: u64,
    /// Next offset to be written.
    pub end: u64,
    /// Messages read and not finished.
    pub held: u64,
    pub held_bytes: u64,
    /// Timestamp (Unix ms) of the oldest unfinished message, when there is one.
    pub oldest_unfinished_ms: Option<i64>,
    /// The message at `committed`, when it has failed, waits or is blocked.
    pub holder: Option<Holder>,
}

/// The message that holds a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    pub offset: u64,
    /// At most 128 bytes, lossy UTF-8.
    pub key: Option<String>,
    pub correlation_id: String,
    pub waits_for: WaitsFor,
    /// Attempts made so far.
    pub attempts: u32,
    pub max_attempts: u32,
    pub error: Option<String>,
    /// Unix ms.
    pub next_try_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// The next attempt.
    Retry,
    /// Another delivery with the same idempotency key.
    Claim,
    /// A sequence number before its own.
    Sequence,
    /// Its settlement is not durable yet.
    Settlement,
    /// The call runs.
    Call,
}
