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
