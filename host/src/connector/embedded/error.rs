//! What can go wrong with the embedded log, in words an operator can act on. `Clone`, because one
//! failed group of commits answers many waiters.

use std::sync::Arc;
use std::time::Duration;

/// Every error of the embedded log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{dir} is held by {holder}; stop that process or use another data directory")]
    Held { dir: Arc<str>, holder: Arc<str> },
    #[error(
        "{dir} was written by a newer wasmill (format {found}, this one reads up to {known}); use that version"
    )]
    Newer {
        dir: Arc<str>,
        found: u32,
        known: u32,
    },
    #[error(
        "the log is damaged: {what}; restore the data directory from a backup (nothing was overwritten)"
    )]
    Damaged { what: Arc<str> },
    #[error(
        "{what} cannot be read: a newer wasmill wrote it, or it is damaged; use that version, or restore the data directory from a backup"
    )]
    Unreadable { what: Arc<str> },
    #[error(
        "cannot write to the log: {cause}; free disk space or repair the disk, the log retries by itself"
    )]
    Failing { cause: Arc<str> },
    #[error("the log did not take the commit within {waited:?}; slow down, or see its health")]
    Busy { waited: Duration },
    #[error("the log is closed")]
    Closed,
    #[error(
        "offset {offset} is outside {earliest}..{end} of the partition; start at the earliest or the latest"
    )]
    OffsetOutOfRange {
        offset: u64,
        earliest: u64,
        end: u64,
    },
    #[error("partition {0} does not exist; create its topic first")]
    UnknownPartition(u32),
    #[error("topic name {0:?} is not valid; use 1 to 249 of a-z A-Z 0-9 . _ - (not . or ..)")]
    TopicName(Arc<str>),
    #[error("topic {0} exists already with another specification; delete it or use its values")]
    TopicExists(Arc<str>),
    #[error(
        "consumer group name {0:?} is not valid; use 1 to 249 bytes without control characters"
    )]
    GroupName(Arc<str>),
    #[error("{what} would exceed the limit of {limit}; {advice}")]
    Limit {
        what: &'static str,
        limit: u64,
        advice: &'static str,
    },
    #[error("{0}")]
    Io(Arc<str>),
}

impl Error {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged {
            what: Arc::from(what.into()),
        }
    }

    pub(super) fn io(what: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::Io(Arc::from(format!(
            "cannot {what} {}: {error}; check the path and its permissions",
            path.display()
        )))
    }

    /// A read or an open of fjall failed: I/O errors pass, everything else means damage.
    pub(super) fn from_fjall(what: &str, error: &fjall::Error) -> Self {
        match error {
            fjall::Error::Io(e) | fjall::Error::Storage(fjall::LsmError::Io(e))
                if !is_damage(e.kind()) =>
            {
                Self::Io(Arc::from(format!("cannot read {what}: {e}")))
            }
            other => Self::damaged(format!("{what} cannot be read ({other})")),
        }
    }
}

/// I/O errors that say that bytes are missing or wrong rather than that the system refuses.
fn is_damage(kind: std::io::ErrorKind) -> bool {
    matches!(
        kind,
        std::io::ErrorKind::UnexpectedEof
            | std::io::ErrorKind::InvalidData
            | std::io::ErrorKind::InvalidInput
            | std::io::ErrorKind::NotFound
    )
}
