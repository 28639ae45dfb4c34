//! The label values of the metrics: closed sets, so that no message, key or error text can grow a
//! label (§12.3). Names never change by mode.

/// A closed set of label values. `ALL` stands in the order of the discriminants.
pub trait Label: Copy + Eq + Sized + 'static {
    const ALL: &'static [Self];
    /// The value as Prometheus shows it.
    fn as_str(self) -> &'static str;
    /// Place of the value in [`Label::ALL`].
    fn index(self) -> usize;
    /// The value that shows as `text`.
    fn named(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|label| label.as_str() == text)
    }
}

macro_rules! labels {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant),+ }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

labels! {
    /// How a delivery finished (`wasmill_messages_consumed_total`).
    Outcome {
        /// The handler said yes and its outputs are durable.
        Success = "success",
        /// Known by its idempotency key: skipped or answered from the record.
        Duplicate = "duplicate",
        DeadLettered = "dead_lettered",
        /// at_most_once: it failed and is gone.
        Discarded = "discarded",
        Filtered = "filtered",
        /// A later sequence number of its key was processed before.
        Stale = "stale",
        Expired = "expired",
    }
}

labels! {
    /// Why an output could not be published (`wasmill_publish_errors_total`).
    PublishError {
        TooLarge = "too_large",
        /// The handler named an output that the pipeline does not have.
        UnknownOutput = "unknown_output",
    }
}

labels! {
    /// Why an answer went nowhere (`wasmill_replies_dropped_total`): the names of `reply::Dropped`.
    ReplyDropped {
        NoReplyTo = "no_reply_to",
        NotAllowed = "not_allowed",
        NoTopic = "no_topic",
        TooLarge = "too_large",
    }
}

labels! {
    /// What the host saw go wrong in a call (`wasmill_faults_total`): the names of
    /// `plugin::FaultKind`.
    FaultReason {
        Trap = "trap",
        Timeout = "timeout",
        Memory = "memory",
        Stack = "stack",
        Undecodable = "undecodable",
        OutputLimit = "output_limit",
        StateLimit = "state_limit",
        State = "state",
        Instantiation = "instantiation",
        /// No slot or memory for an instance now; the message waits.
        NoRoom = "no_room",
        UnknownOutput = "unknown_output",
        OutputTooLarge = "output_too_large",
        /// A kind that this list does not know.
        Other = "other",
    }
}

labels! {
    /// Why a message became a dead letter (`wasmill_dead_letters_total`): the names of
    /// `pipeline::verdict::Reason`, which also stand in the header `wasmill-dlq-reason` (§6.1).
    DeadLetterReason {
        Rejected = "rejected",
        AttemptsExhausted = "attempts_exhausted",
        RetryTimeExhausted = "retry_time_exhausted",
        FaultTrap = "fault_trap",
        FaultTimeout = "fault_timeout",
        FaultMemory = "fault_memory",
        FaultStack = "fault_stack",
        FaultUndecodable = "fault_undecodable",
        FaultOutputLimit = "fault_output_limit",
        FaultStateLimit = "fault_state_limit",
        FaultState = "fault_state",
        FaultInstantiation = "fault_instantiation",
        Fault = "fault",
        HostCrash = "host_crash",
        StaleSequence = "stale_sequence",
        RejectedByOperator = "rejected_by_operator",
        Undecodable = "undecodable",
        ExpressionFailed = "expression_failed",
        NoIdempotencyKey = "no_idempotency_key",
        IdempotencyConflict = "idempotency_conflict",
        UnknownOutput = "unknown_output",
        OutputTooLarge = "output_too_large",
        /// A reason that this list does not know.
        Other = "other",
    }
}

labels! {
    /// What the idempotency table said (`wasmill_idempotency_total`, §7).
    IdempotencyResult {
        /// Not seen before: claimed.
        Fresh = "fresh",
        /// Seen and completed: skipped.
        Duplicate = "duplicate",
        /// Seen and completed: the stored outputs were published again.
        Replayed = "replayed",
        /// Another delivery holds the claim: this one waits.
        Waited = "waited",
        /// The same key with another payload.
        Conflict = "conflict",
        /// No key in the message.
        Missing = "missing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<L: Label>() {
        for (place, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), place);
            assert!(L::named(label.as_str()) == Some(*label));
            assert!(
                label
                    .as_str()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_')
            );
        }
    }

    #[test]
    fn every_label_stands_at_its_index_and_is_snake_case() {
        check::<Outcome>();
        check::<PublishError>();
        check::<ReplyDropped>();
        check::<FaultReason>();
        check::<DeadLetterReason>();
        check::<IdempotencyResult>();
    }
}
