//! A job queue. A job whose input is not there yet is retryable, and says when to ask again; the pipeline
//! puts it aside (`retry: { mode: deferred }`), so that it holds nobody up. A job that nobody can do is
//! rejected: a dead letter.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wasmill_sdk::{Failure, Message, Output, Outputs, clock, log};

#[derive(Deserialize)]
struct Job<'a> {
    id: u64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    input: Cow<'a, str>,
    /// When the input is complete, Unix milliseconds.
    #[serde(default)]
    ready_at_ms: u64,
}

#[derive(Serialize)]
struct Done<'a> {
    id: u64,
    kind: &'a str,
    result: u64,
    attempt: u32,
}

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let job: Job = message.json()?;
    let left_ms = job.ready_at_ms.saturating_sub(clock::now());
    if left_ms > 0 {
        log::info(format!(
            "job {}: its input is there in {left_ms} ms",
            job.id
        ));
        return Err(
            Failure::retryable("its input is not there yet").after(Duration::from_millis(left_ms))
        );
    }
    let result = match &*job.kind {
        "words" => job.input.split_whitespace().count() as u64,
        "checksum" => checksum(job.input.as_bytes()),
        other => {
            return Err(Failure::rejected(format!(
                "there is no kind of job called `{other}`"
            )));
        }
    };
    let done = Done {
        id: job.id,
        kind: &job.kind,
        result,
        attempt: message.attempt(),
    };
    Ok(Outputs::one(Output::to("done").json(&done)?))
}

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;
    use serde_json::json;
    use wasmill_sdk::testing;

    fn job(kind: &str, ready_at_ms: u64) -> Result<Outputs, Failure> {
        Message::test()
            .json(&json!({"id": 1, "kind": kind, "input": "to be or", "ready_at_ms": ready_at_ms}))
            .handle(handle)
    }

    #[test]
    fn a_job_is_done_when_its_input_is_there() {
        testing::set_clock(1_000);
        let outputs = job("words", 1_000).unwrap();
        let done = outputs.named("done").next().unwrap().payload_field();
        let expected = br#"{"id":1,"kind":"words","result":3,"attempt":1}"#;
        assert_eq!(done, wasmill_sdk::Field::Value(expected));
    }

    #[test]
    fn a_job_that_is_too_early_says_when_to_come_back() {
        testing::set_clock(1_000);
        let failure = job("words", 1_250).unwrap_err();
        assert!(failure.is_retryable());
        assert_eq!(failure.retry_after(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn an_unknown_kind_is_rejected() {
        assert!(job("dance", 0).unwrap_err().is_rejected());
    }

    #[test]
    fn the_checksum_is_fnv_1a() {
        // The vectors of the FNV reference, draft-eastlake-fnv.
        assert_eq!(checksum(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(checksum(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(checksum(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
