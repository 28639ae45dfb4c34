//! What an operator may ask of one data directory and tell it: topics, messages, groups, status. Used
//! by the admin port inside a running host and by commands that open a directory nobody holds. Dead
//! letters are in `letters/`. Not here: HTTP (`routes.rs`), text for people (`cli/`).

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::audit::{AuditEntry, Trail};
use super::error::{Code, Error};
use super::lanes::Lanes;
use super::letters;
use super::operations::{Answer, Changes, Operations, Order};
use super::requests::Requests;
use super::seek::{self, SeekReply, SeekRequest};
use super::time;
use super::wire::{
    AppendedRange, Blob, CreateTopic, GroupDescription, GroupPartition, GroupSummary, Header,
    HostFacts, Message, OffsetReply, Page, PartitionDescription, ProduceReply, ReadRequest, Record,
    Status, StoreHealth, TopicDescription, TopicSummary,
};
use crate::connector::embedded::epoch;
use crate::connector::embedded::{
    self, Append, ChunkBuilder, Commit, GroupId, Health, Log, PartitionId, Retention, Topic,
    TopicSpec,
};
use crate::expression::nearest;
use crate::message::{HEADERS_MAX, Headers, HeadersBuf, MessageRef};
use crate::pipeline::correlation;
use crate::pipeline::offsets::Progress;
use crate::pipeline::snapshot::Snapshot;
use crate::telemetry::spans::{Publishing, Spans};

/// Messages of one page.
pub const PAGE_MESSAGES_MAX: u32 = 1_000;
/// Bytes of records after which a page ends; one larger message is a page alone.
pub const PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Records of one produce request.
pub const PRODUCE_RECORDS_MAX: usize = 10_000;
/// How long a produce request waits for its fsync.
pub const PRODUCE_TIME_MAX: Duration = Duration::from_secs(if cfg!(test) { 8 } else { 30 });

type SnapshotSource = Arc<dyn Fn() -> Vec<Snapshot> + Send + Sync>;

/// An open log, and the pipelines that run on it when a host does.
pub struct Console {
    pub(super) log: Log,
    pub(super) letters: letters::Shared,
    pub(super) audit: Trail,
    pub(super) lanes: Lanes,
    /// Folder of the host's log files.
    pub(super) logs: Option<PathBuf>,
    host: Option<Running>,
    spans: Spans,
}

struct Running {
    snapshots: SnapshotSource,
    requests: Requests,
    operations: Option<Arc<Operations>>,
    started_at_ms: i64,
}

/// Where a partition belongs.
struct Owner {
    topic: Arc<Topic>,
    partition: u32,
}

impl Console {
    /// Inside a running host; `snapshots` is asked whenever somebody looks.
    pub fn new(log: Log, snapshots: impl Fn() -> Vec<Snapshot> + Send + Sync + 'static) -> Self {
        let host = Some(Running {
            snapshots: Arc::new(snapshots),
            requests: Requests::new(log.clone()),
            operations: None,
            started_at_ms: time::now_ms(),
        });
        Self {
            host,
            ..Self::offline(log)
        }
    }

    /// The host's log files lie in `folder`.
    #[must_use]
    pub fn with_logs(self, folder: PathBuf) -> Self {
        let logs = Some(folder);
        Self { logs, ..self }
    }

    /// The same with somebody who carries orders out.
    #[must_use]
    pub fn with_operations(mut self, operations: Arc<Operations>) -> Self {
        if let Some(host) = &mut self.host {
            host.operations = Some(operations);
        }
        self
    }

    /// Those that wait for answers on a running host.
    pub(super) fn requests(&self) -> Result<&Requests, Error> {
        let host = self.host.as_ref();
        host.map(|host| &host.requests).ok_or_else(|| {
            Error::new(
                Code::NoHost,
                "no host runs on this data directory, so nobody can answer",
                "start it with `wasmill run`",
            )
        })
    }

    /// Answers that came after their requests had timed out, since this host started.
    #[must_use]
    pub fn late_replies(&self) -> u64 {
        self.host.as_ref().map_or(0, |host| host.requests.late())
    }

    /// The same with spans of what is produced.
    #[must_use]
    pub fn with_spans(mut self, spans: Spans) -> Self {
        self.spans = spans;
        self
    }

    /// Has the running host do something.
    pub fn order(&self, order: Order) -> Result<Changes, Error> {
        match self.operate(order)? {
            Answer::Done(changes) => Ok(changes),
            Answer::Sought(_) => Err(Error::internal("an order was answered as another")),
        }
    }

    fn operate(&self, order: Order) -> Result<Answer, Error> {
        let operations = self.host.as_ref().and_then(|host| host.operations.as_ref());
        let operations = operations.ok_or_else(|| {
            Error::new(
                Code::NoHost,
                "no host runs on this data directory",
                "start it with `wasmill run`",
            )
        })?;
        let audited = order.audited();
        self.ordered("operator", audited, || operations(order))
    }

    /// Carries something out that was written down before, and writes down how it ended.
    pub fn ordered<T>(
        &self,
        who: &str,
        (command, target, note): (&str, String, Option<String>),
        carry_out: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let ordered = self.audit.begin(who, command, &target, note.as_deref())?;
        let ended = carry_out();
        if let Err(why) = self.audit.end(ordered, ended.as_ref().err()) {
            // That this cannot be written down must not hide what was done.
            tracing::error!(target: "audit", error = %why, command, %target, "how an order ended could not be written down");
        }
        ended
    }

    /// Moves a consumer group, or says what that would do.
    pub fn seek(&self, group: &str, request: &SeekRequest) -> Result<SeekReply, Error> {
        if self
            .host
            .as_ref()
            .is_some_and(|host| host.operations.is_some())
        {
            let order = Order::Seek {
                group: group.to_owned(),
                request: request.clone(),
            };
            return match self.operate(order)? {
                Answer::Sought(reply) => Ok(reply),
                Answer::Done(_) => Err(Error::internal("an order was answered as another")),
            };
        }
        let reply = seek::plan(&self.log, group, request)?;
        seek::check(request, seek::tables(&self.log, group)?)?;
        if request.dry_run {
            return Ok(reply);
        }
        let note = Some(format!("{:?}", request.to));
        self.ordered("cli", ("seek", group.to_owned(), note), || {
            // Its namespaces are made by the host that needs them.
            let moved = seek::submit(&self.log, request, &reply, |_| Ok(()))?;
            let moved = moved.answer_within(PRODUCE_TIME_MAX);
            moved.unwrap_or_else(|| Err(self.log.why_late(PRODUCE_TIME_MAX)))?;
            Ok(reply)
        })
    }

    /// Over a log that a command opened itself.
    #[must_use]
    pub fn offline(log: Log) -> Self {
        Self {
            letters: letters::Shared::default(),
            audit: Trail::new(log.clone()),
            lanes: Lanes::default(),
            log,
            logs: None,
            host: None,
            spans: Spans::default(),
        }
    }

    /// Writes down who (`cli` or `http`) did what, durable on return.
    pub fn record_audit(
        &self,
        who: &str,
        command: &str,
        target: &str,
        note: Option<&str>,
    ) -> Result<(), Error> {
        self.audit.record(who, command, target, note)
    }

    /// What was done, the newest first.
    pub fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, Error> {
        self.audit.newest(limit)
    }

    pub fn status(&self) -> Result<Status, Error> {
        let pipelines = self.snapshots();
        Ok(Status {
            host: self.host.as_ref().map(|host| HostFacts {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_at_ms: host.started_at_ms,
            }),
            store: self.store_health(),
            dead_letters: self.dead_letter_topics(None)?,
            backlogs: self.backlogs(&pipelines)?,
            pipelines,
        })
    }

    #[must_use]
    pub fn store_health(&self) -> StoreHealth {
        let why = match self.log.health() {
            Health::Ok => None,
            Health::Failing { error, since_ms } => Some(format!(
                "writes fail since {}: {error}; they are tried again by themselves",
                time::rfc3339(since_ms)
            )),
            Health::Dead { error } => Some(format!("{error}; restart the host")),
        };
        StoreHealth {
            healthy: why.is_none(),
            why,
        }
    }

    /// `StoreUnavailable` while the store cannot write: then a write would only wait.
    pub(super) fn takes_writes(&self) -> Result<(), Error> {
        match self.log.health() {
            Health::Ok => Ok(()),
            Health::Failing { error, .. } | Health::Dead { error } => {
                Err(embedded::Error::Failing { cause: error }.into())
            }
        }
    }

    /// Of the pipelines that run; none when no host does.
    #[must_use]
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let host = self.host.as_ref();
        let mut snapshots = host.map(|host| (host.snapshots)()).unwrap_or_default();
        for snapshot in &mut snapshots {
            snapshot.judge_age(self.now_ms(), |t, p, offset| {
                self.timestamp_ms(t, p, offset)
            });
        }
        snapshots
    }

    /// The log's clock, Unix ms.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.log.now_ms()
    }

    /// The Unix time of one message, when it is there.
    #[must_use]
    pub fn timestamp_ms(&self, topic: &str, partition: u32, offset: u64) -> Option<i64> {
        let id = self.log.topic(topic)?.partition(partition)?;
        let chunk = self.log.read(id, offset).ok()??;
        let (_, _, message) = chunk.iter_from(offset).next()?;
        Some(message.timestamp_ms)
    }

    pub fn topics(&self) -> Result<Vec<TopicSummary>, Error> {
        let mut topics = self.log.topics();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics
            .iter()
            .map(|topic| {
                Ok(TopicSummary {
                    topic: topic.name.clone(),
                    partitions: topic.spec.partitions.get(),
                    messages: self.messages(topic)?,
                    internal: topic.spec.internal,
                })
            })
            .collect()
    }

    pub fn create_topic(&self, wanted: &CreateTopic) -> Result<TopicDescription, Error> {
        let partitions = NonZeroU32::new(wanted.partitions)
            .ok_or_else(|| Error::new(Code::Invalid, "a topic has at least one partition", ""))?;
        if self.log.topic(&wanted.name).is_some() {
            return Err(Error::new(
                Code::TopicExists,
                format!("the topic {} exists already", wanted.name),
                format!("see it with `wasmill topics describe {}`", wanted.name),
            ));
        }
        let spec = TopicSpec {
            retention: Retention {
                age: wanted.retention_ms.map(Duration::from_millis),
                bytes: wanted.retention_bytes,
            },
            ..TopicSpec::new(wanted.name.as_str(), partitions)
        };
        let topic = self.log.create_topic(&spec)?;
        self.describe(&topic)
    }

    pub fn topic(&self, topic: &str) -> Result<TopicDescription, Error> {
        let topic = self.known_topic(topic)?;
        self.describe(&topic)
    }

    /// Writes all records or none; durable on return, in order within each partition.
    pub fn produce(&self, topic: &str, records: &[Record]) -> Result<ProduceReply, Error> {
        let topic = self.known_topic(topic)?;
        if topic.spec.internal {
            return Err(Error::new(
                Code::Invalid,
                format!(
                    "{} is an internal topic: only a host writes to it",
                    topic.name
                ),
                "produce to the topic that the pipeline reads; dead letters come back by `wasmill dlq redrive`",
            ));
        }
        if records.len() > PRODUCE_RECORDS_MAX {
            return Err(Error::new(
                Code::TooLarge,
                format!("a request carries at most {PRODUCE_RECORDS_MAX} records"),
                "send fewer at once",
            ));
        }
        let mut builders: BTreeMap<u32, ChunkBuilder> = BTreeMap::new();
        let mut publishing = self.spans.publishing();
        let mut correlation_ids = Vec::with_capacity(records.len());
        for (place, record) in records.iter().enumerate() {
            let encoded = self.encode(&topic, record, &mut builders, &mut publishing);
            correlation_ids.push(encoded.map_err(|why| Error {
                message: format!("record {place} of the request: {}", why.message),
                ..why
            })?);
        }
        let mut commit = Commit::default();
        let mut partitions = Vec::with_capacity(builders.len());
        for (partition, mut builder) in builders {
            let id = self.known_partition(&topic, partition)?;
            partitions.push(AppendedRange {
                partition,
                first_offset: 0,
                count: builder.len() as u64,
            });
            let chunk = builder.finish();
            commit.appends.push(Append {
                partition: id,
                chunk,
            });
        }
        if !commit.appends.is_empty() {
            let done = self.log.commit_within(commit, PRODUCE_TIME_MAX);
            let done = match done {
                Ok(done) => done,
                Err(why) => {
                    publishing.ended(&topic.name, Some(&why.to_string()), |_| None);
                    return Err(why.into());
                }
            };
            for (range, first) in partitions.iter_mut().zip(done.base_offsets) {
                range.first_offset = first;
            }
        }
        publishing.ended(&topic.name, None, |partition| {
            let range = partitions.iter().find(|range| range.partition == partition);
            range.map(|range| range.first_offset)
        });
        Ok(ProduceReply {
            acknowledged: records.len() as u64,
            partitions,
            correlation_ids,
        })
    }

    /// One page; never waits.
    pub fn read(&self, topic: &str, request: &ReadRequest) -> Result<Page, Error> {
        let topic = self.known_topic(topic)?;
        let id = self.known_partition(&topic, request.partition)?;
        let limit = request.limit.unwrap_or(PAGE_MESSAGES_MAX);
        let limit = limit.clamp(1, PAGE_MESSAGES_MAX) as usize;
        let mut messages = Vec::new();
        let mut bytes = 0;
        let next_offset = self.walk(id, request.offset, |offset, message| {
            messages.push(self::message(
                &topic.name,
                request.partition,
                offset,
                message,
            ));
            bytes += message.record_len();
            messages.len() < limit && bytes < PAGE_BYTES_MAX
        })?;
        Ok(Page {
            messages,
            next_offset,
            end_offset: self.log.end(id)?,
        })
    }

    pub fn offset_at(
        &self,
        topic: &str,
        partition: u32,
        timestamp_ms: i64,
    ) -> Result<OffsetReply, Error> {
        let topic = self.known_topic(topic)?;
        let id = self.known_partition(&topic, partition)?;
        Ok(OffsetReply {
            offset: self.log.offset_at(id, timestamp_ms)?,
        })
    }

    pub fn groups(&self) -> Result<Vec<GroupSummary>, Error> {
        let owners = self.owners();
        let snapshots = self.snapshots();
        let mut groups = Vec::new();
        for (id, name) in self.log.groups() {
            if epoch::is_namespace(&name) {
                continue;
            }
            let partitions = self.group_partitions(id, &name, &owners, &snapshots)?;
            let mut topics: Vec<String> = partitions.iter().map(|one| one.topic.clone()).collect();
            topics.dedup();
            groups.push(GroupSummary {
                pipelines: pipelines_of(&name, &snapshots),
                group: name,
                topics,
                lag: partitions.iter().map(|one| one.lag).sum(),
            });
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }

    pub fn group(&self, group: &str) -> Result<GroupDescription, Error> {
        let Some(id) = self.log.find_group(group) else {
            let groups = self.log.groups();
            let names = groups.iter().map(|(_, name)| name.as_str());
            return Err(unknown(
                Code::UnknownGroup,
                "consumer group",
                group,
                names,
                "groups list",
            ));
        };
        let snapshots = self.snapshots();
        Ok(GroupDescription {
            group: group.to_owned(),
            pipelines: pipelines_of(group, &snapshots),
            partitions: self.group_partitions(id, group, &self.owners(), &snapshots)?,
        })
    }

    pub(super) fn known_topic(&self, name: &str) -> Result<Arc<Topic>, Error> {
        self.log.topic(name).ok_or_else(|| {
            let topics = self.log.topics();
            let names = topics.iter().map(|topic| topic.name.as_str());
            unknown(Code::UnknownTopic, "topic", name, names, "topics list")
        })
    }

    pub(super) fn known_partition(
        &self,
        topic: &Topic,
        partition: u32,
    ) -> Result<PartitionId, Error> {
        topic.partition(partition).ok_or_else(|| {
            Error::new(
                Code::UnknownPartition,
                format!("{} has no partition {partition}", topic.name),
                format!(
                    "its partitions are 0 to {}",
                    topic.spec.partitions.get() - 1
                ),
            )
        })
    }

    /// Shows `see` the messages of a partition from `from` (moved up to the earliest kept) until it
    /// says false or they end; returns the offset after the last one shown.
    pub(super) fn walk(
        &self,
        id: PartitionId,
        from: u64,
        mut see: impl FnMut(u64, &MessageRef<'_>) -> bool,
    ) -> Result<u64, Error> {
        let mut next = from.max(self.log.earliest(id)?);
        if next >= self.log.end(id)? {
            return Ok(next);
        }
        while let Some(chunk) = self.log.read(id, next)? {
            for (offset, _, message) in chunk.iter_from(next) {
                next = offset + 1;
                if !see(offset, &message) {
                    return Ok(next);
                }
            }
            next = next.max(chunk.end_offset());
        }
        Ok(next)
    }

    pub(super) fn messages(&self, topic: &Topic) -> Result<u64, Error> {
        let mut sum = 0u64;
        for id in &topic.partitions {
            let kept = self.log.end(*id)?.saturating_sub(self.log.earliest(*id)?);
            sum = sum.saturating_add(kept);
        }
        Ok(sum)
    }

    fn describe(&self, topic: &Topic) -> Result<TopicDescription, Error> {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for (number, id) in (0..).zip(&topic.partitions) {
            partitions.push(PartitionDescription {
                partition: number,
                earliest: self.log.earliest(*id)?,
                end: self.log.end(*id)?,
            });
        }
        let retention = topic.spec.retention;
        Ok(TopicDescription {
            topic: topic.name.clone(),
            retention_ms: retention
                .age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            retention_bytes: retention.bytes,
            message_bytes_max: u64::from(topic.spec.max_message_bytes),
            groups: self.groups_on(topic)?,
            partitions,
        })
    }

    fn groups_on(&self, topic: &Topic) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for (id, name) in self.log.groups() {
            let progress = self.log.progress_of(id)?;
            if progress.iter().any(|(at, _)| topic.partitions.contains(at)) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Adds the record to those of its partition; its correlation ID, made here when it has none.
    fn encode(
        &self,
        topic: &Topic,
        record: &Record,
        builders: &mut BTreeMap<u32, ChunkBuilder>,
        publishing: &mut Publishing,
    ) -> Result<String, Error> {
        let mut headers = HeadersBuf::new();
        let own = record.headers.iter().map(|header| {
            let value = header.value.as_ref().map(|value| value.0.as_slice());
            (header.name.as_str(), value)
        });
        let known = correlation_of(record);
        let made = known.is_none().then(|| uuid::Uuid::now_v7().to_string());
        let added = made
            .iter()
            .map(|id| (correlation::HEADER, Some(id.as_bytes())));
        for (name, value) in own.chain(added) {
            if !headers.push(name, value) {
                return Err(Error::new(
                    Code::TooLarge,
                    "it has too many or too large headers",
                    "at most 65,471 headers with names of at most 65,535 bytes",
                ));
            }
        }
        let count = headers.as_headers().count();
        if count > HEADERS_MAX {
            return Err(Error::new(
                Code::TooLarge,
                format!(
                    "it has {count} headers with its correlation ID, a message may have {HEADERS_MAX}"
                ),
                "put what belongs together into one header, or into the payload",
            ));
        }
        let body = MessageRef {
            key: record.key.as_ref().map(|key| key.0.as_slice()),
            payload: record.payload.as_ref().map(|payload| payload.0.as_slice()),
            headers: Headers::default(),
            timestamp_ms: record.timestamp_ms.unwrap_or_else(|| self.log.now_ms()),
        };
        let message = MessageRef {
            headers: headers.as_headers(),
            ..body
        };
        let len_max = topic.spec.max_message_bytes as usize;
        if message.record_len() > len_max {
            return Err(Error::new(
                Code::TooLarge,
                format!(
                    "it takes {} bytes, the topic {} accepts {len_max}",
                    message.record_len(),
                    topic.name
                ),
                "send a smaller message, or a reference to where the large one is kept",
            ));
        }
        let partition = match record.partition {
            Some(partition) => partition,
            None => topic.partition_for(message.key),
        };
        self.known_partition(topic, partition)?;
        let room = len_max - message.record_len();
        let sending = publishing.message(&mut headers, room);
        let message = MessageRef {
            headers: headers.as_headers(),
            ..body
        };
        let builder = builders.entry(partition).or_default();
        let place = builder.len() as u64;
        builder.push(&message);
        publishing.goes(sending, partition, place, &headers);
        Ok(made.or(known).unwrap_or_default())
    }

    fn owners(&self) -> BTreeMap<PartitionId, Owner> {
        let mut owners = BTreeMap::new();
        for topic in self.log.topics() {
            for (partition, id) in (0..).zip(&topic.partitions) {
                let topic = Arc::clone(&topic);
                owners.insert(*id, Owner { topic, partition });
            }
        }
        owners
    }

    fn group_partitions(
        &self,
        group: GroupId,
        name: &str,
        owners: &BTreeMap<PartitionId, Owner>,
        snapshots: &[Snapshot],
    ) -> Result<Vec<GroupPartition>, Error> {
        let mut partitions = Vec::new();
        for (id, bytes) in self.log.progress_of(group)? {
            let Some(owner) = owners.get(&id) else {
                continue;
            };
            let progress = Progress::decode(&bytes).map_err(|why| {
                Error::new(
                    Code::StoreUnavailable,
                    format!("the progress of the group {name} cannot be read: {why}"),
                    "it was written by a newer wasmill, or the store is damaged",
                )
            })?;
            let end = self.log.end(id)?;
            let at = progress.committed;
            let failed = progress.attempts.iter().find(|one| one.offset == at);
            let topic = &owner.topic.name;
            let live = snapshots
                .iter()
                .filter(|snapshot| snapshot.consumer_group == name)
                .flat_map(|snapshot| &snapshot.partitions)
                .find(|one| one.partition == owner.partition && one.topic == *topic);
            partitions.push(GroupPartition {
                topic: topic.clone(),
                partition: owner.partition,
                committed: progress.committed,
                end,
                lag: end.saturating_sub(progress.committed),
                held: live.map_or(0, |live| live.held),
                holder: live.and_then(|live| live.holder.clone()),
                failed_attempts: failed.map_or(0, |failed| failed.count),
                last_error: failed.map(|failed| failed.error.clone()),
            });
        }
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        Ok(partitions)
    }
}

/// A message as it is shown.
pub(super) fn message(
    topic: &str,
    partition: u32,
    offset: u64,
    message: &MessageRef<'_>,
) -> Message {
    let blob = |bytes: &[u8]| Blob(bytes.to_vec());
    Message {
        topic: topic.to_owned(),
        partition,
        offset,
        timestamp_ms: message.timestamp_ms,
        key: message.key.map(blob),
        payload: message.payload.map(blob),
        headers: message
            .headers
            .iter()
            .map(|(name, value)| Header {
                name: name.to_owned(),
                value: value.map(blob),
            })
            .collect(),
    }
}

/// The record's own correlation ID, by the rule of the host: the last one, when it is text of the right
/// length.
pub(super) fn correlation_of(record: &Record) -> Option<String> {
    let last = record
        .headers
        .iter()
        .rfind(|header| header.name == correlation::HEADER)?;
    let value = &last.value.as_ref()?.0;
    let fits = !value.is_empty() && value.len() <= correlation::LEN_MAX;
    fits.then(|| String::from_utf8(value.clone()).ok())?
}

fn pipelines_of(group: &str, snapshots: &[Snapshot]) -> Vec<String> {
    let own = snapshots
        .iter()
        .filter(|snapshot| snapshot.consumer_group == group);
    own.map(|snapshot| snapshot.pipeline.clone()).collect()
}

/// An error for a name that is not known, with the nearest one that is.
pub fn unknown<'n>(
    code: Code,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'n str>,
    list: &str,
) -> Error {
    let help = match nearest(name, known) {
        Some(meant) => format!("did you mean {meant}? `wasmill {list}` shows all"),
        None => format!("`wasmill {list}` shows all"),
    };
    Error::new(code, format!("there is no {what} {name}"), help)
}

impl From<embedded::Error> for Error {
    fn from(error: embedded::Error) -> Self {
        use embedded::Error as Log;
        let code = match &error {
            Log::UnknownPartition(_) => Code::UnknownPartition,
            Log::TopicExists(_) => Code::TopicExists,
            Log::OffsetOutOfRange { .. } | Log::TopicName(_) | Log::GroupName(_) => Code::Invalid,
            Log::Limit { .. } => Code::TooLarge,
            _ => Code::StoreUnavailable,
        };
        // The log's errors say themselves what to do, after a semicolon.
        let text = error.to_string();
        match text.split_once("; ") {
            Some((message, help)) => Self::new(code, message, help),
            None => Self::new(code, text, ""),
        }
    }
}
