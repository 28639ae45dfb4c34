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
    let all = month.lines().chain(month.lines()).map(flight);
    let skipped = usize::try_from(already)?;
    for message in all.chain(broken().map(Ok)).skip(skipped) {
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

/// Not JSON; without a flight number, so without an idempotency key; rejected by the handler.
fn broken() -> impl Iterator<Item = Value> {
    let date = r#""year":2013,"month":1,"day":31,"carrier":"UA","tailnum":"N14228""#;
    [
        "this is not JSON".to_owned(),
        format!(r#"{{{date},"dep_time":517,"distance":1400}}"#),
        format!(r#"{{{date},"flight":99999,"dep_time":517,"distance":-1}}"#),
    ]
    .into_iter()
    .map(|payload| json!({ "key": "N14228", "payload": payload }))
}
