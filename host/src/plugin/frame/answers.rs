//! Both halves of the frame for tests that stand in for a guest: what was asked, and what is answered.

use super::batch::{Batch, Call, read_batch};
use super::outcomes::{Field, OutcomeLimits, OutcomeWriter, Outcomes, OutputRef};
use crate::message::Headers;
use crate::plugin::Fault;

/// What is answered about one message.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Name and payload of each output; the key is inherited.
    Outputs(Vec<(&'static str, Vec<u8>)>),
    Retryable {
        after_ms: Option<u64>,
    },
    Rejected,
}

/// The messages of a batch, as a guest reads them.
pub(crate) fn calls(batch: &Batch) -> Vec<Call<'_>> {
    read_batch(batch.frame())
        .unwrap()
        .into_iter()
        .map(|(_, call)| call)
        .collect()
}

/// The answers through the same frame and the same checks as a guest's.
pub(crate) fn outcomes(
    answers: &[Answer],
    outputs_max: u32,
    output_size_max: u64,
) -> Result<Outcomes, Fault> {
    let mut writer = OutcomeWriter::new();
    for answer in answers {
        match answer {
            Answer::Outputs(outputs) => {
                writer.outputs(outputs.iter().map(|(name, payload)| OutputRef {
                    name,
                    key: Field::Inherit,
                    payload: Field::Value(payload),
                    headers: Headers::default(),
                }))
            }
            Answer::Retryable { after_ms } => writer.retryable("not now", *after_ms),
            Answer::Rejected => writer.rejected("never"),
        }
    }
    let limits = OutcomeLimits {
        outputs: outputs_max,
        output_size: output_size_max,
    };
    Outcomes::read(writer.finish(), answers.len(), limits)
}
