//! Durations, sizes, times and substitution.

use super::scalar::{Unset, duration, size, substitute, timestamp, written_duration, written_size};
use super::*;

#[test]
fn durations_and_sizes_are_whole_numbers_with_a_unit() {
    assert_eq!(duration("500ms"), Some(Duration::from_millis(500)));
    assert_eq!(duration("24h"), Some(Duration::from_secs(86_400)));
    assert_eq!(duration("7d"), Some(Duration::from_secs(7 * 86_400)));
    assert_eq!(size("64KiB"), Some(65_536));
    assert_eq!(size("1TiB"), Some(1 << 40));
    for wrong in [
        "",
        "5",
        "s",
        "1.5s",
        "-1s",
        "1 s",
        "1S",
        "1w",
        "99999999999999999999s",
        "18446744073709551615h",
    ] {
        assert_eq!(duration(wrong), None, "{wrong}");
    }
    for wrong in ["64KB", "64k", "64kib", "18446744073709551615KiB"] {
        assert_eq!(size(wrong), None, "{wrong}");
    }
    assert_eq!(written_duration(Duration::from_millis(90_000)), "90s");
    assert_eq!(written_duration(Duration::ZERO), "0ms");
    assert_eq!(
        (written_size(1 << 30), written_size(1500), written_size(0)),
        ("1GiB".into(), "1500B".into(), "0B".into())
    );
}

#[test]
fn times_are_rfc_3339_with_a_zone_or_unix_milliseconds() {
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:00:00Z", 951_825_600_000),
        ("2026-01-31T08:00:00.5+01:00", 1_769_842_800_500),
        ("2026-01-31 08:00:00.123456-00:30", 1_769_848_200_123),
        ("1969-12-31T23:59:59Z", -1_000),
        ("1700000000000", 1_700_000_000_000),
    ] {
        assert_eq!(timestamp(text), Some(expected), "{text}");
    }
    for wrong in [
        "2026-01-31",
        "2026-01-31T08:00:00",
        "2026-13-01T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "2026-01-31T24:00:00Z",
        "2026-01-31T08:00:00.Z",
        "-5",
        "99999999999999999999",
    ] {
        assert_eq!(timestamp(wrong), None, "{wrong}");
    }
}

fn env(name: &str) -> Option<String> {
    match name {
        "A" => Some("a value".into()),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

#[test]
fn substitution_follows_the_shell() {
    for (text, expected, whole) in [
        ("${A}", "a value", true),
        ("x${A}${A}y", "xa valuea valuey", false),
        ("${NONE:-other}", "other", true),
        ("${EMPTY:-other}", "other", true),
        ("${EMPTY}", "", true),
        ("${NONE:-}", "", true),
        ("$${A}", "${A}", false),
        ("$$${A}", "$${A}", false),
        ("$A $ {A}", "$A $ {A}", false),
        ("plain", "plain", false),
    ] {
        let substituted = substitute(text, &env).unwrap();
        assert_eq!(
            (substituted.text.as_str(), substituted.whole),
            (expected, whole),
            "{text}"
        );
    }
    assert_eq!(
        substitute("${NONE}", &env),
        Err(Unset::Missing("NONE".into()))
    );
    assert_eq!(
        substitute("${EMPTY:?say it}", &env),
        Err(Unset::Required("EMPTY".into(), "say it".into()))
    );
    assert_eq!(substitute("${A", &env), Err(Unset::Unclosed));
    for wrong in ["${}", "${1}", "${a b}", "${A:x}", "${A:+x}"] {
        assert!(
            matches!(substitute(wrong, &env), Err(Unset::BadName(_))),
            "{wrong}"
        );
    }
}

#[test]
fn a_value_that_is_one_whole_substitution_takes_the_type_of_its_key() {
    let env = |name: &str| match name {
        "N" => Some("3".to_owned()),
        "YES" => Some("true".to_owned()),
        "TOPIC" => Some("a: b".to_owned()),
        _ => None,
    };
    let text = "version: 1\npipelines:\n  - name: p\n    source: { topics: [t], consumer_group: g, start: \"${START:-latest}\" }\n    retry: { max_attempts: \"${N}\" }\n    handler: { plugin: p.wasm, allow: { clock: \"${YES}\" }, limits: { time: \"${N}s\" }, config: { a: \"${TOPIC}\", b: \"$${N}\" } }\n";
    let config = load_text(Path::new("x.yaml"), text, &env).unwrap().config;
    let p = &config.pipelines[0];
    assert_eq!(
        (
            p.retry.max_attempts.get(),
            p.handler.allow.clock,
            p.source.start
        ),
        (3, true, Start::Latest)
    );
    assert_eq!(p.handler.limits.time, Duration::from_secs(3));
    // A value cannot become structure.
    assert_eq!(p.handler.config["a"], "a: b");
    assert_eq!(p.handler.config["b"], "${N}");
}
