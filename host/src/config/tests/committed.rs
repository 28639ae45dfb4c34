//! What is committed (reference, schema, corpus, examples) is in step with the tables.

use super::*;

/// Compares with a committed file, or rewrites it when `WASMILL_BLESS` is set.
fn assert_committed(file: &Path, text: &str) {
    if std::env::var_os("WASMILL_BLESS").is_some() {
        std::fs::write(file, text).unwrap();
    }
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        committed == text,
        "{} is not up to date; run with WASMILL_BLESS=1\n{text}",
        file.display()
    );
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_reference_is_in_step_with_the_tables() {
    assert_committed(&repository().join("docs/configuration.md"), &reference());
}

#[test]
fn the_schema_is_in_step_with_the_tables() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    assert_committed(&repository().join("wasmill.schema.json"), &text);
}

/// What a corpus file sees of the environment.
fn corpus_env(name: &str) -> Option<String> {
    match name {
        "NOT_A_NUMBER" => Some("a dozen".into()),
        "PASSWORD" => Some("hunter2 hunter2".into()),
        _ => None,
    }
}

/// What `lint` shows for a file, under its bare name.
fn shown(file: &Path) -> String {
    let bare = |path: &Path| path.file_name().map(PathBuf::from).unwrap_or_default();
    let (mut problems, mut sources) = match load(&[file.to_owned()], &corpus_env) {
        Ok(loaded) => (loaded.warnings, loaded.sources),
        Err(error) => (error.problems, error.sources),
    };
    for problem in &mut problems {
        problem.file = bare(&problem.file);
        let parent = file.parent().unwrap().display().to_string();
        problem.help = problem
            .help
            .take()
            .map(|help| help.replace(&format!("{parent}/"), ""));
    }
    sources
        .iter_mut()
        .for_each(|source| source.path = bare(&source.path));
    if problems.is_empty() {
        "nothing to complain about\n".into()
    } else {
        render(&problems, &sources, false)
    }
}

#[test]
fn each_broken_file_of_the_corpus_is_told_what_is_wrong_where_and_what_to_do() {
    let folder = repository().join("tests/corpus/config");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let broken = files
        .iter()
        .filter(|path| !name(path).starts_with("fine") && !name(path).starts_with("doubtful"));
    assert!(broken.clone().count() >= 40);
    for file in &files {
        let shown = shown(file);
        assert!(
            !shown.contains("hunter2"),
            "{} shows a value of the environment",
            file.display()
        );
        assert_committed(&file.with_extension("expected"), &shown);
    }
    for file in broken {
        let error = load(std::slice::from_ref(file), &corpus_env).unwrap_err();
        for problem in error.problems {
            assert!(
                problem.help.is_some(),
                "{} says what to do: {problem}",
                file.display()
            );
        }
    }
}

/// The text of every ```yaml block of a page.
fn blocks(page: &str) -> Vec<String> {
    let after = page.split("```yaml\n").skip(1);
    after
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

/// Markdown and YAML below a folder, without what is built or foreign.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let skipped = name.starts_with('.')
            || matches!(name.as_str(), "target" | "corpus" | "node_modules" | "dist");
        if path.is_dir() && !skipped {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "md" || e == "yaml") {
            found.push(path);
        }
    }
}

#[test]
fn every_configuration_in_documentation_and_examples_loads_without_a_warning() {
    let mut found = Vec::new();
    files(&repository(), &mut found);
    let mut seen = 0;
    for file in found {
        // `wasmill new` puts the name in.
        let text = std::fs::read_to_string(&file)
            .unwrap()
            .replace("{{name}}", "hello");
        let texts = if file.extension().is_some_and(|e| e == "md") {
            blocks(&text)
        } else {
            vec![text]
        };
        for text in texts
            .iter()
            .filter(|text| text.lines().any(|line| line.starts_with("version:")))
        {
            let warnings = load_text(&file, text, &corpus_env)
                .map_or_else(|error| error.problems, |loaded| loaded.warnings);
            assert!(
                warnings.is_empty(),
                "{}\n{text}\n{}",
                file.display(),
                warnings[0]
            );
            seen += 1;
        }
    }
    assert!(seen >= 2, "the reference alone has two");
}

/// Says whether a document fits a schema, for the keywords that [`schema`] uses, patterns aside.
fn fits(
    document: &serde_json::Value,
    schema: &serde_json::Value,
    root: &serde_json::Value,
) -> bool {
    use serde_json::Value;
    if let Some(name) = schema["$ref"].as_str() {
        return fits(
            document,
            &root["$defs"][name.rsplit('/').next().unwrap()],
            root,
        );
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().any(|schema| fits(document, schema, root));
    }
    if let Some(names) = schema["enum"].as_array() {
        return names.contains(document);
    }
    let is = |name: &Value| match name.as_str().unwrap() {
        "string" => document.is_string(),
        "integer" => document.is_u64(),
        "number" => document.is_number(),
        "boolean" => document.is_boolean(),
        "array" => document.is_array(),
        "object" => document.is_object(),
        other => panic!("{other}"),
    };
    if schema["pattern"] == "\\$\\{" && !document.as_str().is_some_and(|text| text.contains("${")) {
        return false;
    }
    let typed = match &schema["type"] {
        Value::Array(names) => names.iter().any(is),
        name => is(name),
    };
    let bounded = document.as_f64().is_none_or(|n| {
        schema["minimum"].as_f64().is_none_or(|min| n >= min)
            && schema["maximum"].as_f64().is_none_or(|max| n <= max)
    });
    let elements = document.as_array().is_none_or(|elements| {
        elements.len() as u64 >= schema["minItems"].as_u64().unwrap()
            && elements.iter().all(|e| fits(e, &schema["items"], root))
    });
    let members = document.as_object().is_none_or(|members| {
        let required = schema["required"].as_array().is_none_or(|r| {
            r.iter()
                .all(|name| members.contains_key(name.as_str().unwrap()))
        });
        required
            && members.iter().all(|(name, value)| {
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Object(rest)) => {
                        fits(value, &Value::Object(rest.clone()), root)
                    }
                    (Value::Null, _) => false,
                    (property, _) => fits(value, property, root),
                }
            })
    });
    typed && bounded && elements && members
}

#[test]
fn the_schema_takes_what_the_loader_takes() {
    let schema = schema();
    let mut found = Vec::new();
    for text in blocks(&reference())
        .iter()
        .map(String::as_str)
        .chain([EVERYTHING, HELLO])
    {
        if text.contains("version:") {
            found.push(text.to_owned());
        }
    }
    for text in found {
        let document: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert!(fits(&document, &schema, &schema), "{text}");
    }
    for wrong in [
        serde_json::json!({}),
        serde_json::json!({ "version": 2 }),
        serde_json::json!({ "version": 1, "hots": {} }),
        serde_json::json!({ "version": 1, "pipelines": [{ "name": "p" }] }),
        serde_json::json!({ "version": 1, "defaults": { "delivery": "once" } }),
    ] {
        assert!(!fits(&wrong, &schema, &schema), "{wrong}");
    }
    let partial = serde_json::json!({ "version": 1, "defaults": { "source": { "format": "json" }, "retry": { "max_attempts": "${N}" } } });
    assert!(fits(&partial, &schema, &schema));
}
