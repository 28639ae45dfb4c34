//! wit/vectors: the frames that hosts and SDKs must agree on, byte for byte. Each file is read (a
//! batch) or written (an outcome) through the public interface of the SDK.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at once"
)]

use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;
use wasmill_sdk::testing::{LogLine, answer_frame, logs};
use wasmill_sdk::{Failure, Message, Output, Outputs, log};

/// The vectors whose name starts with `prefix`: name, what it holds, the bytes.
fn vectors(prefix: &str) -> Vec<(String, Value, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../wit/vectors");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name.starts_with(prefix) && path.extension().is_some_and(|ending| ending == "json") {
            let holds = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let bytes = std::fs::read(path.with_extension("bin")).unwrap();
            found.push((name, holds, bytes));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(!found.is_empty(), "no vectors start with {prefix}");
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}

/// A message in the form of the vectors.
fn described(message: Message) -> Value {
    let headers = message
        .headers()
        .iter()
        .map(|(name, value)| json!({"name": name, "value": hex(value)}))
        .collect::<Vec<_>>();
    json!({
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp(),
        "key": message.key().map(hex),
        "payload": message.payload().map(hex),
        "headers": headers,
        "attempt": message.attempt(),
        "correlation_id": message.correlation_id(),
        "idempotency_key": message.idempotency_key(),
    })
}

#[test]
fn every_batch_is_read_as_it_was_meant() {
    for (name, mut holds, bytes) in vectors("batch-") {
        for message in holds["messages"].as_array_mut().unwrap() {
            for header in message["headers"].as_array_mut().unwrap() {
                if header["value"].is_null() {
                    header["value"] = json!("");
                }
            }
        }
        let seen = RefCell::new(Vec::new());
        let answer = answer_frame(&bytes, |message| {
            seen.borrow_mut().push(described(message));
            Ok::<_, Failure>(())
        })
        .unwrap();
        let seen = Value::from(seen.into_inner());
        assert!(seen == holds["messages"], "{name}: {seen}");
        let count = holds["messages"].as_array().unwrap().len();
        assert_eq!(answer.len(), 8 + 12 * count, "{name}");
    }
}

#[test]
fn every_bad_batch_is_refused() {
    for (name, holds, bytes) in vectors("bad-batch-") {
        let answer = answer_frame(&bytes, |_| Ok::<_, Failure>(()));
        assert!(answer.is_err(), "{name} was taken: {}", holds["bad"]);
    }
}

#[test]
fn a_reserve_is_answered_without_calling_the_handler() {
    let (_, _, reserve) = &vectors("reserve")[0];
    let (_, _, reserved) = &vectors("reserved")[0];
    let answer = answer_frame(reserve, |_| Err::<(), _>(Failure::rejected("called")));
    assert_eq!(answer.as_ref(), Ok(reserved));
}

#[test]
fn a_log_line_names_the_message_it_is_about() {
    let answer = answer_frame(&batch_of(3), |message| {
        log::warn!("offset {}", message.offset());
        Ok::<_, Failure>(())
    });
    assert!(answer.is_ok());
    let abouts: Vec<_> = logs().iter().map(|line| line.about).collect();
    assert_eq!(abouts, [Some(0), Some(1), Some(2)]);
    log::info("after the batch");
    let line = LogLine {
        level: log::Level::Info,
        about: None,
        text: "after the batch".into(),
    };
    assert_eq!(logs(), [line]);
}

#[test]
fn every_outcome_is_written_as_it_was_meant() {
    for (name, holds, bytes) in vectors("outcome-") {
        let results = holds["results"].as_array().unwrap();
        let answer = answer_frame(&batch_of(results.len()), |message| {
            result(&results[message.offset() as usize])
        })
        .unwrap();
        assert!(answer == null_headers_made_empty(bytes), "{name}");
    }
}

/// A batch whose messages have nothing but their index, for an offset.
fn batch_of(count: usize) -> Vec<u8> {
    let mut frame = vec![1, 0, 0, 0];
    frame.extend_from_slice(&(count as u32).to_le_bytes());
    frame.extend_from_slice(&[1, 0, 1, 0, b't']);
    for index in 0..count as u64 {
        frame.extend_from_slice(&48u32.to_le_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&index.to_le_bytes());
        frame.extend_from_slice(&[0; 16]);
        frame.extend_from_slice(&[0xff; 8]);
        frame.extend_from_slice(&[0; 8]);
    }
    frame
}

/// What a handler would return for a result in the form of the vectors.
fn result(described: &Value) -> Result<Outputs, Failure> {
    if let Some(failure) = described.get("retryable") {
        let retryable = Failure::retryable(failure["reason"].as_str().unwrap());
        return Err(match failure["after_ms"].as_u64() {
            Some(after) => retryable.after(Duration::from_millis(after)),
            None => retryable,
        });
    }
    if let Some(failure) = described.get("rejected") {
        return Err(Failure::rejected(failure["reason"].as_str().unwrap()));
    }
    let outputs = described["outputs"].as_array().unwrap();
    Ok(outputs.iter().map(output).collect())
}

fn output(described: &Value) -> Output {
    let mut output = Output::to(described["name"].as_str().unwrap());
    output = match &described["key"] {
        Value::String(word) if word == "inherit" => output.inherit_key(),
        Value::String(word) if word == "none" => output.no_key(),
        value => output.key(from_hex(&value["value"])),
    };
    output = match &described["payload"] {
        Value::String(word) if word == "inherit" => output.inherit_payload(),
        Value::String(word) if word == "none" => output.tombstone(),
        value => output.payload(from_hex(&value["value"])),
    };
    for header in described["headers"].as_array().unwrap() {
        let value = match &header["value"] {
            Value::Null => Vec::new(),
            value => from_hex(value),
        };
        output = output.header(header["name"].as_str().unwrap(), value);
    }
    output
}

/// This SDK reads and writes Kafka's null header value as an empty one.
fn null_headers_made_empty(mut outcome: Vec<u8>) -> Vec<u8> {
    let null = [4, 0, 0xff, 0xff, 0xff, 0xff, b'n', b'u', b'l', b'l'];
    for at in 0..outcome.len() {
        if outcome[at..].starts_with(&null) {
            outcome[at + 2..at + 6].fill(0);
        }
    }
    outcome
}
