//! Messages that come back by way of an internal topic: deferred retries (§5.2), and dead letters that
//! were sent again (§6.4), through kills and restarts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use wasmill::connector::embedded::{Append, ChunkBuilder, Commit, Log};
use wasmill::message::{HeadersBuf, MessageRef};
use wasmill::pipeline::letter_state;
use wasmill::pipeline::returned::{self, Returned};
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::{Process, until};
use wasmill_tests::site::{Site, Stored, plugin};

use crate::{probe, probe_pipeline};

const DEFERRED: &str = "    ordering: { by: none }\n    retry: { mode: deferred, max_attempts: 4, backoff: { initial_interval: 300ms, multiplier: 2, max_interval: 600ms } }\n";

fn lines(more: &str) -> String {
    probe_pipeline(&format!("{DEFERRED}{more}{}", probe("")))
}

fn outputs(site: &Site) -> HashMap<String, usize> {
    let mut seen = HashMap::new();
    for message in site.read("out") {
        *seen.entry(message.id()).or_default() += 1;
    }
    seen
}

/// Attempts of a message in the host's log, as the probe wrote them, with the host's time (ms).
fn attempts(site: &Site, id: &str) -> Vec<(u32, i64)> {
    let text = std::fs::read_to_string(site.host_log()).unwrap();
    text.lines()
        .filter_map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let message = line["message"].as_str()?;
            let number = message
                .strip_prefix("attempt ")?
                .strip_suffix(&format!(" of {id}"))?;
            let at = line["timestamp"].as_str()?;
            Some((number.parse().ok()?, unix_ms(at)))
        })
        .collect()
}

/// Of `…T10:15:00.123456Z`: enough for differences within a day.
fn unix_ms(text: &str) -> i64 {
    let (_, time) = text.split_once('T').unwrap();
    let mut parts = time.trim_end_matches('Z').split(':');
    let mut next = || parts.next().unwrap().parse::<f64>().unwrap();
    let seconds = next() * 3_600.0 + next() * 60.0 + next();
    (seconds * 1_000.0) as i64
}

#[test]
fn a_message_that_is_put_aside_holds_nobody_up_and_comes_back_when_it_is_due() {
    let site = Site::new(&lines(""));
    let mut inputs = vec![
        Input::planned("twice", "a", "fail_times", 2, Expected::one("out")),
        Input::planned(
            "never",
            "a",
            "always_fail",
            0,
            Expected::dead("attempts_exhausted", 4),
        ),
    ];
    inputs.extend((0..50).map(|n| Input::ok(&format!("ok-{n}"), "a")));
    site.publish("in", 1, &inputs);
    let mut process = site.start();
    process.await_drained();
    process.stop();
    let seen = outputs(&site);
    assert_eq!(seen.len(), 51);
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    // Those behind it did not wait: it comes last.
    assert_eq!(site.read("out").last().unwrap().id(), "twice");
    let tries = attempts(&site, "twice");
    assert_eq!(tries.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [1, 2, 3]);
    let waits: Vec<i64> = tries.windows(2).map(|pair| pair[1].1 - pair[0].1).collect();
    assert!(waits[0] >= 299 && waits[1] >= 599, "not early: {waits:?}");
    assert_eq!(attempts(&site, "never").len(), 4);
    let letters = site.read("in.g.dlq");
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.header("wasmill-dlq-attempts").unwrap(), "4");
    assert_eq!(letter.header("wasmill-dlq-origin-topic").unwrap(), "in");
    assert_eq!(letter.header("wasmill-dlq-origin-offset").unwrap(), "1");
    // What the host wrote on the way is not the message's.
    let own: Vec<&str> = letter
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(
        !own.contains(&"x-retry-count") && !own.contains(&"wasmill-retry-due"),
        "{own:?}"
    );
}

#[test]
fn a_waiting_message_survives_kills_and_is_tried_neither_twice_nor_too_often() {
    let site = Site::new(&lines("    delivery: exactly_once\n"));
    let inputs: Vec<Input> = (0..200)
        .map(|n| {
            Input::planned(
                &format!("job-{n}"),
                "k",
                "fail_times",
                n % 4,
                Expected::one("out"),
            )
        })
        .collect();
    site.publish("in", 3, &inputs);
    for fault in [
        "put_aside:40",
        "after_call:3",
        "before_submit:5",
        "judged:4",
    ] {
        let mut process = site.spawn(&[("WASMILL_FAULT", fault)]);
        until("the host dies, or has done everything", || {
            if process.ended().is_some() {
                return Some(());
            }
            (process.is_ready() && process.is_drained()).then_some(())
        });
        if process.ended().is_none() {
            process.kill();
        }
    }
    let mut process = site.start();
    process.await_drained();
    process.stop();
    let seen = outputs(&site);
    assert_eq!(seen.len(), 200);
    assert!(seen.values().all(|count| *count == 1), "{seen:?}");
    assert!(site.read("in.g.dlq").is_empty());
}

/// Another ladder after a restart: who waits in a step that is gone comes back all the same.
#[test]
fn messages_in_a_step_that_the_configuration_has_no_more_come_back() {
    let site = Site::new(&lines(""));
    let waits = Input::planned("waits", "a", "fail_times", 1, Expected::one("out"));
    site.publish("in", 1, &[waits]);
    let process = site.start();
    until("it is put aside", || {
        (process.metric("wasmill_retries_total", &[]) >= 1.0).then_some(())
    });
    process.stop();
    let free = "    ordering: { by: none }\n";
    site.configure("", &probe_pipeline(&format!("{free}{}", probe(""))));
    let mut process = site.start();
    process.await_drained();
    process.stop();
    assert_eq!(outputs(&site).get("waits"), Some(&1));
}

/// A reload of a pipeline that is in a call: what that call puts aside while the old one ends goes into a step
/// that the new one has no more, and comes back all the same (§5.2).
#[test]
fn a_reload_reads_what_the_old_pipeline_puts_aside_while_it_ends() {
    let limits = probe(", limits: { time: 2s }");
    let old = DEFERRED.replace("max_attempts: 4", "max_attempts: 2");
    let site = Site::new(&probe_pipeline(&format!("{old}{limits}")));
    let dead = Expected::dead("fault_timeout", 2);
    let slow = Input::planned("slow", "a", "sleep", 600_000, dead);
    site.publish("in", 1, &[slow]);
    let mut process = site.start();
    until("it is in its call", || {
        (process.metric("wasmill_in_flight", &[]) >= 1.0).then_some(())
    });
    assert_eq!(process.metric("wasmill_retries_total", &[]), 0.0);
    let inline = "    ordering: { by: none }\n    retry: { max_attempts: 2 }\n";
    site.configure("", &probe_pipeline(&format!("{inline}{limits}")));
    let data_dir = site.data_dir();
    let place = ["--data-dir", data_dir.to_str().unwrap(), "reload"];
    assert!(site.command(&place, &[]).status.success());
    assert!(
        process.metric("wasmill_retries_total", &[]) >= 1.0,
        "in the drain"
    );
    process.await_drained();
    until("it has come back and failed once more", || {
        (process.metric("wasmill_dead_letters_total", &["fault_timeout"]) >= 1.0).then_some(())
    });
    process.stop();
    let letters = site.read("in.g.dlq");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].header("wasmill-dlq-attempts").unwrap(), "2");
}

fn redrive(log: &Log, letter: &Stored, round: u32) {
    let text = |name: &str| letter.header(&format!("wasmill-dlq-{name}")).unwrap();
    let known = Returned {
        attempts: 0,
        due_ms: 0,
        first_failed_at_ms: None,
        origin_topic: text("origin-topic"),
        origin_partition: text("origin-partition").parse().unwrap(),
        origin_offset: text("origin-offset").parse().unwrap(),
        redrive_count: round,
        dead_letter_id: Some(text("id")),
    };
    let mut own = HeadersBuf::new();
    for (name, value) in &letter.headers {
        if !name.starts_with("wasmill-dlq-") {
            assert!(own.push(name, value.as_deref()));
        }
    }
    let message = MessageRef {
        key: letter.key.as_deref(),
        payload: letter.payload.as_deref(),
        headers: own.as_headers(),
        timestamp_ms: 0,
    };
    let mut headers = HeadersBuf::new();
    let record = known.record(&message, &mut headers).unwrap();
    let mut chunk = ChunkBuilder::new();
    chunk.push(&record);
    let topic = log.topic(&returned::redrive_topic("in", "g")).unwrap();
    log.commit(Commit {
        appends: vec![Append {
            partition: topic.partition(known.origin_partition).unwrap(),
            chunk: chunk.finish(),
        }],
        ..Commit::default()
    })
    .unwrap();
}

fn state(log: &Log, id: &str, round: u32) -> Option<letter_state::State> {
    let value = log.meta_get(&letter_state::key(id, round)).unwrap()?;
    Some(letter_state::Record::decode(&value).unwrap().state)
}

/// §6.4, §7.5: its key stands as failed, and a redrive is another round all the same; what succeeded is
/// not done again.
#[test]
fn a_redriven_dead_letter_is_tried_anew_although_its_key_stands_as_failed() {
    let keyed = "    delivery: exactly_once\n    idempotency: { key: message.header(\"order\"), ttl: 1h }\n";
    let site = Site::new(&probe_pipeline(&format!("{keyed}{}", probe(""))));
    let bad = Input::planned("bad", "a", "reject", 0, Expected::dead("rejected", 1));
    site.publish("in", 2, &[bad.header("order", "7")]);
    let run = || {
        let mut process: Process = site.start();
        process.await_drained();
        process.stop();
    };
    run();
    let first = site.read("in.g.dlq").remove(0);
    let id = first.header("wasmill-dlq-id").unwrap();
    // The same handler: it fails again, as a dead letter of the next round under the same ID.
    let log = site.open_log();
    redrive(&log, &first, 1);
    log.close().unwrap();
    run();
    let letters = site.read("in.g.dlq");
    assert_eq!(letters.len(), 2);
    let second = &letters[1];
    assert_eq!(second.header("wasmill-dlq-id").unwrap(), id);
    assert_eq!(second.header("wasmill-dlq-redrive-count").unwrap(), "1");
    assert_eq!(
        second.header("wasmill-dlq-origin-offset"),
        first.header("wasmill-dlq-origin-offset")
    );
    assert_eq!(second.payload, first.payload);
    let log = site.open_log();
    assert_eq!(state(&log, &id, 0), Some(letter_state::State::Done));
    assert_eq!(state(&log, &id, 1), None);
    // A mended one: it succeeds, once, also when it is sent twice.
    redrive(&log, second, 2);
    redrive(&log, second, 2);
    log.close().unwrap();
    let mended = probe("").replace("probe.wasm", "mended.wasm");
    assert!(plugin("mended").exists() && mended != probe(""));
    site.configure("", &probe_pipeline(&format!("{keyed}{mended}")));
    run();
    assert_eq!(outputs(&site), HashMap::from([("bad".to_owned(), 1)]));
    assert_eq!(site.read("in.g.dlq").len(), 2);
    let log = site.open_log();
    assert_eq!(state(&log, &id, 1), Some(letter_state::State::Done));
    log.close().unwrap();
}

/// Many that wait are due in time, and cost no memory: they lie in the log.
#[test]
fn ten_thousand_waiting_messages_are_due_in_time() {
    let site = Site::new(&probe_pipeline(&format!(
        "    ordering: {{ by: none }}\n    retry: {{ mode: deferred, backoff: {{ initial_interval: 3s, max_interval: 3s }} }}\n{}",
        probe(", limits: { log_lines: 1 }")
    )));
    let inputs: Vec<Input> = (0..10_000)
        .map(|n| Input::planned(&format!("j{n}"), "k", "fail_times", 1, Expected::one("out")))
        .collect();
    site.publish("in", 2, &inputs);
    let mut process = site.start();
    let began = Instant::now();
    process.await_drained();
    let took = began.elapsed();
    process.stop();
    assert_eq!(outputs(&site).len(), 10_000);
    assert!(took >= Duration::from_secs(3), "{took:?}");
}
