//! Validated configuration: values that cannot be wrong, which is all the rest of the host sees.
//! Not here: YAML, defaults, error messages (the rest of `config/`).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use crate::expression::{Condition, Expression};

/// One whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    pub host: Host,
    pub pipelines: Vec<Pipeline>,
}

#[derive(Debug, Clone)]
pub struct Host {
    /// Default `./wasmill-data`.
    pub data_dir: PathBuf,
    /// Default 127.0.0.1:4180; on loopback, unless there is `admin_tls`.
    pub admin_listen: SocketAddr,
    pub admin_tls: Option<Tls>,
    /// `None`: a random one at every start.
    pub admin_token: Option<SecretName>,
    /// Default 127.0.0.1:4181.
    pub health_listen: SocketAddr,
    /// Default 30 s.
    pub shutdown_timeout: Duration,
    /// Bytes all guests together may take. Default 2 GiB.
    pub guest_memory: u64,
    /// Default `fsync`.
    pub durability: Durability,
    /// Partitions of topics that `run` creates because a pipeline names them. Default 6; `None` = never create.
    pub create_topics: Option<NonZeroU32>,
    pub creation_context: CreationContext,
    /// Messages without a context that are sampled a second. Default 500.
    pub traces_per_second: NonZeroU32,
    /// Default 4 files of 16 MiB; `None` = no files.
    pub logs: Option<LogFiles>,
}

/// How many of the host's log lines are kept in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFiles {
    /// Bytes after which a file is followed by the next.
    pub size: u64,
    pub files: u32,
}

/// How the spans of attempts hang together with the context in which their message was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CreationContext {
    /// A trace of their own, with a link to it.
    #[default]
    Link,
    /// In its trace, below it.
    Parent,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// An environment variable that holds a secret, or with `_FILE` behind it the path of a file that does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretName(pub String);

/// When a produce or a settlement counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After fsync.
    #[default]
    Fsync,
    /// After the write reached the operating system: survives the host, not the machine.
    Os,
}

#[derive(Debug, Clone)]
pub struct Pipeline {
    pub name: String,
    /// A digest of what somebody wrote, without defaults; the same in every version.
    pub written: String,
    pub delivery: Delivery,
    pub source: Source,
    pub ordering: Ordering,
    pub retry: Retry,
    pub idempotency: Option<Idempotency>,
    /// Messages of which it is false are finished without a call.
    pub filter: Option<Condition>,
    pub sequence: Option<Sequence>,
    pub circuit: Option<Circuit>,
    pub rate_limit: Option<RateLimit>,
    pub handler: Handler,
    /// In the order of the file; a guest names them.
    pub outputs: Vec<Output>,
    /// Topics to which it may answer: names, or prefixes with a final `*`.
    pub reply_topics: Vec<String>,
    pub dead_letter: DeadLetter,
    pub alerts: Alerts,
}

/// When somebody should look; `None` = never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Alerts {
    /// Unfinished messages of all partitions, above which.
    pub lag: Option<u64>,
    /// Of the oldest unfinished message, above which.
    pub oldest_age: Option<Duration>,
    pub dead_letters: Option<DeadLetterAlert>,
}

/// So many or more within so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterAlert {
    pub count: NonZeroU32,
    pub per: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delivery {
    #[default]
    AtLeastOnce,
    ExactlyOnce,
    AtMostOnce,
}

#[derive(Debug, Clone)]
pub struct Source {
    /// At least one, distinct.
    pub topics: Vec<String>,
    pub consumer_group: String,
    /// Where a group that is new on a partition begins.
    pub start: Start,
    pub format: Format,
    pub on_lost_offset: OnLostOffset,
    /// Bounds of what is read and not finished.
    pub window: Window,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    Offset(u64),
    /// The first message at or after this Unix time in ms.
    Timestamp(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Bytes,
    /// A payload that is not JSON is dead-lettered as `undecodable` without calling the handler.
    Json,
}

/// Retention removed messages that the group had not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnLostOffset {
    /// Stop the pipeline, unhealthy.
    #[default]
    Halt,
    /// Go on at the earliest offset, counted and logged.
    Earliest,
}

/// Per partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Default 8,192; at most 16,384 (§4.3).
    pub messages: u32,
    /// Default 16 MiB.
    pub bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ordering {
    pub by: By,
    pub null_key: NullKey,
    pub on_dead_letter: OnDeadLetter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    #[default]
    Key,
    Partition,
    None,
}

/// With `by: key`, where a message without a key goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NullKey {
    /// A lane of its own.
    #[default]
    None,
    /// All messages without a key of a partition share a lane.
    Partition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDeadLetter {
    /// The lane goes on at once.
    #[default]
    Continue,
    /// The lane waits until the dead letter is durable.
    BlockLane,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    pub mode: RetryMode,
    /// Counts the first try. Default 5.
    pub max_attempts: NonZeroU32,
    pub max_elapsed: Option<Duration>,
    pub backoff: Backoff,
}

/// When a dependency counts as down (§5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Circuit {
    /// Default 20.
    pub distinct_keys: NonZeroU32,
    /// Default 10 s.
    pub window: Duration,
    /// Default 10 s.
    pub probe_interval: Duration,
}

impl Default for Circuit {
    fn default() -> Self {
        Self {
            distinct_keys: NonZeroU32::MIN.saturating_add(19),
            window: Duration::from_secs(10),
            probe_interval: Duration::from_secs(10),
        }
    }
}

/// The order that a producer gave the messages of a key (§4.5). Only with `By::Key`, inline retries and a
/// delivery that tries again.
#[derive(Debug, Clone)]
pub struct Sequence {
    pub number: Expression,
    pub stale: Stale,
    /// Default 30 s.
    pub gap_timeout: Duration,
}

/// What becomes of a number that is not above the last one of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stale {
    #[default]
    Skip,
    DeadLetter,
}

/// Calls of a pipeline on one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub count: NonZeroU32,
    /// Default 1 s.
    pub interval: Duration,
}

/// Where a message waits for its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryMode {
    /// In its lane.
    #[default]
    Inline,
    /// In an internal topic; later messages of its lane go on (§5.2).
    Deferred,
}

/// Exponential with full jitter: wait a random time in 0..=min(max, initial × multiplier^(n-1)).
/// The defaults outlast an ordinary failover: about a minute in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff {
    pub initial_interval: Duration,
    pub multiplier: f64,
    pub max_interval: Duration,
}

#[derive(Debug, Clone)]
pub struct Idempotency {
    pub key: Expression,
    pub ttl: Duration,
    pub on_duplicate: OnDuplicate,
    pub if_missing: IfMissing,
    /// Fields whose values must agree between duplicates; empty = the whole payload.
    pub fingerprint: Vec<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDuplicate {
    #[default]
    Skip,
    /// Publish the stored outputs again.
    Replay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfMissing {
    #[default]
    DeadLetter,
    Process,
}

#[derive(Debug, Clone)]
pub struct Handler {
    pub plugin: PathBuf,
    pub config: BTreeMap<String, String>,
    pub allow: Allow,
    pub limits: Limits,
    /// Calls in flight, per pipeline and host: the number of workers. Default: the machine's cores.
    pub concurrency: NonZeroU32,
    /// `None` = by what the plugin imports (§ batching in docs/configuration.md).
    pub batch: Option<NonZeroU32>,
    pub isolation: Isolation,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Allow {
    pub state: Option<StateGrant>,
    pub clock: bool,
    pub random: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateGrant {
    /// Bytes of keys and values. Default 1 GiB.
    pub max_size: u64,
    /// Another name or version is another state, empty at first (§13.3). Default `default`, 1.
    pub name: String,
    pub version: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance, bytes. Default 128 MiB.
    pub memory: u64,
    /// Time for one message. Default 5 s.
    pub time: Duration,
    /// Outputs for one message. Default 1,000.
    pub outputs: u32,
    /// Bytes of one output. Default 1 MiB.
    pub output_size: u64,
    /// Log lines a second per pipeline. Default 100.
    pub log_lines: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Instances are reused.
    #[default]
    Worker,
    /// A fresh instance for every message.
    Message,
}

#[derive(Debug, Clone)]
pub struct Output {
    pub name: String,
    pub topic: String,
    /// Of the input; instead of the key that the handler gives.
    pub key: Option<Expression>,
    /// Headers with a value made of the input, beside those that are copied.
    pub set_headers: Vec<(String, Expression)>,
    /// Input headers copied to the output: names, or prefixes written with a final `*`.
    pub headers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Default `<topic>.<group>.dlq` for each source topic; `None` = that default.
    pub topic: Option<String>,
}
