//! What an operator may change while a host runs (§7.7, §13.5). The console hands an order to the host,
//! which carries it out between two looks at its workers; without a running host most have nothing to
//! act on. Not here: how (`host/`), and moving a group's progress (`seek.rs`).

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::error::Error;
use super::seek::{SeekReply, SeekRequest};

/// One order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Stops reading and calling; what was called is settled.
    Pause {
        pipeline: String,
    },
    /// Finishes what was read, then pauses.
    Drain {
        pipeline: String,
    },
    Resume {
        pipeline: String,
    },
    /// Reads the configuration again; all of it or nothing.
    Reload {
        accept_change: bool,
    },
    Seek {
        group: String,
        request: SeekRequest,
    },
    Reject {
        group: String,
        request: RejectRequest,
    },
}

impl Order {
    /// Command, target and note, as the audit keeps them.
    #[must_use]
    pub fn audited(&self) -> (&'static str, String, Option<String>) {
        match self {
            Self::Pause { pipeline } => ("pause", pipeline.clone(), None),
            Self::Drain { pipeline } => ("drain", pipeline.clone(), None),
            Self::Resume { pipeline } => ("resume", pipeline.clone(), None),
            Self::Reload { accept_change } => {
                let note = accept_change.then(|| "--accept-change".to_owned());
                ("reload", "host".to_owned(), note)
            }
            Self::Seek { group, request } => {
                let command = if request.dry_run {
                    "seek --dry-run"
                } else {
                    "seek"
                };
                (command, group.clone(), Some(format!("{:?}", request.to)))
            }
            Self::Reject { group, request } => {
                let RejectRequest {
                    topic,
                    partition,
                    offset,
                    ..
                } = request;
                let target = format!("{topic}/{partition}@{offset} of {group}");
                ("reject", target, Some(request.note.clone()))
            }
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done(Changes),
    Sought(SeekReply),
}

/// Carries orders out; blocks until that is done.
pub type Operations = dyn Fn(Order) -> Result<Answer, Error> + Send + Sync;

/// What an order changed, a line each; empty when everything was as wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changes {
    pub changes: Vec<String>,
}

/// `POST /v1/reload`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Also when durable data depends on what was changed (§13.1).
    #[serde(default)]
    pub accept_change: bool,
}

/// `POST /v1/groups/{group}/reject`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectRequest {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
    /// Why; stands in the dead letter.
    pub note: String,
}
