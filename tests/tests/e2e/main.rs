//! Tests that start hosts as users do, kill them and read what is left.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop at once"
)]

mod alerts;
mod change;
mod deferred;
mod examples;
mod idempotency;
mod incident;
mod letters;
mod messages;
mod mutants;
mod observe;
mod operations;
mod overload;
mod poison;
mod readme;
mod request;
mod sandbox;
mod sequence;
mod state;
mod storm;
mod tracing;
mod watch;

use wasmill_tests::checker::{Guarantee, Terms};
use wasmill_tests::site::plugin;

/// A pipeline of the probe from topic `in` to `out` and `other`; `lines` are more of its keys, indented
/// by four spaces.
fn probe_pipeline(lines: &str) -> String {
    format!(
        r#"  - name: probe
    source: {{ topics: [in], consumer_group: g, start: earliest }}
    outputs:
      default: {{ topic: out, headers: ["probe-*"] }}
      other: {{ topic: other, headers: ["probe-*"] }}
{lines}"#
    )
}

/// The handler of [`probe_pipeline`] and what it is granted.
fn probe(more: &str) -> String {
    format!(
        "    handler: {{ plugin: {}, allow: {{ clock: true }}{more} }}\n",
        plugin("probe").display()
    )
}

/// What runs of [`probe_pipeline`] are held against.
fn probe_terms(guarantee: Guarantee, max_attempts: u32) -> Terms {
    Terms {
        source: "in",
        group: "g",
        outputs: vec!["out", "other"],
        dead_letters: "in.g.dlq".to_owned(),
        guarantee,
        is_deduplicated: false,
        max_attempts,
        is_ordered: true,
        succeeded_min: 0,
    }
}
