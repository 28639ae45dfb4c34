//! Counts the messages of each key in its state and says the count in an output: one that is counted
//! twice, or not at all, shows in every output after it.

use wasmill_sdk::{Failure, Message, Output, Outputs, state};

#[wasmill_sdk::handler]
fn handle(message: Message) -> Result<Outputs, Failure> {
    let key = String::from_utf8_lossy(message.key().unwrap_or_default());
    let before = state::get(&key)
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok())
        .unwrap_or(0u64);
    let count = (before + 1).to_string();
    // Written first: a failed attempt must leave nothing behind.
    state::set(&key, &count).map_err(|error| Failure::rejected(error.to_string()))?;
    if message.payload() == Some(b"fail once") && message.attempt() == 1 {
        return Err(Failure::retryable("planned failure"));
    }
    Ok(Outputs::one(Output::to("default").header("count", count)))
}
