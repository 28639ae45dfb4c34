//! The pipelines of a running host: each can be stopped and started again while the others run. Also what
//! is remembered about them: pauses by operators (§13.5), which last until the pipeline's part of the
//! configuration changes. Not here: how orders come in (`desk.rs`), what a start consists of (`start.rs`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::admin::error::{Code, Error as Refusal};
use crate::admin::operations::{Changes, RejectRequest};
use crate::admin::seek::{self, SeekReply, SeekRequest, Tables};
use crate::config::valid::{Config, Host, Pipeline};
use crate::connector::embedded::{self, Commit, Handed, Health, Log, Write, epoch};
use crate::expression::nearest;
use crate::pipeline::reject::{Found, Reject};
use crate::pipeline::snapshot::{Snapshot, State};
use crate::plugin::Engine;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Spans;

use super::Error;
use super::fingerprint;
use super::running::Running;
use super::slot::Slot;
use super::start::{self, Prepared, one_table_one_pipeline};
use super::watch::Watch;

/// How long a worker may take to say whether it holds a message.
const REJECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a store may take that does not write; the host's loop has others to look after.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How often somebody who waits looks whether the host is to end.
const LOOK: Duration = Duration::from_millis(20);
/// Why a pipeline waits whose group was moved while the store does not write.
const MOVES: &str = "moves, and its pipelines start, as soon as the store writes again";

/// True once the host was told to end.
pub(super) type Stop = Arc<AtomicBool>;

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

/// A move of a group that was handed to a store which does not write.
struct Moving {
    group: String,
    done: Handed,
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
    /// The replayed windows run one delivery at a time, until each has passed (§4.4).
    suspect: bool,
    moving: Option<Moving>,
    /// The host was told to end: nothing is waited for any more.
    stop: Stop,
}

/// Everything that can fail for pipelines, before any of them starts or stops.
pub(super) fn prepare(
    config: &Config,
    engine: &Engine,
    log: &Log,
    accept_change: bool,
) -> Result<Vec<Prepared>, Error> {
    one_table_one_pipeline(&config.pipelines)?;
    fingerprint::check(log, config, accept_change)?;
    let pipelines = config.pipelines.iter();
    // Before the first topic is made.
    let plugins = pipelines
        .clone()
        .map(|pipeline| start::plugin(pipeline, engine))
        .collect::<Result<Vec<_>, _>>()?;
    pipelines
        .zip(plugins)
        .map(|(pipeline, plugin)| Prepared::new(pipeline, plugin, config, log))
        .collect()
}

impl Pipelines {
    pub(super) fn new(
        config: Config,
        log: Log,
        (metrics, spans): (Metrics, Spans),
        engine: Engine,
        (watches, stop): (Watches, Stop),
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
            suspect: false,
            moving: None,
            stop,
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

    pub(super) const fn shutdown_timeout(&self) -> Duration {
        self.config.host.shutdown_timeout
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Everything that an earlier host may have called is settled, also in pipelines that do not run.
    pub(super) fn have_passed_replay(&self) -> bool {
        self.slots.iter().all(|slot| slot.replayed)
    }

    pub(super) fn into_running(self) -> Vec<Running> {
        let slots = self.slots.into_iter();
        slots.filter_map(|slot| slot.running).collect()
    }

    /// `suspect`: the replayed window runs one delivery at a time.
    pub(super) fn start_all(&mut self, suspect: bool) -> Result<(), Error> {
        self.suspect = suspect;
        for index in 0..self.slots.len() {
            self.start(index)?;
        }
        Ok(())
    }

    fn show(&self) {
        let watches = self.slots.iter().map(|slot| Arc::clone(&slot.watch));
        self.watches.set(watches.collect());
    }

    /// Starts it unless an operator paused it, or its group moves, or the host ends.
    fn start(&mut self, index: usize) -> Result<(), Error> {
        if self.is_stopping() {
            return Ok(());
        }
        let Self {
            log,
            metrics,
            spans,
            alone,
            slots,
            moving,
            ..
        } = self;
        let Some(slot) = slots.get_mut(index) else {
            return Ok(());
        };
        let digest = slot.prepared.plugin_digest();
        if moving
            .as_ref()
            .is_some_and(|moving| moving.group == slot.group())
        {
            slot.watch.restart(digest, 0);
            let why = format!("its consumer group {MOVES}");
            slot.watch.enter(State::Blocked, Some(why));
            return Ok(());
        }
        if let Some(why) = slot.paused(log)? {
            slot.watch.restart(digest, 0);
            slot.watch.enter(State::Paused, Some(why));
            return Ok(());
        }
        if slot.has_void_pause(log)?
            && let Err(error) = write(log, slot.resume())
        {
            tracing::warn!(%error, pipeline = slot.name(), "a pause that has ended stays stored");
        }
        let suspect = self.suspect && !slot.replayed;
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
        let (timeout, stop) = (self.shutdown_timeout(), Arc::clone(&self.stop));
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(());
        };
        let Some(running) = &mut slot.running else {
            return Ok(());
        };
        running.drain();
        let drained = until(&stop, timeout, || !running.is_alive());
        if !drained {
            if stop.load(Ordering::Relaxed) {
                return Err(stopping());
            }
            running.abort();
            if !until(&stop, super::ABORT_TIME_MAX, || !running.is_alive()) {
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
    /// others to stand still. Gives those that ran.
    fn stop_all(&mut self, indices: &[usize]) -> Result<Vec<usize>, Refusal> {
        let mut stopped = Vec::new();
        for &index in indices {
            let ran = self.slots.get(index).is_some_and(Slot::is_alive);
            if let Err(why) = self.stop(index) {
                self.start_again(&stopped);
                return Err(why);
            }
            if ran {
                stopped.push(index);
            }
        }
        Ok(stopped)
    }

    /// One that does not start stands as failed in `status`, with the reason; the others go on.
    fn start_again(&mut self, indices: &[usize]) {
        for &index in indices {
            if let Err(error) = self.start(index) {
                tracing::error!(%error, "a pipeline did not start again");
            }
        }
    }

    pub(super) fn pause(&mut self, name: &str, finish: bool) -> Result<Changes, Refusal> {
        let index = self.known(name)?;
        let Some(slot) = self.slots.get(index) else {
            return Ok(Changes::default());
        };
        let is_paused = slot.paused(&self.log)?.is_some();
        // The word may be there and the pipeline run: an earlier order did not get as far as stopping it.
        if is_paused && !slot.is_alive() {
            return Ok(Changes::default());
        }
        if !is_paused {
            self.write(slot.pause(self.log.now_ms()))?;
        }
        if finish {
            self.finish(index);
        }
        self.stop(index)?;
        if let Some(slot) = self.slots.get(index) {
            slot.watch.restart(slot.prepared.plugin_digest(), 0);
            slot.watch.enter(State::Paused, slot.paused(&self.log)?);
        }
        Ok(changes([format!("{name} is paused")]))
    }

    /// What was read goes on to its end, at most for `shutdown_timeout`.
    fn finish(&self, index: usize) {
        let running = self.slots.get(index).and_then(|slot| slot.running.as_ref());
        if let Some(running) = running {
            running.finish();
            until(&self.stop, self.shutdown_timeout(), || {
                running.is_finished() || !running.is_alive()
            });
        }
    }

    pub(super) fn resume(&mut self, name: &str) -> Result<Changes, Refusal> {
        let index = self.known(name)?;
        let Some(slot) = self.slots.get(index) else {
            return Ok(Changes::default());
        };
        let is_paused = slot.paused(&self.log)?.is_some();
        if !is_paused && slot.is_alive() {
            return Ok(Changes::default());
        }
        if self.moves(slot.group()) {
            return Err(not_moved(slot.group()));
        }
        if is_paused {
            self.write(slot.resume())?;
        }
        self.stop(index)?;
        self.start(index).map_err(refusal)?;
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
        let stopped = self.stop_all(&[gone, changed].concat())?;
        if let Err(why) = fingerprint::write(&self.log, &config) {
            self.start_again(&stopped);
            return Err(refusal(why));
        }
        self.config = config;
        let replayed = self.have_passed_replay();
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
                    let mut slot = Slot::new(one);
                    slot.replayed = replayed;
                    self.slots.push(match &found {
                        Some(old) => slot.after(old),
                        None => slot,
                    });
                }
            }
        }
        said.extend(old.iter().map(|slot| format!("{} removed", slot.name())));
        self.show();
        for index in start {
            if let Err(why) = self.start(index) {
                // It stands as failed in `status`, with the reason; the others are not its concern.
                tracing::error!(error = %why, "a pipeline did not start after a reload");
                said.push(format!("did not start: {why}"));
            }
        }
        Ok(changes(said))
    }

    /// What only a restart can change.
    fn same_host(&self, new: &Config) -> Result<(), Refusal> {
        let old = &self.config.host;
        // All of them, so that a new key is not accepted without effect.
        let Host {
            data_dir,
            admin_listen,
            admin_tls,
            admin_token,
            health_listen,
            shutdown_timeout: _,
            guest_memory,
            durability,
            create_topics: _,
            creation_context,
            traces_per_second,
            logs,
        } = &new.host;
        let fixed = [
            ("data_dir", old.data_dir == *data_dir),
            ("admin.listen", old.admin_listen == *admin_listen),
            ("admin.tls", old.admin_tls == *admin_tls),
            ("admin.token", old.admin_token == *admin_token),
            ("health.listen", old.health_listen == *health_listen),
            ("guest_memory", old.guest_memory == *guest_memory),
            ("durability", old.durability == *durability),
            ("logs", old.logs == *logs),
            (
                "tracing.creation_context",
                old.creation_context == *creation_context,
            ),
            (
                "tracing.traces_per_second",
                old.traces_per_second == *traces_per_second,
            ),
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
        if let Some(moving) = &self.moving {
            return Err(not_moved(&moving.group));
        }
        let planned = seek::plan(&self.log, group, request)?;
        let stored = seek::tables(&self.log, group)?;
        let own = self.of_group(group);
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
        let sought = seek::plan(&self.log, group, request).and_then(|reply| {
            let moved = seek::submit(&self.log, request, &reply, |epoch| {
                let slots = own.iter().filter_map(|index| self.slots.get(*index));
                slots.into_iter().try_for_each(|slot| {
                    let spaces = slot.prepared.namespaces(&self.log, epoch);
                    spaces.map(drop).map_err(refusal)
                })
            })?;
            self.await_move(group, moved)?;
            Ok(reply)
        });
        if self.moving.is_none() {
            self.began_anew();
        }
        // The group has moved, or has not: whether its pipelines start changes nothing about that.
        self.start_again(&own);
        sought
    }

    /// What a move left behind may go, and what the group's data depends on is that of now.
    fn began_anew(&mut self) {
        self.sweeps = true;
        if let Err(error) = fingerprint::write(&self.log, &self.config) {
            // The next start does it.
            tracing::error!(%error, "that the group's data began anew was not written down");
        }
    }

    /// Waits until it is known that the group has moved. When the store does not write it may still come to
    /// that, and until then none of its pipelines may run: they would write over it.
    fn await_move(&mut self, group: &str, done: Handed) -> Result<(), Refusal> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(moved) = done.answer_within(LOOK) {
                return Ok(moved.map(drop)?);
            }
            if self.is_stopping() {
                let message =
                    format!("whether the group {group} moved is not known: the host is stopping");
                let help = "`wasmill groups describe` says where it is once the host is down or runs again";
                return Err(Refusal::new(Code::Busy, message, help));
            }
            if Instant::now() >= deadline {
                self.moving = Some(Moving {
                    group: group.to_owned(),
                    done,
                });
                return Err(not_moved(group));
            }
        }
    }

    fn moves(&self, group: &str) -> bool {
        let moving = self.moving.as_ref();
        moving.is_some_and(|moving| moving.group == group)
    }

    fn of_group(&self, group: &str) -> Vec<usize> {
        let slots = self.slots.iter().enumerate();
        let own = slots.filter(|(_, slot)| slot.group() == group);
        own.map(|(index, _)| index).collect()
    }

    pub(super) fn reject(&self, group: &str, request: &RejectRequest) -> Result<Changes, Refusal> {
        let place = format!("{}/{}@{}", request.topic, request.partition, request.offset);
        // A message that came back is held in an internal topic, and `status` names it there.
        let own = self.slots.iter().filter(|slot| {
            let source = &slot.prepared.pipeline.source;
            source.consumer_group == group && slot.prepared.reads(&request.topic, request.partition)
        });
        let running = own.filter_map(|slot| slot.running.as_ref());
        for running in running.filter(|running| running.is_alive()) {
            let (found, answer) = sync_channel(1);
            let taken = running.reject(Reject {
                topic: request.topic.clone(),
                partition: request.partition,
                offset: request.offset,
                note: request.note.clone(),
                found,
            });
            let Some(number) = taken else {
                return Err(too_many());
            };
            match answered(&self.stop, running, number, &answer) {
                Some(Found::Held) => {
                    return Ok(changes([format!("{place} becomes a dead letter")]));
                }
                Some(Found::NotHeld) => {}
                Some(Found::TooMany) => return Err(too_many()),
                None => {
                    return Err(Refusal::new(
                        Code::Busy,
                        format!(
                            "the worker of {place} has not looked for {} s: a call of its handler goes on, or the store does not write; nothing was changed",
                            REJECT_TIME_MAX.as_secs()
                        ),
                        "try again",
                    ));
                }
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
                slot.replayed = slot.replayed || running.has_passed_replay();
            }
            slot.watch.store(health);
        }
        self.start_late();
        self.start_moved();
        if self.sweeps && matches!(health, Health::Ok) {
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

    /// Those whose group has moved by now, or will not.
    fn start_moved(&mut self) {
        let is_known = |moving: &mut Moving| moving.done.answer_within(Duration::ZERO).is_some();
        if let Some(moving) = self.moving.take_if(is_known) {
            self.began_anew();
            let own = self.of_group(&moving.group);
            let still = |index: &usize| self.slots.get(*index).is_some_and(|s| s.running.is_none());
            let own: Vec<usize> = own.into_iter().filter(still).collect();
            self.start_again(&own);
        }
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

    fn write(&self, one: Write) -> Result<(), Refusal> {
        Ok(write(&self.log, one)?)
    }
}

fn write(log: &Log, one: Write) -> Result<(), embedded::Error> {
    let commit = Commit {
        writes: vec![one],
        ..Commit::default()
    };
    log.commit_within(commit, PATIENCE).map(drop)
}

/// What the worker found; `None` when it did not look in time, and will not.
fn answered(
    stop: &AtomicBool,
    running: &Running,
    number: u64,
    answer: &Receiver<Found>,
) -> Option<Found> {
    let deadline = Instant::now() + REJECT_TIME_MAX;
    while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
        match answer.recv_timeout(LOOK) {
            Ok(found) => return Some(found),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if running.withdraw(number) {
        return None;
    }
    // It has just taken it, and answers without calling anything.
    answer.recv_timeout(REJECT_TIME_MAX).ok()
}

fn too_many() -> Refusal {
    let message = "too many messages are being rejected at once";
    Refusal::new(Code::Busy, message, "try again")
}

fn changes(said: impl IntoIterator<Item = String>) -> Changes {
    Changes {
        changes: said.into_iter().collect(),
    }
}

fn not_moved(group: &str) -> Refusal {
    Refusal::new(
        Code::StoreUnavailable,
        format!("the consumer group {group} {MOVES}"),
        "free disk space or repair the disk; its pipelines start by themselves then",
    )
}

pub(super) fn stopping() -> Refusal {
    Refusal::new(Code::Busy, "the host is stopping", "")
}

fn refusal(why: Error) -> Refusal {
    let text = why.to_string();
    let (message, help) = text.split_once("; ").unwrap_or((&text, ""));
    Refusal::new(Code::StoreUnavailable, message, help)
}

/// Looks until `done`, at most so long or until the host ends; whether it was.
fn until(stop: &AtomicBool, timeout: Duration, done: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + timeout;
    while !done() {
        if stop.load(Ordering::Relaxed) || Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
