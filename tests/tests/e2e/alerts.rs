//! The rules that `wasmill alerts` prints (§12.3), judged by those who read them: promtool, and a real
//! Prometheus that scrapes a real host.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value as Json;
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::{DEADLINE, until};
use wasmill_tests::site::{Site, target_dir};

use crate::{probe, probe_pipeline};

/// One of the programs that `cargo xtask test tools` puts there, or the machine's own.
fn program(name: &str) -> PathBuf {
    let unpacked = target_dir().join("tools/prometheus/usr/bin").join(name);
    if unpacked.exists() {
        return unpacked;
    }
    let found = Command::new(name).arg("--version").output();
    assert!(
        found.is_ok(),
        "there is no {}; run `cargo xtask test tools` first",
        unpacked.display()
    );
    PathBuf::from(name)
}

/// Whether promtool accepts a file of rules, and what it says.
fn checked(rules: &Path) -> (bool, String) {
    let done = Command::new(program("promtool"))
        .args(["check", "rules"])
        .arg(rules)
        .output()
        .unwrap();
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Writes what `wasmill alerts` prints for the configuration of `site`.
fn rules_of(site: &Site, pending_seconds: &str) -> PathBuf {
    let config = site.config();
    let arguments = ["alerts", config.to_str().unwrap(), "--for", pending_seconds];
    let done = site.command(&arguments, &[]);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    let path = site.path().join("rules.yml");
    std::fs::write(&path, done.stdout).unwrap();
    path
}

/// A running Prometheus. It never outlives the test.
struct Prometheus {
    child: Child,
    log: PathBuf,
    address: String,
}

impl Prometheus {
    /// Scrapes the health port of a host every so often, and judges `rules` five times a second.
    fn start(site: &Site, scraped: &str, rules: &Path, every: &str) -> Self {
        let (config, log) = (
            site.path().join("prometheus.yml"),
            site.path().join("prometheus.log"),
        );
        let yaml = format!(
            "global: {{ scrape_interval: {every}, scrape_timeout: 200ms, evaluation_interval: 200ms }}\nrule_files: [\"{}\"]\nscrape_configs:\n  - {{ job_name: wasmill, static_configs: [{{ targets: [\"{scraped}\"] }}] }}\n",
            rules.display()
        );
        std::fs::write(&config, yaml).unwrap();
        let child = Command::new(program("prometheus"))
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                site.path().join("tsdb").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut prometheus = Self {
            child,
            log,
            address: String::new(),
        };
        prometheus.address = until("Prometheus listens", || prometheus.listening());
        prometheus
    }

    /// The port it chose, which it tells in its log only.
    fn listening(&mut self) -> Option<String> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("Prometheus ended ({status}):\n{log}");
        }
        let (_, rest) = log.split_once("msg=\"Listening on\" address=")?;
        let (line, _) = rest.split_once('\n')?;
        Some(line.split_whitespace().next()?.to_owned())
    }

    /// `data` of an answer; nothing while it is not ready.
    fn get(&self, path: &str) -> Option<Json> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(DEADLINE))
            .build()
            .new_agent();
        let mut answer = agent
            .get(format!("http://{}{path}", self.address))
            .call()
            .ok()?;
        let text = answer.body_mut().read_to_string().ok()?;
        let answer: Json = serde_json::from_str(&text).ok()?;
        (answer["status"] == "success").then(|| answer["data"].clone())
    }

    /// How many series it has of a metric.
    fn series(&self, metric: &str) -> usize {
        let data = self.get(&format!("/api/v1/query?query={metric}"));
        data.and_then(|data| Some(data["result"].as_array()?.len()))
            .unwrap_or(0)
    }

    /// The alerts that fire, whole.
    fn alerts(&self) -> Option<Vec<Json>> {
        let data = self.get("/api/v1/alerts")?;
        let all = data["alerts"].as_array()?.iter();
        Some(
            all.filter(|alert| alert["state"] == "firing")
                .cloned()
                .collect(),
        )
    }

    fn firing(&self) -> Option<BTreeSet<String>> {
        let alerts = self.alerts()?;
        let names = alerts.iter();
        names
            .map(|alert| Some(alert["labels"]["alertname"].as_str()?.to_owned()))
            .collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// A pipeline whose failing message holds its key for an hour.
fn watched(alerts: &str) -> String {
    probe_pipeline(&format!(
        "    alerts: {alerts}\n    retry: {{ max_attempts: 100, backoff: {{ initial_interval: 1h, max_interval: 1h }} }}\n{}",
        probe("")
    ))
}

#[test]
fn promtool_accepts_the_rules_and_counts_one_for_each_alert_beside_the_two_that_are_always_there() {
    for (alerts, rules) in [
        ("{}", 2),
        ("{ lag: 1 }", 3),
        (
            "{ lag: 10000, oldest_age: 90s, dead_letters: { count: 10, per: 90s } }",
            5,
        ),
    ] {
        let site = Site::new(&watched(alerts));
        for pending in ["0", "60", "90"] {
            let path = rules_of(&site, pending);
            let (accepted, said) = checked(&path);
            assert!(accepted, "{alerts}: {said}");
            // It accepts an empty file too.
            let count = format!("{rules} rules found");
            assert!(said.contains(&count), "{alerts}: {said}");
        }
    }
    // That it says no is what its yes is worth.
    let site = Site::new(&watched("{ lag: 1 }"));
    let path = rules_of(&site, "60");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("sum by (", "sum by by (")).unwrap();
    let (accepted, said) = checked(&path);
    assert!(!accepted, "{said}");
}

#[test]
fn alerts_fire_in_prometheus_while_a_key_is_held_and_end_when_it_is_free() {
    let site = Site::new(&watched(
        "{ lag: 5, oldest_age: 1s, dead_letters: { count: 3, per: 5m } }",
    ));
    site.publish("in", 1, &[]);
    let mut process = site.start();
    let rules = rules_of(&site, "0");
    let health = process.health_address().to_string();
    let prometheus = Prometheus::start(&site, &health, &rules, "200ms");
    // What grows is seen only from a first value on.
    until("it has scraped the host", || {
        (prometheus.series("wasmill_dead_letters_total") > 0
            && prometheus.series("wasmill_queue_depth") > 0)
            .then_some(())
    });
    // Seen in a few rounds: a healthy host is no alert.
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(prometheus.firing(), Some(names([])));

    let mut inputs: Vec<Input> = (0..3)
        .map(|n| Input::planned(&format!("no{n}"), "b", "reject", 0, Expected::Nothing))
        .collect();
    inputs.push(Input::planned(
        "bad",
        "a",
        "always_fail",
        0,
        Expected::Nothing,
    ));
    inputs.extend((0..8).map(|n| Input::ok(&format!("behind{n}"), "a")));
    let records: Vec<_> = inputs.iter().map(Input::record).collect();
    process.remote().produce("in", &records).unwrap();
    let all = names(["WasmillDeadLetters", "WasmillLag", "WasmillOldestMessage"]);
    let mut last = None;
    let fired = wasmill_tests::process::within(DEADLINE, || {
        last = prometheus.firing();
        (last.as_ref() == Some(&all)).then_some(())
    });
    assert!(fired.is_some(), "firing at the end: {last:?}");
    for alert in prometheus.alerts().unwrap() {
        let labels = &alert["labels"];
        assert_eq!(labels["pipeline"], "probe", "{alert:#}");
        assert_eq!(labels["consumer_group"], "g", "{alert:#}");
        assert_eq!(labels["severity"], "warning", "{alert:#}");
        let summary = alert["annotations"]["summary"].as_str().unwrap();
        assert!(summary.contains("pipeline probe"), "{alert:#}");
        // Templates are filled in.
        let description = alert["annotations"]["description"].as_str().unwrap();
        assert!(!description.contains("{{"), "{alert:#}");
        assert!(!description.contains("error"), "{alert:#}");
    }

    let data_dir = site.data_dir();
    let reject = ["reject", "in/0@3", "--group", "g", "--note", "given up"];
    let own = ["--data-dir", data_dir.to_str().unwrap()];
    let done = site.command(&[&own[..], &reject[..]].concat(), &[]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    process.await_drained();
    until("what was about the held key ends", || {
        let firing = prometheus.firing()?;
        (!firing.contains("WasmillLag") && !firing.contains("WasmillOldestMessage")).then_some(())
    });
    // A host that is dead fires nothing else.
    process.kill();
    until("somebody is told of the dead host", || {
        let firing = prometheus.firing()?;
        firing.contains("WasmillPipelineAbsent").then_some(())
    });
}

/// In a window shorter than two scrapes nothing increases; the host's own count is asked.
#[test]
fn dead_letters_fire_when_their_window_is_shorter_than_two_scrapes() {
    let site = Site::new(&watched("{ dead_letters: { count: 3, per: 10s } }"));
    site.publish("in", 1, &[]);
    let process = site.start();
    let rules = rules_of(&site, "0");
    let health = process.health_address().to_string();
    let prometheus = Prometheus::start(&site, &health, &rules, "15s");
    let letters: Vec<_> = (0..3)
        .map(|n| Input::planned(&format!("no{n}"), "b", "reject", 0, Expected::Nothing).record())
        .collect();
    until("the alert fires while they keep coming", || {
        process.remote().produce("in", &letters).unwrap();
        let firing = prometheus.firing()?;
        firing.contains("WasmillDeadLetters").then_some(())
    });
    process.stop();
}
