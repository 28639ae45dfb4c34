//! From what a guest returned to the record that is published: inheritance of key and payload, and
//! which headers go along (§2.5). Pure.

use crate::message::{HEADERS_MAX, Headers, HeadersBuf, MessageRef};
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

/// What expressions of the configuration make of the input.
#[derive(Debug, Default)]
pub struct Made {
    /// Instead of the key that the guest gives.
    pub key: Option<String>,
    pub headers: Vec<(String, String)>,
}

/// Builds the message to publish into `headers` (reused) and returns it. Its timestamp is the input's:
/// event time goes along the chain. `None`: it has too many headers.
pub fn build<'a>(
    output: &OutputRef<'a>,
    input: &MessageRef<'a>,
    correlation_id: &str,
    rule: &HeaderRule,
    made: &'a Made,
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
    for (name, value) in &made.headers {
        ok &= headers.push(name, Some(value.as_bytes()));
    }
    ok &= headers.as_headers().count() <= HEADERS_MAX;
    let key = made.key.as_ref().map(String::as_bytes);
    ok.then(|| MessageRef {
        key: key.or_else(|| field(output.key, input.key)),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&str, &str)]) -> HeadersBuf {
        let mut headers = HeadersBuf::new();
        for (name, value) in of {
            assert!(headers.push(name, Some(value.as_bytes())));
        }
        headers
    }

    /// The headers of an output without headers of its own, for an input with these.
    fn carried(
        input: &[(&str, &str)],
        own: &[(&str, &str)],
        rule: &[&str],
    ) -> Vec<(String, String)> {
        let (input, own) = (headers(input), headers(own));
        let message = MessageRef {
            headers: input.as_headers(),
            ..MessageRef::default()
        };
        let output = OutputRef {
            name: "default",
            key: Field::Inherit,
            payload: Field::Inherit,
            headers: own.as_headers(),
        };
        let rule = HeaderRule(rule.iter().map(|&name| name.to_owned()).collect());
        let mut into = HeadersBuf::new();
        let made = Made::default();
        let built = build(&output, &message, "c", &rule, &made, &mut into).unwrap();
        let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
        built
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), text(value)))
            .collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn headers_max_bounds_an_output_with_what_is_added_to_it() {
        let built = |own: u16| {
            let mut headers = HeadersBuf::new();
            for _ in 0..own {
                assert!(headers.push("h", None));
            }
            let output = OutputRef {
                name: "default",
                key: Field::Inherit,
                payload: Field::Inherit,
                headers: headers.as_headers(),
            };
            let mut into = HeadersBuf::new();
            let (input, made) = (MessageRef::default(), Made::default());
            let rule = HeaderRule::default();
            build(&output, &input, "c", &rule, &made, &mut into).is_some()
        };
        assert!(built(HEADERS_MAX - 1), "and the correlation ID");
        assert!(!built(HEADERS_MAX));
        assert!(!built(u16::MAX));
    }

    /// §2.5
    #[test]
    fn key_and_payload_are_inherited_absent_or_a_value() {
        let input = MessageRef {
            key: Some(b"k"),
            payload: Some(b"p"),
            timestamp_ms: 7,
            ..MessageRef::default()
        };
        let kept = (Some(&b"k"[..]), Some(&b"p"[..]));
        let cases = [
            (Field::Inherit, kept),
            (Field::None, (None, None)),
            (Field::Value(b""), (Some(&b""[..]), Some(&b""[..]))),
        ];
        for (field, expected) in cases {
            let output = OutputRef {
                name: "o",
                key: field,
                payload: field,
                headers: Headers::default(),
            };
            let mut into = HeadersBuf::new();
            let made = Made::default();
            let built = build(
                &output,
                &input,
                "c",
                &HeaderRule::default(),
                &made,
                &mut into,
            )
            .unwrap();
            assert_eq!((built.key, built.payload), expected);
            assert_eq!(built.timestamp_ms, 7);
        }
    }

    /// §2.5, §12.2
    #[test]
    fn trace_and_correlation_go_along_and_nothing_else_unless_it_is_named() {
        let input = [
            ("traceparent", "t"),
            ("tracestate", "s"),
            ("tenant", "x"),
            ("ce_id", "1"),
            ("ce_type", "2"),
            ("other", "o"),
        ];
        assert_eq!(
            carried(&input, &[], &[]),
            pairs(&[
                ("correlation-id", "c"),
                ("traceparent", "t"),
                ("tracestate", "s")
            ])
        );
        assert_eq!(
            carried(&input, &[], &["tenant", "ce_*"]),
            pairs(&[
                ("correlation-id", "c"),
                ("traceparent", "t"),
                ("tracestate", "s"),
                ("tenant", "x"),
                ("ce_id", "1"),
                ("ce_type", "2")
            ])
        );
    }

    /// §2.5, §8.4
    #[test]
    fn headers_of_the_host_are_never_taken_from_a_guest_or_copied_from_an_input() {
        let forged = [
            ("wasmill-dlq-id", "1"),
            ("x-retry-count", "9"),
            ("idempotency-key", "k"),
            ("correlation-id", "forged"),
            ("traceparent", "forged"),
            ("mine", "m"),
        ];
        assert_eq!(
            carried(&[], &forged, &[]),
            pairs(&[("correlation-id", "c"), ("mine", "m")])
        );
        let inherited = carried(&forged[..4], &[], &["*"]);
        assert_eq!(inherited, pairs(&[("correlation-id", "c")]));
    }

    #[test]
    fn baggage_over_baggage_bytes_max_is_left_behind() {
        let (fits, too_large) = (
            "b".repeat(BAGGAGE_BYTES_MAX),
            "b".repeat(BAGGAGE_BYTES_MAX + 1),
        );
        assert_eq!(carried(&[("baggage", &fits)], &[], &[]).len(), 2);
        assert_eq!(carried(&[("baggage", &too_large)], &[], &[]).len(), 1);
    }
}
