//! What the stored data of a consumer group was written under (§13.1, §13.2), as the log remembers it. Not
//! here: what a configuration comes to, and whether it fits (`host/fingerprint.rs`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::console::Console;
use super::error::Error;
use crate::connector::embedded;
use crate::connector::embedded::{Log, epoch};

/// `GET /v1/groups/{group}/fingerprints/{pipeline}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Fingerprint {
    /// By name of what data depends on, as it was configured when the pipeline last started as the group;
    /// `partitions/<topic>` is the number of partitions that a source topic had. `null`: it never started.
    pub depends_on: Option<BTreeMap<String, String>>,
    /// The epochs of the group's data now (§7.7).
    pub epochs: Epochs,
}

/// How often each was begun anew by a seek.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Epochs {
    /// The idempotency table, and what is renewed with it.
    pub completions: u64,
    pub state: u64,
}

/// Where it lies in the log.
pub fn key(group: &str, pipeline: &str) -> Vec<u8> {
    format!("fingerprint/{group}/{pipeline}").into_bytes()
}

/// What is remembered of a pipeline as a group.
pub fn read(log: &Log, group: &str, pipeline: &str) -> Result<Fingerprint, embedded::Error> {
    let stored = log.meta_get(&key(group, pipeline))?;
    let epochs = epoch::read(log, group)?;
    Ok(Fingerprint {
        // What cannot be read was written by another version, and refuses nobody.
        depends_on: stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        epochs: Epochs {
            completions: epochs.completions,
            state: epochs.state,
        },
    })
}

impl Console {
    /// What the data of `group` was written under by `pipeline`; empty for names that are not known.
    pub fn fingerprint(&self, group: &str, pipeline: &str) -> Result<Fingerprint, Error> {
        Ok(read(&self.log, group, pipeline)?)
    }
}
