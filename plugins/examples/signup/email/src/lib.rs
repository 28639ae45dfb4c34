//! One of three groups that read the same signups: it writes the welcome mail. The mail is an output, to
//! be sent by whoever reads `emails`; the same signup twice is one mail, because the pipeline has an
//! idempotency key.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use wasmill_sdk::{Failure, Message, Output, Outputs};

#[derive(Deserialize)]
struct Signup<'a> {
    user_id: u64,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    email: Cow<'a, str>,
    #[serde(borrow)]
    plan: Cow<'a, str>,
}

#[derive(Serialize)]
struct Email<'a> {
    user_id: u64,
    to: &'a str,
    template: &'static str,
    subject: String,
}

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let signup: Signup = message.json()?;
    if !is_address(&signup.email) {
        // No further try makes an address of it: a dead letter, for a person to look at.
        return Err(Failure::rejected(format!(
            "`{}` is no mail address",
            signup.email
        )));
    }
    let email = Email {
        user_id: signup.user_id,
        to: &signup.email,
        template: if signup.plan == "team" {
            "welcome-team"
        } else {
            "welcome"
        },
        subject: format!("Welcome, {}", signup.name),
    };
    Ok(Outputs::one(Output::to("email").json(&email)?))
}

/// Something before one `@`, and a name with a dot after it.
fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let labels = domain.split('.');
    !local.is_empty()
        && domain.contains('.')
        && !domain.contains('@')
        && labels.clone().all(|label| !label.is_empty())
        && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;
    use serde_json::json;
    use wasmill_sdk::Field;

    fn signup(email: &str, plan: &str) -> Result<Outputs, Failure> {
        Message::test()
            .json(&json!({"user_id": 7, "name": "Ada", "email": email, "plan": plan}))
            .handle(handle)
    }

    #[test]
    fn a_signup_gives_one_welcome_mail() {
        let outputs = signup("ada@example.org", "free").unwrap();
        let mails: Vec<_> = outputs.named("email").map(Output::payload_field).collect();
        let mail = br#"{"user_id":7,"to":"ada@example.org","template":"welcome","subject":"Welcome, Ada"}"#;
        assert_eq!(mails, [Field::Value(mail)]);
    }

    #[test]
    fn a_team_gets_a_mail_of_its_own() {
        let outputs = signup("ada@example.org", "team").unwrap();
        let Some(Field::Value(mail)) = outputs.iter().next().map(Output::payload_field) else {
            panic!("no mail");
        };
        assert!(String::from_utf8_lossy(mail).contains("welcome-team"));
    }

    #[test]
    fn what_is_no_address_is_rejected() {
        for bad in [
            "",
            "ada",
            "@example.org",
            "ada@",
            "ada@example",
            "a@b@c.d",
            "a b@c.d",
            "a@.d",
        ] {
            assert!(signup(bad, "free").unwrap_err().is_rejected(), "{bad}");
        }
    }
}
