//! The wasmill host as a library: one folder per room, in the order in which a message meets them.
//! ARCHITECTURE.md has the map and the invariants.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        reason = "tests may panic"
    )
)]

pub mod admin;
pub mod cli;
pub mod config;
pub mod connector;
pub mod explain;
pub mod expression;
pub mod faults;
pub mod host;
pub mod idempotency;
pub mod message;
pub mod pipeline;
pub mod plugin;
pub mod telemetry;
