//! The incident of docs/incident.md, with wasmill's own commands as a person types them (issue 4,
//! acceptances 1 and 2): what holds a partition, what failed, would a fix help, the fix, the way back
//! through a kill, and what happened to one message from its publishing to its output.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use wasmill_tests::process::until;
use wasmill_tests::site::{plugin, root};
use wasmill_tests::typed::{Host, Terminal};

/// Messages of the customer whose dependency is down.
const FAILING: usize = 12;
const OTHERS: usize = 30;
const ALL: usize = FAILING + OTHERS;

/// `invoices` needs something that is down for one customer; `shipping` reads the same topic and does not.
const PIPELINES: &str = r#"version: 1
host: { admin: { listen: "127.0.0.1:0" }, health: { listen: "127.0.0.1:0" } }
pipelines:
  - name: invoices
    delivery: exactly_once
    source: { topics: [orders], consumer_group: invoices, start: earliest, format: json }
    ordering: { by: key }
    idempotency: { key: message.json.order, ttl: 24h }
    retry: { max_attempts: 3, backoff: { initial_interval: 400ms, multiplier: 1, max_interval: 400ms } }
    handler: { plugin: invoices.wasm, allow: { clock: true } }
    outputs:
      default: { topic: invoiced }
      other: { topic: other }
  - name: shipping
    delivery: exactly_once
    source: { topics: [orders], consumer_group: shipping, start: earliest, format: json }
    handler: { plugin: shipping.wasm }
    outputs:
      default: { topic: shipped }
"#;

/// Lines for `wasmill produce --format json-lines`: one customer's dependency is down for ever.
fn orders() -> String {
    let mut lines = String::new();
    for n in 0..OTHERS {
        let line = json!({ "key": format!("k{}", n % 7), "payload": json!({ "order": format!("good-{n}") }).to_string() });
        writeln!(lines, "{line}").unwrap();
        if n < FAILING {
            let order = json!({ "order": format!("acme-{n}"), "plan": "down", "until": 9_999_999_999_999u64 });
            let line = json!({ "key": "acme", "payload": order.to_string() });
            writeln!(lines, "{line}").unwrap();
        }
    }
    lines
}

fn count(value: &Value, field: &str) -> u64 {
    value[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} in {value}"))
}

fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field]
        .as_array()
        .unwrap_or_else(|| panic!("{field} in {value}"))
}

fn dead_letters(terminal: &Terminal, more: &str) -> Vec<Value> {
    let answer = terminal.json(&format!("wasmill dlq list {more} -o json"));
    list(&answer, "dead_letters").to_vec()
}

/// Values of a field of the payloads in a topic, sorted.
fn consumed(terminal: &Terminal, topic: &str, field: &str) -> Vec<String> {
    let text = terminal.run(&format!(
        "wasmill consume {topic} --from earliest --format raw"
    ));
    let mut all: Vec<String> = text
        .lines()
        .map(|line| {
            let payload: Value = serde_json::from_str(line).unwrap();
            payload[field].as_str().unwrap().to_owned()
        })
        .collect();
    all.sort();
    all
}

/// The way of one message, without what its handler said.
fn story(trace: &Value) -> Vec<String> {
    let events = list(trace, "events").iter();
    let told = events.filter(|event| event["what"] != "guest");
    told.map(|event| {
        let what = event["what"].as_str().unwrap();
        match what {
            "attempt" => format!("attempt {}", event["attempt"]),
            "output" => {
                let place = event["place"].as_str().unwrap();
                format!("output {}", place.split('/').next().unwrap())
            }
            _ => what.to_owned(),
        }
    })
    .collect()
}

fn run(terminal: &Terminal, folder: &Path) -> Host {
    terminal.host(
        "wasmill run pipeline.yaml",
        &folder.join("wasmill-data"),
        &folder.join("host.log"),
    )
}

/// The pipeline of the 3 a.m. page in a folder of its own.
fn invoices(folder: &Path) -> Terminal {
    std::fs::copy(plugin("probe"), folder.join("invoices.wasm")).unwrap();
    std::fs::copy(plugin("mended"), folder.join("mended.wasm")).unwrap();
    std::fs::copy(plugin("mended"), folder.join("shipping.wasm")).unwrap();
    std::fs::write(folder.join("pipeline.yaml"), PIPELINES).unwrap();
    std::fs::write(folder.join("orders.jsonl"), orders()).unwrap();
    Terminal::new(folder, &[])
}

/// The partition of the other group on the topic as it stands, and what it has put out.
fn shipping(terminal: &Terminal) -> (Value, String) {
    (
        terminal.json("wasmill groups describe shipping -o json"),
        terminal.run("wasmill consume shipped --from earliest --headers"),
    )
}

/// `status` names the message that holds the partition, with its attempt, error and next try. Gives its
/// correlation ID.
fn look(terminal: &Terminal) -> String {
    let status = until(
        "a message holds its partition and waits for a retry",
        || {
            let status = terminal.status()?;
            let invoices = &list(&status, "pipelines")[0];
            let mut partitions = list(invoices, "partitions").iter();
            let held = partitions.find(|one| one["holder"]["waits_for"] == "retry")?;
            assert!(count(held, "end") > count(held, "committed"), "{held}");
            Some(held["holder"].clone())
        },
    );
    assert_eq!(status["key"], "acme");
    assert_eq!(status["max_attempts"], 3);
    assert!(count(&status, "attempts") >= 1 && status["next_try_ms"].is_i64());
    let text = until("it says so to people", || {
        let text = terminal.run("wasmill status");
        text.contains("failed; next try in").then_some(text)
    });
    for says in [
        "holds the partition: key acme",
        "of 3 failed; next try in",
        "last error: the dependency does not answer",
        "wasmill trace ",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    status["correlation_id"].as_str().unwrap().to_owned()
}

#[test]
fn the_incident_from_the_lag_to_the_story_of_the_first_message() {
    let folder = tempfile::tempdir().unwrap();
    let terminal = invoices(folder.path());
    terminal.run("wasmill topics create orders --partitions 2");
    let host = run(&terminal, folder.path());
    terminal.run("wasmill produce orders --format json-lines --file orders.jsonl");
    let first = look(&terminal);

    // Attempts are spent: one failure group.
    until("all of them are dead letters", || {
        (dead_letters(&terminal, "").len() == FAILING).then_some(())
    });
    terminal.await_finished("orders", ALL as u64);
    let groups = terminal.json("wasmill dlq groups -o json");
    let [group] = list(&groups, "groups") else {
        panic!("{groups}")
    };
    assert_eq!(count(group, "count"), FAILING as u64);
    assert_eq!(group["reason"], "attempts_exhausted");
    let id = group["id"].as_str().unwrap();
    let before = shipping(&terminal);
    assert_eq!(before.1.matches("\"order\"").count(), ALL, "{}", before.1);

    // Would the fix help? Then it is put in.
    let tried = "wasmill dlq try --plugin mended.wasm pipeline.yaml --pipeline invoices";
    let said = terminal.run(tried);
    assert!(said.contains(&format!("{FAILING}")), "{said}");
    let tried = terminal.json(&format!("{tried} -o json"));
    assert_eq!(count(&tried["groups"][0], "succeed"), FAILING as u64);
    terminal.run("mv mended.wasm invoices.wasm");
    let said = terminal.run("wasmill reload");
    assert!(
        said.contains("invoices changed") && !said.contains("shipping"),
        "{said}"
    );

    // Back to the group that failed: dry, then for real, killed half-way, resumed.
    let redrive = format!("wasmill dlq redrive --group {id}");
    let dry = terminal.json(&format!("{redrive} --dry-run -o json"));
    assert_eq!(count(&dry, "letters"), FAILING as u64);
    assert_eq!(dry["consumer_groups"], json!(["invoices"]));
    assert_eq!(dead_letters(&terminal, "").len(), FAILING);
    let job = terminal.json(&format!("{redrive} --rate 4/s -o json"));
    let job = job["id"].as_str().unwrap().to_owned();
    let sent = until("some are sent", || {
        let sent = count(
            &terminal.json(&format!("wasmill dlq jobs {job} -o json")),
            "sent",
        );
        (sent >= 3).then_some(sent)
    });
    assert!(sent < FAILING as u64, "it was not half-way");
    host.kill();
    let host = run(&terminal, folder.path());
    terminal.run(&format!("wasmill dlq jobs {job} --follow"));
    let ended = terminal.json(&format!("wasmill dlq jobs {job} -o json"));
    assert_eq!(
        (
            &ended["state"],
            count(&ended, "sent"),
            count(&ended, "failed_again")
        ),
        (&json!("done"), FAILING as u64, 0)
    );
    terminal.await_finished("orders", ALL as u64);
    assert!(dead_letters(&terminal, "").is_empty());
    assert_eq!(dead_letters(&terminal, "--state done").len(), FAILING);

    // Each order once; the other group has seen nothing.
    let invoiced = consumed(&terminal, "invoiced", "order");
    assert_eq!(invoiced, consumed(&terminal, "orders", "order"));
    assert_eq!(shipping(&terminal), before);
    assert_eq!(
        terminal.status().unwrap()["pipelines"][1]["totals"]["consumed"],
        0
    );

    // What happened to the first that failed.
    let trace = terminal.json(&format!("wasmill trace {first} -o json"));
    let story = story(&trace);
    let position = |what: &str| {
        let found = story.iter().position(|told| told == what);
        found.unwrap_or_else(|| panic!("{what} in {story:?}"))
    };
    let way = [
        "published",
        "attempt 1",
        "attempt 2",
        "attempt 3",
        "dead_letter",
        "redrive",
        "output invoiced",
    ];
    assert!(way.map(position).is_sorted(), "{story:?}");
    position("output shipped");
    assert_eq!(trace["complete"], true);
    drop(host);
}

/// A few flights and the demo's three broken lines: not JSON, a flight without a number, and one that is
/// shorter than nothing.
fn flights() -> String {
    let file =
        std::fs::File::open(root().join("plugins/examples/flights/data/flights-2013-01.jsonl.gz"))
            .unwrap();
    let month = std::io::BufReader::new(flate2::read::GzDecoder::new(file));
    let flights: Vec<Value> = std::io::BufRead::lines(month)
        .take(10)
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect();
    let mut numberless = flights[0].clone();
    let mut shorter = numberless.clone();
    numberless.as_object_mut().unwrap().remove("flight");
    shorter["flight"] = json!(99_999);
    shorter["distance"] = json!(-1_400);
    let good = flights
        .iter()
        .map(|flight| json!({ "key": flight["tailnum"], "payload": flight.to_string() }));
    let payloads = [
        "not JSON".to_owned(),
        numberless.to_string(),
        shorter.to_string(),
    ];
    let broken = payloads.map(|payload| json!({ "key": "N14228", "payload": payload }));
    good.chain(broken).map(|line| format!("{line}\n")).collect()
}

/// Acceptance 2. The pipeline file is that of the demo; the fix is a line of its handler's configuration.
#[test]
fn the_rejected_line_of_the_demo_is_processed_once_after_the_fix_and_the_others_are_resolved() {
    let folder = tempfile::tempdir().unwrap();
    let plugins = plugin("flights").parent().unwrap().to_owned();
    let terminal = Terminal::new(
        folder.path(),
        &[
            ("WASMILL_ADMIN", "127.0.0.1:0"),
            ("WASMILL_HEALTH", "127.0.0.1:0"),
            ("WASMILL_PLUGINS", plugins.to_str().unwrap()),
        ],
    );
    let pipeline =
        std::fs::read_to_string(root().join("plugins/examples/flights/pipeline.yaml")).unwrap();
    std::fs::write(folder.path().join("pipeline.yaml"), &pipeline).unwrap();
    std::fs::write(folder.path().join("flights.jsonl"), flights()).unwrap();
    terminal.run("wasmill topics create flights --partitions 2");
    let _host = run(&terminal, folder.path());
    let produce = "wasmill produce flights --format json-lines --file flights.jsonl";
    terminal.run(produce);
    terminal.await_finished("flights", 13);
    let reasons = |letters: &[Value]| {
        let reason = |one: &Value| one["reason"].as_str().unwrap().to_owned();
        let mut all: Vec<String> = letters.iter().map(reason).collect();
        all.sort();
        all
    };
    let letters = dead_letters(&terminal, "");
    assert_eq!(
        reasons(&letters),
        ["no_idempotency_key", "rejected", "undecodable"]
    );
    let flown = consumed(&terminal, "flown", "flight");

    let fixed = pipeline.replace(
        "    handler:\n",
        "    handler:\n      config: { negative_distance: accept }\n",
    );
    assert_ne!(fixed, pipeline);
    std::fs::write(folder.path().join("pipeline.yaml"), fixed).unwrap();
    let tried = terminal.json(&format!(
        "wasmill dlq try --plugin {} pipeline.yaml -o json",
        plugin("flights").display()
    ));
    let succeed: u64 = list(&tried, "groups")
        .iter()
        .map(|group| count(group, "succeed"))
        .sum();
    assert_eq!(succeed, 1, "{tried}");
    assert!(terminal.run("wasmill reload").contains("flights changed"));
    // Its idempotency key stands as failed, which does not hold up what an operator sends again (§7.5).
    let said = terminal.json("wasmill dlq redrive --pipeline flights --follow -o json");
    assert_eq!((count(&said, "sent"), count(&said, "failed_again")), (3, 2));
    let left = dead_letters(&terminal, "");
    assert_eq!(reasons(&left), ["no_idempotency_key", "undecodable"]);
    assert!(left.iter().all(|one| one["redrive_count"] == 1), "{left:?}");
    let mut expected = flown;
    expected.push("UA99999".to_owned());
    expected.sort();
    assert_eq!(consumed(&terminal, "flown", "flight"), expected);

    // Its key stands as completed now: the same flight again is a duplicate.
    terminal.run("tail -n 1 flights.jsonl > again.jsonl");
    terminal.run("wasmill produce flights --format json-lines --file again.jsonl");
    terminal.await_finished("flights", 14);
    assert_eq!(consumed(&terminal, "flown", "flight"), expected);

    terminal.run("wasmill dlq resolve --pipeline flights --note 'lines of a test'");
    assert!(dead_letters(&terminal, "").is_empty());
    let resolved = dead_letters(&terminal, "--state resolved");
    assert_eq!(reasons(&resolved), ["no_idempotency_key", "undecodable"]);
    let id = resolved[0]["id"].as_str().unwrap();
    let shown = terminal.json(&format!("wasmill dlq show {id} -o json"));
    assert_eq!(shown["history"][1]["note"], "lines of a test", "{shown:#}");
}
