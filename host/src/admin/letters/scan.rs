//! Walking dead letter topics: which there are, their letters newest first over all partitions, bounded
//! in messages and time, past blocks in which nothing is open. Not here: which letters are meant.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::decode::{TOPIC_SUFFIX, View};
use super::state::BLOCK;
use super::wire::DeadLetterFilter;
use crate::admin::console::Console;
use crate::admin::error::Error;
use crate::connector::embedded::{Chunk, PartitionId, Topic};

/// Messages that one question may be told to look at.
pub const SCAN_MESSAGES_MAX: u64 = 5_000_000;
/// How long a question looks when it was not told how many messages to look at.
pub const SCAN_TIME: Duration = Duration::from_millis(500);
/// How long it looks at most, far below the limit of a request.
const SCAN_TIME_MAX: Duration = Duration::from_secs(40);
/// Messages read of a partition at a time, backwards; the first look takes fewer.
const WINDOW_MAX: u64 = 512;
const WINDOW_FIRST: u64 = 16;
/// Messages between two looks at the clock.
const CLOCK_EVERY: u64 = 64;

/// What may still be looked at.
pub(super) struct Budget {
    messages: u64,
    until: Instant,
    looked_at: u64,
}

impl Budget {
    /// As the filter asks.
    pub(super) fn of(filter: &DeadLetterFilter) -> Self {
        let (messages, time) = match filter.scan {
            Some(messages) => (messages.min(SCAN_MESSAGES_MAX), SCAN_TIME_MAX),
            None => (SCAN_MESSAGES_MAX, SCAN_TIME),
        };
        Self {
            messages,
            until: Instant::now() + time,
            looked_at: 0,
        }
    }

    pub(super) const fn looked_at(&self) -> u64 {
        self.looked_at
    }

    fn spend(&mut self) -> bool {
        if self.looked_at >= self.messages {
            return false;
        }
        if self.looked_at.is_multiple_of(CLOCK_EVERY) && Instant::now() >= self.until {
            return false;
        }
        self.looked_at += 1;
        true
    }
}

/// What was seen in a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing is left to do about it.
    Closed,
    /// Open, or not looked at closely enough to know.
    Other,
    /// The same; it was not taken any more, and no further one will be.
    Last,
}

/// Where a letter lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) topic: &'a Topic,
    pub(super) partition: u32,
    pub(super) id: PartitionId,
    pub(super) offset: u64,
}

/// How a walk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Walked {
    pub(super) whole: bool,
    /// The time of the last message shown.
    pub(super) back_to_ms: Option<i64>,
}

/// One partition, walked backwards.
struct Cursor {
    topic: Arc<Topic>,
    partition: u32,
    id: PartitionId,
    lower: u64,
    earliest: u64,
    /// What lies below is not loaded.
    upper: u64,
    window: u64,
    /// Ascending; the last is the next.
    heads: Vec<Head>,
    block: BlockSeen,
}

struct Head {
    offset: u64,
    timestamp_ms: i64,
    chunk: Chunk,
    at: usize,
}

/// What was seen of the block that is walked.
#[derive(Clone, Copy)]
struct BlockSeen {
    number: u64,
    /// From its last offset on, and everything closed.
    closed: bool,
}

impl Console {
    /// Shows dead letters of the topics, the newest first, within the time range of the filter.
    pub(super) fn newest_letters(
        &self,
        topics: &[Arc<Topic>],
        filter: &DeadLetterFilter,
        past_closed: bool,
        budget: &mut Budget,
        mut see: impl FnMut(&Place<'_>, &View<'_>) -> Result<Seen, Error>,
    ) -> Result<Walked, Error> {
        let opened = self.letters.opened();
        let mut closed = Vec::new();
        let mut walked = Walked {
            whole: true,
            back_to_ms: None,
        };
        let mut cursors = self.cursors(topics, filter)?;
        // By the time of its newest message that was not shown.
        let mut order = BinaryHeap::new();
        for (index, cursor) in cursors.iter_mut().enumerate() {
            self.load(cursor, past_closed, &mut closed)?;
            order.extend(cursor.newest_ms().map(|at| (at, index)));
        }
        while let Some((_, index)) = order.pop() {
            let Some(cursor) = cursors.get_mut(index) else {
                break;
            };
            let Some(head) = cursor.heads.pop() else {
                break;
            };
            if !budget.spend() {
                walked.whole = false;
                break;
            }
            walked.back_to_ms = Some(head.timestamp_ms);
            let seen = match head.chunk.message_at(head.at) {
                Some((message, _)) => match View::read(&message) {
                    Some(letter) => see(&cursor.place(head.offset), &letter)?,
                    None => Seen::Closed,
                },
                None => Seen::Other,
            };
            cursor.block.closed &= seen == Seen::Closed;
            self.load(cursor, past_closed, &mut closed)?;
            order.extend(cursor.newest_ms().map(|at| (at, index)));
            if seen == Seen::Last {
                walked.whole = false;
                break;
            }
        }
        self.mark_closed(&closed, opened);
        Ok(walked)
    }

    fn cursors(
        &self,
        topics: &[Arc<Topic>],
        filter: &DeadLetterFilter,
    ) -> Result<Vec<Cursor>, Error> {
        let mut cursors = Vec::new();
        for topic in topics {
            for (partition, id) in (0..).zip(&topic.partitions) {
                let earliest = self.log.earliest(*id)?;
                let mut lower = earliest;
                let mut upper = self.log.end(*id)?;
                if let Some(from) = filter.from_ms {
                    lower = lower.max(self.log.offset_at(*id, from)?);
                }
                if let Some(until) = filter.until_ms {
                    upper = upper.min(self.log.offset_at(*id, until.saturating_add(1))?);
                }
                if lower < upper {
                    cursors.push(Cursor {
                        topic: Arc::clone(topic),
                        partition,
                        id: *id,
                        lower,
                        earliest,
                        upper,
                        window: WINDOW_FIRST,
                        heads: Vec::new(),
                        block: BlockSeen::entered(upper),
                    });
                }
            }
        }
        Ok(cursors)
    }

    /// Loads the messages before those that were shown, if there are any; notes blocks that are done.
    fn load(
        &self,
        cursor: &mut Cursor,
        past_closed: bool,
        closed: &mut Vec<(PartitionId, u64)>,
    ) -> Result<(), Error> {
        if past_closed && cursor.has_left_a_closed_block() {
            closed.push((cursor.id, cursor.block.number));
            cursor.block.closed = false;
        }
        while cursor.heads.is_empty() && cursor.upper > cursor.lower {
            if cursor.upper.is_multiple_of(BLOCK) {
                cursor.block = BlockSeen::entered(cursor.upper);
            }
            let block_start = cursor.block.number * BLOCK;
            if past_closed && self.is_block_closed(cursor.id, cursor.block.number)? {
                cursor.upper = block_start.max(cursor.lower);
                continue;
            }
            let lower = cursor
                .upper
                .saturating_sub(cursor.window)
                .max(block_start)
                .max(cursor.lower);
            cursor.window = (cursor.window * 2).min(WINDOW_MAX);
            self.load_window(cursor, lower)?;
            cursor.upper = lower;
        }
        Ok(())
    }

    fn load_window(&self, cursor: &mut Cursor, lower: u64) -> Result<(), Error> {
        let mut next = lower;
        while next < cursor.upper {
            let Some(chunk) = self.log.read(cursor.id, next)? else {
                break;
            };
            for (offset, at, message) in chunk.iter_from(next) {
                if offset >= cursor.upper {
                    break;
                }
                cursor.heads.push(Head {
                    offset,
                    timestamp_ms: message.timestamp_ms,
                    chunk: chunk.clone(),
                    at,
                });
            }
            next = chunk.end_offset();
        }
        Ok(())
    }

    /// The topic named, or those that end as dead letter topics do and those whose newest message is
    /// a dead letter (`dead_letter.topic` may have named them anything).
    pub(super) fn holding_topics(&self, named: Option<&str>) -> Result<Vec<Arc<Topic>>, Error> {
        if let Some(name) = named {
            return Ok(vec![self.known_topic(name)?]);
        }
        let mut topics = Vec::new();
        for topic in self.log.topics() {
            if topic.spec.internal {
                continue;
            }
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
                    is_dead_letter = View::read(message).is_some();
                    false
                })?;
            }
            if is_dead_letter {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Cursor {
    fn newest_ms(&self) -> Option<i64> {
        self.heads.last().map(|head| head.timestamp_ms)
    }

    fn has_left_a_closed_block(&self) -> bool {
        let start = (self.block.number * BLOCK).max(self.earliest);
        self.heads.is_empty() && self.block.closed && self.upper <= start
    }

    fn place(&self, offset: u64) -> Place<'_> {
        Place {
            topic: &self.topic,
            partition: self.partition,
            id: self.id,
            offset,
        }
    }
}

impl BlockSeen {
    /// Of the block that ends at `upper` or holds it.
    const fn entered(upper: u64) -> Self {
        Self {
            number: upper.saturating_sub(1) / BLOCK,
            closed: upper.is_multiple_of(BLOCK),
        }
    }
}
