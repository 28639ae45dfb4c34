//! What an operator sees of one message (§12): its story, the log lines about it, of host and handler.

use wasmill::admin::token::{Address, Token};
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::site::Site;

use crate::{probe, probe_pipeline};

const RETRY: &str =
    "    retry: { max_attempts: 5, backoff: { initial_interval: 50ms, max_interval: 100ms } }\n";

fn json(site: &Site, arguments: &[&str]) -> serde_json::Value {
    let data_dir = site.data_dir();
    let mut all = vec!["--data-dir", data_dir.to_str().unwrap()];
    all.extend(arguments);
    all.extend(["-o", "json"]);
    let done = site.command(&all, &[]);
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{text}");
    serde_json::from_slice(&done.stdout).unwrap()
}

fn words<'v>(value: &'v serde_json::Value, list: &str, field: &str) -> Vec<&'v str> {
    let list = value[list].as_array().unwrap();
    list.iter().filter_map(|one| one[field].as_str()).collect()
}

#[test]
fn a_message_that_fails_twice_is_told_from_publish_to_output_with_host_and_without() {
    let site = Site::new(&probe_pipeline(&format!("{RETRY}{}", probe(""))));
    let twice = Input::planned("twice", "a", "fail_times", 2, Expected::one("out"));
    site.publish(
        "in",
        1,
        &[
            twice.header("correlation-id", "story-1"),
            Input::ok("other", "b"),
        ],
    );
    let mut process = site.start();
    process.await_drained();

    let trace = json(&site, &["trace", "story-1"]);
    let told = words(&trace, "events", "what");
    let told: Vec<_> = told.into_iter().filter(|what| *what != "guest").collect();
    assert_eq!(
        told,
        ["published", "attempt", "attempt", "output"],
        "{trace:#}"
    );
    let events = trace["events"].as_array().unwrap();
    let attempts: Vec<_> = events
        .iter()
        .filter_map(|event| event["attempt"].as_u64())
        .collect();
    assert_eq!(attempts, [1, 2]);
    let failed = events.iter().filter(|event| event["what"] == "attempt");
    for event in failed {
        assert!(
            event["error"].is_string() && event["next_try_ms"].is_i64(),
            "{event:#}"
        );
    }
    assert_eq!(trace["groups"][0]["finished"], true);
    assert_eq!(trace["complete"], true);

    // The host is killed: what it said of the message is still there.
    process.kill();
    let lines = json(&site, &["logs", "--correlation-id", "story-1"]);
    let targets = words(&lines, "lines", "target");
    assert!(targets.contains(&"guest"), "{lines:#}");
    assert!(
        targets.iter().any(|target| target.starts_with("wasmill")),
        "{lines:#}"
    );
    let ids = words(&lines, "lines", "correlation_id");
    assert!(ids.iter().all(|id| *id == "story-1"));
    let again = json(&site, &["trace", "story-1"]);
    assert_eq!(again["events"], trace["events"]);
}

#[test]
fn the_logs_come_over_http_and_a_wrong_level_suggests_the_nearest() {
    let site = Site::new(&probe_pipeline(&probe("")));
    site.publish("in", 1, &[Input::ok("one", "a")]);
    let mut process = site.start();
    process.await_drained();
    let page = process
        .remote()
        .logs(&wasmill::admin::logs::LogQuery::default())
        .unwrap();
    assert!(page.lines.iter().any(|line| line.message == "running"));
    process.stop();
    let wrong = site.command(&["logs", "--level", "wran"], &[]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean warn?"));
}

/// A killed host leaves its address and token behind. The next one takes the lock first and compiles plugins
/// then: a command in that time must not be sent to whoever listens there by now.
#[test]
fn what_a_killed_host_left_is_gone_before_the_next_one_looks_at_its_plugins() {
    let site = Site::new("");
    let no_plugin = site.path().join("no.wasm");
    std::fs::write(&no_plugin, "no plugin").unwrap();
    let handler = format!("    handler: {{ plugin: {} }}\n", no_plugin.display());
    site.configure("", &probe_pipeline(&handler));
    site.publish("in", 1, &[]);
    let data_dir = site.data_dir();
    Token::random().write(&data_dir).unwrap();
    let nobody = "127.0.0.1:9".parse().unwrap();
    Address {
        admin: nobody,
        health: nobody,
        tls: false,
        pid: 1,
        version: "0".to_owned(),
    }
    .write(&data_dir)
    .unwrap();
    let done = site.command(&["run", site.config().to_str().unwrap()], &[]);
    assert!(!done.status.success());
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(why.contains("no.wasm"), "{why}");
    assert_eq!(Address::read(&data_dir).unwrap(), None);
    assert_eq!(Token::read(&data_dir).unwrap(), None);
}
