//! The checker: every settlement that becomes durable is held against what each message may come to.
//! Settlements are atomic here, so there is no window in which anything may happen twice.

use std::collections::{BTreeMap, BTreeSet};

use crate::idempotency;
use crate::idempotency::completion::{Completion, Status};
use crate::message::MessageRef;
use crate::pipeline::dead_letter::Parsed;

use super::back::Kept;
use super::expected::{Letter, expect_letter, expect_success};
use super::scenario::{DEAD_LETTERS, Id, Input, OUTPUTS, Said, Scenario};
use super::world::{Commit, Durable, is_finished};

/// How a message ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Success,
    Letter,
    Duplicate,
    /// `at_most_once`, and its call did not succeed.
    Dropped,
}

/// The message whose outcome stands for an idempotency key.
#[derive(Debug, Clone)]
struct Origin {
    id: Id,
    payload: Vec<u8>,
    status: Status,
}

/// All outputs of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Set {
    id: Id,
    attempt: u32,
    call: u64,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) ended: BTreeMap<Id, Ended>,
    origins: BTreeMap<String, Origin>,
    /// Failures that no longer stand, by redrives in the settlement that is looked at.
    superseded: BTreeMap<String, Origin>,
    sets: BTreeMap<Id, Set>,
    /// By partition and key, the number that took effect last.
    pub(super) numbers: BTreeMap<(usize, Vec<u8>), i64>,
    /// Attempt and call in which the handler said that a message succeeded.
    successes: BTreeMap<Id, BTreeSet<(u32, u64)>>,
    /// Under `at_most_once`: finished, and nothing came of it yet.
    open: BTreeMap<Id, usize>,
    /// Dead letters that were sent again, and came to nothing yet.
    reopened: BTreeSet<Id>,
}

/// What the world does about a settlement.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Messages that lie elsewhere from now on, and in which partition.
    pub(super) put_aside: Vec<(usize, Kept)>,
    /// Messages that are dead letters now.
    pub(super) letters: Vec<Id>,
}

/// What one settlement holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    sets: Vec<Set>,
    pub(super) letters: BTreeMap<Id, Letter>,
    /// Of own outputs and letters, in the order in which they were published.
    pub(super) order: Vec<Id>,
    pub(super) finished: Vec<Id>,
    put_aside: Vec<(usize, Kept)>,
}

impl Ledger {
    /// A dead letter was sent again.
    pub(super) fn reopen(&mut self, id: Id) {
        self.reopened.insert(id);
    }

    pub(super) fn said(&mut self, id: Id, attempt: u32, call: u64) {
        self.successes
            .entry(id)
            .or_default()
            .insert((attempt, call));
    }

    pub(super) fn commit(
        &mut self,
        scenario: &Scenario,
        durable: &Durable,
        died_during: &BTreeSet<Id>,
        commit: &Commit,
    ) -> Result<Effects, String> {
        let contents = self.read(scenario, durable, commit)?;
        self.check_state(scenario, durable, commit, &contents)?;
        if scenario.is_at_most_once() {
            self.at_most_once(scenario, commit, contents)?;
            return Ok(Effects::default());
        }
        check_attempts(scenario, durable, commit)?;
        if scenario.plan.sequence.is_some() {
            self.check_numbers(scenario, commit, &contents)?;
        } else {
            self.check_lanes(scenario, durable, &contents)?;
        }
        let ends = self.judge(scenario, durable, &contents)?;
        scenario.check_states(durable, &ends, &contents.put_aside, &commit.letters)?;
        for (id, ended) in &ends {
            let input = scenario.input(*id).ok_or("no such message")?;
            let died = died_during.contains(id);
            let (plan, fate) = (&scenario.plan, scenario.fate(input, durable.round(*id)));
            match ended {
                Ended::Letter => expect_letter(plan, input, &fate, &contents.letters[id], died),
                Ended::Success if input.fate.outputs > 0 => {
                    expect_success(plan, &fate, self.sets[id].attempt, died)
                }
                _ => Ok(()),
            }
            .map_err(|what| format!("{id:?}: {what}"))?;
        }
        self.check_completions(scenario, durable, commit, &contents, &ends)?;
        let letters = ends.iter().filter(|(_, ended)| **ended == Ended::Letter);
        let letters = letters.map(|(id, _)| *id).collect();
        self.reopened.retain(|id| !ends.contains_key(id));
        self.ended.extend(ends);
        Ok(Effects {
            put_aside: contents.put_aside,
            letters,
        })
    }

    fn read(
        &mut self,
        scenario: &Scenario,
        durable: &Durable,
        commit: &Commit,
    ) -> Result<Contents, String> {
        let mut contents = Contents {
            finished: finished(scenario, durable, commit)?,
            ..Contents::default()
        };
        let mut publishes = commit.publishes.iter().peekable();
        while let Some(publish) = publishes.next() {
            if let Some((partition, kept)) = scenario.put_aside(durable, publish)? {
                // It leaves its place in the settlement that puts it aside, and has not ended.
                let at = contents.finished.iter().position(|id| *id == kept.id);
                let at = at.ok_or(format!("{:?} is put aside and still there", kept.id))?;
                contents.finished.remove(at);
                contents.put_aside.push((partition, kept));
                continue;
            }
            let (target, _, record) = publish;
            let (message, _) = MessageRef::read_record(record).map_err(|e| e.to_string())?;
            if *target == DEAD_LETTERS {
                let (id, letter) = read_letter(scenario, durable, &message)?;
                contents.order.push(id);
                if contents.letters.insert(id, letter).is_some() {
                    return Err(format!("{id:?} has two dead letters"));
                }
                continue;
            }
            let (set, index, count) = read_output(&message)?;
            if index != 0 || *target != OUTPUTS[0].1 {
                return Err(format!("{set:?} begins with output {index}"));
            }
            for index in 1..count {
                let (target, _, record) = publishes.next().ok_or(format!("{set:?} is torn"))?;
                let (message, _) = MessageRef::read_record(record).map_err(|e| e.to_string())?;
                if read_output(&message)? != (set.clone(), index, count)
                    || *target != OUTPUTS[index % 2].1
                {
                    return Err(format!("{set:?} is torn at {index}"));
                }
            }
            self.check_set(scenario, durable, &set, count)?;
            contents.order.push(set.id);
            contents.sets.push(set);
        }
        Ok(contents)
    }

    fn check_set(
        &self,
        scenario: &Scenario,
        durable: &Durable,
        set: &Set,
        count: usize,
    ) -> Result<(), String> {
        let input = scenario.input(set.id).ok_or("no such message")?;
        let fate = scenario.fate(input, durable.round(set.id));
        if fate.says(set.attempt) != Said::Outputs(count) {
            return Err(format!("{set:?} is visible and that attempt failed"));
        }
        let said = self.successes.get(&set.id);
        if !said.is_some_and(|said| said.contains(&(set.attempt, set.call))) {
            return Err(format!("{set:?} is visible and its call failed"));
        }
        Ok(())
    }

    /// How each message that this settlement finishes ended.
    fn judge(
        &mut self,
        scenario: &Scenario,
        durable: &Durable,
        contents: &Contents,
    ) -> Result<BTreeMap<Id, Ended>, String> {
        self.superseded.clear();
        let mut ends = BTreeMap::new();
        let mut copies: BTreeMap<Id, usize> = BTreeMap::new();
        let mut later = Vec::new();
        let mut finished = contents.finished.clone();
        // Redrives of one key may fail and then succeed in one settlement.
        finished.sort_by_key(|id| !contents.letters.contains_key(id));
        for id in &finished {
            let input = scenario.input(*id).ok_or("no such message")?;
            let letter = contents.letters.get(id);
            let is_own = contents.sets.iter().any(|set| set.id == *id);
            let is_tied = letter.is_some_and(Letter::is_of_the_key);
            match key_of(scenario, input) {
                None if letter.is_some() => drop(ends.insert(*id, Ended::Letter)),
                // Then `check_numbers` says that its number was passed over.
                None if input.number.is_some() && !is_own => {
                    ends.insert(*id, Ended::Duplicate);
                }
                None => self.succeeded(input, &mut ends, &mut copies)?,
                Some(key) if is_tied => {
                    self.originates(durable, key, input, Status::Failed)?;
                    ends.insert(*id, Ended::Letter);
                }
                Some(key) if is_own && self.stands(durable, key, input).is_none() => {
                    self.originates(durable, key, input, Status::Completed)?;
                    self.succeeded(input, &mut ends, &mut copies)?;
                }
                Some(_) => later.push(input),
            }
        }
        later.sort_by_key(|input| {
            !(input.fate.outputs == 0 && self.successes.contains_key(&input.id))
        });
        let optional =
            self.judge_later(scenario, durable, contents, &later, &mut ends, &mut copies)?;
        self.check_copies(contents, &ends, &copies, &optional)?;
        Ok(ends)
    }

    /// Duplicates, conflicts, and successes without outputs. Copies that may be visible or not.
    fn judge_later(
        &mut self,
        scenario: &Scenario,
        durable: &Durable,
        contents: &Contents,
        later: &[&Input],
        ends: &mut BTreeMap<Id, Ended>,
        copies: &mut BTreeMap<Id, usize>,
    ) -> Result<BTreeMap<Id, usize>, String> {
        let mut optional: BTreeMap<Id, usize> = BTreeMap::new();
        for input in later.iter().copied() {
            let letter = contents.letters.get(&input.id);
            let key = key_of(scenario, input).ok_or("no key")?;
            let Some(origin) = self.stands(durable, key, input).cloned() else {
                if letter.is_some() || input.fate.outputs > 0 {
                    return Err(format!(
                        "{:?} is finished as a duplicate and nothing with its key {key} is",
                        input.id
                    ));
                }
                self.originates(durable, key, input, Status::Completed)?;
                self.succeeded(input, ends, copies)?;
                continue;
            };
            let agrees = |origin: &Origin| (origin.payload != input.payload) == letter.is_some();
            // What stood before a redrive in this settlement may have answered it, too.
            let by_former = self.superseded.get(key).is_some_and(agrees);
            if !agrees(&origin) && !by_former {
                return Err(format!(
                    "{:?} after {origin:?}: conflict or not? {letter:?}",
                    input.id
                ));
            }
            if letter.is_some() {
                ends.insert(input.id, Ended::Letter);
                continue;
            }
            ends.insert(input.id, Ended::Duplicate);
            let outputs = scenario
                .input(origin.id)
                .map_or(0, |origin| origin.fate.outputs);
            let is_again = scenario.replays() && origin.status == Status::Completed && outputs > 0;
            if is_again && agrees(&origin) {
                let whose = if by_former {
                    &mut optional
                } else {
                    &mut *copies
                };
                *whose.entry(origin.id).or_default() += 1;
            }
        }
        Ok(optional)
    }

    /// The outcome that stands for a message with this key. A failure of the same content does not, for one
    /// that was sent again (§7.5).
    fn stands(&self, durable: &Durable, key: &str, input: &Input) -> Option<&Origin> {
        let is_open = |origin: &&Origin| {
            durable.round(input.id) > 0
                && origin.status == Status::Failed
                && origin.payload == input.payload
        };
        self.origins.get(key).filter(|origin| !is_open(origin))
    }

    fn originates(
        &mut self,
        durable: &Durable,
        key: &str,
        input: &Input,
        status: Status,
    ) -> Result<(), String> {
        let before = self.stands(durable, key, input).cloned();
        let origin = Origin {
            id: input.id,
            payload: input.payload.clone(),
            status,
        };
        if let Some(former) = self.origins.insert(key.to_owned(), origin) {
            self.superseded.entry(key.to_owned()).or_insert(former);
        }
        match before {
            None => Ok(()),
            Some(before) => Err(format!(
                "{:?} took effect for {key}, and {before:?} did before",
                input.id
            )),
        }
    }

    fn succeeded(
        &self,
        input: &Input,
        ends: &mut BTreeMap<Id, Ended>,
        copies: &mut BTreeMap<Id, usize>,
    ) -> Result<(), String> {
        if !self.successes.contains_key(&input.id) {
            return Err(format!("{:?} is finished and never succeeded", input.id));
        }
        ends.insert(input.id, Ended::Success);
        if input.fate.outputs > 0 {
            *copies.entry(input.id).or_default() += 1;
        }
        Ok(())
    }

    /// What is visible is what was finished, neither more nor less.
    fn check_copies(
        &mut self,
        contents: &Contents,
        ends: &BTreeMap<Id, Ended>,
        copies: &BTreeMap<Id, usize>,
        optional: &BTreeMap<Id, usize>,
    ) -> Result<(), String> {
        let mut seen: BTreeMap<Id, usize> = BTreeMap::new();
        for set in &contents.sets {
            *seen.entry(set.id).or_default() += 1;
            let first = self.sets.entry(set.id).or_insert_with(|| set.clone());
            if first != set {
                return Err(format!("{set:?} is visible, and {first:?} was"));
            }
        }
        let agrees = |id: &Id| {
            let count = |of: &BTreeMap<Id, usize>| of.get(id).copied().unwrap_or(0);
            let (seen, least) = (count(&seen), count(copies));
            (least..=least + count(optional)).contains(&seen)
        };
        if !seen.keys().chain(copies.keys()).all(agrees) {
            return Err(format!("visible are {seen:?}, finished are {copies:?}"));
        }
        let letters = contents.letters.keys();
        match letters
            .copied()
            .find(|id| ends.get(id) != Some(&Ended::Letter))
        {
            Some(id) => Err(format!("{id:?} has a dead letter and ended otherwise")),
            None => Ok(()),
        }
    }

    /// A lane is finished from its beginning, and published in that order.
    fn check_lanes(
        &self,
        scenario: &Scenario,
        durable: &Durable,
        contents: &Contents,
    ) -> Result<(), String> {
        if scenario.defers() {
            // Its order is given up, by name.
            return Ok(());
        }
        let finished = |id: &Id| self.ended.contains_key(id) || contents.finished.contains(id);
        let mut open = BTreeSet::new();
        for input in scenario.inputs() {
            let Some(lane) = scenario.lane(input) else {
                return Ok(());
            };
            if !finished(&input.id) {
                open.insert(lane);
            } else if open.contains(&lane) {
                return Err(format!(
                    "{:?} is finished before an earlier one of its lane",
                    input.id
                ));
            }
        }
        let mut last = BTreeMap::new();
        for id in &contents.order {
            let input = scenario.input(*id).ok_or("no such message")?;
            let is_copy = !contents.finished.contains(id) || scenario.replays();
            let comes_back = durable.round(*id) > 0;
            let Some(lane) = scenario.lane(input).filter(|_| !is_copy && !comes_back) else {
                continue;
            };
            if last.insert(lane, *id).is_some_and(|before| before >= *id) {
                return Err(format!("{id:?} is published after a later one of its lane"));
            }
        }
        Ok(())
    }

    /// One record for each key that took effect, together with the effect.
    fn check_completions(
        &self,
        scenario: &Scenario,
        durable: &Durable,
        commit: &Commit,
        contents: &Contents,
        ends: &BTreeMap<Id, Ended>,
    ) -> Result<(), String> {
        let comes_back = ends.keys().any(|id| durable.round(*id) > 0);
        let mut expected = BTreeMap::new();
        for id in ends.keys() {
            let input = scenario.input(*id).ok_or("no such message")?;
            let origin =
                key_of(scenario, input).and_then(|key| Some((key, self.origins.get(key)?)));
            if let Some((key, origin)) = origin.filter(|(_, origin)| origin.id == *id) {
                expected.insert(hash_of(key), origin.status);
            }
        }
        let mut written = BTreeMap::new();
        for write in &commit.completions {
            let completion = Completion::decode(&write.value).map_err(|e| e.to_string())?;
            let keeps = scenario.replays() && completion.status == Status::Completed;
            if completion.outputs.is_some() != keeps {
                return Err(format!("a record keeps outputs: {completion:?}"));
            }
            let before = written.insert(write.hash, completion.status);
            if before.is_some_and(|before| before != Status::Failed || !comes_back) {
                return Err("a key has two records".to_owned());
            }
        }
        if expected != written {
            return Err(format!(
                "records {written:?}, effects {expected:?}, finished {:?}",
                contents.finished
            ));
        }
        Ok(())
    }

    /// Each counter moves by the messages that succeed in this settlement.
    fn check_state(
        &self,
        scenario: &Scenario,
        durable: &Durable,
        commit: &Commit,
        contents: &Contents,
    ) -> Result<(), String> {
        if !scenario.plan.has_state {
            return Ok(());
        }
        let mut expected: BTreeMap<(usize, String), u8> = BTreeMap::new();
        let mut counted = BTreeSet::new();
        for set in &contents.sets {
            let is_own = if scenario.is_at_most_once() {
                self.ended.get(&set.id) != Some(&Ended::Success)
            } else {
                contents.finished.contains(&set.id)
            };
            let input = scenario.input(set.id).ok_or("no such message")?;
            if is_own && counted.insert(set.id) {
                *expected.entry((set.id.0, input.state_key())).or_default() += 1;
            }
        }
        let mut after: BTreeMap<(usize, String), Option<Vec<u8>>> = BTreeMap::new();
        for (partition, key, value) in &commit.state {
            after.insert((*partition, key.clone()), value.clone());
        }
        for place in expected.keys().chain(after.keys()) {
            let before = durable.state.get(place).map_or(0, |value| value[0]);
            let wanted = (before + expected.get(place).copied().unwrap_or(0)) % 5;
            let now = match after.get(place) {
                Some(value) => value.as_ref().map_or(0, |value| value[0]),
                None => before,
            };
            if now != wanted {
                return Err(format!(
                    "state {place:?} went from {before} to {now}, not {wanted}"
                ));
            }
        }
        Ok(())
    }

    /// Nothing twice; what is lost was in a call that a kill cut off.
    fn at_most_once(
        &mut self,
        scenario: &Scenario,
        commit: &Commit,
        contents: Contents,
    ) -> Result<(), String> {
        if let Some(id) = contents.letters.keys().next() {
            return Err(format!("{id:?} has a dead letter under at_most_once"));
        }
        for id in &contents.finished {
            let input = scenario.input(*id).ok_or("no such message")?;
            let is_wanted = matches!(input.fate.says(1), Said::Outputs(1..));
            let can = input.is_decodable && scenario.plan.idempotency.is_none();
            if is_wanted && can {
                self.open.insert(*id, commit.worker);
            }
            self.ended.insert(*id, Ended::Dropped);
        }
        for set in &contents.sets {
            let input = scenario.input(set.id).ok_or("no such message")?;
            let end = self.ended.insert(set.id, Ended::Success);
            match end {
                None => return Err(format!("{set:?} is visible before it is marked")),
                Some(Ended::Success) if !scenario.replays() => {
                    return Err(format!("{set:?} is visible twice"));
                }
                _ => {}
            }
            self.open.remove(&set.id);
            if let Some(key) = key_of(scenario, input)
                && self
                    .origins
                    .get(key)
                    .is_none_or(|origin| origin.id != set.id)
            {
                // Nothing comes back under `at_most_once`.
                self.originates(&Durable::default(), key, input, Status::Completed)?;
            }
        }
        Ok(())
    }

    /// Under `at_most_once` a host that ends loses what was in its calls, and no more.
    pub(super) fn life_ends(&mut self, scenario: &Scenario) -> Result<(), String> {
        for worker in 0..scenario.workers {
            let lost: Vec<_> = self.open.iter().filter(|(_, by)| **by == worker).collect();
            if lost.len() > scenario.plan.batch_max as usize {
                return Err(format!("lost with the host: {lost:?}"));
            }
        }
        self.open.clear();
        Ok(())
    }

    /// At the end, everything has come to something.
    pub(super) fn check_end(&self, scenario: &Scenario) -> Result<(), String> {
        for input in scenario.inputs() {
            if !self.ended.contains_key(&input.id) {
                return Err(format!("{:?} is lost", input.id));
            }
        }
        if let Some(id) = self.open.keys().next() {
            return Err(format!("{id:?} is lost without a kill"));
        }
        if let Some(id) = self.reopened.first() {
            return Err(format!("{id:?} was sent again and is lost"));
        }
        Ok(())
    }
}

/// The text of the idempotency key that counts for a message.
fn key_of<'i>(scenario: &Scenario, input: &'i Input) -> Option<&'i str> {
    scenario.plan.idempotency.as_ref()?;
    input
        .is_decodable
        .then_some(input.idempotency_key.as_deref())?
}

fn hash_of(key: &str) -> u128 {
    idempotency::hash(format!("s{key}").as_bytes())
}

fn read_output(message: &MessageRef<'_>) -> Result<(Set, usize, usize), String> {
    let text = String::from_utf8_lossy(message.payload.unwrap_or_default()).into_owned();
    let numbers: Vec<u64> = text
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let [partition, offset, attempt, call, index, count] = numbers[..] else {
        return Err(format!("an output reads {text:?}"));
    };
    let set = Set {
        id: (partition as usize, offset),
        attempt: attempt as u32,
        call,
    };
    Ok((set, index as usize, count as usize))
}

/// What the progress of a settlement finishes, by the messages that lie there.
fn finished(scenario: &Scenario, durable: &Durable, commit: &Commit) -> Result<Vec<Id>, String> {
    let mut all = Vec::new();
    for (partition, progress) in &commit.progress {
        let before = &durable.progress[partition];
        if progress.committed < before.committed {
            return Err(format!(
                "partition {partition} went back to {}",
                progress.committed
            ));
        }
        let written = scenario.partitions.get(*partition).into_iter().flatten();
        let inputs = written.flat_map(|w| &w.inputs).map(|i| (i.id.1, i.id));
        let log = durable.logs.get(partition).into_iter().flatten();
        let kept = log
            .enumerate()
            .map(|(offset, kept)| (offset as u64, kept.id));
        for (offset, id) in inputs.chain(kept) {
            match (is_finished(before, offset), is_finished(progress, offset)) {
                (false, true) if durable.place(id) == (*partition, offset) => all.push(id),
                (false, true) => return Err(format!("{id:?} does not lie there any more")),
                (true, false) => return Err(format!("{id:?} is unfinished again")),
                _ => {}
            }
        }
    }
    Ok(all)
}

fn read_letter(
    scenario: &Scenario,
    durable: &Durable,
    message: &MessageRef<'_>,
) -> Result<(Id, Letter), String> {
    let parsed = Parsed::read(message.headers).map_err(|error| error.to_string())?;
    let id = (parsed.origin_partition as usize, parsed.origin_offset);
    let input = scenario.input(id).ok_or("no such message")?;
    if message.payload != Some(&input.payload) || message.key != input.key.as_deref() {
        return Err(format!("the dead letter of {id:?} is not its message"));
    }
    let round = durable.round(id);
    if parsed.id != scenario.letter_id(id) || parsed.redrive_count != round {
        return Err(format!("the dead letter of {id:?} is not of round {round}"));
    }
    let letter = Letter {
        reason: parsed.reason.to_owned(),
        attempts: parsed.attempts,
    };
    Ok((id, letter))
}

/// Remembered attempts only grow, and never beyond `max_attempts`.
fn check_attempts(scenario: &Scenario, durable: &Durable, commit: &Commit) -> Result<(), String> {
    let max = scenario.plan.retry.max_attempts.get();
    for (partition, progress) in &commit.progress {
        for before in &durable.progress[partition].attempts {
            if is_finished(progress, before.offset) {
                continue;
            }
            let now = progress.attempts.iter().find(|a| a.offset == before.offset);
            // The mark from before a call is taken back when the host could not do its part.
            let marked = u32::from(before.error == crate::pipeline::admit::STOPPED_DURING);
            if now.is_none_or(|now| now.count < before.count - marked) {
                return Err(format!("the attempts of {:?} are forgotten", before.offset));
            }
        }
        if let Some(attempt) = progress.attempts.iter().find(|a| a.count > max) {
            return Err(format!("{attempt:?} is more than max_attempts"));
        }
    }
    Ok(())
}
