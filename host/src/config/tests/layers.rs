//! Overlays, files of variables, and where each value is from.

use super::*;

fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(
    folder: &tempfile::TempDir,
    overlays: &[&str],
    env_files: &[&str],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Error> {
    let at = |names: &[&str]| names.iter().map(|name| folder.path().join(name)).collect();
    let inputs = Inputs {
        paths: vec![folder.path().join("a.yaml")],
        overlays: at(overlays),
        env_files: at(env_files),
    };
    load_inputs(&inputs, env)
}

const BASE: &str = r#"version: 1
host: { data_dir: base, admin: { listen: "127.0.0.1:5000" } }
defaults: { retry: { max_attempts: 3 } }
pipelines:
  - name: orders
    source: { topics: [a, b], consumer_group: g, start: earliest, window: { messages: 11 } }
    handler: { plugin: ./p.wasm, config: { currency: "${CURRENCY:-EUR}", kept: "yes" } }
  - { name: other, source: { topics: [c], consumer_group: h, start: latest }, handler: { plugin: p.wasm } }
"#;

#[test]
fn an_overlay_merges_maps_and_pipelines_by_name_and_replaces_the_rest() {
    let over = "host: { data_dir: over }\ndefaults: { retry: { max_attempts: 4 } }\npipelines:\n  - { name: orders, source: { topics: [z], window: { bytes: 1MiB } }, handler: { plugin: ./q.wasm, config: { currency: USD } } }\n";
    let last = "pipelines:\n  - { name: orders, delivery: exactly_once }\n";
    let folder = files(&[("a.yaml", BASE), ("o.yaml", over), ("last.yaml", last)]);
    let config = read(&folder, &["o.yaml", "last.yaml"], &[], &no_env)
        .unwrap()
        .config;
    assert_eq!(config.host.data_dir, Path::new("over"));
    assert_eq!(config.host.admin_listen.port(), 5000);
    let [orders, other] = config.pipelines.as_slice() else {
        panic!("{:?}", config.pipelines.len());
    };
    assert_eq!(orders.source.topics, ["z"]);
    assert_eq!(
        (orders.source.window.messages, orders.source.window.bytes),
        (11, 1 << 20)
    );
    assert_eq!(orders.handler.config["currency"], "USD");
    assert_eq!(orders.handler.config["kept"], "yes");
    assert_eq!(orders.handler.plugin, folder.path().join("q.wasm"));
    assert_eq!(orders.delivery, Delivery::ExactlyOnce);
    assert_eq!(other.retry.max_attempts.get(), 4);
    assert_eq!(other.delivery, Delivery::AtLeastOnce);
}

#[test]
fn an_overlay_for_a_pipeline_that_is_not_there_names_the_nearest() {
    let over = "version: 1\npipelines:\n  - { name: ordres, delivery: exactly_once }\n";
    let folder = files(&[("a.yaml", BASE), ("o.yaml", over)]);
    let error = read(&folder, &["o.yaml"], &[], &no_env).unwrap_err();
    assert_eq!(error.problems.len(), 1, "{:?}", error.problems);
    let problem = &error.problems[0];
    assert!(problem.file.ends_with("o.yaml"));
    assert_eq!(problem.line, 3);
    assert_eq!(problem.help.as_deref(), Some("did you mean `orders`?"));
}

#[test]
fn what_is_wrong_in_an_overlay_is_told_at_its_place_there() {
    for (over, code) in [
        ("hots: {}\n", Code::UnknownKey),
        ("version: 2\n", Code::OutOfRange),
        (
            "pipelines: [{ delivery: exactly_once }]\n",
            Code::MissingKey,
        ),
        (
            "pipelines: [{ name: orders, source: { windw: {} } }]\n",
            Code::UnknownKey,
        ),
        ("[]\n", Code::WrongType),
    ] {
        let folder = files(&[("a.yaml", BASE), ("o.yaml", over)]);
        let error = read(&folder, &["o.yaml"], &[], &no_env).unwrap_err();
        let found = error.problems.iter().find(|p| p.file.ends_with("o.yaml"));
        assert_eq!(
            found.map(|p| p.code),
            Some(code),
            "{over}: {:?}",
            error.problems
        );
    }
}

#[test]
fn the_environment_goes_before_files_of_variables_and_later_files_before_earlier() {
    let folder = files(&[
        ("a.yaml", BASE),
        ("1.env", "# money\nCURRENCY=CHF\n"),
        ("2.env", "export CURRENCY='N OK'\n"),
    ]);
    let currency = |env_files: &[&str], env: &dyn Fn(&str) -> Option<String>| {
        let loaded = read(&folder, &[], env_files, env).unwrap();
        loaded.config.pipelines[0].handler.config["currency"].clone()
    };
    assert_eq!(currency(&[], &no_env), "EUR");
    assert_eq!(currency(&["1.env"], &no_env), "CHF");
    assert_eq!(currency(&["1.env", "2.env"], &no_env), "N OK");
    assert_eq!(currency(&["1.env"], &|_| Some("SEK".into())), "SEK");
}

#[test]
fn a_file_of_variables_that_is_broken_missing_or_too_long_is_an_error() {
    let long = "#".repeat(2 << 20);
    let folder = files(&[
        ("a.yaml", BASE),
        ("bad.env", "A=1\nhunter2\n"),
        ("long.env", &long),
    ]);
    for (name, code) in [
        ("bad.env", Code::Syntax),
        ("gone.env", Code::Unreadable),
        ("long.env", Code::TooBig),
    ] {
        let error = read(&folder, &[], &[name], &no_env).unwrap_err();
        assert_eq!(error.problems[0].code, code, "{name}");
        let shown = render(&error.problems, &error.sources, false);
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn each_value_is_shown_with_where_it_is_from() {
    let folder = files(&[
        ("a.yaml", BASE),
        ("o.yaml", "host: { admin: { token: { secret: TOKEN } } }\n"),
        ("1.env", "CURRENCY=CHF\n"),
    ]);
    // The value of a secret is never read for this, so it cannot be printed.
    let env = |name: &str| (name == "TOKEN").then(|| "hunter2".to_owned());
    let loaded = read(&folder, &["o.yaml"], &["1.env"], &env).unwrap();
    let json = loaded.shown(&env).json(true);
    let ends = |value: &serde_json::Value, with: &str| {
        let origin = value["origin"].as_str().unwrap().to_owned();
        assert!(origin.ends_with(with), "{origin} does not end with {with}");
    };
    ends(&json["host"]["data_dir"], "a.yaml:2");
    ends(&json["host"]["admin"]["token"]["secret"], "o.yaml:1");
    assert_eq!(json["host"]["admin"]["token"]["secret"]["value"], "TOKEN");
    ends(&json["host"]["shutdown_timeout"], "default");
    ends(&json["pipelines"][0]["retry"]["max_attempts"], "a.yaml:3");
    let currency = &json["pipelines"][0]["handler"]["config"]["currency"];
    assert_eq!(currency["value"], "CHF");
    assert!(
        currency["origin"]
            .as_str()
            .unwrap()
            .starts_with("environment CURRENCY, in ")
    );
    let yaml = loaded.shown(&env).yaml(true);
    assert!(
        !yaml.contains("hunter2") && yaml.contains("data_dir: base  # "),
        "{yaml}"
    );
}

#[test]
fn what_is_shown_loads_to_the_same() {
    let env = |name: &str| Some(format!("value of {name}"));
    let odd = BASE.replace("kept: \"yes\"", "kept: \"$${X} # 'no': \\u0007\"");
    for text in [EVERYTHING, HELLO, &odd] {
        let first = load_text(Path::new("x/pipeline.yaml"), text, &env).unwrap();
        let yaml = first.shown(&env).yaml(false);
        let second = load_text(Path::new("x/pipeline.yaml"), &yaml, &env);
        let second =
            second.unwrap_or_else(|e| panic!("{yaml}\n{}", render(&e.problems, &e.sources, false)));
        assert_eq!(
            first.shown(&env).json(false),
            second.shown(&env).json(false)
        );
    }
}
