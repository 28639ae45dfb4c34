//! Who did what: one durable entry for each command that changes something, written with the change when
//! that is a commit of its own. The newest [`AUDIT_ENTRIES_MAX`] are kept. Not here: the log line, which
//! goes wherever the host's log lines go.

use std::sync::atomic::{AtomicU32, Ordering};

use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use serde::{Deserialize, Serialize};

use super::error::{Code, Error};
use crate::connector::embedded::{Commit, Log, Write};
use crate::pipeline::offsets::truncated;

/// Entries kept; older ones go.
pub const AUDIT_ENTRIES_MAX: usize = 10_000;
/// Bytes of a target or note that are kept.
pub const AUDIT_TEXT_MAX: usize = 1024;

const PREFIX: &[u8] = b"audit/";
/// Entries written between two looks for old ones.
const PRUNE_EVERY: u32 = 64;

/// One thing that somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Unix ms.
    pub at: i64,
    /// `cli` or `http`.
    pub who: String,
    /// As it is typed: `dlq resolve`.
    pub command: String,
    /// What it was done to.
    pub target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Who asks: our own command line says so in its user agent.
#[must_use]
pub fn who(headers: &HeaderMap) -> &'static str {
    let agent = headers
        .get(USER_AGENT)
        .and_then(|value| value.to_str().ok());
    match agent {
        Some(agent) if agent.starts_with("wasmill/") => "cli",
        _ => "http",
    }
}

/// The trail of one log.
pub struct Trail {
    log: Log,
    /// Of this process, so that entries of one millisecond differ; two processes never have one log.
    written: AtomicU32,
}

impl Trail {
    #[must_use]
    pub const fn new(log: Log) -> Self {
        Self {
            log,
            written: AtomicU32::new(0),
        }
    }

    /// An entry now, as writes for the commit that makes the change; says it in the log as well.
    pub fn writes(
        &self,
        who: &str,
        command: &str,
        target: &str,
        note: Option<&str>,
    ) -> Result<Vec<Write>, Error> {
        tracing::info!(target: "audit", who, command, on = target, note, "audit");
        let entry = Entry {
            at: self.log.now_ms(),
            who: who.to_owned(),
            command: command.to_owned(),
            target: truncated(target, AUDIT_TEXT_MAX).to_owned(),
            note: note.map(|note| truncated(note, AUDIT_TEXT_MAX).to_owned()),
        };
        let written = self.written.fetch_add(1, Ordering::Relaxed);
        let mut writes = Vec::new();
        if written.is_multiple_of(PRUNE_EVERY) {
            self.prune(&mut writes)?;
        }
        let value = serde_json::to_vec(&entry)
            .map_err(|why| Error::internal(format!("an audit entry cannot be written: {why}")))?;
        writes.push(Write::Meta {
            key: key(entry.at, written),
            value: Some(value),
        });
        Ok(writes)
    }

    /// The same as a commit of its own, durable on return.
    pub fn record(
        &self,
        who: &str,
        command: &str,
        target: &str,
        note: Option<&str>,
    ) -> Result<(), Error> {
        let writes = self.writes(who, command, target, note)?;
        self.log.commit_within(
            Commit {
                writes,
                ..Commit::default()
            },
            super::console::PRODUCE_TIME_MAX,
        )?;
        Ok(())
    }

    /// The newest first.
    pub fn newest(&self, limit: usize) -> Result<Vec<Entry>, Error> {
        let found = self.all()?;
        found
            .iter()
            .rev()
            .take(limit)
            .map(|(_, value)| {
                serde_json::from_slice(value).map_err(|why| {
                    Error::new(
                        Code::StoreUnavailable,
                        format!("an audit entry cannot be read: {why}"),
                        "it was written by a newer wasmill, or the store is damaged",
                    )
                })
            })
            .collect()
    }

    fn all(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, Error> {
        let found = self.log.meta_scan(PREFIX, b"", 2 * AUDIT_ENTRIES_MAX)?;
        Ok(found
            .into_iter()
            .map(|(key, value)| (key.to_vec(), value.to_vec()))
            .collect())
    }

    /// Deletes so many that the next entries stay within the limit.
    fn prune(&self, writes: &mut Vec<Write>) -> Result<(), Error> {
        let all = self.all()?;
        let kept = AUDIT_ENTRIES_MAX - PRUNE_EVERY as usize;
        let old = all.len().saturating_sub(kept);
        writes.extend(
            all.into_iter()
                .take(old)
                .map(|(key, _)| Write::Meta { key, value: None }),
        );
        Ok(())
    }
}

fn key(at_ms: i64, seq: u32) -> Vec<u8> {
    // Times before 1970 sort first.
    format!("audit/{:016x}/{seq:08x}", at_ms.max(0)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::embedded::Options;

    #[test]
    fn entries_come_back_newest_first_also_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let trail = Trail::new(log.clone());
        trail
            .record("cli", "dlq resolve", "a", Some("seen"))
            .unwrap();
        trail.record("http", "dlq purge", "b", None).unwrap();
        log.close().unwrap();
        let trail = Trail::new(Log::open(dir.path(), Options::default()).unwrap());
        let found = trail.newest(10).unwrap();
        let shown: Vec<_> = found
            .iter()
            .map(|e| (e.who.as_str(), e.command.as_str(), e.target.as_str()))
            .collect();
        assert_eq!(
            shown,
            [("http", "dlq purge", "b"), ("cli", "dlq resolve", "a")]
        );
        assert_eq!(trail.newest(1).unwrap().len(), 1);
    }

    #[test]
    fn only_the_newest_entries_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let old = (0..AUDIT_ENTRIES_MAX as u32 + 500).map(|n| Write::Meta {
            key: key(i64::from(n), n),
            value: Some(b"{}".to_vec()),
        });
        log.commit(Commit {
            writes: old.collect(),
            ..Commit::default()
        })
        .unwrap();
        let trail = Trail::new(log);
        for n in 0..PRUNE_EVERY {
            trail.record("cli", "x", &n.to_string(), None).unwrap();
        }
        assert_eq!(trail.all().unwrap().len(), AUDIT_ENTRIES_MAX);
        assert_eq!(trail.newest(1).unwrap()[0].target, "63");
    }
}
