//! The internal topics of a pipeline: where its deferred retries wait, and where its dead letters come
//! back. They are made with the pipeline, whatever `create_topics` says, because nobody else could.

use std::sync::Arc;

use crate::config::ladder::ladder;
use crate::config::valid::{Delivery, Pipeline, RetryMode};
use crate::connector::embedded::{Error as LogError, Log, PartitionId, Topic, TopicSpec};
use crate::pipeline::correlation::topic_hash;
use crate::pipeline::offsets::SPAN_MAX;
use crate::pipeline::plan::{Role, SourceTopic, Step};
use crate::pipeline::returned::{self, ADDED_BYTES_MAX, Returned};

use super::Error;
use super::start::target;

/// The internal topics of all `sources`, in the order in which they are appended to `topics`.
pub(super) fn topics(
    pipeline: &Pipeline,
    log: &Log,
    sources: &[Arc<Topic>],
    topics: &mut Vec<SourceTopic>,
    targets: &mut Vec<Arc<Topic>>,
) -> Result<Vec<Arc<Topic>>, Error> {
    let mut read = Vec::new();
    if pipeline.delivery == Delivery::AtMostOnce {
        return Ok(read);
    }
    let ladder = match pipeline.retry.mode {
        RetryMode::Inline => Vec::new(),
        RetryMode::Deferred => ladder(&pipeline.retry.backoff).map_err(|steps| {
            failed(pipeline, format!("its backoff has {steps} different waits"))
        })?,
    };
    let group_name = &pipeline.source.consumer_group;
    for (of, source) in sources.iter().enumerate() {
        let of = of as u16;
        let mut add = |topic: &Arc<Topic>, role| {
            let dead_letter = topics.get(usize::from(of)).map_or(0, |t| t.dead_letter);
            topics.push(SourceTopic {
                name: topic.name.clone(),
                role,
                hash: topic_hash(&topic.name),
                dead_letter,
                steps: Vec::new(),
            });
            read.push(Arc::clone(topic));
        };
        let mut steps = Vec::new();
        for delay_ms in &ladder {
            let name = returned::retry_topic(&source.name, group_name, *delay_ms);
            let topic = made(pipeline, log, &name, source)?;
            let delay_ms = *delay_ms;
            add(&topic, Role::Retries { of, delay_ms });
            steps.push(Step {
                delay_ms,
                target: target(targets, topic),
            });
        }
        for (topic, delay_ms) in left_over(log, source, group_name, &ladder) {
            add(&topic, Role::Retries { of, delay_ms });
        }
        let name = returned::redrive_topic(&source.name, group_name);
        add(&made(pipeline, log, &name, source)?, Role::Redrives { of });
        if let Some(source) = topics.get_mut(usize::from(of)) {
            source.steps = steps;
        }
    }
    Ok(read)
}

fn made(pipeline: &Pipeline, log: &Log, name: &str, source: &Topic) -> Result<Arc<Topic>, Error> {
    let added = ADDED_BYTES_MAX as u32;
    let spec = TopicSpec {
        internal: true,
        max_message_bytes: source.spec.max_message_bytes.saturating_add(added),
        ..TopicSpec::new(name, source.spec.partitions)
    };
    match log.topic(name) {
        None => Ok(log.create_topic(&spec)?),
        Some(topic) if topic.spec == spec => Ok(topic),
        Some(_) => Err(failed(
            pipeline,
            format!(
                "topic `{name}` is needed for messages on their way back, and is there already as another; give the pipeline another consumer group"
            ),
        )),
    }
}

/// Topics of steps that the configuration has no more. Empty ones too: the pipeline that had those steps may
/// still run while this one is prepared, and put something aside before it ends.
fn left_over(
    log: &Log,
    source: &Topic,
    group_name: &str,
    ladder: &[u64],
) -> Vec<(Arc<Topic>, u64)> {
    let topics = log.topics().into_iter();
    let steps = topics.filter_map(|topic| {
        let delay_ms = returned::delay_of(&topic.name, &source.name, group_name)?;
        let is_left = topic.spec.internal && !ladder.contains(&delay_ms);
        is_left.then_some((topic, delay_ms))
    });
    steps.collect()
}

/// Before which offset of a partition an earlier host may have called messages that are not settled.
pub(super) fn replay_until(
    log: &Log,
    partition: PartitionId,
    role: Role,
    committed: u64,
) -> Result<u64, Error> {
    let end = (committed + SPAN_MAX).min(log.end(partition)?);
    match role {
        // It cannot have called what is not due even now, and that may take long to be.
        Role::Retries { .. } => first_not_due(log, partition, committed, end),
        Role::Source | Role::Redrives { .. } => Ok(end),
    }
}

/// The first message from `from` to before `end` that is not due yet, else `end`. Those behind it are due
/// later.
fn first_not_due(log: &Log, partition: PartitionId, from: u64, end: u64) -> Result<u64, Error> {
    let now_ms = log.now_ms();
    let (mut low, mut high) = (from, end.max(from));
    while low < high {
        let middle = low + (high - low) / 2;
        let chunk = match log.read(partition, middle) {
            Ok(chunk) => chunk,
            // It is gone, and will not be called.
            Err(LogError::OffsetOutOfRange { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let next = chunk
            .as_ref()
            .and_then(|chunk| chunk.iter_from(middle).next());
        let known = next.and_then(|(_, _, message)| Returned::read(&message).ok());
        let due_ms = known.map(|(known, _)| known.due_ms);
        // What cannot be read is refused at once.
        if due_ms.is_none_or(|due| due <= now_ms) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

fn failed(pipeline: &Pipeline, why: String) -> Error {
    Error::Pipeline {
        pipeline: pipeline.name.clone(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::connector::embedded::{Append, ChunkBuilder, Commit, Options};
    use crate::message::{HeadersBuf, MessageRef};

    /// §5.2: the pipeline that had the step may put something aside after this one was prepared.
    #[test]
    fn every_step_that_a_group_ever_had_is_read_empty_or_not() {
        let text = "version: 1\npipelines:\n  - { name: p, source: { topics: [t], consumer_group: g, start: earliest }, handler: { plugin: ./h.wasm } }\n";
        let path = std::path::Path::new("pipeline.yaml");
        let loaded = crate::config::load_text(path, text, &|_| None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let source = log
            .create_topic(&TopicSpec::new("t", NonZeroU32::MIN))
            .unwrap();
        let step = |group| TopicSpec {
            internal: true,
            ..TopicSpec::new(returned::retry_topic("t", group, 30_000), NonZeroU32::MIN)
        };
        let own = log.create_topic(&step("g")).unwrap();
        log.create_topic(&step("other")).unwrap();
        let mut topics = vec![SourceTopic {
            name: "t".into(),
            role: Role::Source,
            hash: 0,
            dead_letter: 0,
            steps: Vec::new(),
        }];
        let pipeline = &loaded.config.pipelines[0];
        let read = super::topics(pipeline, &log, &[source], &mut topics, &mut Vec::new()).unwrap();
        let names: Vec<&str> = read.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(names, [own.name.as_str(), "t.g.redrive"]);
        let role = Role::Retries {
            of: 0,
            delay_ms: 30_000,
        };
        assert_eq!(topics[1].role, role);
    }

    /// §4.4: retries that wait for an hour keep no exits of earlier hosts counted for an hour.
    #[test]
    fn what_an_earlier_host_cannot_have_called_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let topic = log
            .create_topic(&TopicSpec::new("waits", std::num::NonZeroU32::MIN))
            .unwrap();
        let partition = topic.partitions[0];
        let now_ms = log.now_ms();
        let retries = Role::Retries {
            of: 0,
            delay_ms: 3_600_000,
        };
        let until = |role, committed| replay_until(&log, partition, role, committed).unwrap();
        assert_eq!(until(retries, 0), 0, "nothing is there");
        for dues in [
            &[-3_000, -2_000][..],
            &[-1_000, 600_000, 700_000],
            &[800_000],
        ] {
            let mut builder = ChunkBuilder::default();
            for due in dues {
                let known = Returned {
                    attempts: 1,
                    due_ms: now_ms + due,
                    first_failed_at_ms: Some(now_ms),
                    origin_topic: "in".to_owned(),
                    origin_partition: 0,
                    origin_offset: 0,
                    redrive_count: 0,
                    dead_letter_id: None,
                };
                let mut headers = HeadersBuf::new();
                let record = known.record(&MessageRef::default(), &mut headers).unwrap();
                builder.push(&record);
            }
            log.commit(Commit {
                appends: vec![Append {
                    partition,
                    chunk: builder.finish(),
                }],
                ..Commit::default()
            })
            .unwrap();
        }
        for committed in 0..=3 {
            assert_eq!(until(retries, committed), 3, "{committed}");
        }
        assert_eq!(until(retries, 4), 4);
        assert_eq!(until(Role::Redrives { of: 0 }, 0), 6);
        assert_eq!(until(Role::Source, 0), 6);
    }
}
