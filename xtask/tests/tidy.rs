//! The rules of ARCHITECTURE.md and docs/limits.md that can be read off the sources, so that they stay
//! true without anybody remembering them. It knows text, not Rust: each rule is a word that may stand
//! only in some places.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file may be this long; most are much shorter.
const LINES_MAX: usize = 800;

/// The rooms of the host, and which of the others each may not use: what is above it in the reading
/// order, and what stands beside the path.
const FORBIDDEN: &[(&str, &[&str])] = &[
    ("pipeline", &["host", "cli", "admin", "telemetry"]),
    (
        "connector",
        &["plugin", "idempotency", "host", "cli", "admin", "telemetry"],
    ),
    (
        "plugin",
        &[
            "pipeline",
            "connector",
            "idempotency",
            "host",
            "cli",
            "admin",
            "telemetry",
        ],
    ),
    (
        "idempotency",
        &[
            "pipeline",
            "connector",
            "plugin",
            "host",
            "cli",
            "admin",
            "telemetry",
        ],
    ),
    (
        "config",
        &[
            "pipeline",
            "connector",
            "plugin",
            "host",
            "cli",
            "admin",
            "telemetry",
        ],
    ),
    (
        "expression",
        &[
            "config",
            "pipeline",
            "connector",
            "plugin",
            "host",
            "cli",
            "admin",
        ],
    ),
    (
        "message",
        &[
            "config",
            "pipeline",
            "connector",
            "plugin",
            "host",
            "cli",
            "admin",
            "expression",
        ],
    ),
];

/// Files of the pure core: no threads, no clock, no I/O, no engine. The seeded simulation runs them.
const PURE: &[&str] = &[
    "host/src/idempotency/claims.rs",
    "host/src/idempotency/completion.rs",
    "host/src/idempotency/mod.rs",
    "host/src/message.rs",
    "host/src/pipeline/admit.rs",
    "host/src/pipeline/answer.rs",
    "host/src/pipeline/correlation.rs",
    "host/src/pipeline/counts.rs",
    "host/src/pipeline/dead_letter.rs",
    "host/src/pipeline/deduplicate.rs",
    "host/src/pipeline/deferred.rs",
    "host/src/pipeline/judge.rs",
    "host/src/pipeline/lane.rs",
    "host/src/pipeline/letter_state.rs",
    "host/src/pipeline/letter_writes.rs",
    "host/src/pipeline/offsets.rs",
    "host/src/pipeline/outage.rs",
    "host/src/pipeline/output.rs",
    "host/src/pipeline/overlay.rs",
    "host/src/pipeline/plan.rs",
    "host/src/pipeline/reject.rs",
    "host/src/pipeline/replay.rs",
    "host/src/pipeline/run.rs",
    "host/src/pipeline/sequence.rs",
    "host/src/pipeline/sequence_stage.rs",
    "host/src/pipeline/settle.rs",
    "host/src/pipeline/settlement.rs",
    "host/src/pipeline/stored.rs",
    "host/src/pipeline/trace.rs",
    "host/src/pipeline/traced.rs",
    "host/src/pipeline/verdict.rs",
    "host/src/pipeline/window.rs",
];

/// What the pure core may not say outside its tests.
const IMPURE: [&str; 10] = [
    "tokio",
    "wasmtime",
    "fjall",
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "rand::rng",
];

struct Source {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// A file of tests alone.
    fn is_test(&self) -> bool {
        let is_one_file = self.path.ends_with("/tests.rs") || self.path.ends_with("/testing.rs");
        is_one_file || self.path.contains("/tests/")
    }

    /// The code without comments and without the tests at the end.
    fn code(&self) -> String {
        let end = self
            .text
            .find("\n#[cfg(test)]\nmod ")
            .unwrap_or(self.text.len());
        let lines = self.text[..end].lines();
        let code = lines.map(|line| line.split("//").next().unwrap_or_default());
        code.collect::<Vec<_>>().join("\n")
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Every file under `folder` whose name ends with `ending`, build results left out.
fn files(folder: &str, ending: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    folders.push(path);
                }
            } else if name.to_string_lossy().ends_with(ending) {
                let relative = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.push(Source {
                    text: String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
                    path: relative,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn all_rust() -> Vec<Source> {
    let found = files("", ".rs");
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// Fails with every place that breaks the rule.
fn none(rule: &str, broken: impl IntoIterator<Item = String>) {
    let broken: Vec<String> = broken.into_iter().collect();
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Whether `word` stands in `code` as a name of its own.
fn says(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        !code[..at].ends_with(is_part) && !code[at + word.len()..].starts_with(is_part)
    })
}

#[test]
fn the_rules_see_words_in_code_and_nowhere_else() {
    let text = "//! fjall\nuse wasmtime::Engine; // fjall\nlet my_fjall = 1;\n#[cfg(test)]\nmod tests { use fjall; }";
    let source = Source {
        path: String::new(),
        text: text.to_owned(),
    };
    assert!(says(&source.code(), "wasmtime"));
    assert!(!says(&source.code(), "fjall"));
    assert!(says(&source.text, "fjall"));
}

#[test]
fn every_file_opens_with_what_it_is_responsible_for() {
    let sources = all_rust()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!"));
    none(
        "these files do not start with //!",
        sources.map(|source| source.path),
    );
}

#[test]
fn no_file_is_longer_than_800_lines() {
    let long = all_rust()
        .into_iter()
        .filter(|source| source.text.lines().count() > LINES_MAX);
    none("split these", long.map(|source| source.path));
}

#[test]
fn only_the_plugin_room_knows_wasmtime() {
    let elsewhere = files("host/src", ".rs").into_iter().filter(|source| {
        !source.path.starts_with("host/src/plugin/") && says(&source.code(), "wasmtime")
    });
    none(
        "wasmtime outside host/src/plugin",
        elsewhere.map(|source| source.path),
    );
}

#[test]
fn only_the_embedded_connector_knows_fjall() {
    let elsewhere = files("host/src", ".rs").into_iter().filter(|source| {
        !source.path.starts_with("host/src/connector/embedded/") && says(&source.code(), "fjall")
    });
    none(
        "fjall outside host/src/connector/embedded",
        elsewhere.map(|source| source.path),
    );
}

#[test]
fn the_pure_core_has_no_clock_no_threads_and_no_io() {
    let sources = files("host/src", ".rs");
    let mut broken = Vec::new();
    for path in PURE {
        let Some(source) = sources.iter().find(|source| source.path == *path) else {
            broken.push(format!("{path}: not found"));
            continue;
        };
        let code = source.code();
        let said = IMPURE.iter().filter(|word| says(&code, word));
        broken.extend(said.map(|word| format!("{path}: {word}")));
    }
    none("the pure core may not know these", broken);
}

#[test]
fn imports_point_down_the_reading_order() {
    let mut broken = Vec::new();
    for (room, forbidden) in FORBIDDEN {
        for source in files("host/src", ".rs") {
            let inside = source.path.starts_with(&format!("host/src/{room}/"))
                || source.path == format!("host/src/{room}.rs");
            if !inside || source.is_test() {
                continue;
            }
            let code = source.code();
            let used = forbidden
                .iter()
                .filter(|room| says(&code, &format!("crate::{room}")));
            broken.extend(used.map(|above| format!("{} uses crate::{above}", source.path)));
            if code.contains("crate::{") {
                broken.push(format!("{}: write one `use crate::…` a line", source.path));
            }
        }
    }
    none("these imports point up", broken);
}

#[test]
fn one_match_on_the_verdict_in_the_whole_host() {
    let mut places = Vec::new();
    for source in files("host/src", ".rs") {
        // Where it is defined it may look at itself.
        if source.path == "host/src/pipeline/verdict.rs" {
            continue;
        }
        let code = source.code();
        let arms = code.lines().filter(|line| {
            let line = line.trim_start();
            line.starts_with("Verdict::Ack") && line.contains("=>")
        });
        places.extend(arms.map(|_| source.path.clone()));
    }
    assert!(places.len() <= 1, "a second match on Verdict: {places:?}");
}

#[test]
fn nothing_is_unbounded() {
    let words = ["unbounded", "unbounded_channel", "mpsc::channel"];
    let mut broken = Vec::new();
    for source in files("host/src", ".rs") {
        if source.is_test() {
            continue;
        }
        let code = source.code();
        for word in words.iter().filter(|word| says(&code, word)) {
            // tokio's bounded one has the same name and takes a capacity.
            if *word != "mpsc::channel" || code.contains("mpsc::channel()") {
                broken.push(format!("{}: {word}", source.path));
            }
        }
    }
    none("queues need a bound", broken);
}

#[test]
fn no_unfinished_code_and_no_test_that_is_skipped() {
    let words = [
        "TODO",
        "FIXME",
        "XXX",
        "todo!",
        "unimplemented!",
        // In two parts, so that a search for it finds none here.
        concat!("#[", "ignore"),
        "under construction",
    ];
    let mut broken = Vec::new();
    for source in all_rust() {
        if source.path != "xtask/tests/tidy.rs" {
            let said = words.iter().filter(|word| source.text.contains(**word));
            broken.extend(said.map(|word| format!("{}: {word}", source.path)));
        }
    }
    none("finish these", broken);
}

/// The rows of docs/limits.md: name, default, where it is set, proving test.
fn limit_rows() -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join("docs/limits.md")).unwrap();
    let rows = text
        .lines()
        .filter(|line| line.starts_with('|') && line.contains('`'));
    rows.map(|row| {
        row.trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().to_owned())
            .collect()
    })
    .collect()
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The names of all test functions: those with `#[test]` close above.
fn test_names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for source in all_rust() {
        let lines: Vec<&str> = source.text.lines().map(str::trim).collect();
        for (at, line) in lines.iter().enumerate() {
            let above = &lines[at.saturating_sub(4)..at];
            let name = line
                .strip_prefix("fn ")
                .and_then(|rest| rest.split(['(', '<']).next());
            if above.contains(&"#[test]") {
                names.extend(name.map(str::to_owned));
            }
        }
    }
    names
}

#[test]
fn every_limit_names_a_test_that_exists() {
    let tests = test_names();
    let rows = limit_rows();
    assert!(rows.len() > 10, "docs/limits.md has no table");
    let mut broken = Vec::new();
    for row in rows {
        assert_eq!(
            row.len(),
            4,
            "a row of docs/limits.md has four cells: {row:?}"
        );
        let named = quoted(&row[3]);
        if named.is_empty() {
            broken.push(format!("{}: names no test", row[0]));
        }
        let missing = named.into_iter().filter(|test| !tests.contains(*test));
        broken.extend(missing.map(|test| format!("{}: no test is called {test}", row[0])));
    }
    none("docs/limits.md", broken);
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for page in files("", ".md") {
        let folder = root().join(&page.path);
        let folder = folder.parent().unwrap();
        for link in page
            .text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next())
        {
            let is_outside = link.is_empty() || link.contains("://");
            if !is_outside && !folder.join(link).exists() {
                broken.push(format!("{}: {link}", page.path));
            }
        }
    }
    none("links that lead nowhere", broken);
}

#[test]
fn no_path_of_a_machine_is_in_the_repository() {
    let mut broken = Vec::new();
    for ending in [".rs", ".toml", ".md", ".yaml", ".wit", ".json"] {
        for source in files("", ending) {
            let said = ["work", "home", "root"]
                .map(|folder| format!("/{folder}/"))
                .into_iter()
                .filter(|path| source.text.contains(path));
            broken.extend(said.map(|path| format!("{}: {path}", source.path)));
        }
    }
    none("paths of one machine", broken);
}
