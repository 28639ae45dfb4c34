//! What the demo publishes: the month of flights twice, so that every flight has a duplicate, and three
//! broken lines. Not here: what the pipeline makes of them.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::process::{Error, program, root, target_dir};

pub(crate) const SOURCE: &str = "flights";
pub(crate) const GROUP: &str = "flights";
/// In the order of the table.
pub(crate) const OUTPUTS: [&str; 3] = ["flown", "cancelled", "late"];
pub(crate) const DEAD_LETTERS: &str = "flights.flights.dlq";

/// Lines to publish.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    pub(crate) messages: u64,
}

/// Writes the messages that come after the first `already`.
pub(crate) fn input(already: u64) -> Result<Input, Error> {
    let data = root().join("plugins/examples/flights/data/flights-2013-01.jsonl.gz");
    let month = program("gzip").arg("-dc").arg(data).output()?;
    let mut lines = String::new();
    let mut messages = 0;
    let broken = broken(month.lines().next().ok_or("the data is empty")?)?;
    let flights = month.lines().count() * 2;
    let skipped = usize::try_from(already)?;
    let left = month.lines().chain(month.lines()).skip(skipped).map(flight);
    let broken = broken
        .into_iter()
        .skip(skipped.saturating_sub(flights))
        .map(Ok);
    for message in left.chain(broken) {
        writeln!(lines, "{}", message?)?;
        messages += 1;
    }
    let path = target_dir().join("demo").join("flights.jsonl");
    std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
    std::fs::write(&path, lines)?;
    Ok(Input { path, messages })
}

/// A flight's key is its aircraft, so that what happens to one aircraft stays in order.
fn flight(line: &str) -> Result<Value, Error> {
    let flight: Value = serde_json::from_str(line)?;
    let tail = flight.get("tailnum").and_then(Value::as_str);
    Ok(json!({ "key": tail, "payload": line }))
}

/// Three that nobody can handle: not JSON; a flight without a number, and so without an idempotency
/// key; and one whose distance the handler rejects.
fn broken(flight: &str) -> Result<[Value; 3], Error> {
    let mut numberless: Value = serde_json::from_str(flight)?;
    let mut shorter_than_nothing = numberless.clone();
    if let Some(fields) = numberless.as_object_mut() {
        fields.remove("flight");
    }
    if let Some(fields) = shorter_than_nothing.as_object_mut() {
        fields.insert("flight".to_owned(), json!(99_999));
        fields.insert("distance".to_owned(), json!(-1));
    }
    let payloads = [
        "not JSON".to_owned(),
        numberless.to_string(),
        shorter_than_nothing.to_string(),
    ];
    Ok(payloads.map(|payload| json!({ "key": "N14228", "payload": payload })))
}
