//! An event-sourced projection: the balance of each account, kept in state and published after every
//! event under the account's key. It looks at nothing but the events, so reading them again from the
//! beginning gives the same bytes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use wasmill_sdk::{Failure, Message, Output, Outputs, state};

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow)]
    account: Cow<'a, str>,
    /// Below zero: taken out.
    cents: i64,
}

#[derive(Serialize)]
struct Balance<'a> {
    account: &'a str,
    cents: i64,
    events: u64,
    /// Of the last event, Unix milliseconds.
    as_of_ms: i64,
}

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let event: Event = message.json()?;
    if message.key() != Some(event.account.as_bytes()) {
        // Two keys of one account could meet in two partitions, and so in two balances.
        return Err(Failure::rejected("the key of an event is its account"));
    }
    let (before, events) = stored(&event.account)?;
    let cents = before
        .checked_add(event.cents)
        .ok_or_else(|| Failure::rejected("the balance would be more than 64 bits hold"))?;
    let events = events + 1;
    let entry = [cents.to_le_bytes(), events.to_le_bytes()].concat();
    state::set(&event.account, entry)?;
    let balance = Balance {
        account: &event.account,
        cents,
        events,
        as_of_ms: message.timestamp(),
    };
    Ok(Outputs::one(Output::to("balance").json(&balance)?))
}

/// Cents and number of events so far.
fn stored(account: &str) -> Result<(i64, u64), Failure> {
    let Some(entry) = state::get(account) else {
        return Ok((0, 0));
    };
    let parts = entry.split_first_chunk::<8>();
    let read = parts.and_then(|(cents, rest)| {
        let events = rest.try_into().ok()?;
        Some((i64::from_le_bytes(*cents), u64::from_le_bytes(events)))
    });
    read.ok_or_else(|| Failure::rejected("the state of this account is not one of this handler's"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;
    use serde_json::json;
    use wasmill_sdk::{Field, testing};

    fn event(account: &str, cents: i64) -> Result<String, Failure> {
        let outputs = Message::test()
            .key("ada")
            .timestamp(5)
            .json(&json!({"account": account, "cents": cents}))
            .handle(handle)?;
        let Some(Field::Value(balance)) =
            outputs.named("balance").next().map(Output::payload_field)
        else {
            panic!("no balance");
        };
        Ok(String::from_utf8(balance.to_vec()).unwrap())
    }

    #[test]
    fn a_balance_is_the_sum_of_its_events() {
        testing::reset();
        event("ada", 500).unwrap();
        assert_eq!(
            event("ada", -700).unwrap(),
            r#"{"account":"ada","cents":-200,"events":2,"as_of_ms":5}"#
        );
    }

    #[test]
    fn an_event_under_another_key_is_rejected_and_changes_nothing() {
        testing::reset();
        assert!(event("bob", 5).unwrap_err().is_rejected());
        assert!(state::get("bob").is_none());
    }

    #[test]
    fn a_balance_never_overflows() {
        testing::reset();
        event("ada", i64::MAX).unwrap();
        assert!(event("ada", 1).unwrap_err().is_rejected());
    }
}
