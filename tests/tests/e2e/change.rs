//! Change over time in a running host: pauses, reloads, moves of a group, messages given up by hand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wasmill::connector::embedded::{Commit, Write};
use wasmill::pipeline::offsets::Progress;
use wasmill::pipeline::snapshot::State;
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::{Process, until, within};
use wasmill_tests::site::{Site, Stored, plugin};

use crate::{probe, probe_pipeline};

/// Runs a command against the site's directory: exit code, stdout, stderr.
fn wasmill(site: &Site, arguments: &[&str]) -> (i32, String, String) {
    let data_dir = site.data_dir();
    let place = ["--data-dir", data_dir.to_str().unwrap()];
    let all: Vec<&str> = place.iter().chain(arguments).copied().collect();
    let output = site.command(&all, &[]);
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

fn done(site: &Site, arguments: &[&str]) -> String {
    let (code, out, err) = wasmill(site, arguments);
    assert_eq!(code, 0, "{arguments:?}: {out}{err}");
    out
}

fn produce(process: &Process, inputs: &[Input]) {
    let records: Vec<_> = inputs.iter().map(Input::record).collect();
    process.remote().produce("in", &records).unwrap();
}

fn state(process: &Process, pipeline: &str) -> State {
    let status = process.status();
    let found = status.pipelines.iter().find(|p| p.pipeline == pipeline);
    found.unwrap().state
}

fn succeeded(process: &Process, pipeline: &str) -> u64 {
    let status = process.status();
    let found = status.pipelines.iter().find(|p| p.pipeline == pipeline);
    found.unwrap().totals.succeeded
}

fn oks(from: usize, count: usize) -> Vec<Input> {
    (from..from + count)
        .map(|n| Input::ok(&format!("m{n}"), &format!("k{}", n % 7)))
        .collect()
}

/// The same topic read by two pipelines.
fn two(second: &str) -> String {
    let other = probe_pipeline(&probe(""))
        .replace("name: probe", "name: second")
        .replace("consumer_group: g", "consumer_group: g2")
        .replace("topic: out,", "topic: out2,");
    probe_pipeline(&probe("")) + &other.replace("wasm, allow", &format!("wasm{second}, allow"))
}

#[test]
fn a_pause_stands_against_the_configuration_over_restarts_and_until_the_pipeline_changes() {
    let site = Site::new(&two(""));
    site.publish("in", 2, &oks(0, 10));
    let mut process = site.start();
    process.await_drained();
    assert!(done(&site, &["pause", "second"]).contains("second is paused"));
    assert!(done(&site, &["pause", "second"]).contains("already"));
    produce(&process, &oks(10, 10));
    until("the other goes on", || {
        (succeeded(&process, "probe") == 20).then_some(())
    });
    assert_eq!(state(&process, "second"), State::Paused);
    assert_eq!(succeeded(&process, "second"), 10);
    let (_, body) = process.health("/readyz");
    assert!(body.contains("paused by an operator"), "{body}");
    process.stop();
    // Still paused after a restart.
    let process = site.start();
    until("the other runs", || {
        (state(&process, "probe") == State::Running).then_some(())
    });
    assert_eq!(state(&process, "second"), State::Paused);
    let (code, _, err) = wasmill(&site, &["resume", "secnd"]);
    assert!(code == 1 && err.contains("did you mean second"), "{err}");
    done(&site, &["resume", "second"]);
    until("it goes on where it was", || {
        (succeeded(&process, "second") == 10).then_some(())
    });
    assert!(done(&site, &["resume", "second"]).contains("runs already"));
    process.stop();
    assert_eq!(site.read("out2").len(), 20);
}

#[test]
fn a_drain_finishes_what_was_read_and_pauses() {
    let site = Site::new(&probe_pipeline(&format!(
        "    retry: {{ backoff: {{ initial_interval: 300ms, max_interval: 300ms }} }}\n{}",
        probe("")
    )));
    let twice = Input::planned("twice", "a", "fail_times", 2, Expected::one("out"));
    site.publish("in", 1, &[twice]);
    let process = site.start();
    until("it has failed once", || {
        (process.metric("wasmill_retries_total", &[]) >= 1.0).then_some(())
    });
    done(&site, &["drain", "probe"]);
    assert_eq!(state(&process, "probe"), State::Paused);
    produce(&process, &[Input::ok("later", "b")]);
    process.stop();
    let out = site.read("out");
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].id(), "twice");
}

#[test]
fn a_bad_reload_changes_nothing_and_a_good_one_only_what_changed() {
    let site = Site::new(&two(""));
    site.publish("in", 2, &oks(0, 10));
    let mut process = site.start();
    process.await_drained();
    assert!(done(&site, &["reload"]).contains("nothing has changed"));
    let good = std::fs::read_to_string(site.config()).unwrap();
    // A word that is none, a plugin that is none, and a host that only a restart can make.
    let missing = good.replacen("probe.wasm", "gone.wasm", 1);
    for (bad, says) in [
        (
            good.replacen("start: earliest", "start: erliest", 1),
            "earliest",
        ),
        (missing, "gone.wasm"),
        (
            good.replacen("host:\n", "host:\n  guest_memory: 1GiB\n", 1),
            "guest_memory",
        ),
        (
            good.replacen("host:\n", "host:\n  logs: false\n", 1),
            "host.logs",
        ),
        (
            good.replacen(
                "host:\n",
                "host:\n  tracing: { creation_context: parent }\n",
                1,
            ),
            "creation_context",
        ),
    ] {
        std::fs::write(site.config(), bad).unwrap();
        let (code, _, err) = wasmill(&site, &["reload"]);
        assert!(code == 1 && err.contains(says), "{says}: {err}");
    }
    produce(&process, &oks(10, 5));
    until("both go on", || {
        let all = ["probe", "second"].map(|name| succeeded(&process, name));
        (all == [15, 15]).then_some(())
    });
    // Another plugin for the second; the first is not touched (its counts would not tell, its log does).
    let other = good.replace(
        "name: second",
        "name: second\n    retry: { max_attempts: 2 }",
    );
    std::fs::write(site.config(), other).unwrap();
    let said = done(&site, &["reload"]);
    assert!(
        said.contains("second changed") && !said.contains("probe"),
        "{said}"
    );
    // By signal: the second goes.
    std::fs::write(
        site.config(),
        good.split("  - name: second").next().unwrap(),
    )
    .unwrap();
    process.signal(Signal::HUP);
    until("one pipeline is left", || {
        (process.status().pipelines.len() == 1).then_some(())
    });
    let audit = done(&site, &["audit"]);
    let by_signal = audit.lines().find(|line| line.contains("SIGHUP"));
    assert!(
        by_signal.is_some_and(|line| line.contains("reload")),
        "{audit}"
    );
    assert!(
        audit.contains("ended with an error"),
        "the refused ones: {audit}"
    );
    std::fs::write(site.config(), &good).unwrap();
    assert!(done(&site, &["reload"]).contains("second new"));
    produce(&process, &oks(15, 5));
    process.await_drained();
    process.stop();
    assert_eq!(site.read("out").len(), 20);
    assert_eq!(site.read("out2").len(), 20);
}

#[test]
fn a_reload_that_cannot_stop_a_pipeline_leaves_the_others_running() {
    let held = probe_pipeline(&probe(", limits: { time: 1h }"))
        .replace("name: probe", "name: second")
        .replace("topics: [in]", "topics: [slow]")
        .replace("consumer_group: g", "consumer_group: g2")
        .replace("topic: out,", "topic: out2,");
    let pipelines = probe_pipeline(&probe("")) + &held;
    let site = Site::new("");
    site.configure("  shutdown_timeout: 200ms\n", &pipelines);
    site.publish("in", 1, &oks(0, 5));
    // Longer than a pipeline gets to stop, and than cut-off workers get to notice.
    let slow = Input::planned("slow", "a", "sleep", 8_000, Expected::one("out2"));
    site.publish("slow", 1, &[slow]);
    let mut process = site.start();
    until("the first is through and the second in its call", || {
        let calling = process.metric("wasmill_in_flight", &["pipeline=\"second\""]);
        (succeeded(&process, "probe") == 5 && calling >= 1.0).then_some(())
    });
    // Both change; the first stops at once, the second does not.
    let config = std::fs::read_to_string(site.config()).unwrap();
    let both = config.replace("    source:", "    retry: { max_attempts: 2 }\n    source:");
    std::fs::write(site.config(), both).unwrap();
    let (code, _, err) = wasmill(&site, &["reload"]);
    assert!(code == 1 && err.contains("second does not stop"), "{err}");
    produce(&process, &oks(5, 5));
    until("the first goes on as it was", || {
        (succeeded(&process, "probe") == 10).then_some(())
    });
    // The second starts again once its call has ended, and the message it was cut off in runs again.
    until("the second goes on", || {
        (state(&process, "second") == State::Running && succeeded(&process, "second") == 1)
            .then_some(())
    });
    assert!(done(&site, &["reload"]).contains("second changed"));
    process.await_drained();
    process.stop();
    assert_eq!(site.read("out").len(), 10);
    assert_eq!(site.read("out2").len(), 1);
}

/// One pipeline with a message in a call that lasts.
fn in_a_call(site: &Site, time: &str, plan: &str, n: u32) -> Process {
    site.configure(
        &format!("  shutdown_timeout: {time}\n"),
        &probe_pipeline(&probe(", limits: { time: 1h }")),
    );
    let slow = Input::planned("slow", "a", plan, n, Expected::one("out"));
    site.publish("in", 1, &[slow]);
    let process = site.start();
    until("it is in its call", || {
        (process.metric("wasmill_in_flight", &[]) >= 1.0).then_some(())
    });
    process
}

#[test]
fn a_pause_that_did_not_stop_its_pipeline_in_time_says_so_until_it_does() {
    let site = Site::new("");
    let process = in_a_call(&site, "200ms", "sleep", 10_000);
    for _ in 0..2 {
        let (code, out, err) = wasmill(&site, &["pause", "probe"]);
        assert!(code == 1 && err.contains("does not stop"), "{out}{err}");
    }
    until("its call has ended", || {
        (state(&process, "probe") == State::Paused).then_some(())
    });
    assert!(done(&site, &["pause", "probe"]).contains("already"));
    done(&site, &["resume", "probe"]);
    process.stop();
}

/// §10.2: an order that waits for a pipeline does not keep the host from ending.
#[test]
fn a_signal_is_heard_while_an_order_waits_for_a_call() {
    let site = Site::new("");
    let mut process = in_a_call(&site, "6s", "spin", 0);
    let config = std::fs::read_to_string(site.config()).unwrap();
    let other = config.replace("    source:", "    retry: { max_attempts: 2 }\n    source:");
    std::fs::write(site.config(), other).unwrap();
    std::thread::scope(|scope| {
        let reload = scope.spawn(|| wasmill(&site, &["reload"]));
        until("the reload waits", || {
            (state(&process, "probe") == State::Draining).then_some(())
        });
        let began = Instant::now();
        process.signal(Signal::TERM);
        process.await_end();
        // Its own drain, and what cut-off workers get to notice; not that of the reload before it.
        let took = began.elapsed();
        assert!(took < Duration::from_millis(10_500), "{took:?}");
        let (code, _, err) = reload.join().unwrap();
        assert!(code == 1, "{err}");
    });
}

#[test]
fn a_pipeline_with_another_group_is_shown_with_it() {
    let site = Site::new(&probe_pipeline(&probe("")));
    site.publish("in", 2, &oks(0, 10));
    let mut process = site.start();
    process.await_drained();
    let config = std::fs::read_to_string(site.config()).unwrap();
    let other = config.replace("consumer_group: g,", "consumer_group: g9,");
    std::fs::write(site.config(), other).unwrap();
    assert!(done(&site, &["reload"]).contains("probe changed"));
    process.await_drained();
    let status = process.status();
    assert_eq!(status.pipelines[0].consumer_group, "g9");
    assert_eq!(succeeded(&process, "probe"), 10, "counted anew");
    let groups = done(&site, &["groups", "list"]);
    let line = groups.lines().find(|line| line.starts_with("g9 ")).unwrap();
    assert!(line.contains("probe"), "{groups}");
    process.stop();
    assert_eq!(site.read("out").len(), 20);
}

/// §4.4: what an earlier host may have called is not behind us while its pipeline is paused.
#[test]
fn a_pipeline_that_is_paused_and_resumed_is_still_suspect() {
    let site = Site::new(&probe_pipeline(&probe(", batch: 1")));
    site.publish("in", 1, &[]);
    let process = site.start();
    done(&site, &["pause", "probe"]);
    produce(&process, &[Input::ok("bad", "a")]);
    process.kill();
    site.start().kill();
    let mut process = site.start_with(&[("WASMILL_FAULT", "after_call:1")]);
    // Some looks of the host at its pipelines.
    std::thread::sleep(Duration::from_secs(1));
    let (code, _, err) = wasmill(&site, &["resume", "probe"]);
    until("the host dies in its call", || process.ended());
    drop((code, err));
    let log = site.open_log();
    let exits = log.meta_get(b"host/unclean-exits").unwrap().unwrap();
    assert_eq!(&*exits, &3u32.to_le_bytes());
    let group = log.find_group("g").unwrap();
    let partition = log.topic("in").unwrap().partitions[0];
    let stored = log.progress(group, partition).unwrap().unwrap();
    let attempts = Progress::decode(&stored).unwrap().attempts;
    assert_eq!(attempts.len(), 1, "durable before the call");
    log.close().unwrap();
}

#[test]
fn a_reload_takes_a_plugin_that_was_replaced_in_its_place() {
    let site = Site::new("");
    let own = site.path().join("own.wasm");
    std::fs::copy(plugin("probe"), &own).unwrap();
    let lines = probe("").replace(
        &plugin("probe").display().to_string(),
        &own.display().to_string(),
    );
    site.configure(
        "",
        &probe_pipeline(&format!("    retry: {{ max_attempts: 1 }}\n{lines}")),
    );
    let bad = Input::planned("bad", "a", "reject", 0, Expected::Nothing);
    site.publish("in", 1, std::slice::from_ref(&bad));
    let mut process = site.start();
    process.await_drained();
    assert_eq!(process.status().pipelines[0].totals.dead_letters, 1);
    std::fs::copy(plugin("mended"), &own).unwrap();
    assert!(done(&site, &["reload"]).contains("probe changed"));
    produce(&process, &[bad]);
    process.await_drained();
    process.stop();
    assert_eq!(site.read("out").len(), 1);
}

fn tally() -> String {
    probe_pipeline(&format!(
        "    delivery: exactly_once\n    idempotency: {{ key: message.header(\"probe-id\"), ttl: 1h }}\n    handler: {{ plugin: {}, allow: {{ state: {{}} }} }}\n",
        plugin("tally").display()
    ))
}

/// The last output of each key, byte for byte.
fn projection(site: &Site) -> BTreeMap<Vec<u8>, Stored> {
    let mut last = BTreeMap::new();
    for message in site.read("out") {
        let place = Stored {
            offset: 0,
            ..message.clone()
        };
        last.insert(message.key.unwrap(), place);
    }
    last
}

/// §7.7, acceptance 4.
#[test]
fn a_group_rebuilt_from_the_beginning_in_a_new_epoch_gives_the_same_projection_byte_for_byte() {
    let site = Site::new(&tally());
    let mut inputs = oks(0, 300);
    // Some twice: they count once, also in the new epoch.
    inputs.extend(oks(0, 50));
    site.publish("in", 3, &inputs);
    let mut process = site.start();
    process.await_drained();
    process.stop();
    let before = projection(&site);
    assert_eq!(before.len(), 7);
    assert_eq!(site.read("out").len(), 300);

    // Nothing is guessed, with or without a host.
    let seek = ["groups", "seek", "g", "--to", "earliest"];
    let (code, _, err) = wasmill(&site, &[&seek[..], &["--yes"]].concat());
    assert!(code == 1 && err.contains("--idempotency"), "{err}");
    let process = site.start();
    let new_epoch = [&seek[..], &["--idempotency", "new-epoch"]].concat();
    let (code, _, err) = wasmill(&site, &[&new_epoch[..], &["--yes"]].concat());
    assert!(code == 1 && err.contains("--state"), "{err}");
    let whole = [&new_epoch[..], &["--state", "reset"]].concat();
    let (code, _, err) = wasmill(&site, &whole);
    assert!(
        code == 2 && err.contains("--yes"),
        "nobody is there to ask: {err}"
    );
    let said = done(&site, &[&whole[..], &["--dry-run"]].concat());
    assert!(said.contains("nothing was changed"), "{said}");
    assert_eq!(succeeded(&process, "probe"), 0);
    done(&site, &[&whole[..], &["--yes"]].concat());
    until("all are counted again", || {
        (succeeded(&process, "probe") == 300).then_some(())
    });
    let mut process = process;
    process.await_drained();
    process.stop();
    assert_eq!(site.read("out").len(), 600);
    assert_eq!(projection(&site), before);

    // With what is known kept, nothing happens again; and without a host it works the same.
    let keep = [
        &seek[..],
        &["--idempotency", "keep", "--state", "keep", "--yes"],
    ]
    .concat();
    done(&site, &keep);
    let mut process = site.start();
    process.await_drained();
    assert_eq!(succeeded(&process, "probe"), 0);
    process.stop();
    assert_eq!(site.read("out").len(), 600);
}

#[test]
fn a_change_that_stored_data_depends_on_needs_a_word() {
    let site = Site::new(&tally());
    site.publish("in", 1, &oks(0, 3));
    let mut process = site.start();
    process.await_drained();
    let other = tally().replace("message.header(\"probe-id\")", "message.key");
    site.configure("", &other);
    let (code, _, err) = wasmill(&site, &["reload"]);
    assert!(code == 1 && err.contains("idempotency.key"), "{err}");
    process.stop();
    let mut refused = site.spawn(&[]);
    assert!(!refused.await_end().success());
    let log = std::fs::read_to_string(site.host_log()).unwrap();
    assert!(log.contains("--accept-change"), "{log}");
    site.configure("", &tally());
    let process = site.start();
    site.configure("", &other);
    done(&site, &["reload", "--accept-change"]);
    process.stop();
    site.start().stop();
}

/// As if a start had written down another number of partitions of `in`: a topic of the embedded log keeps its
/// number, and no command makes it anew under its name.
fn remember_partitions(site: &Site, count: &str) {
    let log = site.open_log();
    let key = b"fingerprint/g/probe".to_vec();
    let stored = log.meta_get(&key).unwrap().unwrap();
    let mut entries: BTreeMap<String, String> = serde_json::from_slice(&stored).unwrap();
    let before = entries.insert("partitions/in".to_owned(), count.to_owned());
    assert_eq!(before.as_deref(), Some("2"));
    let write = Write::Meta {
        key,
        value: Some(serde_json::to_vec(&entries).unwrap()),
    };
    log.commit(Commit {
        writes: vec![write],
        ..Commit::default()
    })
    .unwrap();
    log.close().unwrap();
}

/// Lint against the site's data, whoever has it: exit code and what it found.
fn lint(site: &Site) -> (i32, serde_json::Value) {
    let config = site.config();
    let words = [
        "lint",
        config.to_str().unwrap(),
        "--against-data",
        "-o",
        "json",
    ];
    let (code, out, err) = wasmill(site, &words);
    let report: serde_json::Value = serde_json::from_str(&out).expect(&err);
    (code, report["stored"].clone())
}

/// §13.2.
#[test]
fn another_number_of_partitions_is_refused_with_state_until_it_is_accepted_or_begun_anew() {
    let site = Site::new(&tally());
    assert_eq!(lint(&site).1["looked_at"], serde_json::Value::Null);
    site.publish("in", 2, &oks(0, 20));
    let mut process = site.start();
    process.await_drained();
    let (code, found) = lint(&site);
    assert_eq!(
        (code, &found["findings"]),
        (0, &serde_json::json!([])),
        "{found}"
    );
    process.stop();

    remember_partitions(&site, "3");
    let (code, found) = lint(&site);
    assert_eq!(
        (code, &found["needs_accept_change"]),
        (1, &true.into()),
        "{found}"
    );
    let mut refused = site.spawn(&[]);
    assert!(!refused.await_end().success());
    let log = std::fs::read_to_string(site.host_log()).unwrap();
    for said in ["`in`", "3 → 2", "the handler's state", "--accept-change"] {
        assert!(log.contains(said), "{said}: {log}");
    }
    // What the refusal says helps: nothing is kept by partition any more.
    let seek = "groups seek g --to earliest --idempotency new-epoch --state reset";
    assert!(log.contains(seek), "{log}");
    let words: Vec<&str> = seek.split(' ').chain(["--yes"]).collect();
    done(&site, &words);
    let (code, found) = lint(&site);
    assert_eq!(
        (code, &found["needs_accept_change"]),
        (0, &false.into()),
        "{found}"
    );
    let mut process = site.start();
    process.await_drained();
    assert_eq!(succeeded(&process, "probe"), 20);
    process.stop();

    remember_partitions(&site, "4");
    let process = site.start_accepting_change();
    let log = process.log_text();
    assert!(
        log.contains("a change was accepted") && log.contains("4 → 2"),
        "{log}"
    );
    process.stop();
    site.start().stop();
}

/// §13.2.
#[test]
fn another_number_of_partitions_without_state_is_a_warning_that_order_broke() {
    let site = Site::new(&probe_pipeline(&probe("")));
    site.publish("in", 2, &oks(0, 5));
    let mut process = site.start();
    process.await_drained();
    process.stop();
    remember_partitions(&site, "1");
    let (code, found) = lint(&site);
    assert_eq!(code, 0, "{found}");
    let finding = &found["findings"][0];
    assert_eq!(finding["weight"], "warning", "{found}");
    let process = site.start();
    assert!(process.log_text().contains("1 → 2"));
    // It is said once.
    assert_eq!(lint(&site).1["findings"], serde_json::json!([]));
    process.stop();
}

/// §13.1: before a reload, from the running host.
#[test]
fn lint_against_a_running_host_says_what_a_reload_would_refuse() {
    let site = Site::new(&tally());
    site.publish("in", 1, &oks(0, 3));
    let mut process = site.start();
    process.await_drained();
    let other = tally().replace("message.header(\"probe-id\")", "message.key");
    site.configure("", &other);
    let (code, found) = lint(&site);
    assert_eq!(
        (code, &found["needs_accept_change"]),
        (1, &true.into()),
        "{found}"
    );
    let looked_at = found["looked_at"].as_str().unwrap();
    assert!(
        looked_at.starts_with("the host that runs on"),
        "{looked_at}"
    );
    let said = found["findings"][0]["message"].as_str().unwrap();
    assert!(said.contains("idempotency.key"), "{said}");
    let (code, _, err) = wasmill(&site, &["reload"]);
    assert!(code == 1 && err.contains("idempotency.key"), "{err}");
    // For people, with what to do, and a topic that is not there.
    let elsewhere = other.replace("topic: out,", "topic: nowhere,");
    site.configure("  create_topics: false\n", &elsewhere);
    let config = site.config();
    let words = ["lint", config.to_str().unwrap(), "--against-data"];
    let (code, out, _) = wasmill(&site, &words);
    assert_eq!(code, 1);
    for said in [
        "error: pipeline probe: what its group `g` has stored",
        "help: take the change back",
        "topic `nowhere` does not exist",
        "`wasmill topics create nowhere`",
        "a start or reload is refused without `--accept-change`",
    ] {
        assert!(out.contains(said), "{said}: {out}");
    }
    process.stop();
}

#[test]
fn an_operator_gives_up_the_message_that_holds_a_key() {
    let site = Site::new(&probe_pipeline(&format!(
        "    retry: {{ max_attempts: 100, backoff: {{ initial_interval: 1h, max_interval: 1h }} }}\n{}",
        probe("")
    )));
    let dead = Expected::dead("rejected_by_operator", 1);
    let bad = Input::planned("bad", "a", "always_fail", 0, dead);
    let behind = Input::ok("behind", "a");
    site.publish("in", 1, &[bad, behind, Input::ok("last", "a")]);
    let mut process = site.start();
    let held = until("it holds the partition", || {
        process.partitions().into_iter().find_map(|p| p.holder)
    });
    assert_eq!(held.attempts, 1);
    let reject = [
        "reject",
        "in/0@0",
        "--group",
        "g",
        "--note",
        "the customer is gone",
    ];
    // The one behind it waits as well, in the same lane: it is given up when its turn comes.
    done(&site, &[&["reject", "in/0@1"], &reject[2..]].concat());
    done(&site, &[&["reject", "in/0@1"], &reject[2..]].concat());
    // Nobody has that partition: there is no worker to wait for.
    let asked = Instant::now();
    let (code, _, err) = wasmill(&site, &[&["reject", "in/7@0"], &reject[2..]].concat());
    assert!(code == 1 && err.contains("does not hold"), "{err}");
    assert!(asked.elapsed() < Duration::from_secs(4));
    done(&site, &reject);
    process.await_drained();
    assert!(
        within(Duration::from_secs(1), || (process.metric(
            "wasmill_dead_letters_total",
            &["rejected_by_operator"]
        ) >= 2.0)
            .then_some(()))
        .is_some()
    );
    let (code, _, err) = wasmill(&site, &reject);
    assert!(code == 1 && err.contains("does not hold"), "{err}");
    process.stop();
    let letters = site.read("in.g.dlq");
    let ids: Vec<String> = letters.iter().map(Stored::id).collect();
    assert_eq!(ids, ["bad", "behind"]);
    for letter in &letters {
        assert_eq!(
            letter.header("wasmill-dlq-reason").unwrap(),
            "rejected_by_operator"
        );
        assert_eq!(
            letter.header("wasmill-dlq-error").unwrap(),
            "the customer is gone"
        );
    }
    assert_eq!(letters[0].header("wasmill-dlq-attempts").unwrap(), "1");
    // It was behind the other, and its call counts for nothing (§2.3).
    assert_eq!(letters[1].header("wasmill-dlq-attempts").unwrap(), "0");
    let out: Vec<String> = site.read("out").iter().map(Stored::id).collect();
    assert_eq!(out, ["last"]);
}

/// §6.4: `status` names a message that came back by the topic it came back through, and so may an operator.
#[test]
fn an_operator_gives_up_a_redriven_message_that_holds_a_key() {
    let site = Site::new(&probe_pipeline(&format!(
        "    retry: {{ max_attempts: 100, backoff: {{ initial_interval: 1h, max_interval: 1h }} }}\n{}",
        probe("")
    )));
    let dead = Expected::dead("rejected_by_operator", 1);
    let bad = Input::planned("bad", "a", "always_fail", 0, dead);
    site.publish("in", 1, &[bad]);
    let mut process = site.start();
    let holds = |topic: &str| {
        until("it holds the partition", || {
            let partitions = process.partitions().into_iter();
            let own = partitions.filter(|p| p.topic == topic);
            own.filter_map(|p| p.holder).next()
        })
    };
    holds("in");
    let note = ["--group", "g", "--note", "the customer is gone"];
    done(&site, &[&["reject", "in/0@0"], &note[..]].concat());
    until("it is a dead letter", || {
        let reason = &["rejected_by_operator"];
        (process.metric("wasmill_dead_letters_total", reason) >= 1.0).then_some(())
    });
    done(&site, &["dlq", "redrive", "--pipeline", "probe"]);
    let held = holds("in.g.redrive");
    assert_eq!((held.offset, held.attempts), (0, 1));
    let again = [&["reject", "in.g.redrive/0@0"], &note[..]].concat();
    done(&site, &again);
    process.await_drained();
    let (code, _, err) = wasmill(&site, &again);
    assert!(code == 1 && err.contains("does not hold"), "{err}");
    process.stop();
    let letters = site.read("in.g.dlq");
    let rounds: Vec<_> = letters
        .iter()
        .map(|letter| {
            assert_eq!(
                letter.header("wasmill-dlq-reason").unwrap(),
                "rejected_by_operator"
            );
            letter.header("wasmill-dlq-redrive-count").unwrap()
        })
        .collect();
    assert_eq!(rounds, ["0", "1"]);
}
