//! The record that a message was processed, and its encoding in the table. Pure.
//!
//! Version 1, little-endian: `version and flags u8 | fingerprint u64 | expires_at_ms i64 | outputs`: 17
//! bytes without outputs. The low half of the first byte is the version, bit 4 says failed, bit 5 that
//! outputs follow to the end.

const VERSION: u8 = 1;
const VERSION_MASK: u8 = 0x0f;
const FAILED: u8 = 0x10;
const OUTPUTS: u8 = 0x20;

/// Why bytes are not a completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(
        "idempotency record of version {0} was written by a newer host; this one reads version {VERSION}"
    )]
    Version(u8),
    #[error("idempotency record is damaged")]
    Invalid,
}

/// How the first delivery with a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Completed,
    /// As a dead letter.
    Failed,
}

/// A message with this idempotency key is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// Of what has to agree between duplicates.
    pub fingerprint: u64,
    pub status: Status,
    /// Unix ms; from then on the record counts as absent.
    pub expires_at_ms: i64,
    /// What it published, for `on_duplicate: replay`.
    pub outputs: Option<Vec<u8>>,
}

impl Completion {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let failed = if self.status == Status::Failed {
            FAILED
        } else {
            0
        };
        let outputs = if self.outputs.is_some() { OUTPUTS } else { 0 };
        out.push(VERSION | failed | outputs);
        out.extend_from_slice(&self.fingerprint.to_le_bytes());
        out.extend_from_slice(&self.expires_at_ms.to_le_bytes());
        out.extend_from_slice(self.outputs.as_deref().unwrap_or_default());
    }

    /// Reads what [`Completion::encode`] wrote, all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let (&first, rest) = bytes.split_first().ok_or(Error::Invalid)?;
        if first & VERSION_MASK != VERSION {
            return Err(Error::Version(first & VERSION_MASK));
        }
        let (fingerprint, rest) = rest.split_first_chunk().ok_or(Error::Invalid)?;
        let (expires_at_ms, outputs) = rest.split_first_chunk().ok_or(Error::Invalid)?;
        let has_outputs = first & OUTPUTS != 0;
        let unknown = first & !(VERSION_MASK | FAILED | OUTPUTS) != 0;
        if unknown || (!has_outputs && !outputs.is_empty()) {
            return Err(Error::Invalid);
        }
        Ok(Self {
            fingerprint: u64::from_le_bytes(*fingerprint),
            status: if first & FAILED != 0 {
                Status::Failed
            } else {
                Status::Completed
            },
            expires_at_ms: i64::from_le_bytes(*expires_at_ms),
            outputs: has_outputs.then(|| outputs.to_vec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(completion: &Completion) -> Vec<u8> {
        let mut out = Vec::new();
        completion.encode(&mut out);
        out
    }

    fn completion() -> impl Strategy<Value = Completion> {
        let outputs = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..64));
        let status = prop_oneof![Just(Status::Completed), Just(Status::Failed)];
        (any::<u64>(), status, any::<i64>(), outputs).prop_map(
            |(fingerprint, status, expires_at_ms, outputs)| Completion {
                fingerprint,
                status,
                expires_at_ms,
                outputs,
            },
        )
    }

    proptest! {
        #[test]
        fn a_completion_reads_back_as_it_was_written(completion in completion()) {
            let bytes = encoded(&completion);
            prop_assert_eq!(bytes.len(), 17 + completion.outputs.as_ref().map_or(0, Vec::len));
            prop_assert_eq!(Completion::decode(&bytes), Ok(completion));
        }

        #[test]
        fn a_cut_head_and_garbage_are_errors_and_never_a_panic(
            completion in completion(), cut in 0usize..17, garbage in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            prop_assert_eq!(Completion::decode(&encoded(&completion)[..cut]), Err(Error::Invalid));
            if let Ok(read) = Completion::decode(&garbage) {
                prop_assert_eq!(encoded(&read), garbage);
            }
        }
    }

    #[test]
    fn a_newer_version_and_unknown_flags_are_refused() {
        let mut bytes = [0; 17];
        bytes[0] = 2;
        assert_eq!(Completion::decode(&bytes), Err(Error::Version(2)));
        bytes[0] = VERSION | 0x40;
        assert_eq!(Completion::decode(&bytes), Err(Error::Invalid));
    }

    #[test]
    fn bytes_after_a_completion_without_outputs_are_refused() {
        let mut bytes = [0; 18];
        bytes[0] = VERSION;
        assert_eq!(Completion::decode(&bytes), Err(Error::Invalid));
    }
}
