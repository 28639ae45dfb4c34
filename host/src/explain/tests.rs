//! What `explain` says: one committed text a kind of pipeline, and that its numbers are the configuration's.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{Explained, explain};
use crate::config::{self, Loaded};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus/explain")
}

fn loaded(text: &str) -> Result<Loaded, config::Error> {
    config::load_text(Path::new("explain.yaml"), text, &|_| None)
}

fn text_of(loaded: &Loaded) -> String {
    let explained = explain(&loaded.config);
    explained.iter().map(Explained::text).collect()
}

#[test]
fn each_kind_of_pipeline_is_explained_as_committed() {
    let bless = std::env::var_os("WASMILL_BLESS").is_some();
    let mut files: Vec<PathBuf> = (std::fs::read_dir(corpus()).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(files.len() >= 5);
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let shown = text_of(&loaded(&text).unwrap());
        let expected = file.with_extension("expected");
        if bless {
            std::fs::write(&expected, &shown).unwrap();
        }
        let committed = std::fs::read_to_string(&expected).unwrap_or_default();
        let name = file.display();
        assert_eq!(shown, committed, "{name}: WASMILL_BLESS=1 writes it anew");
    }
}

/// The single values of a tree with their paths.
fn leaves(json: &Json, at: &mut Vec<String>, found: &mut Vec<(Vec<String>, Json)>) {
    let mut inside = |key: String, value: &Json, found: &mut _| {
        at.push(key);
        leaves(value, at, found);
        at.pop();
    };
    match json {
        Json::Object(entries) => entries
            .iter()
            .for_each(|(k, v)| inside(k.clone(), v, found)),
        Json::Array(entries) => {
            (entries.iter().enumerate()).for_each(|(n, v)| inside(n.to_string(), v, found));
        }
        single => found.push((at.clone(), single.clone())),
    }
}

/// Without the value at `path`; a list element takes its list along.
fn without(json: &Json, path: &[String]) -> Json {
    let mut changed = json.clone();
    let mut at = &mut changed;
    for (n, step) in path.iter().enumerate() {
        let last = n + 1 == path.len() || path[n + 1].parse::<usize>().is_ok();
        match at {
            Json::Object(entries) if last && step != "pipelines" => {
                entries.remove(step);
                break;
            }
            Json::Object(entries) => at = entries.get_mut(step).unwrap(),
            Json::Array(entries) => at = &mut entries[step.parse::<usize>().unwrap()],
            _ => unreachable!("a path ends at a single value"),
        }
    }
    changed
}

/// Values of the file `everything.yaml` that no rule has to say: where a process keeps things, what there is
/// one choice of in this version, what the words of another rule depend on, and values of the user's.
fn is_said_elsewhere(path: &str) -> bool {
    let choices = [
        "delivery",
        "format",
        "on_lost_offset",
        "by",
        "null_key",
        "on_dead_letter",
        "mode",
        "relaxed",
        "store",
        "scope",
        "on_duplicate",
        "if_missing",
        "stale",
        "isolation",
        "clock",
        "random",
    ];
    let last = path.rsplit('.').next().unwrap();
    let fixed = [
        "version",
        "host.data_dir",
        "pipelines.0.handler.config.currency",
    ];
    choices.contains(&last) || fixed.contains(&path)
}

#[test]
fn every_number_and_name_of_the_configuration_is_in_the_text() {
    let text = std::fs::read_to_string(corpus().join("everything.yaml")).unwrap();
    let loaded = loaded(&text).unwrap();
    let origins = loaded.shown(&|_| None).json(true);
    let mut found = Vec::new();
    leaves(&origins, &mut Vec::new(), &mut found);
    let is_default = |path: &[String]| {
        let origin = [&path[..path.len() - 1], &["origin".to_owned()]].concat();
        found.iter().any(|(p, v)| *p == origin && v == "default")
    };
    // A line break of the text may stand for a space of a value.
    let said = text_of(&loaded)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let mut looked_at = 0;
    for (path, value) in &found {
        let name = path[..path.len() - 1].join(".");
        if path.last().unwrap() != "value" || is_default(path) || is_said_elsewhere(&name) {
            continue;
        }
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        let value = value
            .trim_start_matches("./")
            .trim_end_matches(".0")
            .to_owned();
        assert!(said.contains(&value), "{name}: {value} is not in\n{said}");
        looked_at += 1;
    }
    assert!(looked_at >= 40, "{looked_at}");
}

#[test]
fn no_key_of_a_pipeline_leaves_the_text_as_it_is() {
    // What is its default in the file, because everything else needs it, or has one choice in this version.
    let same = ["by", "store", "scope", "isolation", "source"];
    let text = std::fs::read_to_string(corpus().join("everything.yaml")).unwrap();
    let whole = loaded(&text).unwrap();
    let said = text_of(&whole);
    let json = whole.shown(&|_| None).json(false);
    let mut found = Vec::new();
    leaves(&json, &mut Vec::new(), &mut found);
    let mut changed = 0;
    // Of the second pipeline only what the first one cannot have is not a default.
    let is_given =
        |path: &[String]| path[0] == "pipelines" && (path[1] == "0" || path[2] == "sequence");
    for (path, _) in found.iter().filter(|(path, _)| is_given(path)) {
        let key = path
            .iter()
            .rfind(|step| step.parse::<usize>().is_err())
            .unwrap();
        let Ok(less) = loaded(&without(&json, path).to_string()) else {
            // A required key.
            continue;
        };
        if !same.contains(&key.as_str()) {
            assert_ne!(text_of(&less), said, "{}", path.join("."));
            changed += 1;
        }
    }
    assert!(changed >= 25, "{changed}");
}

#[test]
fn the_file_of_everything_has_every_key_of_a_pipeline() {
    let text = std::fs::read_to_string(corpus().join("everything.yaml")).unwrap();
    let schema = config::schema();
    let definitions = schema["$defs"].as_object().unwrap();
    let elsewhere = [
        "configuration",
        "host",
        "admin",
        "health",
        "tls",
        "secret",
        "create_topics",
        "logs",
        "connection",
        "embedded",
        "start_at",
        "substitution",
    ];
    let mut keys = 0;
    for (name, definition) in definitions {
        if elsewhere.contains(&name.as_str()) || name.contains("defaults") {
            continue;
        }
        for key in definition["properties"].as_object().unwrap().keys() {
            let there = text.contains(&format!("{key}:"));
            assert!(
                there || key == "connection",
                "{name}.{key} is not in everything.yaml"
            );
            keys += 1;
        }
    }
    assert!(keys >= 45, "{keys}");
}
