//! One message in full: the message, and what the host knows of it. Not here: the walk to it.

use super::decode::View;
use super::wire::{MessageFacts, MessageGroup, ReturnedFacts};
use crate::admin::console::{Console, message};
use crate::admin::error::{Code, Error};
use crate::connector::embedded::Topic;
use crate::pipeline::dead_letter;
use crate::pipeline::offsets::Progress;
use crate::pipeline::returned::Returned;

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
                dead_letter_id,
                group,
            });
        }
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        Ok(groups)
    }
}

fn shown(returned: Returned) -> ReturnedFacts {
    ReturnedFacts {
        origin: super::decode::place(
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
