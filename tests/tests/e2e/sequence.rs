//! Sequence numbers of a key (§4.5), and what retention took before a group had read it (§9).

use std::num::NonZeroU32;
use std::time::Duration;

use wasmill::connector::embedded::{Retention, TopicSpec};
use wasmill::pipeline::snapshot::{State, WaitsFor};
use wasmill_tests::input::Input;
use wasmill_tests::process::{Process, until};
use wasmill_tests::site::{Site, Stored, publish};

use crate::{probe, probe_pipeline};

const HOUR_MS: i64 = 3_600_000;

fn numbered(id: &str, key: &str, number: u32) -> Input {
    Input::ok(id, key).header("seq", &number.to_string())
}

fn pipeline(more: &str) -> String {
    probe_pipeline(&format!(
        "    sequence: {{ number: 'int(message.header(\"seq\"))', {more} }}\n{}",
        probe("")
    ))
}

fn produce(process: &Process, inputs: &[Input]) {
    let records: Vec<_> = inputs.iter().map(Input::record).collect();
    process.remote().produce("in", &records).unwrap();
}

fn ids(messages: &[Stored]) -> Vec<String> {
    messages.iter().map(Stored::id).collect()
}

#[test]
fn numbers_are_put_in_order_and_those_processed_before_are_passed_over_also_after_a_kill() {
    let site = Site::new(&pipeline("gap_timeout: 60s"));
    site.publish(
        "in",
        1,
        &[
            numbered("one", "a", 1),
            numbered("three", "a", 3),
            numbered("two", "a", 2),
            numbered("four", "a", 4),
            numbered("two-again", "a", 2),
        ],
    );
    let mut process = site.start();
    process.await_drained();
    let stale = |process: &Process| {
        process.metric("wasmill_messages_consumed_total", &["outcome=\"stale\""])
    };
    assert_eq!(stale(&process), 1.0);
    process.kill();
    let mut process = site.start();
    produce(
        &process,
        &[numbered("four-again", "a", 4), numbered("five", "a", 5)],
    );
    until("the stale number is passed over", || {
        (stale(&process) > 0.0).then_some(())
    });
    process.await_drained();
    assert_eq!(process.metric("wasmill_sequence_gaps_total", &[]), 0.0);
    process.stop();
    assert_eq!(
        ids(&site.read("out")),
        ["one", "two", "three", "four", "five"]
    );
}

/// A message that is given up by hand while it waits leaves those before it their turn.
#[test]
fn giving_up_a_message_that_waits_for_its_number_passes_no_other_over() {
    let site = Site::new(&pipeline("gap_timeout: 60s"));
    site.publish("in", 1, &[]);
    let mut process = site.start();
    let waiting = [
        numbered("one", "a", 1),
        numbered("three", "a", 3),
        numbered("five", "a", 5),
    ];
    produce(&process, &waiting);
    until("both wait", || {
        let partition = process.partitions().pop()?;
        (partition.committed == 1 && partition.holder?.offset == 1).then_some(())
    });
    let data_dir = site.data_dir();
    let reject = ["reject", "in/0@2", "--group", "g", "--note", "gone"];
    let place = ["--data-dir", data_dir.to_str().unwrap()];
    let done = site.command(&[&place[..], &reject[..]].concat(), &[]);
    assert!(done.status.success(), "{done:?}");
    until("it is a dead letter", || {
        let letters = process.metric("wasmill_dead_letters_total", &["rejected_by_operator"]);
        (letters > 0.0).then_some(())
    });
    produce(
        &process,
        &[numbered("two", "a", 2), numbered("four", "a", 4)],
    );
    process.await_drained();
    process.stop();
    assert_eq!(ids(&site.read("out")), ["one", "two", "three", "four"]);
    assert_eq!(ids(&site.read("in.g.dlq")), ["five"]);
}

#[test]
fn a_gap_shows_in_status_holds_its_key_only_and_is_given_up_in_time() {
    let site = Site::new(&pipeline("stale: dead_letter, gap_timeout: 3s"));
    site.publish("in", 1, &[]);
    let mut process = site.start();
    produce(
        &process,
        &[
            numbered("a1", "a", 1),
            numbered("a3", "a", 3),
            numbered("b1", "b", 1),
        ],
    );
    let holder = until("the gap is shown", || {
        let holder = process.partitions().pop()?.holder?;
        (holder.waits_for == WaitsFor::Sequence).then_some(holder)
    });
    assert_eq!((holder.offset, holder.key.as_deref()), (1, Some("a")));
    let error = holder.error.unwrap();
    assert!(error.contains("2 is missing"), "{error}");
    let succeeded = process.metric("wasmill_messages_consumed_total", &["outcome=\"success\""]);
    assert_eq!(succeeded, 2.0, "the other key is not held up");
    process.await_drained();
    assert_eq!(process.metric("wasmill_sequence_gaps_total", &[]), 1.0);
    produce(&process, &[numbered("a2", "a", 2)]);
    until("the late number is dead-lettered", || {
        let letters = process.metric("wasmill_dead_letters_total", &["stale_sequence"]);
        (letters > 0.0).then_some(())
    });
    process.await_drained();
    process.stop();
    let mut out = ids(&site.read("out"));
    // Topics have several partitions: the order is that of a key.
    out.retain(|id| id != "b1");
    assert_eq!(out, ["a1", "a3"]);
    let letters = site.read("in.g.dlq");
    assert_eq!(ids(&letters), ["a2"]);
    let error = letters[0].header("wasmill-dlq-error").unwrap();
    assert!(error.contains("number 2 came after number 3"), "{error}");
}

#[test]
fn a_group_that_retention_overtook_halts_and_goes_on_at_the_earliest_when_told_to() {
    let halts = probe_pipeline(&probe(""));
    let site = Site::new(&halts);
    let five = |name: &str| -> Vec<Input> {
        (0..5)
            .map(|n| Input::ok(&format!("{name}{n}"), "k"))
            .collect()
    };
    let log = site.open_log();
    let mut spec = TopicSpec::new("in", NonZeroU32::MIN);
    spec.retention = Retention {
        age: Some(Duration::from_secs(3_600)),
        bytes: None,
    };
    let topic = log.create_topic(&spec).unwrap();
    publish(&log, &topic, &five("read"));
    log.close().unwrap();
    let mut process = site.start();
    process.await_drained();
    process.stop();
    // What comes now is gone before the group is back.
    let log = site.open_log();
    let topic = log.topic("in").unwrap();
    publish(&log, &topic, &five("lost"));
    let now = log.now_ms();
    log.maintain(now + 2 * HOUR_MS).unwrap();
    log.maintain(now + 4 * HOUR_MS).unwrap();
    publish(&log, &topic, &five("late"));
    assert_eq!(log.earliest(topic.partitions[0]).unwrap(), 10);
    log.close().unwrap();
    let process = site.start();
    let why = until("the pipeline halts", || {
        let pipeline = process.status().pipelines.remove(0);
        (pipeline.state == State::Failed).then(|| pipeline.why.unwrap())
    });
    assert!(
        why.contains("offset 5 is lost") && why.contains("on_lost_offset: earliest"),
        "{why}"
    );
    assert_eq!(process.health("/readyz").0, 503);
    process.kill();
    assert_eq!(site.read("out").len(), 5, "nothing was skipped");
    let goes_on = halts.replace(
        "start: earliest }",
        "start: earliest, on_lost_offset: earliest }",
    );
    assert_ne!(goes_on, halts);
    site.configure("", &goes_on);
    let mut process = site.start();
    process.await_drained();
    assert_eq!(process.status().pipelines[0].totals.lost, 5);
    process.stop();
    let out = ids(&site.read("out"));
    assert_eq!(out[..5], ["read0", "read1", "read2", "read3", "read4"]);
    assert_eq!(out[5..], ["late0", "late1", "late2", "late3", "late4"]);
}
