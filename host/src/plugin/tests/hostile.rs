//! plugins/hostile: what a compiled handler can do to the host, and that the next call works.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::payloads;
use crate::config::valid::Limits;
use crate::plugin::frame::{Field, Outcome};
use crate::plugin::testing::{Bench, built, limits};
use crate::plugin::{Fault, FaultKind, Instance, LOG_LINES_HELD_MAX, LOG_TEXT_MAX, LogLevel};

fn hostile(bench: &Bench, limits: &Limits) -> Instance {
    configured(bench, limits, &[])
}

fn configured(bench: &Bench, limits: &Limits, config: &[(&str, &str)]) -> Instance {
    let config: BTreeMap<String, String> = config
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    bench
        .load(&built("hostile"), limits)
        .instance(&config, None)
}

fn short() -> Limits {
    Limits {
        time: Duration::from_millis(200),
        ..limits()
    }
}

/// The fault of a batch whose middle message asks for `mode`; afterwards the same instance must work.
fn fault(mode: &str, limits: &Limits) -> (Fault, Instance, Bench) {
    let bench = Bench::new();
    let mut instance = hostile(&bench, limits);
    let bad = format!("hostile:{mode}");
    let batch = payloads(&[b"a", bad.as_bytes(), b"b"]);
    let fault = instance.call(&batch, 0).unwrap_err();
    let outcomes = instance.call(&payloads(&[b"a", b"b"]), 0).unwrap();
    assert!(
        outcomes
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Outputs(_)))
    );
    (fault, instance, bench)
}

#[test]
fn an_endless_loop_is_a_timeout() {
    let start = Instant::now();
    let (fault, ..) = fault("loop", &short());
    assert_eq!(fault.kind, FaultKind::Timeout, "{fault}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_memory_bomb_is_a_memory_fault_and_its_memory_comes_back() {
    let (fault, mut instance, bench) = fault("memory", &limits());
    assert_eq!(fault.kind, FaultKind::Memory, "{fault}");
    instance.reset();
    assert_eq!(bench.engine.guest_memory_used(), 0);
}

#[test]
fn recursion_without_end_is_a_stack_fault() {
    // Rust keeps part of a frame in linear memory, so that stack may run out first.
    let (fault, ..) = fault("recursion", &limits());
    assert!(
        matches!(fault.kind, FaultKind::Stack | FaultKind::Trap),
        "{fault}"
    );
}

#[test]
fn a_trap_is_a_trap() {
    let (fault, ..) = fault("trap", &limits());
    assert_eq!(fault.kind, FaultKind::Trap, "{fault}");
}

#[test]
fn a_panic_is_a_trap_that_quotes_the_panic() {
    let (fault, mut instance, _bench) = fault("panic", &limits());
    assert_eq!(fault.kind, FaultKind::Trap);
    assert!(fault.message.contains("no: corr-1"), "{fault}");
    assert!(fault.message.contains("src/lib.rs"), "{fault}");
    let logs = instance.take_logs();
    assert!(
        logs.iter().any(|line| line.level == LogLevel::Error),
        "{logs:?}"
    );
}

#[test]
fn an_outcome_that_is_not_a_frame_is_undecodable() {
    assert_eq!(
        fault("undecodable", &limits()).0.kind,
        FaultKind::Undecodable
    );
}

#[test]
fn a_reply_of_100_mib_is_an_output_limit_fault() {
    let large = Limits {
        memory: 128 << 20,
        ..limits()
    };
    let (fault, ..) = fault("huge-frame", &large);
    assert_eq!(fault.kind, FaultKind::OutputLimit, "{fault}");
}

#[test]
fn only_the_message_with_too_many_or_too_big_outputs_is_at_fault() {
    let bench = Bench::new();
    let mut instance = hostile(
        &bench,
        &Limits {
            memory: 128 << 20,
            ..limits()
        },
    );
    for (mode, text) in [
        ("million-outputs", "1000000 outputs"),
        ("huge-output", "2097152 bytes"),
    ] {
        let bad = format!("hostile:{mode}");
        let outcomes = instance
            .call(&payloads(&[b"a", bad.as_bytes(), b"b"]), 0)
            .unwrap();
        let outcomes: Vec<Outcome<'_>> = outcomes.iter().collect();
        assert!(matches!(&outcomes[0], Outcome::Outputs(o) if o.len() == 1));
        assert!(matches!(&outcomes[2], Outcome::Outputs(o) if o.len() == 1));
        let Outcome::OverLimit(fault) = &outcomes[1] else {
            panic!("{outcomes:?}");
        };
        assert_eq!(fault.kind, FaultKind::OutputLimit);
        assert!(fault.message.contains(text), "{fault}");
    }
}

#[test]
fn a_log_flood_is_cut_and_the_call_succeeds() {
    let bench = Bench::new();
    let limits = Limits {
        log_lines: 100,
        ..limits()
    };
    let mut instance = hostile(&bench, &limits);
    assert!(instance.call(&payloads(&[b"hostile:log-flood"]), 0).is_ok());
    let lines = instance.take_logs();
    assert!(
        lines.len() >= 100 && lines.len() <= LOG_LINES_HELD_MAX + 1,
        "{}",
        lines.len()
    );
    assert!(lines.iter().all(|line| line.text.len() <= LOG_TEXT_MAX));
}

#[test]
fn the_line_rate_is_one_for_all_instances_of_a_pipeline() {
    let bench = Bench::new();
    let limits = Limits {
        log_lines: 10,
        ..limits()
    };
    let plugin = bench.load(&built("hostile"), &limits);
    let start = Instant::now();
    let lines: usize = (0..4)
        .map(|_| {
            let mut instance = plugin.instance(&BTreeMap::new(), None);
            assert!(instance.call(&payloads(&[b"hostile:log-flood"]), 0).is_ok());
            instance.take_logs().len()
        })
        .sum();
    let allowed = 10.0 * (1.0 + start.elapsed().as_secs_f64()) + 4.0;
    assert!(lines as f64 <= allowed, "{lines} lines, {allowed} allowed");
}

#[test]
fn a_log_line_cannot_forge_another() {
    let bench = Bench::new();
    let mut instance = hostile(&bench, &limits());
    assert!(
        instance
            .call(&payloads(&[b"a", b"hostile:log-injection"]), 0)
            .is_ok()
    );
    let lines = instance.take_logs();
    assert_eq!(
        lines[0].text,
        "one\\n2026-01-01T00:00:00Z ERROR two\\u{1b}[2J"
    );
    assert_eq!(lines[0].about, Some(1));
    assert_eq!(lines[1].about, None, "about no message of the batch");
}

#[test]
fn a_panic_while_starting_is_an_instantiation_fault_and_the_plugin_stays_loaded() {
    let bench = Bench::new();
    let mut instance = configured(&bench, &limits(), &[("init", "panic")]);
    for _ in 0..3 {
        let fault = instance.call(&payloads(&[b"a"]), 0).unwrap_err();
        assert_eq!(fault.kind, FaultKind::Instantiation, "{fault}");
        assert!(
            fault.message.contains("the start of this handler panics"),
            "{fault}"
        );
    }
    assert!(
        hostile(&bench, &limits())
            .call(&payloads(&[b"a"]), 0)
            .is_ok()
    );
}

#[test]
fn a_loop_while_starting_ends_within_the_time_limit() {
    let bench = Bench::new();
    let mut instance = configured(&bench, &short(), &[("init", "loop")]);
    let fault = instance.call(&payloads(&[b"a"]), 0).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Instantiation, "{fault}");
    assert!(fault.message.contains("timeout"), "{fault}");
}

#[test]
fn nothing_is_left_between_messages_after_a_reset() {
    let bench = Bench::new();
    let mut instance = hostile(&bench, &limits());
    let mut count = |fresh: bool| {
        if fresh {
            instance.reset();
        }
        let outcomes = instance.call(&payloads(&[b"hostile:count"]), 0).unwrap();
        let Some(Outcome::Outputs(mut outputs)) = outcomes.get(0) else {
            panic!("{outcomes:?}");
        };
        let Some(Field::Value(seen)) = outputs.next().map(|output| output.payload) else {
            panic!("no count");
        };
        String::from_utf8(seen.to_vec()).unwrap()
    };
    assert_eq!(
        [count(false), count(false), count(true), count(true)],
        ["1", "2", "1", "1"]
    );
}

#[test]
fn failures_carry_their_reason() {
    let bench = Bench::new();
    let mut instance = hostile(&bench, &limits());
    let batch = payloads(&[
        b"hostile:retryable",
        b"hostile:rejected",
        b"hostile:silence",
    ]);
    let outcomes = instance.call(&batch, 0).unwrap();
    let outcomes: Vec<Outcome<'_>> = outcomes.iter().collect();
    assert!(matches!(
        outcomes[0],
        Outcome::Retryable {
            reason: "asked to fail for now",
            after: None
        }
    ));
    assert!(matches!(
        outcomes[1],
        Outcome::Rejected {
            reason: "asked to fail for good"
        }
    ));
    assert!(matches!(&outcomes[2], Outcome::Outputs(outputs) if outputs.is_empty()));
}

#[test]
fn a_batch_of_many_megabytes_passes() {
    let bench = Bench::new();
    let mut instance = hostile(&bench, &limits());
    let payload = vec![b'x'; 1 << 20];
    let batch = payloads(&[payload.as_slice(); 8]);
    assert_eq!(instance.call(&batch, 0).unwrap().len(), 8);
}
