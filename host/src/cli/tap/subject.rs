//! What a tap taps: the name on the command line, resolved, and what each topic is to it. Pure.

use clap::ValueEnum;
use serde::Serialize;

use super::super::error::Error;
use crate::admin::Code;
use crate::admin::console::unknown;
use crate::admin::wire::Message;
use crate::pipeline::snapshot::Topics;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Topic,
    Pipeline,
}

/// What a message is to a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Part {
    In,
    Out,
    DeadLetter,
}

impl Part {
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::DeadLetter => "dead letter",
        }
    }
}

/// Which of the two a name is; one that is both has to be told apart by whoever typed it.
pub(super) fn kind(
    name: &str,
    said: Option<Kind>,
    topics: &[&str],
    pipelines: &[&str],
) -> Result<Kind, Error> {
    let topic = topics.contains(&name);
    let pipeline = pipelines.contains(&name);
    match (said, topic, pipeline) {
        (Some(Kind::Topic) | None, true, false) | (Some(Kind::Topic), true, true) => {
            Ok(Kind::Topic)
        }
        (Some(Kind::Pipeline) | None, false, true) | (Some(Kind::Pipeline), true, true) => {
            Ok(Kind::Pipeline)
        }
        (None, true, true) => Err(Error::usage(
            format!("there is a topic {name} and a pipeline {name}"),
            "say which: `--as topic` shows what arrives in the topic, `--as pipeline` what the pipeline takes in and puts out",
        )),
        (Some(Kind::Topic), false, _) => {
            let known = topics.iter().copied();
            Err(unknown(Code::UnknownTopic, "topic", name, known, "topics list").into())
        }
        (Some(Kind::Pipeline), _, false) => {
            let known = pipelines.iter().copied();
            Err(unknown(Code::UnknownPipeline, "pipeline", name, known, "status").into())
        }
        (None, false, false) => {
            let known = topics.iter().chain(pipelines).copied();
            let list = "topics list` or `wasmill status";
            Err(unknown(Code::UnknownTopic, "topic or pipeline", name, known, list).into())
        }
    }
}

/// The topics of a pipeline, each once, what comes in first.
pub(super) fn topics_of(topics: &Topics) -> Vec<(String, Vec<Part>)> {
    let mut all: Vec<(String, Vec<Part>)> = Vec::new();
    for (names, part) in [
        (&topics.sources, Part::In),
        (&topics.outputs, Part::Out),
        (&topics.dead_letters, Part::DeadLetter),
    ] {
        for name in names {
            match all.iter_mut().find(|(known, _)| known == name) {
                Some((_, parts)) => parts.push(part),
                None => all.push((name.clone(), vec![part])),
            }
        }
    }
    all
}

/// What a message of a topic with these parts is to the pipeline; nothing, when it is the dead letter of
/// another one. Who wrote an output is not written on it.
pub(super) fn parts(parts: &[Part], message: &Message, pipeline: &str) -> Vec<Part> {
    let others = parts
        .iter()
        .copied()
        .filter(|part| *part != Part::DeadLetter);
    match header(message, "wasmill-dlq-pipeline") {
        Some(of) if parts.contains(&Part::DeadLetter) => {
            if of == pipeline {
                vec![Part::DeadLetter]
            } else {
                Vec::new()
            }
        }
        _ => others.collect(),
    }
}

/// The last value of a header, when it is text.
pub(super) fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    let last = message.headers.iter().rfind(|header| header.name == name)?;
    std::str::from_utf8(&last.value.as_ref()?.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{Blob, Header};

    #[test]
    fn a_name_that_is_a_topic_and_a_pipeline_is_refused_until_it_is_said_which() {
        let topics = ["orders", "bills"];
        let pipelines = ["orders", "billing"];
        let of = |name, said| kind(name, said, &topics, &pipelines);
        assert_eq!(of("bills", None).unwrap(), Kind::Topic);
        assert_eq!(of("billing", None).unwrap(), Kind::Pipeline);
        let both = of("orders", None).unwrap_err();
        assert!(matches!(both, Error::Usage { .. }), "{both}");
        assert!(both.help().any(|line| line.contains("--as pipeline")));
        assert_eq!(of("orders", Some(Kind::Topic)).unwrap(), Kind::Topic);
        assert_eq!(of("orders", Some(Kind::Pipeline)).unwrap(), Kind::Pipeline);
    }

    #[test]
    fn a_name_that_is_neither_suggests_the_nearest_of_what_was_said() {
        let topics = ["orders"];
        let pipelines = ["ordering"];
        let help = |name, said| {
            let why = kind(name, said, &topics, &pipelines).unwrap_err();
            why.help().collect::<Vec<_>>().join(" ")
        };
        assert!(help("order", None).contains("did you mean orders?"));
        assert!(help("orderin", None).contains("did you mean ordering?"));
        assert!(help("orderin", Some(Kind::Topic)).contains("topics list"));
        assert!(help("orders", Some(Kind::Pipeline)).contains("did you mean ordering?"));
    }

    #[test]
    fn a_topic_with_two_parts_is_read_once_and_dead_letters_of_others_are_not_shown() {
        let topics = Topics {
            sources: vec!["in".into()],
            outputs: vec!["in".into(), "out".into()],
            dead_letters: vec!["dead".into(), "out".into()],
        };
        let all = topics_of(&topics);
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["in", "out", "dead"]);
        let message = |of: Option<&str>| Message {
            topic: String::new(),
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            payload: None,
            headers: of
                .map(|of| Header {
                    name: "wasmill-dlq-pipeline".into(),
                    value: Some(Blob(of.as_bytes().to_vec())),
                })
                .into_iter()
                .collect(),
        };
        let of = |topic: usize, letter| parts(&all[topic].1, &message(letter), "p");
        assert_eq!(of(0, None), [Part::In, Part::Out]);
        assert_eq!(of(1, None), [Part::Out]);
        assert_eq!(of(1, Some("p")), [Part::DeadLetter]);
        assert_eq!(of(2, Some("p")), [Part::DeadLetter]);
        assert_eq!(of(2, Some("other")), []);
        // Anybody may write into the topic: it is no dead letter of this pipeline.
        assert_eq!(of(2, None), []);
        // A dead letter that is read again is what comes in.
        assert_eq!(of(0, Some("other")), [Part::In, Part::Out]);
    }
}
