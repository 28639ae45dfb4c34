//! What a duplicate comes to: nothing, or what its first delivery published once more (§7.1, §8.2). Pure. Not
//! here: whether it is one (`admit`).

use crate::config::valid::OnDuplicate;
use crate::connector::Connector;
use crate::idempotency::completion::{Completion, Status};
use crate::message::MessageRef;
use crate::pipeline::admit::original;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::judge::answer_to;
use crate::pipeline::reply;
use crate::pipeline::run::{Clock, Entry, Worker};
use crate::pipeline::settlement::Target;
use crate::pipeline::stored;

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// The outcome of its first delivery stands: nothing, or the stored outputs again (§7.1).
    pub(super) fn duplicate(&mut self, entry: &Entry, completion: &Completion) {
        let replay = self
            .plan
            .idempotency
            .as_ref()
            .is_some_and(|policy| policy.on_duplicate == OnDuplicate::Replay);
        let mut published = false;
        if let Some(outputs) = &completion.outputs
            && completion.status == Status::Completed
        {
            for (name, record) in stored::iter(outputs) {
                if name == reply::OUTPUT {
                    self.answer_again(entry, record);
                    published = true;
                } else if replay && let Some(output) = self.plan.output(name) {
                    // An output that the configuration no longer has is not published again.
                    let target = output.target;
                    published = true;
                    if self.fits(target, record.len()) {
                        self.settlement.publish_record(target, record);
                        self.counts.publish(target);
                    }
                }
            }
        }
        if published || replay && completion.outputs.is_some() {
            self.counts.replayed += 1;
        } else {
            self.counts.skipped += 1;
        }
        self.conclude_letter(entry);
        self.finish(entry);
    }

    /// A duplicate is answered from the record of the first (§8.2): where it asks for it, under its own
    /// correlation ID.
    fn answer_again(&mut self, entry: &Entry, record: &[u8]) {
        let partition = self.partitions.get(entry.delivery.partition as usize);
        let message = partition.and_then(|partition| partition.window.message(&entry.delivery));
        let (Some(message), Ok((stored, _))) = (message, MessageRef::read_record(record)) else {
            return;
        };
        let message = original(message, entry);
        let correlation_id = entry.correlation.text(&message.headers);
        match answer_to(&self.plan, &mut self.connector, &message) {
            Ok(target) => {
                let bytes_max = self.connector.record_bytes_max(usize::from(target));
                match reply::again(&stored, &message, correlation_id, &mut self.headers) {
                    Some(answer) if answer.record_len() <= bytes_max => {
                        self.settlement.publish(target, &answer);
                    }
                    _ => self.counts.fault("output_too_large"),
                }
            }
            Err(why) => self.counts.drop_reply(why),
        }
    }

    /// The topic may take less than when the output was published first.
    fn fits(&mut self, target: Target, bytes: usize) -> bool {
        let bytes_max = self.connector.record_bytes_max(usize::from(target));
        let fits = bytes <= bytes_max;
        if !fits {
            self.counts.fault("output_too_large");
            tracing::warn!(
                pipeline = %self.plan.pipeline,
                bytes,
                bytes_max,
                "a stored output is larger than its topic accepts by now, and is not published again"
            );
        }
        fits
    }
}
