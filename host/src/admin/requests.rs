//! Requests that wait for their answers (§8.3): a message goes to a topic with `reply-to`, `correlation-id`
//! and a deadline; one thread reads the host's own reply topic and hands each answer to whoever waits for its
//! request ID. Waiting holds no thread. Not here: how handlers answer (`pipeline/reply.rs`).
//!
//! Nobody gets another's answer: each request has an ID of its own that its answer carries back, and that is
//! never used again, in no life of the host; whatever the correlation ID is.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;

use super::console;
use super::error::{Code, Error};
use super::wire::{Blob, Header, Message, Record};
use crate::connector::embedded::{Commit, Log, PartitionId, Retention, TopicSpec, Write};
use crate::message::MessageRef;
use crate::pipeline::correlation;
use crate::pipeline::reply::{DEADLINE, REPLY_TO, REQUEST_ID};

/// Requests that may wait at a time.
pub const REQUESTS_MAX: usize = 10_000;
/// Bytes of answers that are kept.
pub const REPLY_TOPIC_BYTES: u64 = 64 << 20;
/// Longest time a request may wait.
pub const REQUEST_WAIT_MAX: Duration = Duration::from_secs(50);
/// How long the reader sleeps when nothing wakes it.
const IDLE: Duration = Duration::from_millis(500);
/// What the names of hosts' reply topics begin with.
pub const REPLY_TOPIC_PREFIX: &str = "wasmill.replies.";
const HOST_ID: &[u8] = b"host/id";

/// All that wait on one host.
pub struct Requests {
    shared: Arc<Shared>,
    /// Started with the first request.
    reader: Mutex<Option<Reader>>,
}

struct Reader {
    topic: String,
    thread: JoinHandle<()>,
}

struct Shared {
    log: Log,
    /// By request ID.
    waiting: Mutex<HashMap<String, oneshot::Sender<Message>>>,
    stop: AtomicBool,
    late: AtomicU64,
}

/// A request that is waited for; gone when this is dropped.
pub(super) struct Waits {
    id: String,
    shared: Arc<Shared>,
    answer: oneshot::Receiver<Message>,
}

impl Requests {
    #[must_use]
    pub fn new(log: Log) -> Self {
        Self {
            shared: Arc::new(Shared {
                log,
                waiting: Mutex::default(),
                stop: AtomicBool::new(false),
                late: AtomicU64::new(0),
            }),
            reader: Mutex::default(),
        }
    }

    /// Answers that nobody waited for any more.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.shared.late.load(Ordering::Relaxed)
    }

    /// Completes `record` to a request that is answered to this host until `deadline_ms` (Unix ms), and
    /// waits for its answer from now on. It is still to be produced.
    pub(super) fn begin(&self, record: &mut Record, deadline_ms: i64) -> Result<Waits, Error> {
        let topic = self.reply_topic()?;
        record
            .headers
            .retain(|header| ![REPLY_TO, DEADLINE, REQUEST_ID].contains(&header.name.as_str()));
        let id = uuid::Uuid::now_v7().hyphenated().to_string();
        if console::correlation_of(record).is_none() {
            record.headers.push(header(correlation::HEADER, &id));
        }
        record.headers.push(header(REQUEST_ID, &id));
        record.headers.push(header(REPLY_TO, &topic));
        record
            .headers
            .push(header(DEADLINE, &deadline_ms.to_string()));
        self.shared.wait_for(id)
    }

    fn reply_topic(&self) -> Result<String, Error> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = &*reader {
            return Ok(reader.topic.clone());
        }
        let log = &self.shared.log;
        let name = format!("{REPLY_TOPIC_PREFIX}{}", host_id(log)?);
        let topic = match log.topic(&name) {
            Some(topic) => topic,
            None => log.create_topic(&TopicSpec {
                retention: Retention {
                    age: None,
                    bytes: Some(REPLY_TOPIC_BYTES),
                },
                ..TopicSpec::new(name.as_str(), NonZeroU32::MIN)
            })?,
        };
        let Some(partition) = topic.partition(0) else {
            return Err(Error::internal("the reply topic has no partition"));
        };
        // Answers to an earlier run of this host are nobody's.
        let from = log.end(partition)?;
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name("replies".to_owned())
            .spawn(move || shared.read(partition, from))
            .map_err(|why| Error::internal(format!("a thread cannot be started: {why}")))?;
        *reader = Some(Reader {
            topic: name.clone(),
            thread,
        });
        Ok(name)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reader) = reader.take() {
            reader.thread.thread().unpark();
            if reader.thread.join().is_err() {
                tracing::error!("the reader of replies panicked; please report this");
            }
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Message>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(self: &Arc<Self>, id: String) -> Result<Waits, Error> {
        let mut waiting = self.waiting();
        if waiting.len() >= REQUESTS_MAX {
            return Err(Error::new(
                Code::Busy,
                format!("{REQUESTS_MAX} requests wait for their answers already"),
                "try again when some are answered",
            ));
        }
        let (send, answer) = oneshot::channel();
        waiting.insert(id.clone(), send);
        Ok(Waits {
            id,
            shared: Arc::clone(self),
            answer,
        })
    }

    /// Hands answers on until it is told to stop.
    fn read(&self, partition: PartitionId, mut next: u64) {
        let _awake = self.log.subscribe(&[partition], std::thread::current());
        while !self.stop.load(Ordering::Acquire) {
            match self.log.read(partition, next) {
                Ok(Some(chunk)) => {
                    for (offset, _, message) in chunk.iter_from(next) {
                        self.answered(offset, &message);
                    }
                    next = chunk.end_offset();
                }
                Ok(None) => std::thread::park_timeout(IDLE),
                Err(why) => {
                    tracing::warn!(error = %why, "answers to requests cannot be read for now");
                    // Retention may have passed what nobody waits for.
                    next = next.max(self.log.earliest(partition).unwrap_or(next));
                    std::thread::park_timeout(IDLE);
                }
            }
        }
    }

    fn answered(&self, offset: u64, message: &MessageRef<'_>) {
        // Without a request ID it came by way of another topic or program; then the correlation ID tells, when
        // the caller chose none.
        let headers = &message.headers;
        let id = headers
            .last(REQUEST_ID)
            .or_else(|| headers.last(correlation::HEADER));
        let id = id.and_then(|id| std::str::from_utf8(id).ok());
        let waits = id.and_then(|id| self.waiting().remove(id));
        let Some(waits) = waits else {
            // A crash or a duplicate may answer once more; or it is late.
            self.late.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let answer = console::message("", 0, offset, message);
        if waits.send(answer).is_err() {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Waits {
    /// The answer, when it comes in what is `left` of the time that was asked for.
    pub(super) async fn answer(
        mut self,
        left: Duration,
        asked: Duration,
    ) -> Result<Message, Error> {
        match tokio::time::timeout(left, &mut self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Error::internal("a request was forgotten")),
            Err(_) => Err(Error::new(
                Code::NoAnswer,
                format!("no answer within {:.1} s", asked.as_secs_f64()),
                "does a pipeline read the topic and answer (an output named `reply`)? `wasmill status` and `wasmill dlq list` tell; an answer that comes later is dropped",
            )),
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.shared.waiting().remove(&self.id);
    }
}

/// Of this data directory, for ever.
fn host_id(log: &Log) -> Result<String, Error> {
    let stored = log.meta_get(HOST_ID)?;
    if let Some(id) = stored.and_then(|bytes| String::from_utf8(bytes.to_vec()).ok()) {
        return Ok(id);
    }
    let id = uuid::Uuid::now_v7().simple().to_string();
    log.commit(Commit {
        writes: vec![Write::Meta {
            key: HOST_ID.to_vec(),
            value: Some(id.clone().into_bytes()),
        }],
        ..Commit::default()
    })?;
    Ok(id)
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.to_owned(),
        value: Some(Blob(value.as_bytes().to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::embedded::Options;
    use crate::message::HeadersBuf;

    fn requests() -> (tempfile::TempDir, Requests) {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        (dir, Requests::new(log))
    }

    fn answer(requests: &Requests, id: &str, payload: &str) {
        answer_with(requests, &[(REQUEST_ID, id)], payload);
    }

    fn answer_with(requests: &Requests, of: &[(&str, &str)], payload: &str) {
        let mut headers = HeadersBuf::new();
        for (name, value) in of {
            assert!(headers.push(name, Some(value.as_bytes())));
        }
        requests.shared.answered(
            0,
            &MessageRef {
                payload: Some(payload.as_bytes()),
                headers: headers.as_headers(),
                ..MessageRef::default()
            },
        );
    }

    fn with_id(id: &str) -> Record {
        Record {
            headers: vec![header(correlation::HEADER, id)],
            ..Record::default()
        }
    }

    fn block<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(future)
    }

    const SOON: Duration = Duration::from_millis(20);

    fn id_of(record: &Record) -> String {
        let found = record.headers.iter().find(|h| h.name == REQUEST_ID);
        String::from_utf8(found.unwrap().value.clone().unwrap().0).unwrap()
    }

    fn payload(message: Message) -> String {
        String::from_utf8(message.payload.unwrap().0).unwrap()
    }

    #[test]
    fn each_answer_goes_to_whoever_waits_for_its_id_and_late_ones_are_counted() {
        let (_dir, requests) = requests();
        let (mut a, mut b) = (with_id("a"), Record::default());
        let first = requests.begin(&mut a, 0).unwrap();
        let second = requests.begin(&mut b, 0).unwrap();
        let made = console::correlation_of(&b).unwrap();
        assert_eq!(uuid::Uuid::parse_str(&made).unwrap().get_version_num(), 7);
        // By way of another program: all it has is the correlation ID that the host chose.
        answer_with(&requests, &[(correlation::HEADER, &made)], "for b");
        answer(&requests, &id_of(&a), "for a");
        answer(&requests, &id_of(&a), "once more");
        answer(&requests, "nobody", "");
        assert_eq!(payload(block(first.answer(SOON, SOON)).unwrap()), "for a");
        assert_eq!(payload(block(second.answer(SOON, SOON)).unwrap()), "for b");
        assert_eq!(requests.late(), 2);
    }

    /// §8.3
    #[test]
    fn a_correlation_id_may_be_used_twice_at_once_and_anew_after_a_timeout() {
        let (_dir, requests) = requests();
        let begin = || {
            let mut record = with_id("a");
            let waits = requests.begin(&mut record, 0).unwrap();
            assert_eq!(console::correlation_of(&record).unwrap(), "a");
            (id_of(&record), waits)
        };
        let (one, first) = begin();
        let (two, second) = begin();
        answer(&requests, &two, "second");
        assert_eq!(payload(block(second.answer(SOON, SOON)).unwrap()), "second");
        assert_eq!(
            block(first.answer(SOON, SOON)).unwrap_err().code,
            Code::NoAnswer
        );
        let (three, third) = begin();
        // Late, the second one, of an earlier life: none of them is the third's.
        for id in [&one, &two, "0192aaaa-0000-7000-8000-000000000000"] {
            answer_with(
                &requests,
                &[(REQUEST_ID, id), (correlation::HEADER, "a")],
                "another's",
            );
        }
        answer_with(&requests, &[(correlation::HEADER, "a")], "nobody's");
        assert_eq!(requests.late(), 4);
        answer(&requests, &three, "third");
        assert_eq!(payload(block(third.answer(SOON, SOON)).unwrap()), "third");
    }

    #[test]
    fn a_request_says_where_and_until_when_it_wants_its_answer_whatever_the_caller_wrote() {
        let (_dir, requests) = requests();
        let mut record = Record {
            headers: vec![
                header(REPLY_TO, "elsewhere"),
                header(DEADLINE, "1"),
                header("own", "kept"),
            ],
            ..Record::default()
        };
        let _waits = requests.begin(&mut record, 5_000).unwrap();
        let values = |name: &str| -> Vec<String> {
            let found = record.headers.iter().filter(|header| header.name == name);
            found
                .map(|header| String::from_utf8(header.value.clone().unwrap().0).unwrap())
                .collect()
        };
        assert!(values(REPLY_TO)[0].starts_with(REPLY_TOPIC_PREFIX) && values(REPLY_TO).len() == 1);
        assert_eq!(values(DEADLINE), ["5000"]);
        assert_eq!(values("own"), ["kept"]);
    }

    #[test]
    fn answers_are_kept_up_to_reply_topic_bytes() {
        let (_dir, requests) = requests();
        let name = requests.reply_topic().unwrap();
        let topic = requests.shared.log.topic(&name).unwrap();
        assert_eq!(topic.spec.retention.bytes, Some(REPLY_TOPIC_BYTES));
    }

    #[test]
    fn requests_max_bounds_who_waits_and_who_leaves_makes_room() {
        let (_dir, requests) = requests();
        let mut waiting = Vec::new();
        for _ in 0..REQUESTS_MAX {
            waiting.push(requests.begin(&mut Record::default(), 0).unwrap());
        }
        let refused = requests.begin(&mut Record::default(), 0).err().unwrap();
        assert_eq!(refused.code, Code::Busy);
        waiting.pop();
        let one_more = requests.begin(&mut Record::default(), 0);
        assert!(one_more.is_ok());
        drop((waiting, one_more));
        assert!(requests.shared.waiting().is_empty());
    }
}
