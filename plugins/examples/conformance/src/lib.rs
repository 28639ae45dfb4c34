//! Does what the header `ask` says, so that tests/conformance can see each function of the SDK work
//! under a real host. An SDK in another language has a guest that does the same. Not an example to copy.

use serde_json::{Value, json};
use std::time::Duration;
use wasmill_sdk::{Failure, Message, Output, Outputs, clock, config, log, random, state};

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    match message.header("ask").unwrap_or(b"describe") {
        b"describe" => say(&described(message)),
        b"outputs" => outputs(),
        b"echo" => {
            let payload = message.payload().unwrap_or_default();
            Ok(Outputs::one(Output::to("default").payload(payload)))
        }
        b"config" => say(
            &json!({"currency": config::get("currency"), "other": config::get("other"), "all": config::all()}),
        ),
        b"log" => {
            log::debug("plain");
            log::error!("formatted {}", message.offset());
            Ok(Outputs::none())
        }
        b"state" => say(&with_state(message.text()?)?),
        b"clock" => say(&json!(clock::now())),
        b"random" => say(&json!(random::bytes(100_000).len())),
        b"retry" => Err(Failure::retryable("later").after(Duration::from_millis(1500))),
        b"reject" => Err(Failure::rejected("never")),
        b"panic" => panic!("asked to panic at {}", message.offset()),
        other => Err(Failure::rejected(format!(
            "cannot do `{}`",
            String::from_utf8_lossy(other)
        ))),
    }
}

fn say(answer: &Value) -> Result<Outputs, Failure> {
    Ok(Outputs::one(Output::to("default").json(answer)?))
}

fn described(message: Message) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<_> = message
        .headers()
        .iter()
        .map(|(name, value)| json!([name, text(value)]))
        .collect();
    json!({
        "topic": message.topic(),
        "partition": message.partition(),
        "offset": message.offset(),
        "timestamp": message.timestamp(),
        "key": message.key().map(text),
        "payload": message.payload().map(text),
        "headers": headers,
        "attempt": message.attempt(),
        "correlation_id": message.correlation_id(),
        "idempotency_key": message.idempotency_key(),
    })
}

fn outputs() -> Result<Outputs, Failure> {
    Ok(Outputs::from(vec![
        Output::to("first"),
        Output::to("second")
            .key("k")
            .json(&[1, 2])?
            .header("a", "1")
            .header("a", ""),
        Output::to("third").no_key().tombstone(),
    ]))
}

fn with_state(key: &str) -> Result<Value, Failure> {
    let before = state::get(key).map(|value| value.len());
    state::set(key, "one")?;
    state::set(&format!("{key}/empty"), "")?;
    state::set(&format!("{key}/gone"), "two")?;
    state::delete(&format!("{key}/gone"));
    let too_large = state::set(key, vec![0; 256 * 1024 + 1]).map_err(|error| error.to_string());
    Ok(json!({
        "before": before,
        "after": state::get(key).map(|value| String::from_utf8_lossy(&value).into_owned()),
        "empty": state::get(&format!("{key}/empty")),
        "gone": state::get(&format!("{key}/gone")),
        "all": state::scan(key, 10),
        "first": state::scan(key, 1).len(),
        "too_large": too_large,
    }))
}
