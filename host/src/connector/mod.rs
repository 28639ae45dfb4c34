//! Poll, settle, commit: one folder per kind of broker. What the worker needs of a connector is the
//! trait below; connectors never import each other and know nothing of handlers.

pub mod embedded;

use std::time::Duration;

use crate::message::MessageRef;
use crate::pipeline::settlement::{Settlement, Target};

/// A settlement that was handed on. Tickets of one worker rise by one and are acknowledged in order.
pub type Ticket = u64;

/// Consecutive messages of one partition, owned, cheap to hold.
pub trait Messages {
    /// The first message at or after `offset`: its offset, its place, and the place after it.
    fn seek(&self, offset: u64) -> Option<u64>;
    /// The message at `place` (from [`Messages::seek`] or a previous [`Next::next`]).
    fn message(&self, place: u64) -> Option<Next<'_>>;
    /// Bytes held in memory.
    fn bytes(&self) -> usize;
}

/// A message and where the one after it starts.
#[derive(Debug, Clone, Copy)]
pub struct Next<'a> {
    pub offset: u64,
    pub message: MessageRef<'a>,
    /// The place of the next message; past the last it gives `None` when asked for.
    pub next: u64,
}

/// Why a read gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Retention removed what was asked for.
    #[error("offset {asked} is lost: the partition now begins at {earliest}")]
    Lost { asked: u64, earliest: u64 },
    /// It may work later.
    #[error("{0}")]
    Transient(String),
    /// It needs a person.
    #[error("{0}")]
    Fatal(String),
}

/// Why a settlement could not be handed on or will never be acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SettleError(pub String);

/// One worker's view of a broker: the partitions it owns (by their index in its list), and a way to
/// make settlements durable in the order in which they were handed on.
pub trait Connector {
    type Messages: Messages;

    /// Messages from `from` on; `None` at the end of the partition.
    fn read(&mut self, partition: usize, from: u64) -> Result<Option<Self::Messages>, ReadError>;

    /// Next offset to be written.
    fn end(&self, partition: usize) -> u64;

    /// The target for answers to a topic that is there and not internal (§8.1); the same one each time.
    fn reply_target(&mut self, topic: &str) -> Option<Target>;

    /// Largest record (key, payload, headers, 28 bytes) that `target` accepts.
    fn record_bytes_max(&self, target: usize) -> usize;

    /// Hands a settlement on and empties it. May wait while too much is in flight.
    fn settle(&mut self, settlement: &mut Settlement) -> Result<Ticket, SettleError>;

    /// The highest ticket that is durable (0 before the first).
    fn settled(&mut self) -> Result<Ticket, SettleError>;

    /// Returns when something may have changed (new messages, a settlement) or after `timeout`.
    fn wait(&mut self, timeout: Duration);
}
