//! What stands where the host puts a broker, a table, a clock, an observer and a plugin's instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::connector::{Connector, Messages, Next, ReadError, SettleError, Ticket};
use crate::idempotency::completion::Completion;
use crate::idempotency::{KeyHash, Table, TableError};
use crate::message::MessageRef;
use crate::pipeline::counts::{Counts, Observer};
use crate::pipeline::handler::Handler;
use crate::pipeline::overlay::Overlay;
use crate::pipeline::run::Clock;
use crate::pipeline::sequence::{Numbers, SequenceKey};
use crate::pipeline::settlement::{Settlement, Target};
use crate::pipeline::snapshot::PartitionSnapshot;
use crate::pipeline::trace::{Attempt, Origin, Sampling, SpanRef, Times, Told};
use crate::plugin::frame::answers::{self, Answer};
use crate::plugin::frame::{Batch, Call, Outcomes};
use crate::plugin::{Fault, FaultKind, LogLine, StateWrite};

use super::back::Kept;
use super::dice::Dice;
use super::scenario::{
    Failure, Id, OUTPUTS, OUTPUTS_MAX, RECORD_BYTES_MAX, STEP_NS, Said, Written,
};
use super::world::{Shared, World, lock};

pub(super) struct Broker {
    pub(super) world: Shared,
    pub(super) worker: usize,
    /// The world's numbers of its partitions.
    pub(super) owned: Vec<usize>,
    pub(super) tickets: Ticket,
}

/// Records of what came back that are read at once.
const KEPT_READ: usize = 5;

/// A place is an index.
pub(super) enum Chunk {
    Written(Arc<Written>),
    /// From this offset on.
    Kept(u64, Vec<Arc<Kept>>),
}

impl Messages for Chunk {
    fn seek(&self, offset: u64) -> Option<u64> {
        match self {
            Self::Written(written) => {
                let mut inputs = written.inputs.iter();
                let at = inputs.position(|input| input.id.1 >= offset)?;
                Some(at as u64)
            }
            Self::Kept(from, kept) => {
                let at = offset.saturating_sub(*from);
                (at < kept.len() as u64).then_some(at)
            }
        }
    }

    fn message(&self, place: u64) -> Option<Next<'_>> {
        let next = place + 1;
        let (offset, message) = match self {
            Self::Written(written) => {
                let input = written.inputs.get(place as usize)?;
                (input.id.1, input.message())
            }
            Self::Kept(from, kept) => {
                let record = &kept.get(place as usize)?.record;
                (from + place, MessageRef::read_record(record).unwrap().0)
            }
        };
        Some(Next {
            offset,
            message,
            next,
        })
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Written(written) => written.inputs.len() * 100,
            Self::Kept(_, kept) => kept.len() * 100,
        }
    }
}

impl Connector for Broker {
    type Messages = Chunk;

    fn read(&mut self, partition: usize, from: u64) -> Result<Option<Chunk>, ReadError> {
        let mut world = lock(&self.world);
        world.step();
        if world.fails() {
            return Err(ReadError::Transient("the disk is slow".to_owned()));
        }
        if let Some(log) = world.durable.logs.get(&self.owned[partition]) {
            let kept: Vec<_> = log.iter().skip(from as usize).take(KEPT_READ).collect();
            let kept: Vec<_> = kept.into_iter().map(Arc::clone).collect();
            return Ok((!kept.is_empty()).then_some(Chunk::Kept(from, kept)));
        }
        let has = |written: &&Arc<Written>| written.inputs.iter().any(|i| i.id.1 >= from);
        Ok(world
            .written(self.owned[partition])
            .find(has)
            .map(|written| Chunk::Written(Arc::clone(written))))
    }

    fn end(&self, partition: usize) -> u64 {
        lock(&self.world).end(self.owned[partition])
    }

    fn reply_target(&mut self, _topic: &str) -> Option<Target> {
        None
    }

    fn record_bytes_max(&self, _target: usize) -> usize {
        RECORD_BYTES_MAX
    }

    fn settle(&mut self, settlement: &mut Settlement) -> Result<Ticket, SettleError> {
        let mut world = lock(&self.world);
        world.step();
        if world.dice.below(20_000) < world.scenario.host_failures {
            world.refused_settlement = true;
            return Err(SettleError("the disk is full".to_owned()));
        }
        self.tickets += 1;
        world.submit(self.worker, self.tickets, &self.owned, settlement);
        world.step();
        Ok(self.tickets)
    }

    fn settled(&mut self) -> Result<Ticket, SettleError> {
        let mut world = lock(&self.world);
        world.step();
        world.settle_due();
        Ok(world.settled[self.worker])
    }

    fn wait(&mut self, timeout: Duration) {
        let mut world = lock(&self.world);
        world.step();
        world.wait(timeout.as_nanos() as u64);
    }
}

pub(super) struct Completions(pub(super) Shared);

impl Table for Completions {
    fn completion(&self, hash: KeyHash, _now_ms: i64) -> Result<Option<Completion>, TableError> {
        let mut world = lock(&self.0);
        world.step();
        if world.fails() {
            return Err(TableError("the disk is slow".to_owned()));
        }
        let value = world.durable.completions.get(&hash);
        Ok(value.map(|value| Completion::decode(value).unwrap()))
    }
}

pub(super) struct LastNumbers {
    pub(super) world: Shared,
    pub(super) owned: Vec<usize>,
}

impl Numbers for LastNumbers {
    fn last(&self, key: SequenceKey) -> Result<Option<i64>, String> {
        let mut world = lock(&self.world);
        world.step();
        if world.fails() {
            return Err("the disk is slow".to_owned());
        }
        let place = (self.owned[key.partition as usize], key.hash);
        Ok(world.durable.numbers.get(&place).copied())
    }
}

pub(super) struct VirtualClock {
    pub(super) world: Shared,
    pub(super) dice: Dice,
}

impl Clock for VirtualClock {
    fn unix_ms(&self) -> i64 {
        lock(&self.world).unix_ms()
    }

    fn monotonic_ns(&self) -> u64 {
        lock(&self.world).now_ns
    }

    fn random(&mut self) -> f64 {
        self.dice.below(1_000_000) as f64 / 1e6
    }
}

/// Traces everything, and holds what it is told together.
pub(super) struct Watcher {
    pub(super) world: Shared,
    sampling: Sampling,
    spans: u64,
    /// Told and not durable yet.
    open: BTreeSet<u64>,
}

impl Watcher {
    pub(super) fn new(world: Shared) -> Self {
        Self {
            world,
            sampling: Sampling::new(true, 1.0),
            spans: 0,
            open: BTreeSet::new(),
        }
    }
}

impl Observer for Watcher {
    fn calling(&mut self, _messages: usize) {}

    fn counted(&mut self, counts: &mut Counts) {
        lock(&self.world).gaps += counts.gaps;
        counts.clear();
    }

    fn looked(
        &mut self,
        partitions: Vec<PartitionSnapshot>,
        _blocked: Option<&str>,
        _is_circuit_open: bool,
        _memory: u64,
    ) {
        let mut world = lock(&self.world);
        let window = world.scenario.plan.window;
        for seen in partitions {
            if seen.held > u64::from(window.messages) {
                world.wrong(format!("the window holds {} messages", seen.held));
            }
            if seen.held_bytes >= window.bytes + 700 {
                world.wrong(format!("the window holds {} bytes", seen.held_bytes));
            }
        }
    }

    fn sampling(&self) -> Option<&Sampling> {
        Some(&self.sampling)
    }

    fn received(&mut self, _origin: &Origin<'_>, times: Times) {
        if times.ended_ns < times.begun_ns || times.now_ns < times.ended_ns {
            lock(&self.world).wrong(format!("a read took {times:?}"));
        }
    }

    fn attempted(&mut self, attempt: &Attempt<'_>) -> SpanRef {
        let times = attempt.times;
        if attempt.number == 0 || times.ended_ns < times.begun_ns || times.now_ns < times.ended_ns {
            lock(&self.world).wrong(format!("an attempt was told as {attempt:?}"));
        }
        self.spans += 1;
        self.open.insert(self.spans);
        SpanRef {
            trace: attempt.origin.trace,
            span: self.spans,
        }
    }

    fn settled(&mut self, told: &[Told], _times: Times) {
        for told in told {
            if !self.open.remove(&told.span.span) {
                lock(&self.world).wrong(format!("{:?} was settled twice or never told", told.span));
            }
        }
    }
}

/// Plays the fate of each message. Its outputs say whose they are and from which attempt and call.
pub(super) struct Guest {
    pub(super) world: Shared,
    pub(super) owned: Vec<usize>,
    pub(super) overlay: Option<Arc<Overlay>>,
    pub(super) writes: BTreeMap<String, Option<Vec<u8>>>,
    /// No call was made since it was made.
    pub(super) is_fresh: bool,
}

impl Guest {
    fn answer(
        &mut self,
        world: &World,
        call: &Call<'_>,
        number: u64,
        place: u32,
    ) -> Result<Answer, Fault> {
        let id: Id = (call.partition as usize, call.offset);
        let input = world.scenario.input(id).unwrap();
        if self.overlay.is_some() {
            self.count(world, &input.state_key(), place);
        }
        let outputs = |count: usize| {
            (0..count)
                .map(|index| {
                    let text = format!(
                        "{} {} {} {number} {index} {count}",
                        id.0, id.1, call.attempt
                    );
                    (OUTPUTS[index % 2].0, text.into_bytes())
                })
                .collect::<Vec<_>>()
        };
        let fate = world.scenario.fate(input, world.durable.round(id));
        let failure = match fate.says(call.attempt) {
            Said::Outputs(count) => return Ok(Answer::Outputs(outputs(count))),
            Said::Fails(failure) => failure,
        };
        Ok(match failure {
            Failure::Retryable { after_ms } => Answer::Retryable { after_ms },
            Failure::Rejected => Answer::Rejected,
            Failure::Fault(kind) => return Err(Fault::new(kind, "it broke")),
            Failure::UnknownOutput => {
                let mut some = outputs(2);
                some[1].0 = "nowhere";
                Answer::Outputs(some)
            }
            Failure::TooLarge => {
                let mut some = outputs(2);
                some[1].1.resize(RECORD_BYTES_MAX, b' ');
                Answer::Outputs(some)
            }
            Failure::OverLimit => Answer::Outputs(outputs(OUTPUTS_MAX as usize + 1)),
            Failure::Kills => World::kill(),
        })
    }

    /// Counts modulo 5; zero is no entry.
    fn count(&mut self, world: &World, key: &str, place: u32) {
        let stored = || {
            let partition = self.owned[place as usize];
            world
                .durable
                .state
                .get(&(partition, key.to_owned()))
                .cloned()
        };
        let overlay = self.overlay.as_ref().unwrap();
        let before = match self.writes.get(key) {
            Some(value) => value.clone(),
            None => overlay.get(place, key).unwrap_or_else(stored),
        };
        let count = (before.map_or(0, |value| value[0]) + 1) % 5;
        let value = (count > 0).then(|| vec![count]);
        self.writes.insert(key.to_owned(), value);
    }
}

impl Handler for Guest {
    fn call(&mut self, batch: &Batch, state_partition: u32) -> Result<Outcomes, Fault> {
        let shared = Arc::clone(&self.world);
        let mut world = lock(&shared);
        world.step();
        let calls = answers::calls(batch);
        let number = world.begin_call(&calls, self.is_fresh);
        self.is_fresh = false;
        self.writes.clear();
        world.now_ns += calls.len() as u64 * world.dice.below(2 * STEP_NS);
        if world.fails() {
            return Err(Fault::new(FaultKind::State, "the disk is slow"));
        }
        let mut answered = Vec::new();
        for call in &calls {
            match self.answer(&world, call, number, state_partition) {
                Ok(answer) => answered.push(answer),
                Err(fault) => {
                    self.is_fresh = true;
                    if calls.len() == 1 {
                        world.end_call(&calls, number);
                    }
                    return Err(fault);
                }
            }
        }
        world.step();
        world.end_call(&calls, number);
        answers::outcomes(&answered, OUTPUTS_MAX, 1 << 20)
    }

    fn discard(&mut self) {
        self.writes.clear();
    }

    fn reset(&mut self) {
        self.is_fresh = true;
    }

    fn take_logs(&mut self) -> Vec<LogLine> {
        Vec::new()
    }

    fn take_state_writes(&mut self) -> Vec<StateWrite> {
        let writes = std::mem::take(&mut self.writes);
        writes
            .into_iter()
            .map(|(key, value)| StateWrite { key, value })
            .collect()
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

/// What may be asked of a call.
impl World {
    fn begin_call(&mut self, calls: &[Call<'_>], is_fresh: bool) -> u64 {
        self.calls += 1;
        let number = self.calls;
        let ids: Vec<_> = calls
            .iter()
            .map(|c| (c.partition, c.offset, c.attempt))
            .collect();
        self.note(&format!("call {number} {ids:?}"));
        let plan = Arc::clone(&self.scenario.plan);
        if calls.len() > plan.batch_max as usize {
            self.wrong(format!("a call of {} messages", calls.len()));
        }
        let is_isolated = plan.isolation == crate::config::valid::Isolation::Message;
        if is_isolated && !is_fresh {
            self.wrong("an instance was used twice under isolation: message");
        }
        if plan.has_state
            && calls
                .iter()
                .any(|call| call.partition != calls[0].partition)
        {
            self.wrong("a call with state holds messages of two partitions");
        }
        for call in calls {
            if let Err(what) = self.may_call(call, calls) {
                let id = (call.partition, call.offset);
                self.wrong(format!(
                    "call {number}, {id:?}, attempt {}: {what}",
                    call.attempt
                ));
            }
        }
        number
    }

    fn may_call(&self, call: &Call<'_>, calls: &[Call<'_>]) -> Result<(), String> {
        let id: Id = (call.partition as usize, call.offset);
        let plan = &self.scenario.plan;
        let input = self.scenario.input(id).ok_or("no such message")?;
        if !input.is_decodable {
            return Err("it is not of the declared format".to_owned());
        }
        if call.topic != 0 || call.message != input.message() {
            return Err("it is not as it came first".to_owned());
        }
        let kept = self.durable.kept(id);
        if kept.is_some_and(|kept| kept.known.due_ms > self.unix_ms()) {
            return Err("it is not due".to_owned());
        }
        if call.attempt > plan.retry.max_attempts.get() {
            return Err("more attempts than max_attempts".to_owned());
        }
        let same_key = |other: &&Call<'_>| other.idempotency_key == call.idempotency_key;
        if call.idempotency_key.is_some() && calls.iter().filter(same_key).count() > 1 {
            return Err("its idempotency key is in the call twice".to_owned());
        }
        if self.scenario.is_at_most_once() {
            let is_marked = self.durable.is_finished(id);
            return is_marked
                .then_some(())
                .ok_or("not marked before the call".to_owned());
        }
        if self.durable.is_finished(id) {
            return Err("it is settled".to_owned());
        }
        self.keeps_order(id, calls)?;
        let (partition, offset) = self.durable.place(id);
        let is_suspect = offset < self.suspect_until[&partition];
        if is_suspect && calls.len() > 1 {
            return Err("it may kill the host and does not run alone".to_owned());
        }
        let expected = self.durable.attempts(id) + u32::from(!is_suspect);
        if call.attempt != expected {
            return Err(format!("{expected} is next by what is durable"));
        }
        Ok(())
    }

    /// Not called while an earlier one of its lane is to be tried again, unless in the same call.
    fn keeps_order(&self, id: Id, calls: &[Call<'_>]) -> Result<(), String> {
        let plan = &self.scenario.plan;
        let gives_up_order = self.scenario.defers();
        if plan.idempotency.is_some() || plan.retry.max_elapsed.is_some() || gives_up_order {
            // What failed may have ended without another call.
            return Ok(());
        }
        let lane = self.scenario.input(id).and_then(|i| self.scenario.lane(i));
        let is_earlier = |other: &&Id| {
            let input = self.scenario.input(**other);
            let in_call = calls
                .iter()
                .any(|c| (c.partition as usize, c.offset) == **other);
            // One that was sent again comes after what went on without it.
            let is_redriven = self.durable.round(**other) > 0;
            **other < id
                && !in_call
                && !is_redriven
                && input.and_then(|i| self.scenario.lane(i)) == lane
        };
        match self
            .failing
            .iter()
            .find(is_earlier)
            .filter(|_| lane.is_some())
        {
            Some(other) => Err(format!("{other:?} of its lane is to be tried again")),
            None => Ok(()),
        }
    }

    /// The whole call came back.
    fn end_call(&mut self, calls: &[Call<'_>], number: u64) {
        for call in calls {
            let id: Id = (call.partition as usize, call.offset);
            let input = self.scenario.input(id).unwrap();
            let max = self.scenario.plan.retry.max_attempts.get();
            let fate = self.scenario.fate(input, self.durable.round(id));
            match fate.says(call.attempt) {
                Said::Outputs(_) => {
                    self.ledger.said(id, call.attempt, number);
                    self.failing.remove(&id);
                }
                Said::Fails(Failure::Rejected) => drop(self.failing.remove(&id)),
                Said::Fails(_) if call.attempt >= max => drop(self.failing.remove(&id)),
                Said::Fails(_) => drop(self.failing.insert(id)),
            }
        }
    }
}
