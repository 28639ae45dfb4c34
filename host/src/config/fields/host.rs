//! The keys of `host` and `connections`.

use super::super::shape::{Block, Field, Kind, Later, Need};
use super::words::{HOUR, MIB, MS, PARTITIONS_MAX, SECRET_NAME, TIB, choice};

static TLS: Block = Block {
    name: "tls",
    doc: "TLS 1.2 and 1.3 with a certificate of your own. Read once, at the start.",
    fields: &[
        Field {
            name: "certificate",
            kind: Kind::Path,
            need: Need::Required,
            doc: "PEM file with the certificate and those that vouch for it.",
        },
        Field {
            name: "key",
            kind: Kind::Path,
            need: Need::Required,
            doc: "PEM file with its private key.",
        },
    ],
    later: &[],
};

static SECRET: Block = Block {
    name: "secret",
    doc: "A value that stands in no file of the configuration and is never printed.",
    fields: &[Field {
        name: "secret",
        kind: Kind::Text(&SECRET_NAME),
        need: Need::Required,
        doc: "The environment variable that holds it, or whose name with `_FILE` behind it holds the path of a file with it.",
    }],
    later: &[],
};

static ADMIN: Block = Block {
    name: "admin",
    doc: "The port that the command line and programs control the host through. Every request needs the token that the host writes into the data directory.",
    fields: &[
        Field {
            name: "listen",
            kind: Kind::Address,
            need: Need::Default("127.0.0.1:4180"),
            doc: "Address and port. Only loopback, unless there is `tls`.",
        },
        Field {
            name: "tls",
            kind: Kind::Block(&TLS),
            need: Need::Optional("plain HTTP, on loopback only"),
            doc: "Encryption.",
        },
        Field {
            name: "token",
            kind: Kind::Block(&SECRET),
            need: Need::Optional("a new random one at every start"),
            doc: "A token of your own: 16 to 256 visible ASCII characters.",
        },
    ],
    later: &[],
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

static TRACING: Block = Block {
    name: "tracing",
    doc: "OpenTelemetry spans. Where they go and how many messages are sampled is said by the `OTEL_…` variables; without an endpoint there are none.",
    fields: &[
        Field {
            name: "creation_context",
            kind: Kind::Choice(&[
                choice(
                    "link",
                    "attempts are a trace of their own with a link to the context in `traceparent`",
                ),
                choice(
                    "parent",
                    "attempts lie in the message's trace, below that context",
                ),
            ]),
            need: Need::Default("link"),
            doc: "How the attempts on a message hang together with where it came from.",
        },
        Field {
            name: "traces_per_second",
            kind: Kind::Integer {
                min: 1,
                max: 1_000_000,
            },
            need: Need::Default("500"),
            doc: "How many messages without a context are sampled a second on this host at most, whatever their share; those beyond are counted (`wasmill_traces_left_out_total`). A message whose context says sampled, and one that fails, is traced in any case; with `always_on` all are.",
        },
    ],
    later: &[],
};

static LOGS: Block = Block {
    name: "logs",
    doc: "Files of the host's log lines in `DATA_DIR/logs`, for `wasmill logs` and `wasmill trace`.",
    fields: &[
        Field {
            name: "size",
            kind: Kind::Size { min: MIB, max: TIB },
            need: Need::Default("16MiB"),
            doc: "Bytes after which a file is followed by the next.",
        },
        Field {
            name: "files",
            kind: Kind::Integer { min: 1, max: 1_000 },
            need: Need::Default("4"),
            doc: "Files kept; the oldest goes first.",
        },
    ],
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

pub(in crate::config) static HOST: Block = Block {
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
        Field {
            name: "tracing",
            kind: Kind::Block(&TRACING),
            need: Need::Default("{}"),
            doc: "OpenTelemetry spans.",
        },
        Field {
            name: "logs",
            kind: Kind::Either {
                single: &Kind::Bool,
                map: &Kind::Block(&LOGS),
            },
            need: Need::Default("true"),
            doc: "Whether the host's log lines are also kept in files: `false`, `true`, or how much of them.",
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

pub(super) static CONNECTION: Block = Block {
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
