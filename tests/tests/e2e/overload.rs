//! What protects a pipeline and what its neighbours depend on: outages (§5.5), rate limits (§9), and the
//! expressions around the call (§2.1, §2.5).

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;
use wasmill::pipeline::snapshot::State;
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::until;
use wasmill_tests::site::Site;

use crate::{probe, probe_pipeline};

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}

fn down(id: &str, key: &str, until: u64) -> Input {
    let mut input = Input::planned(id, key, "down", 0, Expected::one("out"));
    input.payload = Some(
        json!({"plan": "down", "until": until})
            .to_string()
            .into_bytes(),
    );
    input
}

/// CPU time of a process so far.
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may hold anything: state, … , utime and stime in hundredths of a second.
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks = fields.skip(11).take(2).map(|n| n.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

/// Acceptance 3, with a shorter outage.
#[test]
fn an_outage_opens_the_circuit_spends_no_attempts_and_is_over_within_one_probe_interval() {
    let outage = Duration::from_millis(
        std::env::var("WASMILL_OUTAGE_MS").map_or(8_000, |ms| ms.parse().unwrap()),
    );
    let probe_interval = Duration::from_millis(1_000);
    let site = Site::new(&probe_pipeline(&format!(
        "    circuit: {{ distinct_keys: 5, window: 3s, probe_interval: 1s }}\n    retry: {{ max_attempts: 3, backoff: {{ initial_interval: 2s, max_interval: 1m }} }}\n{}",
        probe("")
    )));
    site.publish("in", 4, &[]);
    let mut process = site.start();
    let ends = now_ms() + outage.as_millis() as u64;
    let inputs: Vec<Input> = (0..400)
        .map(|n| down(&format!("m{n}"), &format!("k{}", n % 40), ends))
        .collect();
    let records: Vec<_> = inputs.iter().map(Input::record).collect();
    process.remote().produce("in", &records).unwrap();
    let began = Instant::now();
    let why = until("the circuit opens", || {
        let pipeline = process.status().pipelines.remove(0);
        (pipeline.state == State::Blocked).then(|| pipeline.why.unwrap())
    });
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "within its window"
    );
    assert!(
        why.contains("the circuit is open") && why.contains("does not answer"),
        "{why}"
    );
    let (code, _) = process.health("/readyz");
    assert_eq!(code, 503);
    let retries = process.metric("wasmill_retries_total", &[]);
    while now_ms() < ends {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Probes went on, and spent nothing.
    let after = process.metric("wasmill_retries_total", &[]);
    assert!(after <= retries + 1.0, "{retries} {after}");
    assert_eq!(process.metric("wasmill_dead_letters_total", &[]), 0.0);
    let over = Instant::now();
    process.await_drained();
    assert!(
        over.elapsed() < probe_interval + Duration::from_millis(1_500),
        "back to full rate after {:?}",
        over.elapsed()
    );
    assert_eq!(process.metric("wasmill_circuit_opened_total", &[]), 1.0);
    assert_eq!(process.metric("wasmill_circuit_open", &[]), 0.0);
    process.stop();
    let mut order: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
    let out = site.read("out");
    assert_eq!(out.len(), 400);
    for message in &out {
        let number = message.id()[1..].parse().unwrap();
        order
            .entry(message.key.clone().unwrap())
            .or_default()
            .push(number);
    }
    assert!(
        order.values().all(|numbers| numbers.is_sorted()),
        "the order of a key"
    );
    assert!(site.read("in.g.dlq").is_empty());
}

/// §5.5: what an operator gives up needs no dependency; and nobody can say when the others are tried.
#[test]
fn while_the_circuit_is_open_an_operator_gives_up_a_message_at_once() {
    let site = Site::new(&probe_pipeline(&format!(
        "    circuit: {{ distinct_keys: 3, window: 10s, probe_interval: 1h }}\n    retry: {{ max_attempts: 9, backoff: {{ initial_interval: 10ms, max_interval: 10ms }} }}\n{}",
        probe("")
    )));
    let ends = now_ms() + 3_600_000;
    let inputs: Vec<Input> = (0..30)
        .map(|n| down(&format!("m{n}"), &format!("k{}", n % 10), ends))
        .collect();
    site.publish("in", 1, &inputs);
    let process = site.start();
    until("the circuit opens", || {
        (process.metric("wasmill_circuit_open", &[]) == 1.0).then_some(())
    });
    // Failures from before it opened are due all the while: no worker runs in a loop for them.
    std::thread::sleep(Duration::from_millis(200));
    let (since, used) = (Instant::now(), cpu_time(process.pid()));
    std::thread::sleep(Duration::from_secs(2));
    let used = cpu_time(process.pid()).saturating_sub(used);
    assert!(used * 10 < since.elapsed(), "{used:?}");
    // One that failed before it opened, and the one behind it.
    for place in ["in/0@10", "in/0@0"] {
        let data_dir = site.data_dir();
        let place = [
            "--data-dir",
            data_dir.to_str().unwrap(),
            "reject",
            place,
            "--group",
            "g",
            "--note",
            "late",
        ];
        let output = site.command(&place, &[]);
        assert!(output.status.success(), "{output:?}");
    }
    let holder = until("they are dead letters", || {
        let reason = &["rejected_by_operator"];
        let dead = process.metric("wasmill_dead_letters_total", reason) == 2.0;
        let partitions = process.partitions().into_iter();
        let holder = partitions.filter_map(|p| p.holder).next();
        holder.filter(|holder| dead && holder.offset == 1)
    });
    assert_eq!(holder.next_try_ms, None);
    assert_eq!(process.metric("wasmill_circuit_open", &[]), 1.0);
    assert_eq!(process.metric("wasmill_circuit_opened_total", &[]), 1.0);
    process.stop();
    let letters: Vec<String> = site.read("in.g.dlq").iter().map(|one| one.id()).collect();
    assert_eq!(letters, ["m0", "m10"]);
}

/// One poisoned key, and messages that are rejected, are no outage.
#[test]
fn a_key_that_always_fails_among_others_that_succeed_opens_nothing() {
    let site = Site::new(&probe_pipeline(&format!(
        "    circuit: {{ distinct_keys: 2, window: 10s, probe_interval: 10s }}\n    retry: {{ max_attempts: 3, backoff: {{ initial_interval: 20ms, max_interval: 20ms }} }}\n{}",
        probe("")
    )));
    let mut inputs: Vec<Input> = (0..50)
        .map(|n| Input::ok(&format!("o{n}"), &format!("k{n}")))
        .collect();
    inputs.push(Input::planned(
        "bad",
        "bad",
        "always_fail",
        0,
        Expected::dead("attempts_exhausted", 3),
    ));
    inputs.extend((0..20).map(|n| {
        Input::planned(
            &format!("r{n}"),
            &format!("r{n}"),
            "reject",
            0,
            Expected::dead("rejected", 1),
        )
    }));
    site.publish("in", 1, &inputs);
    let mut process = site.start();
    process.await_drained();
    assert_eq!(process.metric("wasmill_circuit_opened_total", &[]), 0.0);
    process.stop();
    assert_eq!(site.read("in.g.dlq").len(), 21);
}

/// Their first attempts have successes between them; their retries come due together and have none.
#[test]
fn many_keys_that_always_fail_among_others_that_succeed_open_nothing() {
    let site = Site::new(&probe_pipeline(&format!(
        "    circuit: {{ distinct_keys: 5, window: 10s, probe_interval: 10s }}\n    retry: {{ max_attempts: 3, backoff: {{ initial_interval: 20ms, max_interval: 20ms }} }}\n{}",
        probe("")
    )));
    let dead = || Expected::dead("attempts_exhausted", 3);
    let inputs: Vec<Input> = (0..30)
        .flat_map(|n| {
            let (bad, good) = (format!("b{n}"), format!("g{n}"));
            [
                Input::planned(&bad, &bad, "always_fail", 0, dead()),
                Input::ok(&good, &good),
            ]
        })
        .collect();
    site.publish("in", 1, &inputs);
    let mut process = site.start();
    process.await_drained();
    assert_eq!(process.metric("wasmill_circuit_opened_total", &[]), 0.0);
    process.stop();
    assert_eq!(site.read("in.g.dlq").len(), 30);
}

#[test]
fn a_rate_limit_lets_a_burst_through_and_then_so_many_a_second() {
    let site = Site::new(&probe_pipeline(&format!(
        "    rate_limit: {{ count: 50, interval: 500ms }}\n{}",
        probe(", concurrency: 3")
    )));
    let inputs: Vec<Input> = (0..200)
        .map(|n| Input::ok(&format!("m{n}"), &format!("k{n}")))
        .collect();
    site.publish("in", 3, &inputs);
    let began = Instant::now();
    let mut process = site.start();
    process.await_drained();
    let took = began.elapsed();
    process.stop();
    assert_eq!(site.read("out").len(), 200);
    // 50 at once, 150 at 100 a second.
    assert!(took >= Duration::from_millis(1_450), "{took:?}");
}

#[test]
fn a_filter_passes_messages_over_and_expressions_make_keys_and_headers() {
    let pipeline = probe_pipeline(&format!(
        "    filter: message.header(\"kind\") == \"order\" && message.json.n != 9\n{}",
        probe("")
    ))
    .replace(
        "default: { topic: out,",
        "default: { topic: out, key: 'string(message.json.n) + \"-\" + message.key', set_headers: { region: message.header(\"region\") },",
    );
    let site = Site::new(&pipeline);
    let order = |id: &str, n: u32| {
        Input::planned(id, "k", "ok", n, Expected::one("out")).header("kind", "order")
    };
    site.publish(
        "in",
        1,
        &[
            order("whole", 7).header("region", "eu"),
            order("no-region", 7),
            order("nine", 9).header("region", "eu"),
            Input::ok("no-kind", "k"),
            Input {
                payload: Some(b"{}".to_vec()),
                ..order("no-n", 7)
            },
        ],
    );
    let mut process = site.start();
    process.await_drained();
    assert_eq!(
        process.metric("wasmill_messages_consumed_total", &["filtered"]),
        2.0
    );
    process.stop();
    let out = site.read("out");
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].id(), "whole");
    assert_eq!(out[0].key.as_deref(), Some(&b"7-k"[..]));
    assert_eq!(out[0].header("region").unwrap(), "eu");
    let letters = site.read("in.g.dlq");
    let reasons: Vec<_> = letters
        .iter()
        .map(|letter| (letter.id(), letter.header("wasmill-dlq-reason").unwrap()))
        .collect();
    let failed = "expression_failed".to_owned();
    assert_eq!(
        reasons,
        [
            ("no-region".to_owned(), failed.clone()),
            ("no-n".to_owned(), failed)
        ]
    );
    assert!(
        letters[0]
            .header("wasmill-dlq-error")
            .unwrap()
            .contains("region")
    );
    assert!(
        letters[1]
            .header("wasmill-dlq-error")
            .unwrap()
            .contains("filter")
    );
}
