//! The plain-records world and every import, through plugins/hostile/records.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::payloads;
use crate::message::{HeadersBuf, MessageRef};
use crate::plugin::frame::{Batch, Call, Field, Outcome, Outcomes};
use crate::plugin::testing::{Bench, Table, built, limits};
use crate::plugin::{FaultKind, Instance, LogLevel, StateWrite, World};

fn records(bench: &Bench, table: &Table) -> Instance {
    let plugin = bench.load(&built("records"), &limits());
    assert_eq!(plugin.world(), World::Handler);
    assert!(plugin.has_effects());
    let config = BTreeMap::from([("currency".to_owned(), "EUR".to_owned())]);
    plugin.instance(&config, Some(Box::new(table.clone())))
}

/// The payload of the only output of the only message.
fn text(outcomes: &Outcomes) -> String {
    let Some(Outcome::Outputs(mut outputs)) = outcomes.get(0) else {
        panic!("{outcomes:?}");
    };
    match outputs.next().map(|output| output.payload) {
        Some(Field::Value(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn ask(instance: &mut Instance, command: &str) -> String {
    text(&instance.call(&payloads(&[command.as_bytes()]), 3).unwrap())
}

#[test]
fn a_record_holds_all_of_the_message() {
    let bench = Bench::new();
    let mut instance = records(&bench, &Table::default());
    let mut headers = HeadersBuf::new();
    assert!(headers.push("a", Some(b"1")) && headers.push("null", None));
    let mut batch = Batch::new(&["orders", "refunds"]);
    assert!(batch.push(&Call {
        topic: 1,
        partition: 7,
        offset: u64::MAX,
        message: MessageRef {
            key: None,
            payload: Some(b"describe"),
            headers: headers.as_headers(),
            timestamp_ms: -5,
        },
        attempt: 4,
        correlation_id: "corr",
        idempotency_key: Some("once"),
    }));
    assert_eq!(
        text(&instance.call(&batch, 0).unwrap()),
        r#"refunds 7 18446744073709551615 -5 None [("a", [49]), ("null", [])] 4 corr Some("once")"#
    );
}

#[test]
fn records_become_the_same_outcomes_as_frames() {
    let bench = Bench::new();
    let mut instance = records(&bench, &Table::default());
    let batch = payloads(&[
        b"echo",
        b"fields",
        b"retry 1500",
        b"retry",
        b"reject",
        b"log hello",
        b"many 1001",
    ]);
    let outcomes = instance.call(&batch, 0).unwrap();
    let outcomes: Vec<Outcome<'_>> = outcomes.iter().collect();
    let fields = |outcome: &Outcome<'_>| match outcome {
        Outcome::Outputs(outputs) => outputs
            .clone()
            .map(|output| {
                assert_eq!(output.name, "default");
                assert_eq!(output.headers.last("by"), Some(&b"records"[..]));
                format!("{:?} {:?}", output.key, output.payload)
            })
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(fields(&outcomes[0]), ["Inherit Inherit"]);
    assert_eq!(
        fields(&outcomes[1]),
        ["Inherit None", "None Value([118])", "Value([107]) Inherit"]
    );
    let after = Some(Duration::from_millis(1500));
    assert!(
        matches!(outcomes[2], Outcome::Retryable { reason: "asked to", after: a } if a == after)
    );
    assert!(matches!(
        outcomes[3],
        Outcome::Retryable {
            reason: "asked to",
            after: None
        }
    ));
    assert!(matches!(
        outcomes[4],
        Outcome::Rejected { reason: "asked to" }
    ));
    assert!(fields(&outcomes[5]).is_empty());
    assert!(
        matches!(&outcomes[6], Outcome::OverLimit(fault) if fault.kind == FaultKind::OutputLimit)
    );
    let lines = instance.take_logs();
    assert_eq!(
        (lines[0].level, lines[0].about, lines[0].text.as_str()),
        (LogLevel::Warn, Some(5), "hello")
    );
}

#[test]
fn config_clock_and_random_answer() {
    let bench = Bench::new();
    let mut instance = records(&bench, &Table::default());
    assert_eq!(ask(&mut instance, "config currency"), r#"Some("EUR")"#);
    assert_eq!(ask(&mut instance, "config other"), "None");
    assert_eq!(ask(&mut instance, "config-all"), r#"[("currency", "EUR")]"#);
    let now: u128 = ask(&mut instance, "clock").parse().unwrap();
    let here = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(here.as_millis().abs_diff(now) < 60_000);
    assert_eq!(ask(&mut instance, "random 65536"), "65536");
}

#[test]
fn more_random_bytes_than_a_call_may_have_are_a_trap_that_says_so() {
    let bench = Bench::new();
    let mut instance = records(&bench, &Table::default());
    let fault = instance.call(&payloads(&[b"random 65537"]), 0).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("65537"), "{fault}");
}

#[test]
fn a_call_sees_its_own_writes_and_they_come_out_in_key_order() {
    let bench = Bench::new();
    let table = Table::default();
    table.put(3, "a", "stored");
    table.put(4, "a", "of another partition");
    let mut instance = records(&bench, &table);
    let batch = payloads(&[
        b"set b 1",
        b"get b",
        b"get a",
        b"delete a",
        b"get a",
        b"set c 2",
        b"scan  10",
    ]);
    let outcomes = instance.call(&batch, 3).unwrap();
    let texts: Vec<String> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            Outcome::Outputs(mut outputs) => outputs.next(),
            other => panic!("{other:?}"),
        })
        .map(|output| match output.payload {
            Field::Value(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        texts,
        [
            "stored",
            r#"Some("1")"#,
            r#"Some("stored")"#,
            "None",
            "stored",
            "b,c"
        ]
    );
    let write = |key: &str, value: Option<&str>| StateWrite {
        key: key.to_owned(),
        value: value.map(|v| v.as_bytes().to_vec()),
    };
    assert_eq!(
        instance.take_state_writes(),
        [
            write("a", None),
            write("b", Some("1")),
            write("c", Some("2"))
        ]
    );
    assert_eq!(instance.take_state_writes(), []);
}

#[test]
fn a_failed_call_leaves_no_state_write_behind() {
    // §2.2
    let bench = Bench::new();
    let mut instance = records(&bench, &Table::default());
    let batch = payloads(&[b"set a 1", b"set-and-trap b"]);
    let fault = instance.call(&batch, 0).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Trap);
    assert_eq!(instance.take_state_writes(), []);
    assert_eq!(ask(&mut instance, "get a"), "None");
}

#[test]
fn discarded_state_writes_are_gone() {
    let bench = Bench::new();
    let mut instance = records(&bench, &Table::default());
    ask(&mut instance, "set a 1");
    instance.discard();
    assert_eq!(instance.take_state_writes(), []);
}

#[test]
fn state_of_another_partition_is_not_seen() {
    let bench = Bench::new();
    let table = Table::default();
    table.put(4, "a", "1");
    let mut instance = records(&bench, &table);
    assert_eq!(ask(&mut instance, "get a"), "None");
    assert_eq!(ask(&mut instance, "scan a 10"), "");
}

#[test]
fn a_scan_merges_stored_and_written_entries_up_to_its_limit() {
    let bench = Bench::new();
    let table = Table::default();
    for key in ["k1", "k2", "k3", "l1"] {
        table.put(0, key, "x");
    }
    let mut instance = records(&bench, &table);
    let batch = payloads(&[b"delete k1", b"set k0 y", b"set k4 y", b"scan k 3"]);
    let outcomes = instance.call(&batch, 0).unwrap();
    let Some(Outcome::Outputs(mut outputs)) = outcomes.get(3) else {
        panic!("{outcomes:?}");
    };
    assert_eq!(outputs.next().unwrap().payload, Field::Value(b"k0,k2,k3"));
}

#[test]
fn state_beyond_its_room_is_refused_as_full() {
    let bench = Bench::new();
    let table = Table::with_max(1000);
    table.put(3, "old", &"x".repeat(500));
    let mut instance = records(&bench, &table);
    // Each entry takes 6 + 94 bytes, 497 are left.
    assert_eq!(ask(&mut instance, "fill k 94"), "4");
    let small = "y".repeat(500);
    assert_eq!(ask(&mut instance, &format!("set old {small}")), "stored");
    let large = "y".repeat(998);
    assert_eq!(ask(&mut instance, &format!("set old {large}")), "full");
}

#[test]
fn keys_and_values_over_their_limit_are_refused_as_too_large() {
    let bench = Bench::new();
    let mut instance = records(&bench, &Table::with_max(u64::MAX));
    let key = "k".repeat(1024);
    assert_eq!(ask(&mut instance, &format!("set {key} v")), "stored");
    assert_eq!(ask(&mut instance, &format!("set {key}k v")), "too large");
    let value = "v".repeat(256 * 1024);
    assert_eq!(ask(&mut instance, &format!("set k {value}")), "stored");
    assert_eq!(ask(&mut instance, &format!("set k {value}v")), "too large");
}

#[test]
fn more_state_writes_than_a_call_may_hold_are_a_fault() {
    let bench = Bench::new();
    let mut instance = records(&bench, &Table::with_max(u64::MAX));
    for command in ["fill k 1", "fill k 200000"] {
        let fault = instance
            .call(&payloads(&[command.as_bytes()]), 0)
            .unwrap_err();
        assert_eq!(fault.kind, FaultKind::StateLimit, "{fault}");
    }
}

#[test]
fn a_scan_of_more_bytes_than_the_host_copies_is_a_fault() {
    let bench = Bench::new();
    let table = Table::with_max(u64::MAX);
    let value = "v".repeat(256 * 1024);
    for n in 0..40 {
        table.put(0, &format!("k{n:02}"), &value);
    }
    let mut instance = records(&bench, &table);
    assert!(instance.call(&payloads(&[b"scan k 10"]), 0).is_ok());
    let fault = instance.call(&payloads(&[b"scan k 1000"]), 0).unwrap_err();
    assert_eq!(fault.kind, FaultKind::StateLimit, "{fault}");
}

#[test]
fn a_store_that_fails_is_the_hosts_fault() {
    let bench = Bench::new();
    let table = Table::default();
    let mut instance = records(&bench, &table);
    table.fail("disk is on fire");
    let fault = instance.call(&payloads(&[b"get a"]), 0).unwrap_err();
    assert_eq!(fault.kind, FaultKind::State);
    assert!(fault.kind.is_host());
    assert!(fault.message.contains("disk is on fire"), "{fault}");
}
