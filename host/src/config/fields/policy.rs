//! The keys of `ordering`, `retry` and `idempotency`.

use super::super::shape::{Block, Field, Kind, Need};
use super::words::{ATTEMPTS_MAX, FINGERPRINT_MAX, HOUR, MS, SECOND, choice, later_choice};

pub(super) static ORDERING: Block = Block {
    name: "ordering",
    doc: "Which messages wait for each other (§4).",
    fields: &[
        Field {
            name: "by",
            kind: Kind::Choice(&[
                choice(
                    "key",
                    "messages with one key in one partition run one after another, different keys in parallel",
                ),
                choice("partition", "strictly in offset order"),
                choice("none", "free"),
            ]),
            need: Need::Default("key"),
            doc: "The lane of a message.",
        },
        Field {
            name: "null_key",
            kind: Kind::Choice(&[
                choice("none", "each waits for nobody"),
                choice("partition", "those of one partition wait for each other"),
            ]),
            need: Need::Default("none"),
            doc: "With `by: key`, messages without a key.",
        },
        Field {
            name: "on_dead_letter",
            kind: Kind::Choice(&[
                choice("continue", "the lane goes on at once"),
                choice(
                    "block_lane",
                    "the lane waits until the dead letter is durable",
                ),
            ]),
            need: Need::Default("continue"),
            doc: "The lane of a message that is dead-lettered.",
        },
    ],
    later: &[],
};

static BACKOFF: Block = Block {
    name: "backoff",
    doc: "The n-th wait is a random time between 0 and the lesser of `max_interval` and `initial_interval` × `multiplier`^(n-1). The defaults outlast an ordinary failover: about a minute in all.",
    fields: &[
        Field {
            name: "initial_interval",
            kind: Kind::Duration {
                min: MS,
                max: 24 * HOUR,
            },
            need: Need::Default("2s"),
            doc: "Bound of the first wait.",
        },
        Field {
            name: "multiplier",
            kind: Kind::Number {
                min: 1.0,
                max: 100.0,
            },
            need: Need::Default("4"),
            doc: "Growth from one wait to the next.",
        },
        Field {
            name: "max_interval",
            kind: Kind::Duration {
                min: MS,
                max: 24 * HOUR,
            },
            need: Need::Default("1m"),
            doc: "Bound of every wait.",
        },
    ],
    later: &[],
};

pub(super) static RETRY: Block = Block {
    name: "retry",
    doc: "What happens after a retryable failure or a fault (§5). When attempts are spent the message is dead-lettered.",
    fields: &[
        Field {
            name: "mode",
            kind: Kind::Choice(&[
                choice("inline", "later messages of the lane wait"),
                choice(
                    "deferred",
                    "the message is put aside until it is due and holds nobody up; it needs `ordering: { by: none }`, or `relaxed: true`. The waits have no jitter, and a `retry after` of the handler is rounded up to one of them or to 1m, 10m, 1h",
                ),
            ]),
            need: Need::Default("inline"),
            doc: "Where a message waits for its next attempt.",
        },
        Field {
            name: "relaxed",
            kind: Kind::Bool,
            need: Need::Default("false"),
            doc: "With `mode: deferred`: messages of a lane may overtake one that is put aside.",
        },
        Field {
            name: "max_attempts",
            kind: Kind::Integer {
                min: 1,
                max: ATTEMPTS_MAX,
            },
            need: Need::Default("5"),
            doc: "Attempts, the first counted. They survive a restart.",
        },
        Field {
            name: "max_elapsed",
            kind: Kind::Duration {
                min: MS,
                max: 30 * 24 * HOUR,
            },
            need: Need::Optional("no bound but `max_attempts`"),
            doc: "Time from the first attempt after which there is no other.",
        },
        Field {
            name: "backoff",
            kind: Kind::Block(&BACKOFF),
            need: Need::Default("{}"),
            doc: "The waits between attempts.",
        },
    ],
    later: &[],
};

pub(super) static CIRCUIT: Block = Block {
    name: "circuit",
    doc: "So many different keys fail with retryable errors or timeouts within the window, and nothing succeeds in between: a dependency is down.",
    fields: &[
        Field {
            name: "distinct_keys",
            kind: Kind::Integer { min: 1, max: 1_000 },
            need: Need::Default("20"),
            doc: "Keys. Messages without one count each.",
        },
        Field {
            name: "window",
            kind: Kind::Duration { min: MS, max: HOUR },
            need: Need::Default("10s"),
            doc: "Time within which they fail.",
        },
        Field {
            name: "probe_interval",
            kind: Kind::Duration { min: MS, max: HOUR },
            need: Need::Default("10s"),
            doc: "Time from one probe to the next, on the whole host.",
        },
    ],
    later: &[],
};

pub(super) static SEQUENCE: Block = Block {
    name: "sequence",
    doc: "Puts the messages of an ordering key in the order of a number that their producer gave them (§4.5): each number is processed after the one before it and at most once. It needs `ordering: { by: key }` and inline retries.",
    fields: &[
        Field {
            name: "number",
            kind: Kind::Expression,
            need: Need::Required,
            doc: "An integer that grows by one from one message of a key to the next. The first one seen of a key is accepted as it is. Of a header: `int(message.header(\"n\"))`.",
        },
        Field {
            name: "stale",
            kind: Kind::Choice(&[
                choice("skip", "finish it without a call, counted"),
                choice("dead_letter", "dead-letter it as `stale_sequence`"),
            ]),
            need: Need::Default("skip"),
            doc: "What to do with a number that is not above the last one of its key.",
        },
        Field {
            name: "gap_timeout",
            kind: Kind::Duration { min: MS, max: HOUR },
            need: Need::Default("30s"),
            doc: "How long a message waits for a number that is missing before its own. Then the key goes on without it, with a warning and a count; numbers of messages that `filter` passes over, or whose deadline has passed, are missing too.",
        },
    ],
    later: &[],
};

pub(super) static RATE_LIMIT: Block = Block {
    name: "rate_limit",
    doc: "At most so many messages are called in each interval; what was saved up is at most those of one interval.",
    fields: &[
        Field {
            name: "count",
            kind: Kind::Integer {
                min: 1,
                max: 10_000_000,
            },
            need: Need::Required,
            doc: "Messages.",
        },
        Field {
            name: "interval",
            kind: Kind::Duration { min: MS, max: HOUR },
            need: Need::Default("1s"),
            doc: "Time.",
        },
    ],
    later: &[],
};

pub(super) static IDEMPOTENCY: Block = Block {
    name: "idempotency",
    doc: "Recognises messages that were processed before by a key (§7).",
    fields: &[
        Field {
            name: "key",
            kind: Kind::Expression,
            need: Need::Required,
            doc: "What makes two messages the same. Compared with its type: `1` is not `\"1\"`.",
        },
        Field {
            name: "ttl",
            kind: Kind::Duration {
                min: SECOND,
                max: 366 * 24 * HOUR,
            },
            need: Need::Required,
            doc: "How long a key is remembered after its message was finished.",
        },
        Field {
            name: "store",
            kind: Kind::Choice(&[
                choice(
                    "source",
                    "beside the source: a table of the embedded log, written in one batch with outputs and progress",
                ),
                later_choice("postgres", "it keeps no keys in Postgres"),
                later_choice("redis", "it keeps no keys in Redis"),
            ]),
            need: Need::Default("source"),
            doc: "Where keys are remembered.",
        },
        Field {
            name: "scope",
            kind: Kind::Choice(&[
                choice("global", "the whole consumer group"),
                later_choice(
                    "partition",
                    "the table of the embedded log serves the whole group",
                ),
            ]),
            need: Need::Default("global"),
            doc: "Among which messages a key is unique.",
        },
        Field {
            name: "on_duplicate",
            kind: Kind::Choice(&[
                choice("skip", "finish it without calling the handler"),
                choice("replay", "publish the stored outputs again"),
            ]),
            need: Need::Default("skip"),
            doc: "What to do with a duplicate.",
        },
        Field {
            name: "if_missing",
            kind: Kind::Choice(&[
                choice("dead_letter", "dead-letter it as `no_idempotency_key`"),
                choice("process", "process it as if there were no `idempotency`"),
            ]),
            need: Need::Default("dead_letter"),
            doc: "What to do with a message whose key is absent, null or empty.",
        },
        Field {
            name: "fingerprint",
            kind: Kind::List {
                of: &Kind::Expression,
                min: 1,
                max: FINGERPRINT_MAX,
            },
            need: Need::Optional("the whole payload"),
            doc: "What must agree between duplicates; a message with a known key and another fingerprint is dead-lettered as `idempotency_conflict`.",
        },
    ],
    later: &[],
};
