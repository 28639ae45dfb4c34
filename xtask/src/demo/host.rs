//! A host under the demo, driven through the commands that users have. Not here: what is published and
//! what the figures mean.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::flights::{DEAD_LETTERS, OUTPUTS, SOURCE};
use crate::guests::plugins_dir;
use crate::process::{Error, Program, Running, program, root, target_dir};

const START_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Host {
    binary: PathBuf,
    data_dir: PathBuf,
    log: PathBuf,
    running: Option<Running>,
}

/// Messages in the topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) source: u64,
    pub(crate) outputs: Vec<(&'static str, u64)>,
    pub(crate) dead_letters: u64,
}

/// What the host counted since it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) consumed: u64,
    pub(crate) duplicates: u64,
}

impl Counts {
    pub(crate) fn since(&self, before: &Self) -> Self {
        let outputs = self.outputs.iter().zip(&before.outputs);
        Self {
            source: self.source - before.source,
            outputs: outputs.map(|(now, then)| (now.0, now.1 - then.1)).collect(),
            dead_letters: self.dead_letters - before.dead_letters,
        }
    }
}

impl Host {
    /// Starts the flights pipeline on `data_dir` and waits until it is ready.
    pub(crate) fn start(binary: PathBuf, data_dir: &Path) -> Result<Self, Error> {
        let log = target_dir().join("demo").join("host.log");
        std::fs::create_dir_all(log.parent().unwrap_or(&log))?;
        let [admin, health] = free_addresses()?;
        let running = program(&binary)
            .arg("run")
            .arg(root().join("plugins/examples/flights/pipeline.yaml"))
            .env("WASMILL_DATA_DIR", data_dir)
            .env("WASMILL_ADMIN", admin)
            .env("WASMILL_HEALTH", &health)
            .env("WASMILL_PLUGINS", plugins_dir())
            .spawn(&log)?;
        let mut host = Self {
            binary,
            data_dir: data_dir.to_owned(),
            log,
            running: Some(running),
        };
        let started = Instant::now();
        // Asked over HTTP: a command would open the data directory itself while no host holds it.
        while !is_ready(&health) {
            host.still_runs()?;
            if started.elapsed() > START_MAX {
                return Err(format!(
                    "the host did not get ready; its log is {}",
                    host.log.display()
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(host)
    }

    /// Publishes the JSON lines in `file`.
    pub(crate) fn produce(&self, topic: &str, file: &Path) -> Result<(), Error> {
        self.command(&["produce", topic, "--format", "json-lines", "--file"])
            .arg(file)
            .succeed()
    }

    pub(crate) fn counts(&self) -> Result<Counts, Error> {
        let topics = self.json(&["topics", "list"])?;
        let in_topic = |name: &str| {
            let described = topics.as_array().into_iter().flatten();
            let named =
                described.filter(|topic| topic.get("topic").is_some_and(|topic| topic == name));
            named.map(|topic| sum_of(topic, "messages")).sum()
        };
        Ok(Counts {
            source: in_topic(SOURCE),
            outputs: OUTPUTS.map(|name| (name, in_topic(name))).to_vec(),
            dead_letters: in_topic(DEAD_LETTERS),
        })
    }

    /// Messages the group has settled, from the beginning of the topic.
    pub(crate) fn settled(&self, group: &str) -> Result<u64, Error> {
        Ok(sum_of(
            &self.json(&["groups", "describe", group])?,
            "committed",
        ))
    }

    pub(crate) fn totals(&self) -> Result<Totals, Error> {
        let status = self.json(&["status"])?;
        Ok(Totals {
            consumed: sum_of(&status, "consumed"),
            duplicates: sum_of(&status, "duplicates"),
        })
    }

    /// The first dead letter, as `wasmill dlq show` prints it.
    pub(crate) fn one_dead_letter(&self) -> Result<String, Error> {
        let list = self.json(&["dlq", "list", "--topic", DEAD_LETTERS])?;
        let id = first_of(&list, "id").ok_or("there is no dead letter")?;
        self.command(&["dlq", "show", &id]).output()
    }

    /// Asks the host to end and waits until it has.
    pub(crate) fn stop(&mut self, limit: Duration) -> Result<(), Error> {
        let Some(running) = self.running.take() else {
            return Ok(());
        };
        let stopped = running.terminate(limit);
        stopped
            .map_err(|error| format!("the host: {error}; its log is {}", self.log.display()).into())
    }

    pub(crate) fn still_runs(&mut self) -> Result<(), Error> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        running
            .still_runs()
            .map_err(|error| format!("the host: {error}; its log is {}", self.log.display()).into())
    }

    pub(crate) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    fn command(&self, words: &[&str]) -> Program {
        program(&self.binary)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(words)
    }

    fn json(&self, words: &[&str]) -> Result<Value, Error> {
        let text = self.command(words).args(["-o", "json"]).output()?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// Whether `/readyz` on the health port answers 200.
fn is_ready(health: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(health)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "GET /readyz HTTP/1.1\r\nHost: {health}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    };
    ask().unwrap_or(false)
}

/// Two loopback addresses that nobody listens on.
fn free_addresses() -> Result<[String; 2], Error> {
    let listeners = [
        TcpListener::bind("127.0.0.1:0")?,
        TcpListener::bind("127.0.0.1:0")?,
    ];
    let [admin, health] = &listeners;
    Ok([
        admin.local_addr()?.to_string(),
        health.local_addr()?.to_string(),
    ])
}

/// Adds up every number under `name`, wherever it stands.
fn sum_of(value: &Value, name: &str) -> u64 {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(field, value)| match value.as_u64() {
                Some(number) if field == name => number,
                _ => sum_of(value, name),
            })
            .sum(),
        Value::Array(values) => values.iter().map(|value| sum_of(value, name)).sum(),
        _ => 0,
    }
}

/// The first text under `name`, wherever it stands.
fn first_of(value: &Value, name: &str) -> Option<String> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .find_map(|(field, value)| match value.as_str() {
                Some(text) if field == name => Some(text.to_owned()),
                _ => first_of(value, name),
            }),
        Value::Array(values) => values.iter().find_map(|value| first_of(value, name)),
        _ => None,
    }
}
