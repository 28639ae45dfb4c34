//! Who waits for a reply: request IDs and where their answers go. An ID is made for one request and never
//! used again, so that no reply finds another request, whatever its correlation ID. Pure but for the channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use uuid::Uuid;

/// As many wait as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The requests that wait; `T` is what they wait for.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    max: usize,
    slots: Mutex<HashMap<Uuid, oneshot::Sender<T>>>,
}

/// One request that waits, until this is dropped.
#[derive(Debug)]
pub(super) struct Slot<T> {
    id: Uuid,
    waiting: Arc<Waiting<T>>,
    pub(super) answer: oneshot::Receiver<T>,
}

impl<T> Waiting<T> {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            slots: Mutex::default(),
        })
    }

    /// Waits under an ID of its own.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Slot<T>, Full> {
        let id = Uuid::now_v7();
        let (sender, answer) = oneshot::channel();
        let mut slots = self.slots();
        if slots.len() >= self.max {
            return Err(Full);
        }
        slots.insert(id, sender);
        drop(slots);
        Ok(Slot {
            id,
            waiting: Arc::clone(self),
            answer,
        })
    }

    /// Hands the answer to the request with this ID. False when nobody waits for it: it is late, the
    /// second one, or of another life of the host.
    pub(super) fn answer(&self, id: Uuid, answer: T) -> bool {
        let slot = self.slots().remove(&id);
        slot.is_some_and(|slot| slot.send(answer).is_ok())
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<T>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Slot<T> {
    pub(super) const fn id(&self) -> Uuid {
        self.id
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        self.waiting.slots().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// §8.3
    #[test]
    fn an_answer_reaches_its_request_and_no_other() {
        let waiting = Waiting::new(8);
        let mut slots: Vec<_> = (0..8).map(|_| waiting.enter().unwrap()).collect();
        for (n, slot) in slots.iter().enumerate().rev() {
            assert!(waiting.answer(slot.id(), n));
        }
        for (n, slot) in slots.iter_mut().enumerate() {
            assert_eq!(slot.answer.try_recv(), Ok(n));
        }
    }

    #[test]
    fn a_late_a_second_and_a_foreign_answer_reach_nobody() {
        let waiting = Waiting::new(2);
        let gone = waiting.enter().unwrap();
        let late = gone.id();
        drop(gone);
        let mut next = waiting.enter().unwrap();
        assert!(!waiting.answer(late, 1));
        assert!(!waiting.answer(Uuid::now_v7(), 1));
        assert!(next.answer.try_recv().is_err());
        assert!(waiting.answer(next.id(), 2));
        assert!(!waiting.answer(next.id(), 3));
        assert_eq!(next.answer.try_recv(), Ok(2));
    }

    #[test]
    fn waiting_max_bounds_who_waits_and_who_left_makes_room() {
        let waiting = Waiting::<()>::new(2);
        let (_one, two) = (waiting.enter().unwrap(), waiting.enter().unwrap());
        assert_eq!(waiting.enter().err(), Some(Full));
        drop(two);
        let three = waiting.enter().unwrap();
        assert!(waiting.answer(three.id(), ()));
        assert!(waiting.enter().is_ok(), "who has its answer takes no room");
    }
}
