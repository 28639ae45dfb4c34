//! When redrives take their steps: one thread in a running host, at the rate that was asked for; it also
//! sweeps states (`sweep.rs`). Not here: what a step does (`job.rs`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::job::{JobRecord, STEP_LETTERS_MAX};
use super::state::Shared;
use super::sweep::{ROUND_EVERY, Sweep};
use super::wire::{Job, JobState};
use crate::admin::console::Console;
use crate::admin::error::Error;

/// How often the thread looks for something to do.
const TICK: Duration = Duration::from_millis(50);
/// Until a redrive that is only waiting, or in trouble, is looked at again.
const REST: Duration = Duration::from_millis(500);
/// Steps a second of a redrive with a rate.
const STEPS_A_SECOND: u32 = 10;
/// With `stop_after`, at least so many letters may wait ahead of the consumer group.
pub const AHEAD_MIN: u64 = 16;
/// And at most so many, because the redrive remembers them.
pub const AHEAD_MAX: u64 = 500;

/// Redrives that have not ended; filled from the log at first use.
#[derive(Default)]
pub struct Jobs {
    loaded: bool,
    active: Vec<Active>,
}

struct Active {
    record: JobRecord,
    due: Instant,
    trouble: Option<String>,
}

impl Jobs {
    /// The one that sends to a consumer group.
    pub(super) fn running(&self, group: &str) -> Option<&JobRecord> {
        let records = self.active.iter().map(|active| &active.record);
        records
            .into_iter()
            .find(|job| job.state == JobState::Running && job.consumer_group == group)
    }

    pub(super) fn add(&mut self, record: JobRecord) {
        self.active.push(Active {
            record,
            due: Instant::now(),
            trouble: None,
        });
    }

    /// Makes everything due.
    #[cfg(test)]
    pub(super) fn hurry(&mut self) {
        for active in &mut self.active {
            active.due = Instant::now();
        }
    }

    /// The log may hold one more.
    pub(super) fn forget_loading(&mut self) {
        self.loaded = false;
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.active.retain(|active| active.record.id != id);
    }
}

impl Shared {
    pub(super) fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trouble(&self, id: &str) -> Option<String> {
        let jobs = self.jobs();
        let active = jobs.active.iter().find(|active| active.record.id == id)?;
        active.trouble.clone()
    }
}

impl Console {
    /// `is_whole`: nothing is on its way to the log, so that it holds all there are.
    pub(super) fn load_jobs(&self, jobs: &mut Jobs, is_whole: bool) -> Result<(), Error> {
        if jobs.loaded {
            return Ok(());
        }
        for record in self.job_records()? {
            let is_active = matches!(record.state, JobState::Running | JobState::Draining);
            if is_active && !jobs.active.iter().any(|one| one.record.id == record.id) {
                tracing::info!(job = record.id, sent = record.sent, "a redrive goes on");
                jobs.add(record);
            }
        }
        jobs.loaded = is_whole;
        Ok(())
    }

    /// Lets every redrive that is due take one step; true: one of them is due again already.
    pub fn run_redrives(&self) -> Result<bool, Error> {
        let mut jobs = self.letters.jobs();
        let is_whole = jobs.loaded || self.letters.is_answered();
        self.load_jobs(&mut jobs, is_whole)?;
        let now = Instant::now();
        for active in &mut jobs.active {
            if active.due <= now {
                self.run_one(active, now);
            }
        }
        jobs.active
            .retain(|active| matches!(active.record.state, JobState::Running | JobState::Draining));
        let now = Instant::now();
        Ok(jobs.active.iter().any(|active| active.due <= now))
    }

    /// Lets one redrive send everything now, for a directory without a running host.
    pub fn run_redrive_through(
        &self,
        id: &str,
        mut progress: impl FnMut(&Job),
    ) -> Result<Job, Error> {
        loop {
            let busy = self.run_redrives()?;
            let job = self.job(id)?;
            if let Some(trouble) = self.letters.trouble(id) {
                return Err(Error::new(
                    crate::admin::error::Code::StoreUnavailable,
                    format!("the redrive {id} cannot go on: {trouble}"),
                    "",
                ));
            }
            progress(&job);
            if job.state != JobState::Running {
                return Ok(job);
            }
            if !busy {
                std::thread::sleep(TICK);
            }
        }
    }

    fn run_one(&self, active: &mut Active, now: Instant) {
        match self.paced_step(&mut active.record) {
            Ok(pause) => {
                active.trouble = None;
                // Catches up with its rate after a delay, but not with more than a moment's worth.
                let late = now.duration_since(active.due).min(TICK * 4);
                active.due = now + pause.saturating_sub(late);
            }
            Err(error) => {
                tracing::warn!(job = active.record.id, %error, "a redrive cannot go on");
                active.trouble = Some(error.to_string());
                active.due = now + REST;
            }
        }
        let job = &active.record;
        if !matches!(job.state, JobState::Running | JobState::Draining) {
            tracing::info!(job = job.id, state = ?job.state, sent = job.sent, "a redrive has ended");
        }
    }

    /// One step, and how long to wait before the next.
    fn paced_step(&self, record: &mut JobRecord) -> Result<Duration, Error> {
        let mut change = self.letters.change()?;
        // What came of a step that was late is known by now, and somebody may have cancelled it.
        *record = self.job_record(&record.id)?;
        if !matches!(record.state, JobState::Running | JobState::Draining) {
            return Ok(REST);
        }
        self.look_ahead(record)?;
        let mut most = match record.rate {
            None => STEP_LETTERS_MAX,
            Some(rate) => rate.div_ceil(STEPS_A_SECOND) as usize,
        };
        if let Some(stop_after) = record.stop_after {
            // What is sent already cannot be stopped.
            let ahead = stop_after.clamp(AHEAD_MIN, AHEAD_MAX);
            most = most.min((ahead as usize).saturating_sub(record.ahead.len()));
        }
        let sent = self.step_job(record, most, &mut change)?;
        Ok(match (record.state, record.rate, sent) {
            (JobState::Running, _, 0) if most == 0 => TICK,
            (JobState::Running, Some(rate), sent) => Duration::from_secs(sent as u64) / rate.max(1),
            (JobState::Running, None, _) => Duration::ZERO,
            _ => REST,
        })
    }
}

/// The thread of a host.
pub struct Runner {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    pub fn start(console: Arc<Console>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("redrive".to_owned())
            .spawn(move || {
                let (mut sweep, mut sweep_at) = (Sweep::default(), Instant::now());
                while !stopped.load(Ordering::Acquire) {
                    if Instant::now() >= sweep_at {
                        let pause = console.sweep(&mut sweep).unwrap_or_else(|error| {
                            tracing::debug!(%error, "dead letters were not swept");
                            ROUND_EVERY
                        });
                        sweep_at = Instant::now() + pause;
                    }
                    match console.run_redrives() {
                        Ok(true) => {}
                        Ok(false) => std::thread::sleep(TICK),
                        Err(error) => {
                            tracing::warn!(%error, "redrives cannot be read");
                            std::thread::sleep(REST);
                        }
                    }
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Returns when the step that is taken has ended.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of redrives had ended by itself");
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.end();
    }
}
