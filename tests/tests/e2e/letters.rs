//! What an operator does about dead letters, with the commands alone (§6.3 to §6.5, issue 4): look, try a
//! fix, send them back, through a kill, and close the rest.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use wasmill_tests::input::{Expected, ID, Input};
use wasmill_tests::process::until;
use wasmill_tests::site::{Site, plugin};

use crate::{probe, probe_pipeline};

/// Messages that a fixed handler processes, and those that it rejects as well.
const GOOD: usize = 40;
const BAD: usize = 2;

/// Two consumer groups on one topic. The handler of `mail` is made for other messages than these and
/// rejects every one: that is the fault to be fixed.
fn pipelines(mail: &str) -> String {
    format!(
        r#"  - name: mail
    delivery: exactly_once
    source: {{ topics: [in], consumer_group: g, start: earliest }}
    idempotency: {{ key: message.header("order"), ttl: 1h }}
    outputs:
      default: {{ topic: out, headers: ["probe-*"] }}
    handler: {{ plugin: {}, allow: {{ clock: true }} }}
  - name: analytics
    source: {{ topics: [in], consumer_group: a, start: earliest }}
    outputs:
      default: {{ topic: seen, headers: ["probe-*"] }}
    handler: {{ plugin: {}, allow: {{ clock: true }} }}
"#,
        plugin(mail).display(),
        plugin("probe").display()
    )
}

fn inputs() -> Vec<Input> {
    let good = (0..GOOD).map(|n| Input::ok(&format!("good-{n}"), &format!("k{}", n % 7)));
    let bad = (0..BAD).map(|n| {
        Input::planned(
            &format!("bad-{n}"),
            "k0",
            "reject",
            0,
            Expected::dead("rejected", 1),
        )
    });
    good.chain(bad)
        .map(|input| {
            let order = input.id.clone();
            input.header("order", &order)
        })
        .collect()
}

/// Runs a command on the site's directory: whether it succeeded, its results, its notes and errors.
fn run(site: &Site, arguments: &[&str]) -> (bool, String, String) {
    let data_dir = site.data_dir();
    let place = ["--data-dir", data_dir.to_str().unwrap()];
    let done = site.command(&[arguments, &place].concat(), &[]);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (done.status.success(), text(done.stdout), text(done.stderr))
}

/// The same with everything it said.
fn command(site: &Site, arguments: &[&str]) -> (bool, String) {
    let (ok, results, errors) = run(site, arguments);
    (ok, results + &errors)
}

fn json(site: &Site, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["-o", "json"]].concat();
    let (ok, results, errors) = run(site, &arguments);
    assert!(ok, "{arguments:?}: {errors}");
    serde_json::from_str(&results).unwrap_or_else(|why| panic!("{why}: {results}"))
}

fn count(value: &Value, field: &str) -> u64 {
    value[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} in {value}"))
}

fn listed(site: &Site, more: &[&str]) -> Vec<Value> {
    let list = [&["dlq", "list", "--pipeline", "mail"], more].concat();
    json(site, &list)["dead_letters"]
        .as_array()
        .unwrap()
        .clone()
}

/// How often each input is in a topic.
fn ids(site: &Site, topic: &str) -> BTreeMap<String, usize> {
    let mut ids = BTreeMap::new();
    for stored in site.read(topic) {
        *ids.entry(stored.header(ID).unwrap()).or_default() += 1;
    }
    ids
}

#[test]
fn dead_letters_are_found_tried_redriven_through_a_kill_and_closed() {
    let site = Site::new(&pipelines("flights"));
    site.publish("in", 2, &inputs());
    let mut process = site.start();
    process.await_drained();

    // One failure group, although every error text is another.
    assert_eq!(listed(&site, &[]).len(), GOOD + BAD);
    let groups = json(&site, &["dlq", "groups", "--pipeline", "mail"]);
    let groups = groups["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 1, "{groups:?}");
    assert_eq!(count(&groups[0], "count"), (GOOD + BAD) as u64);
    let group = groups[0]["id"].as_str().unwrap().to_owned();
    let example = groups[0]["example"].as_str().unwrap();
    let shown = json(&site, &["dlq", "show", example]);
    assert_eq!(shown["state"]["state"], "new");
    let origin = format!(
        "{}/{}@{}",
        shown["origin_topic"].as_str().unwrap(),
        shown["origin_partition"],
        shown["origin_offset"]
    );
    let facts = json(&site, &["show", &origin]);
    assert_eq!(facts["groups"][1]["dead_letter_id"], shown["id"]);

    // Would a fix help? Nothing happens by asking.
    let config = site.config();
    let candidate = plugin("probe");
    let tried = json(
        &site,
        &[
            "dlq",
            "try",
            "--plugin",
            candidate.to_str().unwrap(),
            config.to_str().unwrap(),
            "--pipeline",
            "mail",
        ],
    );
    let tried = &tried["groups"][0];
    assert_eq!(tried["group"], group.as_str());
    assert_eq!(
        (count(tried, "succeed"), count(tried, "rejected")),
        (GOOD as u64, BAD as u64)
    );
    assert_eq!(listed(&site, &[]).len(), GOOD + BAD);
    process.stop();

    // The fix is in. A dry run, then for real at a rate, and the host is killed half-way.
    site.configure("", &pipelines("probe"));
    let process = site.start();
    let redrive = ["dlq", "redrive", "--group", &group];
    let dry = json(&site, &[&redrive[..], &["--dry-run"]].concat());
    assert_eq!(count(&dry, "letters"), (GOOD + BAD) as u64);
    assert_eq!(dry["consumer_groups"][0], "g");
    assert!(json(&site, &["dlq", "jobs"]).as_array().unwrap().is_empty());
    let job = json(&site, &[&redrive[..], &["--rate", "20/s"]].concat());
    let job = job["id"].as_str().unwrap().to_owned();
    let looked = until("half of them are sent", || {
        let sent = count(&json(&site, &["dlq", "jobs", &job]), "sent");
        (sent >= GOOD as u64 / 2).then_some(sent)
    });
    assert!(looked < (GOOD + BAD) as u64, "it was not half-way");
    process.kill();

    let process = site.start();
    let (ok, text) = command(&site, &["dlq", "jobs", &job, "--follow"]);
    assert!(ok, "{text}");
    let ended = json(&site, &["dlq", "jobs", &job]);
    assert_eq!(ended["state"], "done");
    assert_eq!(count(&ended, "sent"), (GOOD + BAD) as u64);
    assert_eq!(count(&ended, "failed_again"), BAD as u64);

    // Those that failed again are there, one round higher, and resolved with a note.
    let left = listed(&site, &[]);
    let rounds: Vec<u64> = left.iter().map(|one| count(one, "redrive_count")).collect();
    assert_eq!(rounds, [1; BAD]);
    let id = left[0]["id"].as_str().unwrap();
    let history = json(&site, &["dlq", "show", id])["history"].clone();
    assert_eq!(history[0]["state"], "done");
    assert_eq!(history[1]["state"], "new");
    let (refused, why) = command(&site, &["dlq", "purge", "--pipeline", "mail"]);
    assert!(!refused && why.contains("--yes"), "{why}");
    let resolve = [
        "dlq",
        "resolve",
        "--pipeline",
        "mail",
        "--note",
        "test orders",
    ];
    let (ok, text) = command(&site, &resolve);
    assert!(ok && text.contains("2 dead letters resolved"), "{text}");
    assert!(listed(&site, &[]).is_empty());
    assert_eq!(listed(&site, &["--state", "resolved"]).len(), BAD);
    let audit = json(&site, &["audit"]);
    let audit = audit.as_array().unwrap();
    assert_eq!(audit[0]["command"], "dlq resolve");
    assert_eq!(
        (audit[0]["who"].as_str(), audit[0]["note"].as_str()),
        (Some("cli"), Some("test orders"))
    );
    assert_eq!(audit[1]["command"], "dlq redrive");
    process.stop();

    // Each once, although its idempotency key stood as failed; the other group saw nothing of it.
    for topic in ["out", "seen"] {
        let ids = ids(&site, topic);
        assert_eq!(ids.len(), GOOD, "{topic}");
        assert!(ids.values().all(|count| *count == 1), "{topic}: {ids:?}");
    }
}

/// §5.2, §6.3: a redriven letter whose attempt failed waits in another topic for the next one. Until then
/// it is on its way: nobody sends it again, or closes it.
#[test]
fn a_letter_that_waits_for_its_next_attempt_is_on_its_way() {
    let site = Site::new(&probe_pipeline(&format!(
        "    ordering: {{ by: none }}\n    retry: {{ mode: deferred, max_attempts: 2, backoff: {{ initial_interval: 3s, max_interval: 3s }} }}\n{}",
        probe("")
    )));
    let fails = Expected::dead("attempts_exhausted", 2);
    site.publish(
        "in",
        1,
        &[Input::planned("never", "a", "always_fail", 0, fails)],
    );
    let process = site.start();
    let open = || json(&site, &["dlq", "list"])["dead_letters"].clone();
    let first = until("it is a dead letter", || open().get(0).cloned());
    let id = first["id"].as_str().unwrap();
    let (ok, text) = command(&site, &["dlq", "redrive", id]);
    assert!(ok, "{text}");
    until("it is put aside again", || {
        (process.metric("wasmill_retries_total", &[]) >= 2.0).then_some(())
    });
    let state = until("that is durable", || {
        let shown = json(&site, &["dlq", "show", id]);
        let state = shown["state"].clone();
        state["note"].is_string().then_some(state)
    });
    assert_eq!(
        (&state["state"], &state["lost"]),
        (&"redriving".into(), &false.into())
    );
    assert_eq!(open(), Value::Array(Vec::new()));
    let again = json(&site, &["dlq", "redrive", id]);
    let (_, said) = command(&site, &["dlq", "resolve", id, "--note", "no"]);
    assert!(said.contains("redriving"), "{said}");
    let second = until("it failed again", || open().get(0).cloned());
    assert_eq!(count(&second, "redrive_count"), 1);
    let again = json(&site, &["dlq", "jobs", again["id"].as_str().unwrap()]);
    assert_eq!(count(&again, "sent"), 0);
    process.stop();
    assert_eq!(site.read("in.g.dlq").len(), 2);
}

/// §6.3, §7.7: a message that is processed anew and fails again is for somebody to look at, although it
/// was closed when it failed before; and it goes back once.
#[test]
fn a_message_that_fails_again_after_a_seek_is_open_again() {
    let site = Site::new(&pipelines("flights"));
    site.publish("in", 1, &[Input::ok("order", "a").header("order", "7")]);
    let run = || {
        let mut process = site.start();
        process.await_drained();
        process.stop();
    };
    run();
    let (ok, text) = command(
        &site,
        &["dlq", "resolve", "--pipeline", "mail", "--note", "no"],
    );
    assert!(ok, "{text}");
    assert!(listed(&site, &[]).is_empty());
    let seek = ["groups", "seek", "g", "--to", "earliest"];
    let seek = [&seek[..], &["--idempotency", "new-epoch", "--yes"]].concat();
    let (ok, text) = command(&site, &seek);
    assert!(ok, "{text}");
    run();
    let open = listed(&site, &[]);
    assert!(!open.is_empty());
    assert!(
        open.iter()
            .all(|one| one["id"] == open[0]["id"] && one["state"]["state"] == "new")
    );
    site.configure("", &pipelines("probe"));
    let job = json(&site, &["dlq", "redrive", "--pipeline", "mail"]);
    assert_eq!(count(&job, "sent"), 1);
    run();
    assert_eq!(site.read("out").len(), 1);
    assert!(listed(&site, &[]).is_empty());
}

/// §8.2: a deadline says when a caller is gone; who sends a dead letter again wants it executed.
#[test]
fn a_request_that_is_redriven_after_its_deadline_is_executed() {
    let site = Site::new(&pipelines("flights"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let deadline = now.as_millis() + 10_000;
    let asked = Input::ok("asked", "a")
        .header("order", "7")
        .header("wasmill-deadline", &deadline.to_string());
    site.publish("in", 1, &[asked]);
    let mut process = site.start();
    process.await_drained();
    process.stop();
    assert_eq!(listed(&site, &[]).len(), 1, "it was in time");
    let job = json(&site, &["dlq", "redrive", "--pipeline", "mail"]);
    assert_eq!(count(&job, "sent"), 1);
    site.configure("", &pipelines("probe"));
    let passed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis();
    let left = u64::try_from((deadline + 1).saturating_sub(passed)).unwrap();
    std::thread::sleep(Duration::from_millis(left));
    let mut process = site.start();
    process.await_drained();
    process.stop();
    assert_eq!(site.read("out").len(), 1);
    assert_eq!(listed(&site, &["--state", "done"]).len(), 1);
}

/// Without a host everything is written at once, and processed when one runs.
#[test]
fn a_redrive_without_a_host_is_processed_by_the_next_one() {
    let site = Site::new(&pipelines("flights"));
    site.publish("in", 1, &inputs());
    let mut process = site.start();
    process.await_drained();
    process.stop();
    let redrive = ["dlq", "redrive", "--pipeline", "mail"];
    let job = json(&site, &redrive);
    assert_eq!(count(&job, "sent"), (GOOD + BAD) as u64);
    assert!(listed(&site, &[]).is_empty());
    assert_eq!(listed(&site, &["--state", "redriving"]).len(), GOOD + BAD);
    let follow = ["dlq", "jobs", job["id"].as_str().unwrap(), "--follow"];
    // A host whose pipelines are others says that nobody takes them.
    let both = pipelines("probe");
    let analytics = both.find("  - name: analytics").unwrap();
    site.configure("", &both[analytics..]);
    let process = site.start();
    let (ok, text) = command(&site, &follow);
    assert!(
        !ok && text.contains("no pipeline of this host reads as g"),
        "{text}"
    );
    process.stop();
    site.configure("", &both);
    let process = site.start();
    let (ok, text) = command(&site, &follow);
    assert!(ok, "{text}");
    process.stop();
    assert_eq!(listed(&site, &[]).len(), BAD);
    assert_eq!(ids(&site, "out").len(), GOOD);
}

#[test]
fn a_wrong_name_suggests_the_nearest_and_acting_on_everything_wants_to_be_said() {
    let site = Site::new(&pipelines("flights"));
    site.publish("in", 1, &inputs());
    let mut process = site.start();
    process.await_drained();
    process.stop();
    let (ok, text) = command(&site, &["dlq", "list", "--pipeline", "mial"]);
    assert!(ok && text.contains("did you mean mail?"), "{text}");
    let (ok, text) = command(&site, &["dlq", "redrive", "--pipeline", "mial"]);
    assert!(!ok && text.contains("did you mean mail?"), "{text}");
    let (ok, text) = command(&site, &["dlq", "resolve"]);
    assert!(!ok && text.contains("--all"), "{text}");
    let (ok, text) = command(&site, &["dlq", "jobs", "r1"]);
    assert!(!ok && text.contains("there is no redrive r1"), "{text}");
    let (ok, text) = command(&site, &["dlq", "redrive", "--all"]);
    assert!(!ok && text.contains("--consumer-group"), "{text}");
}

/// §6.5: each way to end, and nothing of it is done.
#[test]
fn a_try_says_what_each_letter_would_come_to_and_changes_nothing() {
    let site = Site::new(&pipelines("flights"));
    let plans = ["ok", "always_fail", "reject", "trap", "unknown_output"];
    let inputs: Vec<Input> = plans
        .iter()
        .map(|plan| Input::planned(plan, "k", plan, 0, Expected::Nothing).header("order", plan))
        .collect();
    site.publish("in", 1, &inputs);
    let mut process = site.start();
    until("the dead letters of mail are there", || {
        (listed(&site, &[]).len() == plans.len()).then_some(())
    });
    process.signal(rustix::process::Signal::TERM);
    process.await_end();
    let before = (site.read("in.g.dlq").len(), ids(&site, "out"));
    let (config, candidate) = (site.config(), plugin("probe"));
    let candidate = candidate.to_str().unwrap();
    let sums = |more: &[&str]| {
        let arguments = [
            &["dlq", "try", "--plugin", candidate, "--pipeline", "mail"],
            more,
        ]
        .concat();
        let report = json(&site, &arguments);
        let groups = report["groups"].as_array().unwrap().clone();
        ["letters", "succeed", "retry", "rejected", "fault"]
            .map(|field| groups.iter().map(|group| count(group, field)).sum::<u64>())
    };
    // The outputs of the pipeline are known from its YAML only.
    assert_eq!(sums(&[config.to_str().unwrap()]), [5, 1, 1, 2, 1]);
    assert_eq!(sums(&[]), [5, 2, 1, 1, 1]);
    assert_eq!(sums(&["--limit", "2"])[0], 2);
    assert_eq!((site.read("in.g.dlq").len(), ids(&site, "out")), before);
    let (ok, text) = command(
        &site,
        &[
            "dlq",
            "try",
            "--plugin",
            candidate,
            config.to_str().unwrap(),
        ],
    );
    assert!(!ok && text.contains("name one with --pipeline"), "{text}");
}
