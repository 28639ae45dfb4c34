//! Judge: what each delivery of a call came to, in order, and what follows from it. The one `match` on
//! a verdict in the whole host is here.

use crate::config::valid::{Delivery as Guarantee, OnDeadLetter, OnDuplicate, RetryMode};
use crate::connector::Connector;
use crate::expression::Expression;
use crate::faults;
use crate::idempotency::completion::{Completion, Status};
use crate::message::{HEADERS_MAX, MessageRef};
use crate::pipeline::admit::original;
use crate::pipeline::answer::{NO_HEADERS, answer_to};
use crate::pipeline::counts::Observer;
use crate::pipeline::dead_letter;
use crate::pipeline::handler::Handler;
use crate::pipeline::lane::Until;
use crate::pipeline::output::{self, Made};
use crate::pipeline::plan::PlanOutput;
use crate::pipeline::reply;
use crate::pipeline::run::{Clock, Entry, Halt, Work, Worker};
use crate::pipeline::settlement::{CompletionWrite, LetterWrite, StateWrite};
use crate::pipeline::stored;
use crate::pipeline::verdict::{Reason, Report, Verdict, judge};
use crate::plugin::frame::{Outcome, Outcomes, OutputIter};
use crate::plugin::{Fault, FaultKind, RESULT_BYTES_MAX};

/// What a call came to.
pub(super) enum Called {
    /// There was nothing to call.
    Nothing,
    Answered(Outcomes),
    /// The only message of the frame is at fault.
    Faulted(Fault),
}

/// Why outputs that the guest returned cannot be published.
struct Unpublishable {
    kind: &'static str,
    message: String,
}

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// Judges the deliveries of a call, in order. After a lane's first non-success its later results in
    /// the call are discarded and not charged (§2.3).
    pub(super) fn judge(&mut self, called: &Called) -> Result<(), Halt> {
        let mut entries = std::mem::take(&mut self.entries);
        let mut results = match called {
            Called::Answered(outcomes) => Some(outcomes.iter()),
            Called::Nothing | Called::Faulted(_) => None,
        };
        for entry in entries.drain(..) {
            let outcome = match (&entry.work, called) {
                (
                    Work::Duplicate(_)
                    | Work::Filtered
                    | Work::Expired
                    | Work::Stale
                    | Work::Refuse(..),
                    _,
                ) => None,
                (Work::Call, Called::Faulted(fault)) => Some(Outcome::OverLimit(fault.clone())),
                (Work::Call, _) => results.as_mut().and_then(Iterator::next),
            };
            if self.waits_for_its_lane(&entry) {
                continue;
            }
            self.judge_one(&entry, outcome)?;
        }
        self.entries = entries;
        self.lanes.call_finished();
        faults::point("judged");
        Ok(())
    }

    /// A message of its lane failed before it in this call: it goes back, uncharged.
    fn waits_for_its_lane(&mut self, entry: &Entry) -> bool {
        if self.failed.is_empty() {
            return false;
        }
        let lane = self.lane(&entry.delivery);
        let waits = self.failed.contains(&lane);
        if waits {
            self.put_back(lane, entry);
        }
        waits
    }

    fn judge_one(&mut self, entry: &Entry, outcome: Option<Outcome<'_>>) -> Result<(), Halt> {
        self.judged_from = self.settlement.mark();
        match (&entry.work, outcome) {
            (Work::Duplicate(completion), _) => {
                self.duplicate(entry, completion);
                Ok(())
            }
            (Work::Filtered | Work::Expired, _) => {
                match entry.work {
                    Work::Expired => self.counts.expired += 1,
                    _ => self.counts.filtered += 1,
                }
                self.conclude_letter(entry);
                self.finish(entry);
                Ok(())
            }
            (Work::Stale, _) => {
                self.counts.stale += 1;
                self.conclude_letter(entry);
                self.finish(entry);
                Ok(())
            }
            (Work::Refuse(reason, error), _) => self.conclude(
                entry,
                &Report::Refused {
                    reason: *reason,
                    error,
                },
            ),
            (Work::Call, Some(Outcome::Outputs(outputs))) => match self.publish(entry, outputs) {
                Ok(()) => self.conclude(entry, &Report::Success),
                Err(bad) if bad.kind == Reason::ExpressionFailed.as_str() => self.conclude(
                    entry,
                    &Report::Refused {
                        reason: Reason::ExpressionFailed,
                        error: &bad.message,
                    },
                ),
                Err(bad) => {
                    self.counts.fault(bad.kind);
                    self.conclude(
                        entry,
                        &Report::Fault {
                            kind: bad.kind,
                            message: &bad.message,
                        },
                    )
                }
            },
            (Work::Call, Some(Outcome::Retryable { reason, after })) => {
                self.conclude(entry, &Report::Retryable { reason, after })
            }
            (Work::Call, Some(Outcome::Rejected { reason })) => {
                self.conclude(entry, &Report::Rejected { reason })
            }
            (Work::Call, Some(Outcome::OverLimit(fault))) => {
                self.counts.fault(fault.kind.as_str());
                self.conclude(entry, &report_of(&fault))
            }
            // `Outcomes` holds one result for each message, so this is a defect of the host.
            (Work::Call, None) => Err(Halt(
                "a call returned fewer results than messages; please report this".to_owned(),
            )),
        }
    }

    /// From report to consequence.
    fn conclude(&mut self, entry: &Entry, report: &Report<'_>) -> Result<(), Halt> {
        let attempt = entry.delivery.attempts + 1;
        let first = self.first_failed_ms(entry);
        let now = self.unix_ms;
        let tracing = self.trace_attempt(entry, report);
        let random = match (report, self.plan.retry.mode) {
            (Report::Success, _) => 0.0,
            // The ladder is the backoff without jitter.
            (_, RetryMode::Deferred) => 1.0,
            (_, RetryMode::Inline) => self.clock.random(),
        };
        let outage = self.tells_an_outage(entry, report);
        match judge(
            report,
            attempt,
            first,
            &self.plan.retry,
            self.plan.delivery,
            outage,
            now,
            random,
        ) {
            Verdict::Ack => self.ack(entry),
            Verdict::RetryAt { delay } => self.try_again(entry, report, delay, now),
            Verdict::DeadLetter { reason } => self.dead_letter(entry, report, reason, now),
            Verdict::Discard => self.discard(entry, report),
            Verdict::Wait { delay } => self.wait(entry, report, delay.as_millis() as i64),
            Verdict::Halt => return Err(Halt(report.error().to_owned())),
        }
        self.trace_consequences(tracing);
        Ok(())
    }

    pub(super) fn first_failed_ms(&self, entry: &Entry) -> Option<i64> {
        if entry.delivery.attempts == 0 {
            return None;
        }
        let returned = entry.returned.as_ref();
        if let Some(first) = returned.and_then(|returned| returned.first_failed_at_ms) {
            return Some(first);
        }
        let partition = self.partitions.get(entry.delivery.partition as usize)?;
        partition
            .offsets
            .attempt(entry.delivery.offset)
            .map(|attempt| attempt.first_failed_at_ms)
    }

    fn ack(&mut self, entry: &Entry) {
        self.counts.succeeded += 1;
        if self.plan.has_state {
            let partition = self.state_partition(entry);
            let ticket = self.tickets + 1;
            for write in self.handler.take_state_writes() {
                if let Some(overlay) = &self.overlay {
                    overlay.put(partition, &write.key, write.value.clone(), ticket);
                }
                self.settlement.write_state(StateWrite {
                    partition,
                    key: write.key,
                    value: write.value,
                });
            }
        }
        self.complete(entry, Status::Completed);
        self.conclude_letter(entry);
        self.finish(entry);
    }

    pub(super) fn retry(&mut self, entry: &Entry, report: &Report<'_>, delay_ms: u64, now_ms: i64) {
        self.counts.retries += 1;
        let attempt = entry.delivery.attempts + 1;
        self.log_failure(
            entry,
            report,
            "the attempt failed; it will be tried again",
            Some(delay_ms),
        );
        self.handler.discard();
        if let Some(partition) = self.partitions.get_mut(entry.delivery.partition as usize) {
            partition
                .offsets
                .fail(entry.delivery.offset, attempt, now_ms, report.error());
            partition.dirty = true;
        }
        let lane = self.lane(&entry.delivery);
        let mut delivery = entry.delivery;
        delivery.attempts = attempt;
        self.release_claim(entry);
        self.lanes.hold(lane, Until::Ack);
        self.lanes.insert(lane, delivery);
        self.failed.push(lane);
        self.after.backoffs.push((lane, delay_ms));
    }

    /// Not the message's doing: it waits with its lane, uncharged.
    fn wait(&mut self, entry: &Entry, report: &Report<'_>, delay_ms: i64) {
        self.log_failure(
            entry,
            report,
            match report {
                Report::HostFailure { .. } => "the host could not do its part; the message waits",
                _ => "a dependency seems to be down; the message waits and is not charged",
            },
            // Until the outage is over, and nobody knows when that is.
            matches!(report, Report::HostFailure { .. }).then_some(delay_ms as u64),
        );
        self.handler.discard();
        let delivery = entry.delivery;
        if self.is_suspect(delivery.partition as usize, delivery.offset)
            && let Some(partition) = self.partitions.get_mut(delivery.partition as usize)
        {
            // The mark from before the call stands for an attempt that was none.
            partition.offsets.fail(
                delivery.offset,
                delivery.attempts,
                self.unix_ms,
                report.error(),
            );
            partition.dirty = true;
        }
        let lane = self.lane(&entry.delivery);
        let due = self.now_ms() + delay_ms;
        self.lanes.hold(lane, Until::Time(due));
        self.release_claim(entry);
        let mut delivery = entry.delivery;
        delivery.has_waited = true;
        self.lanes.insert(lane, delivery);
        self.failed.push(lane);
    }

    pub(super) fn dead_letter(
        &mut self,
        entry: &Entry,
        report: &Report<'_>,
        reason: Reason,
        now_ms: i64,
    ) {
        self.counts.dead_letter(reason);
        if reason == Reason::IdempotencyConflict {
            self.counts.conflicts += 1;
        }
        self.log_failure(entry, report, dead_letter::LOGGED, None);
        self.handler.discard();
        self.write_dead_letter(entry, report, reason, now_ms);
        faults::point("dead_letter_built");
        self.complete(entry, Status::Failed);
        self.conclude_letter(entry);
        let lane = self.lane(&entry.delivery);
        if self.plan.ordering.on_dead_letter == OnDeadLetter::BlockLane {
            self.lanes.hold(lane, Until::Ack);
            self.after.unblock.push(lane);
        }
        self.failed.push(lane);
        self.finish(entry);
    }

    fn write_dead_letter(
        &mut self,
        entry: &Entry,
        report: &Report<'_>,
        reason: Reason,
        now_ms: i64,
    ) {
        let first_failed_at_ms = self.first_failed_ms(entry).unwrap_or(now_ms);
        let delivery = &entry.delivery;
        let Some(partition) = self.partitions.get(delivery.partition as usize) else {
            return;
        };
        let Some(message) = partition.window.message(delivery) else {
            return;
        };
        let message = original(message, entry);
        let topics = &self.plan.topics;
        let Some(read_from) = topics.get(usize::from(partition.topic)) else {
            return;
        };
        let origin = match entry.returned {
            Some(_) => read_from.origin(partition.topic),
            None => partition.topic,
        };
        let Some(topic) = topics.get(usize::from(origin)) else {
            return;
        };
        let refused = matches!(entry.work, Work::Refuse(..));
        let letter = dead_letter::DeadLetter {
            reason,
            error: report.error(),
            attempts: if refused {
                delivery.attempts
            } else {
                delivery.attempts + 1
            },
            first_failed_at_ms,
            last_failed_at_ms: now_ms,
            origin_topic: &topic.name,
            origin_partition: partition.number,
            origin_offset: entry.offset(),
            group: &self.plan.consumer_group,
            pipeline: &self.plan.pipeline,
            plugin_digest: &self.plan.plugin_digest,
            redrive_count: entry.returned.as_ref().map_or(0, |r| r.redrive_count),
            correlation_id: entry.correlation.text(&message.headers),
        };
        let record = match letter.record(&message, &mut self.headers) {
            Some(record) => record,
            // Nobody can publish such a message any more; one may be there from before.
            None => {
                tracing::warn!(
                    place = %self.origin_place(entry),
                    headers = message.headers.count(),
                    "the message has too many headers for a dead letter: its last ones are left out of that"
                );
                letter.cut(&message, &mut self.headers)
            }
        };
        self.settlement.publish(topic.dead_letter, &record);
        self.counts.publish(topic.dead_letter);
        self.settlement.letters.push(LetterWrite {
            id: letter.id(),
            redrive_count: letter.redrive_count,
            record: None,
        });
    }

    fn discard(&mut self, entry: &Entry, report: &Report<'_>) {
        self.counts.discarded += 1;
        self.log_failure(
            entry,
            report,
            "discarded: the pipeline delivers at most once",
            None,
        );
        self.handler.discard();
        self.complete(entry, Status::Failed);
        self.finish(entry);
    }

    /// Turns the claim of a finished delivery into a record of the settlement.
    fn complete(&mut self, entry: &Entry, status: Status) {
        let (Some(claims), Some(policy)) = (&self.claims, &self.plan.idempotency) else {
            return;
        };
        let Some(claim) = &entry.claim else {
            // Called without, or refused for that.
            let is_missing = match entry.work {
                Work::Call | Work::Refuse(Reason::NoIdempotencyKey, _) => true,
                Work::Refuse(..)
                | Work::Duplicate(_)
                | Work::Filtered
                | Work::Stale
                | Work::Expired => false,
            };
            self.counts.missing += u64::from(is_missing);
            return;
        };
        let expires_at_ms = self.unix_ms.saturating_add(policy.ttl.as_millis() as i64);
        let keeps = policy.on_duplicate == OnDuplicate::Replay || !self.stored.is_empty();
        let outputs =
            (keeps && status == Status::Completed).then(|| std::mem::take(&mut self.stored));
        let completion = Completion {
            fingerprint: claim.fingerprint,
            status,
            expires_at_ms,
            outputs,
        };
        let mut value = Vec::new();
        completion.encode(&mut value);
        self.counts.claimed += 1;
        // A claim of this process can only be stale when the worker was told to stop; then nothing is settled.
        if claims.complete(claim.hash, claim.fence, completion).is_ok() {
            self.settlement.complete(CompletionWrite {
                hash: claim.hash,
                expires_at_ms,
                value,
            });
            self.after.completed.push((claim.hash, claim.fence));
        }
    }

    pub(super) fn finish(&mut self, entry: &Entry) {
        self.settlement.count_delivery();
        self.finish_number(entry);
        self.forget_note(&entry.delivery);
        if let Some(partition) = self.partitions.get_mut(entry.delivery.partition as usize) {
            if self.plan.delivery != Guarantee::AtMostOnce {
                partition.offsets.finish(entry.delivery.offset);
            }
            partition.dirty = true;
            partition.window.release(&entry.delivery);
        }
    }

    /// All of a message's outputs, or none.
    fn publish(&mut self, entry: &Entry, outputs: OutputIter<'_>) -> Result<(), Unpublishable> {
        let Self {
            partitions,
            plan,
            settlement,
            headers,
            connector,
            counts,
            stored,
            drops,
            unix_ms,
            ..
        } = self;
        stored.clear();
        let policy = plan.idempotency.as_ref();
        let store_all = policy.is_some_and(|policy| policy.on_duplicate == OnDuplicate::Replay);
        let Some(message) = partitions
            .get(entry.delivery.partition as usize)
            .and_then(|partition| partition.window.message(&entry.delivery))
        else {
            return Ok(());
        };
        let message = original(message, entry);
        let correlation_id = entry.correlation.text(&message.headers);
        let mark = settlement.mark();
        let mut bytes = 0;
        for output in outputs {
            let is_reply = output.name == reply::OUTPUT;
            let is_kept = store_all || is_reply && policy.is_some();
            let (target, rule, made) = if is_reply {
                let target = match answer_to(plan, connector, &message) {
                    Ok(target) => Some(target),
                    Err(why) => {
                        counts.drop_reply(why);
                        drops.log(plan, why, correlation_id, *unix_ms);
                        // A duplicate may ask for it where it can be given.
                        if !is_kept {
                            continue;
                        }
                        None
                    }
                };
                (target, &NO_HEADERS, reply::made(&message))
            } else {
                let Some(known) = plan.output(output.name) else {
                    settlement.rollback(mark);
                    return Err(unknown_output(output.name, plan));
                };
                match made(known, &message) {
                    Ok(made) => (Some(known.target), &known.rule, made),
                    Err(why) => {
                        settlement.rollback(mark);
                        return Err(why);
                    }
                }
            };
            let built = output::build(&output, &message, correlation_id, rule, &made, headers);
            let bytes_max = target.map_or(RESULT_BYTES_MAX, |target| {
                connector.record_bytes_max(usize::from(target))
            });
            let Some(record) = built else {
                settlement.rollback(mark);
                return Err(Unpublishable {
                    kind: "output_too_large",
                    message: format!(
                        "an output for `{}` has more than {HEADERS_MAX} headers, or one with a name of more than 65,535 bytes",
                        output.name
                    ),
                });
            };
            if record.record_len() > bytes_max {
                settlement.rollback(mark);
                return Err(Unpublishable {
                    kind: "output_too_large",
                    message: format!(
                        "an output for `{}` is larger than its topic accepts ({bytes_max} bytes with headers)",
                        output.name
                    ),
                });
            }
            bytes += record.record_len();
            if bytes > RESULT_BYTES_MAX {
                settlement.rollback(mark);
                return Err(Unpublishable {
                    kind: FaultKind::OutputLimit.as_str(),
                    message: format!(
                        "the outputs of one message are more than {RESULT_BYTES_MAX} bytes with what they inherit"
                    ),
                });
            }
            if is_kept {
                stored::push(stored, output.name, &record);
            }
            if let Some(target) = target {
                settlement.publish(target, &record);
            }
        }
        for publish in settlement.published_since(mark) {
            counts.publish(publish.target);
        }
        Ok(())
    }

    pub(super) fn log_failure(
        &self,
        entry: &Entry,
        report: &Report<'_>,
        what: &str,
        delay_ms: Option<u64>,
    ) {
        let Some(partition) = self.partitions.get(entry.delivery.partition as usize) else {
            return;
        };
        let Some(message) = partition.window.message(&entry.delivery) else {
            return;
        };
        tracing::warn!(
            pipeline = %self.plan.pipeline,
            correlation_id = entry.correlation.text(&message.headers),
            place = %self.origin_place(entry),
            attempt = entry.delivery.attempts + 1,
            error = report.error(),
            delay_ms,
            "{what}"
        );
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

fn report_of(fault: &Fault) -> Report<'_> {
    let message = fault.message.as_str();
    match fault.kind {
        FaultKind::Instantiation => Report::NoInstance { message },
        kind if kind.is_host() => Report::HostFailure { message },
        kind => Report::Fault {
            kind: kind.as_str(),
            message,
        },
    }
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
