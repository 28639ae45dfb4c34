//! The keys of `alerts`.

use super::super::shape::{Block, Field, Kind, Need};
use super::words::{HOUR, SECOND};

static DEAD_LETTERS: Block = Block {
    name: "alert_dead_letters",
    doc: "So many dead letters in so much time.",
    fields: &[
        Field {
            name: "count",
            kind: Kind::Integer {
                min: 1,
                max: 1_000_000_000,
            },
            need: Need::Required,
            doc: "Dead letters, at which the alert begins.",
        },
        Field {
            name: "per",
            kind: Kind::Duration {
                min: 10 * SECOND,
                max: 24 * HOUR,
            },
            need: Need::Required,
            doc: "Time. It is watched from the start of the host on.",
        },
    ],
    later: &[],
};

pub(super) static ALERTS: Block = Block {
    name: "alerts",
    doc: "When somebody should look (§9). An alert shows in the metric `wasmill_alert` and in the detail of `/readyz`, which stays ready: what is late is not helped by a restart. `wasmill alerts` prints rules for Prometheus.",
    fields: &[
        Field {
            name: "lag",
            kind: Kind::Integer {
                min: 1,
                max: 1_000_000_000_000,
            },
            need: Need::Optional("no alert"),
            doc: "Messages of all partitions that are not finished, above which the alert begins.",
        },
        Field {
            name: "oldest_age",
            kind: Kind::Duration {
                min: SECOND,
                max: 30 * 24 * HOUR,
            },
            need: Need::Optional("no alert"),
            doc: "Age of the oldest message that is not finished, above which the alert begins.",
        },
        Field {
            name: "dead_letters",
            kind: Kind::Block(&DEAD_LETTERS),
            need: Need::Optional("no alert"),
            doc: "Dead letters.",
        },
    ],
    later: &[],
};
