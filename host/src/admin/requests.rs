//! Requests over the admin port (§8.3): written to a topic with the host's own reply topic, and answered
//! by what one thread reads there. Who waits holds no thread. Not here: HTTP (`request_routes.rs`).

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use prometheus::IntCounter;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::console::{Console, message};
use super::error::{Code, Error};
use super::waiting::{Slot, Waiting};
use super::wire::{Blob, Header, Message, Record};
use crate::connector::embedded::{
    self, Append, Commit, Committed, Log, PartitionId, Retention, TopicSpec, Write,
};
use crate::message::MessageRef;
use crate::pipeline::correlation;
use crate::pipeline::reply::{DEADLINE, REPLY_TO, REQUEST_ID};

/// Requests that wait for their reply at a time.
pub const WAITING_MAX: usize = 10_000;
/// Longest wait for a reply; it must end before the request itself would.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(50);
/// The wait when none is named.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Age and bytes of what is kept of the host's own replies; longer than anybody waits.
pub const REPLIES_KEPT: (Duration, u64) = (Duration::from_secs(600), 256 << 20);
/// Prefix of the topic that replies to a host go to.
pub const REPLY_TOPIC: &str = "wasmill.replies.";
/// Where the log remembers which host this is.
const HOST_ID: &[u8] = b"host/id";
/// How long the reader of replies sleeps at most.
const IDLE: Duration = Duration::from_secs(1);
/// After an error of the store, when it reads again.
const AGAIN: Duration = Duration::from_millis(500);
/// When a full queue of the log is tried again.
const BUSY: Duration = Duration::from_millis(5);

/// The requests of a running host.
#[derive(Debug)]
pub struct Requests {
    waiting: Arc<Waiting<Message>>,
    late: IntCounter,
    stop: Arc<AtomicBool>,
    desk: Mutex<Option<Desk>>,
}

/// What exists from the first request on.
#[derive(Debug)]
struct Desk {
    topic: Arc<str>,
    reader: Thread,
}

/// Reads the host's reply topic.
struct Reader {
    log: Log,
    topic: Arc<str>,
    partition: PartitionId,
    waiting: Arc<Waiting<Message>>,
    late: IntCounter,
    stop: Arc<AtomicBool>,
}

impl Requests {
    /// `late` counts replies that nobody waits for.
    #[must_use]
    pub fn new(late: IntCounter) -> Self {
        Self {
            waiting: Waiting::new(WAITING_MAX),
            late,
            stop: Arc::default(),
            desk: Mutex::default(),
        }
    }

    fn known_topic(&self) -> Option<Arc<str>> {
        let desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        desk.as_ref().map(|desk| Arc::clone(&desk.topic))
    }

    /// The topic for replies; the first time it is made and its reader started, which may block.
    fn open(&self, log: &Log) -> Result<Arc<str>, Error> {
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = desk.as_ref() {
            return Ok(Arc::clone(&desk.topic));
        }
        let name = format!("{REPLY_TOPIC}{}", host_id(log)?);
        let topic = match log.topic(&name) {
            Some(topic) => topic,
            None => log.create_topic(&TopicSpec {
                retention: Retention {
                    age: Some(REPLIES_KEPT.0),
                    bytes: Some(REPLIES_KEPT.1),
                },
                ..TopicSpec::new(name.as_str(), NonZeroU32::MIN)
            })?,
        };
        let partition = topic
            .partition(0)
            .ok_or_else(|| Error::internal("the reply topic has no partition"))?;
        // What stands there already answers requests of an earlier life: nobody waits for it.
        let from = log.end(partition)?;
        let topic: Arc<str> = topic.name.as_str().into();
        let reader = Reader {
            log: log.clone(),
            topic: Arc::clone(&topic),
            partition,
            waiting: Arc::clone(&self.waiting),
            late: self.late.clone(),
            stop: Arc::clone(&self.stop),
        };
        let started = std::thread::Builder::new()
            .name("replies".to_owned())
            .spawn(move || reader.run(from))
            .map_err(|why| Error::internal(format!("no thread for replies: {why}")))?;
        *desk = Some(Desk {
            topic: Arc::clone(&topic),
            reader: started.thread().clone(),
        });
        Ok(topic)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let desk = self.desk.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = desk {
            desk.reader.unpark();
        }
    }
}

impl Reader {
    fn run(&self, mut next: u64) {
        let _subscription = self
            .log
            .subscribe(&[self.partition], std::thread::current());
        while !self.stop.load(Ordering::SeqCst) {
            match self.log.read(self.partition, next) {
                Ok(Some(chunk)) => {
                    for (offset, _, message) in chunk.iter_from(next) {
                        self.hand_over(offset, &message);
                        next = offset + 1;
                    }
                }
                Ok(None) => std::thread::park_timeout(IDLE),
                Err(embedded::Error::Closed) => return,
                Err(embedded::Error::OffsetOutOfRange { earliest, .. }) if next < earliest => {
                    tracing::warn!(topic = %self.topic, next, earliest, "replies were removed before they were read");
                    next = earliest;
                }
                Err(error) => {
                    tracing::warn!(topic = %self.topic, %error, "replies cannot be read for now");
                    std::thread::park_timeout(AGAIN);
                }
            }
        }
    }

    fn hand_over(&self, offset: u64, reply: &MessageRef<'_>) {
        let taken = request_of(reply).is_some_and(|id| {
            let reply = message(&self.topic, 0, offset, reply);
            self.waiting.answer(id, reply)
        });
        if !taken {
            self.late.inc();
        }
    }
}

/// The request that a reply belongs to. Without its ID (it came by way of another topic, or of another
/// program) the correlation ID is that of the request, when the caller chose none.
fn request_of(reply: &MessageRef<'_>) -> Option<Uuid> {
    let headers = &reply.headers;
    let id = headers
        .last(REQUEST_ID)
        .or_else(|| headers.last(correlation::HEADER))?;
    Uuid::try_parse_ascii(id).ok()
}

/// Made once for a data directory.
fn host_id(log: &Log) -> Result<String, Error> {
    if let Some(id) = log.meta_get(HOST_ID)? {
        let text = std::str::from_utf8(&id)
            .ok()
            .and_then(|id| Uuid::try_parse(id).ok());
        let id = text.ok_or_else(|| {
            Error::new(
                Code::StoreUnavailable,
                "the host's ID in the log cannot be read",
                "it was written by a newer wasmill, or the store is damaged",
            )
        })?;
        return Ok(id.to_string());
    }
    let id = Uuid::now_v7().to_string();
    log.commit(Commit {
        writes: vec![Write::Meta {
            key: HOST_ID.to_vec(),
            value: Some(id.clone().into_bytes()),
        }],
        ..Commit::default()
    })?;
    Ok(id)
}

impl Console {
    fn requests(&self) -> Result<&Requests, Error> {
        self.requests.as_ref().ok_or_else(|| {
            Error::new(
                Code::NoHost,
                "no host runs on this data directory, so no pipeline can answer",
                "start it with `wasmill run`",
            )
        })
    }

    /// Whether [`Console::open_requests`] would answer at once.
    pub(super) fn reply_topic(&self) -> Result<Option<Arc<str>>, Error> {
        Ok(self.requests()?.known_topic())
    }

    /// The topic that replies to this host go to; made by the first request. May block.
    pub(super) fn open_requests(&self) -> Result<Arc<str>, Error> {
        self.requests()?.open(&self.log)
    }

    /// Writes the request and waits for its reply, at most so long.
    pub(super) async fn request(
        &self,
        topic: &str,
        record: Record,
        reply_to: &str,
        timeout: Duration,
    ) -> Result<Message, Error> {
        let until = tokio::time::Instant::now() + timeout;
        let mut slot = self.requests()?.waiting.enter().map_err(|_| full())?;
        let record = addressed(record, &slot, reply_to, self.log.now_ms(), timeout)?;
        let (correlation_id, answer) = {
            let correlation_id = correlation_of(&record);
            let reply = async {
                self.submit(topic, &record).await?;
                // The sender lives in the map as long as this slot.
                (&mut slot.answer)
                    .await
                    .map_err(|_| Error::internal("a reply got lost on its way inside the host"))
            };
            (correlation_id, tokio::time::timeout_at(until, reply).await)
        };
        answer.unwrap_or_else(|_| Err(no_reply(timeout, &correlation_id)))
    }

    /// Durable on return; no thread waits.
    async fn submit(&self, topic: &str, record: &Record) -> Result<(), Error> {
        let topic = self.known_topic(topic)?;
        if topic.spec.internal {
            return Err(Error::new(
                Code::Invalid,
                format!(
                    "{} is an internal topic: only a host writes to it",
                    topic.name
                ),
                "send requests to the topic that the pipeline reads",
            ));
        }
        loop {
            let mut builders = BTreeMap::new();
            self.encode(&topic, record, &mut builders)?;
            let mut commit = Commit::default();
            for (partition, mut builder) in builders {
                commit.appends.push(Append {
                    partition: self.known_partition(&topic, partition)?,
                    chunk: builder.finish(),
                });
            }
            let (sender, written) = oneshot::channel::<Result<Committed, embedded::Error>>();
            let ack = Box::new(move |result| {
                if sender.send(result).is_err() {
                    tracing::debug!("who asked is gone");
                }
            });
            match self.log.submit_before(commit, ack, Instant::now()) {
                Ok(()) => {
                    let written = written.await.unwrap_or(Err(embedded::Error::Closed));
                    return Ok(written.map(|_| ())?);
                }
                Err(embedded::Error::Busy { .. }) => tokio::time::sleep(BUSY).await,
                Err(why) => return Err(why.into()),
            }
        }
    }
}

/// The request with the headers by which it is answered.
fn addressed(
    mut record: Record,
    slot: &Slot<Message>,
    reply_to: &str,
    now_ms: i64,
    timeout: Duration,
) -> Result<Record, Error> {
    let own = |name: &str| name == REPLY_TO || name.starts_with("wasmill-");
    if let Some(header) = record.headers.iter().find(|header| own(&header.name)) {
        return Err(Error::new(
            Code::Invalid,
            format!(
                "the host sets the header {} of a request itself",
                header.name
            ),
            "leave it out; to have replies elsewhere, produce the message with `reply-to` instead",
        ));
    }
    let id = slot.id().to_string();
    let timeout_ms = i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX);
    let deadline = now_ms.saturating_add(timeout_ms).to_string();
    let mut push = |name: &str, value: String| {
        record.headers.push(Header {
            name: name.to_owned(),
            value: Some(Blob(value.into_bytes())),
        });
    };
    push(REPLY_TO, reply_to.to_owned());
    push(DEADLINE, deadline);
    push(REQUEST_ID, id.clone());
    if super::console::correlation_of(&record).is_none() {
        record.headers.push(Header {
            name: correlation::HEADER.to_owned(),
            value: Some(Blob(id.into_bytes())),
        });
    }
    Ok(record)
}

fn correlation_of(record: &Record) -> String {
    super::console::correlation_of(record).unwrap_or_default()
}

fn full() -> Error {
    Error::new(
        Code::Busy,
        format!("{WAITING_MAX} requests wait for their replies already"),
        "try again later; shorter timeouts make room sooner",
    )
}

fn no_reply(timeout: Duration, correlation_id: &str) -> Error {
    Error::new(
        Code::NoReply,
        format!("no reply within {} ms", timeout.as_millis()),
        format!(
            "the request may have been carried out all the same; what became of it: `wasmill trace {correlation_id}`, and whether a pipeline that answers runs: `wasmill status`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::embedded::{ChunkBuilder, Options};
    use crate::message::HeadersBuf;

    fn late() -> IntCounter {
        IntCounter::new("late", "late").unwrap()
    }

    fn open(dir: &std::path::Path) -> (Log, Requests) {
        let log = Log::open(dir, Options::default()).unwrap();
        (log, Requests::new(late()))
    }

    fn answer(log: &Log, topic: &str, headers: &[(&str, &str)]) {
        let mut buffer = HeadersBuf::new();
        for (name, value) in headers {
            assert!(buffer.push(name, Some(value.as_bytes())));
        }
        let mut builder = ChunkBuilder::new();
        builder.push(&MessageRef {
            headers: buffer.as_headers(),
            ..MessageRef::default()
        });
        let append = Append {
            partition: log.topic(topic).unwrap().partition(0).unwrap(),
            chunk: builder.finish(),
        };
        log.commit(Commit {
            appends: vec![append],
            ..Commit::default()
        })
        .unwrap();
    }

    #[test]
    fn replies_kept_bounds_the_hosts_own_topic() {
        let dir = tempfile::tempdir().unwrap();
        let (log, requests) = open(dir.path());
        assert_eq!(requests.known_topic(), None, "made by the first request");
        let topic = requests.open(&log).unwrap();
        let kept = log.topic(&topic).unwrap().spec.retention;
        assert_eq!(
            (kept.age, kept.bytes),
            (Some(REPLIES_KEPT.0), Some(REPLIES_KEPT.1))
        );
        assert!(REPLIES_KEPT.0 > TIMEOUT_MAX, "longer than anybody waits");
    }

    /// §8.3
    #[test]
    fn a_host_keeps_its_reply_topic_and_takes_no_answer_of_an_earlier_life() {
        let dir = tempfile::tempdir().unwrap();
        let (log, requests) = open(dir.path());
        let topic = requests.open(&log).unwrap();
        let before = requests.waiting.enter().unwrap().id().to_string();
        answer(&log, &topic, &[(REQUEST_ID, &before)]);
        drop(requests);
        log.close().unwrap();
        let (log, requests) = open(dir.path());
        assert_eq!(requests.open(&log).unwrap(), topic);
        let mut slot = requests.waiting.enter().unwrap();
        let id = slot.id().to_string();
        // Of the earlier life; under another request's ID; without any; its own; and once more.
        let own = (REQUEST_ID, id.as_str());
        for headers in [
            &[(REQUEST_ID, before.as_str())][..],
            &[(REQUEST_ID, &before), (correlation::HEADER, &id)],
            &[],
            &[own, (correlation::HEADER, "theirs")],
            &[own],
        ] {
            answer(&log, &topic, headers);
        }
        let until = Instant::now() + Duration::from_secs(20);
        while requests.late.get() < 4 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(requests.late.get(), 4);
        assert_eq!(slot.answer.try_recv().unwrap().offset, 4);
    }

    #[test]
    fn without_a_request_id_the_correlation_id_tells_when_it_is_the_hosts() {
        let dir = tempfile::tempdir().unwrap();
        let (log, requests) = open(dir.path());
        let topic = requests.open(&log).unwrap();
        let mut slot = requests.waiting.enter().unwrap();
        answer(
            &log,
            &topic,
            &[(correlation::HEADER, &slot.id().to_string())],
        );
        let until = Instant::now() + Duration::from_secs(20);
        while slot.answer.try_recv().is_err() {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_request_carries_what_it_is_answered_by_and_no_caller_sets_that() {
        let waiting = Waiting::new(1);
        let slot = waiting.enter().unwrap();
        let timeout = Duration::from_secs(2);
        let sent = |record| addressed(record, &slot, "replies", 1_000, timeout);
        let record = sent(Record::default()).unwrap();
        let value = |name: &str| {
            let found = record.headers.iter().find(|header| header.name == name);
            String::from_utf8(found.unwrap().value.clone().unwrap().0).unwrap()
        };
        assert_eq!(
            (value(REPLY_TO), value(DEADLINE)),
            ("replies".into(), "3000".into())
        );
        assert_eq!(value(REQUEST_ID), value(correlation::HEADER));
        for name in [REPLY_TO, DEADLINE, REQUEST_ID] {
            let headers = vec![Header {
                name: name.to_owned(),
                value: None,
            }];
            let forged = Record {
                headers,
                ..Record::default()
            };
            assert_eq!(sent(forged).unwrap_err().code, Code::Invalid);
        }
    }
}
