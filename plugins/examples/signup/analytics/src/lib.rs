//! One of three groups that read the same signups: it counts them by day and plan in its state, and says
//! each new count in an output whose key is what was counted. State and output become durable together,
//! so a crash neither loses a signup nor counts one twice.
//!
//! State is one namespace per partition of the source; the partition is part of the output, and whoever
//! wants the total adds the partitions up.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use wasmill_sdk::{Failure, Message, Output, Outputs, state};

const DAY_MS: i64 = 86_400_000;

#[derive(Deserialize)]
struct Signup<'a> {
    #[serde(borrow)]
    plan: Cow<'a, str>,
}

#[derive(Serialize)]
struct Count<'a> {
    /// Days since 1970-01-01, UTC.
    day: i64,
    plan: &'a str,
    partition: u32,
    signups: u64,
}

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let signup: Signup = message.json()?;
    // The message's own time: a replay counts the same days again.
    let day = message.timestamp().div_euclid(DAY_MS);
    let counted = format!("{day}/{}", signup.plan);
    let before = match state::get(&counted) {
        None => 0,
        Some(bytes) => u64::from_le_bytes(bytes.try_into().map_err(|_| {
            Failure::rejected(format!(
                "the count of {counted} is not one of this handler's"
            ))
        })?),
    };
    let signups = before + 1;
    state::set(&counted, signups.to_le_bytes())?;
    let count = Count {
        day,
        plan: &signup.plan,
        partition: message.partition(),
        signups,
    };
    let key = format!("{counted}/{}", message.partition());
    Ok(Outputs::one(Output::to("count").key(key).json(&count)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;
    use serde_json::json;
    use wasmill_sdk::{Field, testing};

    fn signup(plan: &str, timestamp: i64) -> String {
        let outputs = Message::test()
            .json(&json!({"user_id": 7, "plan": plan}))
            .timestamp(timestamp)
            .partition(2)
            .handle(handle)
            .unwrap();
        let Some(Field::Value(count)) = outputs.named("count").next().map(Output::payload_field)
        else {
            panic!("no count");
        };
        String::from_utf8(count.to_vec()).unwrap()
    }

    #[test]
    fn signups_are_counted_by_day_and_plan() {
        testing::reset();
        let count = |day: i64, plan: &str, signups: u64| {
            format!(r#"{{"day":{day},"plan":"{plan}","partition":2,"signups":{signups}}}"#)
        };
        assert_eq!(signup("free", 0), count(0, "free", 1));
        assert_eq!(signup("free", DAY_MS - 1), count(0, "free", 2));
        assert_eq!(signup("team", 5), count(0, "team", 1));
        assert_eq!(signup("free", DAY_MS), count(1, "free", 1));
    }
}
