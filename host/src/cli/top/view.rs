//! One frame of `top`: widgets over the model. No clock, no terminal. Strangers' text is escaped here.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{
    Cell, Paragraph, Row as TableRow, StatefulWidget, Table, TableState, Widget, Wrap,
};

use super::super::{status, text};
use super::model::{Column, Model, Rates, Row};
use crate::admin::time;
use crate::pipeline::snapshot::{PartitionSnapshot, State};

/// Lines about the message that holds a partition.
const HOLDER_LINES: u16 = 9;
/// Lines for why pipelines do not run.
const WHY_LINES_MAX: usize = 6;

const HEAD: [(&str, u16, Option<Column>); 13] = [
    ("PIPELINE", 22, Some(Column::Name)),
    ("STATE", 9, Some(Column::State)),
    ("IN/S", 9, Some(Column::In)),
    ("OUT/S", 9, Some(Column::Out)),
    ("LAG", 12, Some(Column::Lag)),
    ("HELD", 7, None),
    ("OLDEST", 8, Some(Column::Oldest)),
    ("RETRIES", 10, Some(Column::Retries)),
    ("WAITING", 9, None),
    ("DEAD", 8, None),
    ("OPEN", 8, Some(Column::Dead)),
    ("IN FLIGHT", 9, Some(Column::InFlight)),
    ("MEMORY", 10, Some(Column::Memory)),
];

const PARTITION_HEAD: [(&str, u16); 8] = [
    ("TOPIC", 34),
    ("PARTITION", 9),
    ("COMMITTED", 14),
    ("END", 14),
    ("UNSTARTED", 12),
    ("HELD", 8),
    ("OLDEST", 8),
    ("HELD BY", 14),
];

/// What the terminal shows, with the keys.
pub(super) fn draw(model: &Model, now_ms: i64, area: Rect, buffer: &mut Buffer) {
    let [body, keys] = Layout::vertical([Constraint::Min(1), Constraint::Length(1)]).areas(area);
    let help = if model.opened {
        "q quit  Esc back  ↑↓ partition"
    } else {
        "q quit  s sort  r reverse  ↑↓ pipeline  Enter its partitions"
    };
    Paragraph::new(help)
        .style(Style::new().add_modifier(Modifier::DIM))
        .render(keys, buffer);
    frame(model, now_ms, body, true, buffer);
}

/// The same without keys and selection.
pub(super) fn draw_text(model: &Model, now_ms: i64, area: Rect, buffer: &mut Buffer) {
    frame(model, now_ms, area, false, buffer);
}

/// Lines that [`draw_text`] needs.
pub(super) fn height(model: &Model) -> u16 {
    let rows = u16::try_from(model.rows().len().max(1)).unwrap_or(u16::MAX);
    let whys = u16::try_from(whys(model).len()).unwrap_or(u16::MAX);
    rows.saturating_add(whys).saturating_add(2)
}

/// A drawn frame as text, without spaces at the ends and empty lines at the end.
pub(super) fn lines(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let mut lines: Vec<String> = (area.top()..area.bottom())
        .map(|y| {
            let cells = (area.left()..area.right()).filter_map(|x| buffer.cell((x, y)));
            let line: String = cells.map(|cell| cell.symbol()).collect();
            line.trim_end().to_owned()
        })
        .collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}

fn frame(model: &Model, now_ms: i64, area: Rect, is_live: bool, buffer: &mut Buffer) {
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(1)]).areas(area);
    let (line, style) = head_line(model, now_ms);
    Paragraph::new(line).style(style).render(head, buffer);
    if model.opened {
        partitions(model, now_ms, body, buffer);
    } else {
        pipelines(model, now_ms, body, is_live, buffer);
    }
}

fn head_line(model: &Model, now_ms: i64) -> (String, Style) {
    let bad = Style::new().fg(Color::Red);
    if let Some(why) = model.failed() {
        return (
            format!("the host does not answer: {}", text::escape(why)),
            bad,
        );
    }
    let Some(status) = model.status() else {
        return ("asking the host".into(), Style::new());
    };
    let host = match &status.host {
        Some(host) => format!(
            "host: process {}, wasmill {}, up {}",
            host.pid,
            text::escape(&host.version),
            since(host.started_at_ms, now_ms)
        ),
        None => "host: none runs".into(),
    };
    if status.store.healthy {
        return (format!("{host}  store: healthy"), Style::new());
    }
    let why = status.store.why.as_deref().unwrap_or("see the host's log");
    (
        format!("{host}  store: failing: {}", text::escape(why)),
        bad,
    )
}

fn pipelines(model: &Model, now_ms: i64, area: Rect, is_live: bool, buffer: &mut Buffer) {
    let whys = whys(model);
    let why_lines = u16::try_from(whys.len()).unwrap_or(0);
    let parts = [Constraint::Min(1), Constraint::Length(why_lines)];
    let [table, below] = Layout::vertical(parts).areas(area);
    let head = HEAD.map(|(name, _, column)| {
        let is_sorted = is_live && column == Some(model.sort);
        let mark = match (is_sorted, model.reversed) {
            (false, _) => "",
            (true, false) => "▼",
            (true, true) => "▲",
        };
        format!("{name}{mark}")
    });
    let rows = model
        .rows()
        .iter()
        .map(|row| TableRow::new(cells(row, now_ms)).style(state_style(row.snapshot.state)));
    let widths = HEAD.map(|(_, width, _)| Constraint::Length(width));
    let widget = table_of(TableRow::new(head), rows.collect(), &widths);
    let selected = model.selected().filter(|_| is_live);
    let mut state = TableState::default().with_selected(selected);
    StatefulWidget::render(widget, table, buffer, &mut state);
    if model.rows().is_empty() && model.status().is_some() {
        let line = Rect {
            y: table.y.saturating_add(1),
            height: 1,
            ..table
        };
        Paragraph::new("no pipelines").render(line.intersection(table), buffer);
    }
    Paragraph::new(whys.into_iter().map(Line::from).collect::<Vec<_>>()).render(below, buffer);
}

fn table_of<'a>(head: TableRow<'a>, rows: Vec<TableRow<'a>>, widths: &[Constraint]) -> Table<'a> {
    Table::new(rows, widths)
        .header(head.style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(1)
}

fn cells(row: &Row, now_ms: i64) -> Vec<Cell<'static>> {
    let snapshot = &row.snapshot;
    let rate = |of: fn(&Rates) -> f64| {
        let rates = row.rates.as_ref();
        rates.map_or(text::NONE.to_owned(), |rates| rounded(of(rates)))
    };
    let backlog = row.backlog.as_ref();
    let none = || text::NONE.to_owned();
    [
        text::escape(&snapshot.pipeline).into_owned(),
        status::state(snapshot.state).to_owned(),
        rate(|rates| rates.consumed),
        rate(|rates| rates.published),
        text::count(row.unstarted + row.held),
        text::count(row.held),
        row.oldest_ms.map_or_else(none, |at| since(at, now_ms)),
        text::count(snapshot.totals.retries),
        backlog.map_or_else(none, |one| text::count(one.retries_waiting)),
        text::count(snapshot.totals.dead_letters),
        backlog.map_or_else(none, status::open_letters),
        text::count(snapshot.in_flight),
        text::size(snapshot.handler_memory_bytes),
    ]
    .into_iter()
    .map(Cell::from)
    .collect()
}

/// Why pipelines do not run, the most urgent first.
fn whys(model: &Model) -> Vec<String> {
    let told = model.rows().iter().filter_map(|row| {
        let why = row.snapshot.why.as_deref()?;
        let (name, state) = (&row.snapshot.pipeline, status::state(row.snapshot.state));
        Some(format!(
            "{} is {state}: {}",
            text::escape(name),
            text::escape(why)
        ))
    });
    let mut told: Vec<String> = told.collect();
    if told.len() > WHY_LINES_MAX {
        let more = told.len() - (WHY_LINES_MAX - 1);
        told.truncate(WHY_LINES_MAX - 1);
        told.push(format!("{more} more: `wasmill status`"));
    }
    told
}

fn partitions(model: &Model, now_ms: i64, area: Rect, buffer: &mut Buffer) {
    let Some(row) = model.selected_row() else {
        return;
    };
    let parts = [
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(HOLDER_LINES),
    ];
    let [name, table, below] = Layout::vertical(parts).areas(area);
    let snapshot = &row.snapshot;
    Paragraph::new(format!(
        "pipeline {}, consumer group {}: {}",
        text::escape(&snapshot.pipeline),
        text::escape(&snapshot.consumer_group),
        status::state(snapshot.state)
    ))
    .style(state_style(snapshot.state))
    .render(name, buffer);
    let selected = model.selected_partition();
    let rows = snapshot
        .partitions
        .iter()
        .map(|one| partition_row(one, now_ms));
    let widths = PARTITION_HEAD.map(|(_, width)| Constraint::Length(width));
    let head = TableRow::new(PARTITION_HEAD.map(|(name, _)| name));
    let widget = table_of(head, rows.collect(), &widths);
    let mut state = TableState::default().with_selected(selected.map(|(at, _)| at));
    StatefulWidget::render(widget, table, buffer, &mut state);
    if let Some((_, one)) = selected {
        let lines = holder(&snapshot.consumer_group, one);
        let lines: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
        Paragraph::new(lines)
            .wrap(Wrap { trim: false })
            .render(below, buffer);
    }
}

fn partition_row(one: &PartitionSnapshot, now_ms: i64) -> TableRow<'static> {
    let holder = one.holder.as_ref();
    TableRow::new([
        text::escape(&one.topic).into_owned(),
        one.partition.to_string(),
        text::count(one.committed),
        text::count(one.end),
        text::count(one.end.saturating_sub(one.position)),
        text::count(one.held),
        one.oldest_unfinished_ms
            .map_or(text::NONE.to_owned(), |at| since(at, now_ms)),
        holder.map_or(text::NONE.to_owned(), |holder| holder.offset.to_string()),
    ])
}

fn holder(group: &str, one: &PartitionSnapshot) -> Vec<String> {
    let Some(holder) = &one.holder else {
        return vec!["no message holds this partition".into()];
    };
    let place = format!(
        "{}/{}@{}",
        text::escape(&one.topic),
        one.partition,
        holder.offset
    );
    status::holder_lines(&place, &one.topic, one.partition, group, holder)
}

const fn state_style(state: State) -> Style {
    match state {
        State::Running => Style::new(),
        State::Failed | State::Blocked => Style::new().fg(Color::Red),
        _ => Style::new().fg(Color::Yellow),
    }
}

fn since(at_ms: i64, now_ms: i64) -> String {
    time::span(u64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or_default())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is a small positive number"
)]
fn rounded(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 {
        format!("{rate:.1}")
    } else {
        text::count(rate.round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::tests::model;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    const NOW_MS: i64 = 50_000;

    fn shown(model: &Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let drawn = |frame: &mut ratatui::Frame<'_>| {
            let area = frame.area();
            draw(model, NOW_MS, area, frame.buffer_mut());
        };
        terminal.draw(drawn).unwrap();
        lines(terminal.backend().buffer())
    }

    #[test]
    fn a_frame_has_every_pipeline_with_its_figures_and_why_it_does_not_run() {
        let model = model();
        let lines = shown(&model, 160, 12);
        assert!(lines[0].contains("process 7") && lines[0].contains("store: healthy"));
        let words = |line: &str| {
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let head = words(&lines[1]);
        assert_eq!(head[..3], ["PIPELINE", "STATE▼", "IN/S"]);
        assert_eq!(words(&lines[2])[..2], ["stuck", "blocked"]);
        let runs = words(&lines[3]);
        assert_eq!(
            runs,
            [
                "runs", "running", "500", "1,000", "120", "20", "10s", "7", "21", "0", "1,000+",
                "3", "3.0", "MiB"
            ]
        );
        let why = "stuck is blocked: the disk\\u{1b}[2J is full";
        assert!(lines.iter().any(|line| line == why), "{lines:#?}");
        assert!(lines.last().unwrap().starts_with("q quit"));
    }

    #[test]
    fn an_opened_pipeline_shows_its_partitions_and_the_message_that_holds_one_with_what_to_do() {
        let mut model = model();
        model.select(1);
        model.open();
        let text = shown(&model, 120, 20).join("\n");
        for part in [
            "pipeline runs, consumer group g: running",
            "in.g.retry.2s",
            "in/0@10 holds the partition: key N1\\u{202e}, correlation ID c-1",
            "attempt 3 of 5 failed",
            "last error: no such\\norder",
            "wasmill show in/0@10",
            "wasmill reject in/0@10 --group g",
        ] {
            assert!(text.contains(part), "no {part:?} in\n{text}");
        }
        model.select(1);
        let text = shown(&model, 120, 20).join("\n");
        assert!(text.contains("no message holds this partition"), "{text}");
    }

    #[test]
    fn a_host_that_does_not_answer_is_said_and_the_last_figures_stay() {
        let mut model = model();
        model.fail("connection refused".into());
        let text = shown(&model, 100, 10).join("\n");
        assert!(text.contains("does not answer: connection refused"));
        assert!(text.contains("runs"));
    }

    #[test]
    fn a_terminal_of_any_size_is_drawn() {
        let mut model = model();
        for opened in [false, true] {
            if opened {
                model.open();
            }
            for (width, height) in [(1, 1), (3, 2), (20, 4), (400, 3)] {
                shown(&model, width, height);
            }
        }
    }
}
