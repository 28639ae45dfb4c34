//! Any bytes are a configuration or are told why not; nothing panics, nothing is slow.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// Pieces that mean something in YAML, in a configuration or in an expression.
const PIECES: [&str; 40] = [
    "\n",
    "\n  ",
    "\n    ",
    "\t",
    ": ",
    "- ",
    "? ",
    "{",
    "}",
    "[",
    "]",
    ",",
    "'",
    "\"",
    "|\n",
    ">-\n",
    "&a ",
    "*a",
    "!!str ",
    "<<: *a",
    "---\n",
    "...\n",
    "#",
    "${",
    "${A}",
    "${A:-b}",
    "$${",
    "}",
    "null",
    "~",
    "true",
    "-1",
    "99999999999999999999",
    "10s",
    "64KiB",
    "\u{feff}",
    "\u{0}",
    "é",
    "message.json.a",
    "\u{1b}[31m",
];

fn mutated() -> impl Strategy<Value = String> {
    let edit = (any::<Index>(), 0_usize..12, select(&PIECES[..]));
    (
        select(&[EVERYTHING, HELLO][..]),
        proptest::collection::vec(edit, 1..6),
    )
        .prop_map(|(text, edits)| {
            let mut text = text.to_owned();
            for (at, removed, piece) in edits {
                let boundaries: Vec<_> = text
                    .char_indices()
                    .map(|(at, _)| at)
                    .chain([text.len()])
                    .collect();
                let at = at.index(boundaries.len());
                let (from, to) = (
                    boundaries[at],
                    boundaries[(at + removed).min(boundaries.len() - 1)],
                );
                text.replace_range(from..to, piece);
            }
            text
        })
}

fn is_told_well(text: &str) -> Result<(), TestCaseError> {
    let start = Instant::now();
    let result = load_text(Path::new("x.yaml"), text, &no_env);
    let (problems, sources) = match result {
        Ok(loaded) => (loaded.warnings, loaded.sources),
        Err(error) => {
            prop_assert!(error.problems.iter().any(|p| p.severity == Severity::Error));
            (error.problems, error.sources)
        }
    };
    for problem in &problems {
        let span = problem.span.unwrap();
        prop_assert!(
            span.start <= span.end && span.end <= text.len(),
            "{:?}",
            problem
        );
        prop_assert!(
            text.is_char_boundary(span.start) && text.is_char_boundary(span.end),
            "{:?}",
            problem
        );
        prop_assert!(problem.line >= 1 && problem.column >= 1 && !problem.message.is_empty());
        prop_assert!(
            !problem.message.contains('\n') && problem.message.len() < 1000,
            "{}",
            problem.message
        );
    }
    let shown = render(&problems, &sources, false);
    prop_assert!(
        !shown.contains('\u{1b}'),
        "a configuration controls the terminal"
    );
    prop_assert!(start.elapsed() < Duration::from_secs(5));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_mutated_configuration_loads_or_is_told_where_it_is_wrong(text in mutated()) {
        is_told_well(&text)?;
    }

    #[test]
    fn any_text_loads_or_is_told_where_it_is_wrong(text in "(version: 1\n)?(\\PC|[\n :,\\[\\]{}&*!|>'\"%@`#-]){0,80}") {
        is_told_well(&text)?;
    }

    #[test]
    fn a_substitution_of_any_text_does_not_panic(text in "([$]|[{]|[}]|:|-|[?]|A|é|\\PC){0,20}", value in proptest::option::of("\\PC{0,5}")) {
        let _result = scalar::substitute(&text, &|_| value.clone());
        let _times = (scalar::timestamp(&text), scalar::duration(&text), scalar::size(&text));
    }
}

#[test]
fn a_large_file_is_refused_or_read_in_bounded_time() {
    for text in [
        "version: 1\npipelines:\n".to_owned() + &"  - {}\n".repeat(15_000),
        "version: 1\npipelines: [".to_owned() + &"{},".repeat(15_000) + "]",
        "a: ".to_owned() + &"x".repeat(1 << 20),
        "[".repeat(100_000),
        "a:\n".repeat(100_000),
    ] {
        is_told_well(&text).unwrap();
    }
}

#[test]
fn a_file_over_the_limit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("big.yaml");
    std::fs::write(&file, " ".repeat((1 << 20) + 1)).unwrap();
    let error = load(&[file], &no_env).unwrap_err();
    assert_eq!(error.problems[0].code, Code::TooBig);
}

/// Mistakes of the range among those of a pipeline with `extra` keys.
fn out_of_range(pipeline: &str) -> usize {
    let found = problems(&format!("version: 1\npipelines:\n  - {pipeline}\n"));
    found.iter().filter(|p| p.code == Code::OutOfRange).count()
}

fn many(count: usize, one: impl Fn(usize) -> String) -> String {
    (0..count).map(one).collect::<Vec<_>>().join(", ")
}

#[test]
fn every_list_and_map_of_a_configuration_is_bounded() {
    for (limit, pipeline) in [
        (
            256,
            &(|n| format!("source: {{ topics: [{}] }}", many(n, |i| format!("t{i}"))))
                as &dyn Fn(usize) -> String,
        ),
        (256, &|n| {
            format!(
                "outputs: {{ {} }}",
                many(n, |i| format!("o{i}: {{ topic: t }}"))
            )
        }),
        (64, &|n| {
            format!(
                "outputs: {{ o: {{ topic: t, headers: [{}] }} }}",
                many(n, |i| format!("h{i}"))
            )
        }),
        (16, &|n| {
            format!(
                "idempotency: {{ fingerprint: [{}] }}",
                many(n, |_| "message.key".into())
            )
        }),
        (256, &|n| {
            format!(
                "handler: {{ config: {{ {} }} }}",
                many(n, |i| format!("c{i}: v"))
            )
        }),
    ] {
        let inside = |n| format!("{{ {} }}", pipeline(n));
        assert_eq!(out_of_range(&inside(limit)), 0, "{limit}");
        assert_eq!(out_of_range(&inside(limit + 1)), 1, "{limit}");
    }
    let pipelines = |n| format!("version: 1\npipelines: [{}]\n", many(n, |_| "{}".into()));
    let beyond = |n| {
        problems(&pipelines(n))
            .iter()
            .any(|p| p.code == Code::OutOfRange)
    };
    assert!(!beyond(1024) && beyond(1025));
}

#[test]
fn a_folder_of_too_many_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..257 {
        std::fs::write(folder.path().join(format!("{n}.yaml")), "version: 1\n").unwrap();
    }
    let error = load(&[folder.path().to_owned()], &no_env).unwrap_err();
    assert_eq!(error.problems.len(), 1);
    assert_eq!(error.problems[0].code, Code::TooBig);
}

#[test]
fn only_the_first_hundred_problems_are_shown_and_all_are_counted() {
    let text =
        "version: 1\nhost: { ".to_owned() + &many(150, |i| format!("\n  wrong{i}: 1")) + " }\n";
    let error = load_text(Path::new("x.yaml"), &text, &no_env).unwrap_err();
    let shown = render(&error.problems, &error.sources, false);
    assert_eq!(shown.matches("is not a key").count(), 100);
    assert!(
        shown.ends_with("only the first 100 are shown\n150 errors\n"),
        "{shown}"
    );
}

#[test]
fn lists_longer_than_their_limit_are_refused_and_at_the_limit_are_not() {
    let pipeline = |topics: usize, outputs: usize, fingerprint: usize| {
        let names = |what: &str, count: usize| {
            let names: Vec<String> = (0..count).map(|n| format!("{what}{n}")).collect();
            names.join(", ")
        };
        let outputs: Vec<String> = (0..outputs)
            .map(|n| format!("o{n}: {{ topic: o{n} }}"))
            .collect();
        format!(
            "version: 1\npipelines:\n  - name: p\n    source: {{ topics: [{}], consumer_group: g, start: earliest, format: json }}\n    handler: {{ plugin: p.wasm }}\n    outputs: {{ {} }}\n    idempotency: {{ key: message.json.id, ttl: 1h, fingerprint: [{}] }}\n",
            names("t", topics),
            outputs.join(", "),
            names("message.json.f", fingerprint),
        )
    };
    let at_the_limit = problems(&pipeline(256, 256, 16));
    assert!(
        at_the_limit
            .iter()
            .all(|problem| problem.severity != Severity::Error),
        "{at_the_limit:?}"
    );
    for (text, limit) in [
        (pipeline(257, 1, 1), "256"),
        (pipeline(1, 257, 1), "256"),
        (pipeline(1, 1, 17), "16"),
    ] {
        let found = problems(&text);
        let error = found
            .iter()
            .find(|problem| problem.severity == Severity::Error);
        let message = error.map(|problem| format!("{} {:?}", problem.message, problem.help));
        assert!(
            message
                .as_ref()
                .is_some_and(|message| message.contains(limit)),
            "{message:?}"
        );
    }
}

#[test]
fn more_pipelines_than_pipelines_max_are_refused() {
    let pipelines: String = (0..=PIPELINES_MAX)
        .map(|n| format!("  - {{ name: p{n}, source: {{ topics: [t{n}], consumer_group: g, start: earliest }}, handler: {{ plugin: p }} }}\n"))
        .collect();
    let found = problems(&format!("version: 1\npipelines:\n{pipelines}"));
    let refused = found
        .iter()
        .any(|problem| problem.severity == Severity::Error && problem.message.contains("1024"));
    assert!(refused, "{:?}", found.first());
}
