//! A handler's state through kills: its writes belong to the settlement of their message (§2.2, §3.2).

use std::collections::BTreeMap;

use rand::RngExt as _;
use wasmill_tests::checker::{Checker, Guarantee};
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::within;
use wasmill_tests::site::{Site, plugin};

use crate::{probe_pipeline, probe_terms};

const MESSAGES: usize = 1_500;
const KEYS: usize = 12;
const STAGES: [&str; 7] = [
    "before_call",
    "after_call",
    "judged",
    "before_submit",
    "before_write",
    "after_sync",
    "acknowledged",
];

#[test]
fn every_message_is_counted_once_in_the_state_through_kills_at_every_stage() {
    let lines = format!(
        "    delivery: exactly_once\n    retry: {{ max_attempts: 20, backoff: {{ initial_interval: 1ms, max_interval: 2ms }} }}\n    handler: {{ plugin: {}, allow: {{ state: {{}} }}, concurrency: 2 }}\n",
        plugin("tally").display()
    );
    let site = Site::new(&probe_pipeline(&lines));
    let inputs: Vec<Input> = (0..MESSAGES)
        .map(|n| {
            let key = format!("k{}", n % KEYS);
            let mut input = Input::planned(&format!("{n}"), &key, "ok", 0, Expected::one("out"));
            if n % 10 == 3 {
                input.payload = Some(b"fail once".to_vec());
            }
            input
        })
        .collect();
    site.publish("in", 3, &inputs);
    let mut checker = Checker::new(probe_terms(Guarantee::ExactlyOnce, 20));
    checker.acknowledge(&inputs);
    let mut kills = 0;
    for stage in STAGES.iter().cycle().take(2 * STAGES.len()) {
        let passage = rand::rng().random_range(5..60);
        let mut process = site.spawn(&[("WASMILL_FAULT", &format!("{stage}:{passage}"))]);
        let died = within(wasmill_tests::process::DEADLINE, || {
            let is_done = process.is_ready() && process.is_drained();
            (is_done || process.ended().is_some()).then_some(())
        });
        assert!(died.is_some(), "{stage}:{passage} is not reached");
        kills += usize::from(process.ended().is_some());
        drop(process);
        let log = site.open_log();
        checker.after_kill(&log);
        log.close().unwrap();
    }
    assert!(
        kills >= STAGES.len(),
        "only {kills} kills before it was done"
    );
    let mut process = site.start();
    process.await_drained();
    process.stop();
    let log = site.open_log();
    checker.finish(&log).assert_clean();
    log.close().unwrap();
    let mut counts: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for output in site.read("out") {
        let count = output.header("count").unwrap().parse().unwrap();
        counts.entry(output.key.unwrap()).or_default().push(count);
    }
    assert_eq!(counts.len(), KEYS);
    for (key, counts) in counts {
        let expected: Vec<usize> = (1..=MESSAGES / KEYS).collect();
        assert_eq!(counts, expected, "{}", String::from_utf8_lossy(&key));
    }
}
