//! The console's questions about dead letters: which topics hold them, the newest ones, one by its ID
//! or place. Bounded: a topic may hold millions.

use std::sync::Arc;

use super::console::{Console, unknown};
use super::dead_letter::{self, TOPIC_SUFFIX};
use super::error::{Code, Error};
use super::wire::{DeadLetter, DeadLetterFilter, DeadLetterList, DeadLetterTopic};
use crate::connector::embedded::{PartitionId, Topic};
use crate::message::MessageRef;

/// Dead letters of one list.
pub const DEAD_LETTERS_MAX: u32 = 1_000;
/// Messages one question looks at, the newest of every partition first.
pub const SCAN_MESSAGES_MAX: u64 = 100_000;
/// Messages read at a time, backwards.
const WINDOW: u64 = 1_000;

/// Messages that may still be looked at.
struct Budget(u64);

impl Console {
    /// The newest dead letters that fit the filter, newest first.
    pub fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<DeadLetterList, Error> {
        let limit = filter
            .limit
            .unwrap_or(DEAD_LETTERS_MAX)
            .min(DEAD_LETTERS_MAX) as usize;
        let topics = self.holding_topics(filter.topic.as_deref())?;
        let mut budget = Budget(SCAN_MESSAGES_MAX);
        let mut found = Vec::new();
        let mut more = false;
        for topic in &topics {
            for (partition, id) in (0..).zip(&topic.partitions) {
                let mut own: Vec<DeadLetter> = Vec::new();
                let whole = self.backwards(*id, &mut budget, |offset, message| {
                    if dead_letter::is_dead_letter(message) {
                        let letter = dead_letter::decode(&topic.name, partition, offset, message);
                        if fits(&letter, filter) {
                            own.push(letter);
                        }
                    }
                    // One above the limit tells that there are more.
                    own.len() <= limit
                })?;
                more |= !whole;
                found.append(&mut own);
            }
        }
        found.sort_by_key(|letter| {
            let at = letter
                .last_failed_at_ms
                .unwrap_or(letter.message.timestamp_ms);
            (std::cmp::Reverse(at), letter.position.clone())
        });
        more |= found.len() > limit;
        found.truncate(limit);
        Ok(DeadLetterList {
            dead_letters: found,
            topics: self.dead_letter_topics(filter.topic.as_deref())?,
            more,
        })
    }

    /// The newest dead letter with this ID.
    pub fn dead_letter(&self, id: &str) -> Result<DeadLetter, Error> {
        let mut budget = Budget(SCAN_MESSAGES_MAX);
        let mut whole = true;
        for topic in self.holding_topics(None)? {
            for (partition, at) in (0..).zip(&topic.partitions) {
                let mut found = None;
                whole &= self.backwards(*at, &mut budget, |offset, message| {
                    if dead_letter::has_id(message, id) {
                        found = Some(dead_letter::decode(&topic.name, partition, offset, message));
                    }
                    found.is_none()
                })? || found.is_some();
                if let Some(letter) = found {
                    return Ok(letter);
                }
            }
        }
        let message = if whole {
            format!("there is no dead letter {id}")
        } else {
            format!("there is no dead letter {id} among the newest {SCAN_MESSAGES_MAX} messages")
        };
        Err(Error::new(
            Code::UnknownDeadLetter,
            message,
            "`wasmill dlq list` shows them; also TOPIC/PARTITION@OFFSET names one",
        ))
    }

    /// The dead letter at a place.
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
            self.walk(id, offset, |at, message| {
                if at == offset {
                    let is_ours = dead_letter::is_dead_letter(message);
                    let letter = dead_letter::decode(&topic.name, partition, at, message);
                    found = Some((is_ours, letter));
                }
                false
            })?;
        }
        let place = format!("{}/{partition}@{offset}", topic.name);
        match found {
            Some((true, letter)) => Ok(letter),
            Some((false, _)) => Err(Error::new(
                Code::UnknownDeadLetter,
                format!("{place} is no dead letter"),
                format!(
                    "see the message with `wasmill consume {} --partition {partition} --from {offset} --limit 1`",
                    topic.name
                ),
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
    pub(super) fn dead_letter_topics(
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

    /// The topic named, or those that end as dead letter topics do and those whose newest message is
    /// a dead letter (`dead_letter.topic` may have named them anything).
    fn holding_topics(&self, named: Option<&str>) -> Result<Vec<Arc<Topic>>, Error> {
        if let Some(name) = named {
            return Ok(vec![self.log.topic(name).ok_or_else(|| {
                let topics = self.log.topics();
                let names = topics.iter().map(|topic| topic.name.as_str());
                unknown(Code::UnknownTopic, "topic", name, names, "topics list")
            })?]);
        }
        let mut topics = Vec::new();
        for topic in self.log.topics() {
            if topic.name.ends_with(TOPIC_SUFFIX) || self.ends_with_dead_letter(&topic)? {
                topics.push(topic);
            }
        }
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    fn ends_with_dead_letter(&self, topic: &Topic) -> Result<bool, Error> {
        for id in &topic.partitions {
            let mut is_dead_letter = false;
            let end = self.log.end(*id)?;
            if end > self.log.earliest(*id)? {
                self.walk(*id, end - 1, |_, message| {
                    is_dead_letter = dead_letter::is_dead_letter(message);
                    false
                })?;
            }
            if is_dead_letter {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Shows `see` the messages of a partition, the newest first, until it says false. True: it has
    /// seen all.
    fn backwards(
        &self,
        id: PartitionId,
        budget: &mut Budget,
        mut see: impl FnMut(u64, &MessageRef<'_>) -> bool,
    ) -> Result<bool, Error> {
        let earliest = self.log.earliest(id)?;
        let mut upper = self.log.end(id)?;
        while upper > earliest {
            let lower = upper.saturating_sub(WINDOW.min(budget.0)).max(earliest);
            if lower == upper {
                return Ok(false);
            }
            budget.0 -= upper - lower;
            let chunks = self.window(id, lower, upper)?;
            for chunk in chunks.iter().rev() {
                let messages: Vec<_> = chunk
                    .iter_from(lower)
                    .filter(|(offset, ..)| *offset < upper)
                    .collect();
                for (offset, _, message) in messages.iter().rev() {
                    if !see(*offset, message) {
                        return Ok(false);
                    }
                }
            }
            upper = lower;
        }
        Ok(true)
    }

    fn window(
        &self,
        id: PartitionId,
        lower: u64,
        upper: u64,
    ) -> Result<Vec<crate::connector::embedded::Chunk>, Error> {
        let mut chunks = Vec::new();
        let mut next = lower;
        while next < upper {
            let Some(chunk) = self.log.read(id, next)? else {
                break;
            };
            next = chunk.end_offset();
            chunks.push(chunk);
        }
        Ok(chunks)
    }
}

fn fits(letter: &DeadLetter, filter: &DeadLetterFilter) -> bool {
    let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
    is(&filter.pipeline, &letter.pipeline) && is(&filter.reason, &letter.reason)
}
