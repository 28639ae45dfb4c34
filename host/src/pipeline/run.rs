//! One worker: a thread that owns partitions, with their lanes, one instance and one settlement at a
//! time. This page is the path of a message: admit → deduplicate → call → judge → settle. The stages
//! are the files `admit.rs`, `judge.rs` and `settle.rs`; what they decide with is pure. Not here: which
//! broker (connector), which runtime (plugin), threads and signals (host).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering as Memory};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::connector::{Connector, Ticket};
use crate::faults;
use crate::idempotency::claims::{Claims, Fence};
use crate::idempotency::completion::Completion;
use crate::idempotency::{KeyHash, Table};
use crate::message::HeadersBuf;
use crate::pipeline::answer::Drops;
use crate::pipeline::circuit::Circuit;
use crate::pipeline::correlation::{Correlation, topic_hash};
use crate::pipeline::counts::{Counts, Observer};
use crate::pipeline::handler::Handler;
use crate::pipeline::judge::Called;
use crate::pipeline::lane::{LaneKey, Lanes};
use crate::pipeline::offsets::{Offsets, Progress};
use crate::pipeline::overlay::Overlay;
use crate::pipeline::plan::Plan;
use crate::pipeline::rate::Rate;
use crate::pipeline::reject::{GivenUp, Rejects};
use crate::pipeline::returned::Returned;
use crate::pipeline::sequence::{Number, Numbers, Sequences};
use crate::pipeline::settlement::{Mark, Settlement};
use crate::pipeline::trace::Told;
use crate::pipeline::traced::LastRead;
use crate::pipeline::verdict::Reason;
use crate::pipeline::window::{Delivery, Window};
use crate::plugin::Fault;
use crate::plugin::frame::Batch;

/// Settlements handed on and not acknowledged; more would only add latency.
pub const SETTLEMENTS_IN_FLIGHT_MAX: usize = 4;
/// A settlement is handed on at this size even while others are in flight.
pub const SETTLEMENT_BYTES_MAX: usize = 1 << 20;
/// And at this many deliveries.
pub const SETTLEMENT_DELIVERIES_MAX: u32 = 4096;
/// Bytes of input in one call.
pub const CALL_BYTES_MAX: usize = 256 << 10;
/// A call is sized to about this much predicted work (§11.2).
const CALL_NS_TARGET: u64 = 10_000_000;
/// How soon a delivery that waits for another worker's claim looks again.
const CLAIM_POLL: Duration = Duration::from_millis(2);
/// Faults of calls with several messages are logged so often at most; those between are counted.
const FAULT_WARN_NS: u64 = 10_000_000_000;
/// How long an idle worker sleeps at most.
pub(super) const IDLE: Duration = Duration::from_millis(50);

/// Time, as an argument: the simulation has its own.
pub trait Clock {
    fn unix_ms(&self) -> i64;
    /// Nanoseconds from some fixed moment, never backwards.
    fn monotonic_ns(&self) -> u64;
    /// 0..1, for the jitter of backoffs.
    fn random(&mut self) -> f64;
}

/// Tells workers to stop, to read no more, and to give up single messages.
#[derive(Debug, Default)]
pub struct Control {
    stage: AtomicU8,
    finishes: AtomicBool,
    pub(super) rejects: Rejects,
}

impl Control {
    /// No new calls; what was called is settled.
    pub fn drain(&self) {
        self.stage.fetch_max(1, Memory::SeqCst);
    }

    /// Leave at once; what is unsettled stays unfinished.
    pub fn abort(&self) {
        self.stage.fetch_max(2, Memory::SeqCst);
    }

    /// Nothing more is read; what was read goes on to its end.
    pub fn finish(&self) {
        self.finishes.store(true, Memory::SeqCst);
    }

    pub(super) fn reads(&self) -> bool {
        !self.finishes.load(Memory::Relaxed)
    }

    /// Messages that an operator gives up.
    #[must_use]
    pub const fn rejects(&self) -> &Rejects {
        &self.rejects
    }

    fn draining(&self) -> bool {
        self.stage.load(Memory::Relaxed) >= 1
    }

    pub(super) fn aborted(&self) -> bool {
        self.stage.load(Memory::Relaxed) >= 2
    }
}

/// Why a worker stopped although nobody told it to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Halt(pub String);

/// A partition handed to a worker.
#[derive(Debug)]
pub struct Assignment {
    /// Index in [`Plan::topics`].
    pub topic: u16,
    pub partition: u32,
    pub progress: Progress,
    /// Offsets below may have killed the host: they run one by one, each attempt durable first (§4.4).
    pub suspect_until: u64,
}

pub(super) struct Partition<M> {
    pub topic: u16,
    pub number: u32,
    /// The partition (index in the worker's list) from which its messages came first: itself, unless they
    /// have been returned.
    pub origin: u32,
    /// Its next message was put aside, and is not due before that (monotonic ms).
    pub put_aside: Option<PutAside>,
    pub suspect_until: u64,
    pub offsets: Offsets,
    pub window: Window<M>,
    /// What is durable of its committed offset.
    pub settled: u64,
    /// Its progress changed since the last settlement.
    pub dirty: bool,
    /// When somebody traces.
    pub last_read: Option<LastRead>,
}

/// The head of a partition of messages put aside. All behind it are due later.
#[derive(Debug, Clone, Copy)]
pub(super) struct PutAside {
    pub offset: u64,
    pub due_ms: i64,
}

/// One delivery in the current call, with what was found out before it.
pub(super) struct Entry {
    pub delivery: Delivery,
    /// What is known about a message that came back.
    pub returned: Option<Box<Returned>>,
    pub work: Work,
    pub correlation: Correlation,
    pub claim: Option<Claimed>,
    /// Of its key, when the pipeline has sequence numbers.
    pub number: Option<Number>,
    /// It is traced although nothing fails.
    pub is_sampled: bool,
}

/// An idempotency claim held for a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claimed {
    pub hash: KeyHash,
    pub fence: Fence,
    pub fingerprint: u64,
}

pub(super) enum Work {
    /// It is in the frame.
    Call,
    Duplicate(Completion),
    /// The pipeline's filter passes it over.
    Filtered,
    /// A later number of its key was processed before.
    Stale,
    /// Its deadline has passed (§8.2).
    Expired,
    /// It goes to the dead letters without a call.
    Refuse(Reason, String),
}

/// A settlement handed on, and what its acknowledgement sets in motion.
pub(super) struct Sent {
    pub ticket: Ticket,
    pub at_ns: u64,
    pub after: After,
}

#[derive(Default)]
pub(super) struct After {
    /// Committed offsets by partition.
    pub committed: Vec<(usize, u64)>,
    /// The table has these now.
    pub completed: Vec<(KeyHash, Fence)>,
    /// The attempt is durable: the backoff (ms) starts.
    pub backoffs: Vec<(LaneKey, u64)>,
    /// `on_dead_letter: block_lane`.
    pub unblock: Vec<LaneKey>,
    /// Attempts that are traced.
    pub told: Vec<Told>,
}

pub struct Worker<C: Connector, H, K, O> {
    pub(super) plan: Arc<Plan>,
    pub(super) control: Arc<Control>,
    pub(super) alone: Arc<Mutex<()>>,
    pub(super) index: u16,
    pub(super) connector: C,
    pub(super) handler: H,
    pub(super) clock: K,
    pub(super) observer: O,
    pub(super) claims: Option<Arc<Claims>>,
    pub(super) table: Option<Box<dyn Table>>,
    pub(super) partitions: Vec<Partition<C::Messages>>,
    pub(super) lanes: Lanes<Delivery>,
    pub(super) claims_seen: u64,
    pub(super) sequences: RefCell<Sequences<Delivery>>,
    pub(super) numbers: Option<Box<dyn Numbers>>,
    pub(super) epoch: u64,
    /// Tells its group's traces from those of others.
    pub(super) reader: u64,
    /// When the current call began and ended (monotonic).
    pub(super) called_ns: (u64, u64),
    /// Where in the settlement what is judged now begins.
    pub(super) judged_from: Mark,
    pub(super) circuit: Option<Arc<Circuit>>,
    /// Of the circuit, as last seen.
    pub(super) closings: u64,
    /// The current call is a probe of the circuit.
    pub(super) probes: bool,
    /// The last probe was of a message that had not been tried before; the next is of one that waits. Those
    /// may all fail for a reason of their own.
    pub(super) probes_fresh: bool,
    pub(super) rate: Option<Arc<Rate>>,
    /// When the rate limit lets something through again.
    pub(super) rate_ns: u64,
    /// The current call.
    pub(super) entries: Vec<Entry>,
    pub(super) batch: Batch,
    /// Bytes that the duplicates among `entries` may publish again.
    pub(super) replay_bytes: usize,
    /// Calls of several messages that faulted, since the last warning; and when that was.
    batch_faults: (u64, Option<u64>),
    /// Deliveries of a call that faulted: they run again one by one (§5.4).
    pub(super) singles: VecDeque<Entry>,
    pub(super) settlement: Settlement,
    pub(super) after: After,
    pub(super) in_flight: VecDeque<Sent>,
    pub(super) counts: Counts,
    pub(super) headers: HeadersBuf,
    /// The outputs of the current message, as its idempotency record keeps them.
    pub(super) stored: Vec<u8>,
    pub(super) drops: Drops,
    pub(super) overlay: Option<Arc<Overlay>>,
    /// Tickets handed out so far.
    pub(super) tickets: Ticket,
    /// Unix ms at the start of the current step.
    pub(super) unix_ms: i64,
    /// Scratch for idempotency keys.
    pub(super) key: RefCell<Vec<u8>>,
    /// Lanes with a message that did not succeed in the current call (or run of singles).
    pub(super) failed: Vec<LaneKey>,
    /// Messages that an operator gave up, until they are finished; at most `REJECTS_MAX`.
    pub(super) given_up: Vec<GivenUp>,
    pub(super) observed_ns: u64,
    pub(super) next_partition: usize,
    pub(super) ns_per_message: u64,
    /// When a partition may be read again after an error.
    pub(super) read_again_ns: u64,
    /// Why the worker cannot go on for now, for `status`.
    pub(super) blocked: Option<String>,
}

/// What a worker is made of.
pub struct Parts<C, H, K, O> {
    pub plan: Arc<Plan>,
    pub control: Arc<Control>,
    /// Among the workers of the pipeline.
    pub index: u16,
    pub connector: C,
    pub handler: H,
    pub clock: K,
    pub observer: O,
    pub claims: Option<Arc<Claims>>,
    pub table: Option<Box<dyn Table>>,
    /// With sequence numbers: those that are durable.
    pub numbers: Option<Box<dyn Numbers>>,
    /// With state: what the handler's view reads before the store.
    pub overlay: Option<Arc<Overlay>>,
    /// Of the group's idempotency table: keys of another one are not known (§7.7).
    pub epoch: u64,
    /// One for all workers of the pipeline, like `rate`.
    pub circuit: Option<Arc<Circuit>>,
    pub rate: Option<Arc<Rate>>,
    /// Held, over all workers of the host, while a delivery runs that may have killed an earlier host.
    pub alone: Arc<Mutex<()>>,
    pub assignments: Vec<Assignment>,
}

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    pub fn new(parts: Parts<C, H, K, O>) -> Self {
        let topics: Vec<&str> = parts
            .plan
            .topics
            .iter()
            .map(|topic| topic.name.as_str())
            .collect();
        let batch = Batch::new(&topics);
        let origins = origins(&parts.plan, &parts.assignments);
        let partitions = parts
            .assignments
            .into_iter()
            .zip(origins)
            .map(|(a, origin)| Partition {
                topic: a.topic,
                number: a.partition,
                origin,
                put_aside: None,
                suspect_until: a.suspect_until,
                settled: a.progress.committed,
                offsets: restore(a.progress),
                window: Window::default(),
                dirty: false,
                last_read: None,
            })
            .collect();
        let reader = topic_hash(&parts.plan.consumer_group);
        Self {
            reader,
            called_ns: (0, 0),
            judged_from: Mark::default(),
            plan: parts.plan,
            control: parts.control,
            alone: parts.alone,
            index: parts.index,
            connector: parts.connector,
            handler: parts.handler,
            clock: parts.clock,
            observer: parts.observer,
            claims: parts.claims,
            table: parts.table,
            partitions,
            lanes: Lanes::default(),
            claims_seen: 0,
            sequences: RefCell::default(),
            numbers: parts.numbers,
            epoch: parts.epoch,
            closings: parts
                .circuit
                .as_ref()
                .map_or(0, |circuit| circuit.closings()),
            circuit: parts.circuit,
            probes: false,
            probes_fresh: false,
            rate: parts.rate,
            rate_ns: 0,
            entries: Vec::new(),
            batch,
            replay_bytes: 0,
            batch_faults: (0, None),
            singles: VecDeque::new(),
            settlement: Settlement::default(),
            after: After::default(),
            in_flight: VecDeque::new(),
            counts: Counts::default(),
            headers: HeadersBuf::new(),
            stored: Vec::new(),
            drops: Drops::default(),
            overlay: parts.overlay,
            tickets: 0,
            unix_ms: 0,
            key: RefCell::default(),
            failed: Vec::new(),
            given_up: Vec::new(),
            observed_ns: 0,
            next_partition: 0,
            ns_per_message: CALL_NS_TARGET / 256,
            read_again_ns: 0,
            blocked: None,
        }
    }

    /// Works until it is told to stop. Drained: everything called is settled and durable.
    pub fn run(mut self) -> Result<(), Halt> {
        let result = self.work();
        self.observer.counted(&mut self.counts);
        self.show();
        result
    }

    fn work(&mut self) -> Result<(), Halt> {
        // Who asks before the first call ends finds the partitions.
        self.show();
        while self.turn()? {}
        Ok(())
    }

    /// One round: what became durable, a call when there is something to do, else a wait. False when it
    /// was told to stop and is done.
    pub(super) fn turn(&mut self) -> Result<bool, Halt> {
        self.acknowledge()?;
        if self.control.aborted() {
            return Ok(false);
        }
        if self.control.draining() {
            if self.drained()? {
                return Ok(false);
            }
            self.connector.wait(IDLE);
            return Ok(true);
        }
        self.follow_circuit();
        // Before anything that may keep it from calling: whoever gave up a message waits for an answer.
        self.take_rejects();
        let worked = self.may_call() && (self.circuit_lets() || self.gives_up()) && self.step()?;
        self.probe_is_over();
        self.submit_when_due(worked)?;
        self.observe(!worked);
        if !worked {
            let timeout = self.idle_time();
            self.connector.wait(timeout);
        }
        Ok(true)
    }

    /// One call with everything around it. False when there was nothing to do.
    fn step(&mut self) -> Result<bool, Halt> {
        self.unix_ms = self.clock.unix_ms();
        self.collect()?;
        if self.entries.is_empty() {
            return Ok(false);
        }
        // Two that ran at once would both be charged for what one of them did to the host.
        let alone = self.calls_a_suspect().then(|| Arc::clone(&self.alone));
        let _held = alone
            .as_ref()
            .map(|alone| alone.lock().unwrap_or_else(PoisonError::into_inner));
        self.call_and_judge()?;
        if alone.is_some() {
            self.settle_and_wait()?;
        }
        Ok(true)
    }

    fn call_and_judge(&mut self) -> Result<(), Halt> {
        self.mark_before_the_call()?;
        if self.control.aborted() {
            // What had to be durable first may not be.
            return Ok(());
        }
        if self.batch.is_empty() {
            return self.judge(&Called::Nothing);
        }
        let started = self.clock.monotonic_ns();
        let first = self.entries.first();
        let state_partition = first.map_or(0, |entry| self.state_partition(entry));
        faults::point("before_call");
        self.observer.calling(self.batch.len());
        let called = self.handler.call(&self.batch, state_partition);
        self.observer.calling(0);
        faults::point("after_call");
        self.timed(started);
        self.forward_logs();
        match called {
            Ok(outcomes) => self.judge(&Called::Answered(outcomes))?,
            Err(fault) => self.fault(fault)?,
        }
        if self.plan.isolation == crate::config::valid::Isolation::Message {
            self.handler.reset();
        }
        Ok(())
    }

    /// A fault costs the whole call. Alone, the message is at fault; otherwise they run again one by
    /// one, so that only the culprit is charged (§5.4).
    fn fault(&mut self, fault: Fault) -> Result<(), Halt> {
        if self.batch.len() == 1 {
            return self.judge(&Called::Faulted(fault));
        }
        self.counts.fault(fault.kind.as_str());
        self.warn_of(&fault);
        self.run_again_one_by_one();
        Ok(())
    }

    /// Its messages may all succeed alone, and then nothing else tells of it.
    fn warn_of(&mut self, fault: &Fault) {
        let (unsaid, warned_ns) = &mut self.batch_faults;
        let now_ns = self.clock.monotonic_ns();
        if warned_ns.is_some_and(|at| now_ns.saturating_sub(at) < FAULT_WARN_NS) {
            *unsaid += 1;
            return;
        }
        *warned_ns = Some(now_ns);
        tracing::warn!(
            pipeline = %self.plan.pipeline,
            messages = self.batch.len(),
            kind = fault.kind.as_str(),
            error = %fault.message,
            more = std::mem::take(unsaid),
            "a call of several messages faulted: they run one by one"
        );
    }

    pub(super) fn run_again_one_by_one(&mut self) {
        self.handler.discard();
        self.lanes.call_finished();
        self.singles.extend(self.entries.drain(..));
    }

    /// State is kept with the partition from which a message came first.
    pub(super) fn state_partition(&self, entry: &Entry) -> u32 {
        let own = entry.delivery.partition;
        let partition = self.partitions.get(own as usize);
        partition.map_or(own, |partition| partition.origin)
    }

    /// When the circuit closed, whoever waited for it goes on.
    fn follow_circuit(&mut self) {
        let Some(circuit) = &self.circuit else { return };
        let closings = circuit.closings();
        if closings != self.closings {
            self.closings = closings;
            self.lanes.wake_timed();
        }
    }

    pub(super) fn is_circuit_open(&self) -> bool {
        self.circuit.as_ref().is_some_and(|one| one.is_open())
    }

    /// An open circuit lets one message through now and then, on the whole host.
    fn circuit_lets(&mut self) -> bool {
        let Some(circuit) = &self.circuit else {
            return true;
        };
        if !circuit.is_open() {
            return true;
        }
        self.probes = circuit.take_probe((self.clock.monotonic_ns() / 1_000_000) as i64);
        self.probes
    }

    /// A probe that met neither success nor failure is another worker's to make.
    fn probe_is_over(&mut self) {
        if std::mem::take(&mut self.probes)
            && let Some(circuit) = &self.circuit
        {
            circuit.gave_up((self.clock.monotonic_ns() / 1_000_000) as i64);
        }
    }

    fn may_call(&self) -> bool {
        let full = self.in_flight.len() >= SETTLEMENTS_IN_FLIGHT_MAX;
        !(full && self.settlement.bytes() >= SETTLEMENT_BYTES_MAX)
            && self.settlement.bytes() < 4 * SETTLEMENT_BYTES_MAX
            && self.settlement.deliveries() < 4 * SETTLEMENT_DELIVERIES_MAX
    }

    fn timed(&mut self, started_ns: u64) {
        let ended_ns = self.clock.monotonic_ns();
        self.called_ns = (started_ns, ended_ns);
        let took = ended_ns.saturating_sub(started_ns);
        let messages = self.batch.len() as u64;
        self.counts.calls.push((took, messages as u32));
        let each = took / messages.max(1);
        self.ns_per_message = (self.ns_per_message * 7 + each) / 8;
    }

    /// Messages the next call may hold: about 10 ms of predicted work, one while in doubt.
    pub(super) fn call_messages_max(&self) -> usize {
        if self.probes {
            return 1;
        }
        let predicted = CALL_NS_TARGET / self.ns_per_message.max(1);
        predicted.clamp(1, u64::from(self.plan.batch_max)) as usize
    }

    fn idle_time(&self) -> Duration {
        let now_ms = (self.clock.monotonic_ns() / 1_000_000) as i64;
        let until = |due: i64| Duration::from_millis(due.saturating_sub(now_ms).max(0) as u64);
        let open = self.circuit.as_ref().filter(|circuit| circuit.is_open());
        let idle = match self.lanes.next_due() {
            // Something may run but the settlements in flight are the limit: their acknowledgement wakes.
            _ if !self.may_call() => return IDLE,
            // What is due waits for the outage to be over (§5.5); one of them probes when it is time.
            Some(_) if let Some(circuit) = open => {
                circuit.next_probe_ms().map_or(IDLE, until).min(IDLE)
            }
            Some(due) => until(due).min(IDLE),
            // A claim that another worker holds wakes nobody here.
            None if !self.lanes.is_empty() => CLAIM_POLL,
            None => IDLE,
        };
        let idle = match self.rate_ns.checked_sub(self.clock.monotonic_ns()) {
            // What is due has to wait for the limit.
            Some(left_ns) if left_ns > 0 => return Duration::from_nanos(left_ns).min(IDLE),
            _ => idle,
        };
        let put_aside = self.partitions.iter().filter_map(|p| p.put_aside);
        let next = put_aside
            .map(|head| head.due_ms)
            .filter(|due| *due > now_ms);
        next.min().map_or(idle, |due| until(due).min(idle))
    }
}

/// For each assignment the place of the one from which its messages came first. Whoever owns a partition
/// of a source topic owns those of its retries and redrives.
fn origins(plan: &Plan, assignments: &[Assignment]) -> Vec<u32> {
    let origin = |(own, a): (usize, &Assignment)| {
        let topic = plan.topics.get(usize::from(a.topic))?;
        let of = topic.origin(a.topic);
        let found = assignments
            .iter()
            .position(|other| other.topic == of && other.partition == a.partition);
        Some(found.unwrap_or(own) as u32)
    };
    let each = assignments.iter().enumerate();
    each.map(|one| origin(one).unwrap_or_default()).collect()
}

fn restore(mut progress: Progress) -> Offsets {
    if faults::mutant("forget_attempts") {
        progress.attempts.clear();
    }
    Offsets::restore(progress)
}
