//! The world around the workers: time, the messages that were written, the store with its queue of
//! settlements, and the moment at which the host dies. What is durable is here and nothing else
//! outlives a kill.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pipeline::offsets::Progress;
use crate::pipeline::run::Control;
use crate::pipeline::settlement::{CompletionWrite, Settlement, Target};

use super::dice::Dice;
use super::ledger::Ledger;
use super::scenario::{Id, STEP_NS, Scenario, Written};

/// A run that needs more of either hangs.
const STEPS_MAX: u64 = 200_000;
const VIRTUAL_NS_MAX: u64 = 1800 * 1_000 * STEP_NS;

/// What a kill unwinds with.
pub(super) struct Killed;

pub(super) type Shared = Arc<Mutex<World>>;

/// What a thread that was killed held is looked at by the next host, as a disk would be.
pub(super) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A settlement on its way to the store.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) worker: usize,
    pub(super) ticket: u64,
    pub(super) at_ns: u64,
    pub(super) publishes: Vec<(Target, Vec<u8>)>,
    pub(super) progress: Vec<(usize, Progress)>,
    pub(super) completions: Vec<CompletionWrite>,
    pub(super) state: Vec<(usize, String, Option<Vec<u8>>)>,
    pub(super) numbers: Vec<((usize, u128), i64)>,
}

/// What survives a kill.
#[derive(Debug, Default)]
pub(super) struct Durable {
    pub(super) progress: BTreeMap<usize, Progress>,
    pub(super) completions: BTreeMap<u128, Vec<u8>>,
    pub(super) state: BTreeMap<(usize, String), Vec<u8>>,
    pub(super) numbers: BTreeMap<(usize, u128), i64>,
    /// As `host/lifetime.rs` counts them.
    pub(super) unclean: u32,
}

impl Durable {
    pub(super) fn is_finished(&self, (partition, offset): Id) -> bool {
        self.progress
            .get(&partition)
            .is_some_and(|progress| is_finished(progress, offset))
    }

    pub(super) fn attempts(&self, (partition, offset): Id) -> u32 {
        let attempts = self.progress.get(&partition).map(|p| &p.attempts);
        attempts
            .and_then(|attempts| attempts.iter().find(|attempt| attempt.offset == offset))
            .map_or(0, |attempt| attempt.count)
    }
}

pub(super) fn is_finished(progress: &Progress, offset: u64) -> bool {
    offset < progress.committed
        || progress
            .completed
            .iter()
            .any(|range| range.contains(&offset))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Killed,
    Hurried,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) scenario: Arc<Scenario>,
    pub(super) dice: Dice,
    pub(super) now_ns: u64,
    pub(super) durable: Durable,
    pub(super) ledger: Ledger,
    queue: VecDeque<Commit>,
    last_at_ns: u64,
    /// By worker, of this life.
    pub(super) settled: Vec<u64>,
    /// This life ends after so many steps.
    pub(super) ends_in: Option<(u64, End)>,
    pub(super) control: Arc<Control>,
    /// By partition, of this life.
    pub(super) suspect_until: BTreeMap<usize, u64>,
    /// Messages during whose attempt the host died while that attempt was durable.
    pub(super) died_during: BTreeSet<Id>,
    pub(super) calls: u64,
    /// Messages that went on although numbers before theirs were missing.
    pub(super) gaps: u64,
    /// Messages whose last call failed and is to be tried again, of this life.
    pub(super) failing: BTreeSet<Id>,
    steps: u64,
    pub(super) trace: u64,
    pub(super) violation: Option<String>,
    /// Every event, when someone wants to read them.
    pub(super) shown: Option<Vec<String>>,
    /// A fault of the host's that a halt may follow from.
    pub(super) refused_settlement: bool,
}

impl World {
    pub(super) fn new(scenario: &Arc<Scenario>) -> Self {
        let mut durable = Durable::default();
        for (partition, written) in scenario.partitions.iter().enumerate() {
            let first = written.first().and_then(|w| w.inputs.first());
            let committed = first.map_or(0, |input| input.id.1);
            let progress = Progress {
                committed,
                ..Progress::default()
            };
            durable.progress.insert(partition, progress);
        }
        Self {
            scenario: Arc::clone(scenario),
            dice: Dice::new(scenario.seed, 2),
            now_ns: 0,
            durable,
            ledger: Ledger::default(),
            queue: VecDeque::new(),
            last_at_ns: 0,
            settled: Vec::new(),
            ends_in: None,
            control: Arc::default(),
            suspect_until: BTreeMap::new(),
            died_during: BTreeSet::new(),
            calls: 0,
            gaps: 0,
            failing: BTreeSet::new(),
            steps: 0,
            trace: 0,
            violation: None,
            shown: None,
            refused_settlement: false,
        }
    }

    /// Anything the worker asks of the world may be its last.
    pub(super) fn step(&mut self) {
        self.now_ns += self.dice.below(20_000);
        self.steps += 1;
        if self.steps > STEPS_MAX || self.now_ns > VIRTUAL_NS_MAX {
            self.wrong(format!(
                "no end after {} steps, {} ms",
                self.steps,
                self.now_ns / STEP_NS
            ));
            Self::kill();
        }
        let Some((left, end)) = &mut self.ends_in else {
            return;
        };
        if *left > 0 {
            *left -= 1;
            return;
        }
        let end = *end;
        self.ends_in = None;
        match end {
            End::Killed => Self::kill(),
            End::Hurried => self.control.abort(),
        }
    }

    pub(super) fn kill() -> ! {
        resume_unwind(Box::new(Killed))
    }

    /// Something of the host's fails, now and then.
    pub(super) fn fails(&mut self) -> bool {
        self.dice.below(1000) < self.scenario.host_failures
    }

    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.violation.get_or_insert(what.into());
    }

    pub(super) fn note(&mut self, event: &str) {
        let mut bytes = self.trace.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.now_ns.to_le_bytes());
        bytes.extend_from_slice(event.as_bytes());
        self.trace = xxhash_rust::xxh3::xxh3_64(&bytes);
        if let Some(shown) = &mut self.shown {
            shown.push(format!("{:>9} us {event}", self.now_ns / 1000));
        }
    }

    pub(super) fn written(&self, partition: usize) -> impl Iterator<Item = &Arc<Written>> {
        let written = self
            .scenario
            .partitions
            .get(partition)
            .into_iter()
            .flatten();
        written.filter(|written| written.at_ns <= self.now_ns)
    }

    pub(super) fn end(&self, partition: usize) -> u64 {
        let last = self.written(partition).last().and_then(|w| w.inputs.last());
        last.map_or_else(
            || self.durable.progress[&partition].committed,
            |input| input.id.1 + 1,
        )
    }

    pub(super) fn submit(
        &mut self,
        worker: usize,
        ticket: u64,
        owned: &[usize],
        from: &mut Settlement,
    ) {
        let place = |index: u32| owned[index as usize];
        let delay = self.dice.below(self.scenario.settle_ns_max);
        self.last_at_ns = self.last_at_ns.max(self.now_ns + delay);
        let commit = Commit {
            worker,
            ticket,
            at_ns: self.last_at_ns,
            publishes: from
                .publishes()
                .iter()
                .map(|publish| (publish.target, from.record(publish).to_vec()))
                .collect(),
            progress: from
                .progress
                .iter()
                .map(|write| {
                    let progress = Progress::decode(&write.value).unwrap();
                    (place(write.partition), progress)
                })
                .collect(),
            completions: from.completions.clone(),
            state: from
                .state
                .iter()
                .map(|write| {
                    (
                        place(write.partition),
                        write.key.clone(),
                        write.value.clone(),
                    )
                })
                .collect(),
            numbers: from
                .numbers
                .iter()
                .map(|write| ((place(write.key.partition), write.key.hash), write.last))
                .collect(),
        };
        from.clear();
        self.queue.push_back(commit);
    }

    /// Settlements become durable one after the other, as one queue over all workers.
    pub(super) fn settle_due(&mut self) {
        while self
            .queue
            .front()
            .is_some_and(|commit| commit.at_ns <= self.now_ns)
        {
            self.settle_one();
        }
    }

    fn settle_one(&mut self) {
        let Some(commit) = self.queue.pop_front() else {
            return;
        };
        self.note(&format!(
            "commit worker {} ticket {} progress {:?} publishes {}",
            commit.worker,
            commit.ticket,
            commit.progress,
            commit.publishes.len()
        ));
        let scenario = Arc::clone(&self.scenario);
        let checked = self
            .ledger
            .commit(&scenario, &self.durable, &self.died_during, &commit);
        if let Err(what) = checked {
            self.wrong(format!(
                "ticket {} of worker {}: {what}",
                commit.ticket, commit.worker
            ));
        }
        self.durable.progress.extend(commit.progress);
        for write in commit.completions {
            self.durable.completions.insert(write.hash, write.value);
        }
        for (partition, key, value) in commit.state {
            match value {
                Some(value) => self.durable.state.insert((partition, key), value),
                None => self.durable.state.remove(&(partition, key)),
            };
        }
        self.durable.numbers.extend(commit.numbers);
        if let Some(settled) = self.settled.get_mut(commit.worker) {
            *settled = commit.ticket;
        }
    }

    /// The host is gone: what it had handed on may be durable in part, in order.
    pub(super) fn crash(&mut self) {
        let kept = self.dice.between(0, self.queue.len() as u64);
        for _ in 0..kept {
            self.settle_one();
        }
        self.queue.clear();
        self.note("crash");
        self.ends();
    }

    /// The host closed the store: what was handed on is durable.
    pub(super) fn close(&mut self) {
        while !self.queue.is_empty() {
            self.settle_one();
        }
        self.note("closed");
        self.ends();
    }

    fn ends(&mut self) {
        for (partition, progress) in &self.durable.progress {
            for attempt in &progress.attempts {
                if attempt.error == crate::pipeline::admit::STOPPED_DURING {
                    self.died_during.insert((*partition, attempt.offset));
                }
            }
        }
        let scenario = Arc::clone(&self.scenario);
        if let Err(what) = self.ledger.life_ends(&scenario) {
            self.wrong(what);
        }
        self.ends_in = None;
        self.last_at_ns = self.now_ns;
        self.refused_settlement = false;
    }

    /// Time passes until something happens, at most `timeout_ns`.
    pub(super) fn wait(&mut self, timeout_ns: u64) {
        let next_settled = self.queue.front().map(|commit| commit.at_ns);
        let arrivals = self.scenario.partitions.iter().flatten();
        let next_written = arrivals
            .map(|w| w.at_ns)
            .filter(|at| *at > self.now_ns)
            .min();
        let until = self.now_ns + timeout_ns;
        let until = next_settled
            .into_iter()
            .chain(next_written)
            .fold(until, u64::min);
        self.now_ns = self.now_ns.max(until) + 1_000;
    }
}
