//! Inputs of a run: who produced them, in which order, what the handler is told to do with them, and
//! what must come of that. Not here: whether it did (`checker`).

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use wasmill::admin::wire::{Blob, Header, Record};
use wasmill::message::HeadersBuf;

use crate::site::root;

/// The header that names an input, kept by every output and dead letter of it.
pub const ID: &str = "probe-id";

/// One message to put in.
#[derive(Debug, Clone)]
pub struct Input {
    pub id: String,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    /// Beside the ID.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Instead of the one of the key.
    pub partition: Option<u32>,
    /// It comes as far as the idempotency key and has one.
    pub is_keyed: bool,
    pub expected: Expected,
}

/// What must come of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// One message in each of these topics, in this order (a topic may stand there twice).
    Outputs(Vec<&'static str>),
    /// A dead letter with one of these reasons, after so many attempts.
    DeadLetter {
        reasons: Vec<&'static str>,
        attempts: u32,
    },
    /// Finished, with nothing to see.
    Nothing,
}

impl Input {
    /// A message with a plan for the probe (`{"plan": …, "n": …}`).
    pub fn planned(id: &str, key: &str, plan: &str, n: u32, expected: Expected) -> Self {
        Self {
            id: id.to_owned(),
            key: Some(key.as_bytes().to_vec()),
            payload: Some(json!({"plan": plan, "n": n}).to_string().into_bytes()),
            headers: Vec::new(),
            partition: None,
            is_keyed: true,
            expected,
        }
    }

    /// The same with one header more.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers
            .push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// The same in this partition, whatever its key.
    #[must_use]
    pub fn at(mut self, partition: u32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// One that succeeds with one output to the topic `out`.
    pub fn ok(id: &str, key: &str) -> Self {
        Self::planned(id, key, "ok", 0, Expected::one("out"))
    }

    pub(crate) fn headers_into(&self, headers: &mut HeadersBuf) {
        headers.clear();
        assert!(headers.push(ID, Some(self.id.as_bytes())));
        for (name, value) in &self.headers {
            assert!(headers.push(name, Some(value)));
        }
    }

    /// For the admin port.
    pub fn record(&self) -> Record {
        let own = std::iter::once((ID.to_owned(), self.id.as_bytes().to_vec()));
        let headers = own.chain(self.headers.iter().cloned());
        Record {
            key: self.key.clone().map(Blob),
            payload: self.payload.clone().map(Blob),
            headers: headers
                .map(|(name, value)| Header {
                    name,
                    value: Some(Blob(value)),
                })
                .collect(),
            timestamp_ms: None,
            partition: self.partition,
        }
    }
}

impl Expected {
    pub fn one(topic: &'static str) -> Self {
        Self::Outputs(vec![topic])
    }

    pub fn dead(reason: &'static str, attempts: u32) -> Self {
        Self::DeadLetter {
            reasons: vec![reason],
            attempts,
        }
    }
}

/// The month of flights, round after round, in the order of the file: key = tail number. In every
/// `trouble_every` lines one of each: a line that fails twice, one that always fails, one that is
/// rejected, one that is not JSON, one without a carrier (which the idempotency key needs).
pub struct Flights {
    lines: Vec<String>,
    next: usize,
    trouble_every: usize,
    max_attempts: u32,
}

impl Flights {
    pub fn new(trouble_every: usize, max_attempts: u32) -> Self {
        let path: PathBuf = root().join("plugins/examples/flights/data/flights-2013-01.jsonl.gz");
        let file = std::fs::File::open(path).unwrap();
        let lines = BufReader::new(GzDecoder::new(file)).lines();
        Self {
            lines: lines.map(Result::unwrap).collect(),
            next: 0,
            trouble_every,
            max_attempts,
        }
    }

    fn make(&self, number: usize) -> Input {
        let (round, at) = (number / self.lines.len(), number % self.lines.len());
        let mut line: Value = serde_json::from_str(&self.lines[at]).unwrap();
        let key = line["tailnum"]
            .as_str()
            .map(|tail| tail.as_bytes().to_vec());
        line["round"] = json!(round);
        let mut expected = Expected::Outputs(sorted(&line));
        let mut broken = None;
        match number % self.trouble_every {
            3 => {
                line["plan"] = json!("fail_times");
                line["n"] = json!(2);
            }
            7 => {
                line["plan"] = json!("always_fail");
                expected = Expected::DeadLetter {
                    // The last attempt may be one during which the host was killed.
                    reasons: vec!["attempts_exhausted", "host_crash"],
                    attempts: self.max_attempts,
                };
            }
            11 => {
                line["distance"] = json!(-1);
                expected = Expected::dead("rejected", 1);
            }
            13 => {
                broken = Some("not JSON".as_bytes().to_vec());
                expected = Expected::dead("undecodable", 0);
            }
            17 => {
                line.as_object_mut().unwrap().remove("carrier");
                expected = Expected::dead("no_idempotency_key", 0);
            }
            _ => {}
        }
        Input {
            id: format!("flights-{number:07}"),
            key,
            payload: Some(broken.unwrap_or_else(|| line.to_string().into_bytes())),
            headers: Vec::new(),
            partition: None,
            is_keyed: !matches!(number % self.trouble_every, 13 | 17),
            expected,
        }
    }
}

impl Iterator for Flights {
    type Item = Input;

    fn next(&mut self) -> Option<Input> {
        self.next += 1;
        Some(self.make(self.next - 1))
    }
}

fn sorted(line: &Value) -> Vec<&'static str> {
    if line["dep_time"].is_null() {
        vec!["cancelled"]
    } else if line["dep_delay"].as_i64().is_some_and(|delay| delay > 60) {
        vec!["flown", "late"]
    } else {
        vec!["flown"]
    }
}
