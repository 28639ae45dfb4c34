//! The stage of idempotency (§7): between sequence and call. What it decides with is `idempotency`. Pure.

use crate::config::valid::IfMissing;
use crate::connector::Connector;
use crate::expression;
use crate::faults;
use crate::idempotency;
use crate::idempotency::claims::{Claim, Owner};
use crate::message::MessageRef;
use crate::pipeline::admit::{Looked, Stage};
use crate::pipeline::counts::Observer;
use crate::pipeline::handler::Handler;
use crate::pipeline::returned::is_redriven;
use crate::pipeline::run::{Claimed, Clock, Entry, Work, Worker};
use crate::pipeline::verdict::Reason;
use crate::pipeline::window::Delivery;

const CONFLICT: &str = "another message with this idempotency key had other content";

impl<C, H, K, O> Worker<C, H, K, O>
where
    C: Connector,
    H: Handler,
    K: Clock,
    O: Observer,
{
    /// `unchecked`: nobody has looked yet whether the payload is of the declared format.
    pub(super) fn deduplicate(
        &self,
        delivery: &Delivery,
        looked: &Looked<'_>,
        unchecked: bool,
    ) -> Stage {
        let message = &looked.message;
        let (Some(policy), Some(claims), Some(table)) =
            (&self.plan.idempotency, &self.claims, &self.table)
        else {
            return Stage::Enter(Work::Call, None);
        };
        let mut key = self.key.borrow_mut();
        let hash = match policy.key.evaluate(message, &mut key) {
            Ok(value) => idempotency::hash_in(self.epoch, value.canonical()),
            Err(error) => {
                let undecodable = if unchecked {
                    self.undecodable(message)
                } else {
                    None
                };
                return Stage::Enter(
                    match undecodable {
                        Some(refused) => refused,
                        None if policy.if_missing == IfMissing::Process => Work::Call,
                        None => Work::Refuse(Reason::NoIdempotencyKey, error.to_string()),
                    },
                    None,
                );
            }
        };
        let fingerprint = match fingerprint(&policy.fingerprint, message) {
            Ok(fingerprint) => fingerprint,
            Err(error) => return Stage::Enter(Work::Refuse(Reason::ExpressionFailed, error), None),
        };
        let owner = Owner {
            worker: self.index,
            partition: delivery.partition,
            offset: delivery.offset,
        };
        let now = self.unix_ms;
        // A dead letter that was sent back is not a duplicate of its own failure (§7.5).
        let reopens = is_redriven(&looked.returned);
        let stored = || table.completion(hash, now);
        match claims.claim(hash, fingerprint, owner, reopens, now, stored) {
            Ok(Claim::Taken(fence)) => {
                faults::point("claimed");
                Stage::Enter(
                    Work::Call,
                    Some(Claimed {
                        hash,
                        fence,
                        fingerprint,
                    }),
                )
            }
            Ok(Claim::Wait) => Stage::Wait,
            Ok(Claim::Duplicate(completion)) => Stage::Enter(Work::Duplicate(completion), None),
            Ok(Claim::Conflict) => Stage::Enter(
                Work::Refuse(Reason::IdempotencyConflict, CONFLICT.to_owned()),
                None,
            ),
            Err(why) => Stage::Later(why.to_string()),
        }
    }

    /// The frame wants the key's text, and the scratch buffer holds another message's by now.
    pub(super) fn evaluate_key_again(&self, entry: &Entry) {
        let (Some(policy), Some(_)) = (&self.plan.idempotency, &entry.claim) else {
            return;
        };
        let Some(looked) = self.look(&entry.delivery) else {
            return;
        };
        if policy
            .key
            .evaluate(&looked.message, &mut self.key.borrow_mut())
            .is_err()
        {
            // It evaluated before over the same bytes.
            tracing::error!(
                offset = entry.delivery.offset,
                "the idempotency key no longer evaluates"
            );
        }
    }
}

/// What has to agree between duplicates: chosen fields, or the whole payload.
fn fingerprint(fields: &[expression::Expression], message: &MessageRef<'_>) -> Result<u64, String> {
    if fields.is_empty() {
        return Ok(idempotency::fingerprint(message.payload));
    }
    let mut values = Vec::with_capacity(fields.len());
    for field in fields {
        let mut value = Vec::new();
        field
            .canonical(message, &mut value)
            .map_err(|error| format!("idempotency.fingerprint `{}`: {error}", field.source()))?;
        values.push(value);
    }
    Ok(idempotency::fingerprint_fields(
        values.iter().map(Vec::as_slice),
    ))
}
