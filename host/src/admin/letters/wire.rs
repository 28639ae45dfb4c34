//! What goes over the admin port about dead letters, as JSON. Not here: how the answers come about.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::admin::wire::{DeadLetterTopic, Message};
use crate::pipeline::letter_state::State;

/// Which dead letters are meant by their state.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum StateFilter {
    /// Those somebody has to look at: never redriven, failed again, or lost on their way back.
    #[default]
    New,
    /// On their way back to their consumer group.
    Redriving,
    /// Their consumer group has finished with them.
    Done,
    /// Closed by hand.
    Resolved,
    /// Given up by hand.
    Discarded,
    All,
}

/// Which dead letters are meant; all that is given must fit. `GET /v1/dlq?topic=&pipeline=…`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLetterFilter {
    /// A dead letter topic; all of them when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pipeline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_group: Option<String>,
    /// The ID of a failure group, as `GET /v1/dlq/groups` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The message's key: text, or `base64:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The digest of the plugin that failed, or how it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<String>,
    /// Failed at this Unix time in ms or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_ms: Option<i64>,
    /// Failed at this Unix time in ms or earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    pub state: StateFilter,
    /// At most this many, the newest. Default and cap: [`super::list::DEAD_LETTERS_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// How many messages of dead letter topics to look at. Default: as many as about half a second
    /// takes; cap: [`super::scan::SCAN_MESSAGES_MAX`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scan: Option<u64>,
}

/// A dead letter: its `wasmill-dlq-*` headers decoded (§6.1). A header that is missing or cannot be
/// read is `null`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Where it stands: `topic/partition@offset`.
    pub position: String,
    pub id: Option<String>,
    pub state: LetterState,
    pub reason: Option<String>,
    pub error: Option<String>,
    /// The ID of its failure group.
    pub failure_group: String,
    pub attempts: Option<u32>,
    /// Unix ms.
    pub first_failed_at_ms: Option<i64>,
    /// Unix ms.
    pub last_failed_at_ms: Option<i64>,
    pub origin_topic: Option<String>,
    pub origin_partition: Option<u32>,
    pub origin_offset: Option<u64>,
    /// Unix ms.
    pub origin_timestamp_ms: Option<i64>,
    pub group: Option<String>,
    pub pipeline: Option<String>,
    pub plugin_digest: Option<String>,
    pub redrive_count: Option<u32>,
    /// The message as it stands in the dead letter topic, its original headers only.
    pub message: Message,
    /// All rounds, the first one first; only when one dead letter is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Round>,
}

/// What became of a dead letter in its round (§6.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LetterState {
    pub state: State,
    /// When it came into it, Unix ms; of a new one `null`.
    pub at_ms: Option<i64>,
    /// `host`, `cli` or `http`.
    pub by: Option<String>,
    pub note: Option<String>,
    /// The redrive that sent it back.
    pub job: Option<String>,
    /// It is `redriving`, but its consumer group has gone past it without a word: nothing will come of it.
    pub lost: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Round {
    pub redrive_count: u32,
    #[serde(flatten)]
    pub state: LetterState,
}

/// `GET /v1/dlq`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterList {
    /// Newest first.
    pub dead_letters: Vec<DeadLetter>,
    pub topics: Vec<DeadLetterTopic>,
    #[serde(flatten)]
    pub scanned: Scanned,
}

/// How far an answer looked. Closed dead letters that lie together are passed without looking.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Scanned {
    /// Messages looked at.
    pub looked_at: u64,
    /// There are older ones that were not looked at: the limit, or the number of messages to look at,
    /// was reached.
    pub more: bool,
    /// Everything that failed later than this was looked at, Unix ms.
    pub back_to_ms: Option<i64>,
    /// Among those looked at that fit: on their way back.
    pub redriving: u64,
    /// Why there may be nothing: names in the filter that no dead letter has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// Dead letters of a pipeline and consumer group with the same reason and error shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailureGroup {
    pub id: String,
    pub pipeline: String,
    pub consumer_group: String,
    pub reason: String,
    /// The error with numbers, IDs and quoted strings replaced.
    pub error: String,
    pub count: u64,
    /// When its dead letters failed, Unix ms.
    pub first_at_ms: i64,
    pub last_at_ms: i64,
    /// The place of the newest one.
    pub example: String,
    /// Digests of the plugins that failed; at most [`super::groups::PLUGINS_SHOWN_MAX`].
    pub plugins: Vec<String>,
}

/// `GET /v1/dlq/groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailureGroupList {
    /// The largest first.
    pub groups: Vec<FailureGroup>,
    /// Dead letters of further groups.
    pub other: u64,
    #[serde(flatten)]
    pub scanned: Scanned,
}

/// Dead letters to act on: those named, or else all that fit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Selection {
    /// IDs and places (`topic/partition@offset`).
    pub ids: Vec<String>,
    pub filter: DeadLetterFilter,
    /// Must be said when neither names nor a filter say which.
    pub all: bool,
}

/// `POST /v1/dlq/resolve` and `/v1/dlq/purge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CloseRequest {
    pub selection: Selection,
    #[serde(default)]
    pub note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CloseReply {
    pub closed: u64,
    /// Named, but in a state from which they are not closed, as `position: state`.
    pub left: Vec<String>,
    /// Ask again: there are more, none of which failed later than `back_to_ms`.
    pub more: bool,
    pub back_to_ms: Option<i64>,
}

/// `POST /v1/dlq/redrive`, and with the same body `/v1/dlq/redrive/preview`, which changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveRequest {
    pub selection: Selection,
    /// Dead letters a second at most; as fast as it goes when absent.
    #[serde(default)]
    pub rate: Option<u32>,
    /// Stops when this many have failed again.
    #[serde(default)]
    pub stop_after: Option<u64>,
    /// Leaves those out that were redriven this often. Default: [`super::redrive::MAX_REDRIVES_DEFAULT`].
    #[serde(default)]
    pub max_redrives: Option<u32>,
    #[serde(default)]
    pub note: Option<String>,
}

/// What a redrive would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RedrivePreview {
    /// To which consumer group they would go.
    pub consumer_groups: Vec<String>,
    /// Dead letters that would go back.
    pub letters: u64,
    pub groups: Vec<FailureGroup>,
    /// Left out, because they were redriven too often.
    pub left_out: u64,
    /// Different keys of them (looked at, see `newer_is_lower_bound`).
    pub keys: u64,
    /// Keys of which the consumer group has processed a newer message already.
    pub newer_keys: u64,
    /// More keys may have one: only a part of the newer messages was looked at.
    pub newer_is_lower_bound: bool,
    #[serde(flatten)]
    pub scanned: Scanned,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Sends.
    Running,
    /// Everything is sent; the consumer group has not passed all of it.
    Draining,
    /// The consumer group has passed everything.
    Done,
    /// Too many failed again.
    Stopped,
    /// By hand.
    Cancelled,
}

/// A redrive, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    pub id: String,
    pub state: JobState,
    pub consumer_group: String,
    pub filter: DeadLetterFilter,
    pub rate: Option<u32>,
    pub stop_after: Option<u64>,
    pub max_redrives: u32,
    pub note: Option<String>,
    pub by: String,
    /// Unix ms.
    pub started_at_ms: i64,
    /// Unix ms.
    pub changed_at_ms: i64,
    /// Messages of dead letter topics it has yet to look at.
    pub to_look_at: u64,
    /// And has looked at.
    pub looked_at: u64,
    pub sent: u64,
    /// Sent, and not passed by the consumer group.
    pub waiting: u64,
    /// Left out, because they were redriven too often.
    pub left_out: u64,
    /// Dead letters of a higher round since it began.
    pub failed_again: u64,
    /// What keeps it from going on.
    pub trouble: Option<String>,
}

/// `GET /v1/messages/{topic}/{partition}/{offset}`: a message and what the host knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageFacts {
    pub message: Message,
    /// When it is a dead letter: decoded, with its history.
    pub dead_letter: Option<Box<DeadLetter>>,
    /// When it is on its way back to a consumer group.
    pub returned: Option<ReturnedFacts>,
    /// The consumer groups that read its topic.
    pub groups: Vec<MessageGroup>,
}

/// How far a consumer group is with a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MessageGroup {
    pub group: String,
    /// It is settled: its outputs or its dead letter are durable.
    pub finished: bool,
    /// Attempts that failed, of an unfinished one.
    pub failed_attempts: u32,
    pub last_error: Option<String>,
    /// The ID that its dead letter has if it is one.
    pub dead_letter_id: String,
    /// The place of its newest dead letter, when one is found among the newest.
    pub dead_letter: Option<String>,
    /// What became of its dead letters; of a new one nothing is kept.
    pub rounds: Vec<Round>,
}

/// What the host wrote on a message that goes back to its consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReturnedFacts {
    /// `topic/partition@offset`.
    pub origin: String,
    /// Attempts that failed in this round.
    pub attempts: u32,
    /// Not before this, Unix ms.
    pub due_ms: i64,
    /// Unix ms.
    pub first_failed_at_ms: Option<i64>,
    pub redrive_count: u32,
    pub dead_letter_id: Option<String>,
}
