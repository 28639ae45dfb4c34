//! Failure groups: dead letters that failed for the same reason with the same error, numbers and IDs
//! aside. Bounded in groups and in letters looked at.

use std::collections::HashMap;

use super::decode::{self, View};
use super::scan::Place;
use super::shape;
use super::wire::{DeadLetterFilter, FailureGroup, FailureGroupList};
use crate::admin::console::Console;
use crate::admin::error::Error;

/// Failure groups that are told apart; letters of further ones are counted together.
pub const FAILURE_GROUPS_MAX: usize = 1_000;
/// Plugin digests shown of a failure group.
pub const PLUGINS_SHOWN_MAX: usize = 8;

/// Collects groups; the newest letter comes first.
#[derive(Default)]
pub(super) struct Groups {
    by_id: HashMap<String, FailureGroup>,
    other: u64,
}

impl Groups {
    pub(super) fn add(&mut self, place: &Place<'_>, letter: &View<'_>) {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let failed_at = letter.message.timestamp_ms;
        let error = letter.shape();
        let id = shape::group_id(
            letter.pipeline.unwrap_or_default(),
            letter.group.unwrap_or_default(),
            letter.reason.unwrap_or_default(),
            &error,
        );
        if !self.by_id.contains_key(&id) && self.by_id.len() == FAILURE_GROUPS_MAX {
            self.other += 1;
            return;
        }
        let group = self.by_id.entry(id).or_insert_with_key(|id| FailureGroup {
            id: id.clone(),
            pipeline: text(letter.pipeline),
            consumer_group: text(letter.group),
            reason: text(letter.reason),
            error,
            count: 0,
            first_at_ms: failed_at,
            last_at_ms: failed_at,
            example: decode::place(&place.topic.name, place.partition, place.offset),
            plugins: Vec::new(),
        });
        group.count += 1;
        group.first_at_ms = group.first_at_ms.min(failed_at);
        group.last_at_ms = group.last_at_ms.max(failed_at);
        let plugin = letter.plugin_digest.unwrap_or_default();
        let is_known = group.plugins.iter().any(|known| known == plugin);
        if !is_known && group.plugins.len() < PLUGINS_SHOWN_MAX {
            group.plugins.push(plugin.to_owned());
        }
    }

    /// The largest first, and how many letters are in none of them.
    pub(super) fn finish(self) -> (Vec<FailureGroup>, u64) {
        let mut groups: Vec<FailureGroup> = self.by_id.into_values().collect();
        groups.sort_by(|a, b| (b.count, &a.id).cmp(&(a.count, &b.id)));
        (groups, self.other)
    }
}

impl Console {
    /// The failure groups of the dead letters that fit.
    pub fn failure_groups(&self, filter: &DeadLetterFilter) -> Result<FailureGroupList, Error> {
        let mut groups = Groups::default();
        let scanned = self.each_fitting(filter, |place, letter, _| {
            groups.add(place, letter);
            Ok(true)
        })?;
        let (groups, other) = groups.finish();
        Ok(FailureGroupList {
            groups,
            other,
            scanned,
        })
    }
}
