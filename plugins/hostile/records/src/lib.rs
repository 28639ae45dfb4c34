//! A handler that speaks plain records through wit-bindgen, without an SDK. The payload is one command,
//! so that a test can reach every import and every outcome:
//!
//! `echo` · `describe` (the message as text) · `fields` (each kind of key and payload) · `set KEY VALUE` ·
//! `get KEY` · `delete KEY` · `scan PREFIX LIMIT` · `fill KEY BYTES` (until it is refused) · `set-and-trap KEY` · `clock` · `random N` ·
//! `config KEY` · `config-all` · `log TEXT` · `retry MS` · `retry` · `reject` · `many N`.

#![allow(missing_docs, reason = "generated")]

wit_bindgen::generate!({ path: "../../../wit", world: "handler" });

use exports::wasmill::handler::records::Guest;
use wasmill::handler::types::{Failure, Field, Header, Message, Output, Retry};
use wasmill::handler::{clock, config, log, random, state};

struct Records;
export!(Records);

type Outcome = Result<Vec<Output>, Failure>;

impl Guest for Records {
    fn handle(messages: Vec<Message>) -> Vec<Outcome> {
        messages
            .iter()
            .enumerate()
            .map(|(index, message)| run(index as u32, message))
            .collect()
    }
}

fn run(index: u32, message: &Message) -> Outcome {
    let payload = String::from_utf8_lossy(message.payload.as_deref().unwrap_or_default());
    let words: Vec<&str> = payload.split(' ').collect();
    match words[..] {
        ["echo"] => Ok(vec![output(Field::Inherit, Field::Inherit)]),
        ["describe"] => text(describe(message)),
        ["fields"] => Ok(vec![
            output(Field::Inherit, Field::None),
            output(Field::None, Field::Value(b"v".to_vec())),
            output(Field::Value(b"k".to_vec()), Field::Inherit),
        ]),
        ["clock"] => text(clock::now().to_string()),
        ["random", count] => text(random::bytes(number(count)).len().to_string()),
        ["config", key] => text(format!("{:?}", config::get(key))),
        ["config-all"] => text(format!("{:?}", config::all())),
        ["log", line] => {
            log::log(log::Level::Warn, Some(index), line);
            Ok(Vec::new())
        }
        ["retry"] => failure(None),
        ["retry", after] => failure(Some(number(after).into())),
        ["reject"] => Err(Failure::Rejected("asked to".to_owned())),
        ["many", count] => Ok((0..number(count))
            .map(|_| output(Field::Inherit, Field::Inherit))
            .collect()),
        _ => with_state(&words),
    }
}

fn with_state(words: &[&str]) -> Outcome {
    match *words {
        ["set", key, value] => text(match state::set(key, value.as_bytes()) {
            Ok(()) => "stored".to_owned(),
            Err(state::Error::Full) => "full".to_owned(),
            Err(state::Error::TooLarge) => "too large".to_owned(),
        }),
        ["get", key] => {
            let value = state::get(key);
            text(format!(
                "{:?}",
                value.map(|value| String::from_utf8_lossy(&value).into_owned())
            ))
        }
        ["delete", key] => {
            state::delete(key);
            Ok(Vec::new())
        }
        ["scan", prefix, limit] => {
            let entries = state::scan(prefix, number(limit));
            let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
            text(keys.join(","))
        }
        ["fill", key, bytes] => {
            let value = vec![0; number(bytes) as usize];
            let mut written = 0u32;
            while written < 20_000 && state::set(&format!("{key}{written:05}"), &value).is_ok() {
                written += 1;
            }
            text(written.to_string())
        }
        ["set-and-trap", key] => {
            let set = state::set(key, b"must not be seen");
            panic!("after {set:?}");
        }
        _ => Err(Failure::Rejected(format!("unknown command {words:?}"))),
    }
}

fn describe(message: &Message) -> String {
    format!(
        "{} {} {} {} {:?} {:?} {} {} {:?}",
        message.topic,
        message.partition,
        message.offset,
        message.timestamp,
        message.key,
        message
            .headers
            .iter()
            .map(|h| (&h.name, &h.value))
            .collect::<Vec<_>>(),
        message.attempt,
        message.correlation_id,
        message.idempotency_key
    )
}

fn output(key: Field, payload: Field) -> Output {
    let headers = vec![Header {
        name: "by".to_owned(),
        value: b"records".to_vec(),
    }];
    Output {
        name: "default".to_owned(),
        key,
        payload,
        headers,
    }
}

fn text(text: String) -> Outcome {
    Ok(vec![output(
        Field::Inherit,
        Field::Value(text.into_bytes()),
    )])
}

fn failure(after: Option<u64>) -> Outcome {
    Err(Failure::Retryable(Retry {
        reason: "asked to".to_owned(),
        after,
    }))
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or(0)
}
