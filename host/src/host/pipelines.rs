//! The pipelines of a running host: each can be stopped and started again while the others run. Also what
//! is remembered about them: pauses by operators (§13.5), which last until the pipeline's part of the
//! configuration changes. Not here: how orders come in (`desk.rs`), what a start consists of (`start.rs`).

use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::admin::error::{Code, Error as Refusal};
use crate::admin::operations::{Changes, RejectRequest};
use crate::admin::seek::{self, SeekReply, SeekRequest, Tables};
use crate::admin::time;
use crate::config::valid::{Config, Pipeline};
use crate::connector::embedded::{Commit, Health, Log, Write, epoch};
use crate::expression::nearest;
use crate::pipeline::run::Reject;
use crate::pipeline::snapshot::{Snapshot, State};
use crate::plugin::Engine;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Spans;

use super::Error;
use super::fingerprint;
use super::running::Running;
use super::start::{self, Prepared, one_table_one_pipeline};
use super::watch::Watch;

/// How long a worker may take to say whether it holds a message.
const REJECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How often a store that does not write is left alone before an override is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the console and the health port look at.
#[derive(Clone, Default)]
pub(super) struct Watches(Arc<Mutex<Vec<Arc<Watch>>>>);

impl Watches {
    pub(super) fn snapshots(&self) -> Vec<Snapshot> {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watches.iter().map(|watch| watch.snapshot()).collect()
    }

    fn set(&self, watches: Vec<Arc<Watch>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = watches;
    }
}

/// An operator's word against the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Override {
    version: u8,
    /// Unix ms.
    since_ms: i64,
    /// Of the pipeline's configuration that it was given against.
    against: String,
}

struct Slot {
    watch: Arc<Watch>,
    prepared: Prepared,
    /// Of its configuration.
    digest: String,
    running: Option<Running>,
    /// It was told to stop and did not in time: once its workers have ended it starts again.
    again: bool,
}

pub(super) struct Pipelines {
    config: Config,
    log: Log,
    metrics: Metrics,
    spans: Spans,
    engine: Engine,
    watches: Watches,
    slots: Vec<Slot>,
    /// Held while a delivery runs that may have killed an earlier host.
    alone: Arc<Mutex<()>>,
    /// Something that a seek left behind may be there to delete.
    sweeps: bool,
}

/// Everything that can fail for pipelines, before any of them starts or stops.
pub(super) fn prepare(
    config: &Config,
    engine: &Engine,
    log: &Log,
    accept_change: bool,
) -> Result<Vec<Prepared>, Error> {
    one_table_one_pipeline(&config.pipelines)?;
    let prepared = config
        .pipelines
        .iter()
        .map(|pipeline| Prepared::new(pipeline, engine, config, log))
        .collect::<Result<Vec<_>, _>>()?;
    fingerprint::check(log, &config.pipelines, accept_change)?;
    Ok(prepared)
}

impl Pipelines {
    pub(super) fn new(
        config: Config,
        log: Log,
        (metrics, spans): (Metrics, Spans),
        engine: Engine,
        watches: Watches,
        prepared: Vec<Prepared>,
    ) -> Self {
        let pipelines = Self {
            config,
            log,
            metrics,
            spans,
            engine,
            watches,
            slots: prepared.into_iter().map(Slot::new).collect(),
            alone: Arc::default(),
            sweeps: true,
        };
        // Whoever asks before they run finds them.
        pipelines.show();
        pipelines
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn watches(&self) -> &Watches {
        &self.watches
    }

    pub(super) fn running(&self) -> impl Iterator<Item = &Running> {
        self.slots.iter().filter_map(|slot| slot.running.as_ref())
    }

    pub(super) fn into_running(self) -> Vec<Running> {
        let slots = self.slots.into_iter();
        slots.filter_map(|slot| slot.running).collect()
    }

    /// `suspect`: the replayed window runs one delivery at a time.
    pub(super) fn start_all(&mut self, suspect: bool) -> Result<(), Error> {
        for index in 0..self.slots.len() {
            self.start(index, suspect)?;
        }
        Ok(())
    }

    fn show(&self) {
        let watches = self.slots.iter().map(|slot| Arc::clone(&slot.watch));
        self.watches.set(watches.collect());
    }

    /// Starts it unless an operator paused it.
    fn start(&mut self, index: usize, suspect: bool) -> Result<(), Error> {
        let Self {
            log,
            metrics,
            spans,
            alone,
            slots,
            ..
        } = self;
        let Some(slot) = slots.get_mut(index) else {
            return Ok(());
        };
        if let Some(held) = slot.paused(log)? {
            slot.watch.restart(slot.prepared.plugin_digest(), 0);
            slot.watch.enter(State::Paused, Some(slot.why(&held)));
            return Ok(());
        }
        let started = slot
            .prepared
            .start(&slot.watch, log, metrics, spans, suspect, alone);
        match started {
            Ok(running) => slot.running = Some(running),
            Err(why) => {
                slot.watch.enter(State::Failed, Some(why.to_string()));
                return Err(why);
            }
        }
        Ok(())
    }

    /// Lets its calls end and settle. A worker that does not end in time is cut off, and what it had in
    /// hand is delivered again.
    fn stop(&mut self, index: usize) -> Result<(), Refusal> {
        let timeout = self.config.host.shutdown_timeout;
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        let Some(running) = &mut slot.running else {
            return Ok(());
        };
        running.drain();
        let drained = until(timeout, || !running.is_alive());
        if !drained {
            running.abort();
            if !until(super::ABORT_TIME_MAX, || !running.is_alive()) {
                // Two workers on one partition would break every promise.
                slot.again = true;
                return Err(Refusal::new(
                    Code::Busy,
                    format!(
                        "pipeline {} does not stop: a call of its handler goes on",
                        slot.prepared.pipeline.name
                    ),
                    "it ends at its time limit (`handler.limits.time`); try again",
                ));
            }
        }
        running.look_after();
        slot.running = None;
        slot.again = false;
        Ok(())
    }

    /// Stops all of them or leaves all as they were: one that does not stop in time is no reason for the
    /// others to stand still.
    fn stop_all(&mut self, indices: &[usize]) -> Result<(), Refusal> {
        let mut stopped = Vec::new();
        for &index in indices {
            let slot = self.slots.get(index);
            let ran = slot.is_some_and(|slot| slot.running.as_ref().is_some_and(Running::is_alive));
            if let Err(why) = self.stop(index) {
                self.start_again(&stopped);
                return Err(why);
            }
            if ran {
                stopped.push(index);
            }
        }
        Ok(())
    }

    /// One that does not start stands as failed in `status`, with the reason; the others go on.
    fn start_again(&mut self, indices: &[usize]) {
        for &index in indices {
            if let Err(error) = self.start(index, false) {
                tracing::error!(%error, "a pipeline did not start again");
            }
        }
    }

    pub(super) fn pause(&mut self, name: &str, finish: bool) -> Result<Changes, Refusal> {
        let index = self.known(name)?;
        let Some(slot) = self.slots.get(index) else {
            return Ok(Changes::default());
        };
        if slot.paused(&self.log).map_err(refusal)?.is_some() {
            return Ok(Changes::default());
        }
        let held = Override {
            version: 1,
            since_ms: self.log.now_ms(),
            against: slot.digest.clone(),
        };
        self.write_override(name, Some(&held))?;
        if finish {
            self.finish(index);
        }
        self.stop(index)?;
        if let Some(slot) = self.slots.get(index) {
            slot.watch.restart(slot.prepared.plugin_digest(), 0);
            slot.watch.enter(State::Paused, Some(slot.why(&held)));
        }
        Ok(changes([format!("{name} is paused")]))
    }

    /// What was read goes on to its end, at most for `shutdown_timeout`.
    fn finish(&self, index: usize) {
        let running = self.slots.get(index).and_then(|slot| slot.running.as_ref());
        if let Some(running) = running {
            running.finish();
            let timeout = self.config.host.shutdown_timeout;
            until(timeout, || running.is_finished() || !running.is_alive());
        }
    }

    pub(super) fn resume(&mut self, name: &str) -> Result<Changes, Refusal> {
        let index = self.known(name)?;
        let Some(slot) = self.slots.get(index) else {
            return Ok(Changes::default());
        };
        let was_paused = slot.paused(&self.log).map_err(refusal)?.is_some();
        let runs = slot.running.as_ref().is_some_and(Running::is_alive);
        if !was_paused && runs {
            return Ok(Changes::default());
        }
        if was_paused {
            self.write_override(name, None)?;
        }
        self.stop(index)?;
        self.start(index, false).map_err(refusal)?;
        Ok(changes([format!("{name} runs")]))
    }

    /// All of it or nothing: what can fail is done before anything is stopped.
    pub(super) fn reload(
        &mut self,
        config: Config,
        accept_change: bool,
    ) -> Result<Changes, Refusal> {
        self.same_host(&config)?;
        let bad = |why: Error| {
            let text = why.to_string();
            let (message, help) = text.split_once("; ").unwrap_or((&text, ""));
            Refusal::new(Code::BadConfiguration, message, help)
        };
        let prepared = prepare(&config, &self.engine, &self.log, accept_change).map_err(bad)?;
        let mut said = Vec::new();
        let is_kept = |slot: &Slot| prepared.iter().any(|p| p.pipeline.name == slot.name());
        let gone: Vec<usize> = (0..self.slots.len())
            .filter(|index| self.slots.get(*index).is_some_and(|slot| !is_kept(slot)))
            .collect();
        let changed: Vec<usize> = (0..self.slots.len())
            .filter(|index| {
                let slot = self.slots.get(*index);
                slot.is_some_and(|slot| prepared.iter().any(|p| slot.differs(p)))
            })
            .collect();
        self.stop_all(&[gone, changed].concat())?;
        fingerprint::write(&self.log, &config.pipelines).map_err(bad)?;
        self.config = config;
        let mut old = std::mem::take(&mut self.slots);
        let mut start = Vec::new();
        for one in prepared {
            let place = old.iter().position(|slot| slot.name() == one.pipeline.name);
            match place.map(|place| old.remove(place)) {
                Some(slot) if !slot.differs(&one) => self.slots.push(slot),
                found => {
                    let what = if found.is_some() { "changed" } else { "new" };
                    said.push(format!("{} {what}", one.pipeline.name));
                    start.push(self.slots.len());
                    let watch = found.map(|slot| slot.watch);
                    self.slots.push(Slot::with_watch(one, watch));
                }
            }
        }
        said.extend(old.iter().map(|slot| format!("{} removed", slot.name())));
        self.show();
        for index in start {
            if let Err(why) = self.start(index, false) {
                // It stands as failed in `status`, with the reason; the others are not its concern.
                tracing::error!(error = %why, "a pipeline did not start after a reload");
                said.push(format!("did not start: {why}"));
            }
        }
        Ok(changes(said))
    }

    /// What only a restart can change.
    fn same_host(&self, new: &Config) -> Result<(), Refusal> {
        let (old, host) = (&self.config.host, &new.host);
        let fixed = [
            ("data_dir", old.data_dir == host.data_dir),
            ("admin.listen", old.admin_listen == host.admin_listen),
            ("admin.tls", old.admin_tls == host.admin_tls),
            ("admin.token", old.admin_token == host.admin_token),
            ("health.listen", old.health_listen == host.health_listen),
            ("guest_memory", old.guest_memory == host.guest_memory),
            ("durability", old.durability == host.durability),
        ];
        let changed = fixed.iter().find(|(_, same)| !same);
        if let Some((key, _)) = changed {
            return Err(Refusal::new(
                Code::BadConfiguration,
                format!("host.{key} changed, which takes effect at a start only"),
                "restart the host, or take the change back",
            ));
        }
        if start::instances(new) > self.engine.instances_max()
            || start::memory_max(new) > self.engine.memory_max()
        {
            return Err(Refusal::new(
                Code::BadConfiguration,
                "the new configuration has more or larger instances than this host was started for",
                "restart the host",
            ));
        }
        Ok(())
    }

    pub(super) fn seek(
        &mut self,
        group: &str,
        request: &SeekRequest,
    ) -> Result<SeekReply, Refusal> {
        let planned = seek::plan(&self.log, group, request)?;
        let stored = seek::tables(&self.log, group)?;
        let own: Vec<usize> = (0..self.slots.len())
            .filter(|index| {
                let slot = self.slots.get(*index);
                slot.is_some_and(|slot| slot.prepared.pipeline.source.consumer_group == group)
            })
            .collect();
        let has = |is: fn(&Pipeline) -> bool| {
            let mut slots = own.iter().filter_map(|index| self.slots.get(*index));
            slots.any(|slot| is(&slot.prepared.pipeline))
        };
        seek::check(
            request,
            Tables {
                idempotency: stored.idempotency
                    || has(|one| one.idempotency.is_some() || one.sequence.is_some()),
                state: stored.state || has(|one| one.handler.allow.state.is_some()),
            },
        )?;
        if request.dry_run {
            return Ok(planned);
        }
        self.stop_all(&own)?;
        // They may have gone on meanwhile.
        let sought = seek::plan(&self.log, group, request)
            .and_then(|reply| seek::apply(&self.log, request, &reply).map(|()| reply));
        self.sweeps = true;
        // The group has moved, or has not: whether its pipelines start changes nothing about that.
        self.start_again(&own);
        sought
    }

    pub(super) fn reject(&self, group: &str, request: &RejectRequest) -> Result<Changes, Refusal> {
        let place = format!("{}/{}@{}", request.topic, request.partition, request.offset);
        let own = self.slots.iter().filter(|slot| {
            let source = &slot.prepared.pipeline.source;
            source.consumer_group == group && source.topics.contains(&request.topic)
        });
        for running in own.filter_map(|slot| slot.running.as_ref()) {
            let (found, answer) = sync_channel(1);
            let taken = running.reject(Reject {
                topic: request.topic.clone(),
                partition: request.partition,
                offset: request.offset,
                note: request.note.clone(),
                found,
            });
            if !taken {
                let message = "too many messages are being rejected at once";
                return Err(Refusal::new(Code::Busy, message, "try again"));
            }
            if answer.recv_timeout(REJECT_TIME_MAX) == Ok(true) {
                return Ok(changes([format!("{place} becomes a dead letter")]));
            }
        }
        Err(Refusal::new(
            Code::NotHeld,
            format!("{group} does not hold {place}: it waits for no attempt"),
            format!("`wasmill groups describe {group}` shows what holds a partition"),
        ))
    }

    /// Notices workers that ended, tidies up a little.
    pub(super) fn look_after(&mut self, health: &Health) {
        for slot in &mut self.slots {
            if let Some(running) = &mut slot.running {
                running.look_after();
            }
            slot.watch.store(health);
        }
        self.start_late();
        if self.sweeps {
            match epoch::sweep(&self.log) {
                Ok(more) => self.sweeps = more,
                Err(error) => {
                    tracing::debug!(%error, "state that was reset is not deleted yet");
                }
            }
        }
    }

    /// Those that were told to stop, did not in time, and have ended by now.
    fn start_late(&mut self) {
        let ended = |slot: &Slot| {
            slot.again
                && slot
                    .running
                    .as_ref()
                    .is_some_and(|running| !running.is_alive())
        };
        let late: Vec<usize> = (0..self.slots.len())
            .filter(|index| self.slots.get(*index).is_some_and(ended))
            .collect();
        for &index in &late {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.running = None;
                slot.again = false;
            }
        }
        self.start_again(&late);
    }

    fn known(&self, name: &str) -> Result<usize, Refusal> {
        let found = self.slots.iter().position(|slot| slot.name() == name);
        found.ok_or_else(|| {
            let names = self.slots.iter().map(Slot::name);
            let help = match nearest(name, names) {
                Some(meant) => format!("did you mean {meant}? `wasmill status` shows all"),
                None => "`wasmill status` shows all".to_owned(),
            };
            let message = format!("there is no pipeline {name}");
            Refusal::new(Code::UnknownPipeline, message, help)
        })
    }

    fn write_override(&self, name: &str, held: Option<&Override>) -> Result<(), Refusal> {
        let value = held.map(serde_json::to_vec).transpose();
        let value = value.map_err(|why| Refusal::internal(why.to_string()))?;
        let commit = Commit {
            writes: vec![Write::Meta {
                key: override_key(name),
                value,
            }],
            ..Commit::default()
        };
        self.log.commit_within(commit, PATIENCE)?;
        Ok(())
    }
}

impl Slot {
    fn new(prepared: Prepared) -> Self {
        Self::with_watch(prepared, None)
    }

    fn with_watch(prepared: Prepared, watch: Option<Arc<Watch>>) -> Self {
        let pipeline = &prepared.pipeline;
        let watch = watch.unwrap_or_else(|| {
            Arc::new(Watch::new(
                &pipeline.name,
                &pipeline.source.consumer_group,
                prepared.plugin_digest(),
                prepared.workers(),
            ))
        });
        watch.alerts(pipeline.alerts);
        Self {
            digest: digest(&prepared.pipeline),
            watch,
            prepared,
            running: None,
            again: false,
        }
    }

    fn name(&self) -> &str {
        &self.prepared.pipeline.name
    }

    /// It is this pipeline, in another version.
    fn differs(&self, new: &Prepared) -> bool {
        self.name() == new.pipeline.name
            && (self.digest != digest(&new.pipeline)
                || self.prepared.plugin_digest() != new.plugin_digest())
    }

    /// Paused against this very configuration.
    fn paused(&self, log: &Log) -> Result<Option<Override>, Error> {
        let stored = log.meta_get(&override_key(self.name()))?;
        // What cannot be read was written by another version, and holds nobody.
        let held = stored.and_then(|bytes| serde_json::from_slice::<Override>(&bytes).ok());
        Ok(held.filter(|held| held.version == 1 && held.against == self.digest))
    }

    fn why(&self, held: &Override) -> String {
        format!(
            "paused by an operator since {}, against the configuration; `wasmill resume {}`",
            time::rfc3339(held.since_ms),
            self.name()
        )
    }
}

fn override_key(pipeline: &str) -> Vec<u8> {
    format!("override/{pipeline}").into_bytes()
}

/// Of everything a pipeline's configuration says.
fn digest(pipeline: &Pipeline) -> String {
    let digest = Sha256::digest(format!("{pipeline:?}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn changes(said: impl IntoIterator<Item = String>) -> Changes {
    Changes {
        changes: said.into_iter().collect(),
    }
}

fn refusal(why: Error) -> Refusal {
    let text = why.to_string();
    let (message, help) = text.split_once("; ").unwrap_or((&text, ""));
    Refusal::new(Code::StoreUnavailable, message, help)
}

/// Looks until `done`, at most so long; whether it was.
fn until(timeout: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
