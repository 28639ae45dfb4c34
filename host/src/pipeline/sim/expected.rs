//! What a message's fate and the retry policy come to, told apart from how the worker got there.

use crate::config::valid::IfMissing;
use crate::pipeline::plan::Plan;
use crate::pipeline::verdict::Reason;

use super::scenario::{Failure, Fate, Input, Said};

/// A dead letter's headers, as far as a fate decides them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) reason: String,
    pub(super) attempts: u32,
}

impl Letter {
    fn new(reason: &str, attempts: u32) -> Self {
        Self {
            reason: reason.to_owned(),
            attempts,
        }
    }

    /// It is the outcome of its idempotency key, and duplicates are held against it.
    pub(super) fn is_of_the_key(&self) -> bool {
        let reason = self.reason.as_str();
        !["idempotency_conflict", "no_idempotency_key", "undecodable"].contains(&reason)
    }
}

/// The letter that ends a fate, or the attempt that succeeds.
fn end(fate: &Fate, max_attempts: u32) -> Result<u32, Letter> {
    for attempt in 1..=max_attempts {
        match fate.says(attempt) {
            Said::Outputs(_) => return Ok(attempt),
            Said::Fails(Failure::Rejected) => return Err(Letter::new("rejected", attempt)),
            Said::Fails(_) => {}
        }
    }
    let reason = match fate.how {
        Failure::Retryable { .. } => "attempts_exhausted",
        Failure::Fault(kind) => Reason::of_fault(kind.as_str()).as_str(),
        Failure::UnknownOutput => "unknown_output",
        Failure::TooLarge => "output_too_large",
        Failure::OverLimit => "fault_output_limit",
        Failure::Rejected => "rejected",
        Failure::Kills => "host_crash",
    };
    Err(Letter::new(reason, max_attempts))
}

/// `died`: the host was killed during an attempt that was durable before.
pub(super) fn expect_success(
    plan: &Plan,
    fate: &Fate,
    attempt: u32,
    died: bool,
) -> Result<(), String> {
    match end(fate, plan.retry.max_attempts.get()) {
        Ok(expected) if attempt == expected => Ok(()),
        // A kill took the attempts before.
        _ if died => Ok(()),
        other => Err(format!(
            "it succeeded in attempt {attempt}, expected {other:?}"
        )),
    }
}

pub(super) fn expect_letter(
    plan: &Plan,
    input: &Input,
    fate: &Fate,
    letter: &Letter,
    died: bool,
) -> Result<(), String> {
    let max = plan.retry.max_attempts.get();
    let is_missing = input.idempotency_key.is_none()
        && (plan.idempotency.as_ref()).is_some_and(|p| p.if_missing == IfMissing::DeadLetter);
    let expected = if !input.is_decodable {
        Err(Letter::new("undecodable", 0))
    } else if is_missing {
        Err(Letter::new("no_idempotency_key", 0))
    } else {
        end(fate, max)
    };
    if expected.as_ref().err() == Some(letter) {
        return Ok(());
    }
    let is_allowed = match letter.reason.as_str() {
        "idempotency_conflict" => plan.idempotency.is_some() && (letter.attempts < max || died),
        // That it came too late is the ledger's to say.
        "stale_sequence" => input.number.is_some() && letter.attempts == 0,
        "retry_time_exhausted" => plan.retry.max_elapsed.is_some() && letter.attempts >= 1,
        "host_crash" => died && letter.attempts == max,
        // A kill took the attempts that would have brought it further.
        _ => {
            died && expected
                .is_err_and(|e| e.reason == letter.reason || letter.attempts >= e.attempts)
        }
    };
    if is_allowed {
        return Ok(());
    }
    Err(format!(
        "{letter:?}, expected by its fate {:?}",
        end(fate, max)
    ))
}
