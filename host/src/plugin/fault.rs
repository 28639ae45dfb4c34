//! What the host saw go wrong in a call. A fault is data: what follows from it is decided in
//! `pipeline/verdict.rs`. How wasmtime's errors become faults is in `blame.rs`.

use std::fmt;

/// Longest fault message in bytes.
pub const FAULT_MESSAGE_MAX: usize = 1024;

/// A call that did not end in an outcome. The instance is gone; the next call makes a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    /// At most [`FAULT_MESSAGE_MAX`] bytes, control characters escaped; ends with the last error line
    /// that the guest wrote in that call (its panic text).
    pub message: String,
}

/// The names are stable: they stand in metrics, dead letters and `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The guest stopped itself (panic, `unreachable`, exit) or was stopped for an illegal instruction.
    Trap,
    /// Over `limits.time`.
    Timeout,
    /// Ended after the growth of a memory or table was refused.
    Memory,
    /// The call stack is full: recursion without end.
    Stack,
    /// What came back is not an outcome frame, or crossed the boundary malformed.
    Undecodable,
    /// More or bigger outputs than `limits.outputs` and `limits.output_size` allow.
    OutputLimit,
    /// More state written or read in one call than a call may.
    StateLimit,
    /// The store behind `state` failed; not the handler's doing.
    State,
    /// The guest failed while starting.
    Instantiation,
    /// The host has no slot or no memory for another instance; not the handler's doing.
    NoRoom,
}

impl FaultKind {
    pub const ALL: [Self; 10] = [
        Self::Trap,
        Self::Timeout,
        Self::Memory,
        Self::Stack,
        Self::Undecodable,
        Self::OutputLimit,
        Self::StateLimit,
        Self::State,
        Self::Instantiation,
        Self::NoRoom,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trap => "trap",
            Self::Timeout => "timeout",
            Self::Memory => "memory",
            Self::Stack => "stack",
            Self::Undecodable => "undecodable",
            Self::OutputLimit => "output_limit",
            Self::StateLimit => "state_limit",
            Self::State => "state",
            Self::Instantiation => "instantiation",
            Self::NoRoom => "no_room",
        }
    }

    /// Whether the host is to blame: the message must not pay for it with an attempt.
    #[must_use]
    pub const fn is_host(self) -> bool {
        matches!(self, Self::State | Self::NoRoom)
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Fault {
    /// Cuts the message to [`FAULT_MESSAGE_MAX`].
    #[must_use]
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(FAULT_MESSAGE_MAX));
        Self { kind, message }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}
