//! A service that answers: the reply goes to the topic in the request's `reply-to` header, with its
//! correlation ID. Prices come from the pipeline's `handler.config`. A question that has no answer gets a
//! reply that says so; only what is no question is rejected.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wasmill_sdk::{Failure, Message, Output, Outputs, config};

/// From this many pieces on, a tenth less.
const BULK_PIECES: u64 = 100;

#[derive(Deserialize)]
struct Question<'a> {
    #[serde(borrow)]
    sku: Cow<'a, str>,
    pieces: u64,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Answer<'a> {
    Price {
        sku: &'a str,
        pieces: u64,
        total_cents: u64,
        currency: String,
    },
    Unknown {
        error: String,
    },
}

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let question: Question = message.json()?;
    let answer = match price(&question.sku)? {
        Some(cents) => Answer::Price {
            sku: &question.sku,
            pieces: question.pieces,
            total_cents: total(cents, question.pieces)
                .ok_or_else(|| Failure::rejected("that is more money than there is"))?,
            currency: config::get("currency").unwrap_or_else(|| "EUR".to_owned()),
        },
        None => Answer::Unknown {
            error: format!("`{}` is not in the list", question.sku),
        },
    };
    Ok(Outputs::one(Output::to("reply").no_key().json(&answer)?))
}

/// Cents of one piece. A list that cannot be read is for the operator to mend: every request waits for that.
fn price(sku: &str) -> Result<Option<u64>, Failure> {
    let list = config::get("prices").ok_or_else(|| {
        Failure::retryable("`handler.config.prices` is missing: a JSON object from SKU to cents")
    })?;
    let list: BTreeMap<Cow<str>, u64> = serde_json::from_str(&list)
        .map_err(|error| Failure::retryable(format!("`handler.config.prices`: {error}")))?;
    Ok(list.get(sku).copied())
}

fn total(cents: u64, pieces: u64) -> Option<u64> {
    let whole = cents.checked_mul(pieces)?;
    Some(if pieces >= BULK_PIECES {
        whole - whole / 10
    } else {
        whole
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;
    use serde_json::json;
    use wasmill_sdk::{Field, testing};

    fn answer(sku: &str, pieces: u64) -> Result<String, Failure> {
        testing::reset();
        testing::set_config("prices", r#"{"pen": 250, "desk": 40000}"#);
        let outputs = Message::test()
            .json(&json!({"sku": sku, "pieces": pieces}))
            .handle(handle)?;
        let replies: Vec<_> = outputs.named("reply").map(Output::payload_field).collect();
        let [Field::Value(reply)] = replies[..] else {
            panic!("{replies:?}");
        };
        Ok(String::from_utf8(reply.to_vec()).unwrap())
    }

    #[test]
    fn the_price_comes_from_the_list() {
        assert_eq!(
            answer("pen", 3).unwrap(),
            r#"{"sku":"pen","pieces":3,"total_cents":750,"currency":"EUR"}"#
        );
    }

    #[test]
    fn a_hundred_pieces_cost_a_tenth_less() {
        assert!(answer("pen", 99).unwrap().contains("24750"));
        assert!(answer("pen", 100).unwrap().contains("22500"));
    }

    #[test]
    fn what_is_not_in_the_list_is_answered_too() {
        assert_eq!(
            answer("ship", 1).unwrap(),
            r#"{"error":"`ship` is not in the list"}"#
        );
    }

    #[test]
    fn without_a_list_requests_wait_and_nonsense_is_rejected() {
        assert!(answer("desk", u64::MAX).unwrap_err().is_rejected());
        testing::reset();
        let asked = Message::test().json(&json!({"sku": "pen", "pieces": 1}));
        assert!(asked.handle(handle).unwrap_err().is_retryable());
        assert!(
            Message::test()
                .payload("{}")
                .handle(handle)
                .unwrap_err()
                .is_rejected()
        );
    }
}
