//! What happened to a delivery and what the host does about it (§3.3, §5.1, §5.3). Pure: time and
//! randomness are arguments.
//! Not here: carrying the verdict out (`run`) and what a dead letter looks like (`dead_letter`).

use std::time::Duration;

use crate::config::valid::{Backoff, Delivery, Retry};

/// The longest wait a handler may ask for with `retry after`; more is cut to this.
pub const AFTER_MAX: Duration = Duration::from_secs(3600);

/// What happened in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report<'a> {
    Success,
    /// The handler asks for another try, not before `after`.
    Retryable {
        reason: &'a str,
        after: Option<Duration>,
    },
    /// The handler says that another try is of no use.
    Rejected {
        reason: &'a str,
    },
    /// The guest broke; `kind` is the name of the plugin room's kind of fault.
    Fault {
        kind: &'a str,
        message: &'a str,
    },
    /// Not called, or not to be called again, for a reason that lies in the message.
    Refused {
        reason: Reason,
        error: &'a str,
    },
    /// No instance of the plugin can be made: it would fail on every message.
    NoInstance {
        message: &'a str,
    },
    /// The host could not do its part (a store behind `state`, no room for an instance now): the
    /// message has nothing to do with it and is not charged.
    HostFailure {
        message: &'a str,
    },
}

/// Why a message became a dead letter: the value of `wasmill-dlq-reason` and of the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    Rejected,
    /// Retryable failures until `max_attempts`.
    AttemptsExhausted,
    /// Retryable failures or faults until `max_elapsed`.
    RetryTimeExhausted,
    /// Faults until `max_attempts`; the last one decides.
    Fault(FaultLabel),
    /// The host ended during each of its attempts (§4.4).
    HostCrash,
    /// The payload is not of the declared format.
    Undecodable,
    ExpressionFailed,
    NoIdempotencyKey,
    /// Another message with the same idempotency key had other content.
    IdempotencyConflict,
    /// A later sequence number of its key was processed before (§4.5).
    StaleSequence,
    /// An operator gave it up by hand.
    RejectedByOperator,
    /// The handler named an output that the pipeline does not have.
    UnknownOutput,
    /// An output is larger than its topic accepts.
    OutputTooLarge,
}

/// The name of a kind of fault among the reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FaultLabel(&'static str);

/// Kinds as the plugin room names them. Prefixed, because an outcome that cannot be read is not a
/// payload that cannot.
const FAULT_LABELS: [(&str, FaultLabel); 10] = [
    ("trap", FaultLabel("fault_trap")),
    ("timeout", FaultLabel("fault_timeout")),
    ("memory", FaultLabel("fault_memory")),
    ("stack", FaultLabel("fault_stack")),
    ("undecodable", FaultLabel("fault_undecodable")),
    ("output_limit", FaultLabel("fault_output_limit")),
    ("state_limit", FaultLabel("fault_state_limit")),
    ("state", FaultLabel("fault_state")),
    ("instantiation", FaultLabel("fault_instantiation")),
    ("no_room", FaultLabel("fault_no_room")),
];
/// Of a kind that is not listed, so that the label set stays bounded whatever is passed.
const FAULT_OTHER: FaultLabel = FaultLabel("fault");

/// What the host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Settle it with its outputs.
    Ack,
    /// Try again after `delay`; the attempt becomes durable first (§4.4).
    RetryAt {
        delay: Duration,
    },
    /// Try again after `delay`; the attempt does not count.
    Wait {
        delay: Duration,
    },
    DeadLetter {
        reason: Reason,
    },
    /// `at_most_once`: its progress is durable already; count and log it.
    Discard,
    /// Stop the pipeline with the delivery unfinished: a person has to look.
    Halt,
}

/// Decides. `attempt` counts from 1 and includes this one; `first_failed_at_ms` is that of an earlier
/// attempt (Unix ms); `outage`: it failed because a dependency is down, and is not charged; `random` is in 0..=1.
#[expect(
    clippy::too_many_arguments,
    reason = "everything a verdict depends on, and nothing else"
)]
#[must_use]
pub fn judge(
    report: &Report,
    attempt: u32,
    first_failed_at_ms: Option<i64>,
    policy: &Retry,
    delivery: Delivery,
    outage: bool,
    now_ms: i64,
    random: f64,
) -> Verdict {
    let (after, spent) = match triage(report) {
        Triage::Final(Verdict::DeadLetter { .. }) if delivery == Delivery::AtMostOnce => {
            return Verdict::Discard;
        }
        Triage::Final(verdict) => return verdict,
        Triage::Uncharged | Triage::Again { .. } if delivery == Delivery::AtMostOnce => {
            return Verdict::Discard;
        }
        Triage::Uncharged => {
            return Verdict::Wait {
                delay: backoff(&policy.backoff, attempt, random),
            };
        }
        // The circuit wakes it when the outage is over.
        Triage::Again { .. } if outage => return Verdict::Wait { delay: AFTER_MAX },
        Triage::Again { after, spent } => (after.min(AFTER_MAX), spent),
    };
    if attempt >= policy.max_attempts.get() {
        return Verdict::DeadLetter { reason: spent };
    }
    let delay = backoff(&policy.backoff, attempt, random).max(after);
    let Some(left) = time_left(policy, first_failed_at_ms, now_ms) else {
        return Verdict::RetryAt { delay };
    };
    if left.is_zero() || after > left {
        return Verdict::DeadLetter {
            reason: Reason::RetryTimeExhausted,
        };
    }
    // The last try comes when the time is up, not earlier because the backoff would have been longer.
    Verdict::RetryAt {
        delay: delay.min(left),
    }
}

/// What is left of `max_elapsed`; `None` when nothing bounds the time.
#[must_use]
pub fn time_left(policy: &Retry, first_failed_at_ms: Option<i64>, now_ms: i64) -> Option<Duration> {
    let max_elapsed = policy.max_elapsed?;
    // A clock that went back has not made the message younger than its first failure.
    let elapsed_ms = now_ms.saturating_sub(first_failed_at_ms.unwrap_or(now_ms));
    Some(max_elapsed.saturating_sub(Duration::from_millis(elapsed_ms.max(0) as u64)))
}

/// Full jitter: `random` (0..=1) of `min(max_interval, initial_interval × multiplier^(attempt - 1))`.
#[must_use]
pub fn backoff(policy: &Backoff, attempt: u32, random: f64) -> Duration {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = policy.initial_interval.as_secs_f64() * policy.multiplier.powi(exponent);
    // `min` also answers for the NaN of 0 × infinity.
    let ceiling = grown.min(policy.max_interval.as_secs_f64());
    Duration::try_from_secs_f64(ceiling * random.clamp(0.0, 1.0))
        .unwrap_or(policy.max_interval)
        .min(policy.max_interval)
}

impl Reason {
    /// The reason for a fault of this kind.
    #[must_use]
    pub fn of_fault(kind: &str) -> Self {
        match kind {
            "unknown_output" => Self::UnknownOutput,
            "output_too_large" => Self::OutputTooLarge,
            _ => {
                let known = FAULT_LABELS.iter().find(|(name, _)| *name == kind);
                Self::Fault(known.map_or(FAULT_OTHER, |(_, label)| *label))
            }
        }
    }

    /// Stable snake_case: header value and metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::RetryTimeExhausted => "retry_time_exhausted",
            Self::Fault(label) => label.0,
            Self::HostCrash => "host_crash",
            Self::Undecodable => "undecodable",
            Self::ExpressionFailed => "expression_failed",
            Self::NoIdempotencyKey => "no_idempotency_key",
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::StaleSequence => "stale_sequence",
            Self::RejectedByOperator => "rejected_by_operator",
            Self::UnknownOutput => "unknown_output",
            Self::OutputTooLarge => "output_too_large",
        }
    }
}

impl<'a> Report<'a> {
    /// How long the handler wants no other try.
    #[must_use]
    pub fn after(&self) -> Duration {
        match *self {
            Self::Retryable { after, .. } => after.unwrap_or_default().min(AFTER_MAX),
            _ => Duration::ZERO,
        }
    }

    /// For the log line, the durable attempt and the dead letter; empty for a success.
    #[must_use]
    pub const fn error(&self) -> &'a str {
        match *self {
            Self::Success => "",
            Self::Retryable { reason, .. } | Self::Rejected { reason } => reason,
            Self::Refused { error, .. } => error,
            Self::Fault { message, .. }
            | Self::NoInstance { message }
            | Self::HostFailure { message } => message,
        }
    }
}

/// Whether another try can change anything.
enum Triage {
    Final(Verdict),
    Uncharged,
    Again { after: Duration, spent: Reason },
}

fn triage(report: &Report) -> Triage {
    let dead = |reason| Triage::Final(Verdict::DeadLetter { reason });
    let again = |spent| Triage::Again {
        after: Duration::ZERO,
        spent,
    };
    match *report {
        Report::Success => Triage::Final(Verdict::Ack),
        Report::NoInstance { .. } => Triage::Final(Verdict::Halt),
        Report::HostFailure { .. } => Triage::Uncharged,
        Report::Retryable { after, .. } => Triage::Again {
            after: after.unwrap_or_default(),
            spent: Reason::AttemptsExhausted,
        },
        Report::Fault { kind, .. } => again(Reason::of_fault(kind)),
        Report::Rejected { .. } => dead(Reason::Rejected),
        Report::Refused { reason, .. } => dead(reason),
    }
}

#[cfg(test)]
mod tests;
