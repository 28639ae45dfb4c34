//! From the outputs that a guest returned to the records of the settlement: those of the configuration,
//! and replies to whoever asked (§2.5, §8).

use crate::config::valid::OnDuplicate;
use crate::connector::Connector;
use crate::expression::Expression;
use crate::message::MessageRef;
use crate::pipeline::admit::original;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::output::{self, Made};
use crate::pipeline::plan::PlanOutput;
use crate::pipeline::reply::{self, Dropped};
use crate::pipeline::run::{Clock, Entry, Worker};
use crate::pipeline::stored;
use crate::pipeline::verdict::Reason;
use crate::plugin::frame::OutputIter;
use crate::plugin::{FaultKind, RESULT_BYTES_MAX};

/// Why outputs that the guest returned cannot be published.
pub(super) struct Unpublishable {
    pub kind: &'static str,
    pub message: String,
}

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// All of a message's outputs, or none.
    pub(super) fn publish(
        &mut self,
        entry: &Entry,
        outputs: OutputIter<'_>,
    ) -> Result<(), Unpublishable> {
        let mark = self.settlement.mark();
        match self.publish_each(entry, outputs) {
            Ok(dropped) => {
                for publish in self.settlement.published_since(mark) {
                    self.counts.publish(publish.target);
                }
                for why in dropped {
                    self.reply_dropped(entry, why);
                }
                Ok(())
            }
            Err(why) => {
                self.settlement.rollback(mark);
                Err(why)
            }
        }
    }

    /// Gives the replies that could not be sent.
    fn publish_each(
        &mut self,
        entry: &Entry,
        outputs: OutputIter<'_>,
    ) -> Result<Vec<Dropped>, Unpublishable> {
        let Self {
            partitions,
            plan,
            settlement,
            headers,
            connector,
            stored,
            ..
        } = self;
        stored.clear();
        let policy = plan.idempotency.as_ref();
        let store = policy.is_some_and(|policy| policy.on_duplicate == OnDuplicate::Replay);
        let mut dropped = Vec::new();
        let Some(message) = partitions
            .get(entry.delivery.partition as usize)
            .and_then(|partition| partition.window.message(&entry.delivery))
        else {
            return Ok(dropped);
        };
        let message = original(message, entry);
        let id = entry.correlation.text(&message.headers);
        let mut bytes = 0;
        for output in outputs {
            if output.name == reply::OUTPUT {
                let made = reply::made(&message.headers);
                let rule = &reply::NO_HEADERS;
                let built = output::build(&output, &message, id, rule, &made, headers);
                let record = built.ok_or_else(|| too_large(output.name, RESULT_BYTES_MAX))?;
                bytes = within_result(bytes + record.record_len())?;
                if policy.is_some() {
                    stored::push(stored, reply::OUTPUT, &record);
                }
                let sent = reply::send(
                    connector,
                    settlement,
                    &plan.reply,
                    &message.headers,
                    &record,
                );
                dropped.extend(sent.err());
                continue;
            }
            let known = plan
                .output(output.name)
                .ok_or_else(|| unknown_output(output.name, plan))?;
            let made = made(known, &message)?;
            let built = output::build(&output, &message, id, &known.rule, &made, headers);
            let bytes_max = connector.record_bytes_max(usize::from(known.target));
            let record = built
                .filter(|record| record.record_len() <= bytes_max)
                .ok_or_else(|| too_large(output.name, bytes_max))?;
            bytes = within_result(bytes + record.record_len())?;
            settlement.publish(known.target, &record);
            if store {
                stored::push(stored, &known.name, &record);
            }
        }
        Ok(dropped)
    }

    /// The replies to the first delivery, once more for a duplicate: to its own `reply-to` (§8.2).
    pub(super) fn answer_again(&mut self, entry: &Entry, outputs: &[u8]) {
        let Self {
            partitions,
            plan,
            settlement,
            headers,
            connector,
            counts,
            ..
        } = self;
        let Some(duplicate) = partitions
            .get(entry.delivery.partition as usize)
            .and_then(|partition| partition.window.message(&entry.delivery))
        else {
            return;
        };
        let duplicate = original(duplicate, entry);
        let id = entry.correlation.text(&duplicate.headers);
        let mut dropped = Vec::new();
        for (_, record) in stored::iter(outputs).filter(|(name, _)| *name == reply::OUTPUT) {
            let Ok((stored, _)) = MessageRef::read_record(record) else {
                continue;
            };
            let sent = match reply::again(&stored, &duplicate.headers, id, headers) {
                Some(answer) => reply::send(
                    connector,
                    settlement,
                    &plan.reply,
                    &duplicate.headers,
                    &answer,
                ),
                None => Err(Dropped::TooLarge),
            };
            match sent {
                Ok(target) => counts.publish(target),
                Err(why) => dropped.push(why),
            }
        }
        for why in dropped {
            self.reply_dropped(entry, why);
        }
    }

    fn reply_dropped(&mut self, entry: &Entry, why: Dropped) {
        self.counts.reply_dropped(why);
        let Some(count) = self.replies_dropped.one_more(self.clock.monotonic_ns()) else {
            return;
        };
        let partition = self.partitions.get(entry.delivery.partition as usize);
        let message = partition.and_then(|partition| partition.window.message(&entry.delivery));
        let headers = message.map(|message| message.headers).unwrap_or_default();
        tracing::warn!(
            pipeline = %self.plan.pipeline,
            correlation_id = entry.correlation.text(&headers),
            place = %self.origin_place(entry),
            reason = why.as_str(),
            count,
            "replies were dropped; the last one is named here"
        );
    }
}

fn within_result(bytes: usize) -> Result<usize, Unpublishable> {
    if bytes <= RESULT_BYTES_MAX {
        return Ok(bytes);
    }
    Err(Unpublishable {
        kind: FaultKind::OutputLimit.as_str(),
        message: format!(
            "the outputs of one message are more than {RESULT_BYTES_MAX} bytes with what they inherit"
        ),
    })
}

fn too_large(name: &str, bytes_max: usize) -> Unpublishable {
    Unpublishable {
        kind: "output_too_large",
        message: format!(
            "an output for `{name}` is larger than its topic accepts ({bytes_max} bytes with headers)"
        ),
    }
}

/// What the configuration's expressions for an output make of the input.
fn made(output: &PlanOutput, input: &MessageRef<'_>) -> Result<Made, Unpublishable> {
    let text = |what: &str, expression: &Expression| {
        expression
            .evaluate_text(input)
            .map_err(|error| Unpublishable {
                kind: Reason::ExpressionFailed.as_str(),
                message: format!(
                    "output `{}`, {what} `{}`: {error}",
                    output.name,
                    expression.source()
                ),
            })
    };
    let key = output
        .key
        .as_ref()
        .map(|key| text("key", key))
        .transpose()?;
    let mut headers = Vec::new();
    for (name, value) in &output.set_headers {
        headers.push((name.clone(), text(name, value)?));
    }
    Ok(Made { key, headers })
}

fn unknown_output(name: &str, plan: &crate::pipeline::plan::Plan) -> Unpublishable {
    let known: Vec<&str> = plan
        .outputs
        .iter()
        .map(|output| output.name.as_str())
        .collect();
    let shown: String = name.chars().take(64).collect();
    Unpublishable {
        kind: "unknown_output",
        message: format!(
            "the handler named output {shown:?}, which the pipeline does not have (it has: {}); add it under `outputs`",
            known.join(", ")
        ),
    }
}
