//! What one partition has read and not finished: the messages themselves (held as the connector gave
//! them, never copied) and where reading goes on. Bounded in messages by the offsets, in bytes here. Pure.

use crate::connector::{Messages, Next};
use crate::message::MessageRef;

/// Where a delivery's message lies, and how often it has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delivery {
    /// Index in the worker's list of partitions.
    pub partition: u32,
    pub offset: u64,
    slot: u32,
    place: u64,
    /// Attempts that failed before.
    pub attempts: u32,
    /// One failed without being charged.
    pub has_waited: bool,
}

#[derive(Debug)]
struct Loaded<M> {
    messages: M,
    /// Deliveries that still need it, and one more while reading goes on in it.
    live: u32,
}

/// The messages of one partition in memory.
#[derive(Debug)]
pub struct Window<M> {
    slots: Vec<Option<Loaded<M>>>,
    free: Vec<u32>,
    bytes: usize,
    cursor: Option<(u32, u64)>,
}

impl<M> Default for Window<M> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            cursor: None,
        }
    }
}

impl<M: Messages> Window<M> {
    /// Bytes held.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// True when the next message is not in memory and a read is needed.
    #[must_use]
    pub const fn needs_read(&self) -> bool {
        self.cursor.is_none()
    }

    /// Takes messages in that contain or follow `position`.
    pub fn load(&mut self, messages: M, position: u64) {
        let Some(place) = messages.seek(position) else {
            return;
        };
        self.bytes += messages.bytes();
        let loaded = Some(Loaded { messages, live: 1 });
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(None);
                (self.slots.len() - 1) as u32
            }
        };
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            *entry = loaded;
        }
        self.cursor = Some((slot, place));
    }

    /// The next message, without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<Next<'_>> {
        let (slot, place) = self.cursor?;
        self.loaded(slot)?.messages.message(place)
    }

    /// Gives up the place at which reading goes on: the next message is read again when it is wanted.
    pub fn forget(&mut self) {
        if let Some((slot, _)) = self.cursor.take() {
            self.drop_one(slot);
        }
    }

    /// Takes the message that [`Window::peek`] showed: as a delivery when it `counts`, or passes over it.
    pub fn advance(&mut self, partition: u32, attempts: u32, counts: bool) -> Option<Delivery> {
        let (slot, place) = self.cursor?;
        let next = self.peek()?;
        let (offset, after) = (next.offset, next.next);
        let loaded = self.slots.get_mut(slot as usize)?.as_mut()?;
        let ends = loaded.messages.message(after).is_none();
        if counts {
            loaded.live += 1;
        }
        self.cursor = if ends { None } else { Some((slot, after)) };
        if ends {
            self.drop_one(slot);
        }
        counts.then_some(Delivery {
            partition,
            offset,
            slot,
            place,
            attempts,
            has_waited: false,
        })
    }

    /// The message of a delivery that was not released yet.
    #[must_use]
    pub fn message(&self, delivery: &Delivery) -> Option<MessageRef<'_>> {
        self.loaded(delivery.slot)?
            .messages
            .message(delivery.place)
            .map(|next| next.message)
    }

    /// The delivery is finished: its message is no longer needed.
    pub fn release(&mut self, delivery: &Delivery) {
        self.drop_one(delivery.slot);
    }

    fn loaded(&self, slot: u32) -> Option<&Loaded<M>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn drop_one(&mut self, slot: u32) {
        let Some(entry) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let Some(loaded) = entry else { return };
        loaded.live -= 1;
        if loaded.live == 0 {
            self.bytes -= loaded.messages.bytes();
            *entry = None;
            self.free.push(slot);
        }
    }
}
