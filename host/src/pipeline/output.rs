//! From what a guest returned to the record that is published: inheritance of key and payload, and
//! which headers go along (§2.5). Pure.

use crate::message::{Headers, HeadersBuf, MessageRef};
use crate::pipeline::correlation;
use crate::plugin::frame::{Field, OutputRef};

/// Headers of the input that every output carries.
const CARRIED: [&str; 3] = ["traceparent", "tracestate", BAGGAGE];
const BAGGAGE: &str = "baggage";
/// A larger `baggage` is left behind (the W3C limit).
pub const BAGGAGE_BYTES_MAX: usize = 8192;

/// Headers that only the host writes: not taken from a guest, not copied from an input.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    name == "idempotency-key" || name == "x-retry-count" || name.starts_with("wasmill-")
}

/// Which input headers an output copies, besides trace and correlation: names, or prefixes with a final `*`.
#[derive(Debug, Clone, Default)]
pub struct HeaderRule(pub Vec<String>);

impl HeaderRule {
    fn copies(&self, name: &str) -> bool {
        self.0.iter().any(|rule| match rule.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => rule == name,
        })
    }
}

/// Builds the message to publish into `headers` (reused) and returns it. Its timestamp is the input's:
/// event time goes along the chain.
pub fn build<'a>(
    output: &OutputRef<'a>,
    input: &MessageRef<'a>,
    correlation_id: &str,
    rule: &HeaderRule,
    headers: &'a mut HeadersBuf,
) -> Option<MessageRef<'a>> {
    headers.clear();
    let mut ok = headers.push(correlation::HEADER, Some(correlation_id.as_bytes()));
    if !input.headers.is_empty() {
        ok &= copy_from_input(&input.headers, rule, headers);
    }
    if !output.headers.is_empty() {
        for (name, value) in output.headers.iter() {
            if !is_owned(name) {
                ok &= headers.push(name, value);
            }
        }
    }
    ok.then(|| MessageRef {
        key: field(output.key, input.key),
        payload: field(output.payload, input.payload),
        headers: headers.as_headers(),
        timestamp_ms: input.timestamp_ms,
    })
}

fn copy_from_input(input: &Headers<'_>, rule: &HeaderRule, headers: &mut HeadersBuf) -> bool {
    let mut ok = true;
    for (name, value) in input.iter() {
        let carried = CARRIED.contains(&name)
            && (name != BAGGAGE || value.is_some_and(|v| v.len() <= BAGGAGE_BYTES_MAX));
        if carried || (!is_owned(name) && rule.copies(name)) {
            ok &= headers.push(name, value);
        }
    }
    ok
}

/// Reserved, or written by the host itself on every output.
fn is_owned(name: &str) -> bool {
    is_reserved(name) || name == correlation::HEADER || CARRIED.contains(&name)
}

fn field<'a>(field: Field<'a>, inherited: Option<&'a [u8]>) -> Option<&'a [u8]> {
    match field {
        Field::Inherit => inherited,
        Field::None => None,
        Field::Value(value) => Some(value),
    }
}
