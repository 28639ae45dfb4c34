//! Requests and replies (§8) over a real host: each caller gets its own answer or none, through duplicates,
//! failures and kills.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use wasmill::admin::Code;
use wasmill::admin::remote::Remote;
use wasmill::admin::token::{Address, Token};
use wasmill::admin::wire::{Blob, Header, Message, Record};
use wasmill_tests::process::{Process, until};
use wasmill_tests::site::Site;

use crate::{probe, probe_pipeline};

const SHORT: Duration = Duration::from_millis(1_500);

fn site(more: &str) -> Site {
    let site = Site::new(&probe_pipeline(&format!("{more}{}", probe(""))));
    site.publish("in", 4, &[]);
    site
}

/// A request that is answered, or one in a hundred that is rejected.
fn payload(n: u64) -> String {
    let plan = if n % 100 == 99 { "reject" } else { "reply" };
    // The number makes each payload its own, so that an answer tells whose it is.
    json!({"plan": plan, "id": n}).to_string()
}

fn record(payload: &str, headers: &[(&str, &str)]) -> Record {
    Record {
        key: Some(Blob(payload.as_bytes().to_vec())),
        payload: Some(Blob(payload.as_bytes().to_vec())),
        headers: headers
            .iter()
            .map(|&(name, value)| header(name, value))
            .collect(),
        ..Record::default()
    }
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.to_owned(),
        value: Some(Blob(value.as_bytes().to_vec())),
    }
}

fn text(reply: &Message) -> String {
    String::from_utf8(reply.payload.clone().unwrap().0).unwrap()
}

fn header_of(reply: &Message, name: &str) -> Option<String> {
    let found = reply.headers.iter().find(|header| header.name == name)?;
    Some(String::from_utf8(found.value.clone()?.0).unwrap())
}

/// The admin port as it is now; a host that was killed comes back under another address.
fn remote(site: &Site) -> Option<Remote> {
    let address = Address::read(&site.data_dir()).ok()??;
    let token = Token::read(&site.data_dir()).ok()??;
    Remote::new(&format!("http://{}", address.admin), token).ok()
}

/// Acceptance 5: by HTTP and by the command, with failures, duplicates and a kill in the middle.
#[test]
fn each_caller_gets_exactly_its_answer_or_none_through_failures_duplicates_and_a_kill() {
    let all: u64 = std::env::var("WASMILL_REQUESTS").map_or(20_000, |n| n.parse().unwrap());
    let site = site("    idempotency: { key: message.json.id, ttl: 1h }\n");
    let mut process = site.start();
    let by_http = all / 2;
    let (asked, answered) = (AtomicU64::new(0), AtomicU64::new(0));
    let lost = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let command = scope.spawn(|| by_command(&site, by_http, all / 4));
        for _ in 0..32 {
            scope.spawn(|| {
                let mut port = remote(&site);
                loop {
                    let n = asked.fetch_add(1, Ordering::Relaxed);
                    if n >= by_http {
                        return;
                    }
                    // Every third asks again what was asked before: a duplicate, under its own IDs, and the
                    // same correlation ID is under way more than once.
                    let id = if n % 3 == 0 { n / 2 } else { n };
                    let correlation = format!("c{}", n % 7);
                    let body = payload(id);
                    let request = record(&body, &[("correlation-id", &correlation)]);
                    let result = port
                        .as_ref()
                        .map(|port| port.request("in", &request, SHORT));
                    match result {
                        Some(Ok(reply)) => {
                            assert_eq!(text(&reply), format!("answer to {body}"));
                            assert_eq!(header_of(&reply, "correlation-id"), Some(correlation));
                            assert_ne!(id % 100, 99, "a rejected request has no answer");
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Some(Err(why)) if why.code == Code::NoReply => {
                            if id % 100 != 99 {
                                lost.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        _ => {
                            lost.fetch_add(1, Ordering::Relaxed);
                            port = Some(until("the host is back", || {
                                remote(&site).filter(|port| port.status().is_ok())
                            }));
                        }
                    }
                }
            });
        }
        until("a third is answered", || {
            (answered.load(Ordering::Relaxed) > by_http / 3).then_some(())
        });
        process.kill();
        process = site.start();
        let (answers, of_command) = command.join().unwrap();
        assert!(answers > 0, "{of_command}");
        // The command speaks to one host: what came after the kill it could not ask. A second has all.
        let (answers, failed) = by_command(&site, by_http + all / 4, all / 4);
        assert_eq!(answers, all / 4 - all / 400, "{failed} failed");
    });
    let (answered, lost) = (answered.into_inner(), lost.into_inner());
    println!("{by_http} by HTTP: {answered} answered, {lost} lost to the kill");
    assert!(answered > by_http * 8 / 10, "{answered} {lost}");
    process.stop();
}

/// Asks `count` requests from `first` on by one command; gives the answers, all of them right, and how many
/// had none.
fn by_command(site: &Site, first: u64, count: u64) -> (u64, u64) {
    let path = site.path().join(format!("requests-{first}"));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    for n in first..first + count {
        writeln!(
            file,
            "{}",
            json!({"key": n.to_string(), "payload": payload(n)})
        )
        .unwrap();
    }
    file.flush().unwrap();
    drop(file);
    let data_dir = site.data_dir();
    let output = site.command(
        &[
            "--data-dir",
            data_dir.to_str().unwrap(),
            "request",
            "in",
            "--file",
            path.to_str().unwrap(),
            "--in-flight",
            "200",
            "--timeout",
            "3s",
        ],
        &[],
    );
    assert_eq!(
        output.status.code(),
        Some(1),
        "one in a hundred has no reply"
    );
    let (mut answers, mut failed) = (0, 0);
    let lines = String::from_utf8(output.stdout).unwrap();
    for line in lines.lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let n = first + value["line"].as_u64().unwrap() - 1;
        if let Some(reply) = value.get("reply") {
            let expected = format!("answer to {}", payload(n));
            assert_eq!(reply["payload"].as_str(), Some(expected.as_str()));
            answers += 1;
        } else {
            assert!(value["error"]["code"].is_string(), "{line}");
            failed += 1;
        }
    }
    assert_eq!(answers + failed, count, "every line is answered for");
    (answers, failed)
}

/// §8.2: to its own `reply-to`, with `skip` too; other outputs are not published again.
#[test]
fn a_duplicate_is_answered_again_and_nothing_else_of_it_is_published() {
    let site = site("    idempotency: { key: message.json.id, ttl: 1h, on_duplicate: skip }\n");
    let process = site.start();
    let body = json!({"plan": "reply_and_output", "id": 1}).to_string();
    for correlation in ["one", "two", "one"] {
        let request = record(&body, &[("correlation-id", correlation)]);
        let reply = process.remote().request("in", &request, SHORT).unwrap();
        assert_eq!(text(&reply), format!("answer to {body}"));
        assert_eq!(
            header_of(&reply, "correlation-id").as_deref(),
            Some(correlation)
        );
    }
    assert_eq!(process.metric("wasmill_replies_dropped_total", &[]), 0.0);
    process.stop();
    assert_eq!(site.read("out").len(), 1);
}

/// §8.1
#[test]
fn a_reply_that_may_not_be_sent_is_dropped_and_counted_and_its_message_succeeds() {
    let site = site("    reply: { topics: [\"allowed.*\"] }\n");
    site.publish("forbidden", 1, &[]);
    site.publish("allowed.here", 1, &[]);
    let mut process = site.start();
    let body = json!({"plan": "reply"}).to_string();
    let to = |topic: &str| record(&body, &[("reply-to", topic)]);
    let records = [
        record(&body, &[]),
        to("forbidden"),
        to("allowed.nowhere"),
        to("in"),
        to("allowed.here"),
    ];
    process.remote().produce("in", &records).unwrap();
    process.await_drained();
    for (reason, count) in [
        ("no_reply_to", 1.0),
        ("not_allowed", 2.0),
        ("unknown_topic", 1.0),
    ] {
        let label = format!("reason=\"{reason}\"");
        until(reason, || {
            (process.metric("wasmill_replies_dropped_total", &[&label]) == count).then_some(())
        });
    }
    assert_eq!(process.metric("wasmill_dead_letters_total", &[]), 0.0);
    let said = process.log_text().matches("replies were dropped").count();
    assert!((1..=4).contains(&said), "at a bounded rate: {said}");
    process.stop();
    assert_eq!(site.read("forbidden").len(), 0);
    assert_eq!(site.read("allowed.here").len(), 1);
}

/// §8.2, §8.3: nobody waits any more, so nothing is called; and a reply that is late is counted.
#[test]
fn a_request_past_its_deadline_is_not_called_and_a_late_reply_is_counted() {
    let site = site("");
    let mut process = site.start();
    let body = json!({"plan": "reply"}).to_string();
    let past = record(&body, &[("wasmill-deadline", "1000")]);
    process.remote().produce("in", &[past]).unwrap();
    until("the request is finished as expired", || {
        let label = "outcome=\"expired\"";
        (process.metric("wasmill_messages_consumed_total", &[label]) == 1.0).then_some(())
    });
    assert_eq!(process.metric("wasmill_replies_dropped_total", &[]), 0.0);
    let slow = json!({"plan": "reply", "n": 900}).to_string();
    let why = process
        .remote()
        .request("in", &record(&slow, &[]), Duration::from_millis(300))
        .unwrap_err();
    assert_eq!(why.code, Code::NoReply);
    assert!(
        why.message.contains("300 ms") && why.help.contains("wasmill trace"),
        "{why:?}"
    );
    until("its reply is late", || {
        (process.metric("wasmill_replies_late_total", &[]) == 1.0).then_some(())
    });
    process.await_drained();
    // What the host sets itself cannot be given.
    let forged = record(&body, &[("reply-to", "out")]);
    let why = process.remote().request("in", &forged, SHORT).unwrap_err();
    assert_eq!(why.code, Code::Invalid);
    process.stop();
}

fn threads(process: &Process) -> usize {
    let tasks = format!("/proc/{}/task", process.pid());
    std::fs::read_dir(tasks).unwrap().count()
}

/// §8.3
#[test]
fn a_thousand_requests_wait_on_the_threads_that_are_there_anyway() {
    let site = site("");
    let process = site.start();
    let body = payload(1);
    let warm = process.remote().request("in", &record(&body, &[]), SHORT);
    warm.unwrap();
    let before = threads(&process);
    let silent = json!({"plan": "silent"}).to_string();
    let ended = AtomicU64::new(0);
    let (mut most, mut operator) = (0, false);
    std::thread::scope(|scope| {
        for _ in 0..1_000 {
            let ask = || {
                let port = remote(&site).unwrap();
                let wait = Duration::from_secs(8);
                let why = port.request("in", &record(&silent, &[]), wait).unwrap_err();
                assert_eq!(why.code, Code::NoReply);
                ended.fetch_add(1, Ordering::Relaxed);
            };
            std::thread::Builder::new()
                .stack_size(512 * 1024)
                .spawn_scoped(scope, ask)
                .unwrap();
        }
        until("all are under way and none has ended", || {
            let label = "outcome=\"success\"";
            most = most.max(threads(&process));
            let called = process.metric("wasmill_messages_consumed_total", &[label]);
            (called >= 1_001.0).then_some(())
        });
        assert_eq!(ended.load(Ordering::Relaxed), 0, "1,000 wait at once");
        // Somebody else is served meanwhile.
        operator |= process.remote().status().is_ok();
        let reply = process.remote().request("in", &record(&body, &[]), SHORT);
        assert_eq!(text(&reply.unwrap()), format!("answer to {body}"));
    });
    assert!(operator);
    assert!(most <= before + 8, "{before} threads became {most}");
    process.stop();
}
