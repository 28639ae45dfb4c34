//! The keys of `source`, `outputs` and `dead_letter`.

use super::super::shape::{Block, Field, Kind, Later, Need};
use super::words::{
    CONNECTION_NAME, GIB, GROUP, HEADER_NAME, HEADER_PATTERN, HEADERS_MAX, KIB, TOPIC,
    TOPIC_PATTERN, TOPICS_MAX, WINDOW_MESSAGES_MAX, choice,
};

static START_AT: Block = Block {
    name: "start_at",
    doc: "Exactly one of the two.",
    fields: &[
        Field {
            name: "offset",
            kind: Kind::Integer {
                min: 0,
                max: i64::MAX as u64,
            },
            need: Need::Optional("not by offset"),
            doc: "That offset, in every partition.",
        },
        Field {
            name: "timestamp",
            kind: Kind::Timestamp,
            need: Need::Optional("not by time"),
            doc: "The first message at or after that time: RFC 3339 (`2026-01-31T08:00:00Z`) or Unix milliseconds.",
        },
    ],
    later: &[],
};

static WINDOW: Block = Block {
    name: "window",
    doc: "How much of a partition may be read and not finished; when it is full, reading stops (§9).",
    fields: &[
        Field {
            name: "messages",
            kind: Kind::Integer {
                min: 1,
                max: WINDOW_MESSAGES_MAX,
            },
            need: Need::Default("8192"),
            doc: "Messages.",
        },
        Field {
            name: "bytes",
            kind: Kind::Size {
                min: 64 * KIB,
                max: GIB,
            },
            need: Need::Default("16MiB"),
            doc: "Bytes of keys, payloads and headers.",
        },
    ],
    later: &[],
};

pub(super) static SOURCE: Block = Block {
    name: "source",
    doc: "What the pipeline reads.",
    fields: &[
        Field {
            name: "connection",
            kind: Kind::Text(&CONNECTION_NAME),
            need: Need::Optional("the embedded log"),
            doc: "One of `connections`.",
        },
        Field {
            name: "topics",
            kind: Kind::List {
                of: &Kind::Text(&TOPIC),
                min: 1,
                max: TOPICS_MAX,
            },
            need: Need::Required,
            doc: "Topics.",
        },
        Field {
            name: "consumer_group",
            kind: Kind::Text(&GROUP),
            need: Need::Required,
            doc: "Under which name progress is kept. Two pipelines with one group cannot read one topic.",
        },
        Field {
            name: "start",
            kind: Kind::Either {
                single: &Kind::Choice(&[
                    choice("earliest", "the first message there is"),
                    choice("latest", "only what comes after the group exists"),
                ]),
                map: &Kind::Block(&START_AT),
            },
            need: Need::Required,
            doc: "Where a group that is new on a partition begins. A group that has been there goes on where it stopped.",
        },
        Field {
            name: "format",
            kind: Kind::Choice(&[
                choice("bytes", "anything"),
                choice(
                    "json",
                    "a payload that is not JSON is dead-lettered as `undecodable` without calling the handler",
                ),
            ]),
            need: Need::Default("bytes"),
            doc: "What payloads are.",
        },
        Field {
            name: "on_lost_offset",
            kind: Kind::Choice(&[
                choice(
                    "halt",
                    "stop the pipeline, unhealthy, until a person decides",
                ),
                choice(
                    "earliest",
                    "go on at the first message there is, counted and logged",
                ),
            ]),
            need: Need::Default("halt"),
            doc: "What to do when retention removed messages that the group had not finished.",
        },
        Field {
            name: "window",
            kind: Kind::Block(&WINDOW),
            need: Need::Default("{}"),
            doc: "Bounds per partition.",
        },
    ],
    later: &[],
};

pub(super) static OUTPUT: Block = Block {
    name: "output",
    doc: "A place that the handler may publish to.",
    fields: &[
        Field {
            name: "topic",
            kind: Kind::Text(&TOPIC),
            need: Need::Required,
            doc: "Where its messages go.",
        },
        Field {
            name: "key",
            kind: Kind::Expression,
            need: Need::Optional(
                "the key that the handler gives, which is the input's if it gives none",
            ),
            doc: "Key of its messages, made of the input. When it fails the message is dead-lettered as `expression_failed` and nothing of it is published.",
        },
        Field {
            name: "set_headers",
            kind: Kind::Named {
                names: &HEADER_NAME,
                of: &Kind::Expression,
                max: HEADERS_MAX,
            },
            need: Need::Default("{}"),
            doc: "Headers with values made of the input, behind those of the handler.",
        },
        Field {
            name: "headers",
            kind: Kind::List {
                of: &Kind::Text(&HEADER_PATTERN),
                min: 0,
                max: HEADERS_MAX,
            },
            need: Need::Default("[]"),
            doc: "Headers of the input that the output keeps: names, or prefixes with a final `*`. Trace and correlation headers are always kept.",
        },
    ],
    later: &[Later {
        name: "connection",
        what: "outputs on another connection",
    }],
};

pub(super) static REPLY: Block = Block {
    name: "reply",
    doc: "Where answers may go. Others are dropped and counted; topics are never created for them.",
    fields: &[Field {
        name: "topics",
        kind: Kind::List {
            of: &Kind::Text(&TOPIC_PATTERN),
            min: 0,
            max: TOPICS_MAX,
        },
        need: Need::Optional("`wasmill.replies.*`, the topics in which hosts wait for answers"),
        doc: "Topics, or prefixes with a final `*`.",
    }],
    later: &[],
};

pub(super) static DEAD_LETTER: Block = Block {
    name: "dead_letter",
    doc: "Where messages go that cannot be processed (§6).",
    fields: &[Field {
        name: "topic",
        kind: Kind::Text(&TOPIC),
        need: Need::Optional("`<topic>.<group>.dlq` for each topic"),
        doc: "Topic.",
    }],
    later: &[
        Later {
            name: "style",
            what: "other style of dead letter headers",
        },
        Later {
            name: "connection",
            what: "dead letters on another connection",
        },
    ],
};
