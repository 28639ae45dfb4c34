//! The JSON Schema of a configuration file, for editors (`wasmill schema`). Wherever a single value may be
//! written, so may a text with `${…}` in it.

use serde_json::{Map, Value, json};

use super::fields::{ROOT, tables};
use super::literal::expected;
use super::shape::{Block, Choice, Field, Kind, Need};

/// JSON Schema, draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    let mut definitions = Map::new();
    definitions.insert(
        "substitution".into(),
        json!({ "type": "string", "pattern": "\\$\\{", "description": "Substituted from the environment." }),
    );
    for (block, partial) in tables() {
        definitions.insert(name(block, partial), object(block, partial));
    }
    let mut root = object(&ROOT, false);
    if let Some(root) = root.as_object_mut() {
        root.insert(
            "$schema".into(),
            "https://json-schema.org/draft/2020-12/schema".into(),
        );
        root.insert("title".into(), "wasmill configuration".into());
        root.insert("$defs".into(), definitions.into());
    }
    root
}

fn name(block: &Block, partial: bool) -> String {
    if partial {
        format!("{}_defaults", block.name)
    } else {
        block.name.to_owned()
    }
}

fn object(block: &Block, partial: bool) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in block.fields {
        if partial && field.name == "name" {
            continue;
        }
        if field.need == Need::Required && !partial {
            required.push(field.name);
        }
        properties.insert(field.name.into(), property(field, partial));
    }
    let mut object = json!({
        "type": "object",
        "description": block.doc,
        "properties": properties,
        "additionalProperties": false,
    });
    if let (Some(object), false) = (object.as_object_mut(), required.is_empty()) {
        object.insert("required".into(), required.into());
    }
    object
}

fn property(field: &Field, partial: bool) -> Value {
    let mut schema = kind(&field.kind, partial);
    let Some(object) = schema.as_object_mut() else {
        return schema;
    };
    object.insert("description".into(), description(field).into());
    if let Need::Default(text) = field.need {
        object.insert("default".into(), default(&field.kind, text));
    }
    schema
}

fn description(field: &Field) -> String {
    let choices = match &field.kind {
        Kind::Choice(choices)
        | Kind::Either {
            single: Kind::Choice(choices),
            ..
        } => choice_lines(choices),
        _ => String::new(),
    };
    let absent = match field.need {
        Need::Optional(absent) => format!(" Left out: {absent}."),
        _ => String::new(),
    };
    format!("{}{absent}{choices}", field.doc)
}

fn choice_lines(choices: &[Choice]) -> String {
    let lines = choices
        .iter()
        .filter(|c| c.now)
        .map(|c| format!("\n`{}`: {}.", c.name, c.doc));
    lines.collect()
}

fn default(of: &Kind, text: &str) -> Value {
    match of {
        Kind::Bool
        | Kind::Integer { .. }
        | Kind::Number { .. }
        | Kind::List { .. }
        | Kind::Either {
            single: Kind::Bool, ..
        } => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        Kind::Block(_) | Kind::Partial(_) | Kind::Named { .. } | Kind::Texts { .. } => json!({}),
        _ => text.into(),
    }
}

fn kind(of: &Kind, partial: bool) -> Value {
    let or_substitution = |mut schema: Value| {
        if let Some(object) = schema.as_object_mut() {
            object.insert("title".into(), expected(of).into());
        }
        json!({ "anyOf": [schema, { "$ref": "#/$defs/substitution" }] })
    };
    match of {
        Kind::Bool => or_substitution(json!({ "type": "boolean" })),
        Kind::Integer { min, max } => {
            or_substitution(json!({ "type": "integer", "minimum": min, "maximum": max }))
        }
        Kind::Number { min, max } => {
            or_substitution(json!({ "type": "number", "minimum": min, "maximum": max }))
        }
        Kind::Duration { .. } => {
            or_substitution(json!({ "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$" }))
        }
        Kind::Size { .. } => {
            or_substitution(json!({ "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)$" }))
        }
        Kind::Text(rule) => or_substitution(json!({ "type": "string", "pattern": rule.pattern })),
        Kind::Choice(choices) => {
            let names: Vec<_> = choices.iter().filter(|c| c.now).map(|c| c.name).collect();
            or_substitution(json!({ "enum": names }))
        }
        Kind::Expression | Kind::Path => {
            or_substitution(json!({ "type": "string", "minLength": 1 }))
        }
        Kind::Address => or_substitution(json!({ "type": "string", "pattern": ":[0-9]{1,5}$" })),
        Kind::Timestamp => or_substitution(json!({ "type": ["string", "integer"] })),
        Kind::List { of, min, max } => {
            json!({ "type": "array", "items": kind(of, partial), "minItems": min, "maxItems": max })
        }
        Kind::Block(block) => json!({ "$ref": format!("#/$defs/{}", name(block, partial)) }),
        Kind::Partial(block) => json!({ "$ref": format!("#/$defs/{}", name(block, true)) }),
        Kind::Named { names, of, max } => json!({
            "type": "object",
            "propertyNames": { "pattern": names.pattern },
            "additionalProperties": kind(of, partial),
            "maxProperties": max,
        }),
        Kind::Texts { max } => json!({
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean"] },
            "maxProperties": max,
        }),
        Kind::Either { single, map } => {
            json!({ "anyOf": [kind(single, partial), kind(map, partial)] })
        }
    }
}
