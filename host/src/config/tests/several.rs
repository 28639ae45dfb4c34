//! Several files and folders as one configuration, and defaults under all of them.

use super::*;

fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn pipeline(name: &str) -> String {
    format!(
        "version: 1\npipelines:\n  - {{ name: {name}, source: {{ topics: [t], consumer_group: {name}, start: latest }}, handler: {{ plugin: {name}.wasm }} }}\n"
    )
}

#[test]
fn the_yaml_of_a_folder_is_one_configuration_in_the_order_of_names() {
    let folder = written(&[
        ("b.yaml", &pipeline("b")),
        ("a.yml", &pipeline("a")),
        ("c.txt", "not: [read"),
    ]);
    let loaded = load(&[folder.path().to_owned()], &no_env).unwrap();
    let names: Vec<_> = loaded
        .config
        .pipelines
        .iter()
        .map(|p| p.name.as_str())
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(
        loaded.config.pipelines[0].handler.plugin,
        folder.path().join("a.wasm")
    );
}

#[test]
fn a_file_named_twice_is_read_once() {
    let folder = written(&[("a.yaml", &pipeline("a"))]);
    let paths = [folder.path().join("a.yaml"), folder.path().to_owned()];
    assert_eq!(load(&paths, &no_env).unwrap().config.pipelines.len(), 1);
}

#[test]
fn defaults_of_one_file_are_merged_under_the_pipelines_of_all() {
    let defaults = "version: 1\ndefaults:\n  delivery: exactly_once\n  source: { window: { messages: 7 } }\n  outputs: { audit: { topic: audit } }\n";
    let folder = written(&[("a.yaml", &pipeline("a")), ("z.yaml", defaults)]);
    let config = load(&[folder.path().to_owned()], &no_env).unwrap().config;
    assert_eq!(config.pipelines[0].delivery, Delivery::ExactlyOnce);
    assert_eq!(config.pipelines[0].source.window.messages, 7);
    assert_eq!(config.pipelines[0].source.start, Start::Latest);
    assert_eq!(config.pipelines[0].outputs[0].topic, "audit");
}

#[test]
fn a_pipeline_replaces_lists_and_whole_values_of_the_defaults() {
    let text = "version: 1\ndefaults:\n  source: { topics: [x, y], start: { offset: 3 } }\n"
        .to_owned()
        + pipeline("a").strip_prefix("version: 1\n").unwrap();
    let config = loaded(&text).config;
    assert_eq!(config.pipelines[0].source.topics, ["t"]);
    assert_eq!(config.pipelines[0].source.start, Start::Latest);
}

#[test]
fn mistakes_of_all_files_are_told_at_once() {
    let folder = written(&[
        ("a.yaml", "version: 1\nhots: {}\n"),
        ("b.yaml", "version: [1\n"),
        ("c.yaml", "version: 1\npipelines: 5\n"),
    ]);
    let missing = folder.path().join("none.yaml");
    let error = load(&[folder.path().to_owned(), missing], &no_env).unwrap_err();
    let codes: Vec<_> = error.problems.iter().map(|p| p.code).collect();
    assert_eq!(
        codes,
        [
            Code::UnknownKey,
            Code::Syntax,
            Code::WrongType,
            Code::Unreadable
        ]
    );
    let error = error.to_string();
    assert_eq!(
        error,
        "the configuration has 4 errors; `wasmill lint` shows them"
    );
}

#[test]
fn host_and_defaults_stand_in_one_file_at_most() {
    let both = "version: 1\nhost: {}\ndefaults: {}\n";
    let folder = written(&[("a.yaml", both), ("b.yaml", both)]);
    let error = load(&[folder.path().to_owned()], &no_env).unwrap_err();
    assert_eq!(error.problems.len(), 2);
    assert!(
        error
            .problems
            .iter()
            .all(|p| p.code == Code::Conflict && p.file.ends_with("b.yaml"))
    );
}

#[test]
fn a_folder_without_yaml_is_an_error() {
    let folder = written(&[("a.txt", "")]);
    let error = load(&[folder.path().to_owned()], &no_env).unwrap_err();
    assert_eq!(error.problems[0].code, Code::Unreadable);
}

#[test]
fn a_missing_plugin_is_told_at_its_place_and_not_by_loading() {
    let folder = written(&[
        ("a.yaml", &pipeline("a")),
        ("b.yaml", &pipeline("b")),
        ("b.wasm", ""),
    ]);
    let loaded = load(&[folder.path().to_owned()], &no_env).unwrap();
    let missing = loaded.missing_plugins();
    assert_eq!(missing.len(), 1);
    assert_eq!(
        (missing[0].code, missing[0].line, missing[0].column),
        (Code::MissingPlugin, 3, 94)
    );
}

#[test]
fn a_problem_is_json_for_programs() {
    let problem = &problems("version: 1\nhots: {}\n")[0];
    let expected = serde_json::json!({
        "file": "pipeline.yaml", "line": 2, "column": 1, "span": { "start": 11, "end": 15 }, "severity": "error",
        "code": "unknown_key", "message": "`hots` is not a key of `configuration`", "help": "did you mean `host`?",
    });
    assert_eq!(serde_json::to_value(problem).unwrap(), expected);
}

#[test]
fn codes_are_written_alike_everywhere() {
    for code in Code::ALL {
        assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
    }
}
