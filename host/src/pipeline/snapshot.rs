//! What a pipeline looks like from outside at one moment: read by `status`, `/readyz` and the gauges.
//! Plain data; the workers write it, nobody else changes it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::valid::{Delivery, Pipeline};
use crate::pipeline::dead_letter;
use crate::pipeline::returned;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    pub pipeline: String,
    pub consumer_group: String,
    pub state: State,
    /// Why, when the state is not `running`; lowercase, says what to do.
    pub why: Option<String>,
    /// `sha256:…` of the plugin file.
    pub plugin_digest: String,
    /// As configured.
    #[serde(default)]
    pub topics: Topics,
    pub partitions: Vec<PartitionSnapshot>,
    pub totals: Totals,
    /// What `alerts` of the configuration watches.
    #[serde(default)]
    pub alerts: Vec<Alert>,
    /// Messages inside calls of the handler.
    #[serde(default)]
    pub in_flight: u64,
    /// Linear memory of its instances, bytes.
    #[serde(default)]
    pub handler_memory_bytes: u64,
}

/// What a pipeline takes from and puts to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Topics {
    pub sources: Vec<String>,
    /// Distinct, in order of their names; those of replies are not known before.
    pub outputs: Vec<String>,
    /// The same.
    pub dead_letters: Vec<String>,
}

impl Topics {
    #[must_use]
    pub fn of(pipeline: &Pipeline) -> Self {
        let sources = &pipeline.source.topics;
        let group = &pipeline.source.consumer_group;
        let outputs = pipeline.outputs.iter().map(|output| output.topic.clone());
        let keeps_letters = pipeline.delivery != Delivery::AtMostOnce;
        let letters = sources.iter().filter(|_| keeps_letters).map(|source| {
            let own = pipeline.dead_letter.topic.clone();
            own.unwrap_or_else(|| dead_letter::default_topic(source, group))
        });
        let distinct = |all: BTreeSet<String>| all.into_iter().collect();
        Self {
            sources: sources.clone(),
            outputs: distinct(outputs.collect()),
            dead_letters: distinct(letters.collect()),
        }
    }
}

/// One value that the configuration watches (§9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    pub alert: AlertName,
    pub firing: bool,
    /// Messages, ms or dead letters.
    pub value: u64,
    /// In the same unit. `lag` and `oldest_age` fire above it, `dead_letters` from it on.
    pub limit: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertName {
    Lag,
    OldestAge,
    DeadLetters,
}

impl AlertName {
    pub const ALL: [Self; 3] = [Self::Lag, Self::OldestAge, Self::DeadLetters];

    /// As in the configuration and in the label `alert`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::OldestAge => "oldest_age",
            Self::DeadLetters => "dead_letters",
        }
    }
}

impl Alert {
    #[must_use]
    pub const fn new(alert: AlertName, value: u64, limit: u64) -> Self {
        let firing = match alert {
            AlertName::Lag | AlertName::OldestAge => value > limit,
            AlertName::DeadLetters => value >= limit,
        };
        Self {
            alert,
            firing,
            value,
            limit,
        }
    }
}

/// Where a partition of a pipeline comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A topic of the configuration.
    Source,
    /// Deferred retries that wait until they are due.
    Retries,
    /// Dead letters on their way back.
    Redrives,
}

impl Snapshot {
    /// Messages of all partitions that are not finished.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let of = |p: &PartitionSnapshot| p.end.saturating_sub(p.position).saturating_add(p.held);
        self.partitions.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Judges `oldest_age`, if it is watched. `timestamp_ms` answers with the Unix time of a message and
    /// is asked for partitions that are behind.
    pub fn judge_age(&mut self, now_ms: i64, timestamp_ms: impl Fn(&str, u32, u64) -> Option<i64>) {
        let Some(alert) = (self.alerts.iter_mut()).find(|a| a.alert == AlertName::OldestAge) else {
            return;
        };
        let behind = self.partitions.iter().filter(|p| p.committed < p.end);
        let times = behind.filter_map(|p| {
            timestamp_ms(&p.topic, p.partition, p.committed).or(p.oldest_unfinished_ms)
        });
        let age_ms = times
            .min()
            .map_or(0, |oldest| now_ms.saturating_sub(oldest));
        let value = u64::try_from(age_ms).unwrap_or(0);
        *alert = Alert::new(AlertName::OldestAge, value, alert.limit);
    }

    /// Its partitions, each with where it comes from.
    pub fn partitions_by_origin(&self) -> Vec<(Origin, &PartitionSnapshot)> {
        let mut topics: Vec<&str> = self.partitions.iter().map(|p| p.topic.as_str()).collect();
        topics.sort_unstable();
        topics.dedup();
        let group = self.consumer_group.as_str();
        let origin = |name: &str| {
            let comes_of = |of: &str| {
                if returned::delay_of(name, of, group).is_some() {
                    Some(Origin::Retries)
                } else {
                    (returned::redrive_topic(of, group) == name).then_some(Origin::Redrives)
                }
            };
            let found = topics.iter().find_map(|of| comes_of(of));
            found.unwrap_or(Origin::Source)
        };
        let origins: Vec<Origin> = topics.iter().map(|name| origin(name)).collect();
        let of = |one: &PartitionSnapshot| {
            let at = topics.binary_search(&one.topic.as_str()).ok();
            at.and_then(|at| origins.get(at)).copied()
        };
        let partitions = self.partitions.iter();
        partitions
            .map(|one| (of(one).unwrap_or(Origin::Source), one))
            .collect()
    }

    /// Messages of one origin that are not settled: `end - committed`, so one that is finished above a
    /// gap still counts.
    #[must_use]
    pub fn waiting(&self, origin: Origin) -> u64 {
        let own = self.partitions_by_origin().into_iter();
        own.filter(|(of, _)| *of == origin)
            .map(|(_, one)| one.end.saturating_sub(one.committed))
            .sum()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Starting,
    Running,
    /// Something holds it up (store failing, dead letters that cannot be written): it goes on by itself.
    Blocked,
    Draining,
    /// An operator paused it; its configuration says that it runs.
    Paused,
    Stopped,
    /// It stopped and needs a person.
    Failed,
}

/// Since this host started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Totals {
    /// Deliveries finished, whatever the outcome.
    pub consumed: u64,
    pub succeeded: u64,
    pub duplicates: u64,
    pub retries: u64,
    pub dead_letters: u64,
    /// at_most_once failures.
    pub discarded: u64,
    pub published: u64,
    /// Offsets that retention took before they were read (`on_lost_offset: earliest`).
    #[serde(default)]
    pub lost: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PartitionSnapshot {
    pub topic: String,
    pub partition: u32,
    /// First offset that is not settled.
    pub committed: u64,
    /// Next offset to read.
    pub position: u64,
    /// Next offset to be written.
    pub end: u64,
    /// Messages read and not finished.
    pub held: u64,
    pub held_bytes: u64,
    /// Timestamp (Unix ms) of the oldest unfinished message, when there is one.
    pub oldest_unfinished_ms: Option<i64>,
    /// The message at `committed`, when it has failed, waits or is blocked.
    pub holder: Option<Holder>,
}

/// The message that holds a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Holder {
    pub offset: u64,
    /// At most 128 bytes, lossy UTF-8.
    pub key: Option<String>,
    pub correlation_id: String,
    pub waits_for: WaitsFor,
    /// Attempts made so far.
    pub attempts: u32,
    pub max_attempts: u32,
    pub error: Option<String>,
    /// Unix ms.
    pub next_try_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitsFor {
    /// The next attempt.
    Retry,
    /// Another delivery with the same idempotency key.
    Claim,
    /// A sequence number before its own.
    Sequence,
    /// Its settlement is not durable yet.
    Settlement,
    /// The call runs.
    Call,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_wait_are_told_from_those_of_the_source() {
        let partition = |topic: &str, committed, end| PartitionSnapshot {
            topic: topic.into(),
            partition: 0,
            committed,
            position: committed,
            end,
            held: 0,
            held_bytes: 0,
            oldest_unfinished_ms: None,
            holder: None,
        };
        let snapshot = Snapshot {
            alerts: Vec::new(),
            pipeline: "p".into(),
            consumer_group: "g".into(),
            state: State::Running,
            why: None,
            plugin_digest: String::new(),
            topics: Topics::default(),
            partitions: vec![
                partition("in", 10, 100),
                partition("in.g.redrive", 1, 3),
                partition("in.g.retry.300ms", 4, 11),
                partition("in.g.retry.2s", 0, 5),
                // Another group's name is a topic like any other.
                partition("in.h.retry.2s", 0, 1_000),
            ],
            totals: Totals::default(),
            in_flight: 0,
            handler_memory_bytes: 0,
        };
        assert_eq!(snapshot.waiting(Origin::Retries), 12);
        assert_eq!(snapshot.waiting(Origin::Redrives), 2);
        assert_eq!(snapshot.waiting(Origin::Source), 1_090);
    }
}
