//! How earlier hosts on this data directory ended (§4.4): after two unclean exits in a row, what they
//! may have been working on runs one by one, so that a message that kills the host is found. A window
//! that was passed without dying clears the count.

use std::time::Duration;

use crate::connector::embedded::{Commit, Error, Log, Write};

/// From so many unclean exits on, the replayed window is suspect.
pub(super) const UNCLEAN_EXITS_SUSPECT: u32 = 2;
/// A store that cannot write must not keep the host from hearing a signal.
const PATIENCE: Duration = Duration::from_secs(2);
const KEY: &[u8] = b"host/unclean-exits";

#[derive(Debug)]
pub(super) struct Lifetime {
    unclean: u32,
    /// The count on disk already says that this host got through.
    passed: bool,
}

impl Lifetime {
    /// Counts this start as unclean until [`Lifetime::end`] says otherwise.
    pub(super) fn begin(log: &Log) -> Result<Self, Error> {
        let stored = log.meta_get(KEY)?;
        let unclean = stored
            .and_then(|bytes| <[u8; 4]>::try_from(&*bytes).ok())
            .map_or(0, u32::from_le_bytes);
        if unclean > 0 {
            tracing::warn!(
                unclean,
                "the last host on this directory did not end cleanly"
            );
        }
        write(log, unclean + 1)?;
        Ok(Self {
            unclean,
            passed: false,
        })
    }

    /// True when the replayed window must run one delivery at a time.
    #[must_use]
    pub(super) const fn is_suspect(&self) -> bool {
        self.unclean >= UNCLEAN_EXITS_SUSPECT
    }

    /// When everything that an earlier host may have called is settled, its exits no longer count.
    pub(super) fn tick(&mut self, log: &Log, have_passed_replay: bool) {
        if self.passed || self.unclean == 0 || !have_passed_replay {
            return;
        }
        match write(log, 1) {
            Ok(()) => self.passed = true,
            Err(error) => {
                tracing::warn!(%error, "the count of unclean exits cannot be cleared; it will be tried again")
            }
        }
    }

    /// A clean end.
    pub(super) fn end(&self, log: &Log) -> Result<(), Error> {
        write(log, 0)
    }
}

fn write(log: &Log, unclean: u32) -> Result<(), Error> {
    let value = Some(unclean.to_le_bytes().to_vec());
    let commit = Commit {
        writes: vec![Write::Meta {
            key: KEY.to_vec(),
            value,
        }],
        ..Commit::default()
    };
    log.commit_within(commit, PATIENCE).map(drop)
}
