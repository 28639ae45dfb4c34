//! What `wasmill lint --against-data` adds: how the configuration fits what a running host or a data
//! directory has, before a start or a reload finds out (§13.1, §13.2). It changes nothing. Not here: what is
//! wrong with the files themselves (`lint.rs`), what is missing on this machine (`check.rs`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::access::{self, IfAbsent, LOG_DIR, Streams};
use super::error::Error;
use super::output::Out;
use super::{Place, text};
use crate::admin::wire::TopicSummary;
use crate::config::valid::Config;
use crate::host::fingerprint;
use crate::pipeline::snapshot::Topics;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Weight {
    /// A start or a reload is refused.
    Error,
    Warning,
    /// What it would do by itself.
    Note,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    weight: Weight,
    pipeline: String,
    message: String,
    /// What to do.
    help: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Stored {
    /// What was looked at; `null`: there is nothing yet.
    looked_at: Option<String>,
    /// A start or a reload is refused, unless with `--accept-change`.
    needs_accept_change: bool,
    findings: Vec<Finding>,
}

impl Stored {
    pub(super) fn has_errors(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|finding| finding.weight == Weight::Error)
    }
}

/// Compares with the running host, or with the directory when nobody holds it.
pub(super) fn look(config: &Config, place: &Place) -> Result<Stored, Error> {
    let named = place.named();
    let data_dir = named.unwrap_or_else(|| config.host.data_dir.clone());
    let url = access::url();
    if url.is_none() && !data_dir.join(LOG_DIR).exists() {
        return Ok(Stored {
            looked_at: None,
            needs_accept_change: false,
            findings: Vec::new(),
        });
    }
    let streams = Streams::open(&data_dir, IfAbsent::Refuse)?;
    let looked_at = match (url, streams.is_live()) {
        (Some(url), _) => format!("the host at {url}"),
        (None, true) => format!("the host that runs on {}", data_dir.display()),
        (None, false) => data_dir.display().to_string(),
    };
    Ok(Stored {
        looked_at: Some(looked_at),
        ..compare(config, &streams)?
    })
}

fn compare(config: &Config, streams: &Streams) -> Result<Stored, Error> {
    let topics = streams.topics()?.into_iter();
    let known: BTreeMap<String, TopicSummary> =
        topics.map(|topic| (topic.topic.clone(), topic)).collect();
    let mut findings = Vec::new();
    let mut needs_accept_change = false;
    for pipeline in &config.pipelines {
        let mut add = |weight, message: String, help: &str| {
            findings.push(Finding {
                weight,
                pipeline: pipeline.name.clone(),
                message,
                help: help.to_owned(),
            });
        };
        let group = &pipeline.source.consumer_group;
        let stored = streams.fingerprint(group, &pipeline.name)?;
        if stored.depends_on.is_none() {
            let message = format!("it has not run as group `{group}` here");
            add(Weight::Note, message, "");
        }
        let compared = fingerprint::compare(pipeline, &stored, |topic| {
            let made = config.host.create_topics.map(std::num::NonZeroU32::get);
            known.get(topic).map(|topic| topic.partitions).or(made)
        });
        if let Some(refusal) = compared.refusal {
            needs_accept_change = true;
            add(Weight::Error, refusal.message, &refusal.help);
        }
        for warning in compared.warnings {
            add(Weight::Warning, warning, "");
        }
        let topics = Topics::of(pipeline);
        let all = [topics.sources, topics.outputs, topics.dead_letters].concat();
        for topic in all.into_iter().collect::<BTreeSet<String>>() {
            exists(config, known.get(&topic), &topic, &mut add);
        }
    }
    Ok(Stored {
        looked_at: None,
        needs_accept_change,
        findings,
    })
}

fn exists(
    config: &Config,
    known: Option<&TopicSummary>,
    name: &str,
    add: &mut impl FnMut(Weight, String, &str),
) {
    match (known, config.host.create_topics) {
        (Some(topic), _) if topic.internal => add(
            Weight::Error,
            format!("topic `{name}` is internal: hosts keep messages on their way back in it"),
            "name another",
        ),
        (Some(_), _) => {}
        (None, Some(_)) => add(
            Weight::Note,
            format!("topic `{name}` does not exist; a start makes it"),
            "",
        ),
        (None, None) => add(
            Weight::Error,
            format!("topic `{name}` does not exist, and `host.create_topics` is false"),
            &format!("`wasmill topics create {name}`"),
        ),
    }
}

pub(super) fn show(stored: &Stored, out: &mut Out) -> Result<(), Error> {
    let Some(looked_at) = &stored.looked_at else {
        return out.line("nothing is stored yet: a start is the first one");
    };
    for finding in &stored.findings {
        let word = match finding.weight {
            Weight::Error => "error",
            Weight::Warning => "warning",
            Weight::Note => "note",
        };
        out.line(format!(
            "{word}: pipeline {}: {}",
            text::escape(&finding.pipeline),
            text::escape(&finding.message)
        ))?;
        if !finding.help.is_empty() {
            out.line(format!("  help: {}", text::escape(&finding.help)))?;
        }
    }
    let comes_to = if stored.needs_accept_change {
        "a start or reload is refused without `--accept-change`"
    } else if stored.has_errors() {
        "a start or reload is refused"
    } else {
        "nothing that is stored is in the way of a start or reload"
    };
    out.line(format!("against {}: {comes_to}", text::escape(looked_at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::console::Console;
    use crate::admin::fingerprint::key;
    use crate::connector::embedded::{Commit, Log, Options, TopicSpec, Write};

    fn config(host: &str, more: &str) -> Config {
        let text = format!(
            "version: 1\nhost: {host}\npipelines:\n  - {{ name: p, source: {{ topics: [in], consumer_group: g, start: earliest }}, handler: {{ plugin: p.wasm, allow: {{ state: {{}} }} }}, outputs: {{ default: {{ topic: out }} }}{more} }}\n"
        );
        let path = std::path::Path::new("c.yaml");
        let loaded = crate::config::load_text(path, &text, &|_| None);
        loaded.unwrap().config
    }

    /// Compared with a directory in which `in` has two partitions, and what was stored of `p` says this.
    fn compared(config: &Config, stored: &[(&str, &str)]) -> Stored {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let two = std::num::NonZeroU32::new(2).unwrap();
        log.create_topic(&TopicSpec::new("in", two)).unwrap();
        let entries: BTreeMap<&str, &str> = stored.iter().copied().collect();
        if !stored.is_empty() {
            let value = Some(serde_json::to_vec(&entries).unwrap());
            let key = key("g", "p");
            log.commit(Commit {
                writes: vec![Write::Meta { key, value }],
                ..Commit::default()
            })
            .unwrap();
        }
        compare(config, &Streams::Here(Console::offline(log))).unwrap()
    }

    fn messages(stored: &Stored, weight: Weight) -> Vec<&str> {
        let findings = stored.findings.iter().filter(|one| one.weight == weight);
        findings.map(|one| one.message.as_str()).collect()
    }

    const SAME: [(&str, &str); 5] = [
        ("ordering.by", "Key"),
        ("handler.allow.state.name", "default"),
        ("partitions/in", "2"),
        ("epoch/state", "0"),
        ("epoch/completions", "0"),
    ];

    #[test]
    fn what_fits_is_no_error_and_topics_that_a_start_makes_are_noted() {
        let stored = compared(&config("{}", ""), &SAME);
        assert!(
            !stored.has_errors() && !stored.needs_accept_change,
            "{stored:?}"
        );
        assert_eq!(messages(&stored, Weight::Warning), [""; 0]);
        let notes = messages(&stored, Weight::Note);
        assert!(notes[0].contains("`in.g.dlq` does not exist"), "{notes:?}");
        assert!(notes[1].contains("`out` does not exist"), "{notes:?}");
        let new = compared(&config("{}", ""), &[]);
        let notes = messages(&new, Weight::Note);
        assert!(notes[0].contains("not run as group `g`"), "{notes:?}");
        assert!(!new.has_errors());
    }

    #[test]
    fn a_change_that_a_start_would_refuse_is_an_error_that_names_accept_change() {
        let ordering = compared(&config("{}", ", ordering: { by: partition }"), &SAME);
        assert!(ordering.needs_accept_change && ordering.has_errors());
        let errors = messages(&ordering, Weight::Error);
        assert!(
            errors[0].contains("ordering.by: Key → Partition"),
            "{errors:?}"
        );
        let mut three = SAME;
        three[2].1 = "3";
        let partitions = compared(&config("{}", ""), &three);
        assert!(partitions.needs_accept_change);
        let errors = messages(&partitions, Weight::Error);
        assert!(errors[0].contains("`in` changed: 3 → 2"), "{errors:?}");
        let warned = messages(&partitions, Weight::Warning);
        assert!(warned[0].contains("3 → 2"), "{warned:?}");
        assert!(partitions.findings[0].help.contains("--accept-change"));
    }

    #[test]
    fn a_topic_that_nobody_makes_is_an_error_that_needs_no_accepting() {
        let stored = compared(&config("{ create_topics: false }", ""), &SAME);
        assert!(stored.has_errors() && !stored.needs_accept_change);
        assert_eq!(messages(&stored, Weight::Error).len(), 2);
        let help: Vec<&str> = stored.findings.iter().map(|f| f.help.as_str()).collect();
        assert!(help.contains(&"`wasmill topics create out`"), "{help:?}");
    }
}
