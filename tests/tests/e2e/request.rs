//! Requests and their answers (§8): each caller gets its own answer or a timeout, never another's, through
//! failures, duplicates, kills and a thousand at once (acceptance 5).

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wasmill::admin::Code;
use wasmill::admin::remote::Remote;
use wasmill::admin::token::{Address, Token};
use wasmill::admin::wire::{Blob, Header, Record};
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::until;
use wasmill_tests::site::Site;

use crate::{probe, probe_pipeline};

fn question(n: u64, plan: &str) -> Record {
    let payload = json!({"plan": plan, "n": n}).to_string();
    Record {
        key: Some(Blob(format!("k{}", n % 50).into_bytes())),
        payload: Some(Blob(payload.into_bytes())),
        headers: vec![Header {
            name: "order".to_owned(),
            // Every tenth question is asked twice under one idempotency key.
            value: Some(Blob(format!("{}", n - u64::from(n % 10 == 1)).into_bytes())),
        }],
        ..Record::default()
    }
}

fn remote(site: &Site) -> Option<Remote> {
    let address = Address::read(&site.data_dir()).ok()??;
    let token = Token::read(&site.data_dir()).ok()??;
    Remote::new(&format!("http://{}", address.admin), token).ok()
}

fn pipeline() -> String {
    probe_pipeline(&format!(
        "    delivery: exactly_once\n    idempotency: {{ key: message.header(\"order\"), ttl: 1h, fingerprint: [message.header(\"order\")] }}\n{}",
        probe("")
    ))
}

#[derive(Default)]
struct Tally {
    answered: AtomicU64,
    timed_out: AtomicU64,
    unreachable: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// Asks until all are asked; a host that is not there is waited for.
fn ask(site: &Site, numbers: &AtomicU64, count: u64, tally: &Tally) {
    let mut to: Option<Remote> = None;
    loop {
        let n = numbers.fetch_add(1, Ordering::Relaxed);
        if n >= count {
            return;
        }
        // 1 % are rejected by the handler: their callers time out.
        let fails = n % 100 == 57;
        let record = question(n, if fails { "reject" } else { "reply" });
        let timeout = if fails { "300ms" } else { "20s" };
        if to.is_none() {
            to = Some(until("a host answers", || {
                remote(site).filter(|host| host.status().is_ok())
            }));
        }
        let Some(host) = &to else { continue };
        match host.request("in", &record, timeout) {
            Ok(answer) => {
                tally.answered.fetch_add(1, Ordering::Relaxed);
                let text = String::from_utf8(answer.payload.unwrap().0).unwrap();
                // A duplicate gets the answer of the first.
                let own = format!("{n} {}", n + 1);
                let first = n.saturating_sub(1);
                let of_first = format!("{first} {}", first + 1);
                let fits = text == own
                    || n % 10 == 1 && text == of_first
                    || n.is_multiple_of(10) && text == format!("{} {}", n + 1, n + 2);
                if !fits || fails {
                    tally.wrong.lock().unwrap().push(format!("{n} got {text}"));
                }
            }
            Err(why) if why.code == Code::NoAnswer => {
                tally.timed_out.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                tally.unreachable.fetch_add(1, Ordering::Relaxed);
                to = None;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn each_caller_gets_its_own_answer_or_none_through_kills_failures_and_duplicates() {
    let count: u64 = std::env::var("WASMILL_REQUESTS").map_or(10_000, |n| n.parse().unwrap());
    let site = Site::new(&pipeline());
    site.publish("in", 4, &[]);
    let (numbers, tally) = (AtomicU64::new(0), Tally::default());
    let mut process = Some(site.start());
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..48)
            .map(|_| scope.spawn(|| ask(&site, &numbers, count, &tally)))
            .collect();
        for part in 1..4 {
            until("some were asked", || {
                (numbers.load(Ordering::Relaxed) >= count * part / 4).then_some(())
            });
            // A kill of the host, in the middle of it.
            process.take().unwrap().kill();
            process = Some(site.start());
        }
        for asker in askers {
            asker.join().unwrap();
        }
    });
    let mut process = process.unwrap();
    process.await_drained();
    process.stop();
    assert!(
        tally.wrong.lock().unwrap().is_empty(),
        "{:?}",
        tally.wrong.lock().unwrap()
    );
    let (answered, timed_out) = (tally.answered.into_inner(), tally.timed_out.into_inner());
    let unreachable = tally.unreachable.into_inner();
    println!("{answered} answered, {timed_out} timed out, {unreachable} unreachable");
    assert_eq!(answered + timed_out + unreachable, count);
    assert!(answered >= count * 90 / 100, "{answered} of {count}");
    // What was rejected timed out, and is a dead letter.
    assert!(timed_out >= count / 200, "{timed_out}");
    let letters = site.read("in.g.dlq");
    assert!(
        letters
            .iter()
            .all(|letter| letter.header("wasmill-dlq-reason").unwrap() == "rejected")
    );
}

#[test]
fn a_thousand_requests_wait_on_a_few_threads() {
    let site = Site::new(&pipeline().replace(
        "    handler:",
        "    rate_limit: { count: 100, interval: 200ms }\n    handler:",
    ));
    site.publish("in", 4, &[]);
    let process = site.start();
    let lines: String = (0..1_500)
        .map(|n| format!("{}\n", json!({"payload": json!({"plan": "reply", "n": n}).to_string(), "headers": [{"name": "order", "value": format!("{n}")}]})))
        .collect();
    let file = site.path().join("questions.jsonl");
    std::fs::write(&file, lines).unwrap();
    let threads = || {
        std::fs::read_dir(format!("/proc/{}/task", process.pid()))
            .unwrap()
            .count()
    };
    let before = threads();
    let data_dir = site.data_dir();
    let most = AtomicU64::new(0);
    let output = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            site.command(
                &[
                    "--data-dir",
                    data_dir.to_str().unwrap(),
                    "request",
                    "in",
                    "--file",
                    file.to_str().unwrap(),
                    "--in-flight",
                    "1000",
                    "--timeout",
                    "30s",
                ],
                &[],
            )
        });
        while !asked.is_finished() {
            most.fetch_max(threads() as u64, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(10));
        }
        asked.join().unwrap()
    });
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| line.contains("\"error\""))
            .take(3)
            .collect::<String>()
    );
    let mut seen: HashMap<u64, String> = HashMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let answer = line["answer"]["payload"].as_str().unwrap().to_owned();
        seen.insert(line["line"].as_u64().unwrap(), answer);
    }
    assert_eq!(seen.len(), 1_500);
    // The questions are numbered from 1 and count from 0.
    assert!(
        seen.iter()
            .all(|(line, answer)| *answer == format!("{} {line}", line - 1))
    );
    // Those of the ports that may block, however many wait: `BLOCKING_THREADS_MAX`.
    let most = most.into_inner();
    assert!(
        most <= before as u64 + 20,
        "{most} threads, {before} before"
    );
    process.stop();
}

#[test]
fn an_answer_that_may_not_go_where_it_is_wanted_is_dropped_and_counted() {
    let site = Site::new(&probe_pipeline(&probe("")));
    let reply = |id: &str, to: &str| {
        Input::planned(id, "k", "reply", 1, Expected::one("out")).header("reply-to", to)
    };
    site.publish("secret", 1, &[]);
    site.publish(
        "in",
        1,
        &[
            reply("not-allowed", "secret"),
            reply("no-topic", "wasmill.replies.nobody"),
            Input::planned("no-reply-to", "k", "reply", 1, Expected::one("out")),
        ],
    );
    let mut process = site.start();
    process.await_drained();
    for why in ["not_allowed", "no_topic", "no_reply_to"] {
        assert_eq!(
            process.metric("wasmill_replies_dropped_total", &[why]),
            1.0,
            "{why}"
        );
    }
    process.stop();
    assert!(site.read("secret").is_empty());
    // Their messages succeeded all the same.
    assert_eq!(site.read("out").len(), 3);
}

/// §8.2: a duplicate is answered, also when the first one's answer went nowhere.
#[test]
fn a_duplicate_is_answered_although_the_first_answer_was_dropped() {
    let site = Site::new(&pipeline());
    site.publish("wasmill.replies.test", 1, &[]);
    let ask =
        |id: &str| Input::planned(id, "k", "reply", 7, Expected::one("out")).header("order", "1");
    site.publish(
        "in",
        1,
        &[
            ask("no-reply-to"),
            ask("asks")
                .header("reply-to", "wasmill.replies.test")
                .header("correlation-id", "c2"),
        ],
    );
    let mut process = site.start();
    process.await_drained();
    let dropped = process.metric("wasmill_replies_dropped_total", &["no_reply_to"]);
    assert_eq!(dropped, 1.0);
    let said = std::fs::read_to_string(site.host_log()).unwrap();
    assert!(said.contains("an answer was dropped"), "{said}");
    process.stop();
    assert_eq!(site.read("out").len(), 1, "executed once");
    let answers = site.read("wasmill.replies.test");
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].payload.as_deref(), Some(&b"7 8"[..]));
    assert_eq!(answers[0].header("correlation-id").unwrap(), "c2");
}

#[test]
fn a_request_past_its_deadline_is_not_executed_and_its_caller_has_a_timeout() {
    let site = Site::new(&probe_pipeline(&probe("")));
    site.publish("in", 1, &[]);
    let process = site.start();
    let data_dir = site.data_dir();
    let wasmill = |arguments: &[&str]| {
        let all = [&["--data-dir", data_dir.to_str().unwrap()], arguments].concat();
        site.command(&all, &[])
    };
    assert!(wasmill(&["pause", "probe"]).status.success());
    let began = Instant::now();
    let asked = wasmill(&[
        "request",
        "in",
        r#"{"plan": "reply", "n": 7}"#,
        "--timeout",
        "300ms",
    ]);
    assert_eq!(asked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&asked.stderr).contains("no answer within 0.3 s"));
    assert!(began.elapsed() < Duration::from_secs(5));
    std::thread::sleep(Duration::from_millis(100));
    assert!(wasmill(&["resume", "probe"]).status.success());
    until("it was passed over", || {
        (process.metric("wasmill_messages_consumed_total", &["expired"]) >= 1.0).then_some(())
    });
    let asked = wasmill(&["request", "in", r#"{"plan": "reply", "n": 7}"#]);
    assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), "7 8");
    process.stop();
    let asked = wasmill(&["request", "in", "{}"]);
    assert!(String::from_utf8_lossy(&asked.stderr).contains("no host runs"));
    assert_eq!(site.read("out").len(), 1, "executed once");
}
