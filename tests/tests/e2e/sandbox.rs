//! Six hostile handlers, each in a pipeline of its own, beside a healthy one in the same host (§11).

use wasmill::pipeline::snapshot::State;
use wasmill_tests::checker::{Checker, Guarantee, Terms};
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::until;
use wasmill_tests::site::{Site, plugin};

use crate::{probe, probe_pipeline, probe_terms};

const MAX_ATTEMPTS: u32 = 2;
/// What a hostile message asks for, and what it is dead-lettered as.
const MODES: [(&str, &str); 5] = [
    ("loop", "fault_timeout"),
    ("memory", "fault_memory"),
    ("recursion", "fault_stack"),
    ("trap", "fault_trap"),
    ("huge-output", "fault_output_limit"),
];
const HEALTHY: usize = 3_000;
const NEIGHBOURS: usize = 50;

fn hostile(name: &str, config: &str) -> String {
    format!(
        "  - name: {name}\n    source: {{ topics: [{name}], consumer_group: {name}, start: earliest }}\n    retry: {{ max_attempts: {MAX_ATTEMPTS}, backoff: {{ initial_interval: 5ms, max_interval: 5ms }} }}\n    handler: {{ plugin: {}, concurrency: 1, limits: {{ memory: 16MiB, time: 200ms }}{config} }}\n    outputs: {{ default: {{ topic: {name}.out, headers: [\"probe-*\"] }} }}\n",
        plugin("hostile").display()
    )
}

/// A hostile message between harmless ones that the same handler echoes.
fn inputs(name: &str, out: &'static str, reason: &'static str) -> Vec<Input> {
    let mut inputs: Vec<Input> = (0..NEIGHBOURS)
        .map(|n| {
            let expected = Expected::one(out);
            Input::planned(
                &format!("{name}-{n}"),
                &format!("key-{n}"),
                "ok",
                0,
                expected,
            )
        })
        .collect();
    let dead = Expected::dead(reason, MAX_ATTEMPTS);
    let mut bad = Input::planned(&format!("{name}-bad"), "bad", "ok", 0, dead);
    bad.payload = Some(format!("hostile:{name}").into_bytes());
    inputs.insert(NEIGHBOURS / 2, bad);
    inputs
}

#[test]
fn six_hostile_handlers_harm_neither_their_neighbours_nor_a_healthy_pipeline() {
    let mut yaml = probe_pipeline(&probe(""));
    for (name, _) in MODES {
        yaml += &hostile(name, "");
    }
    yaml += &hostile("init", ", config: { init: panic }");
    let site = Site::new(&yaml);
    let healthy: Vec<Input> = (0..HEALTHY)
        .map(|n| Input::ok(&format!("healthy-{n}"), &format!("key-{}", n % 99)))
        .collect();
    site.publish("in", 2, &healthy);
    let mut checkers = Vec::new();
    let mut checker = Checker::new(probe_terms(Guarantee::AtLeastOnce, MAX_ATTEMPTS));
    checker.acknowledge(&healthy);
    checkers.push(checker);
    for (name, reason) in MODES {
        let out: &'static str = format!("{name}.out").leak();
        let inputs = inputs(name, out, reason);
        site.publish(name, 1, &inputs);
        let mut checker = Checker::new(Terms {
            source: name,
            group: name,
            outputs: vec![out],
            dead_letters: format!("{name}.{name}.dlq"),
            ..probe_terms(Guarantee::AtLeastOnce, MAX_ATTEMPTS)
        });
        checker.acknowledge(&inputs);
        checkers.push(checker);
    }
    site.publish("init", 1, &[Input::ok("never", "called")]);

    let process = site.start();
    until("all but the pipeline that cannot start are done", || {
        let pipelines = process.status().pipelines;
        let is_done = pipelines.iter().filter(|p| p.pipeline != "init").all(|p| {
            p.state == State::Running
                && !p.partitions.is_empty()
                && p.partitions
                    .iter()
                    .all(|p| p.committed == p.end && p.held == 0)
        });
        let init = pipelines.iter().find(|p| p.pipeline == "init")?;
        (is_done && init.state == State::Failed).then_some(())
    });
    let status = process.status();
    let init = status
        .pipelines
        .iter()
        .find(|p| p.pipeline == "init")
        .unwrap();
    assert!(
        init.why
            .as_ref()
            .is_some_and(|why| why.contains("the start of this handler panics")),
        "{init:?}"
    );
    assert_eq!(init.partitions[0].committed, 0, "nothing of it was skipped");
    assert_eq!(process.health("/readyz").0, 503);
    assert_eq!(process.health("/livez").0, 200);
    process.stop();
    let log = site.open_log();
    for checker in checkers {
        checker.finish(&log).assert_clean();
    }
}
