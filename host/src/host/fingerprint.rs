//! What the durable data of a group depends on (§13.1): kept beside it, so that a configuration under which
//! the data would mean something else is refused until somebody says that it is meant.

use std::collections::BTreeMap;

use crate::config::valid::Pipeline;
use crate::connector::embedded::{Commit, Log, Write};

use super::Error;
use super::pipelines::PATIENCE;

/// By name of what it is, as it is configured.
type Fingerprint = BTreeMap<String, String>;

fn key(pipeline: &Pipeline) -> Vec<u8> {
    let group = &pipeline.source.consumer_group;
    format!("fingerprint/{group}/{}", pipeline.name).into_bytes()
}

fn of(pipeline: &Pipeline) -> Fingerprint {
    let mut all = Fingerprint::new();
    let mut add = |name: &str, value: String| {
        all.insert(name.to_owned(), value);
    };
    let ordering = &pipeline.ordering;
    add("ordering.by", format!("{:?}", ordering.by));
    add("ordering.null_key", format!("{:?}", ordering.null_key));
    if let Some(policy) = &pipeline.idempotency {
        add("idempotency.key", policy.key.source().to_owned());
        let fields = policy.fingerprint.iter().map(|field| field.source());
        add(
            "idempotency.fingerprint",
            fields.collect::<Vec<_>>().join(" | "),
        );
    }
    if let Some(sequence) = &pipeline.sequence {
        add("sequence.number", sequence.number.source().to_owned());
    }
    if let Some(state) = &pipeline.handler.allow.state {
        add("handler.allow.state.name", state.name.clone());
    }
    all
}

/// Refuses pipelines under which data that is there would mean something else, and remembers the others.
pub(super) fn check(log: &Log, pipelines: &[Pipeline], accept: bool) -> Result<(), Error> {
    for pipeline in pipelines {
        let Some(stored) = log.meta_get(&key(pipeline))? else {
            continue;
        };
        let Ok(stored) = serde_json::from_slice::<Fingerprint>(&stored) else {
            continue;
        };
        let changes = differences(&stored, &of(pipeline));
        if !changes.is_empty() && !accept {
            return Err(Error::Pipeline {
                pipeline: pipeline.name.clone(),
                why: format!(
                    "what its group `{}` has stored depends on what was changed: {}; take the change back, give the pipeline another consumer group, or run with `--accept-change` if you mean it",
                    pipeline.source.consumer_group,
                    changes.join(", ")
                ),
            });
        }
    }
    Ok(())
}

/// What `check` let through is what holds from now on.
pub(super) fn write(log: &Log, pipelines: &[Pipeline]) -> Result<(), Error> {
    let mut commit = Commit::default();
    for pipeline in pipelines {
        let (key, now) = (key(pipeline), of(pipeline));
        let stored = log.meta_get(&key)?;
        let stored = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if stored.as_ref() != Some(&now) {
            // A map of strings: writing it to memory cannot fail.
            let value = serde_json::to_vec(&now).unwrap_or_default();
            commit.writes.push(Write::Meta {
                key,
                value: Some(value),
            });
        }
    }
    if !commit.writes.is_empty() {
        log.commit_within(commit, PATIENCE)?;
    }
    Ok(())
}

/// `ordering.by: Key → None`. What is new, such as a first idempotency key, changes nothing that is there;
/// what was dropped does.
fn differences(stored: &Fingerprint, now: &Fingerprint) -> Vec<String> {
    let mut changes = Vec::new();
    for (name, was) in stored {
        match now.get(name) {
            Some(is) if is == was => {}
            Some(is) => changes.push(format!("{name}: {was} → {is}")),
            None => changes.push(format!("{name}: {was} → nothing")),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector::embedded::Options;

    fn pipelines(more: &str) -> Vec<Pipeline> {
        let text = format!(
            "version: 1\npipelines:\n  - {{ name: p, source: {{ topics: [t], consumer_group: g, start: earliest }}, handler: {{ plugin: ./h.wasm }}{more} }}\n"
        );
        let path = std::path::Path::new("pipeline.yaml");
        let loaded = crate::config::load_text(path, &text, &|_| None);
        loaded.unwrap().config.pipelines
    }

    #[test]
    fn a_change_that_stored_data_depends_on_is_refused_by_name_until_it_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let first = pipelines(", idempotency: { key: message.json.id, ttl: 1h }");
        check(&log, &first, false).unwrap();
        write(&log, &first).unwrap();
        check(&log, &first, false).unwrap();
        let other = pipelines(", idempotency: { key: message.json.other, ttl: 1h }");
        let why = check(&log, &other, false).unwrap_err().to_string();
        assert!(
            why.contains("idempotency.key: message.json.id → message.json.other")
                && why.contains("--accept-change"),
            "{why}"
        );
        let ordering = ", idempotency: { key: message.json.id, ttl: 2h }, ordering: { by: none }";
        let why = check(&log, &pipelines(ordering), false).unwrap_err();
        assert!(why.to_string().contains("ordering.by: Key → None"), "{why}");
        // The time to live is no part of what is stored.
        let ttl = pipelines(", idempotency: { key: message.json.id, ttl: 2h }");
        check(&log, &ttl, false).unwrap();
        check(&log, &other, true).unwrap();
        write(&log, &other).unwrap();
        check(&log, &other, false).unwrap();
    }
}
