//! A host's life after life: workers are made from what is durable, take turns, and end by a kill, a
//! stop or a halt, until everything is finished and the last one ends in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::idempotency::Table;
use crate::idempotency::claims::Claims;
use crate::pipeline::offsets::SPAN_MAX;
use crate::pipeline::overlay::Overlay;
use crate::pipeline::run::{Assignment, Control, Halt, Parts, Worker};
use crate::pipeline::sequence::Numbers;

use super::actors::{Broker, Completions, Guest, LastNumbers, VirtualClock, Watcher};
use super::dice::Dice;
use super::ledger::Ended;
use super::scenario::Scenario;
use super::world::{End, Killed, Shared, World, lock};

/// `host/lifetime.rs` has the same.
const UNCLEAN_EXITS_SUSPECT: u32 = 2;
const LIVES_MAX: u32 = 200;

type Simulated = Worker<Broker, Guest, VirtualClock, Watcher>;

/// What a run came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) trace: u64,
    pub(super) violation: Option<String>,
    pub(super) shown: Vec<String>,
    pub(super) inputs: usize,
    pub(super) succeeded: usize,
    pub(super) letters: usize,
    pub(super) duplicates: usize,
    /// Under `at_most_once`, duplicates among them.
    pub(super) dropped: usize,
    pub(super) lives: u32,
    pub(super) suspect_lives: u32,
    /// So often a message was put aside, and a dead letter sent again.
    pub(super) put_aside: usize,
    pub(super) redriven: usize,
    /// Messages that went on although numbers before theirs were missing.
    pub(super) gaps: u64,
}

/// `returns`: messages come back, by deferred retries and redrives.
pub(super) fn run(seed: u64, returns: bool, shows: bool) -> Report {
    let scenario = Arc::new(Scenario::of(seed, returns));
    let world: Shared = Arc::new(World::new(&scenario).into());
    lock(&world).shown = shows.then(Vec::new);
    let mut host = Host {
        dice: Dice::new(seed, 3),
        kills: scenario.kills,
        stops: scenario.stops,
        lives: 0,
        suspect_lives: 0,
        world,
        scenario,
    };
    let mut finished = false;
    while !finished && lock(&host.world).violation.is_none() {
        finished = host.live();
    }
    host.report()
}

struct Host {
    scenario: Arc<Scenario>,
    world: Shared,
    dice: Dice,
    kills: u32,
    stops: u32,
    lives: u32,
    suspect_lives: u32,
}

/// What a turn came to.
enum Turned {
    On,
    Stopped,
    Halted(Halt),
    Killed,
}

/// Where the replayed window of each partition ends.
type ReplayUntil = Vec<u64>;

impl Host {
    /// One life. True when everything is finished and it ended in order.
    fn live(&mut self) -> bool {
        self.lives += 1;
        if self.lives > LIVES_MAX {
            lock(&self.world).wrong("no end of its lives");
        }
        let (control, claims) = (Arc::new(Control::default()), Arc::new(Claims::new()));
        let (unclean, replay_until) = self.begin(&control);
        let mut workers = self.workers(&control, &claims);
        // Until it drains by itself, when it is one of those that are stopped.
        let mut turns_left =
            (self.stops > 0 && self.dice.percent(40)).then(|| self.dice.below(200));
        let mut passed = unclean == 0;
        // Until a worker leaves claims behind for a reason.
        let mut is_clean = true;
        let (mut quiet, mut calls) = (0, 0);
        while !workers.is_empty() && lock(&self.world).violation.is_none() {
            let next = self.dice.below(workers.len() as u64) as usize;
            match turn(&mut workers[next]) {
                Turned::On => {}
                Turned::Stopped => {
                    let worker = workers.remove(next);
                    is_clean &= !control.aborted() && worker.singles.is_empty();
                }
                Turned::Halted(Halt(why)) => {
                    let mut world = lock(&self.world);
                    world.note(&format!("halt: {why}"));
                    if !world.refused_settlement {
                        world.wrong(format!("a worker halted: {why}"));
                    }
                    drop(world);
                    workers.remove(next);
                    is_clean = false;
                    control.drain();
                }
                Turned::Killed => {
                    drop(workers);
                    lock(&self.world).crash();
                    return false;
                }
            }
            let mut world = lock(&self.world);
            if !passed && has_passed(&world, &replay_until) {
                passed = true;
                world.durable.unclean = 1;
            }
            quiet = if world.calls == calls { quiet + 1 } else { 0 };
            calls = world.calls;
            // Under at_most_once what is finished may not have been called yet.
            let is_quiet = quiet >= 60 || !self.scenario.is_at_most_once();
            if is_quiet && is_finished(&world, &self.scenario) {
                control.drain();
            }
            turns_left = turns_left.map(|left| left.saturating_sub(1));
            if turns_left == Some(0) {
                self.stops -= 1;
                turns_left = None;
                control.drain();
                if self.dice.percent(50) {
                    world.ends_in = Some((self.dice.below(20), End::Hurried));
                }
            }
        }
        self.end(is_clean, &claims)
    }

    fn begin(&mut self, control: &Arc<Control>) -> (u32, ReplayUntil) {
        let mut world = lock(&self.world);
        world.settled = vec![0; self.scenario.workers];
        world.control = Arc::clone(control);
        world.failing.clear();
        if self.kills > 0 {
            self.kills -= 1;
            let most = self.dice.pick(&[10, 60, 400, 1500]);
            let end = self
                .dice
                .pick(&[End::Killed, End::Killed, End::Killed, End::Hurried]);
            world.ends_in = Some((self.dice.below(most), end));
        }
        let unclean = world.durable.unclean;
        world.durable.unclean += 1;
        let is_suspect = unclean >= UNCLEAN_EXITS_SUSPECT;
        self.suspect_lives += u32::from(is_suspect);
        let mut replay_until = Vec::new();
        for partition in 0..self.scenario.partition_count() {
            let committed = world.durable.progress[&partition].committed;
            let until = (committed + SPAN_MAX).min(world.end(partition));
            replay_until.push(until);
            let suspect = if is_suspect { until } else { 0 };
            world.suspect_until.insert(partition, suspect);
        }
        let life = self.lives;
        world.note(&format!("life {life}, {unclean} unclean exits before"));
        (unclean, replay_until)
    }

    fn workers(&self, control: &Arc<Control>, claims: &Arc<Claims>) -> Vec<Simulated> {
        let count = self.scenario.workers;
        (0..count)
            .map(|index| {
                // Who owns a partition of the source owns those of what comes back to it.
                let sources = self.scenario.partitions.len();
                let partitions = 0..self.scenario.partition_count();
                let owned = partitions.filter(|p| p % sources % count == index);
                let owned: Vec<usize> = owned.collect();
                self.worker(index, owned, control, claims)
            })
            .collect()
    }

    fn worker(
        &self,
        worker: usize,
        owned: Vec<usize>,
        control: &Arc<Control>,
        claims: &Arc<Claims>,
    ) -> Simulated {
        let (plan, world) = (&self.scenario.plan, &self.world);
        let nothing_stored = Box::new(|_, _: &str| 0);
        let overlay = plan
            .has_state
            .then(|| Arc::new(Overlay::new(Arc::default(), nothing_stored)));
        let sources = self.scenario.partitions.len();
        let durable = lock(world);
        let assignments = owned
            .iter()
            .map(|partition| Assignment {
                topic: (partition / sources) as u16,
                partition: (partition % sources) as u32,
                progress: durable.durable.progress[partition].clone(),
                suspect_until: durable.suspect_until[partition],
            })
            .collect();
        drop(durable);
        Worker::new(Parts {
            alone: std::sync::Arc::default(),
            epoch: 0,
            circuit: None,
            rate: None,
            numbers: plan.sequence.as_ref().map(|_| {
                Box::new(LastNumbers {
                    world: Arc::clone(world),
                    owned: owned.clone(),
                }) as Box<dyn Numbers>
            }),
            plan: Arc::clone(plan),
            control: Arc::clone(control),
            index: worker as u16,
            connector: Broker {
                world: Arc::clone(world),
                worker,
                owned: owned.clone(),
                tickets: 0,
            },
            handler: Guest {
                world: Arc::clone(world),
                owned,
                overlay: overlay.clone(),
                writes: Default::default(),
                is_fresh: true,
            },
            clock: VirtualClock {
                world: Arc::clone(world),
                dice: Dice::new(self.scenario.seed, 10 + worker as u64),
            },
            observer: Watcher::new(Arc::clone(world)),
            claims: plan.idempotency.as_ref().map(|_| Arc::clone(claims)),
            table: plan
                .idempotency
                .as_ref()
                .map(|_| Box::new(Completions(Arc::clone(world))) as Box<dyn Table>),
            overlay,
            assignments,
        })
    }

    /// Whoever drained holds no claim: what waits to be tried again has given up its own.
    fn end(&self, is_clean: bool, claims: &Claims) -> bool {
        let mut world = lock(&self.world);
        let is_finished = is_finished(&world, &self.scenario);
        world.close();
        world.durable.unclean = 0;
        if is_clean && !claims.is_empty() {
            let left = claims.len();
            world.wrong(format!(
                "{left} claims are left over by workers that drained"
            ));
        }
        is_finished
    }

    fn report(self) -> Report {
        let mut world = lock(&self.world);
        if let Err(what) = world.ledger.check_end(&self.scenario) {
            world.wrong(what);
        }
        let ended = |wanted: Ended| {
            world
                .ledger
                .ended
                .values()
                .filter(|e| **e == wanted)
                .count()
        };
        Report {
            trace: world.trace,
            inputs: self.scenario.inputs().count(),
            succeeded: ended(Ended::Success),
            letters: ended(Ended::Letter),
            duplicates: ended(Ended::Duplicate),
            dropped: ended(Ended::Dropped),
            lives: self.lives,
            suspect_lives: self.suspect_lives,
            put_aside: world.put_aside,
            redriven: world.redriven,
            gaps: world.gaps,
            violation: world.violation.take(),
            shown: world.shown.take().unwrap_or_default(),
        }
    }
}

fn turn(worker: &mut Simulated) -> Turned {
    match catch_unwind(AssertUnwindSafe(|| worker.turn())) {
        Ok(Ok(true)) => Turned::On,
        Ok(Ok(false)) => Turned::Stopped,
        Ok(Err(halt)) => Turned::Halted(halt),
        Err(panic) if panic.is::<Killed>() => Turned::Killed,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn is_finished(world: &World, scenario: &Scenario) -> bool {
    let mut inputs = scenario.inputs();
    world.durable.redrives.is_empty() && inputs.all(|input| world.durable.is_finished(input.id))
}

fn has_passed(world: &World, replay_until: &ReplayUntil) -> bool {
    let mut ends = replay_until.iter().enumerate();
    ends.all(|(partition, until)| world.durable.progress[&partition].committed >= *until)
}
