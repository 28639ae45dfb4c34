//! Dead letters, redrives and single messages wherever they are: here, or in a running host.

use crate::admin::audit::AuditEntry;
use crate::admin::letters::close::Verb;
use crate::admin::letters::wire::{
    CloseReply, CloseRequest, DeadLetter, DeadLetterFilter, DeadLetterList, FailureGroupList, Job,
    MessageFacts, RedrivePreview, RedriveRequest,
};
use crate::cli::access::Streams;
use crate::cli::error::Error;

/// Who asks, when the directory is open here.
const WHO: &str = "cli";

impl Streams {
    pub(in crate::cli) fn dead_letters(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<DeadLetterList, Error> {
        Ok(match self {
            Self::Here(console) => console.dead_letters(filter)?,
            Self::There(remote) => remote.dead_letters(filter)?,
        })
    }

    pub(in crate::cli) fn failure_groups(
        &self,
        filter: &DeadLetterFilter,
    ) -> Result<FailureGroupList, Error> {
        Ok(match self {
            Self::Here(console) => console.failure_groups(filter)?,
            Self::There(remote) => remote.failure_groups(filter)?,
        })
    }

    pub(in crate::cli) fn dead_letter(&self, id: &str) -> Result<DeadLetter, Error> {
        Ok(match self {
            Self::Here(console) => console.dead_letter(id)?,
            Self::There(remote) => remote.dead_letter(id)?,
        })
    }

    pub(in crate::cli) fn dead_letter_at(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
    ) -> Result<DeadLetter, Error> {
        Ok(match self {
            Self::Here(console) => console.dead_letter_at(topic, partition, offset)?,
            Self::There(remote) => remote.dead_letter_at(topic, partition, offset)?,
        })
    }

    pub(in crate::cli) fn close_dead_letters(
        &self,
        verb: Verb,
        request: &CloseRequest,
    ) -> Result<CloseReply, Error> {
        Ok(match self {
            Self::Here(console) => console.close_dead_letters(verb, request, WHO)?,
            Self::There(remote) => remote.close_dead_letters(verb, request)?,
        })
    }

    pub(in crate::cli) fn preview_redrive(
        &self,
        request: &RedriveRequest,
    ) -> Result<RedrivePreview, Error> {
        Ok(match self {
            Self::Here(console) => console.preview_redrive(request)?,
            Self::There(remote) => remote.preview_redrive(request)?,
        })
    }

    pub(in crate::cli) fn start_redrive(&self, request: &RedriveRequest) -> Result<Job, Error> {
        Ok(match self {
            Self::Here(console) => console.start_redrive(request, WHO)?,
            Self::There(remote) => remote.start_redrive(request)?,
        })
    }

    pub(in crate::cli) fn jobs(&self) -> Result<Vec<Job>, Error> {
        Ok(match self {
            Self::Here(console) => console.jobs()?,
            Self::There(remote) => remote.jobs()?,
        })
    }

    pub(in crate::cli) fn job(&self, id: &str) -> Result<Job, Error> {
        Ok(match self {
            Self::Here(console) => console.job(id)?,
            Self::There(remote) => remote.job(id)?,
        })
    }

    pub(in crate::cli) fn cancel_redrive(&self, id: &str) -> Result<Job, Error> {
        Ok(match self {
            Self::Here(console) => console.cancel_redrive(id, WHO)?,
            Self::There(remote) => remote.cancel_redrive(id)?,
        })
    }

    pub(in crate::cli) fn message_facts(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
    ) -> Result<MessageFacts, Error> {
        Ok(match self {
            Self::Here(console) => console.message_facts(topic, partition, offset)?,
            Self::There(remote) => remote.message_facts(topic, partition, offset)?,
        })
    }

    pub(in crate::cli) fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, Error> {
        Ok(match self {
            Self::Here(console) => console.audit(limit)?,
            Self::There(remote) => remote.audit(limit)?,
        })
    }
}
