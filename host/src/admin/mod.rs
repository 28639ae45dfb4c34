//! What an operator can ask and tell: [`console::Console`] over an open log, the same over HTTP
//! (`routes.rs`, `guard.rs`, served by `port.rs`), the client of it ([`remote::Remote`]), and the health
//! port. Not here: how a person types and reads it (`cli/`).
pub mod audit;
pub mod console;
pub mod error;
pub mod fingerprint;
pub mod guard;
pub mod health;
pub mod letters;
pub mod logs;
mod observe_routes;
pub mod openapi;
mod operation_routes;
pub mod operations;
pub mod port;
pub mod ports;
pub mod remote;
mod request_routes;
pub mod requests;
pub mod routes;
pub mod seek;
#[cfg(test)]
mod slow;
#[cfg(test)]
mod tests;
pub mod time;
pub mod tls;
pub mod token;
pub mod trace;
#[cfg(test)]
mod walk;
pub mod wire;

pub use error::{Code, Error};
