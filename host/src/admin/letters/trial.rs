//! Trying a plugin on stored dead letters (§6.5): the real sandbox, one message a call, no effects: outputs
//! are looked at and forgotten, state is empty for every message. Not here: which letters (`list.rs`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::decode::place;
use super::shape;
use super::wire::DeadLetter;
use crate::config::valid::{Allow, Format, IfMissing, Pipeline, StateGrant};
use crate::expression;
use crate::message::{HeadersBuf, MessageRef};
use crate::pipeline::correlation::{Correlation, topic_hash};
use crate::plugin::frame::{Batch, Call, Outcome};
use crate::plugin::{self, Engine, Instance, StateView};

/// Letters of one try.
pub const TRY_LETTERS_MAX: u32 = 1_000;
/// How long all letters of one try may take together.
pub const TRY_TIME_MAX: Duration = Duration::from_secs(300);
/// Different new errors told apart of one failure group.
pub const TRY_ERRORS_MAX: usize = 20;

/// What a letter would come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Succeeds,
    /// The handler asks for another try.
    Retries(String),
    /// The handler says no, or the pipeline would before or after it.
    Rejected(String),
    Faults(String),
}

/// What the letters of one failure group would come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The ID of the failure group.
    pub group: String,
    pub reason: String,
    /// The shape of the error they failed with.
    pub error: String,
    pub letters: u64,
    pub succeed: u64,
    pub retry: u64,
    pub rejected: u64,
    pub fault: u64,
    /// The shapes of the errors they would fail with, and how many of each.
    pub errors: BTreeMap<String, u64>,
    /// A letter that would not succeed.
    pub example: Option<String>,
}

/// What a try came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub plugin_digest: String,
    /// The largest group first.
    pub groups: Vec<Tried>,
    /// Letters that time did not suffice for.
    pub not_tried: u64,
    /// The plugin reads state, and found none.
    pub state_was_empty: bool,
}

/// State that holds nothing.
struct NoState;

impl StateView for NoState {
    fn get(&self, _: u32, _: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }

    fn scan(&self, _: u32, _: &str, _: usize, _: usize) -> Result<Vec<(String, Vec<u8>)>, String> {
        Ok(Vec::new())
    }

    fn room(&self) -> u64 {
        u64::MAX
    }
}

/// A plugin ready to be tried as the handler of a pipeline.
pub struct Trial<'p> {
    pipeline: &'p Pipeline,
    /// Whether the pipeline's outputs are known.
    with_outputs: bool,
    digest: String,
    has_state: bool,
    instance: Instance,
}

impl<'p> Trial<'p> {
    /// With the configuration, limits and grants of `pipeline`; `is_configured` says that they are the
    /// user's own. Otherwise it gets what it imports: nothing of it leaves the sandbox.
    pub fn new(
        path: &Path,
        pipeline: &'p Pipeline,
        is_configured: bool,
        cache_dir: PathBuf,
    ) -> Result<Self, plugin::Error> {
        let limits = &pipeline.handler.limits;
        let engine = Engine::new(plugin::Options {
            cache_dir,
            guest_memory: limits.memory.saturating_mul(2),
            instances_max: 2,
            memory_max: limits.memory,
        })?;
        let allow = if is_configured {
            pipeline.handler.allow.clone()
        } else {
            Allow {
                state: Some(StateGrant {
                    max_size: u64::MAX,
                    name: "try".to_owned(),
                    version: 1,
                }),
                clock: true,
                random: true,
            }
        };
        let loaded = engine.load(path, &allow, limits)?;
        Ok(Self {
            pipeline,
            with_outputs: is_configured,
            digest: loaded.digest().to_owned(),
            has_state: loaded.has_effects(),
            instance: loaded.instance(&pipeline.handler.config, Some(Box::new(NoState))),
        })
    }

    /// Tries the letters; `progress` sees how many are done.
    pub fn run(&mut self, letters: &[DeadLetter], mut progress: impl FnMut(u64)) -> Report {
        let until = Instant::now() + TRY_TIME_MAX;
        let mut groups: BTreeMap<String, Tried> = BTreeMap::new();
        let mut tried = 0;
        for letter in letters {
            if Instant::now() >= until {
                break;
            }
            let verdict = self.try_one(letter);
            let group = groups
                .entry(letter.failure_group.clone())
                .or_insert_with(|| Tried::of(letter));
            group.count(letter, &verdict);
            tried += 1;
            progress(tried);
        }
        let mut groups: Vec<Tried> = groups.into_values().collect();
        groups.sort_by(|a, b| (b.letters, &a.group).cmp(&(a.letters, &b.group)));
        Report {
            plugin_digest: self.digest.clone(),
            groups,
            not_tried: letters.len() as u64 - tried,
            state_was_empty: self.has_state,
        }
    }

    /// What the letter's message would come to, from decoding to its outputs.
    pub fn try_one(&mut self, letter: &DeadLetter) -> Verdict {
        let mut headers = HeadersBuf::new();
        for header in &letter.message.headers {
            let value = header.value.as_ref().map(|value| value.0.as_slice());
            if !headers.push(&header.name, value) {
                return Verdict::Rejected("its headers do not fit".to_owned());
            }
        }
        let message = MessageRef {
            key: letter.message.key.as_ref().map(|key| key.0.as_slice()),
            payload: letter.message.payload.as_ref().map(|one| one.0.as_slice()),
            headers: headers.as_headers(),
            timestamp_ms: letter
                .origin_timestamp_ms
                .unwrap_or(letter.message.timestamp_ms),
        };
        match self.admit(&message) {
            Ok(key) => self.call(letter, message, key.as_deref()),
            Err(why) => Verdict::Rejected(why),
        }
    }

    /// The idempotency key, when there is one; `Err`: the handler would not see the message.
    fn admit(&self, message: &MessageRef<'_>) -> Result<Option<String>, String> {
        if self.pipeline.source.format == Format::Json
            && let Some(payload) = message.payload
        {
            expression::json_is_valid(payload)?;
        }
        let Some(policy) = &self.pipeline.idempotency else {
            return Ok(None);
        };
        match policy.key.evaluate_text(message) {
            Ok(key) if !key.is_empty() => Ok(Some(key)),
            _ if policy.if_missing == IfMissing::Process => Ok(None),
            Ok(_) => Err("the idempotency key is empty".to_owned()),
            Err(why) => Err(format!("the idempotency key: {why}")),
        }
    }

    fn call(
        &mut self,
        letter: &DeadLetter,
        message: MessageRef<'_>,
        idempotency_key: Option<&str>,
    ) -> Verdict {
        let topic = letter.origin_topic.as_deref().unwrap_or_default();
        let partition = letter.origin_partition.unwrap_or_default();
        let offset = letter.origin_offset.unwrap_or_default();
        let correlation = Correlation::of(&message.headers, topic_hash(topic), partition, offset);
        let mut batch = Batch::new(&[topic]);
        let fits = batch.push(&Call {
            topic: 0,
            partition,
            offset,
            message,
            attempt: 1,
            correlation_id: correlation.text(&message.headers),
            idempotency_key,
        });
        if !fits {
            return Verdict::Rejected("the message does not fit a call".to_owned());
        }
        let answer = self.instance.call(&batch, 0);
        self.instance.discard();
        // Nobody reads them here; they must not pile up.
        drop(self.instance.take_logs());
        match answer {
            Err(fault) => Verdict::Faults(format!("{}: {}", fault.kind.as_str(), fault.message)),
            Ok(outcomes) => match outcomes.get(0) {
                Some(Outcome::Outputs(outputs)) => {
                    let unknown = outputs
                        .map(|output| output.name)
                        .find(|name| self.with_outputs && !self.has_output(name));
                    match unknown {
                        None => Verdict::Succeeds,
                        Some(name) => {
                            Verdict::Rejected(format!("the pipeline has no output {name:?}"))
                        }
                    }
                }
                Some(Outcome::Retryable { reason, .. }) => Verdict::Retries(reason.to_owned()),
                Some(Outcome::Rejected { reason }) => Verdict::Rejected(reason.to_owned()),
                Some(Outcome::OverLimit(fault)) => {
                    Verdict::Faults(format!("{}: {}", fault.kind.as_str(), fault.message))
                }
                None => Verdict::Faults("the handler gave no result".to_owned()),
            },
        }
    }

    fn has_output(&self, name: &str) -> bool {
        let outputs = &self.pipeline.outputs;
        name == "reply" || outputs.iter().any(|output| output.name == name)
    }
}

impl Tried {
    fn of(letter: &DeadLetter) -> Self {
        Self {
            group: letter.failure_group.clone(),
            reason: letter.reason.clone().unwrap_or_default(),
            error: shape::shape(letter.error.as_deref().unwrap_or_default()),
            letters: 0,
            succeed: 0,
            retry: 0,
            rejected: 0,
            fault: 0,
            errors: BTreeMap::new(),
            example: None,
        }
    }

    fn count(&mut self, letter: &DeadLetter, verdict: &Verdict) {
        self.letters += 1;
        let (counter, error) = match verdict {
            Verdict::Succeeds => {
                self.succeed += 1;
                return;
            }
            Verdict::Retries(error) => (&mut self.retry, error),
            Verdict::Rejected(error) => (&mut self.rejected, error),
            Verdict::Faults(error) => (&mut self.fault, error),
        };
        *counter += 1;
        let error = shape::shape(error);
        if self.errors.len() < TRY_ERRORS_MAX || self.errors.contains_key(&error) {
            *self.errors.entry(error).or_default() += 1;
        }
        self.example.get_or_insert_with(|| {
            let message = &letter.message;
            place(&message.topic, message.partition, message.offset)
        });
    }
}
