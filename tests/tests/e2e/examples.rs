//! The examples as they stand (issue 4, part 8): each pipeline file, the commands of its page, and what
//! the page promises. Only data directory and ports are other ones.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use wasmill_tests::process::until;
use wasmill_tests::site::{plugin, root};
use wasmill_tests::typed::{Host, Terminal};

/// A page's host with the commands that are typed in the other terminal.
struct Example {
    terminal: Terminal,
    commands: Vec<String>,
    _host: Host,
    _data: TempDir,
}

impl Example {
    fn start(name: &str) -> Self {
        let page = root().join("plugins/examples").join(name).join("README.md");
        let mut commands = commands(&page).into_iter();
        let data = tempfile::tempdir().unwrap();
        let plugins = plugin("flights").parent().unwrap().canonicalize().unwrap();
        let terminal = Terminal::new(
            &root(),
            &[
                (
                    "WASMILL_DATA_DIR",
                    data.path().join("data").to_str().unwrap(),
                ),
                ("WASMILL_ADMIN", "127.0.0.1:0"),
                ("WASMILL_HEALTH", "127.0.0.1:0"),
                ("WASMILL_PLUGINS", plugins.to_str().unwrap()),
            ],
        );
        let start = commands.next().unwrap();
        assert_eq!(
            start,
            format!("wasmill run plugins/examples/{name}/pipeline.yaml")
        );
        let host = terminal.host(
            &start,
            &data.path().join("data"),
            &data.path().join("host.log"),
        );
        Self {
            terminal,
            commands: commands.collect(),
            _host: host,
            _data: data,
        }
    }

    /// Types the page's commands that begin so, in their order; what they wrote.
    fn type_all(&self, beginning: &str) -> Vec<String> {
        let lines = self.commands.iter();
        let lines: Vec<&String> = lines.filter(|line| line.starts_with(beginning)).collect();
        assert!(!lines.is_empty(), "{beginning}: {:?}", self.commands);
        lines.iter().map(|line| self.terminal.run(line)).collect()
    }

    fn payloads(&self, topic: &str) -> Vec<Value> {
        let line = format!("wasmill consume {topic} --from earliest --format raw");
        let text = self.terminal.run(&line);
        let payload = |line| serde_json::from_str(line).unwrap();
        text.lines().map(payload).collect()
    }

    fn dead_letters(&self) -> Vec<Value> {
        let answer = self.terminal.json("wasmill dlq list -o json");
        answer["dead_letters"].as_array().unwrap().clone()
    }
}

/// The lines of a page's code blocks that begin with `wasmill`.
fn commands(page: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(page).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("wasmill "));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_signup_without_address_is_a_dead_letter_of_email_alone_and_a_second_one_does_nothing() {
    let example = Example::start("signup");
    example.type_all("wasmill produce");
    example.terminal.await_finished("signups", 2);
    let seen = example.type_all("wasmill consume");
    assert!(
        seen[0].contains("ada@example.org") && !seen[0].contains("bob"),
        "{seen:?}"
    );
    let tasks = |user: u64| {
        let tasks = example.payloads("onboarding.tasks").into_iter();
        tasks.filter(|task| task["user_id"] == user).count()
    };
    assert!(seen[1].contains("invite-colleagues"), "{seen:?}");
    assert_eq!((tasks(7), tasks(8)), (2, 3), "{seen:?}");
    let listed = example.type_all("wasmill dlq list");
    assert!(listed[0].contains("signup-email"), "{listed:?}");
    let letters = example.dead_letters();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["pipeline"], "signup-email");
    assert_eq!(example.payloads("signup.counts").len(), 2);
    // Produce the first one again.
    example.terminal.run(&example.commands[0]);
    example.terminal.await_finished("signups", 3);
    assert_eq!(example.payloads("emails").len(), 1);
    assert_eq!((tasks(7), tasks(8)), (2, 3));
    assert_eq!(example.payloads("signup.counts").len(), 2);
    assert_eq!(example.dead_letters().len(), 1);
    let status = example.terminal.status().unwrap();
    for pipeline in status["pipelines"].as_array().unwrap() {
        assert_eq!(pipeline["totals"]["duplicates"], 1, "{pipeline}");
    }
}

#[test]
fn a_job_that_is_early_waits_aside_and_one_of_an_unknown_kind_is_a_dead_letter() {
    let example = Example::start("jobs");
    let in_a_second = "$(( $(date +%s%3N) + 1000 ))";
    let early = format!(
        "wasmill produce jobs \"{{\\\"id\\\": 3, \\\"kind\\\": \\\"words\\\", \\\"input\\\": \\\"a b c\\\", \\\"ready_at_ms\\\": {in_a_second}}}\""
    );
    example.terminal.run(&early);
    example.type_all("wasmill produce");
    until(
        "the job that came last is done, and the early one as well",
        || (example.payloads("jobs.done").len() == 2).then_some(()),
    );
    let seen = example.type_all("wasmill consume");
    assert!(seen[0].contains(r#""id":1"#), "{seen:?}");
    let done = example.payloads("jobs.done");
    assert_eq!((&done[0]["id"], &done[0]["result"]), (&1.into(), &6.into()));
    assert_eq!((&done[1]["id"], &done[1]["result"]), (&3.into(), &3.into()));
    // It was put aside, not tried again and again: the handler said when.
    assert_eq!(done[1]["attempt"], 2, "{done:?}");
    let listed = example.type_all("wasmill dlq list");
    assert!(listed[0].contains("rejected"), "{listed:?}");
    let letters = example.dead_letters();
    assert_eq!(letters.len(), 1);
    let error = letters[0]["error"].as_str().unwrap();
    assert!(error.contains("dance"), "{error}");
}

/// Acceptance 4 on the example: rebuilt by seek with a new epoch, byte for byte.
#[test]
fn a_ledger_that_is_rebuilt_has_the_same_balances_byte_for_byte() {
    let example = Example::start("ledger");
    example.type_all("wasmill produce");
    for n in 3..60 {
        let account = ["ada", "bob", "eve"][n % 3];
        example.terminal.run(&format!(
            r#"wasmill produce account.events --key {account} '{{"event_id": {n}, "account": "{account}", "cents": {}}}'"#,
            n * 7
        ));
    }
    // The same event twice: one change.
    example.terminal.run(&example.commands[0]);
    example.terminal.await_finished("account.events", 60);
    let seen = example.type_all("wasmill consume");
    assert!(seen[0].contains("ada"), "{seen:?}");
    let before = example.payloads("balances");
    assert_eq!(before.len(), 59);

    example.type_all("wasmill groups seek");
    until("the projection is rebuilt", || {
        (example.payloads("balances").len() == 2 * 59).then_some(())
    });
    let raw = example
        .terminal
        .run("wasmill consume balances --from earliest --format raw");
    for account in ["ada", "bob", "eve"] {
        let name = format!(r#""{account}""#);
        let of_account: Vec<&str> = raw.lines().filter(|line| line.contains(&name)).collect();
        let (first, second) = of_account.split_at(of_account.len() / 2);
        assert!(!first.is_empty());
        assert_eq!(first, second, "{account}");
    }
}

#[test]
fn a_request_for_a_price_is_answered_and_what_is_no_question_is_a_dead_letter() {
    let example = Example::start("pricing");
    let answers = example.type_all("wasmill request");
    let pens: Value = serde_json::from_str(answers[0].trim()).unwrap();
    assert_eq!(
        (&pens["total_cents"], &pens["currency"]),
        (&750.into(), &"EUR".into()),
        "{answers:?}"
    );
    assert!(answers[1].contains("error"), "{answers:?}");
    let nonsense = "wasmill request pricing.requests 'how much is the fish' --timeout 1s";
    assert!(!example.terminal.output(nonsense).status.success());
    until("it is a dead letter", || {
        (example.dead_letters().len() == 1).then_some(())
    });
    let listed = example.type_all("wasmill dlq list");
    assert!(listed[0].contains("pricing"), "{listed:?}");
}
