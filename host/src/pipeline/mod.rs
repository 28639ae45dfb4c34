//! From delivery to settlement. `run.rs` is the page to read; `admit.rs`, `judge.rs` and `settle.rs` are
//! its stages; the other files are what they decide with, and pure.

mod admit;
mod answer;
pub mod circuit;
pub mod correlation;
pub mod counts;
pub mod dead_letter;
mod deduplicate;
mod deferred;
pub mod handler;
mod judge;
pub mod lane;
pub mod letter_state;
mod letter_writes;
pub mod offsets;
mod outage;
pub mod output;
pub mod overlay;
pub mod plan;
pub mod rate;
pub mod reject;
mod replay;
pub mod reply;
pub mod returned;
pub mod run;
pub mod sequence;
mod sequence_stage;
mod settle;
pub mod settlement;
#[cfg(test)]
mod sim;
pub mod snapshot;
mod stored;
pub mod trace;
mod traced;
pub mod verdict;
pub mod window;
