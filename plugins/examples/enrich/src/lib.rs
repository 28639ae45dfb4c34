//! The handler of the bench. The work is in `enrich-logic`, so that a native program can do the same.

use wasmill_sdk::{Failure, Message, Output, Outputs};

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let Some(payload) = message.payload() else {
        return Err(Failure::rejected("an order has a payload"));
    };
    match enrich_logic::enrich(payload)? {
        Some(enriched) => Ok(Outputs::one(Output::to("default").json(&enriched)?)),
        None => Ok(Outputs::none()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    #[test]
    fn one_order_in_ten_is_dropped_and_the_others_are_what_the_logic_makes_of_them() {
        let mut published = 0;
        for sequence in 0..100 {
            let mut order = Vec::new();
            enrich_logic::sample(sequence, &mut order).unwrap();
            let outputs = Message::test()
                .payload(order.clone())
                .handle(handle)
                .unwrap();
            let mut expected = Vec::new();
            let kept = enrich_logic::enrich_into(&order, &mut expected).unwrap();
            assert_eq!(outputs.len(), usize::from(kept));
            for output in outputs.iter() {
                assert_eq!(output.payload_field(), wasmill_sdk::Field::Value(&expected));
                published += 1;
            }
        }
        assert_eq!(published, 90);
    }

    #[test]
    fn what_is_not_an_order_is_rejected() {
        let failure = Message::test().payload("{}").handle(handle).unwrap_err();
        assert!(failure.is_rejected());
    }
}
