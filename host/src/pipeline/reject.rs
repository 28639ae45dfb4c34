//! Messages that an operator gives up by hand: found where they wait, and dead-lettered when their turn
//! comes, without another call and whether or not a dependency is down. Pure. Not here: who may do that
//! (`admin`).

use std::sync::atomic::{AtomicBool, Ordering as Memory};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::connector::Connector;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::lane::{LaneKey, Until};
use crate::pipeline::run::{Clock, Worker};
use crate::pipeline::window::Delivery;

/// Messages of a pipeline that wait for their worker to look, and those of a worker whose turn has not come.
pub const REJECTS_MAX: usize = 64;

/// A message that an operator gives up.
#[derive(Debug)]
pub struct Reject {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    pub note: String,
    /// Told what the worker found.
    pub found: SyncSender<Found>,
}

/// What a worker says to a reject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It becomes a dead letter when its turn comes.
    Held,
    NotHeld,
    /// Too many wait for their turn already.
    TooMany,
}

/// Rejects on their way to the workers of a pipeline.
#[derive(Debug, Default)]
pub struct Rejects {
    any: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    rejects: Vec<(u64, Reject)>,
}

impl Rejects {
    /// By what it can be withdrawn; `None` when too many wait already.
    pub fn add(&self, reject: Reject) -> Option<u64> {
        let mut waiting = self.waiting();
        if waiting.rejects.len() >= REJECTS_MAX {
            return None;
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.rejects.push((number, reject));
        self.any.store(true, Memory::SeqCst);
        Some(number)
    }

    /// True when no worker has looked at it, and none will.
    pub fn withdraw(&self, number: u64) -> bool {
        let mut waiting = self.waiting();
        let before = waiting.rejects.len();
        waiting.rejects.retain(|(other, _)| *other != number);
        waiting.rejects.len() < before
    }

    /// Those that `is_own` takes.
    fn take(&self, is_own: impl Fn(&Reject) -> bool) -> Vec<Reject> {
        if !self.any.load(Memory::Relaxed) {
            return Vec::new();
        }
        let mut waiting = self.waiting();
        let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut waiting.rejects)
            .into_iter()
            .partition(|(_, reject)| is_own(reject));
        self.any.store(!others.is_empty(), Memory::SeqCst);
        waiting.rejects = others;
        own.into_iter().map(|(_, reject)| reject).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message whose turn has not come.
#[derive(Debug)]
pub(super) struct GivenUp {
    partition: u32,
    offset: u64,
    lane: LaneKey,
    note: String,
}

impl GivenUp {
    fn is(&self, delivery: &Delivery) -> bool {
        self.partition == delivery.partition && self.offset == delivery.offset
    }
}

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// Messages that an operator gives up: those that wait in a lane become due.
    pub(super) fn take_rejects(&mut self) {
        let rejects = self
            .control
            .rejects
            .take(|reject| self.place_of(reject).is_some());
        for reject in rejects {
            let Some(index) = self.place_of(&reject) else {
                continue;
            };
            let found = self.give_up(index, reject.offset, reject.note);
            if reject.found.send(found).is_err() {
                tracing::debug!("nobody waits for the answer to a reject any more");
            }
        }
    }

    fn give_up(&mut self, index: usize, offset: u64, note: String) -> Found {
        let partition = index as u32;
        let known = self
            .given_up
            .iter_mut()
            .find(|one| one.partition == partition && one.offset == offset);
        if let Some(known) = known {
            known.note = note;
            return Found::Held;
        }
        let is_it =
            |delivery: &Delivery| delivery.partition == partition && delivery.offset == offset;
        let single = self.singles.iter().map(|entry| entry.delivery).find(is_it);
        self.unpark(index, offset);
        let lane = match single {
            Some(delivery) => Some(self.lane(&delivery)),
            None => {
                let mut waiting = self.lanes.iter();
                waiting
                    .find(|(_, delivery)| is_it(delivery))
                    .map(|(lane, _)| lane)
            }
        };
        let Some(lane) = lane else {
            return Found::NotHeld;
        };
        if self.given_up.len() >= REJECTS_MAX {
            return Found::TooMany;
        }
        self.given_up.push(GivenUp {
            partition,
            offset,
            lane,
            note,
        });
        // What stands before it in its lane keeps its wait; an acknowledgement is waited for.
        let is_next = self.lanes.next_of(lane).is_some_and(is_it);
        if is_next && self.lanes.until(lane) != Some(Until::Ack) {
            self.lanes.release(lane);
        }
        Found::Held
    }

    fn place_of(&self, reject: &Reject) -> Option<usize> {
        self.partitions.iter().position(|partition| {
            let topic = self.plan.topics.get(usize::from(partition.topic));
            partition.number == reject.partition
                && topic.is_some_and(|topic| topic.name == reject.topic)
        })
    }

    /// The note of the operator who gave this one up.
    pub(super) fn note(&self, delivery: &Delivery) -> Option<String> {
        if self.given_up.is_empty() {
            return None;
        }
        let found = self.given_up.iter().find(|one| one.is(delivery))?;
        Some(found.note.clone())
    }

    /// It is finished, whatever became of it.
    pub(super) fn forget_note(&mut self, delivery: &Delivery) {
        if !self.given_up.is_empty() {
            self.given_up.retain(|one| !one.is(delivery));
        }
    }

    /// Something can be done for them although nothing may be called.
    pub(super) fn gives_up(&self) -> bool {
        !self.given_up.is_empty() && self.singles.is_empty()
    }

    /// Only messages that were given up, and whose turn it is: they are not called.
    pub(super) fn collect_given_up(&mut self) {
        if !self.gives_up() {
            return;
        }
        self.failed.clear();
        let lanes: Vec<LaneKey> = self.given_up.iter().map(|one| one.lane).collect();
        for lane in lanes {
            if self.is_given_up_next(lane)
                && let Some(delivery) = self.lanes.pop_ready(lane)
            {
                self.enter(lane, delivery);
            }
        }
        if self.entries.is_empty() {
            self.lanes.call_finished();
        }
    }

    /// The lane need not wait: its next message is not called.
    pub(super) fn is_given_up_next(&self, lane: LaneKey) -> bool {
        if self.given_up.is_empty() {
            return false;
        }
        let next = self.lanes.next_of(lane);
        next.is_some_and(|delivery| self.given_up.iter().any(|one| one.is(delivery)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::sync_channel;

    fn reject(offset: u64) -> Reject {
        Reject {
            topic: "in".to_owned(),
            partition: 0,
            offset,
            note: String::new(),
            found: sync_channel(1).0,
        }
    }

    #[test]
    fn what_no_worker_looked_at_can_be_withdrawn_and_is_then_never_carried_out() {
        let rejects = Rejects::default();
        let (first, second) = (
            rejects.add(reject(1)).unwrap(),
            rejects.add(reject(2)).unwrap(),
        );
        assert!(rejects.withdraw(first));
        assert!(!rejects.withdraw(first));
        assert!(rejects.take(|reject| reject.offset == 1).is_empty());
        assert_eq!(rejects.take(|_| true).len(), 1);
        assert!(!rejects.withdraw(second), "its worker answers");
    }

    #[test]
    fn rejects_max_bounds_those_that_wait_and_withdrawn_ones_make_room() {
        let rejects = Rejects::default();
        let added: Vec<u64> = (0..REJECTS_MAX as u64)
            .map(|offset| rejects.add(reject(offset)).unwrap())
            .collect();
        assert!(rejects.add(reject(1_000)).is_none());
        assert!(rejects.withdraw(added[3]));
        assert!(rejects.add(reject(1_000)).is_some());
    }
}
