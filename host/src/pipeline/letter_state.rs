//! What became of a dead letter (§6.3): new → redriving → done | resolved | discarded, kept in the meta
//! table of the log by (ID, redrive count); no record means new. Pure. Not here: what a dead letter is
//! (`dead_letter`), and who may move it where from outside (`admin/`).
//!
//! The record is JSON with a version, so that a newer one is refused and not misread.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::pipeline::offsets::truncated;

/// What every key of a state begins with.
pub const KEY_PREFIX: &str = "dlq/";
/// Bytes of a note that are kept.
pub const NOTE_BYTES_MAX: usize = 1024;

const VERSION: u8 = 1;

/// Of one dead letter in one round; a letter that fails again after a redrive is in the next round, and new.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody has acted on it.
    New,
    /// On its way back to its consumer group.
    Redriving,
    /// Its consumer group has finished with it: successfully, or it is a new dead letter of the next round.
    Done,
    /// A person says that nothing is left to do.
    Resolved,
    /// A person gave it up for good.
    Discarded,
}

impl State {
    pub const ALL: [Self; 5] = [
        Self::New,
        Self::Redriving,
        Self::Done,
        Self::Resolved,
        Self::Discarded,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Redriving => "redriving",
            Self::Done => "done",
            Self::Resolved => "resolved",
            Self::Discarded => "discarded",
        }
    }

    /// Nothing is left to do about it.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        matches!(self, Self::Done | Self::Resolved | Self::Discarded)
    }
}

/// A state with who set it when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    version: u8,
    pub state: State,
    /// Unix ms.
    pub at_ms: i64,
    /// `host`, `cli` or `http`.
    pub by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The redrive that sent it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// Where it lies in the partition of the redrive topic: once the consumer group has passed it and it
    /// still counts as redriving, it was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redrive_offset: Option<u64>,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "the state of a dead letter has version {0}, this wasmill reads {VERSION}: use the newer one"
    )]
    Newer(u64),
    #[error("the state of a dead letter cannot be read: {0}")]
    Unreadable(String),
}

impl Record {
    #[must_use]
    pub fn new(state: State, at_ms: i64, by: &str, note: Option<&str>) -> Self {
        Self {
            version: VERSION,
            state,
            at_ms,
            by: by.to_owned(),
            note: note.map(|note| truncated(note, NOTE_BYTES_MAX).to_owned()),
            job: None,
            redrive_offset: None,
        }
    }

    /// On its way back since `at_ms`, sent by `job`, at that offset of the redrive topic.
    #[must_use]
    pub fn redriving(at_ms: i64, by: &str, job: &str, redrive_offset: u64) -> Self {
        Self {
            job: Some(job.to_owned()),
            redrive_offset: Some(redrive_offset),
            ..Self::new(State::Redriving, at_ms, by, None)
        }
    }

    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Strings and numbers: writing them to memory cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// # Errors
    /// `Newer`, `Unreadable`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let unreadable = |why: serde_json::Error| Error::Unreadable(why.to_string());
        let found: Versioned = serde_json::from_slice(bytes).map_err(unreadable)?;
        if found.version != u64::from(VERSION) {
            return Err(Error::Newer(found.version));
        }
        serde_json::from_slice(bytes).map_err(unreadable)
    }
}

/// Where the state of a dead letter is kept in the meta table of the log.
#[must_use]
pub fn key(id: &str, redrive_count: u32) -> Vec<u8> {
    format!("{KEY_PREFIX}{id}/{redrive_count:08x}").into_bytes()
}

/// What the keys of all rounds of a dead letter begin with; they are in the order of the rounds.
#[must_use]
pub fn rounds_prefix(id: &str) -> Vec<u8> {
    format!("{KEY_PREFIX}{id}/").into_bytes()
}

/// ID and redrive count of a key.
#[must_use]
pub fn read_key(key: &[u8]) -> Option<(&str, u32)> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix(KEY_PREFIX)?;
    let (id, round) = key.rsplit_once('/')?;
    (round.len() == 8).then_some(())?;
    Some((id, u32::from_str_radix(round, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back() {
        for state in State::ALL {
            let record = Record::new(state, 5, "cli", Some("looked at it"));
            assert_eq!(Record::decode(&record.encode()), Ok(record));
        }
        let record = Record::redriving(5, "host", "j1", 9);
        assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn a_newer_record_is_refused() {
        let newer = br#"{"version":2,"state":"parked","at_ms":1,"by":"cli"}"#;
        assert_eq!(Record::decode(newer), Err(Error::Newer(2)));
        assert!(matches!(Record::decode(b"{"), Err(Error::Unreadable(_))));
    }

    #[test]
    fn rounds_of_a_letter_lie_together_in_their_order() {
        let (first, later) = (key("ab", 1), key("ab", 16));
        assert!(first < later && later.starts_with(&rounds_prefix("ab")));
        assert_eq!(read_key(&later), Some(("ab", 16)));
        assert!(!key("abc", 0).starts_with(&rounds_prefix("ab")));
        assert_eq!(read_key(b"dlq/ab/1"), None);
    }

    #[test]
    fn a_note_is_cut() {
        let record = Record::new(State::Resolved, 0, "cli", Some(&"ä".repeat(NOTE_BYTES_MAX)));
        assert_eq!(record.note.unwrap().len(), NOTE_BYTES_MAX);
    }
}
