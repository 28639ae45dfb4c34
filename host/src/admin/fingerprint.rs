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

/// The entry that says of which version a record is; those of before there was one have none.
pub const VERSION_ENTRY: &str = "format/version";
pub const VERSION: &str = "1";
/// Pipelines of one group that are looked at.
const PIPELINES_MAX: usize = 1_024;

/// Where it lies in the log.
pub fn key(group: &str, pipeline: &str) -> Vec<u8> {
    format!("fingerprint/{group}/{pipeline}").into_bytes()
}

/// What is remembered of a pipeline as a group.
pub fn read(log: &Log, group: &str, pipeline: &str) -> Result<Fingerprint, embedded::Error> {
    let stored = log.meta_get(&key(group, pipeline))?;
    let epochs = epoch::read(log, group)?;
    let depends_on = stored.map(|bytes| {
        decode(&bytes).ok_or_else(|| embedded::Error::Unreadable {
            what: format!("what group {group} depends on as pipeline {pipeline}").into(),
        })
    });
    Ok(Fingerprint {
        depends_on: depends_on.transpose()?,
        epochs: Epochs {
            completions: epochs.completions,
            state: epochs.state,
        },
    })
}

/// `None` for what another version wrote: passing over it would let any change pass (§13.4).
fn decode(stored: &[u8]) -> Option<BTreeMap<String, String>> {
    let all: BTreeMap<String, String> = serde_json::from_slice(stored).ok()?;
    let version = all.get(VERSION_ENTRY);
    version
        .is_none_or(|version| version == VERSION)
        .then_some(all)
}

/// Pipelines of which something is remembered as a group.
pub fn pipelines(log: &Log, group: &str) -> Result<Vec<String>, embedded::Error> {
    let prefix = key(group, "");
    let found = log.meta_scan(&prefix, b"", PIPELINES_MAX)?;
    let names = found.iter().filter_map(|(key, _)| {
        let name = key.strip_prefix(&*prefix)?;
        Some(String::from_utf8_lossy(name).into_owned())
    });
    Ok(names.collect())
}

impl Console {
    /// What the data of `group` was written under by `pipeline`; empty for names that are not known.
    pub fn fingerprint(&self, group: &str, pipeline: &str) -> Result<Fingerprint, Error> {
        Ok(read(&self.log, group, pipeline)?)
    }
}
