//! The test vectors of FRAME.md under wit/vectors: made here, compared with the files, and read back.
//! `WASMILL_WRITE_VECTORS=1 cargo test -p wasmill --lib plugin::frame::vectors` writes them anew.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::batch::{self, Batch, Call, read_batch};
use super::outcomes::{
    Field, Outcome, OutcomeLimits, OutcomeWriter, Outcomes, OutputRef, check_reserved,
};
use crate::message::{Headers, HeadersBuf, MessageRef};

struct Vector {
    name: &'static str,
    bytes: Vec<u8>,
    meaning: Value,
}

const WIDE: OutcomeLimits = OutcomeLimits {
    outputs: u32::MAX,
    output_size: u64::MAX,
};

#[test]
fn the_vector_files_are_current() {
    let folder = folder();
    let mut expected: Vec<String> = Vec::new();
    for vector in all() {
        let mut text = serde_json::to_string_pretty(&vector.meaning).unwrap();
        text.push('\n');
        for (extension, content) in [("bin", vector.bytes.as_slice()), ("json", text.as_bytes())] {
            let file = format!("{}.{extension}", vector.name);
            if std::env::var_os("WASMILL_WRITE_VECTORS").is_some() {
                std::fs::create_dir_all(&folder).unwrap();
                std::fs::write(folder.join(&file), content).unwrap();
            }
            let stored = std::fs::read(folder.join(&file)).unwrap_or_default();
            assert!(stored == content, "{file} is not current");
            expected.push(file);
        }
    }
    let mut found: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "files in wit/vectors");
}

#[test]
fn each_vector_reads_as_its_meaning_says() {
    for vector in all() {
        let kind = vector.meaning["frame"].as_str().unwrap();
        let bad = vector.meaning["bad"].as_str();
        let read = match kind {
            "batch" => read_batch(&vector.bytes)
                .map(|calls| describe_batch(&vector.bytes, &calls))
                .map_err(|e| e.to_string()),
            "outcome" => {
                let messages = vector.meaning["messages"].as_u64().unwrap() as usize;
                Outcomes::read(vector.bytes.clone(), messages, WIDE)
                    .map(|outcomes| describe_outcomes(&outcomes))
                    .map_err(|fault| fault.message)
            }
            "reserve" => Ok(vector.meaning.clone()),
            "reserved" => check_reserved(&vector.bytes)
                .map(|()| vector.meaning.clone())
                .map_err(|fault| fault.message),
            other => panic!("{other}"),
        };
        match (read, bad) {
            (Ok(meaning), None) => assert_eq!(meaning, vector.meaning, "{}", vector.name),
            (Err(_), Some(_)) => {}
            (Ok(_), Some(reason)) => panic!("{} was accepted: {reason}", vector.name),
            (Err(error), None) => panic!("{} was refused: {error}", vector.name),
        }
    }
}

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/vectors"))
}

fn all() -> Vec<Vector> {
    let mut all = batches();
    all.extend(bad_batches());
    all.extend(outcomes());
    all.extend(bad_outcomes());
    all.push(Vector {
        name: "reserve",
        bytes: batch::reserve(3 << 20).to_vec(),
        meaning: json!({"frame": "reserve", "bytes": 3 << 20}),
    });
    all.push(Vector {
        name: "reserved",
        bytes: batch::head(1, 0).to_vec(),
        meaning: json!({"frame": "reserved"}),
    });
    all
}

fn block(headers: &[(&str, Option<&[u8]>)]) -> HeadersBuf {
    let mut buf = HeadersBuf::new();
    for (name, value) in headers {
        assert!(buf.push(name, *value));
    }
    buf
}

fn batch(name: &'static str, topics: &[&str], calls: &[Call<'_>]) -> Vector {
    let mut batch = Batch::new(topics);
    for call in calls {
        assert!(batch.push(call));
    }
    let meaning = describe_batch(batch.frame(), &read_batch(batch.frame()).unwrap());
    Vector {
        name,
        bytes: batch.frame().to_vec(),
        meaning,
    }
}

fn batches() -> Vec<Vector> {
    let headers = block(&[
        ("kind", Some(b"order")),
        ("kind", Some(b"")),
        ("null", None),
        ("schl\u{fc}ssel", Some(&[0, 255])),
    ]);
    let full = Call {
        topic: 1,
        partition: 5,
        offset: 9_007_199_254_740_991,
        message: MessageRef {
            key: Some(b"key-1"),
            payload: Some(br#"{"id":1}"#),
            headers: headers.as_headers(),
            timestamp_ms: 1_735_689_600_123,
        },
        attempt: 2,
        correlation_id: "0194-corr",
        idempotency_key: Some("order-1"),
    };
    let bare = Call {
        attempt: 1,
        ..Call::default()
    };
    let empty_parts = Call {
        message: MessageRef {
            key: Some(b""),
            payload: Some(b""),
            timestamp_ms: -1,
            ..MessageRef::default()
        },
        attempt: 1,
        idempotency_key: Some(""),
        ..Call::default()
    };
    let (correlation_id, idempotency_key) = ("c".repeat(65_535), "i".repeat(65_534));
    let (long_key, payload) = (vec![7u8; 300], vec![9u8; 70_000]);
    let big = Call {
        partition: u32::MAX,
        message: MessageRef {
            key: Some(&long_key),
            payload: Some(&payload),
            ..MessageRef::default()
        },
        attempt: u32::MAX,
        correlation_id: &correlation_id,
        idempotency_key: Some(&idempotency_key),
        ..Call::default()
    };
    let many: Vec<Call<'_>> = (0..200)
        .map(|n| Call {
            topic: (n % 2) as u16,
            offset: n,
            partition: (n % 6) as u32,
            correlation_id: "c",
            ..full
        })
        .collect();
    vec![
        batch("batch-empty", &["orders"], &[]),
        batch("batch-no-topics", &[], &[]),
        batch("batch-one", &["orders", "orders.eu"], &[full]),
        batch("batch-absent", &["orders"], &[bare]),
        batch("batch-empty-parts", &["orders"], &[empty_parts]),
        batch(
            "batch-mixed",
            &["orders", "orders.eu"],
            &[full, bare, empty_parts, full],
        ),
        batch("batch-many", &["orders", "orders.eu"], &many),
        batch("batch-big", &["t"], &[big]),
    ]
}

fn bad_batches() -> Vec<Vector> {
    let good = batches().swap_remove(2).bytes;
    let message = 8 + 2 + (2 + 6) + (2 + 9);
    let patched = |at: usize, bytes: &[u8]| {
        let mut frame = good.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let bad = |name, bytes: Vec<u8>, reason: &str| Vector {
        name,
        bytes,
        meaning: json!({"frame": "batch", "bad": reason}),
    };
    vec![
        bad("bad-batch-nothing", Vec::new(), "no bytes at all"),
        bad(
            "bad-batch-head",
            good[..7].to_vec(),
            "the head is cut short",
        ),
        bad("bad-batch-version", patched(0, &[2, 0]), "frame version 2"),
        bad("bad-batch-kind", patched(2, &[7, 0]), "unknown kind 7"),
        bad(
            "bad-batch-count-above",
            patched(4, &[2, 0, 0, 0]),
            "two messages announced, one present",
        ),
        bad(
            "bad-batch-count-huge",
            patched(4, &[0xFF; 4]),
            "4,294,967,295 messages announced: do not allocate for them",
        ),
        bad(
            "bad-batch-left-over",
            patched(4, &[0, 0, 0, 0]),
            "no message announced, one present",
        ),
        bad(
            "bad-batch-cut",
            good[..good.len() - 1].to_vec(),
            "the last message is cut short",
        ),
        bad(
            "bad-batch-size-small",
            patched(message, &[47, 0, 0, 0]),
            "a message smaller than its header",
        ),
        bad(
            "bad-batch-size-zero",
            patched(message, &[0, 0, 0, 0]),
            "a message of size zero",
        ),
        bad(
            "bad-batch-topic",
            patched(message + 4, &[2, 0]),
            "a topic index beyond the topics",
        ),
        bad(
            "bad-batch-key-length",
            patched(message + 32, &[0xFE, 0xFF, 0xFF, 0xFF]),
            "a key longer than the message",
        ),
        bad(
            "bad-batch-lengths",
            patched(message + 32, &[4, 0, 0, 0]),
            "lengths that do not add up to the size",
        ),
        bad(
            "bad-batch-header-count",
            patched(message + 6, &[3, 0]),
            "more headers in the block than announced",
        ),
        bad(
            "bad-batch-topic-text",
            patched(12, &[0xFF]),
            "a topic name that is not UTF-8",
        ),
    ]
}

fn outcome(name: &'static str, write: impl FnOnce(&mut OutcomeWriter)) -> Vector {
    let mut writer = OutcomeWriter::new();
    write(&mut writer);
    let bytes = writer.finish();
    let messages = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let meaning = describe_outcomes(&Outcomes::read(bytes.clone(), messages, WIDE).unwrap());
    Vector {
        name,
        bytes,
        meaning,
    }
}

fn outcomes() -> Vec<Vector> {
    let headers = block(&[
        ("kind", Some(b"order")),
        ("kind", Some(b"")),
        ("null", None),
    ]);
    let output = |name, key, payload, headers| OutputRef {
        name,
        key,
        payload,
        headers,
    };
    let inherit = output(
        "default",
        Field::Inherit,
        Field::Inherit,
        Headers::default(),
    );
    let none = output("default", Field::None, Field::None, Headers::default());
    let value = output(
        "\u{fc}ber",
        Field::Value(b"k"),
        Field::Value(br#"{"id":1}"#),
        headers.as_headers(),
    );
    let empty = output("", Field::Value(b""), Field::Value(b""), Headers::default());
    let big_payload = vec![3u8; 70_000];
    let big = output(
        "default",
        Field::Inherit,
        Field::Value(&big_payload),
        Headers::default(),
    );
    vec![
        outcome("outcome-empty", |_| {}),
        outcome("outcome-nothing-to-say", |w| w.outputs([].into_iter())),
        outcome("outcome-inherit", |w| w.outputs([inherit].into_iter())),
        outcome("outcome-none", |w| w.outputs([none].into_iter())),
        outcome("outcome-value", |w| w.outputs([value].into_iter())),
        outcome("outcome-empty-parts", |w| w.outputs([empty].into_iter())),
        outcome("outcome-several", |w| {
            w.outputs([inherit, none, value, empty].into_iter())
        }),
        outcome("outcome-retryable", |w| {
            w.retryable("the bank is closed \u{2013} later", None)
        }),
        outcome("outcome-retryable-after", |w| w.retryable("", Some(1500))),
        outcome("outcome-retryable-now", |w| w.retryable("again", Some(0))),
        outcome("outcome-rejected", |w| w.rejected("no such customer")),
        outcome("outcome-rejected-bare", |w| w.rejected("")),
        outcome("outcome-mixed", |w| {
            w.outputs([value, inherit].into_iter());
            w.rejected("no");
            w.outputs([].into_iter());
            w.retryable("later", Some(9_007_199_254_740_991));
            w.outputs([none].into_iter());
        }),
        outcome("outcome-many", |w| {
            (0..200).for_each(|_| w.outputs([inherit].into_iter()))
        }),
        outcome("outcome-big", |w| {
            w.outputs([big].into_iter());
            w.rejected(&"\u{20ac}".repeat(20_000));
        }),
    ]
}

fn bad_outcomes() -> Vec<Vector> {
    let bytes_of = |name: &str| {
        let mut found = outcomes();
        found.retain(|v| v.name == name);
        found.swap_remove(0).bytes
    };
    let (value, rejected) = (bytes_of("outcome-value"), bytes_of("outcome-rejected"));
    let patched = |frame: &[u8], at: usize, bytes: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let bad = |name, bytes: Vec<u8>, messages: u32, reason: &str| Vector {
        name,
        bytes,
        meaning: json!({"frame": "outcome", "messages": messages, "bad": reason}),
    };
    let longer = [value.as_slice(), &[0]].concat();
    let (result, output) = (8, 20);
    vec![
        bad("bad-outcome-nothing", Vec::new(), 1, "no bytes at all"),
        bad(
            "bad-outcome-head",
            value[..7].to_vec(),
            1,
            "the head is cut short",
        ),
        bad(
            "bad-outcome-version",
            patched(&value, 0, &[2, 0]),
            1,
            "frame version 2",
        ),
        bad(
            "bad-outcome-kind",
            patched(&value, 2, &[1, 0]),
            1,
            "kind 1 answers only a reserve frame",
        ),
        bad(
            "bad-outcome-count-below",
            value.clone(),
            2,
            "one result for two messages",
        ),
        bad(
            "bad-outcome-count-above",
            value.clone(),
            0,
            "one result for no message",
        ),
        bad(
            "bad-outcome-count-huge",
            patched(&value, 4, &[0xFF; 4]),
            1,
            "4,294,967,295 results announced",
        ),
        bad("bad-outcome-left-over", longer, 1, "a byte left over"),
        bad(
            "bad-outcome-cut",
            value[..value.len() - 1].to_vec(),
            1,
            "the last result is cut short",
        ),
        bad(
            "bad-outcome-status",
            patched(&value, result, &[3]),
            1,
            "unknown status 3",
        ),
        bad(
            "bad-outcome-body-length",
            patched(&value, result + 4, &[1, 0, 0, 0]),
            1,
            "a body shorter than its output",
        ),
        bad(
            "bad-outcome-outputs-above",
            patched(&value, result + 8, &[2, 0, 0, 0]),
            1,
            "two outputs announced, one present",
        ),
        bad(
            "bad-outcome-outputs-below",
            patched(&value, result + 8, &[0, 0, 0, 0]),
            1,
            "no output announced, one present",
        ),
        bad(
            "bad-outcome-output-size",
            patched(&value, output, &[23, 0, 0, 0]),
            1,
            "an output smaller than its header",
        ),
        bad(
            "bad-outcome-key-kind",
            patched(&value, output + 4, &[3]),
            1,
            "unknown kind of key",
        ),
        bad(
            "bad-outcome-payload-kind",
            patched(&value, output + 5, &[255]),
            1,
            "unknown kind of payload",
        ),
        bad(
            "bad-outcome-inherit-with-bytes",
            patched(&value, output + 4, &[0]),
            1,
            "an inherited key that has bytes",
        ),
        bad(
            "bad-outcome-lengths",
            patched(&value, output + 12, &[7, 0, 0, 0]),
            1,
            "lengths that do not add up to the size",
        ),
        bad(
            "bad-outcome-header-count",
            patched(&value, output + 16, &[2, 0]),
            1,
            "more headers in the block than announced",
        ),
        bad(
            "bad-outcome-name-text",
            patched(&value, output + 24, &[0xFF]),
            1,
            "a name that is not UTF-8",
        ),
        bad(
            "bad-outcome-reason-text",
            patched(&rejected, 28, &[0xFF]),
            1,
            "a reason that is not UTF-8",
        ),
        bad(
            "bad-outcome-failure-short",
            [
                &[1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0][..],
                &[0; 4],
            ]
            .concat(),
            1,
            "a failure without room for `after`",
        ),
        bad(
            "bad-outcome-failure-outputs",
            patched(&rejected, result + 8, &[1, 0, 0, 0]),
            1,
            "a failure with outputs",
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn describe_headers(headers: Headers<'_>) -> Value {
    headers
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value.map(hex)}))
        .collect()
}

fn describe_batch(frame: &[u8], calls: &[(&str, Call<'_>)]) -> Value {
    let messages: Value = calls
        .iter()
        .map(|(topic, call)| {
            json!({
                "topic": topic,
                "partition": call.partition,
                "offset": call.offset,
                "timestamp": call.message.timestamp_ms,
                "key": call.message.key.map(hex),
                "payload": call.message.payload.map(hex),
                "headers": describe_headers(call.message.headers),
                "attempt": call.attempt,
                "correlation_id": call.correlation_id,
                "idempotency_key": call.idempotency_key,
            })
        })
        .collect();
    json!({"frame": "batch", "topics": describe_topics(frame), "messages": messages})
}

fn describe_topics(frame: &[u8]) -> Value {
    let mut rest = batch::Reader(&frame[8..]);
    let count = rest.u16().unwrap();
    (0..count)
        .map(|_| {
            let len = rest.u16().unwrap();
            json!(std::str::from_utf8(rest.take(usize::from(len)).unwrap()).unwrap())
        })
        .collect()
}

fn describe_field(field: Field<'_>) -> Value {
    match field {
        Field::Inherit => json!("inherit"),
        Field::None => json!("none"),
        Field::Value(bytes) => json!({"value": hex(bytes)}),
    }
}

fn describe_outcomes(outcomes: &Outcomes) -> Value {
    let results: Value = outcomes
        .iter()
        .map(|outcome| match outcome {
            Outcome::Outputs(outputs) => json!({"outputs": outputs.map(|output| json!({
                "name": output.name,
                "key": describe_field(output.key),
                "payload": describe_field(output.payload),
                "headers": describe_headers(output.headers),
            })).collect::<Value>()}),
            Outcome::Retryable { reason, after } => {
                json!({"retryable": {"reason": reason, "after_ms": after.map(|d| d.as_millis() as u64)}})
            }
            Outcome::Rejected { reason } => json!({"rejected": {"reason": reason}}),
            Outcome::OverLimit(fault) => panic!("{fault}"),
        })
        .collect();
    json!({"frame": "outcome", "messages": outcomes.len(), "results": results})
}
