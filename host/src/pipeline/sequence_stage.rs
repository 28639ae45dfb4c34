//! The stage of sequence numbers (§4.5): between filter and idempotency. What it decides with is
//! `sequence`.

use crate::config::valid::Stale;
use crate::connector::Connector;
use crate::expression::Expression;
use crate::message::MessageRef;
use crate::pipeline::admit::{Looked, Stage};
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::run::{Clock, Entry, Work, Worker};
use crate::pipeline::sequence::{Number, SequenceKey, Standing};
use crate::pipeline::settlement::SequenceWrite;
use crate::pipeline::verdict::Reason;
use crate::pipeline::window::Delivery;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_seed};

/// Sets messages without a key, which share a lane, apart from those whose key is empty.
const NO_KEY_SEED: u64 = 1;

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// The message's number, when its turn has come or is over; else what becomes of it. `goes`: whatever is
    /// missing before it.
    pub(super) fn in_sequence(
        &self,
        delivery: &Delivery,
        looked: &Looked<'_>,
        goes: bool,
    ) -> Result<Option<Number>, Stage> {
        let Some(policy) = &self.plan.sequence else {
            return Ok(None);
        };
        if looked.returned.is_some() {
            // Its number was passed over when it became a dead letter, and somebody wants it processed now; or it
            // was put aside when there were no numbers yet.
            return Ok(None);
        }
        let Some(key) = self.sequence_key(delivery, &looked.message) else {
            return Ok(None);
        };
        let value = match integer(&policy.number, &looked.message) {
            Ok(value) => value,
            Err(why) => {
                let error = format!("sequence `{}`: {why}", policy.number.source());
                let work = self
                    .undecodable(&looked.message)
                    .unwrap_or(Work::Refuse(Reason::ExpressionFailed, error));
                return Err(Stage::Enter(work, None));
            }
        };
        let number = Number { key, value };
        let mut sequences = self.sequences.borrow_mut();
        if sequences.needs(key) {
            let stored = self.numbers.as_ref().map(|numbers| numbers.last(key));
            match stored.transpose() {
                Ok(last) => sequences.learn(key, last.flatten()),
                Err(why) => return Err(Stage::Later(why)),
            }
        }
        let id = (delivery.partition, delivery.offset);
        match sequences.standing(number, id, delivery.attempts > 0) {
            Standing::Next => Ok(Some(number)),
            // Given up by hand, which says nothing of those before it: they keep their turn.
            Standing::Gap { .. } if goes => Ok(None),
            Standing::Gap { .. } => Err(Stage::Gap(number)),
            Standing::Stale { last } => Err(Stage::Stale(
                number,
                match policy.stale {
                    Stale::Skip => Work::Stale,
                    Stale::DeadLetter => Work::Refuse(
                        Reason::StaleSequence,
                        format!("number {value} came after number {last} of this key"),
                    ),
                },
            )),
        }
    }

    /// `None`: nobody comes before it.
    fn sequence_key(&self, delivery: &Delivery, message: &MessageRef<'_>) -> Option<SequenceKey> {
        use crate::config::valid::NullKey;
        let hash = match (message.key, self.plan.ordering.null_key) {
            (Some(key), _) => xxh3_128(key),
            (None, NullKey::Partition) => xxh3_128_with_seed(b"", NO_KEY_SEED),
            (None, NullKey::None) => return None,
        };
        let partition = self.partitions.get(delivery.partition as usize)?;
        Some(SequenceKey {
            partition: partition.origin,
            hash,
        })
    }

    /// The message waits outside its lane, so that the one that is missing can pass it.
    pub(super) fn wait_for_number(&mut self, number: Number, delivery: Delivery) {
        let timeout = self.plan.sequence.as_ref().map(|policy| policy.gap_timeout);
        let timeout_ms = timeout.map_or(0, |timeout| timeout.as_millis());
        let end_ms = self
            .now_ms()
            .saturating_add(i64::try_from(timeout_ms).unwrap_or(i64::MAX));
        let id = (delivery.partition, delivery.offset);
        self.sequences.get_mut().park(number, id, delivery, end_ms);
    }

    /// Lets those go whose missing number did not come in time; whether there were any. Not before everything
    /// was read that was there when the time was over.
    pub(super) fn give_up_gaps(&mut self) -> bool {
        if self.plan.sequence.is_none() {
            return false;
        }
        let now_ms = self.now_ms();
        let mut freed = Vec::new();
        let mut sequences = self.sequences.take();
        let may_go = |delivery: &Delivery, read_to: &mut Option<u64>| {
            let index = delivery.partition as usize;
            let end = *read_to.get_or_insert_with(|| self.connector.end(index));
            !self.lanes.blocks(self.lane(delivery)) && self.has_read(index, end)
        };
        sequences.give_up(now_ms, may_go, &mut freed);
        self.sequences.replace(sequences);
        let any = !freed.is_empty();
        for (number, delivery) in freed {
            self.counts.gaps += 1;
            tracing::warn!(
                pipeline = %self.plan.pipeline,
                place = %format!("{}@{}", self.place(delivery.partition as usize), delivery.offset),
                number = number.value,
                "numbers before this one did not come in time; the key goes on without them"
            );
            self.lanes.insert(self.lane(&delivery), delivery);
        }
        any
    }

    /// Everything before `end` was taken from the partition, or no more can be until something is finished.
    fn has_read(&self, index: usize, end: u64) -> bool {
        let Some(partition) = self.partitions.get(index) else {
            return true;
        };
        let (window, offsets) = (self.plan.window, &partition.offsets);
        let is_full = offsets.unfinished() >= u64::from(window.messages)
            || offsets.room() == 0
            || partition.window.bytes() as u64 >= window.bytes;
        offsets.position() >= end || is_full || !self.control.reads()
    }

    /// The message is finished: its number becomes durable with it, and who waited for it goes on.
    pub(super) fn finish_number(&mut self, entry: &Entry) {
        if self.plan.sequence.is_none() {
            return;
        }
        let delivery = &entry.delivery;
        let id = (delivery.partition, delivery.offset);
        let Some(number) = entry.number else {
            self.sequences.get_mut().finish_without(id);
            return;
        };
        let mut freed = Vec::new();
        let ticket = self.tickets + 1;
        let sequences = self.sequences.get_mut();
        if let Some(last) = sequences.finish(number, id, ticket, &mut freed) {
            self.settlement.write_number(SequenceWrite {
                key: number.key,
                last,
            });
        }
        for delivery in freed {
            self.lanes.insert(self.lane(&delivery), delivery);
        }
    }

    /// A message that waits for a number stands in its lane again.
    pub(super) fn unpark(&mut self, index: usize, offset: u64) {
        let id = (index as u32, offset);
        if let Some(delivery) = self.sequences.get_mut().unpark(id) {
            self.lanes.insert(self.lane(&delivery), delivery);
        }
    }
}

fn integer(expression: &Expression, message: &MessageRef<'_>) -> Result<i64, String> {
    let mut scratch = Vec::new();
    let value = expression
        .evaluate(message, &mut scratch)
        .map_err(|error| error.to_string())?;
    value
        .integer()
        .ok_or_else(|| "the result is no integer of 64 bits; `int(…)` makes one of text".to_owned())
}
