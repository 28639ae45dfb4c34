//! Messages that fail, and messages that take the host with them: what they cost the others, how often
//! they are tried, where they end (acceptance 4).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use wasmill::admin::wire::ReadRequest;
use wasmill_tests::checker::{Checker, Guarantee, Kind, Report};
use wasmill_tests::input::{Expected, ID, Input};
use wasmill_tests::process::{Process, until};
use wasmill_tests::site::{Site, plugin};

use crate::{probe, probe_pipeline, probe_terms};

const MAX_ATTEMPTS: u32 = 3;

fn site(inputs: &[Input], more: &str) -> (Site, Checker) {
    let lines = format!(
        "    delivery: exactly_once\n    retry: {{ max_attempts: {MAX_ATTEMPTS}, backoff: {{ initial_interval: 5ms, max_interval: 5ms }} }}\n{}",
        probe(more)
    );
    let site = Site::new(&probe_pipeline(&lines));
    site.publish("in", 1, inputs);
    let mut checker = Checker::new(probe_terms(Guarantee::ExactlyOnce, MAX_ATTEMPTS));
    checker.acknowledge(inputs);
    (site, checker)
}

fn look(site: &Site, checker: &mut Checker) {
    let log = site.open_log();
    checker.after_kill(&log);
    log.close().unwrap();
}

fn finish(site: &Site, checker: Checker) -> Report {
    let log = site.open_log();
    let report = checker.finish(&log);
    log.close().unwrap();
    report
}

fn attempts_logged(site: &Site, id: &str) -> usize {
    let text = std::fs::read_to_string(site.host_log()).unwrap();
    text.lines()
        .filter(|line| line.contains("\"attempt ") && line.contains(&format!(" of {id}\"")))
        .count()
}

/// §4.4: a kill during an attempt may cost one attempt more, and the first two kills are not charged.
#[test]
fn a_message_killed_during_its_attempts_is_dead_lettered_after_at_most_one_more_per_kill() {
    let dead = Expected::DeadLetter {
        reasons: vec!["host_crash", "attempts_exhausted"],
        attempts: MAX_ATTEMPTS,
    };
    let inputs = [Input::planned("bad", "a", "always_fail", 0, dead)];
    let (site, mut checker) = site(&inputs, ", batch: 1");
    let mut kills = 0;
    loop {
        let mut process = site.spawn(&[("WASMILL_FAULT", "after_call:1")]);
        let done = until("the host dies, or has nothing to call", || {
            if process.ended().is_some() {
                return Some(false);
            }
            (process.is_ready() && process.is_drained()).then_some(true)
        });
        if done {
            process.stop();
            break;
        }
        kills += 1;
        assert!(kills < 20, "it never runs out of attempts");
        look(&site, &mut checker);
    }
    // Each kill was during one attempt; those that ended otherwise are in the log.
    let attempts = kills + attempts_logged(&site, "bad");
    assert!(
        attempts <= MAX_ATTEMPTS as usize + kills,
        "{attempts} attempts, {kills} kills"
    );
    finish(&site, checker).assert_clean();
}

/// §7.5: what ran out of attempts in earlier hosts is remembered under its idempotency key too.
#[test]
fn a_duplicate_of_a_message_that_ran_out_of_attempts_by_kills_is_recognised() {
    let dead = Expected::dead("host_crash", MAX_ATTEMPTS);
    let bad = Input::planned("bad", "a", "always_fail", 0, dead).header("order", "7");
    let inputs = [bad.clone(), bad];
    let lines = format!(
        "    delivery: exactly_once\n    idempotency: {{ key: message.header(\"order\"), ttl: 1h }}\n    retry: {{ max_attempts: {MAX_ATTEMPTS} }}\n{}",
        probe("")
    );
    let site = Site::new(&probe_pipeline(&lines));
    site.publish("in", 1, &inputs);
    let mut terms = probe_terms(Guarantee::ExactlyOnce, MAX_ATTEMPTS);
    terms.is_deduplicated = true;
    let mut checker = Checker::new(terms);
    checker.acknowledge(&inputs);
    for _ in 0..2 + MAX_ATTEMPTS {
        site.spawn(&[("WASMILL_FAULT", "after_call:1")]).await_end();
        look(&site, &mut checker);
    }
    let mut process = site.start();
    process.await_drained();
    process.stop();
    finish(&site, checker).assert_clean();
}

/// CPU time (in ticks) that the pipeline's only worker has used.
fn worker_ticks(process: &Process) -> Option<u64> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.pid())).ok()?;
    tasks.filter_map(Result::ok).find_map(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(") ")?;
        if !name.ends_with("(probe-0") {
            return None;
        }
        rest.split(' ').nth(11)?.parse().ok()
    })
}

/// A message whose call takes the host down, as an operator's restart loop would see it: killed each
/// time while the call runs. It runs out of attempts, and what stands around it is processed once.
#[test]
fn a_message_that_kills_the_host_is_dead_lettered_and_its_neighbours_go_on() {
    let mut inputs: Vec<Input> = (0..5)
        .map(|n| Input::ok(&format!("before-{n}"), "a"))
        .collect();
    inputs.push(Input::planned(
        "killer",
        "k",
        "spin",
        0,
        Expected::dead("host_crash", MAX_ATTEMPTS),
    ));
    inputs.push(Input::ok("same-key", "k"));
    inputs.extend((0..5).map(|n| Input::ok(&format!("after-{n}"), "b")));
    let (site, mut checker) = site(&inputs, ", concurrency: 1, limits: { time: 1h }");
    let mut kills = 0;
    loop {
        let mut process = site.start();
        let mut first = None;
        // A call that goes on for half a second of CPU (50 ticks) is the one that never ends.
        let is_done = until("it is done, or calls the killer", || {
            assert!(process.ended().is_none(), "{}", process.log_text());
            if process.is_drained() {
                return Some(true);
            }
            let ticks = worker_ticks(&process)?;
            let since = *first.get_or_insert(ticks);
            (ticks > since + 50).then_some(false)
        });
        if is_done {
            process.stop();
            break;
        }
        process.kill();
        kills += 1;
        assert!(kills < 20, "it never runs out of attempts");
        look(&site, &mut checker);
    }
    // Two that nobody counted, and the attempts.
    assert_eq!(kills, 2 + MAX_ATTEMPTS);
    finish(&site, checker).assert_clean();
}

/// Messages of each kind in a round of the comparison.
const ROUND: usize = 400;
/// One in so many is of the key that always fails.
const POISON_EVERY: usize = 20;
const PACE: Duration = Duration::from_millis(10);
const APART_MAX: Duration = Duration::from_millis(50);
const ROUNDS_MAX: usize = 3;

fn twins() -> String {
    ["calm", "mixed"]
        .map(|name| {
            format!(
                "  - name: {name}\n    source: {{ topics: [{name}], consumer_group: {name}, start: earliest }}\n    retry: {{ max_attempts: 5, backoff: {{ initial_interval: 20ms, multiplier: 2, max_interval: 200ms }} }}\n    handler: {{ plugin: {}, allow: {{ clock: true }}, concurrency: 1 }}\n    outputs: {{ default: {{ topic: {name}.out, headers: [\"probe-*\"] }} }}\n",
                plugin("probe").display()
            )
        })
        .concat()
}

/// When each ID appeared in a topic of one partition, until `count` did.
fn watch(process: &Process, topic: &str, from: u64, count: usize) -> HashMap<String, Instant> {
    let mut seen = HashMap::new();
    let mut request = ReadRequest {
        partition: 0,
        offset: from,
        limit: None,
        wait_ms: Some(1_000),
    };
    let deadline = Instant::now() + wasmill_tests::process::DEADLINE;
    while seen.len() < count && Instant::now() < deadline {
        let page = process.remote().read(topic, &request).unwrap();
        let now = Instant::now();
        request.offset = page.next_offset;
        for message in page.messages {
            let id = message.headers.iter().find(|header| header.name == ID);
            let value = id.and_then(|header| header.value.clone()).unwrap();
            seen.insert(String::from_utf8(value.0).unwrap(), now);
        }
    }
    assert_eq!(seen.len(), count, "{topic}");
    seen
}

fn p99(sent: &HashMap<String, Instant>, seen: &HashMap<String, Instant>) -> Duration {
    let mut times: Vec<Duration> = seen.iter().map(|(id, at)| *at - sent[id]).collect();
    times.sort();
    times[times.len() * 99 / 100]
}

/// One round: both topics get the same healthy messages at the same pace; one also gets poison. Returns
/// the p99 from before the produce request to the output's being read, of the healthy messages.
fn round(process: &Process, number: usize, offsets: (u64, u64)) -> (Duration, Duration) {
    let mut sent = (HashMap::new(), HashMap::new());
    std::thread::scope(|scope| {
        let calm = scope.spawn(|| watch(process, "calm.out", offsets.0, ROUND));
        let mixed = scope.spawn(|| watch(process, "mixed.out", offsets.1, ROUND));
        let began = Instant::now();
        for n in 0..ROUND {
            let id = format!("{number}-{n}");
            let healthy = Input::ok(&id, &format!("key-{}", n % 50));
            let mut records = vec![healthy.record()];
            sent.0.insert(id.clone(), Instant::now());
            process.remote().produce("calm", &records).unwrap();
            if n % POISON_EVERY == 0 {
                let dead = Expected::dead("attempts_exhausted", 5);
                let poison = Input::planned(
                    &format!("{number}-bad-{n}"),
                    "poison",
                    "always_fail",
                    0,
                    dead,
                );
                records.insert(0, poison.record());
            }
            sent.1.insert(id, Instant::now());
            process.remote().produce("mixed", &records).unwrap();
            let due = began + PACE * (n as u32 + 1);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        (
            p99(&sent.0, &calm.join().unwrap()),
            p99(&sent.1, &mixed.join().unwrap()),
        )
    })
}

/// Both runs are made at the same time in one host, so that the machine's load hits both; what the rest
/// of the machine does may still spoil a round, a mistake in the lanes spoils every one.
#[test]
fn a_key_that_always_fails_does_not_slow_the_others_and_keeps_its_order() {
    let site = Site::new(&twins());
    site.configure("  create_topics: { partitions: 1 }\n", &twins());
    let mut process = site.start();
    let mut tried = Vec::new();
    let passed = (0..ROUNDS_MAX).any(|number| {
        let end = |topic: &str| process.remote().topic(topic).unwrap().partitions[0].end;
        let (calm, mixed) = round(&process, number, (end("calm.out"), end("mixed.out")));
        tried.push((calm, mixed));
        mixed <= calm + APART_MAX
    });
    println!("p99 without and with a poisoned key: {tried:?}");
    process.await_drained();
    process.stop();
    assert!(passed, "p99 without and with a poisoned key: {tried:?}");

    let mut terms = probe_terms(Guarantee::AtLeastOnce, 5);
    (terms.source, terms.group, terms.outputs) = ("mixed", "mixed", vec!["mixed.out"]);
    terms.dead_letters = "mixed.mixed.dlq".to_owned();
    let mut checker = Checker::new(terms);
    let mut inputs = Vec::new();
    for number in 0..tried.len() {
        for n in 0..ROUND {
            let mut healthy = Input::ok(&format!("{number}-{n}"), &format!("key-{}", n % 50));
            healthy.expected = Expected::one("mixed.out");
            inputs.push(healthy);
            if n % POISON_EVERY == 0 {
                let dead = Expected::dead("attempts_exhausted", 5);
                inputs.push(Input::planned(
                    &format!("{number}-bad-{n}"),
                    "poison",
                    "always_fail",
                    0,
                    dead,
                ));
            }
        }
    }
    checker.acknowledge(&inputs);
    let report = finish(&site, checker);
    assert!(!report.has(Kind::Order), "{}", report.text());
    report.assert_clean();
}

/// §5.4: what a call of several messages comes to is counted, whatever they come to alone.
#[test]
fn a_fault_of_a_call_with_several_messages_is_counted_and_told() {
    let mut inputs: Vec<Input> = (0..9)
        .map(|n| Input::ok(&format!("m{n}"), &format!("k{n}")))
        .collect();
    let dead = Expected::dead("fault_trap", MAX_ATTEMPTS);
    inputs.push(Input::planned("bad", "bad", "trap", 0, dead));
    let (site, checker) = site(&inputs, "");
    let mut process = site.start();
    process.await_drained();
    let faults = process.metric("wasmill_faults_total", &["trap"]);
    process.stop();
    assert_eq!(faults, f64::from(MAX_ATTEMPTS) + 1.0);
    let log = std::fs::read_to_string(site.host_log()).unwrap();
    assert!(log.contains("a call of several messages faulted"), "{log}");
    finish(&site, checker).assert_clean();
}
