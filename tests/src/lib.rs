//! Shared pieces of the end-to-end tests: a real host as a process (`site`, `process`), what is put into
//! it (`input`), what a person types (`typed`), and the one checker that says whether the outcome is right (`checker`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may stop at once"
)]

pub mod checker;
pub mod input;
pub mod process;
pub mod receiver;
pub mod site;
pub mod typed;
