//! One message in full: the message, and what the host knows of it. Not here: the walk to it.

use super::decode::{self, View};
use super::wire::{DeadLetterFilter, MessageFacts, MessageGroup, ReturnedFacts, StateFilter};
use crate::admin::console::{Console, message};
use crate::admin::error::{Code, Error};
use crate::connector::embedded::Topic;
use crate::pipeline::dead_letter;
use crate::pipeline::offsets::Progress;
use crate::pipeline::returned::Returned;

/// Dead letters that are looked at for those of one message.
const LOOK_FOR_LETTERS: u64 = 50_000;

impl Console {
    /// The message at a place, and where it stands with each consumer group of its topic.
    pub fn message_facts(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
    ) -> Result<MessageFacts, Error> {
        let topic = self.known_topic(topic)?;
        let id = self.known_partition(&topic, partition)?;
        let mut found = None;
        if offset >= self.log.earliest(id)? {
            self.walk(id, offset, |at, seen| {
                if at == offset {
                    let (returned, own) = match Returned::read(seen) {
                        Ok((returned, own)) if topic.spec.internal => (Some(returned), own),
                        _ => (None, *seen),
                    };
                    found = Some((
                        message(&topic.name, partition, at, &own),
                        returned.map(shown),
                        View::read(&own).is_some(),
                    ));
                }
                false
            })?;
        }
        let Some((message, returned, is_letter)) = found else {
            return Err(Error::new(
                Code::UnknownMessage,
                format!("there is no message at {}/{partition}@{offset}", topic.name),
                format!(
                    "`wasmill topics describe {}` shows the offsets there are",
                    topic.name
                ),
            ));
        };
        let dead_letter = if is_letter {
            Some(Box::new(self.dead_letter_at(
                &topic.name,
                partition,
                offset,
            )?))
        } else {
            None
        };
        Ok(MessageFacts {
            message,
            dead_letter,
            returned,
            groups: self.message_groups(&topic, partition, offset)?,
        })
    }

    fn message_groups(
        &self,
        topic: &Topic,
        partition: u32,
        offset: u64,
    ) -> Result<Vec<MessageGroup>, Error> {
        let id = self.known_partition(topic, partition)?;
        let mut groups = Vec::new();
        for (group_id, group) in self.log.groups() {
            let Some(bytes) = self.log.progress(group_id, id)? else {
                continue;
            };
            let progress = Progress::decode(&bytes).map_err(|why| {
                Error::new(
                    Code::StoreUnavailable,
                    format!("the progress of the group {group} cannot be read: {why}"),
                    "it was written by a newer wasmill, or the store is damaged",
                )
            })?;
            let finished = offset < progress.committed
                || progress.completed.iter().any(|run| run.contains(&offset));
            let failed = progress
                .attempts
                .iter()
                .find(|one| one.offset == offset && !finished);
            let dead_letter_id = dead_letter::id(&group, &topic.name, partition, offset);
            groups.push(MessageGroup {
                finished,
                failed_attempts: failed.map_or(0, |failed| failed.count),
                last_error: failed.map(|failed| failed.error.clone()),
                rounds: self.rounds(&dead_letter_id)?,
                dead_letter: None,
                dead_letter_id,
                group,
            });
        }
        self.find_letters(&mut groups)?;
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }
}

impl Console {
    /// Looks among the newest dead letters for those of a message.
    fn find_letters(&self, groups: &mut [MessageGroup]) -> Result<(), Error> {
        let mut left = groups.iter().filter(|group| group.finished).count();
        if left == 0 {
            return Ok(());
        }
        let filter = DeadLetterFilter {
            state: StateFilter::All,
            scan: Some(LOOK_FOR_LETTERS),
            ..DeadLetterFilter::default()
        };
        self.each_fitting(&filter, |place, letter, _| {
            let id = letter.id.unwrap_or_default();
            let of = groups
                .iter_mut()
                .find(|group| group.dead_letter_id == id && group.dead_letter.is_none());
            if let Some(group) = of {
                let at = decode::place(&place.topic.name, place.partition, place.offset);
                group.dead_letter = Some(at);
                left -= usize::from(group.finished);
            }
            Ok(left > 0)
        })?;
        Ok(())
    }
}

fn shown(returned: Returned) -> ReturnedFacts {
    ReturnedFacts {
        origin: decode::place(
            &returned.origin_topic,
            returned.origin_partition,
            returned.origin_offset,
        ),
        attempts: returned.attempts,
        due_ms: returned.due_ms,
        first_failed_at_ms: returned.first_failed_at_ms,
        redrive_count: returned.redrive_count,
        dead_letter_id: returned.dead_letter_id,
    }
}
