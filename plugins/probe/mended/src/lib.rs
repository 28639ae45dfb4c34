//! The probe after somebody mended it: whatever a message plans, it succeeds with one output. What an
//! incident's tests try and redrive with.

use wasmill_sdk::{Failure, Message, Output, Outputs};

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let attempt = message.attempt().to_string();
    Ok(Outputs::one(
        Output::to("default").header("attempt", attempt),
    ))
}
