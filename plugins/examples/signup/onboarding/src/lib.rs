//! One of three groups that read the same signups: it plans the first steps of a new user, several
//! outputs for one message, which appear together or not at all.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use wasmill_sdk::{Failure, Message, Output, Outputs};

const DAY_MS: i64 = 86_400_000;

#[derive(Deserialize)]
struct Signup<'a> {
    user_id: u64,
    #[serde(borrow)]
    plan: Cow<'a, str>,
}

#[derive(Serialize)]
struct Task {
    user_id: u64,
    task: &'static str,
    /// Unix milliseconds.
    due_ms: i64,
}

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let signup: Signup = message.json()?;
    let steps: &[(&str, i64)] = match &*signup.plan {
        "free" => &[("tour", 0), ("tips", 3)],
        "team" => &[("tour", 0), ("invite-colleagues", 1), ("call", 7)],
        other => return Err(Failure::rejected(format!("there is no plan `{other}`"))),
    };
    let mut outputs = Outputs::none();
    for (task, days) in steps {
        let task = Task {
            user_id: signup.user_id,
            task,
            due_ms: message.timestamp() + days * DAY_MS,
        };
        outputs.push(Output::to("task").json(&task)?);
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;
    use serde_json::json;

    fn tasks(plan: &str) -> Result<Vec<String>, Failure> {
        let outputs = Message::test()
            .json(&json!({"user_id": 7, "plan": plan}))
            .timestamp(1_000)
            .handle(handle)?;
        let payload = |output: &Output| match output.payload_field() {
            wasmill_sdk::Field::Value(task) => String::from_utf8(task.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        Ok(outputs.named("task").map(payload).collect())
    }

    #[test]
    fn each_plan_has_its_steps() {
        assert_eq!(
            tasks("free").unwrap(),
            [
                r#"{"user_id":7,"task":"tour","due_ms":1000}"#,
                r#"{"user_id":7,"task":"tips","due_ms":259201000}"#
            ]
        );
        assert_eq!(tasks("team").unwrap().len(), 3);
        assert!(tasks("gold").unwrap_err().is_rejected());
    }
}
