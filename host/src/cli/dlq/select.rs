//! The options that say which dead letters are meant.

use clap::Args;

use crate::admin::letters::wire::{DeadLetterFilter, Selection, StateFilter};
use crate::cli::error::Error;
use crate::cli::position::Position;

/// Filters; all that are given must fit.
#[derive(Debug, Args, Clone, Default)]
pub(super) struct Filter {
    /// Only of this pipeline
    #[arg(long)]
    pub(super) pipeline: Option<String>,
    /// Only of this consumer group
    #[arg(long, value_name = "NAME")]
    pub(super) consumer_group: Option<String>,
    /// Only of this failure group: an id that `dlq groups` shows
    #[arg(long, value_name = "ID")]
    pub(super) group: Option<String>,
    /// Only in this dead letter topic; also one whose name does not end in .dlq
    #[arg(long)]
    pub(super) topic: Option<String>,
    /// Only for this reason, as in the column REASON
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Only messages with this key; one that is no text as base64:…
    #[arg(long)]
    pub(super) key: Option<String>,
    /// Only those that failed with this plugin: its digest, or how it begins
    #[arg(long, value_name = "DIGEST")]
    pub(super) plugin_digest: Option<String>,
    /// Only those that failed at this time or later; also a span ago (-10m)
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub(super) since: Option<Position>,
    /// Only those that failed at this time or earlier; also a span ago (-10m)
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub(super) until: Option<Position>,
    /// How many messages of dead letter topics to look at [default: what half a second allows]
    #[arg(long, value_name = "N")]
    pub(super) scan: Option<u64>,
}

impl Filter {
    pub(super) fn in_state(
        &self,
        state: StateFilter,
        limit: Option<u32>,
    ) -> Result<DeadLetterFilter, Error> {
        Ok(DeadLetterFilter {
            topic: self.topic.clone(),
            pipeline: self.pipeline.clone(),
            consumer_group: self.consumer_group.clone(),
            failure_group: self.group.clone(),
            reason: self.reason.clone(),
            key: self.key.clone(),
            plugin: self.plugin_digest.clone(),
            from_ms: moment("--since", self.since)?,
            until_ms: moment("--until", self.until)?,
            state,
            limit,
            scan: self.scan,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self {
            pipeline,
            consumer_group,
            group,
            topic,
            reason,
            key,
            plugin_digest,
            since,
            until,
            scan: _,
        } = self;
        [
            pipeline,
            consumer_group,
            group,
            topic,
            reason,
            key,
            plugin_digest,
        ]
        .iter()
        .all(|one| one.is_none())
            && since.is_none()
            && until.is_none()
    }

    /// Those named, or else all that fit; a filter must be given, or `all`.
    pub(super) fn select(
        &self,
        ids: &[String],
        all: bool,
        state: StateFilter,
    ) -> Result<Selection, Error> {
        if !ids.is_empty() && (all || !self.is_empty()) {
            return Err(Error::usage(
                "dead letters are named, or filtered, not both",
                "leave the ids or the filters away",
            ));
        }
        if ids.is_empty() && self.is_empty() && !all {
            return Err(Error::usage(
                "which dead letters? nothing says it",
                "name them, filter them (--group, --pipeline, --reason …), or say --all",
            ));
        }
        Ok(Selection {
            ids: ids.to_vec(),
            filter: self.in_state(state, None)?,
            all,
        })
    }
}

fn moment(option: &str, position: Option<Position>) -> Result<Option<i64>, Error> {
    match position {
        None => Ok(None),
        Some(Position::Time(at)) => Ok(Some(at)),
        Some(_) => Err(Error::usage(
            format!("{option} wants a time"),
            "write 2013-01-31T05:15:00Z, or a span ago: -10m",
        )),
    }
}
