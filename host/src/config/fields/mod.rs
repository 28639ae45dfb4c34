//! Every key of a configuration: what it takes, what it means when it is left out, what it is for. The
//! order is that of the reference.

mod alerts;
mod handler;
mod host;
mod policy;
mod stream;
mod words;

use super::shape::{Block, Field, Kind, Later, Need};
use alerts::ALERTS;
use handler::HANDLER;
use host::CONNECTION;
use policy::{CIRCUIT, IDEMPOTENCY, ORDERING, RATE_LIMIT, RETRY, SEQUENCE};
use stream::{DEAD_LETTER, OUTPUT, REPLY, SOURCE};
use words::{CONNECTION_NAME, OUTPUT_NAME, OUTPUTS_MAX, PIPELINE_NAME, choice};

pub(super) use host::HOST;
pub(super) use words::PIPELINES_MAX;

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
            name: "filter",
            kind: Kind::Expression,
            need: Need::Optional("every message is called"),
            doc: "A message of which it is false is finished without a call and counted; one on which it fails is dead-lettered as `expression_failed`. Comparisons (`==`, `!=`) of plain paths, headers or the key with text, integers and truth values, joined by `&&`, `||`, `!`, cost a scan of the payload; anything else a parse.",
        },
        Field {
            name: "sequence",
            kind: Kind::Block(&SEQUENCE),
            need: Need::Optional("messages of a key run in the order of the log"),
            doc: "Sequence numbers.",
        },
        Field {
            name: "circuit",
            kind: Kind::Either {
                single: &Kind::Bool,
                map: &Kind::Block(&CIRCUIT),
            },
            need: Need::Default("true"),
            doc: "What happens when a dependency of the handler is down (§5.5): `false`, `true`, or when it counts as down. The pipeline then pauses and is unhealthy, and single messages probe without spending attempts until one succeeds. Not with `at_most_once`.",
        },
        Field {
            name: "rate_limit",
            kind: Kind::Block(&RATE_LIMIT),
            need: Need::Optional("as fast as it goes"),
            doc: "Messages called, on each host (§9). The source is read no faster.",
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
            name: "reply",
            kind: Kind::Block(&REPLY),
            need: Need::Default("{}"),
            doc: "Answers: what the handler publishes to the name `reply` goes to the topic in the message's `reply-to` header, with its correlation ID (§8).",
        },
        Field {
            name: "dead_letter",
            kind: Kind::Block(&DEAD_LETTER),
            need: Need::Default("{}"),
            doc: "Dead letters.",
        },
        Field {
            name: "alerts",
            kind: Kind::Block(&ALERTS),
            need: Need::Default("{}"),
            doc: "Alerts.",
        },
    ],
    later: PIPELINE_LATER,
};

const PIPELINE_LATER: &[Later] = &[Later {
    name: "steps",
    what: "pipelines of several handlers; chain them through topics",
}];

/// Every block below the root in the order of the reference; `true` for its form inside `defaults`.
pub(super) fn tables() -> Vec<(&'static Block, bool)> {
    let mut tables = Vec::new();
    ROOT.fields
        .iter()
        .for_each(|field| collect(&field.kind, false, &mut tables));
    tables
}

fn collect(kind: &'static Kind, partial: bool, tables: &mut Vec<(&'static Block, bool)>) {
    match kind {
        Kind::Block(block) => add(block, partial, tables),
        Kind::Partial(block) => add(block, true, tables),
        Kind::List { of, .. } | Kind::Named { of, .. } => collect(of, partial, tables),
        Kind::Either { single, map } => {
            collect(single, partial, tables);
            collect(map, partial, tables);
        }
        _ => {}
    }
}

fn add(block: &'static Block, partial: bool, tables: &mut Vec<(&'static Block, bool)>) {
    if tables
        .iter()
        .any(|(known, p)| known.name == block.name && *p == partial)
    {
        return;
    }
    tables.push((block, partial));
    block
        .fields
        .iter()
        .for_each(|field| collect(&field.kind, partial, tables));
}
