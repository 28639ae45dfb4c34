//! Reading the host's log files (`telemetry/log_files.rs` writes them): the newest lines that fit a
//! filter, or those after a place. Needs no lock: it works while a host runs and when none does.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::console::Console;
use super::error::{Code, Error};
use super::time;
use crate::telemetry::log_files::{numbers, path};

/// Lines of one page.
pub const LOG_PAGE_LINES_MAX: u32 = 10_000;
/// Bytes of the newest files that one question reads.
pub const LOG_SCAN_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// From the most to the least urgent.
pub const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// `GET /v1/logs?pipeline=&level=&correlation_id=&since_ms=&limit=&after=`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    #[serde(default)]
    pub pipeline: Option<String>,
    /// This level and the more urgent ones: `error`, `warn`, `info`, `debug` or `trace`.
    #[serde(default)]
    pub level: Option<String>,
    #[serde(default)]
    pub correlation_id: Option<String>,
    /// Unix ms; older lines are left out.
    #[serde(default)]
    pub since_ms: Option<i64>,
    /// Lines at most, the newest. Default and cap: [`LOG_PAGE_LINES_MAX`].
    #[serde(default)]
    pub limit: Option<u32>,
    /// `next` of an earlier page: the oldest lines after it.
    #[serde(default)]
    pub after: Option<String>,
}

/// Lines, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    pub lines: Vec<LogLine>,
    /// Where the next page begins.
    pub next: String,
    /// False: older files were not read, [`LOG_SCAN_BYTES_MAX`].
    pub complete: bool,
}

/// A line of the host or of a handler (`target` is `guest`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct LogLine {
    /// Unix ms.
    pub timestamp_ms: i64,
    /// Upper case.
    pub level: String,
    pub target: String,
    pub message: String,
    pub pipeline: Option<String>,
    pub correlation_id: Option<String>,
    /// `topic/partition@offset` of the message it is about.
    pub place: Option<String>,
    /// The attempt that failed, counted from 1.
    pub attempt: Option<u32>,
    pub error: Option<String>,
    /// Until the next attempt.
    pub delay_ms: Option<u64>,
    /// Everything else the line says.
    pub fields: BTreeMap<String, String>,
}

impl Console {
    /// Lines of this host's log files.
    pub fn logs(&self, query: &LogQuery) -> Result<LogPage, Error> {
        match &self.logs {
            Some(folder) => read(folder, query),
            None => Ok(LogPage {
                complete: true,
                ..LogPage::default()
            }),
        }
    }
}

/// Lines of the files in `folder`.
pub fn read(folder: &Path, query: &LogQuery) -> Result<LogPage, Error> {
    let filter = Filter::new(query)?;
    let unreadable = |why: io::Error| {
        Error::new(
            Code::StoreUnavailable,
            format!(
                "the log files in {} cannot be read: {why}",
                folder.display()
            ),
            "run the command as the host's user",
        )
    };
    pages(folder, query, &filter).map_err(unreadable)
}

fn pages(folder: &Path, query: &LogQuery, filter: &Filter<'_>) -> io::Result<LogPage> {
    let limit = query.limit.unwrap_or(LOG_PAGE_LINES_MAX);
    let limit = limit.clamp(1, LOG_PAGE_LINES_MAX) as usize;
    let files = numbers(folder)?;
    let newest = files.last().copied().unwrap_or(0);
    let begin = query.after.as_deref().and_then(cursor);
    let (from, complete) = match begin {
        Some((number, _)) => (number, true),
        None => first_file(folder, &files)?,
    };
    let mut next = begin.unwrap_or((newest, 0));
    let mut lines = VecDeque::new();
    for number in files.into_iter().filter(|number| *number >= from) {
        let skip = match begin {
            Some((at, offset)) if at == number => offset,
            _ => 0,
        };
        let full = |lines: &VecDeque<LogLine>| begin.is_some() && lines.len() >= limit;
        if full(&lines) {
            break;
        }
        let read = each_line(&path(folder, number), skip, |bytes| {
            lines.extend(filter.line(bytes));
            if begin.is_none() && lines.len() > limit {
                lines.pop_front();
            }
            !full(&lines)
        })?;
        if let Some(end) = read {
            next = (number, end);
        }
    }
    Ok(LogPage {
        lines: lines.into(),
        next: format!("{}:{}", next.0, next.1),
        complete,
    })
}

/// The oldest file that is read, and whether it is the oldest there is.
fn first_file(folder: &Path, files: &[u64]) -> io::Result<(u64, bool)> {
    let mut bytes = 0;
    let mut first = files.last().copied().unwrap_or(0);
    for number in files.iter().rev() {
        bytes += std::fs::metadata(path(folder, *number)).map_or(0, |found| found.len());
        if bytes > LOG_SCAN_BYTES_MAX && *number != first {
            return Ok((first, false));
        }
        first = *number;
    }
    Ok((first, true))
}

fn cursor(text: &str) -> Option<(u64, u64)> {
    let (number, offset) = text.split_once(':')?;
    Some((number.parse().ok()?, offset.parse().ok()?))
}

/// Shows the whole lines from byte `skip` on until `see` says false; the byte after the last one shown.
/// `None`: the file went meanwhile.
fn each_line(
    file: &Path,
    skip: u64,
    mut see: impl FnMut(&[u8]) -> bool,
) -> io::Result<Option<u64>> {
    let mut file = match File::open(file) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    file.seek(SeekFrom::Start(skip))?;
    let mut reader = BufReader::with_capacity(256 * 1024, file);
    let (mut at, mut line) = (skip, Vec::new());
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        // The last line may be half written.
        if line.last() != Some(&b'\n') {
            return Ok(Some(at));
        }
        at += read as u64;
        if !see(&line) {
            return Ok(Some(at));
        }
    }
}

struct Filter<'q> {
    query: &'q LogQuery,
    /// Place in [`LEVELS`] of the least urgent level wanted.
    rank: usize,
}

impl<'q> Filter<'q> {
    fn new(query: &'q LogQuery) -> Result<Self, Error> {
        let rank = match &query.level {
            None => LEVELS.len(),
            Some(level) => rank(level).ok_or_else(|| {
                Error::new(
                    Code::Invalid,
                    format!("there is no log level {level}"),
                    "the levels are error, warn, info, debug and trace",
                )
            })?,
        };
        Ok(Self { query, rank })
    }

    fn line(&self, bytes: &[u8]) -> Option<LogLine> {
        // Most lines are not wanted: they are not parsed.
        for wanted in [&self.query.pipeline, &self.query.correlation_id] {
            if let Some(wanted) = wanted
                && wanted.bytes().all(|byte| byte.is_ascii_graphic())
                && !wanted.contains(['"', '\\'])
                && memchr::memmem::find(bytes, wanted.as_bytes()).is_none()
            {
                return None;
            }
        }
        let line = parse(bytes)?;
        let is =
            |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        let fits = is(&self.query.pipeline, &line.pipeline)
            && is(&self.query.correlation_id, &line.correlation_id)
            && self
                .query
                .since_ms
                .is_none_or(|since| line.timestamp_ms >= since)
            && rank(&line.level).is_none_or(|rank| rank <= self.rank);
        fits.then_some(line)
    }
}

fn rank(level: &str) -> Option<usize> {
    LEVELS
        .iter()
        .position(|known| known.eq_ignore_ascii_case(level))
}

/// `None`: a killed host left half a line.
fn parse(bytes: &[u8]) -> Option<LogLine> {
    let Value::Object(mut found) = serde_json::from_slice(bytes).ok()? else {
        return None;
    };
    let mut take = |name: &str| found.remove(name).map(text);
    let timestamp = take("timestamp").and_then(|text| time::parse_rfc3339(&text));
    let written = take("timestamp_ms").and_then(|text| text.parse().ok());
    Some(LogLine {
        timestamp_ms: timestamp.or(written).unwrap_or_default(),
        level: take("level").unwrap_or_default(),
        target: take("target").unwrap_or_default(),
        message: take("message").unwrap_or_default(),
        pipeline: take("pipeline"),
        correlation_id: take("correlation_id"),
        place: take("place"),
        attempt: take("attempt").and_then(|text| text.parse().ok()),
        error: take("error"),
        delay_ms: take("delay_ms").and_then(|text| text.parse().ok()),
        fields: found
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect(),
    })
}

fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: u32, level: &str, id: &str) -> String {
        format!(
            "{{\"timestamp\":\"2026-01-01T00:00:{at:02}.000000Z\",\"level\":\"{level}\",\"message\":\"m{at}\",\"pipeline\":\"p\",\"correlation_id\":\"{id}\",\"attempt\":2,\"delay_ms\":7,\"target\":\"guest\",\"offset\":9}}\n"
        )
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |number, text: String| std::fs::write(path(folder.path(), number), text).unwrap();
        write(3, line(1, "WARN", "a") + &line(2, "INFO", "b") + "{\"cut\n");
        write(4, line(3, "ERROR", "a") + "{\"half");
        folder
    }

    fn messages(page: &LogPage) -> Vec<&str> {
        page.lines
            .iter()
            .map(|line| line.message.as_str())
            .collect()
    }

    #[test]
    fn lines_are_found_by_correlation_id_level_and_time_across_files() {
        let folder = folder();
        let ask = |query: LogQuery| read(folder.path(), &query).unwrap();
        assert_eq!(messages(&ask(LogQuery::default())), ["m1", "m2", "m3"]);
        let of_a = ask(LogQuery {
            correlation_id: Some("a".into()),
            ..LogQuery::default()
        });
        assert_eq!(messages(&of_a), ["m1", "m3"]);
        assert_eq!(
            (of_a.lines[0].attempt, of_a.lines[0].delay_ms),
            (Some(2), Some(7))
        );
        assert_eq!(of_a.lines[0].fields["offset"], "9");
        let urgent = ask(LogQuery {
            level: Some("warn".into()),
            ..LogQuery::default()
        });
        assert_eq!(messages(&urgent), ["m1", "m3"]);
        let late = ask(LogQuery {
            since_ms: time::parse_rfc3339("2026-01-01T00:00:02Z"),
            ..LogQuery::default()
        });
        assert_eq!(messages(&late), ["m2", "m3"]);
        let newest = ask(LogQuery {
            limit: Some(1),
            ..LogQuery::default()
        });
        assert_eq!(messages(&newest), ["m3"]);
    }

    #[test]
    fn following_shows_each_line_once_and_a_half_written_one_when_it_is_whole() {
        let folder = folder();
        let page = read(folder.path(), &LogQuery::default()).unwrap();
        let after = |next: &str| {
            let after = Some(next.to_owned());
            read(
                folder.path(),
                &LogQuery {
                    after,
                    ..LogQuery::default()
                },
            )
            .unwrap()
        };
        assert!(after(&page.next).lines.is_empty());
        std::fs::write(
            path(folder.path(), 4),
            line(3, "ERROR", "a") + &line(4, "INFO", "c"),
        )
        .unwrap();
        std::fs::write(path(folder.path(), 5), line(5, "INFO", "c")).unwrap();
        let more = after(&page.next);
        assert_eq!(messages(&more), ["m4", "m5"]);
        assert!(after(&more.next).lines.is_empty());
    }

    #[test]
    fn log_page_lines_max_bounds_a_page_and_an_unknown_level_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let many: String = (0..LOG_PAGE_LINES_MAX + 5)
            .map(|_| line(1, "INFO", "a"))
            .collect();
        std::fs::write(path(folder.path(), 0), many).unwrap();
        let query = LogQuery {
            limit: Some(u32::MAX),
            ..LogQuery::default()
        };
        let page = read(folder.path(), &query).unwrap();
        assert_eq!(page.lines.len(), LOG_PAGE_LINES_MAX as usize);
        let query = LogQuery {
            level: Some("loud".into()),
            ..LogQuery::default()
        };
        assert!(
            read(folder.path(), &query)
                .unwrap_err()
                .help
                .contains("warn")
        );
    }
}
