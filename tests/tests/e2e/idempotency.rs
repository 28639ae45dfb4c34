//! Idempotency across partitions and restarts (§7): one effect a key, or the stored one again, and a
//! conflict where the content differs.

use wasmill_tests::input::{Expected, Input};
use wasmill_tests::site::Site;

use crate::{probe, probe_pipeline};

/// The same order twice in each of two partitions, and one of other content; two of each before a
/// restart and the others after.
fn run(on_duplicate: &str) -> (Site, Vec<String>) {
    let lines = format!(
        "    delivery: exactly_once\n    idempotency: {{ key: message.header(\"order\"), ttl: 1h, on_duplicate: {on_duplicate} }}\n{}",
        probe("")
    );
    let site = Site::new(&probe_pipeline(&lines));
    let order = |id: &str, partition| Input::ok(id, "k").header("order", "7").at(partition);
    let other = Input::planned(
        "other",
        "k",
        "ok",
        1,
        Expected::dead("idempotency_conflict", 0),
    );
    let rounds = [
        vec![order("a", 0), order("b", 1)],
        vec![
            order("c", 0),
            order("d", 1),
            other.header("order", "7").at(1),
            Input::ok("keyless", "k").at(0),
        ],
    ];
    let mut missing = 0.0;
    for inputs in rounds {
        site.publish("in", 2, &inputs);
        let mut process = site.start();
        process.await_drained();
        missing += process.metric("wasmill_idempotency_total", &["missing"]);
        process.stop();
    }
    assert_eq!(missing, 1.0, "that of the message without a key");
    let letters = site.read("in.g.dlq");
    let mut reasons: Vec<String> = letters
        .iter()
        .map(|letter| {
            format!(
                "{} {}",
                letter.id(),
                letter.header("wasmill-dlq-reason").unwrap()
            )
        })
        .collect();
    reasons.sort();
    (site, reasons)
}

#[test]
fn a_duplicate_is_skipped_across_partitions_and_restarts_and_other_content_is_a_conflict() {
    let (site, letters) = run("skip");
    let out = site.read("out");
    assert_eq!(out.len(), 1);
    assert!(["a", "b"].contains(&out[0].id().as_str()));
    assert_eq!(
        letters,
        ["keyless no_idempotency_key", "other idempotency_conflict"]
    );
}

#[test]
fn a_duplicate_is_answered_with_the_stored_outputs_when_replay_is_asked_for() {
    let (site, letters) = run("replay");
    let out = site.read("out");
    assert_eq!(out.len(), 4, "once for each delivery");
    assert!(
        out.iter().all(|message| message.id() == out[0].id()),
        "always the first one's"
    );
    assert_eq!(
        letters,
        ["keyless no_idempotency_key", "other idempotency_conflict"]
    );
}

/// §2.1: a payload that is not of its format is that, whatever the filter or a deadline would come to, and
/// also when the idempotency key would have found out.
#[test]
fn what_cannot_be_decoded_is_told_before_filter_and_deadline() {
    let lines = "    filter: message.header(\"wanted\") == \"yes\"\n    idempotency: { key: message.json.n, ttl: 1h }\n";
    let pipeline = probe_pipeline(&format!("{lines}{}", probe("")));
    let site = Site::new(&pipeline.replace("start: earliest", "start: earliest, format: json"));
    let bad = |id: &str, wanted: &str| Input {
        payload: Some(b"no JSON".to_vec()),
        ..Input::ok(id, "k").header("wanted", wanted)
    };
    site.publish(
        "in",
        1,
        &[
            bad("unwanted", "no"),
            bad("late", "yes").header("wasmill-deadline", "1"),
            Input::ok("passed-over", "k").header("wanted", "no"),
            Input::ok("expired", "k")
                .header("wanted", "yes")
                .header("wasmill-deadline", "1"),
        ],
    );
    let mut process = site.start();
    process.await_drained();
    let passed_over = |outcome| process.metric("wasmill_messages_consumed_total", &[outcome]);
    assert_eq!(
        (passed_over("filtered"), passed_over("expired")),
        (1.0, 1.0)
    );
    process.stop();
    let letters = site.read("in.g.dlq");
    let ids: Vec<String> = letters.iter().map(|letter| letter.id()).collect();
    assert_eq!(ids, ["unwanted", "late"]);
    for letter in &letters {
        assert_eq!(letter.header("wasmill-dlq-reason").unwrap(), "undecodable");
    }
}

/// Peak of the resident memory of a process, MiB.
fn peak_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.unwrap().split_whitespace().nth(1).unwrap();
    kib.parse::<u64>().unwrap() / 1_024
}

/// §7.1, §9: what duplicates publish again is bounded as what a call publishes is. Here they are small and
/// their outputs are not: 40 of 8 MB.
#[test]
fn stored_outputs_count_against_the_size_of_a_call() {
    const COPIES: u32 = 40;
    let site = Site::new(&probe_pipeline(&format!(
        "    delivery: exactly_once\n    idempotency: {{ key: message.header(\"order\"), ttl: 1h, on_duplicate: replay, if_missing: process }}\n{}",
        probe(", concurrency: 1")
    )));
    let order = |id: &str| {
        let mut input = Input::planned(id, "k", "emit", 1_000, Expected::one("out"));
        let pad = "x".repeat(8 << 10);
        input.payload = Some(format!(r#"{{"plan":"emit","n":1000,"pad":"{pad}"}}"#).into_bytes());
        input.header("order", "7")
    };
    site.publish("in", 1, &[order("first")]);
    let mut process = site.start();
    process.await_drained();
    let before = peak_mib(process.pid());
    process.stop();
    // Many of these go into one call.
    let copies: Vec<_> = (0..COPIES).map(|_| order("again")).collect();
    site.publish("in", 1, &copies);
    let mut process = site.start();
    process.await_drained();
    let replayed = process.metric("wasmill_idempotency_total", &["replayed"]);
    assert_eq!(replayed, f64::from(COPIES));
    let grown = peak_mib(process.pid()).saturating_sub(before);
    process.stop();
    assert!(grown < 200, "{grown} MiB");
}
