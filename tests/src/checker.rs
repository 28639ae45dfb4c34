//! Says whether a run came out right (design: "The checker"): reads the source topic, outputs, dead
//! letters and committed progress of a log that no host holds, after every kill and at the end, and
//! holds them against what the inputs planned. Every fault run is judged here and nowhere else.
//!
//! What it can find is [`Kind`]. What it needs: every input carries its ID as the header
//! [`crate::input::ID`], and every output keeps that header (`headers: ["probe-*"]`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use wasmill::connector::embedded::Log;
use wasmill::message::MessageRef;
use wasmill::pipeline::dead_letter::{self, Parsed};
use wasmill::pipeline::offsets::Progress;

use crate::input::{Expected, ID, Input};

/// Violations that a report prints in full.
const SHOWN_MAX: usize = 40;

/// What a run is held against.
#[derive(Debug, Clone)]
pub struct Terms {
    pub source: &'static str,
    pub group: &'static str,
    pub outputs: Vec<&'static str>,
    pub dead_letters: String,
    pub guarantee: Guarantee,
    /// An input that stands twice in the source counts once.
    pub is_deduplicated: bool,
    /// `retry.max_attempts`.
    pub max_attempts: u32,
    /// Whether outputs and dead letters of one key must stand in the order of their inputs.
    pub is_ordered: bool,
    /// Fewer inputs with all their outputs fail the run: one that errs everywhere must not pass.
    pub succeeded_min: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
    AtMostOnce,
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Acknowledged to its producer and not in the source.
    NotStored,
    /// Finished or left behind without what it should have led to.
    Lost,
    /// An effect of nothing, or of another kind than planned.
    Phantom,
    /// Outputs and a dead letter of one input.
    Both,
    /// More often than the guarantee allows.
    Duplicate,
    /// Outputs or dead letters of a key in another order than their inputs.
    Order,
    /// Progress says finished, and the effects are not there.
    CommittedPast,
    /// The effects are there, and progress does not say finished.
    Uncommitted,
    /// Some outputs of an input and not the others.
    Torn,
    /// Key, payload, headers or attempts are not what they should be.
    Changed,
    /// Attempts made that the host does not remember, or too many.
    Attempts,
    /// Not finished when the faults had stopped.
    NotDrained,
    /// Too few operations succeeded for the run to mean anything.
    TooFew,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub kind: Kind,
    pub what: String,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Report {
    pub violations: Vec<Violation>,
    pub inputs: usize,
    /// Inputs with all their outputs.
    pub succeeded: usize,
    pub dead_letters: usize,
    /// Looks at the log, the last one included.
    pub looks: usize,
}

/// One partition of the source as a look found it.
#[derive(Debug, Clone, Default)]
pub struct Place {
    pub committed: u64,
    pub completed: Vec<std::ops::Range<u64>>,
    /// IDs of the messages by offset.
    ids: Vec<String>,
}

impl Place {
    pub fn is_finished(&self, offset: u64) -> bool {
        offset < self.committed || self.completed.iter().any(|range| range.contains(&offset))
    }

    pub fn end(&self) -> u64 {
        self.ids.len() as u64
    }
}

/// Something visible that an input led to.
#[derive(Debug, Clone)]
struct Effect {
    topic: String,
    partition: u32,
    offset: u64,
    is_dead_letter: bool,
    key: Option<Vec<u8>>,
    payload: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

pub struct Checker {
    terms: Terms,
    inputs: HashMap<String, Input>,
    acknowledged: BTreeSet<String>,
    places: Vec<Place>,
    effects: HashMap<String, Vec<Effect>>,
    /// Effects by topic and partition in their order: (ID, offset).
    sequences: BTreeMap<(String, u32), Vec<String>>,
    /// Where reading goes on.
    positions: HashMap<(String, u32), u64>,
    /// Inputs that a crash may repeat: their effects were there and they did not count as finished.
    repeatable: BTreeSet<String>,
    kills: u32,
    violations: Vec<Violation>,
    looks: usize,
}

impl Checker {
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            inputs: HashMap::new(),
            acknowledged: BTreeSet::new(),
            places: Vec::new(),
            effects: HashMap::new(),
            sequences: BTreeMap::new(),
            positions: HashMap::new(),
            repeatable: BTreeSet::new(),
            kills: 0,
            violations: Vec::new(),
            looks: 0,
        }
    }

    /// Inputs that may be in the source.
    pub fn know(&mut self, inputs: &[Input]) {
        for input in inputs {
            self.inputs.insert(input.id.clone(), input.clone());
        }
    }

    /// Inputs that were acknowledged: they must be in the source.
    pub fn acknowledge(&mut self, inputs: &[Input]) {
        self.know(inputs);
        for input in inputs {
            self.acknowledged.insert(input.id.clone());
        }
    }

    /// Looks at what a killed host left. Returns the source's partitions.
    pub fn after_kill(&mut self, log: &Log) -> &[Place] {
        self.kills += 1;
        self.read(log);
        for (id, offsets) in self.offsets() {
            let finished = offsets.iter().any(|at| self.is_finished(*at));
            let Some(input) = self.inputs.get(&id) else {
                continue;
            };
            let complete = self.is_complete(input);
            if finished && !complete && self.terms.guarantee != Guarantee::AtMostOnce {
                self.found(
                    Kind::CommittedPast,
                    format!(
                        "{id} counts as finished at {offsets:?} after kill {}; it led to {}",
                        self.kills,
                        self.shown(&id)
                    ),
                );
            }
            if !finished && self.effects.contains_key(&id) {
                if self.terms.guarantee == Guarantee::ExactlyOnce {
                    self.found(
                        Kind::Uncommitted,
                        format!(
                            "{id} is not finished after kill {} and led to {}",
                            self.kills,
                            self.shown(&id)
                        ),
                    );
                }
                self.repeatable.insert(id);
            }
        }
        &self.places
    }

    /// Attempts as the handler told them in the host's log, of inputs that were never killed in an
    /// attempt: each number once, rising, at most `max_attempts`.
    pub fn check_attempts(&mut self, log_text: &str) {
        let mut seen: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for line in log_text.lines() {
            let Some((_, rest)) = line.split_once("attempt ") else {
                continue;
            };
            let Some((number, rest)) = rest.split_once(" of ") else {
                continue;
            };
            let id = rest.split(['"', ' ']).next().unwrap_or_default();
            if let Ok(number) = number.parse() {
                seen.entry(id.to_owned()).or_default().push(number);
            }
        }
        for (id, numbers) in seen {
            let rises = numbers.is_sorted_by(|a, b| a < b);
            if !rises || numbers.len() > self.terms.max_attempts as usize {
                self.found(
                    Kind::Attempts,
                    format!("{id} was tried as attempts {numbers:?}"),
                );
            }
        }
    }

    /// The last look, after the faults stopped and the host had the time to finish.
    pub fn finish(mut self, log: &Log) -> Report {
        self.read(log);
        self.check_drained();
        let mut succeeded = 0;
        let mut dead_letters = 0;
        let offsets = self.offsets();
        for (id, offsets) in &offsets {
            let Some(input) = self.inputs.get(id).cloned() else {
                self.found(
                    Kind::Phantom,
                    format!("{id} is in the source and nobody made it"),
                );
                continue;
            };
            let copies = if self.terms.is_deduplicated && input.is_keyed {
                1
            } else {
                offsets.len()
            };
            match self.check_input(&input, copies) {
                Outcome::Succeeded => succeeded += 1,
                Outcome::DeadLettered => dead_letters += 1,
                Outcome::Wrong => {}
            }
        }
        self.check_stored(&offsets);
        self.check_phantoms(&offsets);
        if self.terms.is_ordered {
            self.check_order(&offsets);
        }
        if succeeded < self.terms.succeeded_min {
            self.found(
                Kind::TooFew,
                format!(
                    "{succeeded} inputs succeeded, at least {} should",
                    self.terms.succeeded_min
                ),
            );
        }
        Report {
            violations: self.violations,
            inputs: offsets.len(),
            succeeded,
            dead_letters,
            looks: self.looks,
        }
    }

    fn found(&mut self, kind: Kind, what: String) {
        self.violations.push(Violation { kind, what });
    }

    // Reading.

    fn read(&mut self, log: &Log) {
        self.looks += 1;
        self.read_source(log);
        let mut topics = self
            .terms
            .outputs
            .iter()
            .map(|t| (*t).to_owned())
            .collect::<Vec<_>>();
        topics.push(self.terms.dead_letters.clone());
        for name in topics {
            let is_dead_letter = name == self.terms.dead_letters;
            self.read_topic(log, &name, |this, partition, offset, message| {
                let effect = Effect {
                    topic: name.clone(),
                    partition,
                    offset,
                    is_dead_letter,
                    key: message.key.map(<[u8]>::to_vec),
                    payload: message.payload.map(<[u8]>::to_vec),
                    headers: owned(message),
                };
                let id = id_of(message);
                this.sequences
                    .entry((name.clone(), partition))
                    .or_default()
                    .push(id.clone());
                this.effects.entry(id).or_default().push(effect);
            });
        }
    }

    fn read_source(&mut self, log: &Log) {
        let source = self.terms.source;
        self.read_topic(log, source, |this, partition, _, message| {
            let partition = partition as usize;
            if this.places.len() <= partition {
                this.places.resize(partition + 1, Place::default());
            }
            this.places[partition].ids.push(id_of(message));
        });
        let (Some(topic), Some(group)) = (log.topic(source), log.find_group(self.terms.group))
        else {
            return;
        };
        self.places.resize(topic.partitions.len(), Place::default());
        for (place, id) in self.places.iter_mut().zip(&topic.partitions) {
            if let Some(bytes) = log.progress(group, *id).unwrap() {
                let progress = Progress::decode(&bytes).unwrap();
                place.committed = progress.committed;
                place.completed = progress.completed;
            }
        }
    }

    fn read_topic(
        &mut self,
        log: &Log,
        name: &str,
        mut each: impl FnMut(&mut Self, u32, u64, &MessageRef<'_>),
    ) {
        let Some(topic) = log.topic(name) else { return };
        for (number, id) in (0u32..).zip(&topic.partitions) {
            let mut at = self
                .positions
                .get(&(name.to_owned(), number))
                .copied()
                .unwrap_or(0);
            while let Some(chunk) = log.read(*id, at).unwrap() {
                for (offset, _, message) in chunk.iter_from(at) {
                    each(self, number, offset, &message);
                }
                at = chunk.end_offset();
            }
            self.positions.insert((name.to_owned(), number), at);
        }
    }

    // Judging.

    /// Where each input stands in the source.
    fn offsets(&self) -> BTreeMap<String, Vec<(usize, u64)>> {
        let mut offsets: BTreeMap<String, Vec<(usize, u64)>> = BTreeMap::new();
        for (partition, place) in self.places.iter().enumerate() {
            for (offset, id) in (0u64..).zip(&place.ids) {
                offsets
                    .entry(id.clone())
                    .or_default()
                    .push((partition, offset));
            }
        }
        offsets
    }

    fn is_finished(&self, (partition, offset): (usize, u64)) -> bool {
        self.places[partition].is_finished(offset)
    }

    fn effects_of(&self, id: &str) -> &[Effect] {
        self.effects.get(id).map_or(&[], Vec::as_slice)
    }

    /// All that it should lead to is there, at least once.
    fn is_complete(&self, input: &Input) -> bool {
        let effects = self.effects_of(&input.id);
        match &input.expected {
            Expected::Nothing => true,
            Expected::DeadLetter { .. } => effects.iter().any(|effect| effect.is_dead_letter),
            Expected::Outputs(topics) => topics.iter().all(|topic| {
                let wanted = topics.iter().filter(|other| *other == topic).count();
                effects
                    .iter()
                    .filter(|effect| effect.topic == *topic)
                    .count()
                    >= wanted
            }),
        }
    }

    fn check_drained(&mut self) {
        for (number, place) in self.places.clone().iter().enumerate() {
            if place.committed != place.end() {
                self.found(
                    Kind::NotDrained,
                    format!(
                        "partition {number}: committed {}, end {}",
                        place.committed,
                        place.end()
                    ),
                );
            }
        }
    }

    fn check_stored(&mut self, offsets: &BTreeMap<String, Vec<(usize, u64)>>) {
        for id in std::mem::take(&mut self.acknowledged) {
            if !offsets.contains_key(&id) {
                self.found(Kind::NotStored, id);
            }
        }
    }

    fn check_phantoms(&mut self, offsets: &BTreeMap<String, Vec<(usize, u64)>>) {
        let strangers: Vec<String> = self
            .effects
            .keys()
            .filter(|id| !offsets.contains_key(*id))
            .cloned()
            .collect();
        for id in strangers {
            self.found(
                Kind::Phantom,
                format!("{id:?} is not in the source and led to {}", self.shown(&id)),
            );
        }
    }

    fn check_input(&mut self, input: &Input, copies: usize) -> Outcome {
        let before = self.violations.len();
        let effects = self.effects_of(&input.id).to_vec();
        let id = &input.id;
        let letters = effects
            .iter()
            .filter(|effect| effect.is_dead_letter)
            .count();
        if letters > 0 && letters < effects.len() {
            self.found(Kind::Both, format!("{id} led to {}", self.shown(id)));
        }
        match &input.expected {
            Expected::Nothing => {
                if !effects.is_empty() {
                    self.found(
                        Kind::Phantom,
                        format!("{id} should lead to nothing and led to {}", self.shown(id)),
                    );
                }
            }
            Expected::DeadLetter { .. } => {
                self.check_count(
                    id,
                    &effects,
                    "the dead letter",
                    |effect| effect.is_dead_letter,
                    copies,
                );
            }
            Expected::Outputs(topics) => self.check_outputs(id, &effects, topics, copies),
        }
        for effect in &effects {
            self.check_effect(input, effect);
        }
        match (&input.expected, self.violations.len() == before) {
            (_, false) => Outcome::Wrong,
            (Expected::DeadLetter { .. }, true) => Outcome::DeadLettered,
            (_, true) => Outcome::Succeeded,
        }
    }

    fn check_outputs(
        &mut self,
        id: &str,
        effects: &[Effect],
        topics: &[&'static str],
        copies: usize,
    ) {
        let there = topics
            .iter()
            .filter(|topic| effects.iter().any(|e| e.topic == **topic))
            .count();
        if there > 0 && there < topics.len() {
            self.found(
                Kind::Torn,
                format!(
                    "{id} should lead to {topics:?} and led to {}",
                    self.shown(id)
                ),
            );
        }
        let distinct: BTreeSet<&str> = topics.iter().copied().collect();
        for topic in &distinct {
            let each = topics.iter().filter(|other| *other == topic).count();
            self.check_count(
                id,
                effects,
                topic,
                |effect| effect.topic == *topic,
                copies * each,
            );
        }
        for effect in effects.iter().filter(|e| !e.is_dead_letter) {
            if !distinct.contains(effect.topic.as_str()) {
                self.found(
                    Kind::Phantom,
                    format!(
                        "{id} should lead to {topics:?} and led to {}",
                        self.shown(id)
                    ),
                );
            }
        }
    }

    fn check_count(
        &mut self,
        id: &str,
        effects: &[Effect],
        what: &str,
        is_meant: impl Fn(&Effect) -> bool,
        expected: usize,
    ) {
        let count = effects.iter().filter(|effect| is_meant(effect)).count();
        let may_lack = self.terms.guarantee == Guarantee::AtMostOnce && self.kills > 0;
        if count < expected && !may_lack {
            self.found(
                Kind::Lost,
                format!(
                    "{id}: {what}: {count} of {expected}; it led to {}",
                    self.shown(id)
                ),
            );
        }
        let may_repeat =
            self.terms.guarantee == Guarantee::AtLeastOnce && self.repeatable.contains(id);
        if count > expected && !may_repeat {
            self.found(
                Kind::Duplicate,
                format!(
                    "{id}: {what}: {count} times, not {expected}: {}",
                    self.shown(id)
                ),
            );
        }
    }

    fn check_effect(&mut self, input: &Input, effect: &Effect) {
        if let Some(what) = difference(input, effect) {
            self.found(Kind::Changed, format!("{}: {what}", input.id));
        }
        let Expected::DeadLetter { reasons, attempts } = &input.expected else {
            return;
        };
        if !effect.is_dead_letter {
            return;
        }
        let reason = effect.header("wasmill-dlq-reason");
        let made: u32 = effect
            .header("wasmill-dlq-attempts")
            .parse()
            .unwrap_or(u32::MAX);
        // A kill during an attempt is an attempt (§4.4), so a rejection may have come later than planned.
        let most = if *attempts == 0 {
            0
        } else {
            attempts + self.kills
        };
        if !reasons.contains(&reason.as_str()) {
            self.found(
                Kind::Phantom,
                format!("{}: dead letter {reason:?}, not {reasons:?}", input.id),
            );
        }
        if made < *attempts || made > most.min(self.terms.max_attempts) {
            self.found(
                Kind::Attempts,
                format!(
                    "{}: dead letter after {made} attempts, not {attempts}",
                    input.id
                ),
            );
        }
    }

    fn check_order(&mut self, offsets: &BTreeMap<String, Vec<(usize, u64)>>) {
        let mut wrong = Vec::new();
        for ((topic, partition), ids) in &self.sequences {
            let mut last: HashMap<&[u8], ((usize, u64), &str)> = HashMap::new();
            for id in ids {
                let (Some(input), Some(first)) =
                    (self.inputs.get(id), offsets.get(id).and_then(|o| o.first()))
                else {
                    continue;
                };
                let Some(key) = input.key.as_deref() else {
                    continue;
                };
                if self.repeatable.contains(id) {
                    continue;
                }
                if let Some((before, other)) = last.get(key)
                    && before.0 == first.0
                    && before > first
                {
                    wrong.push(format!(
                        "{topic}/{partition}: {id} after {other}, key {}",
                        String::from_utf8_lossy(key)
                    ));
                }
                last.insert(key, (*first, id));
            }
        }
        for what in wrong {
            self.found(Kind::Order, what);
        }
    }

    fn shown(&self, id: &str) -> String {
        let effects = self.effects_of(id);
        if effects.is_empty() {
            return "nothing".to_owned();
        }
        let shown: Vec<String> = effects
            .iter()
            .map(|e| format!("{}/{}@{}", e.topic, e.partition, e.offset))
            .collect();
        shown.join(", ")
    }
}

enum Outcome {
    Succeeded,
    DeadLettered,
    Wrong,
}

impl Effect {
    fn header(&self, name: &str) -> String {
        let found = self.headers.iter().rev().find(|(other, _)| other == name);
        let value = found
            .and_then(|(_, value)| value.as_deref())
            .unwrap_or_default();
        String::from_utf8_lossy(value).into_owned()
    }
}

/// What in an effect is not as it should be: a dead letter has all of its message, an output of the
/// probe inherits key and payload and keeps the ID.
fn difference(input: &Input, effect: &Effect) -> Option<String> {
    if effect.key != input.key {
        return Some(format!("the key is {:?}", effect.key));
    }
    if effect.payload != input.payload {
        return Some("the payload is another".to_owned());
    }
    if effect.header("correlation-id").is_empty() {
        return Some("there is no correlation-id".to_owned());
    }
    if !effect.is_dead_letter {
        return None;
    }
    let added = |name: &str| name.starts_with(dead_letter::PREFIX) || name == "correlation-id";
    let kept: Vec<(String, Option<Vec<u8>>)> = effect
        .headers
        .iter()
        .filter(|(name, _)| !added(name))
        .cloned()
        .collect();
    let own = std::iter::once((ID.to_owned(), Some(input.id.as_bytes().to_vec())));
    let others = input
        .headers
        .iter()
        .cloned()
        .map(|(name, value)| (name, Some(value)));
    let expected: Vec<(String, Option<Vec<u8>>)> =
        own.chain(others).filter(|(name, _)| !added(name)).collect();
    if kept != expected {
        return Some(format!("headers {kept:?}, not {expected:?}"));
    }
    let mut buffer = wasmill::message::HeadersBuf::new();
    for (name, value) in &effect.headers {
        assert!(buffer.push(name, value.as_deref()));
    }
    match Parsed::read(buffer.as_headers()) {
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn owned(message: &MessageRef<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let headers = message.headers.iter();
    headers
        .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
        .collect()
}

fn id_of(message: &MessageRef<'_>) -> String {
    let id = message.headers.last(ID).unwrap_or_default();
    String::from_utf8_lossy(id).into_owned()
}

impl Report {
    pub fn has(&self, kind: Kind) -> bool {
        self.violations
            .iter()
            .any(|violation| violation.kind == kind)
    }

    /// Panics with everything that is wrong.
    pub fn assert_clean(&self) {
        assert!(self.violations.is_empty(), "{}", self.text());
    }

    pub fn text(&self) -> String {
        let mut text = format!(
            "{} inputs, {} succeeded, {} dead letters, {} looks, {} violations\n",
            self.inputs,
            self.succeeded,
            self.dead_letters,
            self.looks,
            self.violations.len()
        );
        for violation in self.violations.iter().take(SHOWN_MAX) {
            writeln!(text, "  {:?}: {}", violation.kind, violation.what).unwrap();
        }
        text
    }
}
