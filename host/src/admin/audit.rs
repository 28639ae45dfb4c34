//! Who did what: one durable entry for each command that changes something, written with the change when
//! that is a commit of its own. The newest [`AUDIT_ENTRIES_MAX`] are kept. Not here: the log line, which
//! goes wherever the host's log lines go.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::USER_AGENT;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::{Code, Error};
use crate::connector::embedded::{Commit, Log, Slice, Write};
use crate::pipeline::offsets::truncated;

/// Entries kept; older ones go.
pub const AUDIT_ENTRIES_MAX: usize = 10_000;
/// Bytes of a target or note that are kept.
pub const AUDIT_TEXT_MAX: usize = 1024;

const PREFIX: &[u8] = b"audit/";
/// How long it may take to write an order down; without that it is not carried out.
const ORDER_TIME_MAX: Duration = Duration::from_secs(5);
/// Entries written between two looks for old ones.
const PRUNE_EVERY: u32 = 64;

/// One thing that somebody did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
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

/// An order that was written down and is being carried out.
#[must_use]
pub struct Ordered {
    key: Vec<u8>,
    entry: AuditEntry,
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
        let entry = self.entry(who, command, target, note);
        let (mut writes, key) = self.place(&entry)?;
        writes.push(written(key, &entry)?);
        Ok(writes)
    }

    fn entry(&self, who: &str, command: &str, target: &str, note: Option<&str>) -> AuditEntry {
        AuditEntry {
            at: self.log.now_ms(),
            who: who.to_owned(),
            command: command.to_owned(),
            target: truncated(target, AUDIT_TEXT_MAX).to_owned(),
            note: note.map(|note| truncated(note, AUDIT_TEXT_MAX).to_owned()),
        }
    }

    /// A key for one more entry, and what makes room for it.
    fn place(&self, entry: &AuditEntry) -> Result<(Vec<Write>, Vec<u8>), Error> {
        let written = self.written.fetch_add(1, Ordering::Relaxed);
        let mut writes = Vec::new();
        if written.is_multiple_of(PRUNE_EVERY) {
            self.prune(&mut writes)?;
        }
        Ok((writes, key(entry.at, written)))
    }

    /// Writes an order down before it is carried out, durable on return: a host that dies in between has said
    /// what it was about to do.
    pub fn begin(
        &self,
        who: &str,
        command: &str,
        target: &str,
        note: Option<&str>,
    ) -> Result<Ordered, Error> {
        let entry = self.entry(who, command, target, note);
        let (mut writes, key) = self.place(&entry)?;
        let begun = noted(&entry, "ordered; how it ended is not known");
        writes.push(written(key.clone(), &begun)?);
        self.log.commit_within(
            Commit {
                writes,
                ..Commit::default()
            },
            ORDER_TIME_MAX,
        )?;
        Ok(Ordered { key, entry })
    }

    /// How it ended: in the same entry.
    pub fn end(&self, ordered: Ordered, failed: Option<&Error>) -> Result<(), Error> {
        let Ordered { key, entry } = ordered;
        let ended = match failed {
            None => entry,
            Some(why) => noted(&entry, &format!("ended with an error: {why}")),
        };
        self.log.commit_within(
            Commit {
                writes: vec![written(key, &ended)?],
                ..Commit::default()
            },
            ORDER_TIME_MAX,
        )?;
        Ok(())
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
    pub fn newest(&self, limit: usize) -> Result<Vec<AuditEntry>, Error> {
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

    /// Key and value, the oldest first.
    fn all(&self) -> Result<Vec<(Slice, Slice)>, Error> {
        Ok(self.log.meta_scan(PREFIX, b"", 2 * AUDIT_ENTRIES_MAX)?)
    }

    /// Deletes so many that the next entries stay within the limit.
    fn prune(&self, writes: &mut Vec<Write>) -> Result<(), Error> {
        let all = self.all()?;
        let kept = AUDIT_ENTRIES_MAX - PRUNE_EVERY as usize;
        let old = all.len().saturating_sub(kept);
        writes.extend(all.into_iter().take(old).map(|(key, _)| Write::Meta {
            key: key.to_vec(),
            value: None,
        }));
        Ok(())
    }
}

fn written(key: Vec<u8>, entry: &AuditEntry) -> Result<Write, Error> {
    let value = serde_json::to_vec(entry)
        .map_err(|why| Error::internal(format!("an audit entry cannot be written: {why}")))?;
    Ok(Write::Meta {
        key,
        value: Some(value),
    })
}

/// The entry with something before its note.
fn noted(entry: &AuditEntry, text: &str) -> AuditEntry {
    let note = match &entry.note {
        Some(note) => format!("{text}; {note}"),
        None => text.to_owned(),
    };
    AuditEntry {
        note: Some(truncated(&note, AUDIT_TEXT_MAX).to_owned()),
        ..entry.clone()
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
    fn an_order_stands_there_before_it_is_carried_out_and_its_end_in_the_same_entry() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let trail = Trail::new(log);
        let note = |trail: &Trail| {
            let entries = trail.newest(10).unwrap();
            assert_eq!(entries[0].command, "pause");
            (entries.len(), entries[0].note.clone().unwrap_or_default())
        };
        let ordered = trail.begin("cli", "pause", "p", Some("n")).unwrap();
        assert_eq!(
            note(&trail),
            (1, "ordered; how it ended is not known; n".into())
        );
        trail.end(ordered, None).unwrap();
        assert_eq!(note(&trail), (1, "n".into()));
        let ordered = trail.begin("cli", "pause", "p", None).unwrap();
        let why = Error::new(Code::Busy, "it does not stop", "");
        trail.end(ordered, Some(&why)).unwrap();
        assert_eq!(
            note(&trail),
            (2, "ended with an error: it does not stop".into())
        );
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
