//! The bare loop: reads chunks, does the handler's work natively, writes the same records (headers
//! included) and the same progress, with settlements of the host's size in flight. No sandbox, lanes,
//! retries, metrics: what a careful engineer would write by hand against the same store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmill::connector::embedded::{
    Append, ChunkBuilder, Commit, GroupId, Log, PartitionId, Topic, Write,
};
use wasmill::expression::Expression;
use wasmill::idempotency::completion::{Completion, Status};
use wasmill::idempotency::{self};
use wasmill::message::{HeadersBuf, MessageRef};
use wasmill::pipeline::correlation::{self, Correlation};
use wasmill::pipeline::offsets::Progress;

use crate::store::{self, INPUT};
use crate::{Case, Measure};

/// Commits not acknowledged, as the host has.
const IN_FLIGHT_MAX: u64 = 4;
/// Messages of a commit while the disk is busy, as the host has.
const COMMIT_MESSAGES: usize = 4096;

pub(crate) fn run(
    dir: &Path,
    case: Case,
    threads: usize,
    round: usize,
    messages: u64,
) -> Result<Measure, String> {
    let log = store::open(dir)?;
    let output = format!("bare-{threads}-{round}");
    store::create(&log, &output)?;
    let group = log.group(&output).map_err(|error| error.to_string())?;
    let source = log.topic(INPUT).ok_or("no input")?;
    let target = log.topic(&output).ok_or("no output")?;
    let (cpu, started) = (store::cpu_seconds(), Instant::now());
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let own: Vec<_> = source
                    .partitions
                    .iter()
                    .copied()
                    .enumerate()
                    .filter(|(index, _)| index % threads == thread)
                    .collect();
                let (log, target) = (&log, Arc::clone(&target));
                scope.spawn(move || Loop::new(log, group, target, case).run(&own))
            })
            .collect();
        let mut done = 0;
        for worker in workers {
            done += worker
                .join()
                .map_err(|_| "a thread panicked".to_owned())??;
        }
        Ok::<u64, String>(done)
    })?;
    let measure = Measure {
        seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: store::cpu_seconds() - cpu,
        messages: done,
    };
    log.close().map_err(|error| error.to_string())?;
    if done == messages {
        Ok(measure)
    } else {
        Err(format!("the bare loop saw {done} of {messages} messages"))
    }
}

struct Loop<'l> {
    log: &'l Log,
    group: GroupId,
    target: Arc<Topic>,
    builders: Vec<ChunkBuilder>,
    commit: Commit,
    in_commit: usize,
    sent: u64,
    acknowledged: Arc<AtomicU64>,
    key: Option<Expression>,
    topic_hash: u64,
}

impl<'l> Loop<'l> {
    fn new(log: &'l Log, group: GroupId, target: Arc<Topic>, case: Case) -> Self {
        let key = (case == Case::Idempotent)
            .then(|| Expression::parse("message.json.order_id").ok())
            .flatten();
        Self {
            log,
            group,
            builders: target
                .partitions
                .iter()
                .map(|_| ChunkBuilder::new())
                .collect(),
            target,
            commit: Commit::default(),
            in_commit: 0,
            sent: 0,
            acknowledged: Arc::default(),
            key,
            topic_hash: correlation::topic_hash(INPUT),
        }
    }

    fn run(mut self, own: &[(usize, PartitionId)]) -> Result<u64, String> {
        let mut done = 0;
        let mut positions: Vec<u64> = own.iter().map(|_| 0).collect();
        loop {
            let mut read = false;
            for ((number, partition), position) in own.iter().zip(&mut positions) {
                let Some(chunk) = self
                    .log
                    .read(*partition, *position)
                    .map_err(|error| error.to_string())?
                else {
                    continue;
                };
                read = true;
                for (offset, _, message) in chunk.iter_from(*position) {
                    self.one(*number as u32, offset, &message)?;
                    done += 1;
                }
                *position = chunk.end_offset();
                let mut value = Vec::new();
                Progress {
                    committed: *position,
                    ..Progress::default()
                }
                .encode(&mut value);
                self.commit.writes.push(Write::Progress {
                    group: self.group,
                    partition: *partition,
                    value,
                });
                let idle = self.sent == self.acknowledged.load(Ordering::Acquire);
                if (idle && self.in_commit >= 256) || self.in_commit >= COMMIT_MESSAGES {
                    self.submit()?;
                }
            }
            if !read {
                break;
            }
        }
        self.submit()?;
        self.wait(0);
        Ok(done)
    }

    fn one(&mut self, number: u32, offset: u64, message: &MessageRef<'_>) -> Result<(), String> {
        self.in_commit += 1;
        if let Some(key) = &self.key {
            let mut canonical = Vec::new();
            key.canonical(message, &mut canonical)
                .map_err(|error| error.to_string())?;
            let hash = idempotency::hash(&canonical);
            let now = self.log.now_ms();
            if self
                .log
                .completion(self.group, hash, now)
                .map_err(|error| error.to_string())?
                .is_some()
            {
                return Ok(());
            }
            let expires_at_ms = now + 86_400_000;
            let completion = Completion {
                fingerprint: idempotency::fingerprint(message.payload),
                status: Status::Completed,
                expires_at_ms,
                outputs: None,
            };
            let mut value = Vec::new();
            completion.encode(&mut value);
            self.commit.writes.push(Write::Completion {
                group: self.group,
                hash,
                expires_at_ms,
                value,
            });
        }
        let mut payload = Vec::with_capacity(256);
        if !enrich_logic::enrich_into(message.payload.unwrap_or_default(), &mut payload)
            .map_err(|error| error.to_string())?
        {
            return Ok(());
        }
        let correlation = Correlation::of(&message.headers, self.topic_hash, number, offset);
        let mut headers = HeadersBuf::new();
        if !headers.push(
            correlation::HEADER,
            Some(correlation.text(&message.headers).as_bytes()),
        ) {
            return Err("the header does not fit".to_owned());
        }
        let index = self.target.partition_for(message.key) as usize;
        if let Some(builder) = self.builders.get_mut(index) {
            builder.push(&MessageRef {
                key: message.key,
                payload: Some(&payload),
                headers: headers.as_headers(),
                timestamp_ms: message.timestamp_ms,
            });
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<(), String> {
        for (builder, partition) in self.builders.iter_mut().zip(&self.target.partitions) {
            if !builder.is_empty() {
                self.commit.appends.push(Append {
                    partition: *partition,
                    chunk: builder.finish(),
                });
            }
        }
        self.wait(IN_FLIGHT_MAX - 1);
        self.sent += 1;
        self.in_commit = 0;
        let (acknowledged, sent, thread) = (
            Arc::clone(&self.acknowledged),
            self.sent,
            std::thread::current(),
        );
        let ack = Box::new(move |result: Result<_, _>| {
            if result.is_ok() {
                acknowledged.store(sent, Ordering::Release);
            }
            thread.unpark();
        });
        self.log
            .submit(std::mem::take(&mut self.commit), ack)
            .map_err(|error| error.to_string())
    }

    fn wait(&self, in_flight_max: u64) {
        while self.sent - self.acknowledged.load(Ordering::Acquire) > in_flight_max {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}
