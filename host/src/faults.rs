//! Points on the path of a message at which a test kills the host, and mutants that a test must catch.
//! Inert, and compiled to nothing, without the Cargo feature `faults`; with it they wait for the
//! environment: `WASMILL_FAULT=POINT:N` (SIGKILL at the N-th passage), `WASMILL_FAULT=POINT:N:hold` (the
//! thread stops there, so that a test sees what hangs on it before it kills), `WASMILL_MUTANT=NAME`.

/// Every point, in the order in which a message meets them.
pub const POINTS: &[&str] = &[
    "received",
    "claimed",
    "before_call",
    "after_call",
    "judged",
    "put_aside",
    "dead_letter_built",
    "before_submit",
    "before_write",
    // Written and synced are one call of the store; for a process that is killed they are the same.
    "after_sync",
    "after_mark",
    "acknowledged",
    // Only a mutant comes by here.
    "before_late_dead_letters",
];

/// Mistakes planted on purpose (docs/adr, reference traps): the suite must notice each.
pub const MUTANTS: &[&str] = &[
    "commit_past_unfinished",
    "dead_letter_after_commit",
    "forget_attempts",
];

/// A named place. Kills this process when a test asked for it.
#[inline]
pub fn point(_name: &'static str) {
    #[cfg(feature = "faults")]
    armed::pass(_name);
}

/// True when this mutant was asked for.
#[inline]
#[must_use]
pub fn mutant(_name: &'static str) -> bool {
    #[cfg(feature = "faults")]
    return armed::mutant() == Some(_name);
    #[cfg(not(feature = "faults"))]
    false
}

#[cfg(feature = "faults")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Plan {
        point: String,
        left: AtomicU64,
        holds: bool,
    }

    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    static MUTANT: OnceLock<Option<String>> = OnceLock::new();

    pub(super) fn pass(name: &str) {
        let Some(plan) = PLAN.get_or_init(plan) else {
            return;
        };
        if plan.point == name && plan.left.fetch_sub(1, Ordering::SeqCst) == 1 {
            if plan.holds {
                tracing::warn!(point = name, "a test holds this thread here");
                loop {
                    std::thread::park();
                }
            }
            let own = rustix::process::getpid();
            if let Err(error) = rustix::process::kill_process(own, rustix::process::Signal::KILL) {
                tracing::error!(%error, "a test asked to be killed here, and it cannot be done");
            }
            std::thread::park();
        }
    }

    pub(super) fn mutant() -> Option<&'static str> {
        MUTANT
            .get_or_init(|| std::env::var("WASMILL_MUTANT").ok())
            .as_deref()
    }

    fn plan() -> Option<Plan> {
        let value = std::env::var("WASMILL_FAULT").ok()?;
        let mut parts = value.split(':');
        Some(Plan {
            point: parts.next()?.to_owned(),
            left: AtomicU64::new(parts.next()?.parse().ok()?),
            holds: parts.next() == Some("hold"),
        })
    }
}
