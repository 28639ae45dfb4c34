//! The world around the workers: time, the messages that were written, the store with its queue of
//! settlements, and the moment at which the host dies. What is durable is here and nothing else
//! outlives a kill.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::pipeline::admit::STOPPED_DURING;
use crate::pipeline::offsets::{Attempt, Progress};
use crate::pipeline::run::Control;
use crate::pipeline::settlement::{CompletionWrite, LetterWrite, Settlement, Target};

use super::back::{Kept, Redrive, unix_ms};
use super::dice::Dice;
use super::ledger::{Effects, Ledger};
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
    pub(super) publishes: Vec<(Target, Option<u32>, Vec<u8>)>,
    pub(super) progress: Vec<(usize, Progress)>,
    pub(super) completions: Vec<CompletionWrite>,
    pub(super) state: Vec<(usize, String, Option<Vec<u8>>)>,
    pub(super) letters: Vec<LetterWrite>,
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
    /// What came back, by partition.
    pub(super) logs: BTreeMap<usize, Vec<Arc<Kept>>>,
    /// Where messages that came back lie now.
    pub(super) places: BTreeMap<Id, (usize, u64)>,
    /// Letters that were sent, by ID and the round before, until a settlement says something of them; and
    /// where they were put.
    pub(super) sent: BTreeMap<(String, u32), (usize, u64)>,
    /// Letters that somebody is about to send again. It is not the host that does.
    pub(super) redrives: Vec<Redrive>,
}

impl Durable {
    /// In the place where it lies now.
    pub(super) fn is_finished(&self, id: Id) -> bool {
        let (partition, offset) = self.place(id);
        self.progress
            .get(&partition)
            .is_some_and(|progress| is_finished(progress, offset))
    }

    pub(super) fn attempts(&self, id: Id) -> u32 {
        let before = self.kept(id).map_or(0, |kept| kept.known.attempts);
        self.attempt(id)
            .map_or(before, |attempt| attempt.count.max(before))
    }

    /// The attempt with this number is the next one, or the one that was marked before its call.
    pub(super) fn may_be_next(&self, id: Id, number: u32) -> bool {
        let is_marked = self.attempt(id).is_some_and(|a| a.error == STOPPED_DURING);
        let durable = self.attempts(id);
        number == durable + 1 || (is_marked && number == durable)
    }

    fn attempt(&self, id: Id) -> Option<&Attempt> {
        let (partition, offset) = self.place(id);
        let attempts = &self.progress.get(&partition)?.attempts;
        attempts.iter().find(|attempt| attempt.offset == offset)
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
    /// Of who sends dead letters again.
    sender: Dice,
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
    /// So often a message was put aside, and a letter sent again.
    pub(super) put_aside: usize,
    pub(super) redriven: usize,
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
        for partition in scenario.partitions.len()..scenario.partition_count() {
            durable.progress.insert(partition, Progress::default());
        }
        Self {
            scenario: Arc::clone(scenario),
            dice: Dice::new(scenario.seed, 2),
            sender: Dice::new(scenario.seed, 5),
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
            put_aside: 0,
            redriven: 0,
        }
    }

    /// Anything the worker asks of the world may be its last.
    pub(super) fn step(&mut self) {
        self.now_ns += self.dice.below(20_000);
        self.send_again();
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
        if partition >= self.scenario.partitions.len() {
            let log = self.durable.logs.get(&partition);
            return log.map_or(0, |log| log.len() as u64);
        }
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
                .map(|publish| {
                    let record = from.record(publish).to_vec();
                    (publish.target, publish.partition, record)
                })
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
            letters: from.letters.clone(),
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
        let effects = checked.unwrap_or_else(|what| {
            self.wrong(format!(
                "ticket {} of worker {}: {what}",
                commit.ticket, commit.worker
            ));
            Effects::default()
        });
        for (partition, kept) in effects.put_aside {
            self.put_aside += 1;
            self.durable.keep(partition, kept);
        }
        for id in effects.letters {
            self.consider_again(id);
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
        for write in commit.letters {
            self.durable.sent.remove(&(write.id, write.redrive_count));
        }
        if let Err(what) = self.durable.check_none_lost() {
            self.wrong(what);
        }
        if let Some(settled) = self.settled.get_mut(commit.worker) {
            *settled = commit.ticket;
        }
    }

    /// Most dead letters are sent again some time later.
    fn consider_again(&mut self, id: Id) {
        let round = self.durable.round(id) + 1;
        if round <= self.scenario.rounds_max && self.sender.percent(70) {
            let at_ns = self.now_ns + self.sender.pick(&[0, 10, 400]) * STEP_NS;
            self.durable.redrives.push(Redrive { at_ns, id, round });
        }
    }

    fn send_again(&mut self) {
        let now_ns = self.now_ns;
        let is_due = |redrive: &Redrive| redrive.at_ns <= now_ns;
        while let Some(next) = self.durable.redrives.iter().position(is_due) {
            let Redrive { id, round, .. } = self.durable.redrives.remove(next);
            let partition = self.scenario.redrive_partition(id);
            let kept = self.scenario.redriven(id, round);
            self.note(&format!("{id:?} is sent again, round {round}"));
            self.durable.send(partition, kept);
            self.ledger.reopen(id);
            self.redriven += 1;
        }
    }

    pub(super) fn unix_ms(&self) -> i64 {
        unix_ms(self.now_ns)
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
                if attempt.error != STOPPED_DURING {
                    continue;
                }
                let log = self.durable.logs.get(partition);
                let kept = log.and_then(|log| log.get(attempt.offset as usize));
                let place = (*partition, attempt.offset);
                self.died_during.insert(kept.map_or(place, |kept| kept.id));
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
        let next_sent = self.durable.redrives.iter().map(|redrive| redrive.at_ns);
        let until = next_settled
            .into_iter()
            .chain(next_written)
            .chain(next_sent)
            .fold(until, u64::min);
        self.now_ns = self.now_ns.max(until) + 1_000;
    }
}
