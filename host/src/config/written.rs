//! What somebody wrote for a pipeline, as a digest that another version of wasmill makes of it as well: values
//! after files, overlays, `defaults:` and variables, without those that nobody wrote. A key that a later version
//! knows is not in it.

use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::check::{Checked, Value};

/// Lowercase hexadecimal digits.
pub(super) fn digest(pipeline: &Checked) -> String {
    let text = written(pipeline).unwrap_or_default().to_string();
    let digest = Sha256::digest(text);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn written(checked: &Checked) -> Option<Json> {
    let map = |entries: Map<String, Json>| (!entries.is_empty()).then_some(Json::Object(entries));
    let value = match &checked.value {
        Value::Absent | Value::Invalid => return None,
        Value::Block(fields) => {
            let fields = fields.iter();
            return map(fields
                .filter_map(|(name, value)| Some(((*name).to_owned(), written(value)?)))
                .collect());
        }
        Value::Named(entries) => {
            let entries = entries.iter();
            return map(entries
                .map(|(key, value)| (key.text.clone(), written(value).unwrap_or_default()))
                .collect());
        }
        Value::List(elements) => {
            let elements: Vec<Json> = elements.iter().filter_map(written).collect();
            return (!elements.is_empty()).then_some(Json::Array(elements));
        }
        Value::Bool(truth) => json!(truth),
        Value::Integer(number) => json!(number),
        Value::Number(number) => json!(number),
        Value::Duration(span) => json!(span.as_nanos().to_string()),
        Value::Size(bytes) => json!(bytes),
        Value::Text(text) => json!(text),
        Value::Choice(name) => json!(name),
        Value::Expression(expression) => json!(expression.source()),
        Value::Address(address) => json!(address.to_string()),
        Value::Timestamp(ms) => json!(ms),
    };
    checked.place.is_some().then_some(value)
}

#[cfg(test)]
mod tests {
    fn written(more: &str) -> String {
        let text = format!(
            "version: 1\npipelines:\n  - {{ name: p, source: {{ topics: [t], consumer_group: g, start: earliest }}, handler: {{ plugin: ./h.wasm }}{more} }}\n"
        );
        let path = std::path::Path::new("pipeline.yaml");
        let loaded = crate::config::load_text(path, &text, &|_| None).unwrap();
        loaded.config.pipelines[0].written.clone()
    }

    /// It is stored (§13.5), so that it has to be the same in versions to come.
    #[test]
    fn the_digest_is_of_what_is_written_and_of_nothing_else() {
        let plain = written("");
        assert_eq!(
            plain,
            "ea1fa107f6cdb0b17898a65ee1e8b99d7cb9d57302b108cdbf550153f810cfa0"
        );
        assert_eq!(written("   "), plain);
        assert_eq!(written(", ordering: {}"), plain);
        let retry = written(", retry: { max_attempts: 3 }");
        assert_ne!(retry, plain);
        assert_ne!(written(", retry: { max_attempts: 4 }"), retry);
        let minute = written(", retry: { max_elapsed: 60s }");
        assert_eq!(written(", retry: { max_elapsed: 1m }"), minute);
    }
}
