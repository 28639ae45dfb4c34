//! What `top` knows: the newest status, rates since the one before, how it is sorted, what is selected.
//! No clock: times are arguments. Not here: how it looks (`view.rs`).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::time::Instant;

use clap::ValueEnum;

use crate::admin::wire::{Backlog, Status};
use crate::pipeline::snapshot::{Origin, PartitionSnapshot, Snapshot, State, Totals};

/// What pipelines are sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(super) enum Column {
    /// Those that need a person first.
    #[default]
    State,
    Name,
    In,
    Out,
    Lag,
    Oldest,
    Retries,
    Dead,
    InFlight,
    Memory,
}

/// One pipeline as a row.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) snapshot: Snapshot,
    pub(super) backlog: Option<Backlog>,
    /// Deliveries finished, messages published, failed attempts, in a second; `None` before the second look.
    pub(super) rates: Option<Rates>,
    /// Messages of its source topics that are not read.
    pub(super) unstarted: u64,
    /// Read and not finished.
    pub(super) held: u64,
    /// Unix ms.
    pub(super) oldest_ms: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rates {
    pub(super) consumed: f64,
    pub(super) published: f64,
    pub(super) retries: f64,
}

pub(super) struct Model {
    status: Option<Status>,
    rows: Vec<Row>,
    seen: Option<Instant>,
    failed: Option<String>,
    pub(super) sort: Column,
    pub(super) reversed: bool,
    /// By name: rows move.
    selected: Option<String>,
    /// Whether the selected pipeline's partitions are shown.
    pub(super) opened: bool,
    /// Place of the selected partition.
    partition: usize,
}

impl Model {
    pub(super) fn new(sort: Column) -> Self {
        Self {
            status: None,
            rows: Vec::new(),
            seen: None,
            failed: None,
            sort,
            reversed: false,
            selected: None,
            opened: false,
            partition: 0,
        }
    }

    /// Takes a status that was seen at a time.
    pub(super) fn see(&mut self, status: Status, at: Instant) {
        let elapsed = self.seen.map(|seen| at.duration_since(seen).as_secs_f64());
        let before: HashMap<&str, Totals> = self
            .rows
            .iter()
            .map(|row| (row.snapshot.pipeline.as_str(), row.snapshot.totals))
            .collect();
        let rows = status.pipelines.iter().map(|snapshot| {
            let before = before.get(snapshot.pipeline.as_str()).copied();
            let rates = before
                .zip(elapsed)
                .and_then(|(before, elapsed)| rates(&before, &snapshot.totals, elapsed));
            row(&status, snapshot, rates)
        });
        let rows = rows.collect();
        self.rows = rows;
        self.status = Some(status);
        self.seen = Some(at);
        self.failed = None;
        self.order();
    }

    pub(super) fn fail(&mut self, why: String) {
        self.failed = Some(why);
    }

    pub(super) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    pub(super) const fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The place of the selected row.
    pub(super) fn selected(&self) -> Option<usize> {
        let name = self.selected.as_deref();
        let found = self
            .rows
            .iter()
            .position(|row| Some(row.snapshot.pipeline.as_str()) == name);
        found.or((!self.rows.is_empty()).then_some(0))
    }

    pub(super) fn selected_row(&self) -> Option<&Row> {
        self.rows.get(self.selected()?)
    }

    /// The place of the selected partition of the selected row, and the partition.
    pub(super) fn selected_partition(&self) -> Option<(usize, &PartitionSnapshot)> {
        let partitions = &self.selected_row()?.snapshot.partitions;
        let at = self.partition.min(partitions.len().checked_sub(1)?);
        Some((at, partitions.get(at)?))
    }

    pub(super) fn select(&mut self, step: isize) {
        if self.opened {
            let at = self.selected_partition().map_or(0, |(at, _)| at);
            let count = self
                .selected_row()
                .map_or(0, |row| row.snapshot.partitions.len());
            self.partition = moved(at, step, count);
            return;
        }
        let at = moved(self.selected().unwrap_or(0), step, self.rows.len());
        self.selected = self.rows.get(at).map(|row| row.snapshot.pipeline.clone());
    }

    /// Opens the selected pipeline, at the partition that is held, if one is.
    pub(super) fn open(&mut self) {
        let Some(row) = self.selected_row() else {
            return;
        };
        let held = row
            .snapshot
            .partitions
            .iter()
            .position(|one| one.holder.is_some());
        let name = row.snapshot.pipeline.clone();
        self.partition = held.unwrap_or(0);
        self.selected = Some(name);
        self.opened = true;
    }

    pub(super) const fn close(&mut self) {
        self.opened = false;
    }

    pub(super) fn sort_by_next(&mut self) {
        let all = Column::value_variants();
        let at = all.iter().position(|one| *one == self.sort).unwrap_or(0);
        self.sort = all.get(at + 1).copied().unwrap_or_default();
        self.order();
    }

    pub(super) fn reverse(&mut self) {
        self.reversed = !self.reversed;
        self.order();
    }

    fn order(&mut self) {
        let (sort, reversed) = (self.sort, self.reversed);
        self.rows.sort_by(|a, b| {
            let found = compare(sort, a, b);
            let found = if reversed { found.reverse() } else { found };
            found.then_with(|| a.snapshot.pipeline.cmp(&b.snapshot.pipeline))
        });
    }
}

fn moved(at: usize, step: isize, count: usize) -> usize {
    at.saturating_add_signed(step).min(count.saturating_sub(1))
}

fn row(status: &Status, snapshot: &Snapshot, rates: Option<Rates>) -> Row {
    let partitions = snapshot.partitions_by_origin();
    let own = partitions.iter().filter(|(of, _)| *of == Origin::Source);
    Row {
        backlog: super::super::status::backlog(status, &snapshot.pipeline).cloned(),
        rates,
        unstarted: own
            .map(|(_, one)| one.end.saturating_sub(one.position))
            .sum(),
        held: partitions.iter().map(|(_, one)| one.held).sum(),
        oldest_ms: partitions
            .iter()
            .filter_map(|(_, one)| one.oldest_unfinished_ms)
            .min(),
        snapshot: snapshot.clone(),
    }
}

/// `None` when the host began to count anew meanwhile.
#[expect(
    clippy::cast_precision_loss,
    reason = "differences of a second are far below 2^52"
)]
fn rates(before: &Totals, now: &Totals, elapsed: f64) -> Option<Rates> {
    let rate = |before: u64, now: u64| now.checked_sub(before).map(|more| more as f64 / elapsed);
    (elapsed > 0.0).then_some(())?;
    Some(Rates {
        consumed: rate(before.consumed, now.consumed)?,
        published: rate(before.published, now.published)?,
        retries: rate(before.retries, now.retries)?,
    })
}

/// What deserves a look first.
fn compare(column: Column, a: &Row, b: &Row) -> Ordering {
    let rate = |of: fn(&Rates) -> f64| {
        let value = |row: &Row| row.rates.as_ref().map_or(0.0, of);
        value(b).total_cmp(&value(a))
    };
    match column {
        Column::State => urgency(a.snapshot.state).cmp(&urgency(b.snapshot.state)),
        Column::Name => a.snapshot.pipeline.cmp(&b.snapshot.pipeline),
        Column::In => rate(|rates| rates.consumed),
        Column::Out => rate(|rates| rates.published),
        Column::Lag => (b.unstarted + b.held).cmp(&(a.unstarted + a.held)),
        // Without an oldest message last.
        Column::Oldest => a
            .oldest_ms
            .unwrap_or(i64::MAX)
            .cmp(&b.oldest_ms.unwrap_or(i64::MAX)),
        Column::Retries => b.snapshot.totals.retries.cmp(&a.snapshot.totals.retries),
        Column::Dead => {
            let open = |row: &Row| row.backlog.as_ref().map(|one| one.dead_letters_open);
            open(b).cmp(&open(a))
        }
        Column::InFlight => b.snapshot.in_flight.cmp(&a.snapshot.in_flight),
        Column::Memory => b
            .snapshot
            .handler_memory_bytes
            .cmp(&a.snapshot.handler_memory_bytes),
    }
}

const fn urgency(state: State) -> u8 {
    match state {
        State::Failed => 0,
        State::Blocked => 1,
        State::Stopped => 2,
        State::Draining => 3,
        State::Paused => 4,
        State::Starting => 5,
        State::Running => 6,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::admin::wire::{HostFacts, StoreHealth};
    use crate::pipeline::snapshot::{Holder, Topics, WaitsFor};
    use std::time::Duration;

    fn partition(topic: &str, number: u32, end: u64) -> PartitionSnapshot {
        PartitionSnapshot {
            topic: topic.into(),
            partition: number,
            committed: 10,
            position: 20,
            end,
            held: 10,
            held_bytes: 0,
            oldest_unfinished_ms: Some(40_000),
            holder: None,
        }
    }

    fn pipeline(name: &str, state: State, consumed: u64) -> Snapshot {
        Snapshot {
            topics: Topics::default(),
            alerts: Vec::new(),
            pipeline: name.into(),
            consumer_group: "g".into(),
            state,
            why: (state != State::Running).then(|| "the disk\u{1b}[2J is full".into()),
            plugin_digest: "sha256:00".into(),
            partitions: vec![partition("in", 0, 120), partition("in.g.retry.2s", 0, 31)],
            totals: Totals {
                consumed,
                published: 2 * consumed,
                retries: 7,
                ..Totals::default()
            },
            in_flight: 3,
            handler_memory_bytes: 3 << 20,
        }
    }

    /// Two looks at two pipelines, a second apart: one runs and is held, one is blocked.
    pub(in crate::cli::top) fn model() -> Model {
        let mut model = Model::new(Column::State);
        let began = Instant::now();
        for (look, consumed) in [(0, 1_000), (1, 1_500)] {
            let mut runs = pipeline("runs", State::Running, consumed);
            runs.partitions[0].holder = Some(Holder {
                offset: 10,
                key: Some("N1\u{202e}".into()),
                correlation_id: "c-1".into(),
                waits_for: WaitsFor::Retry,
                attempts: 3,
                max_attempts: 5,
                error: Some("no such\norder".into()),
                next_try_ms: Some(60_000),
            });
            let status = Status {
                host: Some(HostFacts {
                    pid: 7,
                    version: "0.1.0".into(),
                    started_at_ms: 0,
                }),
                store: StoreHealth {
                    healthy: true,
                    why: None,
                },
                pipelines: vec![runs, pipeline("stuck", State::Blocked, 10)],
                dead_letters: Vec::new(),
                backlogs: vec![Backlog {
                    pipeline: "runs".into(),
                    retries_waiting: 21,
                    redrives_waiting: 0,
                    dead_letters_open: 1_000,
                    dead_letters_more: true,
                }],
            };
            model.see(status, began + Duration::from_secs(look));
        }
        model
    }

    fn names(model: &Model) -> Vec<&str> {
        let rows = model.rows().iter();
        rows.map(|row| row.snapshot.pipeline.as_str()).collect()
    }

    #[test]
    fn rates_are_what_came_between_two_looks_and_none_when_the_host_began_anew() {
        let mut model = model();
        let row = |model: &Model, name: &str| {
            let mut rows = model.rows().iter();
            rows.find(|row| row.snapshot.pipeline == name)
                .unwrap()
                .clone()
        };
        let rates = row(&model, "runs").rates.unwrap();
        assert_eq!((rates.consumed, rates.published), (500.0, 1_000.0));
        assert_eq!(
            row(&model, "runs").unstarted,
            100,
            "waiting retries are no lag"
        );
        let mut anew = model.status().unwrap().clone();
        anew.pipelines[0].totals = Totals::default();
        model.see(anew, Instant::now() + Duration::from_secs(9));
        assert_eq!(row(&model, "runs").rates, None);
    }

    #[test]
    fn what_needs_a_person_is_first_and_every_column_sorts() {
        let mut model = model();
        assert_eq!(names(&model), ["stuck", "runs"]);
        model.reverse();
        assert_eq!(names(&model), ["runs", "stuck"]);
        model.reverse();
        let mut seen = Vec::new();
        for _ in Column::value_variants() {
            model.sort_by_next();
            seen.push((model.sort, names(&model)[0].to_owned()));
        }
        assert_eq!(model.sort, Column::State, "all around");
        assert!(seen.contains(&(Column::In, "runs".into())));
        assert!(seen.contains(&(Column::Dead, "runs".into())));
    }

    #[test]
    fn the_selection_follows_its_pipeline_and_stops_at_the_ends() {
        let mut model = model();
        model.select(5);
        assert_eq!(model.selected(), Some(1));
        model.reverse();
        assert_eq!(model.selected(), Some(0), "the same pipeline");
        model.open();
        let (_, opened) = model.selected_partition().unwrap();
        assert!(opened.holder.is_some(), "where it is held");
        model.select(9);
        assert_eq!(model.selected_partition().unwrap().0, 1);
        assert!(Model::new(Column::State).selected().is_none());
    }
}
