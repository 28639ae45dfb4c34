//! The bounded queue between submitters and the committer. First in, first out; full means waiting.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::commit::{Ack, Commit, Committed};
use super::error::Error;
use super::topic::{GroupId, Topic, TopicSpec};

/// What the committer is asked to do.
pub(super) enum Job {
    Commit(Commit, AckOnce),
    CreateTopic(TopicSpec, SyncSender<Result<Arc<Topic>, Error>>),
    CreateGroup(String, SyncSender<Result<GroupId, Error>>),
    /// The group of this number and name gets that name.
    RenameGroup(GroupId, String, String, SyncSender<Result<GroupId, Error>>),
    /// Retention and expiry, as if it were this time.
    Maintain(i64, SyncSender<Result<(), Error>>),
    #[cfg(test)]
    Panic,
}

/// An acknowledgement that is given exactly once, also when the committer dies.
pub(super) struct AckOnce(Option<Ack>);

/// What the committer finds.
pub(super) enum Taken {
    Jobs(Vec<Job>),
    Idle,
    /// Nothing is left and nothing will come.
    Closed,
}

pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    drained: Condvar,
    commits_max: usize,
    bytes_max: usize,
}

struct Inner {
    jobs: VecDeque<(Job, usize)>,
    bytes: usize,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Closing,
    Dead,
}

impl Job {
    fn forget(mut self) {
        if let Self::Commit(_, ack) = &mut self {
            ack.0 = None;
        }
    }
}

impl AckOnce {
    pub(super) fn new(ack: Ack) -> Self {
        Self(Some(ack))
    }

    /// A panic in the caller's code must not end the committer.
    pub(super) fn give(mut self, result: Result<Committed, Error>) {
        self.run(result);
    }

    fn run(&mut self, result: Result<Committed, Error>) {
        if let Some(ack) = self.0.take()
            && std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| ack(result))).is_err()
        {
            tracing::error!("an acknowledgement of the embedded log panicked");
        }
    }
}

impl Drop for AckOnce {
    fn drop(&mut self) {
        self.run(Err(Error::Closed));
    }
}

impl Queue {
    pub(super) fn new(commits_max: usize, bytes_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                jobs: VecDeque::new(),
                bytes: 0,
                phase: Phase::Open,
            }),
            filled: Condvar::new(),
            drained: Condvar::new(),
            commits_max: commits_max.max(1),
            bytes_max,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while the queue is full, at most until `deadline`. The acknowledgement of a job that is
    /// refused is not given: the error is the answer.
    pub(super) fn push(
        &self,
        job: Job,
        bytes: usize,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let began = Instant::now();
        let mut inner = self.lock();
        loop {
            if inner.phase != Phase::Open {
                drop(inner);
                job.forget();
                return Err(Error::Closed);
            }
            let fits = inner.bytes + bytes <= self.bytes_max || inner.jobs.is_empty();
            if inner.jobs.len() < self.commits_max && fits {
                break;
            }
            inner = match deadline {
                None => self
                    .drained
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let waited = began.elapsed();
                        drop(inner);
                        job.forget();
                        return Err(Error::Busy { waited });
                    }
                    self.drained
                        .wait_timeout(inner, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        inner.jobs.push_back((job, bytes));
        inner.bytes += bytes;
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// Takes jobs up to `bytes_max` together; waits up to `patience` for the first.
    pub(super) fn take(&self, bytes_max: usize, patience: Duration) -> Taken {
        let mut inner = self.lock();
        if inner.jobs.is_empty() && inner.phase == Phase::Open {
            inner = self
                .filled
                .wait_timeout(inner, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        if inner.jobs.is_empty() {
            return if inner.phase == Phase::Open {
                Taken::Idle
            } else {
                Taken::Closed
            };
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while let Some((_, size)) = inner.jobs.front() {
            if !taken.is_empty() && bytes + size > bytes_max {
                break;
            }
            if let Some((job, size)) = inner.jobs.pop_front() {
                bytes += size;
                taken.push(job);
            }
        }
        inner.bytes -= bytes;
        drop(inner);
        self.drained.notify_all();
        Taken::Jobs(taken)
    }

    /// Waits `pause`, or until the queue closes; says whether it is still open.
    pub(super) fn rest(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut inner = self.lock();
        while inner.phase == Phase::Open {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            inner = self
                .filled
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        false
    }

    pub(super) fn is_open(&self) -> bool {
        self.lock().phase == Phase::Open
    }

    /// Nothing more is taken in; what is inside will still be done.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        if inner.phase == Phase::Open {
            inner.phase = Phase::Closing;
        }
        drop(inner);
        self.filled.notify_all();
        self.drained.notify_all();
    }

    /// Nothing will be done any more: everything inside is refused.
    pub(super) fn kill(&self) {
        let mut inner = self.lock();
        inner.phase = Phase::Dead;
        inner.bytes = 0;
        let jobs = std::mem::take(&mut inner.jobs);
        drop(inner);
        self.filled.notify_all();
        self.drained.notify_all();
        drop(jobs);
    }
}
