//! What an expression gives for a message: by the scan, by the interpreter, and that both agree.

use super::*;
use crate::message::HeadersBuf;
use proptest::prelude::*;

fn json(payload: &str) -> MessageRef<'_> {
    MessageRef {
        payload: Some(payload.as_bytes()),
        ..MessageRef::default()
    }
}

fn canonical(source: &str, message: &MessageRef<'_>) -> Result<String, Error> {
    let mut scratch = Vec::new();
    let expression = Expression::parse(source).unwrap();
    let value = expression.evaluate(message, &mut scratch)?;
    Ok(String::from_utf8(value.canonical().to_vec()).unwrap())
}

fn interpreted(source: &str, message: &MessageRef<'_>) -> Result<String, Error> {
    let expression = Expression::parse(source).unwrap();
    let mut out = Vec::new();
    expression.interpret(message, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn refused(source: &str) -> ParseError {
    Expression::parse(source).unwrap_err()
}

const FLIGHT: &str = r#"{"year":2013,"month":1,"day":1,"dep_time":517,"carrier":"UA","flight":1545,"tailnum":"N14228","distance":1400,"delays":[2,11],"plane":{"seats":178,"owner":null}}"#;
const FLIGHT_KEY: &str = r#"string(message.json.year) + "-" + string(message.json.month) + "-" + string(message.json.day) + "-" + message.json.carrier + "-" + string(message.json.flight)"#;

#[test]
fn a_key_of_several_fields_is_scanned() {
    assert!(Expression::parse(FLIGHT_KEY).unwrap().is_scanned());
    assert_eq!(
        canonical(FLIGHT_KEY, &json(FLIGHT)).unwrap(),
        "s2013-1-1-UA-1545"
    );
    assert_eq!(
        interpreted(FLIGHT_KEY, &json(FLIGHT)).unwrap(),
        "s2013-1-1-UA-1545"
    );
}

#[test]
fn a_key_field_that_is_absent_or_null_is_missing_and_never_the_text_null() {
    for payload in [
        r#"{"year":1,"month":1,"day":1,"carrier":"UA"}"#,
        r#"{"year":1,"month":1,"day":1,"carrier":"UA","flight":null}"#,
    ] {
        assert_eq!(canonical(FLIGHT_KEY, &json(payload)), Err(Error::Missing));
    }
    assert_eq!(
        canonical("message.json.a.b", &json(r#"{"a":null}"#)),
        Err(Error::Missing)
    );
    assert_eq!(
        canonical("message.json.a", &MessageRef::default()),
        Err(Error::Missing)
    );
    assert_eq!(
        canonical("message.key", &MessageRef::default()),
        Err(Error::Missing)
    );
    assert_eq!(
        canonical("message.json.a", &json(r#"{"a":""}"#)),
        Err(Error::Missing)
    );
    assert_eq!(
        canonical("message.header(\"x\")", &MessageRef::default()),
        Err(Error::Missing)
    );
}

#[test]
fn the_canonical_form_keeps_the_type_and_exact_integers() {
    let message = json(
        r#"{"n":1,"s":"1","big":18446744073709551615,"low":-9223372036854775808,"b":true,"d":1.0,"z":-0.0,"m":-0,"e":1e2}"#,
    );
    for (source, expected) in [
        ("message.json.n", "i1"),
        ("message.json.s", "s1"),
        ("message.json.big", "i18446744073709551615"),
        ("string(message.json.big)", "s18446744073709551615"),
        ("message.json.low", "i-9223372036854775808"),
        ("message.json.b", "btrue"),
        ("message.json.d", "d1.0"),
        ("message.json.z", "d0.0"),
        ("message.json.m", "i0"),
        ("string(message.json.m)", "s0"),
        ("message.json.e", "d100.0"),
    ] {
        assert_eq!(
            canonical(source, &message).as_deref(),
            Ok(expected),
            "{source}"
        );
        assert_eq!(
            interpreted(source, &message).as_deref(),
            Ok(expected),
            "{source} interpreted"
        );
    }
}

#[test]
fn an_integer_over_64_bits_fails_instead_of_passing_through_a_float() {
    let message = json(r#"{"n":18446744073709551616}"#);
    assert_eq!(
        canonical("message.json.n", &message),
        Err(Error::Failed(
            "message.json.n holds a number that fits no 64 bits".into()
        ))
    );
}

#[test]
fn a_payload_that_is_not_json_is_told_apart_with_its_place() {
    let error = canonical("message.json.a", &json(r#"{"a":1"#)).unwrap_err();
    assert_eq!(
        error,
        Error::NotJson("not JSON: expected , or } at byte 6".into())
    );
    assert_eq!(
        json_is_valid(b"{\"a\":tru}"),
        Err("not JSON: expected true at byte 5".into())
    );
    assert_eq!(json_is_valid(b" [1, {\"a\": null}] "), Ok(()));
}

#[test]
fn keys_and_texts_are_strings_and_a_key_that_is_no_text_is_bytes() {
    let mut headers = HeadersBuf::new();
    assert!(headers.push("kind", Some(b"old")) && headers.push("kind", Some(b"order")));
    let message = MessageRef {
        key: Some(b"\xff\x00"),
        payload: Some("grüß".as_bytes()),
        headers: headers.as_headers(),
        timestamp_ms: 0,
    };
    assert_eq!(canonical("message.key", &message).unwrap(), "xff00");
    assert_eq!(canonical("message.text", &message).unwrap(), "sgrüß");
    assert_eq!(
        canonical("message.header(\"kind\") + \":\" + message.text", &message).unwrap(),
        "sorder:grüß"
    );
    assert!(matches!(
        canonical("message.key + \"x\"", &message),
        Err(Error::Failed(_))
    ));
}

#[test]
fn whatever_is_no_plain_path_is_interpreted() {
    let message = json(FLIGHT);
    let sum = "message.json.year + message.json.month";
    assert_eq!(canonical(sum, &message).as_deref(), Ok("i2014"));
    for (source, expected) in [
        (
            "has(message.json.dep_time) ? \"flown\" : \"cancelled\"",
            "sflown",
        ),
        ("message.json.distance > 1000", "btrue"),
        ("message.json.delays.exists(d, d > 10)", "btrue"),
        ("size(message.json.delays)", "i2"),
        ("message.json.tailnum.startsWith(\"N\")", "btrue"),
        ("string(1.5)", "s1.5"),
        ("message.json.delays.map(d, d * 2)[1]", "i22"),
        (
            "bool(\"true\") && double(\"1\") == 1.0 && uint(1) == 1u && int(\"3\") == 3 && bytes(\"a\") == b\"a\"",
            "btrue",
        ),
        (
            "message.json.tailnum.contains(\"42\") && message.json.tailnum.endsWith(\"8\")",
            "btrue",
        ),
        ("type(message.json.year) == int", "btrue"),
        (
            "message.json.delays.all(d, d > 0) && message.json.delays.exists_one(d, d == 2) && size(message.json.delays.filter(d, d > 2)) == 1",
            "btrue",
        ),
    ] {
        assert!(!Expression::parse(source).unwrap().is_scanned(), "{source}");
        assert_eq!(
            canonical(source, &message).as_deref(),
            Ok(expected),
            "{source}"
        );
    }
}

#[test]
fn a_failure_says_why_without_showing_the_message() {
    let message = json(r#"{"secret":"hunter2","n":1}"#);
    for source in [
        "message.json.secret + message.json.n",
        "message.json.secret.inner",
        "int(message.json.secret)",
        "message.json",
    ] {
        let Err(Error::Failed(reason)) = canonical(source, &message) else {
            panic!("{source}")
        };
        assert!(
            !reason.contains("hunter2") && !reason.is_empty(),
            "{reason}"
        );
    }
}

#[test]
fn unknown_names_are_refused_when_parsed_with_the_nearest_name() {
    for (source, column, message) in [
        (
            "mesage.json.a",
            1,
            "unknown variable `mesage`; did you mean `message`?",
        ),
        (
            "message.jsn.a",
            8,
            "unknown field of `message` `jsn`; did you mean `json`?",
        ),
        (
            "sting(message.json.a)",
            1,
            "unknown function `sting`; did you mean `string`?",
        ),
        (
            "message.haeder(\"a\")",
            9,
            "unknown function of `message` `haeder`; did you mean `header`?",
        ),
        (
            "message.header(message.key)",
            9,
            "`message.header` takes one name in quotes",
        ),
        ("message.header", 8, "write message.header(\"name\")"),
    ] {
        let error = refused(source);
        assert_eq!(
            (error.column, error.message.as_str()),
            (column, message),
            "{source}"
        );
    }
    assert!(
        refused("message")
            .message
            .starts_with("`message` alone is nothing")
    );
    assert!(
        refused("message.json.a +")
            .message
            .starts_with("not an expression")
    );
    assert!(refused("").message.starts_with("not an expression"));
    assert!(
        refused("[1].map(x, [2].map(y, x))")
            .message
            .contains("inside each other")
    );
    assert!(
        refused("[1].map(message, message)")
            .message
            .contains("taken")
    );
    assert!(refused("Foo{a: 1}").message.contains("no types"));
    assert!(
        refused(&"a".repeat(SOURCE_LEN_MAX + 1))
            .message
            .contains("longer")
    );
}

#[test]
fn a_member_named_twice_counts_as_its_last_with_nothing_left_of_the_first() {
    assert_eq!(
        canonical("message.json.a", &json(r#"{"a":1,"a":2}"#)).unwrap(),
        "i2"
    );
    assert!(matches!(
        canonical("message.json.a.b", &json(r#"{"a":{"b":1},"a":5}"#)),
        Err(Error::Failed(_))
    ));
    assert_eq!(
        canonical("message.json.a.b", &json(r#"{"a":{"b":1},"a":{}}"#)),
        Err(Error::Missing)
    );
    assert_eq!(
        canonical("message.json.a", &json(r#"{"a":1,"\u0061":2}"#)).unwrap(),
        "i2"
    );
}

#[test]
fn a_value_of_a_scanned_key_proves_that_the_payload_is_json() {
    let key = Expression::parse("message.json.a").unwrap();
    assert!(key.proves_json());
    assert!(!Expression::parse("message.key").unwrap().proves_json());
    assert!(
        !Expression::parse("message.json.a > 1")
            .unwrap()
            .proves_json()
    );
    for broken in [
        r#"{"a":1,"b":}"#,
        r#"{"a":1}x"#,
        r#"{"a":1,"b":"\x"}"#,
        "{\"a\":1,\"b\":\"\u{1}\"}",
    ] {
        assert!(
            matches!(
                canonical("message.json.a", &json(broken)),
                Err(Error::NotJson(_))
            ),
            "{broken}"
        );
    }
}

#[test]
fn a_header_joined_to_something_is_told_apart_from_a_header_alone() {
    let joins = |source: &str| Expression::parse(source).unwrap().joins_headers();
    assert!(joins(r#"message.header("a") + message.key"#));
    assert!(!joins(r#"message.header("a")"#));
    assert!(!joins(
        r#"message.header("a") == "" ? "" : message.header("a") + message.key"#
    ));
}

#[test]
fn nesting_is_bounded_as_in_serde_json() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(json_is_valid(nested(127).as_bytes()).is_ok());
    assert!(json_is_valid(nested(128).as_bytes()).is_err());
    assert!(serde_json::from_str::<serde_json::Value>(&nested(127)).is_ok());
    assert!(serde_json::from_str::<serde_json::Value>(&nested(128)).is_err());
}

/// Names that the paths under test use, often, and others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[abc]", 1 => "\\PC{0,12}", 1 => Just("\\u0061".to_owned()), 1 => Just("é\\n".to_owned())]
}

fn quoted(name: &str) -> String {
    if name.contains('\\') {
        return format!("\"{name}\"");
    }
    serde_json::to_string(name).unwrap()
}

fn number_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (0_i64..30).prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<u128>().prop_map(|n| n.to_string()),
        any::<f64>()
            .prop_filter("finite", |d| d.is_finite())
            .prop_map(|d| format!("{d:?}")),
        Just("-0".to_owned()),
        Just("1e999".to_owned()),
        Just("-0.0".to_owned()),
        Just("1E+2".to_owned()),
    ]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![6 => Just(""), 1 => Just(" "), 1 => Just("\n\t\r ")]
}

/// Documents as text, so that escapes, duplicate members, numbers and white space vary.
fn document() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        number_text(),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        "\\PC{0,20}".prop_map(|s| serde_json::to_string(&s).unwrap()),
        Just("\"\\ud83d\\ude00\\u00e9\\/\\b\"".to_owned()),
        Just("\"\"".to_owned()),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            2 => (proptest::collection::vec((name(), inner.clone(), space()), 0..6)).prop_map(|members| {
                let members: Vec<_> = members.iter().map(|(n, v, s)| format!("{s}{}{s}:{s}{v}{s}", quoted(n))).collect();
                format!("{{{}}}", members.join(","))
            }),
            1 => (proptest::collection::vec((inner, space()), 0..4)).prop_map(|elements| {
                let elements: Vec<_> = elements.iter().map(|(v, s)| format!("{s}{v}{s}")).collect();
                format!("[{}]", elements.join(","))
            }),
        ]
    })
}

const COMPILED: [&str; 10] = [
    "message.json.a",
    "string(message.json.a)",
    "message.json.a.b",
    "message.json.a[1].b",
    "message.json[0]",
    "message.json[\"é\\n\"]",
    "message.json",
    "message.json.a + message.json.b",
    "string(message.json.a) + \"-\" + string(message.json.b) + \"-\" + message.json.c",
    "string(message.json.a.b) + message.json.a.c + string(message.json.a)",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_scan_gives_what_the_interpreter_gives(payload in document()) {
        for source in COMPILED {
            prop_assert!(Expression::parse(source).unwrap().is_scanned());
            let message = json(&payload);
            prop_assert_eq!(canonical(source, &message), interpreted(source, &message), "{} on {}", source, payload);
        }
    }

    #[test]
    fn damaged_documents_are_valid_or_not_as_serde_json_says(payload in document(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = payload.into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        // serde_json refuses numbers out of range, which are JSON; a raw walk does not look at strings.
        let reference = match serde_json::from_slice::<serde_json::Value>(&bytes) {
            Ok(_) => true,
            Err(error) => error.to_string().starts_with("number out of range"),
        };
        let scanned = json_is_valid(&bytes);
        if !(reference && scanned.is_err() && serde_json::from_slice::<serde_json::Value>(&bytes).is_err()) {
            prop_assert_eq!(scanned.is_ok(), reference, "{:?} {:?}", String::from_utf8_lossy(&bytes), scanned);
        }
        prop_assert_eq!(scanned.is_ok(), tree::Json::parse(&bytes).is_ok());
        for source in COMPILED {
            let message = MessageRef { payload: Some(&bytes), ..MessageRef::default() };
            let mut out = Vec::new();
            let expression = Expression::parse(source).unwrap();
            let canonical = expression.canonical(&message, &mut out).map(|()| out);
            let mut out = Vec::new();
            let interpreted = expression.interpret(&message, &mut out).map(|()| out);
            prop_assert_eq!(canonical, interpreted);
        }
    }

    #[test]
    fn the_tree_is_the_document_that_serde_json_reads(payload in document()) {
        let Ok(reference) = serde_json::from_str::<serde_json::Value>(&payload) else { return Ok(()) };
        prop_assert!(same(&tree::Json::parse(payload.as_bytes()).unwrap(), &reference), "{}", payload);
    }

    #[test]
    fn any_text_parses_or_is_refused_and_never_panics(source in "(message|json|key|text|header|string|[a-z\"'.()+\\[\\]? :{}!&|0-9]|\\PC){0,24}") {
        if let Ok(expression) = Expression::parse(&source) {
            let mut scratch = Vec::new();
            let _value = expression.evaluate(&json(FLIGHT), &mut scratch);
        }
    }
}

fn same(ours: &tree::Json, theirs: &serde_json::Value) -> bool {
    use serde_json::Value;
    use tree::Json;
    match (ours, theirs) {
        (Json::Null, Value::Null) => true,
        (Json::Bool(a), Value::Bool(b)) => a == b,
        (Json::String(a), Value::String(b)) => a == b,
        (Json::Int(a), Value::Number(b)) => {
            b.as_i64() == Some(*a) || (*a == 0 && b.as_f64() == Some(0.0))
        }
        (Json::UInt(a), Value::Number(b)) => b.as_u64() == Some(*a),
        (Json::Double(a), Value::Number(b)) => {
            b.as_f64().is_some_and(|b| (a - b).abs() <= a.abs() * 1e-15)
        }
        (Json::OutOfRange, Value::Number(b)) => b.is_f64(),
        (Json::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Json::Object(a), Value::Object(b)) => {
            a.iter().all(|(name, _)| b.contains_key(name))
                && b.iter().all(|(name, b)| {
                    let last = a.iter().rev().find(|(n, _)| n == name);
                    last.is_some_and(|(_, a)| same(a, b))
                })
        }
        _ => false,
    }
}

/// The budget (200 ns) is the bench's to measure; this fails when a key falls back to a parse.
#[test]
fn a_key_of_five_fields_is_answered_without_a_parse() {
    let expression = Expression::parse(FLIGHT_KEY).unwrap();
    let compiled = expression.compiled.as_ref().unwrap();
    let mut out = Vec::new();
    assert_eq!(compiled.canonical(&json(FLIGHT), &mut out), Some(()));
    assert_eq!(out, b"s2013-1-1-UA-1545");
    // What it leaves open it leaves untouched.
    assert_eq!(compiled.canonical(&json("{}"), &mut out), None);
    assert_eq!(out, b"s2013-1-1-UA-1545");
}
