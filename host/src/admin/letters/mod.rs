//! Dead letters (§6.3 to §6.5) as an operator sees them: which there are (`scan` → `list`, `groups`), what
//! became of them (`state`), closing them (`close`, one `change` at a time), sending them back (`redrive` → `job`, run by
//! `runner`), over HTTP (`routes`, `remote`). Not here: when a message becomes one (`pipeline/`).

mod change;
pub mod close;
pub mod decode;
mod facts;
mod filter;
pub mod groups;
pub mod job;
pub mod list;
pub mod open;
pub mod redrive;
mod remote;
pub mod routes;
pub mod runner;
pub mod scan;
pub mod shape;
mod state;
mod sweep;
#[cfg(test)]
mod tests;
pub mod trial;
pub mod wire;

pub use state::Shared;
