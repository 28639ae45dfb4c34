//! Greets whoever is named in a message.

use serde::{Deserialize, Serialize};
use wasmill_sdk::{Failure, Message, Output, Outputs, config, log};

#[derive(Deserialize)]
struct Request {
    name: String,
}

#[derive(Serialize)]
struct Greeting {
    text: String,
}

/// What becomes of one message. Outputs appear together or not at all; a failure leaves nothing
/// behind. `rejected` goes to the dead letter topic, `retryable` comes again.
#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let request: Request = message.json()?;
    if request.name.is_empty() {
        return Err(Failure::rejected("name is empty"));
    }
    let salutation = config::get("salutation").unwrap_or_else(|| "Hello".to_owned());
    let greeting = Greeting {
        text: format!("{salutation}, {}!", request.name),
    };
    log::info!("greeted {}", request.name);
    // `default` is an entry under `outputs:` in pipeline.yaml. The key stays the input's.
    Ok(Outputs::one(Output::to("default").json(&greeting)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmill_sdk::{Field, testing};

    #[test]
    fn greets_by_name() {
        testing::set_config("salutation", "Good morning");
        let outputs = Message::test()
            .payload(r#"{"name": "Ada"}"#)
            .handle(handle)
            .unwrap();
        let greeting = outputs.named("default").next().unwrap();
        let expected = Field::Value(br#"{"text":"Good morning, Ada!"}"#);
        assert_eq!(greeting.payload_field(), expected);
        assert_eq!(testing::logs().len(), 1);
    }

    #[test]
    fn rejects_a_request_without_a_name() {
        for payload in ["not JSON", "{}", r#"{"name": ""}"#] {
            let failure = Message::test().payload(payload).handle(handle).unwrap_err();
            assert!(failure.is_rejected(), "{failure}");
        }
    }
}
