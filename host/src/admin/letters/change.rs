//! Changes of dead letters, one after the other. What was handed to the log and not answered in time may
//! still become durable (the disk was full, say): until it is answered nobody looks at states to change
//! them, or the same letters would be sent again, once for each try. Not here: what is changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::close::COMMIT_TIME_MAX;
use crate::admin::error::{Code, Error};
use crate::connector::embedded::{Commit, Committed, Handed, Log};

/// Whose turn it is.
pub(super) struct Changing {
    /// The commit that is not answered yet.
    late: Mutex<Option<Handed>>,
    patience_ms: AtomicU64,
}

/// The turn of somebody who changes states.
pub(super) struct Change<'s> {
    late: MutexGuard<'s, Option<Handed>>,
    patience: Duration,
}

impl Default for Changing {
    fn default() -> Self {
        Self {
            late: Mutex::default(),
            patience_ms: AtomicU64::new(COMMIT_TIME_MAX.as_millis() as u64),
        }
    }
}

impl Changing {
    /// Waits for whoever changes states now.
    ///
    /// # Errors
    /// `StoreUnavailable`: a change that was handed to the log before is not answered yet.
    pub(super) fn begin(&self) -> Result<Change<'_>, Error> {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        self.of(late)
    }

    /// The same, unless somebody does.
    pub(super) fn try_begin(&self) -> Option<Change<'_>> {
        self.of(self.late.try_lock().ok()?).ok()
    }

    /// Whether everything that was handed over is answered, so that the log says how things stand.
    pub(super) fn is_answered(&self) -> bool {
        self.begin().is_ok()
    }

    fn of<'s>(&self, mut late: MutexGuard<'s, Option<Handed>>) -> Result<Change<'s>, Error> {
        let answer = match &*late {
            Some(handed) => handed.answer_within(Duration::ZERO).is_some(),
            None => true,
        };
        if !answer {
            return Err(Error::new(
                Code::StoreUnavailable,
                "an earlier change of dead letters is not durable yet",
                "the log writes it when it can (see `wasmill status`); try again then",
            ));
        }
        // Durable, or refused for good: either way the log says which.
        *late = None;
        Ok(Change {
            late,
            patience: Duration::from_millis(self.patience_ms.load(Ordering::Relaxed)),
        })
    }

    #[cfg(test)]
    pub(super) fn set_patience(&self, patience: Duration) {
        let ms = patience.as_millis() as u64;
        self.patience_ms.store(ms, Ordering::Relaxed);
    }
}

impl Change<'_> {
    /// How long it waits for the log.
    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }

    /// Makes a change durable. After an error of a log that is late it may still become so: the next turn
    /// comes when that is known.
    pub(super) fn commit(&mut self, log: &Log, commit: Commit) -> Result<Committed, Error> {
        let began = Instant::now();
        let handed = log.hand_over(commit, Some(began + self.patience))?;
        let left = self.patience.saturating_sub(began.elapsed());
        match handed.answer_within(left) {
            Some(answer) => Ok(answer?),
            None => {
                *self.late = Some(handed);
                Err(log.why_late(began.elapsed()).into())
            }
        }
    }
}
