//! What a configuration will do, in words and its own numbers (`wasmill explain`): each rule is one
//! function that reads the validated types. Not here: what a running host does (`admin/`), what is wrong
//! with a configuration (`config/`).

mod around;
mod failures;
mod path;
mod words;

use std::fmt::Write;

use serde::Serialize;

use crate::config::valid::{Config, Pipeline};

/// Characters of a line of [`Explained::text`].
const WIDTH: usize = 100;

/// One pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    pub pipeline: String,
    pub sections: Vec<Section>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    pub title: &'static str,
    pub rules: Vec<Rule>,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// When, as a stable name for programs and a heading for people.
    pub when: &'static str,
    pub then: String,
}

/// Every pipeline of a configuration, in its order.
#[must_use]
pub fn explain(config: &Config) -> Vec<Explained> {
    let pipelines = config.pipelines.iter();
    pipelines.map(|pipeline| one(config, pipeline)).collect()
}

fn one(config: &Config, pipeline: &Pipeline) -> Explained {
    Explained {
        pipeline: pipeline.name.clone(),
        sections: vec![
            section("what is read", path::reads(pipeline)),
            section("before the call", path::admits(pipeline)),
            section("the call", path::calls(config, pipeline)),
            section("where results go", path::publishes(config, pipeline)),
            section("when the handler fails", failures::handler(pipeline)),
            section(
                "when something else fails",
                failures::host(config, pipeline),
            ),
            section("when the host ends", failures::ends(config, pipeline)),
            section("what the handler may do", around::grants(pipeline)),
            section("what is watched", around::watched(config, pipeline)),
            section(
                "what is not promised",
                around::limits_of_promise(config, pipeline),
            ),
        ]
        .into_iter()
        .filter(|section| !section.rules.is_empty())
        .collect(),
    }
}

const fn section(title: &'static str, rules: Vec<Rule>) -> Section {
    Section { title, rules }
}

fn rule(when: &'static str, then: impl Into<String>) -> Rule {
    Rule {
        when,
        then: then.into(),
    }
}

impl Explained {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = format!("pipeline {}\n", self.pipeline);
        for section in &self.sections {
            // Writing to a text does not fail.
            let _infallible = write!(out, "\n  {}\n", section.title);
            for rule in &section.rules {
                wrapped(&mut out, rule);
            }
        }
        out
    }
}

fn wrapped(out: &mut String, rule: &Rule) {
    const INDENT: &str = "        ";
    let mut line = format!("    {}:", rule.when);
    for word in rule.then.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(line.trim_end());
            out.push('\n');
            line = INDENT.to_owned();
            line.push_str(word);
        } else {
            line.push(' ');
            line.push_str(word);
        }
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests;
