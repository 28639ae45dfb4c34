//! What names, header patterns and choices look like, and the units and limits of the tables.

use super::super::shape::{Choice, Rule};

pub(super) const MS: u64 = 1;
pub(super) const SECOND: u64 = 1_000;
pub(super) const HOUR: u64 = 3_600 * SECOND;
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;

/// Per partition; the bitmap of what is finished above the committed offset must stay small (§4.3).
pub(super) const WINDOW_MESSAGES_MAX: u64 = 16_384;
pub(super) const ATTEMPTS_MAX: u64 = 10_000;
pub(super) const TOPICS_MAX: usize = 256;
pub(super) const OUTPUTS_MAX: usize = 256;
pub(in crate::config) const PIPELINES_MAX: usize = 1_024;
pub(super) const HEADERS_MAX: usize = 64;
pub(super) const CONFIG_KEYS_MAX: usize = 256;
pub(super) const FINGERPRINT_MAX: usize = 16;
pub(super) const CONCURRENCY_MAX: u64 = 1_024;
/// Messages of one call.
pub(super) const BATCH_MAX: u64 = 256;
pub(super) const PARTITIONS_MAX: u64 = 1_024;

pub(super) const fn choice(name: &'static str, doc: &'static str) -> Choice {
    Choice {
        name,
        doc,
        now: true,
    }
}

pub(super) const fn later_choice(name: &'static str, doc: &'static str) -> Choice {
    Choice {
        name,
        doc,
        now: false,
    }
}

fn is_word(text: &str, len_max: usize, extra: &[u8]) -> bool {
    !text.is_empty()
        && text.len() <= len_max
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

pub(super) static TOPIC: Rule = Rule {
    what: "a topic name",
    pattern: "^[A-Za-z0-9._-]{1,249}$",
    expected: "1 to 249 letters, digits, `.`, `_` or `-`, and not `.` or `..`",
    fits: |text| is_word(text, 249, b"._-") && text != "." && text != "..",
};

pub(super) static TOPIC_PATTERN: Rule = Rule {
    what: "a topic pattern",
    pattern: "^[A-Za-z0-9._-]{1,248}[A-Za-z0-9._*-]$",
    expected: "a topic name of at least two characters, or a beginning of one with `*` as its last character",
    fits: |text| {
        let name = text.strip_suffix('*').unwrap_or(text);
        text.len() >= 2 && is_word(name, 249, b"._-")
    },
};

pub(super) static GROUP: Rule = Rule {
    what: "a consumer group name",
    pattern: "^[A-Za-z0-9._-]{1,249}$",
    expected: "1 to 249 letters, digits, `.`, `_` or `-`",
    fits: |text| is_word(text, 249, b"._-"),
};

pub(super) static PIPELINE_NAME: Rule = Rule {
    what: "a pipeline name",
    pattern: "^[A-Za-z0-9._-]{1,100}$",
    expected: "1 to 100 letters, digits, `.`, `_` or `-`",
    fits: |text| is_word(text, 100, b"._-"),
};

pub(super) static OUTPUT_NAME: Rule = Rule {
    what: "an output name",
    pattern: "^(?!reply$)[A-Za-z0-9_-]{1,64}$",
    expected: "1 to 64 letters, digits, `_` or `-`, and not `reply`, which has a meaning of its own",
    fits: |text| is_word(text, 64, b"_-") && text != "reply",
};

pub(super) static CONNECTION_NAME: Rule = Rule {
    what: "a connection name",
    pattern: "^[A-Za-z0-9_-]{1,64}$",
    expected: "1 to 64 letters, digits, `_` or `-`",
    fits: |text| is_word(text, 64, b"_-"),
};

pub(super) static STATE_NAME: Rule = Rule {
    what: "a name of state",
    pattern: "^[A-Za-z0-9_-]{1,64}$",
    expected: "1 to 64 letters, digits, `_` or `-`",
    fits: |text| is_word(text, 64, b"_-"),
};

pub(super) static SECRET_NAME: Rule = Rule {
    what: "the name of a secret",
    pattern: "^[A-Za-z_][A-Za-z0-9_]{0,127}$",
    expected: "1 to 128 letters, digits or `_`, not a digit first: the name of an environment variable",
    fits: |text| is_word(text, 128, b"_") && !text.starts_with(|c: char| c.is_ascii_digit()),
};

pub(super) static HEADER_NAME: Rule = Rule {
    what: "a header name",
    pattern: "^[^*]{1,249}$",
    expected: "a name; never `correlation-id`, trace headers, `idempotency-key`, `x-retry-count` or `wasmill-…`, which the host sets",
    fits: |text| {
        let reserved = matches!(
            text,
            "idempotency-key"
                | "x-retry-count"
                | "correlation-id"
                | "traceparent"
                | "tracestate"
                | "baggage"
        ) || text.starts_with("wasmill-");
        !text.is_empty() && text.len() <= 249 && !text.contains('*') && !reserved
    },
};

pub(super) static HEADER_PATTERN: Rule = Rule {
    what: "a header name",
    pattern: "^[^*]*\\*?$",
    expected: "a name, or a prefix with `*` as its last character; never `idempotency-key`, `x-retry-count` or `wasmill-…`, which the host sets",
    fits: |text| {
        let name = text.strip_suffix('*').unwrap_or(text);
        let reserved =
            matches!(name, "idempotency-key" | "x-retry-count") || name.starts_with("wasmill-");
        !text.is_empty() && text.len() <= 249 && !name.contains('*') && !reserved
    },
};
