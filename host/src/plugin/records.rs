//! The `handler` world: a batch becomes records, and the records that come back become an outcome
//! frame, so that the rest of the host sees one thing.

use wasmtime::component::{ComponentType, Lift, Lower};

use super::frame::{Call, Field, OutcomeWriter, OutputRef, read_batch};
use crate::message::HeadersBuf;

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct HeaderIn<'a> {
    name: &'a str,
    value: &'a [u8],
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct MessageIn<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp: i64,
    key: Option<&'a [u8]>,
    payload: Option<&'a [u8]>,
    headers: Vec<HeaderIn<'a>>,
    attempt: u32,
    #[component(name = "correlation-id")]
    correlation_id: &'a str,
    #[component(name = "idempotency-key")]
    idempotency_key: Option<&'a str>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct HeaderOut {
    name: String,
    value: Vec<u8>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum FieldOut {
    #[component(name = "inherit")]
    Inherit,
    #[component(name = "none")]
    None,
    #[component(name = "value")]
    Value(Vec<u8>),
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct OutputOut {
    name: String,
    key: FieldOut,
    payload: FieldOut,
    headers: Vec<HeaderOut>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct RetryOut {
    reason: String,
    after: Option<u64>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum FailureOut {
    #[component(name = "retryable")]
    Retryable(RetryOut),
    #[component(name = "rejected")]
    Rejected(String),
}

pub(super) type ResultOut = Result<Vec<OutputOut>, FailureOut>;

/// The batch as the records world passes it.
pub(super) fn messages(frame: &[u8]) -> Result<Vec<MessageIn<'_>>, String> {
    let calls = read_batch(frame).map_err(|error| error.to_string())?;
    Ok(calls.into_iter().map(message).collect())
}

fn message<'a>((topic, call): (&'a str, Call<'a>)) -> MessageIn<'a> {
    MessageIn {
        topic,
        partition: call.partition,
        offset: call.offset,
        timestamp: call.message.timestamp_ms,
        key: call.message.key,
        payload: call.message.payload,
        headers: headers(call.message.headers),
        attempt: call.attempt,
        correlation_id: call.correlation_id,
        idempotency_key: call.idempotency_key,
    }
}

/// A null value is passed as an empty one: records have no word for it.
fn headers(headers: crate::message::Headers<'_>) -> Vec<HeaderIn<'_>> {
    headers
        .iter()
        .map(|(name, value)| HeaderIn {
            name,
            value: value.unwrap_or_default(),
        })
        .collect()
}

/// The results as an outcome frame. The error names an output that cannot be written as one.
pub(super) fn outcome_frame(results: &[ResultOut]) -> Result<Vec<u8>, String> {
    let mut writer = OutcomeWriter::new();
    for result in results {
        match result {
            Ok(outputs) => {
                let blocks: Vec<HeadersBuf> =
                    outputs.iter().map(header_block).collect::<Result<_, _>>()?;
                writer.outputs(
                    outputs
                        .iter()
                        .zip(&blocks)
                        .map(|(output, block)| OutputRef {
                            name: &output.name,
                            key: output.key.as_field(),
                            payload: output.payload.as_field(),
                            headers: block.as_headers(),
                        }),
                );
            }
            Err(FailureOut::Retryable(retry)) => writer.retryable(&retry.reason, retry.after),
            Err(FailureOut::Rejected(reason)) => writer.rejected(reason),
        }
    }
    Ok(writer.finish())
}

fn header_block(output: &OutputOut) -> Result<HeadersBuf, String> {
    if output.name.len() > usize::from(u16::MAX) {
        return Err("an output name is longer than 65,535 bytes".to_owned());
    }
    let mut block = HeadersBuf::new();
    for header in &output.headers {
        if !block.push(&header.name, Some(&header.value)) {
            return Err(
                "an output has a header name over 65,535 bytes or too many headers".to_owned(),
            );
        }
    }
    Ok(block)
}

impl FieldOut {
    fn as_field(&self) -> Field<'_> {
        match self {
            Self::Inherit => Field::Inherit,
            Self::None => Field::None,
            Self::Value(bytes) => Field::Value(bytes),
        }
    }
}
