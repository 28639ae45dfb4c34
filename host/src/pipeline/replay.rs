//! What a duplicate comes to: nothing, or what its first delivery published once more (§7.1). Pure. Not
//! here: whether it is one (`deduplicate`), and the answer it gets (`answer`).

use crate::config::valid::OnDuplicate;
use crate::connector::Connector;
use crate::idempotency::completion::{Completion, Status};
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
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
                    published |= self.answer_again(entry, record);
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
