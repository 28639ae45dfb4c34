//! What an operator watches: `top`, `tap`, `status`, and the metrics of a running host (§12.3).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use wasmill::admin::wire::{Blob, Header, Record};
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::{Process, until};
use wasmill_tests::site::{Site, host_binary};

use crate::{probe, probe_pipeline};

const SLOW: &str =
    "    retry: { max_attempts: 5, backoff: { initial_interval: 60s, max_interval: 60s } }\n";
const DEFERRED: &str = "    ordering: { by: none }\n    retry: { mode: deferred, max_attempts: 4, backoff: { initial_interval: 60s, max_interval: 60s } }\n";

/// The metrics of the interfaces, each with a label that its series have beside those of the pipeline.
const METRICS: [(&str, &str); 20] = [
    ("wasmill_messages_published_total", "topic"),
    ("wasmill_publish_duration_seconds_count", ""),
    ("wasmill_publish_errors_total", "reason"),
    ("wasmill_queue_depth", "partition"),
    ("wasmill_oldest_message_age_seconds", "partition"),
    ("wasmill_consumer_lag", "kind"),
    ("wasmill_messages_consumed_total", "outcome"),
    ("wasmill_handler_duration_seconds_count", ""),
    ("wasmill_faults_total", "reason"),
    ("wasmill_retries_total", ""),
    ("wasmill_retries_waiting", ""),
    ("wasmill_circuit_opened_total", ""),
    ("wasmill_circuit_open", ""),
    ("wasmill_dead_letters_total", "reason"),
    ("wasmill_idempotency_total", "result"),
    ("wasmill_in_flight", ""),
    ("wasmill_committed_offset", "partition"),
    ("wasmill_unfinished_age_seconds", "partition"),
    ("wasmill_handler_memory_bytes", ""),
    ("wasmill_pipeline_state", "state"),
];

fn text(site: &Site, arguments: &[&str]) -> String {
    let data_dir = site.data_dir();
    let mut all = vec!["--data-dir", data_dir.to_str().unwrap()];
    all.extend(arguments);
    let done = site.command(&all, &[]);
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{errors}");
    String::from_utf8(done.stdout).unwrap()
}

/// Name and labels of every series on `/metrics`.
fn series(process: &Process) -> BTreeSet<String> {
    let (code, text) = process.health("/metrics");
    assert_eq!(code, 200);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let named = lines.filter_map(|line| line.rsplit_once(' '));
    named.map(|(name, _)| name.to_owned()).collect()
}

/// Messages of all kinds, no two alike in key, header, or reason.
fn inputs(from: u32, count: u32) -> Vec<Input> {
    (from..from + count)
        .map(|n| {
            let (id, key) = (format!("m{n}"), format!("key-{n}"));
            let input = match n % 4 {
                0 => Input::planned(&id, &key, "reject", 0, Expected::dead("rejected", 1)),
                1 => Input::planned(&id, &key, "fail_times", 1, Expected::one("out")),
                _ => Input::ok(&id, &key),
            };
            input.header("correlation-id", &format!("c-{n}"))
        })
        .collect()
}

#[test]
fn every_metric_is_there_from_the_start_and_no_label_set_grows_with_messages() {
    let quick = "    retry: { max_attempts: 3, backoff: { initial_interval: 10ms, max_interval: 10ms } }\n    idempotency: { key: message.key, ttl: 1h }\n";
    let site = Site::new(&probe_pipeline(&format!("{quick}{}", probe(""))));
    site.publish("in", 2, &inputs(0, 8));
    let mut process = site.start();
    process.await_drained();
    let before = series(&process);
    for (name, label) in METRICS {
        let mut own = before.iter().filter(|one| {
            let rest = one.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('{'))
        });
        let one = own.next().unwrap_or_else(|| panic!("no series of {name}"));
        assert!(one.contains(r#"pipeline="probe""#), "{one}");
        assert!(
            label.is_empty() || one.contains(&format!("{label}=\"")),
            "{one}"
        );
    }
    let records: Vec<Record> = inputs(8, 400).iter().map(Input::record).collect();
    process.remote().produce("in", &records).unwrap();
    until("all are finished", || {
        (process.metric("wasmill_messages_consumed_total", &[]) >= 408.0).then_some(())
    });
    assert!(process.metric("wasmill_dead_letters_total", &[r#"reason="rejected""#]) >= 100.0);
    assert_eq!(series(&process), before);
    process.stop();
}

#[test]
fn top_once_prints_a_frame_and_status_names_the_holder_with_show() {
    let site = Site::new(&probe_pipeline(&format!("{SLOW}{}", probe(""))));
    let held = Input::planned("held", "a", "fail_times", 2, Expected::one("out"));
    let dead = Input::planned("dead", "b", "reject", 0, Expected::dead("rejected", 1));
    site.publish("in", 1, &[held, dead, Input::ok("fine", "c")]);
    let process = site.start();
    until("the message holds its partition", || {
        let held = process.partitions().iter().any(|one| one.holder.is_some());
        let dead = process.metric("wasmill_dead_letters_total", &[]) >= 1.0;
        (held && dead).then_some(())
    });
    let frame = text(&site, &["top", "--once"]);
    let row = frame
        .lines()
        .find(|line| line.starts_with("probe"))
        .unwrap();
    let cells: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(cells[1], "running", "{frame}");
    // Off a terminal it is the same without the option.
    assert!(text(&site, &["top"]).contains("probe"));
    let status = text(&site, &["status"]);
    assert!(status.contains("wasmill show in/0@0"), "{status}");
    assert!(status.contains("probe: 1 open"), "{status}");
    let data_dir = site.data_dir();
    text(&site, &["dlq", "resolve", "--all", "--note", "known"]);
    let status = process.status();
    assert_eq!(status.backlogs[0].dead_letters_open, 0);
    process.stop();
    let none = site.command(
        &["--data-dir", data_dir.to_str().unwrap(), "top", "--once"],
        &[],
    );
    assert_eq!(none.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no host runs"));
}

/// Whatever ends it, a terminal is left as it was.
#[test]
fn top_that_is_ended_by_a_signal_leaves_the_terminal_as_it_was() {
    let site = Site::new(&probe_pipeline(&probe("")));
    site.publish("in", 1, &[]);
    let process = site.start();
    for signal in [Signal::TERM, Signal::HUP] {
        let place = |name: &str| site.path().join(name);
        // `script` (util-linux) gives it a terminal.
        let typed = format!(
            "stty rows 40 cols 160; stty -g > {before}; sh -c 'echo $$ > {pid}; exec {wasmill} --data-dir {data} top'; echo $? > {code}; stty -g > {after}",
            before = place("before").display(),
            pid = place("pid").display(),
            wasmill = host_binary().display(),
            data = site.data_dir().display(),
            code = place("code").display(),
            after = place("after").display(),
        );
        let shown = place("shown");
        let mut script = Command::new("script")
            .args(["--quiet", "--flush", "--command", &typed])
            .arg(&shown)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("`script` of util-linux");
        let read = |name: &str| std::fs::read_to_string(place(name)).unwrap_or_default();
        until("a frame is shown", || {
            let shown = std::fs::read(&shown).unwrap_or_default();
            String::from_utf8_lossy(&shown)
                .contains("probe")
                .then_some(())
        });
        let pid = read("pid").trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        let ended = until("it has ended", || script.try_wait().unwrap());
        assert!(ended.success(), "{ended}");
        assert_eq!(read("code").trim(), "0");
        assert!(!read("before").is_empty());
        assert_eq!(read("before"), read("after"));
        let shown = std::fs::read(&shown).unwrap();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        // The other screen, and the cursor.
        for (entered, left) in [
            ("\u{1b}[?1049h", "\u{1b}[?1049l"),
            ("\u{1b}[?25l", "\u{1b}[?25h"),
        ] {
            assert!(shown.rfind(entered).unwrap() < shown.rfind(left).unwrap());
        }
        for name in ["shown", "pid", "code", "before", "after"] {
            std::fs::remove_file(place(name)).unwrap();
        }
    }
    process.stop();
}

/// A window that is closed, a connection that breaks: nobody is there to type `q`.
#[test]
fn top_ends_when_its_terminal_is_gone() {
    let site = Site::new(&probe_pipeline(&probe("")));
    site.publish("in", 1, &[]);
    let process = site.start();
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let mut top = Command::new(host_binary())
        .arg("--data-dir")
        .arg(site.data_dir())
        .arg("top")
        .stdin(terminal.try_clone().unwrap())
        .stdout(terminal)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut master = File::from(master);
    let mut shown = Vec::new();
    // It has taken the screen.
    while !String::from_utf8_lossy(&shown).contains("\u{1b}[?1049h") {
        let mut part = [0; 4096];
        let read = master.read(&mut part).unwrap();
        shown.extend(&part[..read]);
    }
    // It is not its controlling terminal, so no signal tells.
    drop(master);
    until("it has ended", || top.try_wait().unwrap());
    process.stop();
}

#[test]
fn retries_that_wait_are_told_by_status_and_by_a_metric() {
    let site = Site::new(&probe_pipeline(&format!("{DEFERRED}{}", probe(""))));
    let inputs: Vec<Input> = (0..7)
        .map(|n| Input::planned(&format!("j{n}"), "k", "fail_times", 1, Expected::one("out")))
        .collect();
    site.publish("in", 2, &inputs);
    let process = site.start();
    until("all are put aside", || {
        (process.metric("wasmill_retries_waiting", &[]) >= 7.0).then_some(())
    });
    assert_eq!(process.status().backlogs[0].retries_waiting, 7);
    process.stop();
}

fn record(kind: &str, number: u32) -> Record {
    Record {
        payload: Some(Blob(format!("{{\"n\": {number}}}").into_bytes())),
        headers: vec![Header {
            name: "kind".into(),
            value: Some(Blob(kind.as_bytes().to_vec())),
        }],
        ..Record::default()
    }
}

/// Starts `tap` with the words behind it.
fn tap(site: &Site, words: &[&str]) -> Child {
    let data_dir = site.data_dir();
    Command::new(host_binary())
        .args(["--data-dir", data_dir.to_str().unwrap(), "tap"])
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn produce(process: &Process, inputs: &[Input]) {
    let records: Vec<_> = inputs.iter().map(Input::record).collect();
    process.remote().produce("in", &records).unwrap();
}

/// A tap of the pipeline `in` that ends by itself, with what was produced once it looked: what it wrote.
fn tapped(site: &Site, words: &[&str], produce: impl FnOnce()) -> (String, String) {
    let mut tap = tap(site, &[&["in", "--as", "pipeline"], words].concat());
    let mut said = BufReader::new(tap.stderr.take().unwrap());
    let mut begins = String::new();
    // It says so once it knows where the topics end.
    said.read_line(&mut begins).unwrap();
    produce();
    let mut tap = Some(tap);
    let done = until("the tap ends by itself", || {
        let ended = tap.as_mut()?.try_wait().unwrap().is_some();
        ended.then(|| tap.take())?
    });
    let done = done.wait_with_output().unwrap();
    assert!(done.status.success(), "{begins}");
    (String::from_utf8(done.stdout).unwrap(), begins)
}

/// Produces (a tap begins where topics end when it starts) until it has seen enough: what it wrote.
fn until_it_ends(tap: Child, mut produce: impl FnMut()) -> (String, String) {
    let mut tap = Some(tap);
    let done = until("the tap ends by itself", || {
        produce();
        std::thread::sleep(Duration::from_millis(50));
        let ended = tap.as_mut()?.try_wait().unwrap().is_some();
        ended.then(|| tap.take())?
    });
    let done = done.wait_with_output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{said}");
    (String::from_utf8(done.stdout).unwrap(), said)
}

#[test]
fn tap_shows_what_arrives_and_fits_and_says_what_it_passed_over() {
    let site = Site::new(&probe_pipeline(&probe("")));
    site.publish("in", 2, &[Input::ok("before", "a")]);
    let mut process = site.start();
    process.await_drained();
    let filter = r#"message.header("kind") == "order""#;
    let words = ["other", "--filter", filter, "-n", "3", "-o", "json"];
    let mut number = 0;
    let (shown, said) = until_it_ends(tap(&site, &words), || {
        for kind in ["note", "order"] {
            let records = [record(kind, number)];
            process.remote().produce("other", &records).unwrap();
            number += 1;
        }
    });
    let lines: Vec<serde_json::Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{shown}");
    for line in &lines {
        assert_eq!(line["headers"][0]["value"], "order", "{line}");
    }
    assert!(
        said.contains("3 shown of") && said.contains("passed over"),
        "{said}"
    );
    let wrong = tap(&site, &["othr"]).wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean other?"));
    process.stop();
}

#[test]
fn tap_of_a_pipeline_shows_what_comes_in_with_what_came_of_it() {
    // A pipeline with the name of the topic it reads.
    let site = Site::new(&probe_pipeline(&probe("")).replace("name: probe", "name: in"));
    site.publish("in", 2, &[Input::ok("before", "a")]);
    let mut process = site.start();
    process.await_drained();
    let unclear = tap(&site, &["in"]).wait_with_output().unwrap();
    assert_eq!(unclear.status.code(), Some(2));
    let why = String::from_utf8_lossy(&unclear.stderr).into_owned();
    assert!(why.contains("--as pipeline"), "{why}");

    // Of four messages one is rejected and three have an output: eight lines.
    let (shown, said) = tapped(&site, &["-n", "24", "-o", "json"], || {
        produce(&process, &inputs(0, 12));
    });
    let topics = "in (in), other (out), out (out), in.g.dlq (dead letter)";
    assert!(said.contains(topics), "{said}");
    let lines: Vec<serde_json::Value> = shown
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 24, "{shown}");
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for line in &lines {
        let part = line["parts"][0].as_str().unwrap();
        let expected = match part {
            "in" => "in",
            "out" => "out",
            _ => "in.g.dlq",
        };
        assert_eq!(line["topic"], expected, "{line}");
        let id = line["correlation_id"].as_str().unwrap();
        assert!(seen.insert((id.to_owned(), part.to_owned())), "{line}");
    }
    for n in 0..12 {
        let end = if n % 4 == 0 { "dead_letter" } else { "out" };
        for part in ["in", end] {
            let wanted = (format!("c-{n}"), part.to_owned());
            assert!(seen.contains(&wanted), "{wanted:?}: {seen:?}");
        }
    }

    // The same for people.
    let (shown, _) = tapped(&site, &["-n", "24"], || produce(&process, &inputs(12, 12)));
    let letters: Vec<&str> = shown
        .lines()
        .filter(|line| line.starts_with("dead letter\t"))
        .collect();
    assert_eq!(letters.len(), 3, "{shown}");
    assert!(letters.iter().all(|line| line.contains("\trejected: ")));
    let ids = shown.lines().filter_map(|line| line.split('\t').nth(4));
    assert!(ids.clone().count() == 24 && ids.clone().all(|id| id.starts_with("c-")));
    process.await_drained();
    process.stop();
}
