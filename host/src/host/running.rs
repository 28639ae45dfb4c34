//! The workers of a started pipeline: telling them to end, seeing that they did. Not here: what a start
//! consists of (`start.rs`), when one ends (`pipelines.rs`).

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use crate::pipeline::reject::Reject;
use crate::pipeline::run::{Control, Halt};
use crate::pipeline::snapshot::State;

use super::Error;
use super::watch::Watch;

type Workers = Vec<JoinHandle<Result<(), Halt>>>;

/// A started pipeline.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) watch: Arc<Watch>,
    name: String,
    control: Arc<Control>,
    workers: Workers,
    /// (topic, partition, offset): where the replayed window of each partition ends.
    replay_until: Vec<(String, u32, u64)>,
}

/// Starts so many threads, or none: `spawn` starts one that waits for a word on `go`, and ends when there comes
/// none. A part of them would read its partitions, and nobody could end it.
pub(super) fn all_or_none<T>(
    count: usize,
    mut spawn: impl FnMut(usize, Receiver<()>) -> Result<JoinHandle<T>, Error>,
) -> Result<Vec<JoinHandle<T>>, Error> {
    let mut threads = Vec::new();
    let mut waiting = Vec::new();
    for index in 0..count {
        let (word, go) = sync_channel(1);
        match spawn(index, go) {
            Ok(thread) => threads.push(thread),
            Err(why) => {
                drop(waiting);
                for thread in threads {
                    if thread.join().is_err() {
                        tracing::error!("a worker panicked before it began; please report this");
                    }
                }
                return Err(why);
            }
        }
        waiting.push(word);
    }
    for word in waiting {
        if word.send(()).is_err() {
            tracing::debug!("a worker ended before it began");
        }
    }
    Ok(threads)
}

impl Running {
    pub(super) const fn new(
        watch: Arc<Watch>,
        name: String,
        control: Arc<Control>,
        workers: Workers,
        replay_until: Vec<(String, u32, u64)>,
    ) -> Self {
        Self {
            watch,
            name,
            control,
            workers,
            replay_until,
        }
    }

    pub(super) fn drain(&self) {
        self.control.drain();
        self.watch.enter(State::Draining, None);
        self.wake();
    }

    pub(super) fn abort(&self) {
        self.control.abort();
        self.wake();
    }

    fn wake(&self) {
        for worker in &self.workers {
            worker.thread().unpark();
        }
    }

    #[must_use]
    pub(super) fn alive(&self) -> usize {
        self.workers
            .iter()
            .filter(|worker| !worker.is_finished())
            .count()
    }

    #[must_use]
    pub(super) fn is_alive(&self) -> bool {
        self.alive() > 0
    }

    /// Nothing more is read; what was read goes on to its end.
    pub(super) fn finish(&self) {
        self.control.finish();
        self.watch.enter(State::Draining, None);
        self.wake();
    }

    /// Everything that was read is finished.
    pub(super) fn is_finished(&self) -> bool {
        let partitions = self.watch.snapshot().partitions;
        partitions.iter().all(|partition| partition.held == 0)
    }

    /// By what it can be withdrawn; `None` when too many wait already.
    pub(super) fn reject(&self, reject: Reject) -> Option<u64> {
        let number = self.control.rejects().add(reject);
        self.wake();
        number
    }

    /// True when no worker has looked at it, and none will.
    pub(super) fn withdraw(&self, number: u64) -> bool {
        self.control.rejects().withdraw(number)
    }

    /// Notices workers that ended by themselves. One that halts stops its pipeline: the others are drained.
    pub(super) fn look_after(&mut self) {
        let (ended, alive): (Vec<_>, Vec<_>) = std::mem::take(&mut self.workers)
            .into_iter()
            .partition(JoinHandle::is_finished);
        self.workers = alive;
        for worker in ended {
            let why = match worker.join() {
                Ok(Ok(())) => continue,
                Ok(Err(Halt(why))) => why,
                Err(panic) => format!(
                    "a worker panicked: {}; please report this",
                    panic_text(&*panic)
                ),
            };
            tracing::error!(pipeline = %self.name, %why, "the pipeline stopped");
            self.watch.enter(State::Failed, Some(why));
            self.control.drain();
            self.wake();
        }
    }

    /// Everything that an earlier host may have called is settled.
    #[must_use]
    pub(super) fn has_passed_replay(&self) -> bool {
        let snapshot = self.watch.snapshot();
        self.replay_until.iter().all(|(topic, number, until)| {
            snapshot.partitions.iter().any(|partition| {
                partition.topic == *topic
                    && partition.partition == *number
                    && partition.committed >= *until
            })
        })
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_a_thread_cannot_be_started_those_before_it_do_nothing_and_end() {
        let (done, seen) = sync_channel(8);
        let start = |failing: usize| {
            all_or_none(3, |index, go| {
                if index == failing {
                    return Err(Error::Thread(std::io::ErrorKind::WouldBlock.into()));
                }
                let done = done.clone();
                let work = move || {
                    if go.recv().is_ok() {
                        done.send(index).unwrap();
                    }
                };
                Ok(std::thread::spawn(work))
            })
        };
        for failing in 0..3 {
            // It returns only when they have ended.
            assert!(start(failing).is_err());
            assert!(seen.try_recv().is_err());
        }
        for thread in start(3).unwrap() {
            thread.join().unwrap();
        }
        assert_eq!(seen.try_iter().count(), 3);
    }
}
