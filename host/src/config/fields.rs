//! Every key of a configuration: what it takes, what it means when it is left out, what it is for. The
//! order is that of the reference.

use super::shape::{Block, Choice, Field, Kind, Later, Need, Rule};

const MS: u64 = 1;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// Per partition; the bitmap of what is finished above the committed offset must stay small (§4.3).
pub(super) const WINDOW_MESSAGES_MAX: u64 = 16_384;
pub(super) const ATTEMPTS_MAX: u64 = 10_000;
pub(super) const TOPICS_MAX: usize = 256;
pub(super) const OUTPUTS_MAX: usize = 256;
pub(super) const PIPELINES_MAX: usize = 1_024;
pub(super) const HEADERS_MAX: usize = 64;
pub(super) const CONFIG_KEYS_MAX: usize = 256;
pub(super) const FINGERPRINT_MAX: usize = 16;
pub(super) const CONCURRENCY_MAX: u64 = 1_024;
/// Messages of one call.
pub(super) const BATCH_MAX: u64 = 256;
pub(super) const PARTITIONS_MAX: u64 = 1_024;

const fn choice(name: &'static str, doc: &'static str) -> Choice {
    Choice {
        name,
        doc,
        now: true,
    }
}

const fn later_choice(name: &'static str, doc: &'static str) -> Choice {
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

static GROUP: Rule = Rule {
    what: "a consumer group name",
    pattern: "^[A-Za-z0-9._-]{1,249}$",
    expected: "1 to 249 letters, digits, `.`, `_` or `-`",
    fits: |text| is_word(text, 249, b"._-"),
};

static PIPELINE_NAME: Rule = Rule {
    what: "a pipeline name",
    pattern: "^[A-Za-z0-9._-]{1,100}$",
    expected: "1 to 100 letters, digits, `.`, `_` or `-`",
    fits: |text| is_word(text, 100, b"._-"),
};

static OUTPUT_NAME: Rule = Rule {
    what: "an output name",
    pattern: "^(?!reply$)[A-Za-z0-9_-]{1,64}$",
    expected: "1 to 64 letters, digits, `_` or `-`, and not `reply`, which has a meaning of its own",
    fits: |text| is_word(text, 64, b"_-") && text != "reply",
};

static CONNECTION_NAME: Rule = Rule {
    what: "a connection name",
    pattern: "^[A-Za-z0-9_-]{1,64}$",
    expected: "1 to 64 letters, digits, `_` or `-`",
    fits: |text| is_word(text, 64, b"_-"),
};

static HEADER_PATTERN: Rule = Rule {
    what: "a header name",
    pattern: "^[^*]*\\*?$",
    expected: "a header name, or a prefix with `*` as its last character; never `idempotency-key`, `x-retry-count` or `wasmill-…`, which the host sets",
    fits: |text| {
        let name = text.strip_suffix('*').unwrap_or(text);
        let reserved =
            matches!(name, "idempotency-key" | "x-retry-count") || name.starts_with("wasmill-");
        !text.is_empty() && text.len() <= 249 && !name.contains('*') && !reserved
    },
};

static ADMIN: Block = Block {
    name: "admin",
    doc: "The port that the command line and programs control the host through. Every request needs the token that the host writes into the data directory.",
    fields: &[Field {
        name: "listen",
        kind: Kind::Address,
        need: Need::Default("127.0.0.1:4180"),
        doc: "Address and port; only loopback in this version.",
    }],
    later: &[
        Later {
            name: "token",
            what: "a token of your own",
        },
        Later {
            name: "tls",
            what: "TLS",
        },
    ],
};

static HEALTH: Block = Block {
    name: "health",
    doc: "The port of `/livez`, `/readyz` and `/metrics`, without a token. It may leave loopback.",
    fields: &[Field {
        name: "listen",
        kind: Kind::Address,
        need: Need::Default("127.0.0.1:4181"),
        doc: "Address and port.",
    }],
    later: &[],
};

static CREATE_TOPICS: Block = Block {
    name: "create_topics",
    doc: "How topics that a pipeline names and that do not exist are created.",
    fields: &[Field {
        name: "partitions",
        kind: Kind::Integer {
            min: 1,
            max: PARTITIONS_MAX,
        },
        need: Need::Default("6"),
        doc: "Partitions of each.",
    }],
    later: &[Later {
        name: "replication",
        what: "Kafka",
    }],
};

pub(super) static HOST: Block = Block {
    name: "host",
    doc: "The process itself. In one file at most.",
    fields: &[
        Field {
            name: "data_dir",
            kind: Kind::Path,
            need: Need::Default("./wasmill-data"),
            doc: "Directory of the embedded log, the tables and the compile cache. A relative path counts from where the host is started.",
        },
        Field {
            name: "admin",
            kind: Kind::Block(&ADMIN),
            need: Need::Default("{}"),
            doc: "Administration.",
        },
        Field {
            name: "health",
            kind: Kind::Block(&HEALTH),
            need: Need::Default("{}"),
            doc: "Health and metrics.",
        },
        Field {
            name: "shutdown_timeout",
            kind: Kind::Duration {
                min: 100 * MS,
                max: HOUR,
            },
            need: Need::Default("30s"),
            doc: "Time for running calls to end after SIGTERM; what has not ended by then is delivered again (§10.2).",
        },
        Field {
            name: "guest_memory",
            kind: Kind::Size {
                min: 16 * MIB,
                max: TIB,
            },
            need: Need::Default("2GiB"),
            doc: "Memory that all handlers together may take.",
        },
        Field {
            name: "durability",
            kind: Kind::Choice(&[
                choice(
                    "fsync",
                    "a message or a settlement counts when it is on the disk",
                ),
                choice(
                    "os",
                    "it counts when the operating system has it: it survives the host and not the machine",
                ),
            ]),
            need: Need::Default("fsync"),
            doc: "When something counts as written to the embedded log.",
        },
        Field {
            name: "create_topics",
            kind: Kind::Either {
                single: &Kind::Bool,
                map: &Kind::Block(&CREATE_TOPICS),
            },
            need: Need::Default("true"),
            doc: "Whether `run` creates the topics that pipelines name: `false`, `true`, or with how many partitions.",
        },
    ],
    later: &[],
};

static EMBEDDED: Block = Block {
    name: "embedded",
    doc: "The embedded log in `host.data_dir`. It has no settings.",
    fields: &[],
    later: &[],
};

static CONNECTION: Block = Block {
    name: "connection",
    doc: "Where topics live. None is needed: the embedded log is the default.",
    fields: &[Field {
        name: "embedded",
        kind: Kind::Block(&EMBEDDED),
        need: Need::Required,
        doc: "The embedded log: write `embedded: {}`.",
    }],
    later: &[
        Later {
            name: "kafka",
            what: "Kafka",
        },
        Later {
            name: "rabbitmq",
            what: "RabbitMQ",
        },
    ],
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

static SOURCE: Block = Block {
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

static ORDERING: Block = Block {
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
    later: &[Later {
        name: "relaxed",
        what: "deferred retries",
    }],
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

static RETRY: Block = Block {
    name: "retry",
    doc: "What happens after a retryable failure or a fault (§5). When attempts are spent the message is dead-lettered.",
    fields: &[
        Field {
            name: "mode",
            kind: Kind::Choice(&[
                choice("inline", "later messages of the lane wait"),
                later_choice(
                    "deferred",
                    "the message is published again, to be read later",
                ),
            ]),
            need: Need::Default("inline"),
            doc: "Where a message waits for its next attempt.",
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
    later: &[Later {
        name: "circuit",
        what: "the circuit breaker",
    }],
};

static IDEMPOTENCY: Block = Block {
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
                later_choice("postgres", "a table in Postgres"),
                later_choice("redis", "Redis"),
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
                    "each partition for itself, which the embedded log has no use for: its table serves the whole group",
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

static STATE: Block = Block {
    name: "state",
    doc: "A key-value table of the pipeline's own. Writes count only when the message they belong to is finished.",
    fields: &[Field {
        name: "max_size",
        kind: Kind::Size { min: KIB, max: TIB },
        need: Need::Default("1GiB"),
        doc: "Bytes of keys and values.",
    }],
    later: &[],
};

static ALLOW: Block = Block {
    name: "allow",
    doc: "What the handler may do besides reading its message, its `config`, writing log lines and returning outputs (§11.1).",
    fields: &[
        Field {
            name: "state",
            kind: Kind::Block(&STATE),
            need: Need::Optional("no state"),
            doc: "State; `state: {}` grants it with the default size.",
        },
        Field {
            name: "clock",
            kind: Kind::Bool,
            need: Need::Default("false"),
            doc: "Reading clocks.",
        },
        Field {
            name: "random",
            kind: Kind::Bool,
            need: Need::Default("false"),
            doc: "Random numbers.",
        },
    ],
    later: &[
        Later {
            name: "http",
            what: "HTTP requests",
        },
        Later {
            name: "env",
            what: "environment variables for handlers",
        },
        Later {
            name: "secrets",
            what: "secrets for handlers",
        },
    ],
};

static LIMITS: Block = Block {
    name: "limits",
    doc: "What one message may cost (§11.2).",
    fields: &[
        Field {
            name: "memory",
            kind: Kind::Size {
                min: MIB,
                max: 4 * GIB,
            },
            need: Need::Default("128MiB"),
            doc: "Memory of one instance.",
        },
        Field {
            name: "time",
            kind: Kind::Duration { min: MS, max: HOUR },
            need: Need::Default("5s"),
            doc: "Time for one message.",
        },
        Field {
            name: "outputs",
            kind: Kind::Integer {
                min: 1,
                max: 100_000,
            },
            need: Need::Default("1000"),
            doc: "Outputs of one message.",
        },
        Field {
            name: "output_size",
            kind: Kind::Size {
                min: 1,
                max: 64 * MIB,
            },
            need: Need::Default("1MiB"),
            doc: "Bytes of one output.",
        },
        Field {
            name: "log_lines",
            kind: Kind::Integer {
                min: 0,
                max: 100_000,
            },
            need: Need::Default("100"),
            doc: "Log lines a second of the whole pipeline; more are counted and dropped.",
        },
    ],
    later: &[],
};

static HANDLER: Block = Block {
    name: "handler",
    doc: "The plugin that is called for each message.",
    fields: &[
        Field {
            name: "plugin",
            kind: Kind::Path,
            need: Need::Required,
            doc: "A WebAssembly component, relative to the file this is written in.",
        },
        Field {
            name: "config",
            kind: Kind::Texts {
                max: CONFIG_KEYS_MAX,
            },
            need: Need::Default("{}"),
            doc: "Names and texts that the handler can read. Numbers and booleans arrive as they are written.",
        },
        Field {
            name: "allow",
            kind: Kind::Block(&ALLOW),
            need: Need::Default("{}"),
            doc: "Grants; nothing is granted that does not stand here.",
        },
        Field {
            name: "limits",
            kind: Kind::Block(&LIMITS),
            need: Need::Default("{}"),
            doc: "Limits.",
        },
        Field {
            name: "concurrency",
            kind: Kind::Integer {
                min: 1,
                max: CONCURRENCY_MAX,
            },
            need: Need::Optional("as many as the machine has cores"),
            doc: "Calls at the same time.",
        },
        Field {
            name: "batch",
            kind: Kind::Integer {
                min: 1,
                max: BATCH_MAX,
            },
            need: Need::Optional("what is ready, up to 256; one, when the plugin imports state"),
            doc: "Most messages of one call.",
        },
        Field {
            name: "isolation",
            kind: Kind::Choice(&[
                choice("worker", "instances are used again"),
                choice("message", "a fresh instance for every message"),
            ]),
            need: Need::Default("worker"),
            doc: "What messages share.",
        },
    ],
    later: &[],
};

static OUTPUT: Block = Block {
    name: "output",
    doc: "A place that the handler may publish to.",
    fields: &[
        Field {
            name: "topic",
            kind: Kind::Text(&TOPIC),
            need: Need::Required,
            doc: "Topic.",
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
    later: &[
        Later {
            name: "key",
            what: "a key expression of an output",
        },
        Later {
            name: "connection",
            what: "outputs on another connection",
        },
    ],
};

static DEAD_LETTER: Block = Block {
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
            what: "another style of dead letter headers",
        },
        Later {
            name: "connection",
            what: "dead letters on another connection",
        },
    ],
};

const PIPELINE_LATER: &[Later] = &[
    Later {
        name: "filter",
        what: "filters",
    },
    Later {
        name: "sequence",
        what: "sequence numbers",
    },
    Later {
        name: "rate_limit",
        what: "rate limits",
    },
    Later {
        name: "alerts",
        what: "alerts",
    },
    Later {
        name: "reply",
        what: "replies",
    },
    Later {
        name: "steps",
        what: "several handlers in one pipeline; chain pipelines through topics",
    },
    Later {
        name: "deadline",
        what: "deadlines",
    },
];

pub(super) static PIPELINE: Block = Block {
    name: "pipeline",
    doc: "One handler between topics. A key that a pipeline does not have is taken from `defaults`; maps are merged key by key, everything else is replaced.",
    fields: &[
        Field {
            name: "name",
            kind: Kind::Text(&PIPELINE_NAME),
            need: Need::Required,
            doc: "In logs, metrics and commands; each name once.",
        },
        Field {
            name: "delivery",
            kind: Kind::Choice(&[
                choice("at_least_once", "a crash may repeat what was not settled"),
                choice(
                    "exactly_once",
                    "outputs, dead letters, state, keys and progress of a message are one transaction",
                ),
                choice(
                    "at_most_once",
                    "progress first; a failure is counted and logged, never repeated",
                ),
            ]),
            need: Need::Default("at_least_once"),
            doc: "The guarantee (§3).",
        },
        Field {
            name: "source",
            kind: Kind::Block(&SOURCE),
            need: Need::Required,
            doc: "Input.",
        },
        Field {
            name: "ordering",
            kind: Kind::Block(&ORDERING),
            need: Need::Default("{}"),
            doc: "Order.",
        },
        Field {
            name: "retry",
            kind: Kind::Block(&RETRY),
            need: Need::Default("{}"),
            doc: "Retries.",
        },
        Field {
            name: "idempotency",
            kind: Kind::Block(&IDEMPOTENCY),
            need: Need::Optional("duplicates are not recognised"),
            doc: "Duplicates.",
        },
        Field {
            name: "handler",
            kind: Kind::Block(&HANDLER),
            need: Need::Required,
            doc: "The plugin.",
        },
        Field {
            name: "outputs",
            kind: Kind::Named {
                names: &OUTPUT_NAME,
                of: &Kind::Block(&OUTPUT),
                max: OUTPUTS_MAX,
            },
            need: Need::Default("{}"),
            doc: "Names that the handler publishes to, and what each stands for. An output to a name that does not stand here is a fault.",
        },
        Field {
            name: "dead_letter",
            kind: Kind::Block(&DEAD_LETTER),
            need: Need::Default("{}"),
            doc: "Dead letters.",
        },
    ],
    later: PIPELINE_LATER,
};

pub(super) static ROOT: Block = Block {
    name: "configuration",
    doc: "One file. A host takes several files and folders as one configuration.",
    fields: &[
        Field {
            name: "version",
            kind: Kind::Integer { min: 1, max: 1 },
            need: Need::Required,
            doc: "Of this format: `1`.",
        },
        Field {
            name: "host",
            kind: Kind::Block(&HOST),
            need: Need::Default("{}"),
            doc: "The process itself.",
        },
        Field {
            name: "connections",
            kind: Kind::Named {
                names: &CONNECTION_NAME,
                of: &Kind::Block(&CONNECTION),
                max: 64,
            },
            need: Need::Default("{}"),
            doc: "Where topics live.",
        },
        Field {
            name: "defaults",
            kind: Kind::Partial(&PIPELINE),
            need: Need::Default("{}"),
            doc: "Keys of `pipeline`, all optional, merged under every pipeline of every file. In one file at most.",
        },
        Field {
            name: "pipelines",
            kind: Kind::List {
                of: &Kind::Block(&PIPELINE),
                min: 0,
                max: PIPELINES_MAX,
            },
            need: Need::Default("[]"),
            doc: "Pipelines.",
        },
    ],
    later: &[Later {
        name: "tests",
        what: "pipeline tests",
    }],
};
