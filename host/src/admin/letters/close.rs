//! Closing dead letters by hand: `resolve` (nothing is left to do) and `purge` (given up). Nothing is
//! deleted: retention of the dead letter topic removes the bytes. Each request does a bounded part in
//! one commit, with its audit entry.

use std::time::Duration;

use super::decode::{self, View};
use super::list::Found;
use super::scan::Place;
use super::state::{self, Lookup};
use super::wire::{CloseReply, CloseRequest, DeadLetterFilter, LetterState, StateFilter};
use crate::admin::console::Console;
use crate::admin::error::{Code, Error};
use crate::connector::embedded::{Commit, Write};
use crate::pipeline::letter_state::{Record, State};

/// Dead letters closed by one request.
pub const CLOSE_MAX: usize = 5_000;
/// How long a change waits for its fsync.
pub(super) const COMMIT_TIME_MAX: Duration = Duration::from_secs(30);

/// What is done to a letter by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Resolve,
    Purge,
}

impl Verb {
    const fn target(self) -> State {
        match self {
            Self::Resolve => State::Resolved,
            Self::Purge => State::Discarded,
        }
    }

    const fn command(self) -> &'static str {
        match self {
            Self::Resolve => "dlq resolve",
            Self::Purge => "dlq purge",
        }
    }

    /// A letter on its way back is decided by what comes of it; one that is done or discarded stays so.
    const fn is_possible(self, from: &LetterState) -> bool {
        match from.state {
            State::New => true,
            State::Redriving => from.lost,
            State::Resolved => matches!(self, Self::Purge),
            State::Done | State::Discarded => false,
        }
    }
}

/// The writes of one request.
struct Closing<'r> {
    verb: Verb,
    who: &'r str,
    note: Option<&'r str>,
    at_ms: i64,
    writes: Vec<Write>,
    left: Vec<String>,
}

impl Closing<'_> {
    fn close(&mut self, letter: &View<'_>) {
        let record = Record::new(self.verb.target(), self.at_ms, self.who, self.note);
        let id = letter.id.unwrap_or_default();
        self.writes.push(state::write(id, letter.round(), &record));
    }
}

impl Console {
    /// Closes the dead letters that are named, or up to [`CLOSE_MAX`] that fit; durable on return.
    pub fn close_dead_letters(
        &self,
        verb: Verb,
        request: &CloseRequest,
        who: &str,
    ) -> Result<CloseReply, Error> {
        let selection = &request.selection;
        selection.check()?;
        let mut change = self.letters.change()?;
        let mut closing = Closing {
            verb,
            who,
            note: request.note.as_deref(),
            at_ms: self.now_ms(),
            writes: Vec::new(),
            left: Vec::new(),
        };
        let (more, back_to_ms) = if selection.ids.is_empty() {
            self.close_fitting(&selection.filter, &mut closing)?
        } else {
            for found in self.find(&selection.ids)? {
                self.close_named(&found, &mut closing)?;
            }
            (false, None)
        };
        let Closing { writes, left, .. } = closing;
        let closed = writes.len() as u64;
        if closed > 0 {
            let target = format!("{closed}: {}", selection.described());
            let mut commit = Commit {
                writes,
                ..Commit::default()
            };
            let note = request.note.as_deref();
            let audit = self.audit.writes(who, verb.command(), &target, note)?;
            commit.writes.extend(audit);
            change.commit(&self.log, commit)?;
        }
        Ok(CloseReply {
            closed,
            left,
            more,
            back_to_ms,
        })
    }

    fn close_fitting(
        &self,
        filter: &DeadLetterFilter,
        closing: &mut Closing<'_>,
    ) -> Result<(bool, Option<i64>), Error> {
        if !matches!(filter.state, StateFilter::New | StateFilter::Resolved) {
            return Err(Error::new(
                Code::Invalid,
                "only new and resolved dead letters are closed by a filter",
                "name others by their IDs",
            ));
        }
        let scanned = self.each_fitting(filter, |_, letter, state| {
            if closing.verb.is_possible(&state) {
                if closing.writes.len() == CLOSE_MAX {
                    return Ok(false);
                }
                closing.close(letter);
            }
            Ok(true)
        })?;
        Ok((scanned.more, scanned.back_to_ms))
    }

    fn close_named(&self, found: &Found, closing: &mut Closing<'_>) -> Result<(), Error> {
        let mut lookup = Lookup::new(self);
        self.letter_at(found, |place: &Place<'_>, letter| {
            let state = lookup.state(letter)?;
            if closing.verb.is_possible(&state) {
                closing.close(letter);
            } else {
                let at = decode::place(&place.topic.name, place.partition, place.offset);
                closing.left.push(format!("{at}: {}", state.state.as_str()));
            }
            Ok(())
        })
    }

    /// Shows `see` a dead letter that was found; nothing when retention has taken it meanwhile.
    pub(super) fn letter_at(
        &self,
        found: &Found,
        mut see: impl FnMut(&Place<'_>, &View<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let topic = self.known_topic(&found.topic)?;
        let id = self.known_partition(&topic, found.partition)?;
        let mut seen = Ok(());
        self.walk(id, found.offset, |offset, message| {
            if offset == found.offset
                && let Some(letter) = View::read(message)
            {
                let place = Place {
                    topic: &topic,
                    partition: found.partition,
                    id,
                    offset,
                };
                seen = see(&place, &letter);
            }
            false
        })?;
        seen
    }
}
