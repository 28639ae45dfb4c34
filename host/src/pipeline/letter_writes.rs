//! What a settlement says about dead letters on their way back (§6.3), beside the message itself: over, or
//! waiting for their next attempt. Not here: the dead letter that a message becomes (`judge`).

use crate::connector::Connector;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::letter_state::{Record, State};
use crate::pipeline::run::{Clock, Entry, Worker};
use crate::pipeline::settlement::LetterWrite;

/// The note of a letter that waits for its next attempt.
const PUT_ASIDE: &str = "its attempt failed; it waits for the next one";

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// A dead letter that was sent back is done with: its message is finished, or is a dead letter anew.
    pub(super) fn conclude_letter(&mut self, entry: &Entry) {
        self.write_letter(entry, State::Done, None);
    }

    /// It left the redrive topic for the topic of a deferred retry (§5.2), and is under way all the same.
    /// Where it lies now is not in its state: having passed it in the redrive topic no longer means that
    /// it was lost.
    pub(super) fn letter_waits(&mut self, entry: &Entry) {
        self.write_letter(entry, State::Redriving, Some(PUT_ASIDE));
    }

    fn write_letter(&mut self, entry: &Entry, state: State, note: Option<&str>) {
        let Some(returned) = entry.returned.as_deref() else {
            return;
        };
        if let Some(id) = &returned.dead_letter_id {
            self.settlement.letters.push(LetterWrite {
                id: id.clone(),
                redrive_count: returned.redrive_count.saturating_sub(1),
                record: Some(Record::new(state, self.unix_ms, "host", note)),
            });
        }
    }
}
