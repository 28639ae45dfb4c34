//! What an operator does and meets: SIGTERM, a second host, a host that is not there, metrics, a full
//! disk (§10.2, §10.3, §12.3).

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wasmill_tests::checker::{Checker, Guarantee, Report};
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::{Process, until};
use wasmill_tests::site::Site;

use crate::{probe, probe_pipeline, probe_terms};

fn finish(site: &Site, checker: Checker) -> Report {
    let log = site.open_log();
    let report = checker.finish(&log);
    log.close().unwrap();
    report
}

fn consumed(process: &Process, outcome: &str) -> f64 {
    process.metric(
        "wasmill_messages_consumed_total",
        &[&format!("outcome=\"{outcome}\"")],
    )
}

#[test]
fn sigterm_lets_calls_end_and_settles_them() {
    let inputs: Vec<Input> = (0..400)
        .map(|n| {
            Input::planned(
                &format!("{n}"),
                &format!("k{}", n % 9),
                "sleep",
                5,
                Expected::one("out"),
            )
        })
        .collect();
    let site = Site::new(&probe_pipeline(&probe(", batch: 4")));
    site.publish("in", 2, &inputs);
    let mut checker = Checker::new(probe_terms(Guarantee::ExactlyOnce, 5));
    checker.acknowledge(&inputs);
    let process = site.start();
    until("it works", || {
        (consumed(&process, "success") >= 8.0).then_some(())
    });
    process.stop();
    // Nothing was cut off: what is there is finished, what is finished is there.
    let log = site.open_log();
    let left: u64 = checker
        .after_kill(&log)
        .iter()
        .map(|place| place.end() - place.committed)
        .sum();
    log.close().unwrap();
    assert!(left > 0, "it was stopped before the end");
    let mut process = site.start();
    process.await_drained();
    process.stop();
    finish(&site, checker).assert_clean();
}

#[test]
fn a_stuck_handler_delays_the_end_by_the_shutdown_timeout_and_its_message_comes_again() {
    let stuck = Input::planned("stuck", "a", "spin", 0, Expected::Nothing);
    let pipelines = probe_pipeline(&probe(", limits: { time: 1h }"));
    let site = Site::new(&pipelines);
    site.configure("  shutdown_timeout: 500ms\n", &pipelines);
    site.publish("in", 1, &[stuck]);
    let mut process = site.start();
    until("it is held", || {
        process
            .partitions()
            .iter()
            .any(|p| p.end == 1)
            .then_some(())
    });
    let began = Instant::now();
    process.signal(Signal::TERM);
    let status = process.await_end();
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    let text = process.log_text();
    assert!(status.code().is_some(), "it ended by itself: {text}");
    let process = site.start();
    let committed = until("its partition is known", || {
        process.partitions().first().map(|p| p.committed)
    });
    assert_eq!(committed, 0, "it is not finished");
    process.kill();
}

#[test]
fn a_second_sigterm_ends_at_once_and_loses_nothing() {
    let inputs = [Input::planned(
        "slow",
        "a",
        "sleep",
        4_000,
        Expected::one("out"),
    )];
    let site = Site::new(&probe_pipeline(&probe(", limits: { time: 1h }")));
    site.publish("in", 1, &inputs);
    let mut checker = Checker::new(probe_terms(Guarantee::AtLeastOnce, 5));
    checker.acknowledge(&inputs);
    let mut process = site.start();
    until("it is known", || {
        process
            .partitions()
            .iter()
            .any(|p| p.end == 1)
            .then_some(())
    });
    let began = Instant::now();
    process.signal(Signal::TERM);
    until("it drains", || {
        process.log_text().contains("draining").then_some(())
    });
    process.signal(Signal::TERM);
    process.await_end();
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    let mut process = site.start();
    process.await_drained();
    process.stop();
    finish(&site, checker).assert_clean();
}

/// §10.3
#[test]
fn a_second_host_on_the_directory_is_refused_and_told_who_holds_it() {
    let site = Site::new(&probe_pipeline(&probe("")));
    let first = site.start();
    let mut second = site.spawn(&[]);
    let status = second.await_end();
    assert_eq!(status.code(), Some(1));
    let text = second.log_text();
    assert!(
        text.contains("is held by") && text.contains(&first.pid().to_string()),
        "{text}"
    );
    assert_eq!(first.health("/readyz").0, 200, "the first is not disturbed");
    first.stop();
}

#[test]
fn a_command_to_a_host_that_is_not_there_says_where_it_looked() {
    let site = Site::new(&probe_pipeline(&probe("")));
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("http://{free}");
    let answer = site.command(
        &["status"],
        &[("WASMILL_URL", &url), ("WASMILL_TOKEN", "t")],
    );
    assert_eq!(answer.status.code(), Some(1));
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(
        text.contains(&free.to_string()) && text.contains("does not answer"),
        "{text}"
    );
}

#[test]
fn commands_work_on_the_directory_of_a_host_that_was_killed() {
    let site = Site::new(&probe_pipeline(&probe("")));
    site.publish("in", 1, &[Input::ok("a", "k"), Input::ok("b", "k")]);
    let mut process = site.start();
    process.await_drained();
    process.kill();
    let dir = site.data_dir();
    let answer = site.command(
        &[
            "topics",
            "list",
            "-o",
            "json",
            "--data-dir",
            dir.to_str().unwrap(),
        ],
        &[],
    );
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    assert!(
        answer.status.success(),
        "{}",
        String::from_utf8_lossy(&answer.stderr)
    );
    let topics: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(
        text.contains("\"in\"") && text.contains("\"out\""),
        "{topics}"
    );
}

/// §12.3: the numbers are those of what happened.
#[test]
fn metrics_say_what_happened() {
    let mut inputs: Vec<Input> = (0..100)
        .map(|n| Input::ok(&format!("ok-{n}"), &format!("k{n}")))
        .collect();
    inputs.extend((0..7).map(|n| {
        let dead = Expected::dead("rejected", 1);
        Input::planned(&format!("bad-{n}"), &format!("b{n}"), "reject", 0, dead)
    }));
    inputs.extend((0..5).map(|n| {
        Input::planned(
            &format!("again-{n}"),
            &format!("c{n}"),
            "fail_times",
            2,
            Expected::one("out"),
        )
    }));
    inputs.push(Input::planned(
        "trap",
        "t",
        "trap",
        0,
        Expected::dead("fault_trap", 3),
    ));
    let lines = format!(
        "    retry: {{ max_attempts: 3, backoff: {{ initial_interval: 2ms, max_interval: 5ms }} }}\n{}",
        probe("")
    );
    let site = Site::new(&probe_pipeline(&lines));
    site.publish("in", 2, &inputs);
    let mut process = site.start();
    process.await_drained();
    let settled = |process: &Process| {
        (consumed(process, "success") + consumed(process, "dead_lettered") >= 113.0).then_some(())
    };
    until("the counts are handed on", || settled(&process));
    assert_eq!(consumed(&process, "success"), 105.0);
    assert_eq!(consumed(&process, "dead_lettered"), 8.0);
    let letters = |reason: &str| {
        process.metric(
            "wasmill_dead_letters_total",
            &[&format!("reason=\"{reason}\"")],
        )
    };
    assert_eq!((letters("rejected"), letters("fault_trap")), (7.0, 1.0));
    assert_eq!(
        process.metric("wasmill_retries_total", &[]),
        12.0,
        "5 twice and the trap twice"
    );
    assert_eq!(
        process.metric("wasmill_messages_published_total", &["topic=\"out\""]),
        105.0
    );
    assert_eq!(
        process.metric("wasmill_messages_published_total", &["topic=\"in.g.dlq\""]),
        8.0
    );
    assert_eq!(process.metric("wasmill_consumer_lag", &[]), 0.0);
    assert_eq!(process.metric("wasmill_in_flight", &[]), 0.0);
    assert_eq!(process.metric("wasmill_committed_offset", &[]), 113.0);
    assert_eq!(
        process.metric("wasmill_pipeline_state", &["state=\"running\""]),
        1.0
    );
    process.stop();
}

/// A small disk of its own; unmounted in the end.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(at)
            .status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "a small disk cannot be mounted; run this test as root"
        );
        Self(at)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(self.0).status();
        assert!(unmounted.is_ok() || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_stops_nothing_for_good_and_loses_nothing() {
    let site = Site::new(&probe_pipeline(&format!(
        "    delivery: exactly_once\n{}",
        probe("")
    )));
    let data_dir = site.data_dir();
    let _disk = SmallDisk::mount(&data_dir);
    let backlog: Vec<Input> = (0..200)
        .map(|n| Input::ok(&format!("{n}"), &format!("k{}", n % 5)))
        .collect();
    site.publish("in", 1, &backlog);
    let mut checker = Checker::new(probe_terms(Guarantee::ExactlyOnce, 5));
    checker.acknowledge(&backlog);
    let mut process = site.start();
    process.await_drained();
    // What else fills a disk.
    let filler = data_dir.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    let mut sent = Vec::new();
    let mut refused = None;
    for n in 0..400 {
        let mut input = Input::ok(&format!("full-{n}"), &format!("k{}", n % 5));
        input.payload = Some(format!("{{\"pad\":\"{}\"}}", "x".repeat(20_000)).into_bytes());
        let answer = process.remote().produce("in", &[input.record()]);
        sent.push(input);
        if let Err(error) = answer {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("the disk never became full");
    // All but the last were acknowledged; the last may be there or not.
    let last = sent.pop().unwrap();
    checker.acknowledge(&sent);
    checker.know(&[last]);
    assert!(
        process.ended().is_none(),
        "{refused}: {}",
        process.log_text()
    );
    until("the host says that its store fails", || {
        (process.health("/readyz").0 == 503).then_some(())
    });
    assert!(!process.status().store.healthy);
    assert_eq!(process.health("/livez").0, 200);

    drop(file);
    std::fs::remove_file(&filler).unwrap();
    until("the store works again, without a restart", || {
        (process.health("/readyz").0 == 200).then_some(())
    });
    let after = [Input::ok("after", "k1")];
    until("messages are taken again", || {
        process
            .remote()
            .produce("in", &[after[0].record()])
            .is_ok()
            .then_some(())
    });
    checker.know(&after);
    process.await_drained();
    process.stop();
    finish(&site, checker).assert_clean();
}
