//! From a validated pipeline to running workers: topics, plugin, progress, assignments, threads.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::config::valid::{Config, Delivery, Pipeline, Start};
use crate::connector::embedded::epoch::{self, Epoch};
use crate::connector::embedded::source::{Groups, Source};
use crate::connector::embedded::{Commit, GroupId, Log, PartitionId, Topic, TopicSpec, Write};
use crate::idempotency::Table;
use crate::idempotency::claims::Claims;
use crate::pipeline::circuit::Circuit;
use crate::pipeline::dead_letter;
use crate::pipeline::offsets::Progress;
use crate::pipeline::output::HeaderRule;
use crate::pipeline::overlay::{Overlay, StoredBytes};
use crate::pipeline::plan::{BATCH_DEFAULT, Plan, PlanOutput, Role, SourceTopic};
use crate::pipeline::rate::Rate;
use crate::pipeline::reply::ReplyRule;
use crate::pipeline::run::{Assignment, Control, Halt, Parts, Worker};
use crate::pipeline::sequence::Numbers;
use crate::pipeline::snapshot::State;
use crate::plugin::{self, Engine, Plugin};
use crate::telemetry::metrics::{Metrics, PipelineMetrics};
use crate::telemetry::spans::{Described, Spans, WorkerSpans};

use super::Error;
use super::clock::System;
use super::pipelines::PATIENCE;
use super::returns;
use super::running::{Running, all_or_none};
use super::state_view::{LogState, Usage};
use super::table::{LogNumbers, LogTable};
use super::watch::{Watch, WorkerWatch};

/// What a dead letter's headers may add to its message, bytes.
pub(super) const DEAD_LETTER_ROOM: u32 = 8 * 1024;

/// A partition and where its group stands.
struct Place {
    topic: u16,
    /// Of a topic of messages that come back: the place of the partition they came from.
    origin: Option<usize>,
    number: u32,
    id: PartitionId,
    progress: Progress,
    replay_until: u64,
}

/// A group's idempotency table belongs to one pipeline: two would not see each other's claims.
pub(super) fn one_table_one_pipeline(pipelines: &[Pipeline]) -> Result<(), Error> {
    for (index, one) in pipelines.iter().enumerate() {
        let group = &one.source.consumer_group;
        let other = pipelines.iter().skip(index + 1).find(|other| {
            other.source.consumer_group == *group
                && (one.idempotency.is_some() || other.idempotency.is_some())
        });
        if let Some(other) = other {
            return Err(Error::Pipeline {
                pipeline: other.name.clone(),
                why: format!(
                    "its consumer group `{group}` is also that of pipeline `{}`, and a group with `idempotency` has one pipeline; give them groups of their own",
                    one.name
                ),
            });
        }
    }
    Ok(())
}

/// Instances beyond those of the first configuration, for pipelines that a reload adds or enlarges.
const INSTANCES_SPARE: u32 = 64;

pub(super) fn engine(config: &Config) -> Result<Engine, Error> {
    Engine::new(plugin::Options {
        cache_dir: config.host.data_dir.join("plugin-cache"),
        guest_memory: config.host.guest_memory,
        instances_max: instances(config).saturating_add(INSTANCES_SPARE),
        memory_max: memory_max(config),
    })
    .map_err(Error::Engine)
}

/// One spare for each worker, so that a fresh instance can be made before the old one is gone.
pub(super) fn instances(config: &Config) -> u32 {
    let pipelines = config.pipelines.iter();
    let workers: u32 = pipelines.map(|one| one.handler.concurrency.get()).sum();
    workers.max(1).saturating_mul(2)
}

/// Bytes of the largest instance.
pub(super) fn memory_max(config: &Config) -> u64 {
    let pipelines = config.pipelines.iter();
    let largest = pipelines.map(|one| one.handler.limits.memory).max();
    largest.unwrap_or(128 << 20)
}

/// The plugin of a pipeline, which may only be called as it says it can be.
pub(super) fn plugin(pipeline: &Pipeline, engine: &Engine) -> Result<Plugin, Error> {
    let handler = &pipeline.handler;
    let plugin = engine
        .load(&handler.plugin, &handler.allow, &handler.limits)
        .map_err(|source| Error::Plugin {
            pipeline: pipeline.name.clone(),
            source,
        })?;
    if plugin.has_effects() && pipeline.handler.batch.is_some_and(|batch| batch.get() > 1) {
        return Err(Error::Pipeline {
            pipeline: pipeline.name.clone(),
            why: "a handler with state gets one message a call, because the state writes of a call cannot be told apart by message; leave `handler.batch` out".to_owned(),
        });
    }
    Ok(plugin)
}

/// A pipeline that is ready to start, as often as it is wanted.
pub(super) struct Prepared {
    pub(super) pipeline: Pipeline,
    plugin: Plugin,
    plan: Arc<Plan>,
    group: GroupId,
    /// In the order of the plan's topics.
    read: Vec<Arc<Topic>>,
    targets: Vec<Arc<Topic>>,
}

impl Prepared {
    pub(super) fn new(
        pipeline: &Pipeline,
        plugin: Plugin,
        config: &Config,
        log: &Log,
    ) -> Result<Self, Error> {
        let sources = source_topics(pipeline, config, log)?;
        let mut targets: Vec<Arc<Topic>> = Vec::new();
        let outputs = outputs(pipeline, config, log, &mut targets)?;
        let mut topics = dead_letters(pipeline, config, log, &sources, &mut targets)?;
        let group = log.group(&pipeline.source.consumer_group)?;
        let mut read = sources;
        let returns = returns::topics(pipeline, log, &read, &mut topics, &mut targets)?;
        read.extend(returns);
        let plan = Arc::new(plan(pipeline, &plugin, topics, outputs));
        Ok(Self {
            pipeline: pipeline.clone(),
            plugin,
            plan,
            group,
            read,
            targets,
        })
    }

    /// `sha256:…` of the plugin file.
    pub(super) fn plugin_digest(&self) -> &str {
        self.plugin.digest()
    }

    /// A worker of it has this partition of one of its topics, internal ones included.
    pub(super) fn reads(&self, topic: &str, partition: u32) -> bool {
        let topics = self.read.iter();
        let mut own = topics.filter(|one| one.name == topic);
        own.any(|one| (partition as usize) < one.partitions.len())
    }

    /// Partitions of what comes back go with those of their source.
    pub(super) fn workers(&self) -> usize {
        let topics = self.read.iter().zip(&self.plan.topics);
        let sources = topics.filter(|(_, described)| described.role == Role::Source);
        let partitions: usize = sources.map(|(topic, _)| topic.partitions.len()).sum();
        (self.pipeline.handler.concurrency.get() as usize)
            .min(partitions)
            .max(1)
    }

    fn metrics(&self, metrics: &Metrics) -> PipelineMetrics {
        let targets = self.targets.iter();
        let names: Vec<&str> = targets.map(|topic| topic.name.as_str()).collect();
        let (name, group) = (&self.plan.pipeline, &self.plan.consumer_group);
        if self.plan.reply.0.is_empty() {
            metrics.pipeline(name, group, &names)
        } else {
            metrics.answering_pipeline(name, group, &names)
        }
    }

    /// What its spans say of it.
    fn described(&self) -> Described {
        Described::new(
            &self.plan.pipeline,
            &self.plan.consumer_group,
            &self.plan.plugin_digest,
            self.targets.iter().map(|topic| topic.name.as_str()),
        )
    }

    /// Where its state is kept in an epoch, and its sequence numbers if it has any; made when they are not there.
    pub(super) fn namespaces(
        &self,
        log: &Log,
        epoch: Epoch,
    ) -> Result<(GroupId, Option<GroupId>), Error> {
        let state = state_group(&self.pipeline, log, self.group, epoch)?;
        Ok((state, numbers_group(&self.pipeline, log, epoch)?))
    }

    /// Starts the workers; `suspect`: the replayed window runs one delivery at a time.
    pub(super) fn start(
        &self,
        watch: &Arc<Watch>,
        log: &Log,
        metrics: &Metrics,
        spans: &Spans,
        suspect: bool,
        alone: &Arc<Mutex<()>>,
    ) -> Result<Running, Error> {
        let topics = &self.plan.topics;
        let places = places(&self.pipeline, log, self.group, &self.read, topics)?;
        let epoch = epoch::read(log, &self.pipeline.source.consumer_group)?;
        let (state, numbers) = self.namespaces(log, epoch)?;
        let replay_until = places
            .iter()
            .filter(|place| place.replay_until > place.progress.committed)
            .filter_map(|place| {
                let topic = self.plan.topics.get(usize::from(place.topic))?;
                Some((topic.name.clone(), place.number, place.replay_until))
            })
            .collect();
        let count = self.workers();
        watch.restart(self.plugin.digest(), count);
        let mut shares: Vec<Vec<Place>> = (0..count).map(|_| Vec::new()).collect();
        for (index, place) in places.into_iter().enumerate() {
            let index = place.origin.unwrap_or(index);
            if let Some(share) = shares.get_mut(index % count) {
                share.push(place);
            }
        }
        let started = Started {
            log: log.clone(),
            plan: Arc::clone(&self.plan),
            plugin: self.plugin.clone(),
            epoch: epoch.completions,
            state,
            config: Arc::new(self.pipeline.handler.config.clone()),
            group: self.group,
            targets: self.targets.clone(),
            control: Arc::default(),
            circuit: circuit(&self.pipeline),
            rate: self
                .pipeline
                .rate_limit
                .map(|limit| Arc::new(Rate::new(limit))),
            watch: Arc::clone(watch),
            metrics: self.metrics(metrics),
            spans: spans.clone(),
            described: Arc::new(self.described()),
            claims: self
                .plan
                .idempotency
                .as_ref()
                .map(|_| Arc::new(Claims::new())),
            usage: usage(&self.pipeline, log, state)?,
            numbers,
            suspect,
            alone: Arc::clone(alone),
        };
        let mut shares = shares.into_iter();
        let workers = all_or_none(count, |index, go| {
            started.worker(index, shares.next().unwrap_or_default(), go)
        })?;
        watch.enter(State::Running, None);
        Ok(Running::new(
            Arc::clone(watch),
            self.plan.pipeline.clone(),
            started.control,
            workers,
            replay_until,
        ))
    }
}

/// What all workers of a pipeline share.
struct Started {
    log: Log,
    plan: Arc<Plan>,
    plugin: Plugin,
    config: Arc<std::collections::BTreeMap<String, String>>,
    group: GroupId,
    /// Of the idempotency table.
    epoch: u64,
    /// Under which the handler's state is kept.
    state: GroupId,
    targets: Vec<Arc<Topic>>,
    control: Arc<Control>,
    circuit: Option<Arc<Circuit>>,
    rate: Option<Arc<Rate>>,
    watch: Arc<Watch>,
    metrics: PipelineMetrics,
    spans: Spans,
    described: Arc<Described>,
    claims: Option<Arc<Claims>>,
    usage: Option<Arc<Usage>>,
    /// Under which sequence numbers are kept, when there are any.
    numbers: Option<GroupId>,
    /// The replayed window runs one delivery at a time.
    suspect: bool,
    /// One for the host.
    alone: Arc<Mutex<()>>,
}

impl Started {
    fn worker(
        &self,
        index: usize,
        share: Vec<Place>,
        go: Receiver<()>,
    ) -> Result<JoinHandle<Result<(), Halt>>, Error> {
        let ids: Vec<PartitionId> = share.iter().map(|place| place.id).collect();
        let overlay = self.usage.as_ref().map(|usage| {
            Arc::new(Overlay::new(
                Arc::clone(&usage.used),
                stored_bytes(self.log.clone(), self.state, ids.clone()),
            ))
        });
        let state: Option<Box<dyn plugin::StateView>> = match (&overlay, &self.usage) {
            (Some(overlay), Some(usage)) => Some(Box::new(LogState {
                log: self.log.clone(),
                group: self.state,
                partitions: ids.clone(),
                overlay: Arc::clone(overlay),
                usage: Arc::clone(usage),
            })),
            _ => None,
        };
        let handler = self.plugin.instance(&self.config, state);
        let table = self.claims.as_ref().map(|_| {
            Box::new(LogTable {
                log: self.log.clone(),
                group: self.group,
            }) as Box<dyn Table>
        });
        let spans = WorkerSpans::new(&self.spans, Arc::clone(&self.described));
        let observer = WorkerWatch::new(Arc::clone(&self.watch), index, &self.metrics, spans);
        let assignments = share
            .into_iter()
            .map(|place| Assignment {
                topic: place.topic,
                partition: place.number,
                progress: place.progress,
                suspect_until: if self.suspect { place.replay_until } else { 0 },
            })
            .collect();
        let (log, targets) = (self.log.clone(), self.targets.clone());
        let groups = Groups {
            progress: self.group,
            state: self.state,
            numbers: self.numbers.unwrap_or(self.group),
        };
        let numbers = self.numbers.map(|group| {
            Box::new(LogNumbers {
                log: self.log.clone(),
                group,
                partitions: ids.clone(),
            }) as Box<dyn Numbers>
        });
        let epoch = self.epoch;
        let (circuit, rate) = (self.circuit.clone(), self.rate.clone());
        let alone = Arc::clone(&self.alone);
        let (plan, control, claims) = (
            Arc::clone(&self.plan),
            Arc::clone(&self.control),
            self.claims.clone(),
        );
        std::thread::Builder::new()
            .name(format!("{}-{index}", self.plan.pipeline))
            .spawn(move || {
                if go.recv().is_err() {
                    // Another worker could not be started.
                    return Ok(());
                }
                let connector = Source::new(&log, groups, ids, &targets);
                let index = index as u16;
                Worker::new(Parts {
                    plan,
                    control,
                    index,
                    connector,
                    handler,
                    clock: System::new(log.clone()),
                    observer,
                    claims,
                    table,
                    numbers,
                    overlay,
                    alone,
                    epoch,
                    circuit,
                    rate,
                    assignments,
                })
                .run()
            })
            .map_err(Error::Thread)
    }
}

fn source_topics(
    pipeline: &Pipeline,
    config: &Config,
    log: &Log,
) -> Result<Vec<Arc<Topic>>, Error> {
    pipeline
        .source
        .topics
        .iter()
        .map(|name| topic(pipeline, config, log, name, None))
        .collect()
}

/// The topic, created when it is missing and the configuration allows it.
fn topic(
    pipeline: &Pipeline,
    config: &Config,
    log: &Log,
    name: &str,
    like: Option<&Topic>,
) -> Result<Arc<Topic>, Error> {
    if let Some(topic) = log.topic(name) {
        if topic.spec.internal {
            return Err(Error::Pipeline {
                pipeline: pipeline.name.clone(),
                why: format!(
                    "`{name}` is an internal topic, in which a host keeps messages on their way back to a pipeline; name another"
                ),
            });
        }
        return Ok(topic);
    }
    let Some(partitions) = config.host.create_topics else {
        return Err(Error::Pipeline {
            pipeline: pipeline.name.clone(),
            why: format!(
                "topic `{name}` does not exist; create it with `wasmill topics create {name}`, or allow `host.create_topics`"
            ),
        });
    };
    let mut spec = TopicSpec::new(name, partitions);
    if let Some(like) = like {
        spec.partitions = NonZeroU32::new(like.partitions.len() as u32).unwrap_or(partitions);
        spec.max_message_bytes = like.spec.max_message_bytes.saturating_add(DEAD_LETTER_ROOM);
    }
    Ok(log.create_topic(&spec)?)
}

pub(super) fn target(targets: &mut Vec<Arc<Topic>>, topic: Arc<Topic>) -> u16 {
    let known = targets.iter().position(|other| other.id == topic.id);
    let index = known.unwrap_or_else(|| {
        targets.push(topic);
        targets.len() - 1
    });
    index as u16
}

fn outputs(
    pipeline: &Pipeline,
    config: &Config,
    log: &Log,
    targets: &mut Vec<Arc<Topic>>,
) -> Result<Vec<PlanOutput>, Error> {
    pipeline
        .outputs
        .iter()
        .map(|output| {
            let topic = topic(pipeline, config, log, &output.topic, None)?;
            Ok(PlanOutput {
                name: output.name.clone(),
                target: target(targets, topic),
                rule: HeaderRule(output.headers.clone()),
                key: output.key.clone(),
                set_headers: output.set_headers.clone(),
            })
        })
        .collect()
}

fn dead_letters(
    pipeline: &Pipeline,
    config: &Config,
    log: &Log,
    sources: &[Arc<Topic>],
    targets: &mut Vec<Arc<Topic>>,
) -> Result<Vec<SourceTopic>, Error> {
    sources
        .iter()
        .map(|source| {
            let name = pipeline
                .dead_letter
                .topic
                .clone()
                .unwrap_or_else(|| dead_letter::default_topic(&source.name, &pipeline.source.consumer_group));
            let letters = topic(pipeline, config, log, &name, Some(source))?;
            let needed = source.spec.max_message_bytes.saturating_add(DEAD_LETTER_ROOM);
            if letters.spec.max_message_bytes < needed {
                return Err(Error::Pipeline {
                    pipeline: pipeline.name.clone(),
                    why: format!(
                        "the dead letter topic `{name}` takes messages of {} bytes, but `{}` needs {needed} (its own limit and {DEAD_LETTER_ROOM} for headers); name another with `dead_letter.topic`",
                        letters.spec.max_message_bytes,
                        &source.name
                    ),
                });
            }
            Ok(SourceTopic {
                name: source.name.clone(),
                role: Role::Source,
                hash: crate::pipeline::correlation::topic_hash(&source.name),
                dead_letter: target(targets, letters),
                steps: Vec::new(),
            })
        })
        .collect()
}

/// Where the group stands on each partition; a group that is new there begins as configured, durably.
fn places(
    pipeline: &Pipeline,
    log: &Log,
    group: GroupId,
    read: &[Arc<Topic>],
    topics: &[SourceTopic],
) -> Result<Vec<Place>, Error> {
    let mut places: Vec<Place> = Vec::new();
    let mut commit = Commit::default();
    for (index, (source, described)) in read.iter().zip(topics).enumerate() {
        let of = described.origin(index as u16);
        let is_source = described.role == Role::Source;
        for (number, id) in source.partitions.iter().enumerate() {
            let progress = match log.progress(group, *id)? {
                Some(bytes) => Progress::decode(&bytes).map_err(|error| Error::Pipeline {
                    pipeline: pipeline.name.clone(),
                    why: format!(
                        "the progress of group `{}` on {}/{number} cannot be read: {error}",
                        pipeline.source.consumer_group, &source.name
                    ),
                })?,
                None => {
                    let progress = Progress {
                        committed: match is_source {
                            true => start(pipeline.source.start, log, *id)?,
                            false => log.earliest(*id)?,
                        },
                        ..Progress::default()
                    };
                    let mut value = Vec::new();
                    progress.encode(&mut value);
                    commit.writes.push(Write::Progress {
                        group,
                        partition: *id,
                        value,
                    });
                    progress
                }
            };
            let replay_until = returns::replay_until(log, *id, described.role, progress.committed)?;
            let origin = places
                .iter()
                .position(|place| place.topic == of && place.number == number as u32);
            places.push(Place {
                topic: index as u16,
                origin: origin.filter(|_| !is_source),
                number: number as u32,
                id: *id,
                progress,
                replay_until,
            });
        }
    }
    if !commit.writes.is_empty() {
        log.commit_within(commit, PATIENCE)?;
    }
    Ok(places)
}

fn start(start: Start, log: &Log, id: PartitionId) -> Result<u64, Error> {
    Ok(match start {
        Start::Earliest => log.earliest(id)?,
        Start::Latest => log.end(id)?,
        Start::Offset(offset) => offset.clamp(log.earliest(id)?, log.end(id)?),
        Start::Timestamp(at) => log.offset_at(id, at)?,
    })
}

fn plan(
    pipeline: &Pipeline,
    plugin: &Plugin,
    topics: Vec<SourceTopic>,
    outputs: Vec<PlanOutput>,
) -> Plan {
    let has_state = plugin.has_effects();
    let batch_default = if has_state { 1 } else { BATCH_DEFAULT };
    Plan {
        pipeline: pipeline.name.clone(),
        consumer_group: pipeline.source.consumer_group.clone(),
        plugin_digest: plugin.digest().to_owned(),
        delivery: pipeline.delivery,
        ordering: pipeline.ordering,
        retry: pipeline.retry,
        idempotency: pipeline.idempotency.clone(),
        filter: pipeline.filter.clone(),
        sequence: pipeline.sequence.clone(),
        format: pipeline.source.format,
        on_lost_offset: pipeline.source.on_lost_offset,
        window: pipeline.source.window,
        isolation: pipeline.handler.isolation,
        batch_max: match pipeline.handler.isolation {
            crate::config::valid::Isolation::Message => 1,
            crate::config::valid::Isolation::Worker => pipeline
                .handler
                .batch
                .map_or(batch_default, NonZeroU32::get),
        },
        has_state,
        topics,
        outputs,
        reply: ReplyRule(pipeline.reply_topics.clone()),
    }
}

fn usage(pipeline: &Pipeline, log: &Log, group: GroupId) -> Result<Option<Arc<Usage>>, Error> {
    let Some(grant) = &pipeline.handler.allow.state else {
        return Ok(None);
    };
    let used = Arc::new(AtomicU64::new(log.state_bytes(group)?));
    let max = grant.max_size;
    Ok(Some(Arc::new(Usage { used, max })))
}

/// What is not tried again cannot tell an outage.
fn circuit(pipeline: &Pipeline) -> Option<Arc<Circuit>> {
    let policy = pipeline.circuit?;
    (pipeline.delivery != Delivery::AtMostOnce).then(|| Arc::new(Circuit::new(policy)))
}

/// The handler's state has a namespace for each name and version, and a new one after each reset.
fn state_group(
    pipeline: &Pipeline,
    log: &Log,
    group: GroupId,
    epoch: Epoch,
) -> Result<GroupId, Error> {
    let Some(grant) = &pipeline.handler.allow.state else {
        return Ok(group);
    };
    let name = epoch::state_namespace(&pipeline.source.consumer_group, grant, epoch);
    name.map_or(Ok(group), |name| Ok(epoch::namespace(log, &name)?))
}

/// Sequence numbers begin anew when the idempotency table does.
fn numbers_group(pipeline: &Pipeline, log: &Log, epoch: Epoch) -> Result<Option<GroupId>, Error> {
    if pipeline.sequence.is_none() {
        return Ok(None);
    }
    let name = epoch::numbers_namespace(&pipeline.source.consumer_group, epoch);
    Ok(Some(epoch::namespace(log, &name)?))
}

/// A table that cannot be read counts nothing: the entry is then counted twice rather than not at all.
fn stored_bytes(log: Log, group: GroupId, ids: Vec<PartitionId>) -> StoredBytes {
    Box::new(move |partition, key| {
        let id = ids.get(partition as usize);
        let stored = id.and_then(|id| log.state_get(group, *id, key.as_bytes()).ok().flatten());
        stored.map_or(0, |value| (key.len() + value.len()) as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipelines(groups: [&str; 2], idempotency: &str) -> Vec<Pipeline> {
        let pipeline = |name: &str, group: &str, more: &str| {
            format!(
                "  - {{ name: {name}, source: {{ topics: [{name}], consumer_group: {group}, start: earliest }}, handler: {{ plugin: ./h.wasm }}{more} }}\n"
            )
        };
        let text = format!(
            "version: 1\npipelines:\n{}{}",
            pipeline("one", groups[0], idempotency),
            pipeline("two", groups[1], "")
        );
        let path = std::path::Path::new("pipeline.yaml");
        crate::config::load_text(path, &text, &|_| None)
            .unwrap()
            .config
            .pipelines
    }

    #[test]
    fn a_group_with_an_idempotency_table_belongs_to_one_pipeline() {
        let keyed = ", idempotency: { key: message.json.id, ttl: 1h }";
        assert!(one_table_one_pipeline(&pipelines(["a", "b"], keyed)).is_ok());
        assert!(one_table_one_pipeline(&pipelines(["a", "a"], "")).is_ok());
        let refused = one_table_one_pipeline(&pipelines(["a", "a"], keyed)).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("`two`")
                && text.contains("`one`")
                && text.contains("groups of their own"),
            "{text}"
        );
    }
}
