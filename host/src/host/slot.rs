//! A pipeline's place in a running host, whether it runs or not, and the pause that an operator gave it
//! (§13.5). Not here: when it starts and stops (`pipelines.rs`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::admin::time;
use crate::config::valid::Pipeline;
use crate::connector::embedded::{Error, Log, Write};
use crate::pipeline::snapshot::Topics;

use super::running::Running;
use super::start::Prepared;
use super::watch::Watch;

/// Of an override. In version 1 it stood against something that only the binary that wrote it could tell.
const VERSION: u8 = 2;

/// An operator's word against the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Override {
    version: u8,
    /// Unix ms.
    since_ms: i64,
    /// Of what was written for the pipeline when it was given.
    against: String,
}

pub(super) struct Slot {
    pub(super) watch: Arc<Watch>,
    pub(super) prepared: Prepared,
    /// Of its configuration, defaults included.
    digest: String,
    pub(super) running: Option<Running>,
    /// It was told to stop and did not in time: once its workers have ended it starts again.
    pub(super) again: bool,
    /// What an earlier host may have been calling when it died is settled (§4.4).
    pub(super) replayed: bool,
}

impl Slot {
    pub(super) fn new(prepared: Prepared) -> Self {
        let pipeline = &prepared.pipeline;
        let watch = Watch::new(
            &pipeline.name,
            &pipeline.source.consumer_group,
            prepared.plugin_digest(),
            prepared.workers(),
        );
        watch.alerts(pipeline.alerts);
        watch.topics(Topics::of(pipeline));
        Self {
            digest: digest(pipeline),
            watch: Arc::new(watch),
            prepared,
            running: None,
            again: false,
            replayed: false,
        }
    }

    /// In the place of `old`, which is another version of it. What was counted stays when it is of the same group.
    pub(super) fn after(self, old: &Self) -> Self {
        if self.group() != old.group() {
            return self;
        }
        let pipeline = &self.prepared.pipeline;
        old.watch.alerts(pipeline.alerts);
        old.watch.topics(Topics::of(pipeline));
        Self {
            watch: Arc::clone(&old.watch),
            replayed: old.replayed,
            ..self
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.prepared.pipeline.name
    }

    pub(super) fn group(&self) -> &str {
        &self.prepared.pipeline.source.consumer_group
    }

    pub(super) fn is_alive(&self) -> bool {
        self.running.as_ref().is_some_and(Running::is_alive)
    }

    /// It is this pipeline, in another version.
    pub(super) fn differs(&self, new: &Prepared) -> bool {
        self.name() == new.pipeline.name
            && (self.digest != digest(&new.pipeline)
                || self.prepared.plugin_digest() != new.plugin_digest())
    }

    /// Why it is paused, if it is. A pause that this wasmill cannot read holds as well: that a pipeline runs
    /// which somebody paused is worse than that one does not, until somebody looks (§13.4).
    pub(super) fn paused(&self, log: &Log) -> Result<Option<String>, Error> {
        let Some(stored) = log.meta_get(&key(self.name()))? else {
            return Ok(None);
        };
        Ok(held(&stored, self.name(), &self.prepared.pipeline.written))
    }

    /// A pause that what is written has ended since. Left there, it would come back with the old text.
    pub(super) fn has_void_pause(&self, log: &Log) -> Result<bool, Error> {
        let stored = log.meta_get(&key(self.name()))?;
        let written = &self.prepared.pipeline.written;
        Ok(stored.is_some_and(|stored| held(&stored, self.name(), written).is_none()))
    }

    /// A pause from now on, until what is written for it changes.
    pub(super) fn pause(&self, now_ms: i64) -> Write {
        let held = Override {
            version: VERSION,
            since_ms: now_ms,
            against: self.prepared.pipeline.written.clone(),
        };
        Write::Meta {
            key: key(self.name()),
            // Two texts and numbers: writing them to memory cannot fail.
            value: Some(serde_json::to_vec(&held).unwrap_or_default()),
        }
    }

    /// No pause any more.
    pub(super) fn resume(&self) -> Write {
        Write::Meta {
            key: key(self.name()),
            value: None,
        }
    }
}

fn key(pipeline: &str) -> Vec<u8> {
    format!("override/{pipeline}").into_bytes()
}

fn held(stored: &[u8], name: &str, written: &str) -> Option<String> {
    let resume = format!("`wasmill resume {name}`");
    let Ok(held) = serde_json::from_slice::<Override>(stored) else {
        return Some(format!(
            "paused by a word of another version of wasmill, which this one cannot read; {resume}"
        ));
    };
    let holds = held.version != VERSION || held.against == written;
    holds.then(|| {
        format!(
            "paused by an operator since {}, against the configuration; {resume}",
            time::rfc3339(held.since_ms)
        )
    })
}

/// Of everything a pipeline's configuration comes to, and of what is written for it: that decides about pauses.
fn digest(pipeline: &Pipeline) -> String {
    let digest = Sha256::digest(format!("{pipeline:?}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_as(version: u8, against: &str) -> Option<String> {
        let given = Override {
            version,
            since_ms: 0,
            against: "written".to_owned(),
        };
        held(&serde_json::to_vec(&given).unwrap(), "p", against)
    }

    /// §13.4, §13.5.
    #[test]
    fn a_pause_holds_until_what_is_written_changes_and_one_of_another_version_until_it_is_resumed()
    {
        assert!(
            held_as(VERSION, "written")
                .unwrap()
                .contains("wasmill resume p")
        );
        assert_eq!(held_as(VERSION, "other"), None);
        for version in [1, VERSION + 1] {
            assert!(held_as(version, "other").is_some());
        }
        for unreadable in [&b"{\"version\": 3}"[..], b"", b"paused"] {
            let why = held(unreadable, "p", "other").unwrap();
            assert!(why.contains("wasmill resume p"), "{why}");
        }
    }
}
