//! Each function of an SDK under the real plugin runtime, through the guest `conformance`. The bytes
//! of the frame are tested elsewhere (wit/vectors); here it is what a component adds: imports, memory,
//! panics, frames larger than an arena.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may stop at once"
)]

mod guest;

use guest::{Ask, Guest, component, engine};
use serde_json::{Value, json};
use wasmill::message::Headers;
use wasmill::plugin::frame::{Field, Outcome, OutputRef};
use wasmill::plugin::{FaultKind, LogLevel, LogLine, StateWrite, inspect};

/// The one output of the one message, read as JSON.
fn answer(outcome: Outcome<'_>) -> Value {
    let Outcome::Outputs(mut outputs) = outcome else {
        panic!("not a success: {outcome:?}");
    };
    let Some(OutputRef {
        name: "default",
        payload: Field::Value(payload),
        ..
    }) = outputs.next()
    else {
        panic!("not one output with a payload");
    };
    assert!(outputs.next().is_none());
    serde_json::from_slice(payload).unwrap()
}

#[test]
fn a_component_imports_what_its_handler_uses_and_nothing_else() {
    let imports = |name: &str| -> Vec<String> {
        let found = inspect(&component(name)).unwrap().imports;
        found.into_iter().map(|import| import.name).collect()
    };
    let log = "wasmill:handler/log@0.1.0";
    let config = "wasmill:handler/config@0.1.0";
    assert_eq!(imports("flights"), [log, config]);
    assert_eq!(imports("enrich"), [log]);
    let mut all = imports("conformance");
    all.sort();
    let expected = ["clock", "config", "log", "random", "state"]
        .map(|interface| format!("wasmill:handler/{interface}@0.1.0"));
    assert_eq!(all, expected);
}

#[test]
fn a_message_arrives_as_it_was_sent() {
    let engine = engine();
    let mut guest = Guest::new(&engine);
    let ask = Ask::new("describe").header("kind", "order");
    let outcomes = guest.call(&[ask.payload(Some(b"p"))]).unwrap();
    let expected = json!({
        "topic": "asked", "partition": 3, "offset": 100, "timestamp": 1_700_000_000_123_i64, "key": "k",
        "payload": "p", "headers": [["ask", "describe"], ["kind", "order"]], "attempt": 2,
        "correlation_id": "corr", "idempotency_key": "once"
    });
    assert_eq!(answer(outcomes.get(0).unwrap()), expected);
    let tombstone = Ask::new("describe").payload(None);
    let outcomes = guest.call(&[tombstone]).unwrap();
    assert!(answer(outcomes.get(0).unwrap())["payload"].is_null());
}

#[test]
fn outputs_leave_as_the_handler_made_them() {
    let engine = engine();
    let outcomes = Guest::new(&engine).call(&[Ask::new("outputs")]).unwrap();
    let Some(Outcome::Outputs(outputs)) = outcomes.get(0) else {
        panic!("not a success");
    };
    let outputs: Vec<_> = outputs.collect();
    let plain = |name, key, payload| OutputRef {
        name,
        key,
        payload,
        headers: Headers::default(),
    };
    assert_eq!(outputs[0], plain("first", Field::Inherit, Field::Inherit));
    assert_eq!(outputs[2], plain("third", Field::None, Field::None));
    assert_eq!(outputs[1].key, Field::Value(b"k"));
    assert_eq!(outputs[1].payload, Field::Value(b"[1,2]"));
    let headers: Vec<_> = outputs[1].headers.iter().collect();
    assert_eq!(headers, [("a", Some(&b"1"[..])), ("a", Some(&b""[..]))]);
}

#[test]
fn failures_say_their_kind_and_reason() {
    let engine = engine();
    let asks = [Ask::new("retry"), Ask::new("reject"), Ask::new("describe")];
    let outcomes = Guest::new(&engine).call(&asks).unwrap();
    assert!(matches!(
        outcomes.get(0),
        Some(Outcome::Retryable { reason: "later", after: Some(wait) }) if wait.as_millis() == 1500
    ));
    assert!(matches!(
        outcomes.get(1),
        Some(Outcome::Rejected { reason: "never" })
    ));
    assert!(matches!(outcomes.get(2).unwrap(), Outcome::Outputs(_)));
}

#[test]
fn a_panic_is_a_trap_whose_text_names_the_message_and_the_place() {
    let engine = engine();
    let mut guest = Guest::new(&engine);
    let fault = guest
        .call(&[Ask::new("describe"), Ask::new("panic")])
        .unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("asked to panic at 101"), "{fault}");
    let lines = guest.instance.take_logs();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(lines[0].level, LogLevel::Error);
    assert_eq!(lines[0].about, Some(1));
    assert!(lines[0].text.contains("src/lib.rs:"), "{}", lines[0].text);
    // The next call gets a new instance.
    assert!(guest.call(&[Ask::new("describe")]).is_ok());
}

#[test]
fn log_lines_carry_level_and_message() {
    let engine = engine();
    let mut guest = Guest::new(&engine);
    guest
        .call(&[Ask::new("describe"), Ask::new("log")])
        .unwrap();
    let line = |level, text: &str| LogLine {
        level,
        about: Some(1),
        text: text.to_owned(),
    };
    let expected = [
        line(LogLevel::Debug, "plain"),
        line(LogLevel::Error, "formatted 101"),
    ];
    assert_eq!(guest.instance.take_logs(), expected);
}

#[test]
fn configuration_clock_and_random_answer() {
    let engine = engine();
    let mut guest = Guest::new(&engine);
    let asks = ["config", "clock", "random", "config"].map(Ask::new);
    let outcomes = guest.call(&asks).unwrap();
    let config =
        json!({"currency": "EUR", "other": null, "all": [["currency", "EUR"], ["empty", ""]]});
    assert_eq!(answer(outcomes.get(0).unwrap()), config);
    assert_eq!(answer(outcomes.get(3).unwrap()), config);
    assert!(answer(outcomes.get(1).unwrap()).as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(answer(outcomes.get(2).unwrap()), 100_000);
}

#[test]
fn state_reads_its_own_writes_and_hands_them_to_the_settlement() {
    // §2.2
    let engine = engine();
    let mut guest = Guest::new(&engine);
    let outcomes = guest
        .call(&[Ask::new("state").payload(Some(b"a"))])
        .unwrap();
    let expected = json!({
        "before": null, "after": "one", "empty": [], "gone": null,
        "all": [["a", [111, 110, 101]], ["a/empty", []]], "first": 1,
        "too_large": {"Err": "state entry is too large: at most 1 KiB of key and 256 KiB of value"}
    });
    assert_eq!(answer(outcomes.get(0).unwrap()), expected);
    let write = |key: &str, value: Option<&[u8]>| StateWrite {
        key: key.to_owned(),
        value: value.map(<[u8]>::to_vec),
    };
    let expected = [
        write("a", Some(b"one")),
        write("a/empty", Some(b"")),
        write("a/gone", None),
    ];
    assert_eq!(guest.instance.take_state_writes(), expected);
}

#[test]
fn a_frame_of_several_mebibytes_goes_both_ways() {
    let engine = engine();
    let payload = vec![b'x'; 900 * 1024];
    let asks = [(); 4].map(|()| Ask::new("echo").payload(Some(&payload)));
    let outcomes = Guest::new(&engine).call(&asks).unwrap();
    for outcome in outcomes.iter() {
        let Outcome::Outputs(mut outputs) = outcome else {
            panic!("not a success");
        };
        assert!(outputs.next().unwrap().payload == Field::Value(&payload));
    }
}

#[test]
fn memory_is_flat_whatever_is_called() {
    let engine = engine();
    let mut guest = Guest::new(&engine);
    let asks = [
        "describe", "outputs", "config", "state", "clock", "random", "retry",
    ]
    .map(|word| Ask::new(word).payload(Some(b"a")));
    let mut calls = |count: u32| {
        for _ in 0..count {
            guest.call(&asks).unwrap();
            guest.instance.discard();
            guest.instance.take_logs();
        }
        guest.instance.memory_bytes()
    };
    let warm = calls(50);
    assert_eq!(calls(1_000), warm);
}
