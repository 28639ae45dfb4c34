//! Why a handler could not do its work: try again, or give up at once.

use std::time::Duration;

/// A message that was not handled. `retryable` counts as an attempt and comes again after the
/// pipeline's backoff; `rejected` goes to the dead letter topic at once.
///
/// ```
/// use std::time::Duration;
/// use wasmill_sdk::Failure;
///
/// let busy = Failure::retryable("price list is not loaded yet").after(Duration::from_secs(30));
/// assert_eq!(busy.retry_after(), Some(Duration::from_secs(30)));
/// let broken = Failure::rejected("quantity is below zero");
/// assert!(broken.is_rejected());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    kind: Kind,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Retryable { after: Option<Duration> },
    Rejected,
}

impl Failure {
    /// Something that may work later. The reason appears in logs and, when the attempts are spent,
    /// in the dead letter (there at most 1 KiB of it).
    #[must_use]
    pub fn retryable(reason: impl Into<String>) -> Self {
        Self {
            kind: Kind::Retryable { after: None },
            reason: reason.into(),
        }
    }

    /// Something that will never work: the message is dead-lettered without another attempt.
    #[must_use]
    pub fn rejected(reason: impl Into<String>) -> Self {
        Self {
            kind: Kind::Rejected,
            reason: reason.into(),
        }
    }

    /// The least time to wait before the next attempt, in place of the pipeline's backoff (rounded
    /// up to a millisecond). Changes nothing on a rejected failure.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        if let Kind::Retryable { after } = &mut self.kind {
            *after = Some(wait);
        }
        self
    }

    /// The text given when it was made.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the message comes again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, Kind::Retryable { .. })
    }

    /// Whether the message goes to the dead letter topic at once.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        self.kind == Kind::Rejected
    }

    /// What [`Failure::after`] asked for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            Kind::Retryable { after } => after,
            Kind::Rejected => None,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            Kind::Retryable { .. } => "retryable",
            Kind::Rejected => "rejected",
        };
        write!(f, "{kind}: {}", self.reason)
    }
}

impl std::error::Error for Failure {}

/// Bytes that do not parse today do not parse tomorrow: these become `rejected`, so that `?` does
/// the right thing. Other errors have no conversion; say which kind they are.
macro_rules! rejected_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::rejected(error.to_string())
            }
        }
    )*};
}

rejected_from!(
    serde_json::Error,
    std::str::Utf8Error,
    std::string::FromUtf8Error,
    std::num::ParseIntError,
    std::num::ParseFloatError,
    std::num::TryFromIntError,
    std::char::ParseCharError,
    std::str::ParseBoolError
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_is_kept_for_retryable_and_ignored_for_rejected() {
        let wait = Duration::from_millis(1500);
        assert_eq!(
            Failure::retryable("x").after(wait).retry_after(),
            Some(wait)
        );
        assert_eq!(Failure::rejected("x").after(wait).retry_after(), None);
        assert!(Failure::rejected("x").after(wait).is_rejected());
    }

    #[test]
    fn a_parse_error_becomes_rejected_with_its_text() {
        fn parse() -> Result<u32, Failure> {
            Ok("12x".parse::<u32>()?)
        }
        let failure = parse().unwrap_err();
        assert!(failure.is_rejected());
        assert_eq!(failure.reason(), "invalid digit found in string");
    }
}
