//! What messages look like on their way through (§2.5, §6.1), in which order they come out (§4.1), and
//! how often (§3.3), with several pipelines on one topic.

use wasmill_tests::checker::{Checker, Guarantee, Terms};
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::site::{Site, Stored};

use crate::{probe, probe_pipeline, probe_terms};

/// Runs the inputs through a pipeline until all are finished.
fn run(lines: &str, inputs: &[Input]) -> Site {
    let pipelines = probe_pipeline(lines);
    let site = Site::new(&pipelines);
    // One partition everywhere: what is read back stands in the order in which it was written.
    site.configure("  create_topics: { partitions: 1 }\n", &pipelines);
    site.publish("in", 1, inputs);
    let mut process = site.start();
    process.await_drained();
    process.stop();
    site
}

fn ids(stored: &[Stored]) -> Vec<String> {
    stored.iter().map(Stored::id).collect()
}

#[test]
fn an_output_carries_trace_and_correlation_and_of_the_other_headers_those_that_are_named() {
    let input = Input::planned("h", "k", "headers", 0, Expected::one("out"))
        .header("correlation-id", "c-1")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .header("tracestate", "a=b")
        .header("baggage", "user=7")
        .header("tenant", "not named")
        .header("idempotency-key", "theirs")
        .header("x-retry-count", "3")
        .header("wasmill-other", "1");
    let site = run(&probe(""), &[input]);
    let out = site.read("out");
    let mut names: Vec<&str> = out[0]
        .headers
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "baggage",
            "correlation-id",
            "own",
            "probe-id",
            "traceparent",
            "tracestate"
        ]
    );
    assert_eq!(
        out[0].header("correlation-id").unwrap(),
        "c-1",
        "the guest cannot replace it"
    );
    assert_eq!(out[0].header("baggage").unwrap(), "user=7");
    assert_eq!(out[0].header("own").unwrap(), "kept");
}

#[test]
fn an_output_inherits_key_and_payload_unless_it_says_none_or_gives_a_value() {
    let inputs = [
        Input::ok("inherits", "k"),
        Input::planned("nothing", "k", "nothing", 0, Expected::Nothing),
    ];
    let site = run(&probe(""), &inputs);
    let (out, other) = (site.read("out"), site.read("other"));
    assert_eq!(ids(&out), ["inherits", "nothing"]);
    assert_eq!(
        (&out[0].key, &out[0].payload),
        (&inputs[0].key, &inputs[0].payload)
    );
    assert_eq!(
        (out[1].key.as_deref(), &out[1].payload),
        (Some(&b"k"[..]), &None),
        "a tombstone was asked for"
    );
    assert_eq!(
        (&other[0].key, other[0].payload.as_deref()),
        (&None, Some(&b""[..]))
    );
}

#[test]
fn outputs_of_one_message_come_all_or_not_at_all() {
    let unknown = Expected::dead("unknown_output", 1);
    let large = Expected::dead("fault_output_limit", 1);
    let many = Expected::Outputs(vec!["out", "other", "out", "other", "out"]);
    let inputs = [
        Input::planned("many", "a", "emit", 5, many),
        Input::planned("unknown", "b", "unknown_output", 0, unknown),
        Input::planned("large", "c", "oversize", 2 << 20, large),
        Input::planned(
            "too-many",
            "d",
            "emit",
            2_000,
            Expected::dead("fault_output_limit", 1),
        ),
        Input::planned("silent", "e", "silent", 0, Expected::Nothing),
    ];
    let site = run(
        &format!("    retry: {{ max_attempts: 1 }}\n{}", probe("")),
        &inputs,
    );
    let mut checker = Checker::new(probe_terms(Guarantee::AtLeastOnce, 1));
    checker.acknowledge(&inputs);
    let log = site.open_log();
    checker.finish(&log).assert_clean();
}

/// The first of three messages fails once: who waits for it?
fn order_of(ordering: &str, keys: [Option<&str>; 3]) -> Vec<String> {
    let mut inputs = vec![Input::planned(
        "first",
        "k",
        "fail_times",
        1,
        Expected::one("out"),
    )];
    inputs.extend(["second", "third"].map(|id| Input::ok(id, "k")));
    for (input, key) in inputs.iter_mut().zip(keys) {
        input.key = key.map(|key| key.as_bytes().to_vec());
    }
    let lines = format!(
        "    ordering: {ordering}\n    retry: {{ backoff: {{ initial_interval: 300ms, multiplier: 1, max_interval: 300ms }} }}\n{}",
        probe("")
    );
    ids(&run(&lines, &inputs).read("out"))
}

#[test]
fn messages_wait_for_those_before_them_in_their_lane_and_for_no_others() {
    let same = [Some("a"), Some("a"), Some("a")];
    let apart = [Some("a"), Some("b"), Some("a")];
    let keyless = [None, None, None];
    for (ordering, keys, expected) in [
        ("{ by: key }", same, ["first", "second", "third"]),
        ("{ by: key }", apart, ["second", "first", "third"]),
        ("{ by: key }", keyless, ["second", "third", "first"]),
        (
            "{ by: key, null_key: partition }",
            keyless,
            ["first", "second", "third"],
        ),
        ("{ by: partition }", apart, ["first", "second", "third"]),
        ("{ by: none }", same, ["second", "third", "first"]),
    ] {
        let out = order_of(ordering, keys);
        assert_eq!(out, expected, "{ordering} {keys:?}");
    }
}

/// §3.3: durable before the call, never again.
#[test]
fn at_most_once_never_calls_twice_and_counts_what_failed() {
    let inputs = [
        Input::planned("killed", "a", "ok", 0, Expected::one("out")),
        Input::planned("fails", "b", "always_fail", 0, Expected::Nothing),
        Input::planned("good", "c", "ok", 0, Expected::one("out")),
    ];
    let lines = format!("    delivery: at_most_once\n{}", probe(", batch: 1"));
    let site = Site::new(&probe_pipeline(&lines));
    site.publish("in", 1, &inputs);
    let mut checker = Checker::new(probe_terms(Guarantee::AtMostOnce, 5));
    checker.acknowledge(&inputs);
    site.spawn(&[("WASMILL_FAULT", "before_call:1")])
        .await_end();
    let log = site.open_log();
    checker.after_kill(&log);
    log.close().unwrap();
    let mut process = site.start();
    process.await_drained();
    assert_eq!(
        process.metric(
            "wasmill_messages_consumed_total",
            &["outcome=\"discarded\""]
        ),
        1.0
    );
    process.stop();
    assert_eq!(ids(&site.read("out")), ["good"]);
    assert!(site.read("in.g.dlq").is_empty());
    let log = site.open_log();
    checker.finish(&log).assert_clean();
}

#[test]
fn every_group_on_a_topic_gets_every_message() {
    let second = probe_pipeline(&probe(""))
        .replace("name: probe", "name: second")
        .replace("consumer_group: g", "consumer_group: h")
        .replace("topic: out", "topic: out2");
    let site = Site::new(&format!("{}{second}", probe_pipeline(&probe(""))));
    let inputs: Vec<Input> = (0..500)
        .map(|n| Input::ok(&format!("{n}"), &format!("k{}", n % 7)))
        .collect();
    site.publish("in", 3, &inputs);
    let mut process = site.start();
    process.await_drained();
    process.stop();
    let log = site.open_log();
    for (group, out) in [("g", "out"), ("h", "out2")] {
        let inputs: Vec<Input> = inputs
            .iter()
            .map(|input| Input {
                expected: Expected::one(out),
                ..input.clone()
            })
            .collect();
        let mut checker = Checker::new(Terms {
            group,
            outputs: vec![out],
            dead_letters: format!("in.{group}.dlq"),
            succeeded_min: 500,
            ..probe_terms(Guarantee::AtLeastOnce, 5)
        });
        checker.acknowledge(&inputs);
        checker.finish(&log).assert_clean();
    }
}
