//! What a seed stands for: the pipeline's configuration, the messages with the fate of each, and how
//! much goes wrong around them.

use std::num::NonZeroU32;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::config::valid::{
    Backoff, By, Delivery, Format, Idempotency, IfMissing, Isolation, NullKey, OnDeadLetter,
    OnDuplicate, OnLostOffset, Ordering, Retry, Sequence, Stale, Window,
};
use crate::expression::Expression;
use crate::message::{HeadersBuf, MessageRef};
use crate::pipeline::correlation::topic_hash;
use crate::pipeline::output::HeaderRule;
use crate::pipeline::plan::{Plan, PlanOutput, SourceTopic};
use crate::plugin::FaultKind;

use super::back;
use super::dice::Dice;

pub(super) const DEAD_LETTERS: u16 = 0;
pub(super) const OUTPUTS: [(&str, u16); 2] = [("a", 1), ("b", 2)];
/// Bytes of a record that the output topics accept.
pub(super) const RECORD_BYTES_MAX: usize = 4096;
/// Outputs of one message.
pub(super) const OUTPUTS_MAX: u32 = 4;
pub(super) const STEP_NS: u64 = 1_000_000;

/// Seeds from here on have sequence numbers (§4.5); the others mean what they meant before there were any.
pub(super) const SEQUENCED: u64 = 1 << 32;

/// Partition and offset.
pub(super) type Id = (usize, u64);

/// What the handler does with a message, by attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fate {
    /// So many attempts fail, in this way.
    pub(super) failures: u32,
    pub(super) how: Failure,
    /// Then it has so many outputs.
    pub(super) outputs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Retryable {
        after_ms: Option<u64>,
    },
    Rejected,
    Fault(FaultKind),
    UnknownOutput,
    TooLarge,
    OverLimit,
    /// The host dies.
    Kills,
}

/// What the handler says in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Outputs(usize),
    Fails(Failure),
}

impl Fate {
    pub(super) fn says(&self, attempt: u32) -> Said {
        if attempt <= self.failures {
            Said::Fails(self.how)
        } else {
            Said::Outputs(self.outputs)
        }
    }
}

#[derive(Debug)]
pub(super) struct Input {
    pub(super) id: Id,
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
    pub(super) headers: HeadersBuf,
    /// Of its key; with sequence numbers, unless the key is absent.
    pub(super) number: Option<i64>,
    /// The text of its idempotency key.
    pub(super) idempotency_key: Option<String>,
    pub(super) is_decodable: bool,
    pub(super) fate: Fate,
}

impl Input {
    pub(super) fn message(&self) -> MessageRef<'_> {
        MessageRef {
            key: self.key.as_deref(),
            payload: Some(&self.payload),
            headers: self.headers.as_headers(),
            timestamp_ms: 1,
        }
    }

    /// Where its counter stands in the handler's state.
    pub(super) fn state_key(&self) -> String {
        format!(
            "n:{}",
            String::from_utf8_lossy(self.key.as_deref().unwrap_or(b"-"))
        )
    }
}

/// Consecutive messages that are written together.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) at_ns: u64,
    pub(super) inputs: Vec<Input>,
}

#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) plan: Arc<Plan>,
    pub(super) partitions: Vec<Vec<Arc<Written>>>,
    pub(super) workers: usize,
    /// Times the host is killed at a random point.
    pub(super) kills: u32,
    /// Times it is stopped, orderly or in a hurry.
    pub(super) stops: u32,
    /// Calls, reads and look-ups in a thousand that fail for a reason of the host's.
    pub(super) host_failures: u64,
    pub(super) settle_ns_max: u64,
    /// Times a dead letter is sent again at most.
    pub(super) rounds_max: u32,
}

impl Scenario {
    /// `returns`: messages come back, by deferred retries and redrives.
    pub(super) fn of(seed: u64, returns: bool) -> Self {
        let mut dice = Dice::new(seed, 1);
        let is_calm = seed.is_multiple_of(4);
        let mut plan = plan(&mut dice, is_calm);
        let rounds_max = if returns {
            back::prepare(&mut plan, seed)
        } else {
            0
        };
        if seed >= SEQUENCED {
            sequenced(&mut plan, &mut dice);
        }
        let count = dice.between(1, 3) as usize;
        let mut partitions: Vec<Vec<Arc<Written>>> = (0..count)
            .map(|partition| partition_of(partition, &plan, is_calm, &mut dice))
            .collect();
        if plan.sequence.is_some() {
            for partition in &mut partitions {
                number(partition, &mut dice);
            }
        }
        let at_most_once = plan.delivery == Delivery::AtMostOnce;
        Self {
            seed,
            plan: Arc::new(plan),
            partitions,
            workers: dice.between(1, 2).min(count as u64) as usize,
            kills: if is_calm { 0 } else { dice.below(7) as u32 },
            stops: dice.below(3) as u32,
            host_failures: if is_calm || at_most_once {
                0
            } else {
                dice.pick(&[0, 0, 5, 20])
            },
            settle_ns_max: dice.pick(&[1, 5 * STEP_NS, 40 * STEP_NS]),
            rounds_max,
        }
    }

    pub(super) fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.partitions
            .iter()
            .flatten()
            .flat_map(|written| &written.inputs)
    }

    pub(super) fn input(&self, (partition, offset): Id) -> Option<&Input> {
        let written = self.partitions.get(partition)?;
        written
            .iter()
            .flat_map(|written| &written.inputs)
            .find(|input| input.id.1 == offset)
    }

    /// Names what runs in order; `None`: it runs freely.
    pub(super) fn lane(&self, input: &Input) -> Option<(usize, Option<Vec<u8>>)> {
        let ordering = self.plan.ordering;
        match (ordering.by, &input.key) {
            (By::None, _) => None,
            (By::Partition, _) => Some((input.id.0, None)),
            (By::Key, Some(key)) => Some((input.id.0, Some(key.clone()))),
            (By::Key, None) => {
                (ordering.null_key == NullKey::Partition).then_some((input.id.0, None))
            }
        }
    }

    pub(super) fn is_at_most_once(&self) -> bool {
        self.plan.delivery == Delivery::AtMostOnce
    }

    pub(super) fn replays(&self) -> bool {
        let policy = self.plan.idempotency.as_ref();
        policy.is_some_and(|policy| policy.on_duplicate == OnDuplicate::Replay)
    }
}

fn plan(dice: &mut Dice, is_calm: bool) -> Plan {
    let isolation = dice.pick(&[Isolation::Worker, Isolation::Worker, Isolation::Message]);
    let max_elapsed_ms = dice.pick(&[0, 0, 0, 0, 0, 300]);
    let mut plan = Plan {
        pipeline: "simulated".to_owned(),
        consumer_group: "group".to_owned(),
        plugin_digest: "sha256:0".to_owned(),
        delivery: dice.pick(&[
            Delivery::AtLeastOnce,
            Delivery::AtLeastOnce,
            Delivery::ExactlyOnce,
            Delivery::ExactlyOnce,
            Delivery::AtMostOnce,
        ]),
        ordering: Ordering {
            by: dice.pick(&[By::Key, By::Key, By::Key, By::Partition, By::None]),
            null_key: dice.pick(&[NullKey::None, NullKey::Partition]),
            on_dead_letter: dice.pick(&[OnDeadLetter::Continue, OnDeadLetter::BlockLane]),
        },
        retry: Retry {
            mode: crate::config::valid::RetryMode::Inline,
            max_attempts: NonZeroU32::new(dice.between(1, 5) as u32).unwrap(),
            max_elapsed: (max_elapsed_ms > 0 && !is_calm)
                .then(|| Duration::from_millis(max_elapsed_ms)),
            backoff: Backoff {
                initial_interval: Duration::from_millis(dice.pick(&[0, 5, 50])),
                multiplier: 2.0,
                max_interval: Duration::from_millis(200),
            },
        },
        idempotency: dice.percent(60).then(|| idempotency(dice)),
        format: dice.pick(&[Format::Bytes, Format::Json]),
        on_lost_offset: OnLostOffset::Halt,
        window: Window {
            messages: dice.pick(&[1, 3, 8, 64]),
            bytes: dice.pick(&[1, 200, 1 << 20]),
        },
        isolation,
        batch_max: if isolation == Isolation::Message {
            1
        } else {
            dice.pick(&[1, 2, 4, 16])
        },
        has_state: dice.percent(40),
        filter: None,
        sequence: None,
        reply: crate::pipeline::reply::ReplyRule(Vec::new()),
        topics: vec![SourceTopic {
            role: crate::pipeline::plan::Role::Source,
            steps: Vec::new(),
            name: "in".to_owned(),
            hash: topic_hash("in"),
            dead_letter: DEAD_LETTERS,
        }],
        outputs: OUTPUTS
            .iter()
            .map(|(name, target)| PlanOutput {
                name: (*name).to_owned(),
                target: *target,
                key: None,
                set_headers: Vec::new(),
                rule: HeaderRule::default(),
            })
            .collect(),
    };
    if plan.has_state {
        // So does the host.
        plan.batch_max = 1;
    }
    plan
}

/// Makes a plan one with sequence numbers.
fn sequenced(plan: &mut Plan, dice: &mut Dice) {
    static NUMBER: OnceLock<Expression> = OnceLock::new();
    let number =
        NUMBER.get_or_init(|| Expression::parse(r#"int(message.header("number"))"#).unwrap());
    plan.delivery = dice.pick(&[Delivery::AtLeastOnce, Delivery::ExactlyOnce]);
    plan.ordering.by = By::Key;
    plan.ordering.null_key = NullKey::None;
    // What is finished without a trace is then a number that was passed over.
    plan.idempotency = None;
    plan.sequence = Some(Sequence {
        number: number.clone(),
        stale: dice.pick(&[Stale::Skip, Stale::DeadLetter]),
        gap_timeout: Duration::from_millis(dice.pick(&[20, 80, 400])),
    });
}

/// Gives the messages of each key numbers that mostly follow each other: some change places, some are
/// missing, some come twice.
fn number(partition: &mut [Arc<Written>], dice: &mut Dice) {
    let mut next: std::collections::BTreeMap<Vec<u8>, i64> = std::collections::BTreeMap::new();
    let mut inputs: Vec<&mut Input> = partition
        .iter_mut()
        .flat_map(|written| &mut Arc::get_mut(written).unwrap().inputs)
        .collect();
    for input in &mut inputs {
        input.fate.outputs = input.fate.outputs.max(1);
        let Some(key) = input.key.clone() else {
            continue;
        };
        let number = next.entry(key).or_insert(1);
        *number += dice.pick(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 1, -1, 2]);
        input.number = Some(*number);
        *number += 1;
    }
    for at in 1..inputs.len() {
        let (before, from) = inputs.split_at_mut(at);
        let (before, this) = (before.last_mut().unwrap(), from.first_mut().unwrap());
        if before.key == this.key && dice.percent(40) {
            std::mem::swap(&mut before.number, &mut this.number);
        }
    }
    for input in inputs {
        if let Some(number) = input.number {
            let text = number.to_string();
            assert!(input.headers.push("number", Some(text.as_bytes())));
        }
    }
}

fn idempotency(dice: &mut Dice) -> Idempotency {
    static KEYS: OnceLock<[Expression; 1]> = OnceLock::new();
    let [header] =
        KEYS.get_or_init(|| [Expression::parse(r#"message.header("request")"#).unwrap()]);
    Idempotency {
        key: header.clone(),
        ttl: Duration::from_secs(24 * 3600),
        on_duplicate: dice.pick(&[OnDuplicate::Skip, OnDuplicate::Replay]),
        if_missing: dice.pick(&[IfMissing::DeadLetter, IfMissing::Process]),
        fingerprint: Vec::new(),
    }
}

fn partition_of(
    partition: usize,
    plan: &Plan,
    is_calm: bool,
    dice: &mut Dice,
) -> Vec<Arc<Written>> {
    let (mut offset, mut at_ns) = (dice.below(100), 0);
    let mut left = dice.between(4, 24);
    let (keys, requests) = (dice.between(1, 6), dice.between(4, 40));
    let mut all = Vec::new();
    while left > 0 {
        let count = dice.between(1, 6).min(left);
        left -= count;
        let mut inputs = Vec::new();
        for _ in 0..count {
            if dice.percent(4) {
                offset += dice.between(1, 3);
            }
            inputs.push(input(
                (partition, offset),
                plan,
                is_calm,
                keys,
                requests,
                dice,
            ));
            offset += 1;
        }
        all.push(Arc::new(Written { at_ns, inputs }));
        at_ns += dice.pick(&[0, 0, STEP_NS, 60 * STEP_NS]);
    }
    all
}

fn input(id: Id, plan: &Plan, is_calm: bool, keys: u64, requests: u64, dice: &mut Dice) -> Input {
    let key = (!dice.percent(15)).then(|| format!("k{}", dice.below(keys)).into_bytes());
    let idempotency_key = (!dice.percent(3)).then(|| format!("r{}", dice.below(requests)));
    let mut headers = HeadersBuf::new();
    if let Some(text) = &idempotency_key {
        assert!(headers.push("request", Some(text.as_bytes())));
    }
    let is_decodable = is_calm || !dice.percent(3) || plan.format == Format::Bytes;
    let body = if !is_calm && dice.percent(3) { 2 } else { 1 };
    let payload = if is_decodable {
        format!(r#"{{"body":{body}}}"#)
    } else {
        "{".to_owned()
    };
    Input {
        id,
        key,
        payload: payload.into_bytes(),
        headers,
        number: None,
        idempotency_key,
        is_decodable,
        fate: fate(plan.has_state, is_calm, dice),
    }
}

/// With state every success has an output, which says that it counted.
fn fate(has_state: bool, is_calm: bool, dice: &mut Dice) -> Fate {
    let how = match dice.below(20) {
        0..8 => Failure::Retryable {
            after_ms: dice.pick(&[None, None, Some(30)]),
        },
        8..10 => Failure::Rejected,
        10..14 => Failure::Fault(dice.pick(&[
            FaultKind::Trap,
            FaultKind::Timeout,
            FaultKind::Memory,
            FaultKind::Undecodable,
        ])),
        14..16 => Failure::UnknownOutput,
        16 => Failure::TooLarge,
        17..19 => Failure::OverLimit,
        _ => Failure::Kills,
    };
    let times = dice.pick(&[1, 1, 1, 2, 3, 9]);
    Fate {
        failures: if is_calm || dice.percent(72) {
            0
        } else {
            times
        },
        how,
        outputs: dice.pick(&[usize::from(has_state), 1, 1, 1, 2, 3]),
    }
}
