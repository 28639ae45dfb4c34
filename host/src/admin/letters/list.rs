//! The console's questions about single dead letters: the newest ones that fit, one by its ID or place.
//! Bounded: a topic may hold millions. Not here: how they are walked (`scan.rs`).

use std::collections::BTreeSet;

use super::decode::{self, View};
use super::filter::Wanted;
use super::scan::{Budget, Seen, Walked};
use super::state::Lookup;
use super::wire::{DeadLetter, DeadLetterFilter, DeadLetterList, Scanned, Selection};
use crate::admin::console::Console;
use crate::admin::error::{Code, Error};
use crate::admin::wire::DeadLetterTopic;
use crate::expression::nearest;
use crate::pipeline::letter_state::State;

/// Dead letters of one list.
pub const DEAD_LETTERS_MAX: u32 = 1_000;
/// Bytes of records after which a list ends.
pub const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Messages among which a dead letter is looked for by its ID.
pub const FIND_MESSAGES_MAX: u64 = 1_000_000;
/// IDs and places in one request.
pub const IDS_MAX: usize = 1_000;
/// Different names remembered for a hint.
const NAMES_MAX: usize = 200;

/// Where a dead letter that was named lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: u64,
}

/// Names in letters that did not fit, to suggest one of them.
#[derive(Default)]
pub(super) struct Names {
    pipelines: BTreeSet<String>,
    groups: BTreeSet<String>,
    reasons: BTreeSet<String>,
    failure_groups: BTreeSet<String>,
}

impl Names {
    pub(super) fn note(&mut self, letter: &View<'_>, filter: &DeadLetterFilter) {
        let add = |names: &mut BTreeSet<String>, name: Option<&str>| {
            let name = name.unwrap_or_default();
            if names.len() < NAMES_MAX && !names.contains(name) {
                names.insert(name.to_owned());
            }
        };
        add(&mut self.pipelines, letter.pipeline);
        add(&mut self.groups, letter.group);
        add(&mut self.reasons, letter.reason);
        if filter.failure_group.is_some() {
            add(&mut self.failure_groups, Some(&letter.failure_group()));
        }
    }

    /// One line for each name in the filter that no letter has.
    pub(super) fn hints(&self, filter: &DeadLetterFilter) -> Vec<String> {
        let hint = |what: &str, wanted: &Option<String>, names: &BTreeSet<String>| {
            let wanted = wanted
                .as_deref()
                .filter(|wanted| !names.contains(*wanted))?;
            let meant = nearest(wanted, names.iter().map(String::as_str))
                .map(|meant| format!("; did you mean {meant}?"));
            let meant = meant.unwrap_or_default();
            Some(format!(
                "no dead letter that was looked at has the {what} {wanted}{meant}"
            ))
        };
        [
            hint("pipeline", &filter.pipeline, &self.pipelines),
            hint("consumer group", &filter.consumer_group, &self.groups),
            hint("reason", &filter.reason, &self.reasons),
            hint("failure group", &filter.failure_group, &self.failure_groups),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl Console {
    /// The newest dead letters that fit the filter, newest first.
    pub fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<DeadLetterList, Error> {
        let limit = filter
            .limit
            .unwrap_or(DEAD_LETTERS_MAX)
            .min(DEAD_LETTERS_MAX) as usize;
        let (mut found, mut bytes) = (Vec::new(), 0);
        let scanned = self.each_fitting(filter, |place, letter, state| {
            // One above the limit tells that there are more.
            if found.len() == limit || bytes >= LIST_BYTES_MAX {
                return Ok(false);
            }
            bytes += letter.message.record_len();
            found.push(letter.decode(&place.topic.name, place.partition, place.offset, state));
            Ok(true)
        })?;
        Ok(DeadLetterList {
            dead_letters: found,
            topics: self.dead_letter_topics(filter.topic.as_deref())?,
            scanned,
        })
    }

    /// Shows `see` every dead letter that fits, the newest first, until it says false.
    pub(super) fn each_fitting(
        &self,
        filter: &DeadLetterFilter,
        mut see: impl FnMut(
            &super::scan::Place<'_>,
            &View<'_>,
            super::wire::LetterState,
        ) -> Result<bool, Error>,
    ) -> Result<Scanned, Error> {
        let wanted = Wanted::new(filter)?;
        let topics = self.holding_topics(filter.topic.as_deref())?;
        let mut budget = Budget::of(filter);
        let mut lookup = Lookup::new(self);
        let mut names = Names::default();
        let (mut redriving, mut any) = (0, false);
        let walked = self.newest_letters(
            &topics,
            filter,
            wanted.wants_open_only(),
            &mut budget,
            |place, letter| {
                if !wanted.fits(letter) {
                    names.note(letter, filter);
                    return Ok(Seen::Other);
                }
                let state = lookup.state(letter)?;
                names.note(letter, filter);
                if state.state == State::Redriving && !state.lost {
                    redriving += 1;
                }
                if wanted.fits_state(state.state, state.lost) {
                    any = true;
                    return Ok(if see(place, letter, state)? {
                        Seen::Other
                    } else {
                        Seen::Last
                    });
                }
                Ok(if state.state.is_closed() {
                    Seen::Closed
                } else {
                    Seen::Other
                })
            },
        )?;
        Ok(scanned(
            &walked,
            &budget,
            redriving,
            if any { Vec::new() } else { names.hints(filter) },
        ))
    }

    /// The newest dead letter with this ID, with its history.
    pub fn dead_letter(&self, id: &str) -> Result<DeadLetter, Error> {
        let found = self.find(&[id.to_owned()])?;
        match found.first() {
            Some(found) => self.dead_letter_at(&found.topic, found.partition, found.offset),
            None => Err(Error::internal("a dead letter was found and is not there")),
        }
    }

    /// Where the named dead letters lie; an error when one of them is not found.
    pub(super) fn find(&self, names: &[String]) -> Result<Vec<Found>, Error> {
        if names.len() > IDS_MAX {
            return Err(Error::new(
                Code::TooLarge,
                format!("at most {IDS_MAX} dead letters are named at once"),
                "use a filter",
            ));
        }
        let mut found = Vec::new();
        let mut missing: BTreeSet<&str> = BTreeSet::new();
        for name in names {
            match decode::read_place(name) {
                None => {
                    missing.insert(name);
                }
                Some((topic, partition, offset)) => {
                    self.dead_letter_at(topic, partition, offset)?;
                    add(
                        &mut found,
                        Found {
                            topic: topic.to_owned(),
                            partition,
                            offset,
                        },
                    );
                }
            }
        }
        if missing.is_empty() {
            return Ok(found);
        }
        let filter = DeadLetterFilter {
            scan: Some(FIND_MESSAGES_MAX),
            ..DeadLetterFilter::default()
        };
        let mut budget = Budget::of(&filter);
        let topics = self.holding_topics(None)?;
        self.newest_letters(&topics, &filter, false, &mut budget, |place, letter| {
            if missing.remove(letter.id.unwrap_or_default()) {
                add(
                    &mut found,
                    Found {
                        topic: place.topic.name.clone(),
                        partition: place.partition,
                        offset: place.offset,
                    },
                );
            }
            Ok(if missing.is_empty() {
                Seen::Last
            } else {
                Seen::Other
            })
        })?;
        let Some(first) = missing.first() else {
            return Ok(found);
        };
        Err(Error::new(
            Code::UnknownDeadLetter,
            format!(
                "there is no dead letter {first} among the newest {} messages of dead letter topics",
                budget.looked_at()
            ),
            "`wasmill dlq list` shows them; also TOPIC/PARTITION@OFFSET names one",
        ))
    }

    /// The dead letter at a place, with its history.
    pub fn dead_letter_at(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
    ) -> Result<DeadLetter, Error> {
        let topic = self.known_topic(topic)?;
        let id = self.known_partition(&topic, partition)?;
        let mut found = None;
        if offset >= self.log.earliest(id)? {
            let mut lookup = Lookup::new(self);
            self.walk(id, offset, |at, message| {
                if at == offset {
                    found = Some(View::read(message).map(|letter| {
                        let state = lookup.state(&letter)?;
                        let mut shown = letter.decode(&topic.name, partition, at, state);
                        shown.history = lookup.history(&letter)?;
                        Ok(shown)
                    }));
                }
                false
            })?;
        }
        let place = decode::place(&topic.name, partition, offset);
        match found {
            Some(Some(letter)) => letter,
            Some(None) => Err(Error::new(
                Code::UnknownDeadLetter,
                format!("{place} is no dead letter"),
                format!("see the message with `wasmill show {place}`"),
            )),
            None => Err(Error::new(
                Code::UnknownDeadLetter,
                format!("there is no message at {place}"),
                format!(
                    "`wasmill topics describe {}` shows the offsets there are",
                    topic.name
                ),
            )),
        }
    }

    /// Dead letter topics that hold messages.
    pub(in crate::admin) fn dead_letter_topics(
        &self,
        named: Option<&str>,
    ) -> Result<Vec<DeadLetterTopic>, Error> {
        let mut topics = Vec::new();
        for topic in self.holding_topics(named)? {
            let messages = self.messages(&topic)?;
            if messages > 0 {
                topics.push(DeadLetterTopic {
                    topic: topic.name.clone(),
                    messages,
                });
            }
        }
        Ok(topics)
    }
}

/// One that is named twice, or by its ID and its place, is one.
fn add(found: &mut Vec<Found>, one: Found) {
    if !found.contains(&one) {
        found.push(one);
    }
}

pub(super) fn scanned(
    walked: &Walked,
    budget: &Budget,
    redriving: u64,
    hints: Vec<String>,
) -> Scanned {
    Scanned {
        looked_at: budget.looked_at(),
        more: !walked.whole,
        back_to_ms: walked.back_to_ms,
        redriving,
        hints,
    }
}

impl Selection {
    /// # Errors
    /// `Invalid` when nothing says which letters are meant: acting on all of them wants to be said.
    pub(super) fn check(&self) -> Result<(), Error> {
        let anything = DeadLetterFilter {
            state: self.filter.state,
            scan: self.filter.scan,
            limit: self.filter.limit,
            ..DeadLetterFilter::default()
        };
        if self.ids.is_empty() && !self.all && self.filter == anything {
            return Err(Error::new(
                Code::Invalid,
                "nothing says which dead letters are meant",
                "give `ids` or a `filter`, or say `all`",
            ));
        }
        Ok(())
    }

    /// What it selects, for people and the audit trail.
    #[must_use]
    pub fn described(&self) -> String {
        if !self.ids.is_empty() {
            return self.ids.join(" ");
        }
        serde_json::to_string(&self.filter).unwrap_or_default()
    }
}
