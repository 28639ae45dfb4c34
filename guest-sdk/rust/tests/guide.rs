//! docs/handlers-rust.md: every piece of Rust on that page stands here too, compiled and tried.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::unnecessary_wraps,
    reason = "a test may stop at once, and a page shows things in their simplest form"
)]

mod function {
    use std::time::Duration;
    use wasmill_sdk::{Failure, Message, Output, Outputs};

    #[derive(serde::Deserialize)]
    struct Order {
        customer: String,
        total_cents: i64,
    }

    #[wasmill_sdk::handler]
    fn handle(message: Message) -> Result<Outputs, Failure> {
        let order: Order = message.json()?;
        if order.total_cents < 0 {
            return Err(Failure::rejected("total is below zero"));
        }
        let Some(rate) = rate_of_the_day() else {
            let wait = Duration::from_secs(30);
            return Err(Failure::retryable("no exchange rate yet").after(wait));
        };
        let mut outputs = Outputs::one(Output::to("checked"));
        if order.total_cents * rate > 1_000_000 {
            let review = Output::to("review").key(&order.customer).payload("large");
            outputs.push(review.header("rule", "total"));
        }
        Ok(outputs)
    }

    fn rate_of_the_day() -> Option<i64> {
        Some(2)
    }

    #[test]
    fn a_large_order_is_reviewed_under_its_customer() {
        let order = Message::test().payload(r#"{"customer": "ada", "total_cents": 600000}"#);
        let outputs = order.handle(handle).unwrap();
        let review = outputs.named("review").next().unwrap();
        assert_eq!(review.key_field(), wasmill_sdk::Field::Value(b"ada"));
        assert_eq!(review.headers().get("rule"), Some(&b"total"[..]));
    }
}

mod failures {
    use wasmill_sdk::{Failure, Message, Output};

    enum Refusal {
        UnknownSku(String),
        PricesNotLoaded,
    }

    impl From<Refusal> for Failure {
        fn from(refusal: Refusal) -> Self {
            match refusal {
                Refusal::UnknownSku(sku) => Failure::rejected(format!("no such SKU: {sku}")),
                Refusal::PricesNotLoaded => Failure::retryable("prices are not loaded"),
            }
        }
    }

    #[wasmill_sdk::handler]
    fn handle(message: Message) -> Result<Output, Refusal> {
        match message.key() {
            None => Err(Refusal::PricesNotLoaded),
            Some(b"A-1") => Ok(Output::to("priced").payload("100")),
            Some(sku) => Err(Refusal::UnknownSku(
                String::from_utf8_lossy(sku).into_owned(),
            )),
        }
    }

    #[test]
    fn an_error_of_ones_own_becomes_the_failure_it_says() {
        let unknown = Message::test().key("A-2").handle(handle).unwrap_err();
        assert_eq!(unknown, Failure::rejected("no such SKU: A-2"));
        assert!(Message::test().handle(handle).unwrap_err().is_retryable());
        assert_eq!(Message::test().key("A-1").handle(handle).unwrap().len(), 1);
    }
}

mod json {
    use std::borrow::Cow;
    use wasmill_sdk::{Failure, Message, Output};

    #[derive(serde::Deserialize, serde::Serialize)]
    struct Reading<'a> {
        #[serde(borrow)]
        sensor: Cow<'a, str>,
        celsius: f64,
    }

    #[wasmill_sdk::handler]
    fn handle(message: Message) -> Result<Option<Output>, Failure> {
        let reading: Reading = message.json()?;
        if reading.celsius < 80.0 {
            return Ok(None);
        }
        Ok(Some(Output::to("alarms").json(&reading)?))
    }

    #[test]
    fn only_what_is_hot_goes_on() {
        let hot = Message::test().payload(r#"{"sensor": "a\"b", "celsius": 81.5}"#);
        assert_eq!(hot.handle(handle).unwrap().len(), 1);
        let cold = Message::test().payload(r#"{"sensor": "a", "celsius": 21.5}"#);
        assert_eq!(cold.handle(handle).unwrap().len(), 0);
    }
}

mod host {
    use wasmill_sdk::{Failure, Message, Output, config, log, state};

    #[wasmill_sdk::handler]
    fn handle(message: Message) -> Result<Option<Output>, Failure> {
        let limit = config::get("limit")
            .unwrap_or_else(|| "3".to_owned())
            .parse::<u64>()?;
        let key = message.text()?;
        let seen = match state::get(key) {
            Some(bytes) => String::from_utf8(bytes)?.parse::<u64>()?,
            None => 0,
        };
        state::set(key, (seen + 1).to_string())?;
        if seen + 1 < limit {
            return Ok(None);
        }
        log::info!("{key} was seen {} times", seen + 1);
        Ok(Some(Output::to("frequent")))
    }

    #[test]
    fn the_third_time_is_reported() {
        use wasmill_sdk::testing;

        testing::set_config("limit", "3");
        let message = Message::test()
            .topic("visits")
            .key("k")
            .payload("ada")
            .attempt(2);
        assert_eq!(message.handle(handle).unwrap().len(), 0);
        assert_eq!(message.handle(handle).unwrap().len(), 0);
        let outputs = message.handle(handle).unwrap();
        let frequent = outputs.named("frequent").next().unwrap();
        assert_eq!(frequent.payload_field(), wasmill_sdk::Field::Inherit);
        assert_eq!(testing::logs()[0].text, "ada was seen 3 times");
    }
}

/// Code as it is, but for where its lines break and how far they are indented.
fn flattened(code: &str) -> String {
    code.chars().filter(|c| !c.is_whitespace()).collect()
}

#[test]
fn every_piece_of_rust_on_the_page_stands_in_this_file() {
    let here = flattened(include_str!("guide.rs"));
    let page = include_str!("../../../docs/handlers-rust.md");
    let pieces: Vec<&str> = page
        .split("```rust\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert_eq!(pieces.len(), 5);
    for piece in pieces {
        // rustfmt may add a comma where it breaks a line.
        let here = here.replace(",)", ")");
        assert!(here.contains(&flattened(piece)), "not here:\n{piece}");
    }
}
