//! Settle: hand finished deliveries on, and act when they are durable. Also what must be durable
//! before a call (§3.3, §4.4), the drain, and what the worker shows of itself.

use crate::config::valid::Delivery as Guarantee;
use crate::connector::Connector;
use crate::faults;
use crate::pipeline::admit::STOPPED_DURING;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::lane::Until;
use crate::pipeline::offsets::Progress;
use crate::pipeline::plan::Role;
use crate::pipeline::run::{
    Clock, Entry, Halt, IDLE, SETTLEMENT_BYTES_MAX, SETTLEMENT_DELIVERIES_MAX,
    SETTLEMENTS_IN_FLIGHT_MAX, Sent, Work, Worker,
};
use crate::pipeline::settlement::ProgressWrite;
use crate::pipeline::snapshot::{Holder, PartitionSnapshot, WaitsFor};
use crate::pipeline::trace::Times;
use crate::plugin::LogLevel;

/// How often the worker's snapshot is renewed.
const OBSERVE_NS: u64 = 100_000_000;
/// Bytes of a key that `status` shows.
const KEY_SHOWN: usize = 128;

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// One settlement at once when none is in flight, larger ones while the disk is busy.
    pub(super) fn submit_when_due(&mut self, worked: bool) -> Result<(), Halt> {
        if !self.has_unsettled() {
            return Ok(());
        }
        let large = self.settlement.bytes() >= SETTLEMENT_BYTES_MAX
            || self.settlement.deliveries() >= SETTLEMENT_DELIVERIES_MAX;
        let room = self.in_flight.len() < SETTLEMENTS_IN_FLIGHT_MAX;
        if self.in_flight.is_empty() || (room && (large || !worked)) {
            self.submit()?;
        }
        Ok(())
    }

    fn submit(&mut self) -> Result<(), Halt> {
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            if partition.dirty {
                partition.dirty = false;
                self.after
                    .committed
                    .push((index, partition.offsets.committed()));
                let mut value = Vec::new();
                if faults::mutant("commit_past_unfinished") {
                    let committed = partition.offsets.position();
                    Progress {
                        committed,
                        ..Progress::default()
                    }
                    .encode(&mut value);
                } else {
                    partition.offsets.encode_progress(&mut value);
                }
                self.settlement.progress.push(ProgressWrite {
                    partition: index as u32,
                    value,
                });
            }
        }
        faults::point("before_submit");
        if faults::mutant("dead_letter_after_commit") {
            return self.submit_dead_letters_last();
        }
        self.hand_on()
    }

    /// The mutant's way: what says that the deliveries are finished is durable first.
    fn submit_dead_letters_last(&mut self) -> Result<(), Halt> {
        let plan = std::sync::Arc::clone(&self.plan);
        let is_letter = |target| plan.topics.iter().any(|topic| topic.dead_letter == target);
        let mut letters = self.settlement.split_off(is_letter);
        self.hand_on()?;
        if letters.publishes().is_empty() {
            return Ok(());
        }
        while self.connector.settled().map_err(|error| Halt(error.0))? < self.tickets {
            self.connector.wait(IDLE);
        }
        faults::point("before_late_dead_letters");
        std::mem::swap(&mut self.settlement, &mut letters);
        self.hand_on()
    }

    fn hand_on(&mut self) -> Result<(), Halt> {
        let after = std::mem::take(&mut self.after);
        let at_ns = self.clock.monotonic_ns();
        let ticket = self
            .connector
            .settle(&mut self.settlement)
            .map_err(|error| Halt(error.0))?;
        self.tickets = ticket;
        self.in_flight.push_back(Sent {
            ticket,
            at_ns,
            after,
        });
        Ok(())
    }

    /// Acts on what became durable.
    pub(super) fn acknowledge(&mut self) -> Result<(), Halt> {
        if self.in_flight.is_empty() {
            return Ok(());
        }
        let settled = self.connector.settled().map_err(|error| Halt(error.0))?;
        if let Some(overlay) = &self.overlay {
            overlay.prune(settled);
        }
        self.sequences.get_mut().prune(settled);
        while self
            .in_flight
            .front()
            .is_some_and(|sent| sent.ticket <= settled)
        {
            let Some(sent) = self.in_flight.pop_front() else {
                break;
            };
            faults::point("acknowledged");
            let now_ns = self.clock.monotonic_ns();
            self.counts
                .settlements
                .push(now_ns.saturating_sub(sent.at_ns));
            if let Some(claims) = &self.claims {
                for (hash, fence) in sent.after.completed {
                    claims.durable(hash, fence);
                }
            }
            for (index, committed) in sent.after.committed {
                if let Some(partition) = self.partitions.get_mut(index) {
                    partition.settled = committed;
                }
            }
            for (lane, delay_ms) in sent.after.backoffs {
                if self.is_given_up_next(lane) {
                    self.lanes.release(lane);
                    continue;
                }
                self.lanes
                    .hold(lane, Until::Time((now_ns / 1_000_000 + delay_ms) as i64));
            }
            for lane in sent.after.unblock {
                self.lanes.release(lane);
            }
            if !sent.after.told.is_empty() {
                let times = Times {
                    begun_ns: sent.at_ns,
                    ended_ns: now_ns,
                    now_ns,
                };
                self.observer.settled(&sent.after.told, times);
            }
        }
        Ok(())
    }

    /// What must be durable before the handler sees the messages.
    pub(super) fn mark_before_the_call(&mut self) -> Result<(), Halt> {
        if self.plan.delivery == Guarantee::AtMostOnce {
            for entry in &self.entries {
                if let Some(partition) = self.partitions.get_mut(entry.delivery.partition as usize)
                {
                    partition.offsets.finish(entry.delivery.offset);
                    partition.dirty = true;
                }
            }
            return self.settle_and_wait();
        }
        if !self.calls_a_suspect() {
            return Ok(());
        }
        let Some(delivery) = self.entries.first().map(|entry| entry.delivery) else {
            return Ok(());
        };
        let now = self.unix_ms;
        if let Some(partition) = self.partitions.get_mut(delivery.partition as usize) {
            partition
                .offsets
                .fail(delivery.offset, delivery.attempts + 1, now, STOPPED_DURING);
            partition.dirty = true;
        }
        self.settle_and_wait()
    }

    /// The next call is of a delivery that may have killed an earlier host.
    pub(super) fn calls_a_suspect(&self) -> bool {
        self.entries.first().is_some_and(|entry| {
            let delivery = &entry.delivery;
            matches!(entry.work, Work::Call)
                && self.is_suspect(delivery.partition as usize, delivery.offset)
        })
    }

    pub(super) fn settle_and_wait(&mut self) -> Result<(), Halt> {
        self.submit()?;
        while !self.in_flight.is_empty() && !self.control.aborted() {
            self.connector.wait(IDLE);
            self.acknowledge()?;
            // A store that is slow or failing must not hide what waits for it.
            self.observe(true);
        }
        Ok(())
    }

    /// True when nothing that was called is left unsettled.
    pub(super) fn drained(&mut self) -> Result<bool, Halt> {
        if self.has_unsettled() && self.in_flight.len() < SETTLEMENTS_IN_FLIGHT_MAX {
            self.submit()?;
        }
        Ok(!self.has_unsettled() && self.in_flight.is_empty())
    }

    fn has_unsettled(&self) -> bool {
        !self.settlement.is_empty() || self.partitions.iter().any(|partition| partition.dirty)
    }

    /// Guest log lines go to the host's log under the correlation ID of the message they are about.
    pub(super) fn forward_logs(&mut self) {
        for line in self.handler.take_logs() {
            let entry = line.about.and_then(|about| {
                let mut called = self
                    .entries
                    .iter()
                    .filter(|entry| matches!(entry.work, Work::Call));
                called.nth(about as usize)
            });
            let message = entry.and_then(|entry| {
                let partition = self.partitions.get(entry.delivery.partition as usize)?;
                partition.window.message(&entry.delivery)
            });
            let headers = message.map(|message| message.headers).unwrap_or_default();
            let correlation_id = entry.map(|entry| entry.correlation.text(&headers));
            let offset = entry.map(Entry::offset);
            let (pipeline, text) = (self.plan.pipeline.as_str(), line.text.as_str());
            match line.level {
                LogLevel::Debug => {
                    tracing::debug!(target: "guest", pipeline, correlation_id, offset, "{text}")
                }
                LogLevel::Info => {
                    tracing::info!(target: "guest", pipeline, correlation_id, offset, "{text}")
                }
                LogLevel::Warn => {
                    tracing::warn!(target: "guest", pipeline, correlation_id, offset, "{text}")
                }
                LogLevel::Error => {
                    tracing::error!(target: "guest", pipeline, correlation_id, offset, "{text}")
                }
            }
        }
    }

    /// Hands counts on after every call, and a snapshot now and then.
    pub(super) fn observe(&mut self, idle: bool) {
        self.observer.counted(&mut self.counts);
        let now = self.clock.monotonic_ns();
        if now.saturating_sub(self.observed_ns) < OBSERVE_NS && !(idle && self.observed_ns == 0) {
            return;
        }
        self.observed_ns = now;
        self.show();
    }

    pub(super) fn show(&mut self) {
        let partitions = (0..self.partitions.len())
            .filter_map(|index| self.partition_snapshot(index))
            .collect();
        let now_ms = self.now_ms();
        let outage = self
            .circuit
            .as_ref()
            .and_then(|circuit| circuit.why(now_ms));
        self.observer.looked(
            partitions,
            outage.as_deref().or(self.blocked.as_deref()),
            outage.is_some(),
            self.handler.memory_bytes(),
        );
    }

    fn partition_snapshot(&self, index: usize) -> Option<PartitionSnapshot> {
        let partition = self.partitions.get(index)?;
        let topic = self.plan.topics.get(usize::from(partition.topic))?;
        if topic.role != Role::Source && self.connector.end(index) == 0 {
            // Nothing ever came back: nobody needs to see it.
            return None;
        }
        let oldest = self
            .lanes
            .iter()
            .map(|(_, delivery)| *delivery)
            .chain(self.sequences.borrow().iter().copied())
            .filter(|delivery| delivery.partition as usize == index)
            .min();
        let oldest_message = oldest.and_then(|delivery| partition.window.message(&delivery));
        Some(PartitionSnapshot {
            topic: topic.name.clone(),
            partition: partition.number,
            committed: partition.settled,
            position: partition.offsets.position(),
            end: self.connector.end(index),
            held: partition.offsets.unfinished(),
            held_bytes: partition.window.bytes() as u64,
            oldest_unfinished_ms: oldest_message.map(|message| message.timestamp_ms),
            holder: oldest
                .filter(|d| d.offset == partition.offsets.committed())
                .and_then(|delivery| self.holder(index, &delivery)),
        })
    }

    fn holder(&self, index: usize, delivery: &super::window::Delivery) -> Option<Holder> {
        let partition = self.partitions.get(index)?;
        let looked = self.look(delivery)?;
        let attempt = partition.offsets.attempt(delivery.offset);
        let mut error = attempt.map(|attempt| attempt.error.clone());
        let id = (delivery.partition, delivery.offset);
        let missing = self.sequences.borrow().waits(id);
        let until = match missing {
            Some((number, last, end_ms)) => {
                let missing = last.saturating_add(1);
                error = Some(format!("number {number} came and {missing} is missing"));
                Some(Until::Time(end_ms))
            }
            None => self.lanes.until(self.lane(delivery)),
        };
        let (waits_for, next_try_ms) = match until {
            Some(Until::Claim) => (WaitsFor::Claim, None),
            // Whatever its backoff: nothing is tried before the circuit closes, but single probes.
            Some(Until::Time(_)) if missing.is_none() && self.is_circuit_open() => {
                (WaitsFor::Retry, None)
            }
            Some(Until::Time(due)) => (
                missing.map_or(WaitsFor::Retry, |_| WaitsFor::Sequence),
                Some(self.clock.unix_ms() + (due - self.now_ms())),
            ),
            Some(Until::Ack) => (WaitsFor::Settlement, None),
            None => (WaitsFor::Call, None),
        };
        Some(Holder {
            offset: delivery.offset,
            key: looked.message.key.map(|key| {
                String::from_utf8_lossy(key.get(..KEY_SHOWN).unwrap_or(key)).into_owned()
            }),
            correlation_id: looked.correlation.text(&looked.message.headers).to_owned(),
            waits_for,
            attempts: delivery.attempts,
            max_attempts: self.plan.retry.max_attempts.get(),
            error,
            next_try_ms,
        })
    }
}
