//! CEL expressions over a message (`message.json.order_id`, `message.header("kind")`): parsed and
//! checked once, compiled to a scan of the payload where they are plain paths. Pure.

/// A checked expression.
#[derive(Debug, Clone)]
pub struct Expression {
    source: String,
}

impl Expression {
    /// As written in the configuration.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }
}
