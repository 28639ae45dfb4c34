//! The keys of `handler`.

use super::super::shape::{Block, Field, Kind, Later, Need};
use super::words::{
    BATCH_MAX, CONCURRENCY_MAX, CONFIG_KEYS_MAX, GIB, HOUR, KIB, MIB, MS, STATE_NAME, TIB, choice,
};

static STATE: Block = Block {
    name: "state",
    doc: "A key-value table of the pipeline's own. Writes count only when the message they belong to is finished.",
    fields: &[
        Field {
            name: "max_size",
            kind: Kind::Size { min: KIB, max: TIB },
            need: Need::Default("1GiB"),
            doc: "Bytes of keys and values.",
        },
        Field {
            name: "name",
            kind: Kind::Text(&STATE_NAME),
            need: Need::Default("default"),
            doc: "Another name is another table, empty at first.",
        },
        Field {
            name: "version",
            kind: Kind::Integer {
                min: 1,
                max: 1_000_000,
            },
            need: Need::Default("1"),
            doc: "Of what the handler keeps in it. Raise it when a handler cannot read what an earlier one wrote: it then begins with an empty table, and the old one stays for a way back (§13.3).",
        },
    ],
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

pub(super) static HANDLER: Block = Block {
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
