//! Admit and deduplicate: which deliveries make the next call. Due lanes first, then fresh messages,
//! each through the stages of §2.1 that come before the call.

use crate::config::valid::{By, Format, NullKey, OnLostOffset};
use crate::connector::{Connector, ReadError};
use crate::expression::{self, Condition};
use crate::faults;
use crate::message::MessageRef;
use crate::pipeline::correlation::Correlation;
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::lane::{LaneKey, Until, lane_of};
use crate::pipeline::offsets::Admission;
use crate::pipeline::plan::Role;
use crate::pipeline::reply;
use crate::pipeline::returned::{Returned, is_redriven};
use crate::pipeline::run::{CALL_BYTES_MAX, Claimed, Clock, Entry, Halt, PutAside, Work, Worker};
use crate::pipeline::sequence::Number;
use crate::pipeline::traced::LastRead;
use crate::pipeline::verdict::Reason;
use crate::pipeline::window::Delivery;
use crate::plugin::frame::Call;

/// After an error of the store, when reading or looking up is tried again.
const AGAIN_MS: i64 = 500;
/// The error a delivery carries while it runs in a window that may hold a host killer (§4.4).
pub(super) const STOPPED_DURING: &str = "the host stopped during this attempt";

const KEY_TOO_LONG: &str =
    "the idempotency key is longer than 65,534 bytes; use a shorter expression";

/// What the stages before the call found.
pub(super) enum Stage {
    Enter(Work, Option<Claimed>),
    /// Its number comes too late.
    Stale(Number, Work),
    /// A number before its own is missing.
    Gap(Number),
    /// Another delivery with the same idempotency key is in progress.
    Wait,
    /// A table cannot be read now.
    Later(String),
}

/// A message before its call.
pub(super) struct Looked<'m> {
    pub(super) message: MessageRef<'m>,
    /// From which it came first: the index among the plan's topics.
    pub(super) topic: u16,
    /// In that topic.
    pub(super) offset: u64,
    pub(super) correlation: Correlation,
    pub(super) returned: Option<Box<Returned>>,
    /// It lies in an internal topic and was not put there by a host.
    pub(super) unreadable: Option<String>,
}

/// What taking the next fresh message of a partition came to.
enum Taken {
    Yes,
    /// The call is full.
    Full,
    /// Nothing more here for now.
    Empty,
}

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// Fills `entries` and `batch` with the next call.
    pub(super) fn collect(&mut self) -> Result<(), Halt> {
        self.entries.clear();
        self.batch.clear();
        self.replay_bytes = 0;
        self.sequences.get_mut().next_call();
        if self.is_circuit_open() && !self.probes {
            self.collect_given_up();
            return Ok(());
        }
        if self.next_single() {
            return Ok(());
        }
        self.failed.clear();
        self.wake_claim_waiters();
        let max = self.call_messages_max();
        let Some(max) = self.within_rate(max) else {
            return Ok(());
        };
        if self.probes {
            self.collect_probe()?;
        } else {
            if !self.lanes.is_empty() {
                self.collect_due(max);
            }
            self.collect_fresh(max)?;
            // Behind what is read and the limits: what is missing may be there.
            if self.give_up_gaps() && self.entries.is_empty() {
                self.collect_due(max);
            }
        }
        self.spend_rate(max);
        if self.entries.is_empty() {
            // Lanes whose messages all turned out to wait elsewhere.
            self.lanes.call_finished();
        }
        Ok(())
    }

    /// One message of another key each time: in turn one that was not tried yet, and the one that waits
    /// longest. Keys that would fail in any case must not be all that is asked.
    fn collect_probe(&mut self) -> Result<(), Halt> {
        self.probes_fresh = !self.probes_fresh;
        if self.probes_fresh {
            self.collect_fresh(1)?;
        }
        if self.entries.is_empty() {
            if self.lanes.next_due().is_some_and(|due| due > self.now_ms()) {
                self.lanes.wake_first_timed();
            }
            self.collect_due(1);
        }
        if self.entries.is_empty() {
            self.collect_fresh(1)?;
        }
        Ok(())
    }

    /// How many messages the rate limit lets through now, of `max`; `None` for none.
    fn within_rate(&mut self, max: usize) -> Option<usize> {
        let Some(rate) = &self.rate else {
            return Some(max);
        };
        match rate.take(max as u64, self.clock.monotonic_ns()) {
            Ok(taken) => Some(taken as usize),
            Err(next_ns) => {
                self.rate_ns = next_ns;
                None
            }
        }
    }

    /// Of `taken` tokens those stay spent that messages are called for.
    fn spend_rate(&self, taken: usize) {
        if let Some(rate) = &self.rate {
            rate.give_back(taken.saturating_sub(self.batch.len()) as u64);
        }
    }

    /// The next message of a faulted call, alone. Those of a lane that failed meanwhile wait in it.
    fn next_single(&mut self) -> bool {
        while let Some(mut entry) = self.singles.pop_front() {
            let lane = self.lane(&entry.delivery);
            if self.failed.contains(&lane) {
                self.put_back(lane, &entry);
                continue;
            }
            match self.note(&entry.delivery) {
                Some(note) if matches!(entry.work, Work::Call) => {
                    entry.work = Work::Refuse(Reason::RejectedByOperator, note);
                }
                _ => self.evaluate_key_again(&entry),
            }
            self.add(entry);
            return true;
        }
        false
    }

    fn wake_claim_waiters(&mut self) {
        let Some(claims) = &self.claims else { return };
        let generation = claims.generation();
        if generation != self.claims_seen {
            self.claims_seen = generation;
            self.lanes.wake_claims();
        }
    }

    fn collect_due(&mut self, max: usize) {
        let now = self.now_ms();
        while self.entries.len() < max {
            let Some((lane, delivery)) = self.lanes.pop_due(now) else {
                return;
            };
            if !self.joins(&delivery) {
                self.lanes.insert(lane, delivery);
                return;
            }
            self.enter(lane, delivery);
        }
    }

    fn collect_fresh(&mut self, max: usize) -> Result<(), Halt> {
        let count = self.partitions.len();
        for step in 0..count {
            let index = (self.next_partition + step) % count;
            loop {
                if self.entries.len() >= max {
                    self.next_partition = (index + 1) % count;
                    return Ok(());
                }
                match self.take_fresh(index)? {
                    Taken::Yes => {}
                    Taken::Full => {
                        self.next_partition = index;
                        return Ok(());
                    }
                    Taken::Empty => break,
                }
            }
        }
        Ok(())
    }

    fn take_fresh(&mut self, index: usize) -> Result<Taken, Halt> {
        if self.is_put_aside(index) || !self.fill(index)? {
            return Ok(Taken::Empty);
        }
        let Some(before) = self.attempts_before(index) else {
            return Ok(Taken::Empty);
        };
        let Some(partition) = self.partitions.get_mut(index) else {
            return Ok(Taken::Empty);
        };
        let Some(next) = partition.window.peek() else {
            return Ok(Taken::Empty);
        };
        let (offset, bytes) = (next.offset, next.message.record_len());
        if !self.entries.is_empty() && self.call_bytes() + bytes > CALL_BYTES_MAX {
            return Ok(Taken::Full);
        }
        if !self.joins_at(index, offset) {
            return Ok(Taken::Full);
        }
        let Some(partition) = self.partitions.get_mut(index) else {
            return Ok(Taken::Empty);
        };
        let attempts = match partition.offsets.admit(offset) {
            Admission::Fresh => before,
            Admission::Again { attempts } => attempts.max(before),
            Admission::Full => return Ok(Taken::Empty),
            Admission::Done => {
                partition.window.advance(index as u32, 0, false);
                return Ok(Taken::Yes);
            }
        };
        let Some(delivery) = partition.window.advance(index as u32, attempts, true) else {
            return Ok(Taken::Empty);
        };
        if self.lanes.is_empty() {
            let lane = LaneKey::MAX;
            self.enter(lane, delivery);
            return Ok(Taken::Yes);
        }
        let lane = self.lane(&delivery);
        if self.lanes.blocks(lane) {
            self.lanes.insert(lane, delivery);
        } else {
            self.enter(lane, delivery);
        }
        Ok(Taken::Yes)
    }

    /// The head of the partition is known not to be due yet.
    fn is_put_aside(&self, index: usize) -> bool {
        let partition = self.partitions.get(index);
        let head = partition.and_then(|partition| partition.put_aside);
        head.is_some_and(|head| head.due_ms > self.now_ms())
    }

    /// Attempts of the next message before it came to this topic; `None` when it is not due yet, and then
    /// nothing of it stays in memory.
    fn attempts_before(&mut self, index: usize) -> Option<u32> {
        let now_ms = self.now_ms();
        let partition = self.partitions.get_mut(index)?;
        let topic = self.plan.topics.get(usize::from(partition.topic))?;
        if topic.role == Role::Source {
            return Some(0);
        }
        let next = partition.window.peek()?;
        let offset = next.offset;
        let (returned, _) = Returned::read(&next.message).ok().unzip();
        if let (Role::Retries { delay_ms, .. }, Some(returned)) = (topic.role, &returned)
            && partition.put_aside.is_none_or(|head| head.offset != offset)
        {
            // No longer than the topic's delay from when it is first seen, wherever the clock went.
            let left_ms = returned.due_ms.saturating_sub(self.unix_ms);
            let left_ms = left_ms.min(i64::try_from(delay_ms).unwrap_or(i64::MAX));
            if left_ms > 0 {
                partition.put_aside = Some(PutAside {
                    offset,
                    due_ms: now_ms.saturating_add(left_ms),
                });
                partition.window.forget();
                return None;
            }
        }
        Some(returned.map_or(0, |returned| returned.attempts))
    }

    /// Makes the next message of the partition available, within the window's bounds.
    fn fill(&mut self, index: usize) -> Result<bool, Halt> {
        let window = self.plan.window;
        if !self.control.reads() {
            return Ok(false);
        }
        let Some(partition) = self.partitions.get_mut(index) else {
            return Ok(false);
        };
        if partition.offsets.unfinished() >= u64::from(window.messages)
            || partition.offsets.room() == 0
        {
            return Ok(false);
        }
        if !partition.window.needs_read() {
            return Ok(true);
        }
        if partition.window.bytes() as u64 >= window.bytes {
            return Ok(false);
        }
        let position = partition.offsets.position();
        if self.connector.end(index) <= position || self.clock.monotonic_ns() < self.read_again_ns {
            return Ok(false);
        }
        let traces = self.observer.sampling().is_some();
        let begun_ns = traces.then(|| self.clock.monotonic_ns());
        match self.connector.read(index, position) {
            Ok(None) => Ok(false),
            Ok(Some(messages)) => {
                partition.last_read = begun_ns.map(|begun_ns| LastRead {
                    from_offset: position,
                    begun_ns,
                    ended_ns: self.clock.monotonic_ns(),
                    is_new: true,
                });
                self.blocked = None;
                partition.window.load(messages, position);
                Ok(!partition.window.needs_read())
            }
            Err(error) => self.read_failed(index, error),
        }
    }

    fn read_failed(&mut self, index: usize, error: ReadError) -> Result<bool, Halt> {
        let name = self.place(index);
        match error {
            ReadError::Lost { asked, earliest }
                if self.plan.on_lost_offset == OnLostOffset::Earliest =>
            {
                let Some(partition) = self.partitions.get_mut(index) else {
                    return Ok(false);
                };
                if partition.offsets.skip_to(earliest) {
                    self.counts.lost_offsets += earliest.saturating_sub(asked);
                    partition.dirty = true;
                    tracing::warn!(%name, asked, earliest, "retention removed messages this group had not settled; going on at the earliest");
                } else {
                    // What was read before has to be finished first.
                    self.read_again_ns = self.clock.monotonic_ns() + AGAIN_MS as u64 * 1_000_000;
                }
                Ok(false)
            }
            ReadError::Lost { asked, earliest } => Err(Halt(format!(
                "{name}: offset {asked} is lost, retention moved the start to {earliest}; nothing was skipped. Set `source.on_lost_offset: earliest` to go on without the lost messages"
            ))),
            ReadError::Transient(why) => {
                self.read_again_ns = self.clock.monotonic_ns() + AGAIN_MS as u64 * 1_000_000;
                self.blocked = Some(format!("{name} cannot be read: {why}"));
                Ok(false)
            }
            ReadError::Fatal(why) => Err(Halt(format!("{name} cannot be read: {why}"))),
        }
    }

    /// A delivery that may have killed the host runs alone.
    fn joins_at(&self, index: usize, offset: u64) -> bool {
        let Some(first) = self.entries.first().map(|entry| entry.delivery) else {
            return true;
        };
        let suspect = self.is_suspect(index, offset)
            || self.is_suspect(first.partition as usize, first.offset);
        !suspect
    }

    fn joins(&self, delivery: &Delivery) -> bool {
        self.joins_at(delivery.partition as usize, delivery.offset)
            && (self.entries.is_empty() || self.call_bytes() < CALL_BYTES_MAX)
    }

    /// What the call holds so far: its frame, and what its duplicates publish again.
    fn call_bytes(&self) -> usize {
        self.batch.bytes() + self.replay_bytes
    }

    pub(super) fn is_suspect(&self, index: usize, offset: u64) -> bool {
        self.partitions
            .get(index)
            .is_some_and(|partition| offset < partition.suspect_until)
    }

    /// Takes a delivery through the stages before the call.
    pub(super) fn enter(&mut self, lane: LaneKey, delivery: Delivery) {
        let rejected = self.note(&delivery);
        let Some(looked) = self.look(&delivery) else {
            return;
        };
        faults::point("received");
        let (stage, number) = match &looked.unreadable {
            None => match (
                self.stages(&delivery, &looked, rejected.is_some()),
                rejected,
            ) {
                // After the claim, so that its duplicates find what became of it.
                ((Stage::Enter(Work::Call, claim), number), Some(note)) => {
                    let refused = Work::Refuse(Reason::RejectedByOperator, note);
                    (Stage::Enter(refused, claim), number)
                }
                (found, _) => found,
            },
            Some(why) => {
                let refused = Work::Refuse(Reason::Undecodable, why.clone());
                (Stage::Enter(refused, None), None)
            }
        };
        let is_sampled = self.samples(&delivery, &looked);
        let (correlation, returned) = (looked.correlation, looked.returned);
        let (work, claim, number) = match stage {
            Stage::Enter(work, claim) => (work, claim, number),
            Stage::Stale(number, work) => (work, None, Some(number)),
            Stage::Gap(number) => return self.wait_for_number(number, delivery),
            Stage::Wait => {
                self.counts.waited += 1;
                return self.hold(lane, delivery, Until::Claim);
            }
            Stage::Later(why) => {
                let due = self.now_ms() + AGAIN_MS;
                self.blocked = Some(format!("what was processed before cannot be read: {why}"));
                return self.hold(lane, delivery, Until::Time(due));
            }
        };
        // The tables answered.
        self.blocked = None;
        if let Some(number) = number {
            self.sequences.get_mut().call(number);
        }
        self.add(Entry {
            delivery,
            returned,
            work,
            correlation,
            claim,
            number,
            is_sampled,
        });
    }

    fn add(&mut self, mut entry: Entry) {
        if matches!(entry.work, Work::Call) && !self.enter_frame(&entry) {
            entry.work = Work::Refuse(Reason::ExpressionFailed, KEY_TOO_LONG.to_owned());
        }
        if let Work::Duplicate(completion) = &entry.work {
            self.replay_bytes += completion.outputs.as_ref().map_or(0, Vec::len);
        }
        self.entries.push(entry);
    }

    /// `lane` is `LaneKey::MAX` when nothing was blocked and so it was not worked out.
    fn hold(&mut self, lane: LaneKey, delivery: Delivery, until: Until) {
        let lane = if lane == LaneKey::MAX {
            self.lane(&delivery)
        } else {
            lane
        };
        self.lanes.hold(lane, until);
        self.lanes.insert(lane, delivery);
    }

    /// The message as it came first, and from where.
    pub(super) fn look(&self, delivery: &Delivery) -> Option<Looked<'_>> {
        let partition = self.partitions.get(delivery.partition as usize)?;
        let message = partition.window.message(delivery)?;
        let topic = self.plan.topics.get(usize::from(partition.topic))?;
        let mut looked = Looked {
            message,
            topic: topic.origin(partition.topic),
            offset: delivery.offset,
            correlation: Correlation::InMessage,
            returned: None,
            unreadable: None,
        };
        if topic.role != Role::Source {
            match Returned::read(&message) {
                Ok((returned, original)) => {
                    looked.message = original;
                    looked.offset = returned.origin_offset;
                    looked.returned = Some(Box::new(returned));
                }
                Err(why) => {
                    looked.topic = partition.topic;
                    looked.unreadable = Some(format!("a message of `{}`: {why}", topic.name));
                }
            }
        }
        let origin = self.plan.topics.get(usize::from(looked.topic))?;
        looked.correlation = Correlation::of(
            &looked.message.headers,
            origin.hash,
            partition.number,
            looked.offset,
        );
        Some(looked)
    }

    /// Decode → idempotency, in the order of §2.1; with the message's sequence number.
    fn stages(
        &self,
        delivery: &Delivery,
        looked: &Looked<'_>,
        is_rejected: bool,
    ) -> (Stage, Option<Number>) {
        let message = &looked.message;
        let policy = self.plan.idempotency.as_ref();
        // A key that was found by a scan of the whole document is proof enough.
        let proved = policy.is_some_and(|policy| policy.key.proves_json());
        if !proved && let Some(refused) = self.undecodable(message) {
            return (Stage::Enter(refused, None), None);
        }
        if let Some(filter) = &self.plan.filter {
            match filter.holds(message, &mut self.key.borrow_mut()) {
                Ok(true) => {}
                Ok(false) => return (self.passed_over(Work::Filtered, message, proved), None),
                Err(error) => {
                    let work = self.failed_filter(filter, message, &error);
                    return (Stage::Enter(work, None), None);
                }
            }
        }
        // Whoever sends a dead letter again wants it executed; its caller is gone in any case.
        if !is_redriven(&looked.returned) && reply::is_expired(message, self.unix_ms) {
            return (self.passed_over(Work::Expired, message, proved), None);
        }
        let number = match self.in_sequence(delivery, looked, is_rejected) {
            Ok(number) => number,
            Err(stage) => return (stage, None),
        };
        let stage = match policy {
            Some(_) => self.deduplicate(delivery, looked, proved),
            None => Stage::Enter(Work::Call, None),
        };
        let stage = match stage {
            // After the claim: its dead letter must leave a record for its duplicates.
            Stage::Enter(Work::Call, claim) if self.is_spent(delivery) => {
                Stage::Enter(self.spent(delivery), claim)
            }
            stage => stage,
        };
        (stage, number)
    }

    /// `unchecked`: whether the payload is of its format was left to the key, which is not evaluated now.
    fn passed_over(&self, work: Work, message: &MessageRef<'_>, unchecked: bool) -> Stage {
        let undecodable = unchecked.then(|| self.undecodable(message)).flatten();
        Stage::Enter(undecodable.unwrap_or(work), None)
    }

    /// A payload that is not of its declared format is that, whatever reads it first.
    fn failed_filter(
        &self,
        filter: &Condition,
        message: &MessageRef<'_>,
        error: &expression::Error,
    ) -> Work {
        self.undecodable(message).unwrap_or_else(|| {
            let error = format!("filter `{}`: {error}", filter.source());
            Work::Refuse(Reason::ExpressionFailed, error)
        })
    }

    fn is_spent(&self, delivery: &Delivery) -> bool {
        delivery.attempts >= self.plan.retry.max_attempts.get()
    }

    pub(super) fn undecodable(&self, message: &MessageRef<'_>) -> Option<Work> {
        if self.plan.format != Format::Json {
            return None;
        }
        let error = expression::json_is_valid(message.payload?).err()?;
        Some(Work::Refuse(Reason::Undecodable, error))
    }

    /// Its attempts were spent before this host started, so the last one never came back.
    fn spent(&self, delivery: &Delivery) -> Work {
        let error = self
            .partitions
            .get(delivery.partition as usize)
            .and_then(|partition| partition.offsets.attempt(delivery.offset))
            .map_or_else(String::new, |attempt| attempt.error.clone());
        let reason = if error == STOPPED_DURING {
            Reason::HostCrash
        } else {
            Reason::AttemptsExhausted
        };
        Work::Refuse(reason, error)
    }

    /// False when the message does not fit a frame.
    fn enter_frame(&mut self, entry: &Entry) -> bool {
        let delivery = &entry.delivery;
        let Some(partition) = self.partitions.get(delivery.partition as usize) else {
            return false;
        };
        let Some(message) = partition.window.message(delivery) else {
            return false;
        };
        let message = original(message, entry);
        let topics = &self.plan.topics;
        let topic = topics.get(usize::from(partition.topic));
        let key = self.key.borrow();
        self.batch.push(&Call {
            topic: topic.map_or(partition.topic, |topic| topic.origin(partition.topic)),
            partition: partition.number,
            offset: entry.offset(),
            message,
            attempt: delivery.attempts + 1,
            correlation_id: entry.correlation.text(&message.headers),
            idempotency_key: entry.claim.is_some().then(|| key_text(&key)),
        })
    }

    pub(super) fn lane(&self, delivery: &Delivery) -> LaneKey {
        let Some(partition) = self.partitions.get(delivery.partition as usize) else {
            return 0;
        };
        let key = partition
            .window
            .message(delivery)
            .and_then(|message| message.key);
        // A message that came back stands in the lane it came from; one that waits for nobody does not.
        let ordering = self.plan.ordering;
        let is_free = ordering.by == By::None
            || ordering.by == By::Key && key.is_none() && ordering.null_key == NullKey::None;
        let lane = if is_free {
            delivery.partition
        } else {
            partition.origin
        };
        lane_of(ordering, key, lane, delivery.offset)
    }

    /// A delivery whose turn did not come: it waits in its lane, uncharged.
    pub(super) fn put_back(&mut self, lane: LaneKey, entry: &Entry) {
        self.release_claim(entry);
        self.lanes.insert(lane, entry.delivery);
    }

    pub(super) fn release_claim(&self, entry: &Entry) {
        if let (Some(claim), Some(claims)) = (&entry.claim, &self.claims) {
            // A stale fence means that the claim is gone already, which is what is wanted.
            let _gone = claims.release(claim.hash, claim.fence);
        }
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.clock.monotonic_ns() / 1_000_000) as i64
    }

    /// `topic/partition@offset` from which the message came first, for the log.
    pub(super) fn origin_place(&self, entry: &Entry) -> String {
        let index = entry.delivery.partition as usize;
        let origin = self.partitions.get(index).map(|partition| partition.origin);
        let shown = match (&entry.returned, origin) {
            (Some(_), Some(origin)) => origin as usize,
            _ => index,
        };
        format!("{}@{}", self.place(shown), entry.offset())
    }

    pub(super) fn place(&self, index: usize) -> String {
        let Some(partition) = self.partitions.get(index) else {
            return String::new();
        };
        let topic = self
            .plan
            .topics
            .get(usize::from(partition.topic))
            .map_or("", |topic| topic.name.as_str());
        format!("{topic}/{}", partition.number)
    }
}

impl Entry {
    /// In the topic from which the message came first.
    pub(super) fn offset(&self) -> u64 {
        let returned = self.returned.as_ref();
        returned.map_or(self.delivery.offset, |returned| returned.origin_offset)
    }
}

/// The message of `entry` as it came first.
pub(super) fn original<'m>(message: MessageRef<'m>, entry: &Entry) -> MessageRef<'m> {
    if entry.returned.is_none() {
        return message;
    }
    // It was read before.
    Returned::read(&message).map_or(message, |(_, original)| original)
}

/// The text in a canonical key: all after the tag of its type.
fn key_text(canonical: &[u8]) -> &str {
    canonical
        .get(1..)
        .and_then(|text| std::str::from_utf8(text).ok())
        .unwrap_or_default()
}
