//! What comes back, in the simulation: messages that were put aside (§5.2) and dead letters that were sent
//! again (§6.4) lie in partitions of their own, behind those of the source topic, with the numbers that
//! its partitions have. Here: those partitions, who sends letters again, and what a record that is put
//! aside must hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::ladder::ladder;
use crate::config::valid::{Delivery, RetryMode};
use crate::message::{HeadersBuf, MessageRef};
use crate::pipeline::correlation::topic_hash;
use crate::pipeline::dead_letter;
use crate::pipeline::letter_state::{self, State};
use crate::pipeline::plan::{Plan, Role, SourceTopic, Step};
use crate::pipeline::returned::{self, Returned};
use crate::pipeline::settlement::{LetterWrite, Target};

use super::dice::Dice;
use super::ledger::Ended;
use super::scenario::{DEAD_LETTERS, Failure, Fate, Id, Input, OUTPUTS, STEP_NS, Said, Scenario};
use super::world::Durable;

const SOURCE: &str = "in";
/// Redrives of one message at most.
const ROUNDS_MAX: u64 = 3;
/// Targets of the steps begin behind the dead letters and the outputs.
const STEPS_FROM: Target = OUTPUTS.len() as Target + 1;
const UNIX_MS: i64 = 1_700_000_000_000;

pub(super) const fn unix_ms(now_ns: u64) -> i64 {
    UNIX_MS + (now_ns / STEP_NS) as i64
}

/// A record in a partition of what comes back.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) id: Id,
    pub(super) known: Returned,
    pub(super) record: Vec<u8>,
}

/// A letter that somebody sends again.
#[derive(Debug)]
pub(super) struct Redrive {
    pub(super) at_ns: u64,
    pub(super) id: Id,
    /// The round that begins.
    pub(super) round: u32,
}

/// A pipeline that has what comes back: always a way for redrives, mostly deferred retries too. How often
/// a letter is sent again at most.
pub(super) fn prepare(plan: &mut Plan, seed: u64) -> u32 {
    let mut dice = Dice::new(seed, 4);
    if plan.delivery == Delivery::AtMostOnce {
        plan.delivery = Delivery::ExactlyOnce;
    }
    let mut add = |name: String, role| {
        plan.topics.push(SourceTopic {
            hash: topic_hash(&name),
            name,
            role,
            dead_letter: DEAD_LETTERS,
            steps: Vec::new(),
        });
    };
    let mut steps = Vec::new();
    if dice.percent(75) {
        plan.retry.mode = RetryMode::Deferred;
        plan.retry.backoff.initial_interval = Duration::from_millis(dice.pick(&[1, 20, 100]));
        for delay_ms in ladder(&plan.retry.backoff).unwrap() {
            let name = returned::retry_topic(SOURCE, &plan.consumer_group, delay_ms);
            add(name, Role::Retries { of: 0, delay_ms });
            let target = STEPS_FROM + steps.len() as Target;
            steps.push(Step { delay_ms, target });
        }
    }
    let name = returned::redrive_topic(SOURCE, &plan.consumer_group);
    add(name, Role::Redrives { of: 0 });
    plan.topics[0].steps = steps;
    dice.between(1, ROUNDS_MAX) as u32
}

impl Scenario {
    /// Of all topics.
    pub(super) fn partition_count(&self) -> usize {
        self.plan.topics.len() * self.partitions.len()
    }

    pub(super) fn redrive_partition(&self, (partition, _): Id) -> usize {
        (self.plan.topics.len() - 1) * self.partitions.len() + partition
    }

    pub(super) fn defers(&self) -> bool {
        self.plan.retry.mode == RetryMode::Deferred
    }

    /// What the handler does with a message in a round of redrives: some are mended by then.
    pub(super) fn fate(&self, input: &Input, round: u32) -> Fate {
        let salt = 1_000 + input.id.0 as u64 * 1_000_003 + input.id.1 * 101 + u64::from(round);
        let is_mended = round > 0 && Dice::new(self.seed, salt).percent(60);
        Fate {
            failures: if is_mended { 0 } else { input.fate.failures },
            ..input.fate
        }
    }

    fn first_wait(&self, input: &Input, round: u32, attempt: u32) -> Duration {
        let backoff = &self.plan.retry.backoff;
        let own = crate::pipeline::verdict::backoff(backoff, attempt, 1.0);
        match self.fate(input, round).says(attempt) {
            Said::Fails(Failure::Retryable { after_ms: Some(ms) }) => {
                own.max(Duration::from_millis(ms))
            }
            _ => own,
        }
    }

    /// The dead letter of `id` on its way back, as its sender writes it.
    pub(super) fn redriven(&self, id: Id, round: u32) -> Kept {
        let known = Returned {
            attempts: 0,
            due_ms: 0,
            first_failed_at_ms: None,
            origin_topic: SOURCE.to_owned(),
            origin_partition: id.0 as u32,
            origin_offset: id.1,
            redrive_count: round,
            dead_letter_id: Some(self.letter_id(id)),
        };
        let mut headers = HeadersBuf::new();
        let message = self.input(id).unwrap().message();
        let mut record = Vec::new();
        known
            .record(&message, &mut headers)
            .unwrap()
            .write_record(&mut record);
        Kept { id, known, record }
    }

    pub(super) fn letter_id(&self, (partition, offset): Id) -> String {
        dead_letter::id(&self.plan.consumer_group, SOURCE, partition as u32, offset)
    }

    /// The step whose topic has this target.
    fn step(&self, target: Target) -> Option<(usize, Step)> {
        let steps = &self.plan.topics[0].steps;
        let index = steps.iter().position(|step| step.target == target)?;
        Some((index, steps[index]))
    }

    /// What is put aside by this settlement, and in which partition, when the record is for a step.
    pub(super) fn put_aside(
        &self,
        durable: &Durable,
        (target, partition, record): &(Target, Option<u32>, Vec<u8>),
    ) -> Result<Option<(usize, Kept)>, String> {
        let Some((index, step)) = self.step(*target) else {
            return match partition {
                None => Ok(None),
                Some(_) => Err(format!("target {target} does not go by its key")),
            };
        };
        let (message, _) = MessageRef::read_record(record).map_err(|e| e.to_string())?;
        let (known, original) = Returned::read(&message).map_err(|e| e.to_string())?;
        let id: Id = (known.origin_partition as usize, known.origin_offset);
        let what = self
            .check_put_aside(durable, id, &known, &original, step)
            .err();
        if let Some(what) = what {
            return Err(format!("{id:?} is put aside: {what}: {known:?}"));
        }
        if *partition != Some(id.0 as u32) {
            return Err(format!("{id:?} is put aside in {partition:?}"));
        }
        let place = (1 + index) * self.partitions.len() + id.0;
        let record = record.clone();
        Ok(Some((place, Kept { id, known, record })))
    }

    fn check_put_aside(
        &self,
        durable: &Durable,
        id: Id,
        known: &Returned,
        original: &MessageRef<'_>,
        step: Step,
    ) -> Result<(), String> {
        let input = self.input(id).ok_or("no such message")?;
        if *original != input.message() || known.origin_topic != SOURCE {
            return Err("it is not its message".to_owned());
        }
        let before = durable.kept(id).map(|kept| &kept.known);
        let round = durable.round(id);
        if known.redrive_count != round {
            return Err(format!("its round is {round}"));
        }
        if known.dead_letter_id != before.and_then(|before| before.dead_letter_id.clone()) {
            return Err("it is another letter".to_owned());
        }
        let first = before.and_then(|before| before.first_failed_at_ms);
        if known.first_failed_at_ms.is_none()
            || first.is_some_and(|_| known.first_failed_at_ms != first)
        {
            return Err(format!("it failed first at {first:?}"));
        }
        if !durable.may_be_next(id, known.attempts) {
            return Err(format!("{} attempts are durable", durable.attempts(id)));
        }
        if known.attempts >= self.plan.retry.max_attempts.get() {
            return Err("its attempts are spent".to_owned());
        }
        let wait = self.first_wait(input, round, known.attempts);
        let topic = &self.plan.topics[0];
        let expected = topic.step(wait, wait, None).ok_or("no step")?;
        let Some(max_elapsed) = self.plan.retry.max_elapsed else {
            return match step == expected {
                true => Ok(()),
                false => Err(format!("{step:?}, it has to wait for {wait:?}")),
            };
        };
        // §5.1: no try is planned past it, and only for that a wait is shorter.
        let end_ms = known.first_failed_at_ms.unwrap_or(0) + max_elapsed.as_millis() as i64;
        if known.due_ms > end_ms {
            return Err(format!("it is due after {end_ms}"));
        }
        let is_cut = known.due_ms - step.delay_ms as i64 + expected.delay_ms as i64 > end_ms;
        if step != expected && !(is_cut && step.delay_ms < expected.delay_ms) {
            return Err(format!("{step:?}, it has to wait for {wait:?}"));
        }
        Ok(())
    }

    /// What this settlement says of letters: those that are over, those that wait for their next attempt,
    /// those that it writes; and no others.
    pub(super) fn check_states(
        &self,
        durable: &Durable,
        ends: &BTreeMap<Id, Ended>,
        put_aside: &[(usize, Kept)],
        written: &[LetterWrite],
    ) -> Result<(), String> {
        let mut expected: Vec<(String, u32, Option<State>)> = Vec::new();
        for (id, ended) in ends {
            let round = durable.round(*id);
            if round > 0 {
                expected.push((self.letter_id(*id), round - 1, Some(State::Done)));
            }
            if *ended == Ended::Letter {
                expected.push((self.letter_id(*id), round, None));
            }
        }
        for (_, kept) in put_aside {
            if let Some(letter) = &kept.known.dead_letter_id {
                let before = kept.known.redrive_count - 1;
                expected.push((letter.clone(), before, Some(State::Redriving)));
            }
        }
        let mut said: Vec<(String, u32, Option<State>)> = written
            .iter()
            .map(|write| {
                let state = write.record.as_ref().map(|record| record.state);
                (write.id.clone(), write.redrive_count, state)
            })
            .collect();
        expected.sort();
        said.sort();
        if expected != said {
            return Err(format!("of letters it says {written:?}, not {expected:?}"));
        }
        // As the table keeps them: each is a key of its own.
        let keys = said
            .iter()
            .map(|(id, round, _)| letter_state::key(id, *round));
        let keys: BTreeMap<_, ()> = keys.map(|key| (key, ())).collect();
        if keys.len() != said.len() {
            return Err(format!("it says two things of a letter: {said:?}"));
        }
        Ok(())
    }
}

impl Durable {
    /// Where a message lies now: partition of the world, and offset.
    pub(super) fn place(&self, id: Id) -> (usize, u64) {
        self.places.get(&id).copied().unwrap_or(id)
    }

    /// What lies there, when it came back.
    pub(super) fn kept(&self, id: Id) -> Option<&Kept> {
        let (partition, offset) = self.places.get(&id)?;
        let kept = self.logs.get(partition)?.get(*offset as usize)?;
        Some(kept)
    }

    pub(super) fn round(&self, id: Id) -> u32 {
        self.kept(id).map_or(0, |kept| kept.known.redrive_count)
    }

    /// The message has a place at the end of `partition` from now on.
    pub(super) fn keep(&mut self, partition: usize, kept: Kept) {
        let log = self.logs.entry(partition).or_default();
        self.places.insert(kept.id, (partition, log.len() as u64));
        log.push(Arc::new(kept));
    }

    /// Its sender says in the same commit where it lies.
    pub(super) fn send(&mut self, partition: usize, kept: Kept) {
        let offset = self.logs.get(&partition).map_or(0, Vec::len) as u64;
        if let Some(letter) = kept.known.dead_letter_id.clone() {
            let before = kept.known.redrive_count - 1;
            self.sent.insert((letter, before), (partition, offset));
        }
        self.keep(partition, kept);
    }

    /// A letter whose state says that it is on its way is in the redrive topic, not behind its group.
    pub(super) fn check_none_lost(&self) -> Result<(), String> {
        let is_lost = |(partition, offset): &(usize, u64)| {
            let progress = self.progress.get(partition);
            progress.is_some_and(|progress| progress.committed > *offset)
        };
        match self.sent.iter().find(|(_, place)| is_lost(place)) {
            Some((letter, place)) => Err(format!("{letter:?} counts as lost at {place:?}")),
            None => Ok(()),
        }
    }
}
