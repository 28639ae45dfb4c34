//! Requests that wait for their answers (§8.3): a message goes to a topic with `reply-to`, `correlation-id`
//! and a deadline; one thread reads the host's own reply topic and hands each answer to whoever waits for its
//! correlation ID. Waiting holds no thread. Not here: how handlers answer (`pipeline/reply.rs`).
//!
//! Nobody gets another's answer: an ID that is waited for, or whose answer may still come, is not taken again.

use std::collections::{HashMap, HashSet, VecDeque};
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
use crate::pipeline::reply::{DEADLINE, REPLY_TO};

/// Requests that may wait at a time.
pub const REQUESTS_MAX: usize = 10_000;
/// IDs of requests that timed out and whose answers may still come.
pub const SPENT_MAX: usize = 10_000;
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
    waiting: Mutex<Waiting>,
    stop: AtomicBool,
    late: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    by_id: HashMap<String, oneshot::Sender<Message>>,
    spent: HashSet<String>,
    /// Oldest first.
    spent_order: VecDeque<String>,
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
            .retain(|header| header.name != REPLY_TO && header.name != DEADLINE);
        let id = match console::correlation_of(record) {
            Some(id) => id,
            None => {
                let id = uuid::Uuid::now_v7().hyphenated().to_string();
                record.headers.push(header(correlation::HEADER, &id));
                id
            }
        };
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
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(self: &Arc<Self>, id: String) -> Result<Waits, Error> {
        let mut waiting = self.waiting();
        if waiting.by_id.contains_key(&id) || waiting.spent.contains(&id) {
            return Err(Error::new(
                Code::CorrelationInUse,
                "a request with this correlation ID was made, and its answer may still come",
                "give each request an ID of its own, or leave it out",
            ));
        }
        if waiting.by_id.len() >= REQUESTS_MAX {
            return Err(Error::new(
                Code::Busy,
                format!("{REQUESTS_MAX} requests wait for their answers already"),
                "try again when some are answered",
            ));
        }
        let (send, answer) = oneshot::channel();
        waiting.by_id.insert(id.clone(), send);
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
        let id = message.headers.last(correlation::HEADER);
        let id = id
            .and_then(|id| std::str::from_utf8(id).ok())
            .unwrap_or_default();
        let mut waiting = self.waiting();
        let Some(waits) = waiting.by_id.remove(id) else {
            waiting.spent.remove(id);
            self.late.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // A crash or a duplicate may answer once more.
        waiting.spend(id);
        drop(waiting);
        let answer = console::message("", 0, offset, message);
        if waits.send(answer).is_err() {
            self.late.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Waiting {
    fn spend(&mut self, id: &str) {
        if self.spent.insert(id.to_owned()) {
            self.spent_order.push_back(id.to_owned());
        }
        while self.spent_order.len() > SPENT_MAX {
            if let Some(oldest) = self.spent_order.pop_front() {
                self.spent.remove(&oldest);
            }
        }
    }
}

impl Waits {
    /// The answer, or the timeout.
    pub(super) async fn answer(mut self, timeout: Duration) -> Result<Message, Error> {
        match tokio::time::timeout(timeout, &mut self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Error::internal("a request was forgotten")),
            Err(_) => Err(Error::new(
                Code::NoAnswer,
                format!("no answer within {:.1} s", timeout.as_secs_f64()),
                "does a pipeline read the topic and answer (an output named `reply`)? `wasmill status` and `wasmill dlq list` tell; an answer that comes later is dropped",
            )),
        }
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut waiting = self.shared.waiting();
        if waiting.by_id.remove(&self.id).is_some() {
            waiting.spend(&self.id);
        }
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
        let mut headers = HeadersBuf::new();
        assert!(headers.push(correlation::HEADER, Some(id.as_bytes())));
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

    #[test]
    fn each_answer_goes_to_whoever_waits_for_its_id_and_late_ones_are_counted() {
        let (_dir, requests) = requests();
        let (mut a, mut b) = (with_id("a"), Record::default());
        let first = requests.begin(&mut a, 0).unwrap();
        let second = requests.begin(&mut b, 0).unwrap();
        let made = console::correlation_of(&b).unwrap();
        assert_eq!(uuid::Uuid::parse_str(&made).unwrap().get_version_num(), 7);
        answer(&requests, &made, "for b");
        answer(&requests, "a", "for a");
        answer(&requests, "a", "once more");
        answer(&requests, "nobody", "");
        let payload = |message: Message| String::from_utf8(message.payload.unwrap().0).unwrap();
        assert_eq!(payload(block(first.answer(SOON)).unwrap()), "for a");
        assert_eq!(payload(block(second.answer(SOON)).unwrap()), "for b");
        assert_eq!(requests.late(), 2);
    }

    #[test]
    fn an_id_is_not_taken_again_while_an_answer_to_it_may_come() {
        let (_dir, requests) = requests();
        let again = || {
            requests
                .begin(&mut with_id("a"), 0)
                .map(|_| ())
                .map_err(|error| error.code)
        };
        let first = requests.begin(&mut with_id("a"), 0).unwrap();
        assert_eq!(again(), Err(Code::CorrelationInUse), "it waits");
        let late = block(first.answer(SOON)).unwrap_err();
        assert_eq!(late.code, Code::NoAnswer);
        assert_eq!(
            again(),
            Err(Code::CorrelationInUse),
            "its answer may still come"
        );
        answer(&requests, "a", "late");
        assert_eq!((requests.late(), again()), (1, Ok(())));
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
    fn requests_max_and_spent_max_bound_what_is_remembered() {
        let (_dir, requests) = requests();
        let mut waiting = Vec::new();
        for _ in 0..REQUESTS_MAX {
            waiting.push(requests.begin(&mut Record::default(), 0).unwrap());
        }
        let refused = requests.begin(&mut Record::default(), 0).err().unwrap();
        assert_eq!(refused.code, Code::Busy);
        drop(waiting);
        assert!(requests.shared.waiting().by_id.is_empty());
        for n in 0..10 {
            drop(requests.begin(&mut with_id(&format!("{n}")), 0).unwrap());
        }
        let state = requests.shared.waiting();
        assert_eq!(
            (state.spent.len(), state.spent_order.len()),
            (SPENT_MAX, SPENT_MAX)
        );
    }
}
