//! What the durable data of a group depends on (§13.1, §13.2): kept beside it, so that a configuration or a
//! number of partitions under which the data would mean something else is refused until somebody says that
//! it is meant.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::admin::fingerprint::{
    Epochs, Fingerprint, VERSION, VERSION_ENTRY, key, pipelines, read,
};
use crate::config::valid::{By, Config, Pipeline};
use crate::connector::embedded::{self, Commit, Log, Write};

use super::Error;
use super::pipelines::PATIENCE;

/// By name of what it is, as it is configured.
type Entries = BTreeMap<String, String>;

/// Before the name of a source topic: its number of partitions. Entries with a slash are no configuration.
const PARTITIONS: &str = "partitions/";
/// The epochs in which the numbers of partitions were written down.
const EPOCH_COMPLETIONS: &str = "epoch/completions";
const EPOCH_STATE: &str = "epoch/state";

/// What is kept by partition, and so is not found by a key that lies in another partition now.
struct ByPartition {
    /// The entry that says that there is some.
    entry: &'static str,
    /// Only with this value.
    value: Option<&'static str>,
    /// The entry of the epoch with which it begins anew.
    epoch: &'static str,
    what: &'static str,
}

/// What makes a pipeline refuse another number of partitions (§13.2).
const BY_PARTITION: [ByPartition; 3] = [
    ByPartition {
        entry: "handler.allow.state.name",
        value: None,
        epoch: EPOCH_STATE,
        what: "the handler's state",
    },
    ByPartition {
        entry: "sequence.number",
        value: None,
        epoch: EPOCH_COMPLETIONS,
        what: "sequence numbers",
    },
    ByPartition {
        entry: "idempotency.scope",
        value: Some("partition"),
        epoch: EPOCH_COMPLETIONS,
        what: "idempotency keys",
    },
];

/// What a configuration comes to over what is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// A start is refused unless the change is accepted.
    pub refusal: Option<Refusal>,
    /// What does not hold across the change.
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub message: String,
    pub help: String,
}

fn of(pipeline: &Pipeline) -> Entries {
    let mut all = Entries::new();
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

/// How many partitions a topic has, or would be made with; `None`: it is not there, and nobody makes it.
fn count(log: &Log, made: Option<NonZeroU32>, topic: &str) -> Option<u32> {
    let known = log.topic(topic).map(|topic| topic.spec.partitions);
    known.or(made).map(NonZeroU32::get)
}

/// What is remembered of the pipeline, by the name under which it is. Under its own there is nothing when it was
/// renamed; then of those of its group that are not configured any more, of which it may be one.
fn remembered(
    log: &Log,
    config: &Config,
    pipeline: &Pipeline,
) -> Result<Vec<(String, Fingerprint)>, embedded::Error> {
    let group = &pipeline.source.consumer_group;
    let own = read(log, group, &pipeline.name)?;
    if own.depends_on.is_some() {
        return Ok(vec![(pipeline.name.clone(), own)]);
    }
    let is_configured = |name: &String| {
        let mut pipelines = config.pipelines.iter();
        pipelines.any(|one| one.name == *name && one.source.consumer_group == *group)
    };
    let names = pipelines(log, group)?.into_iter();
    let former = names.filter(|name| !is_configured(name));
    former
        .map(|name| Ok((name.clone(), read(log, group, &name)?)))
        .collect()
}

/// Refuses pipelines under which data that is there would mean something else.
pub(super) fn check(log: &Log, config: &Config, accept: bool) -> Result<(), Error> {
    let count = |topic: &str| count(log, config.host.create_topics, topic);
    for pipeline in config.pipelines.iter().filter(|_| !accept) {
        for (name, stored) in remembered(log, config, pipeline)? {
            let Some(Refusal { message, help }) = compare(pipeline, &stored, count).refusal else {
                continue;
            };
            let as_other = if name == pipeline.name {
                String::new()
            } else {
                format!(" (as pipeline `{name}`, which is configured no more)")
            };
            return Err(Error::Pipeline {
                pipeline: pipeline.name.clone(),
                why: format!("{message}{as_other}; {help}"),
            });
        }
    }
    Ok(())
}

/// What `check` let through is what holds from now on. Says what was accepted, and what does not hold across it.
pub(super) fn write(log: &Log, config: &Config) -> Result<(), Error> {
    let count = |topic: &str| count(log, config.host.create_topics, topic);
    let mut commit = Commit::default();
    for pipeline in &config.pipelines {
        let (group, name) = (&pipeline.source.consumer_group, &pipeline.name);
        let remembered = remembered(log, config, pipeline)?;
        for (former, stored) in &remembered {
            let Comparison { refusal, warnings } = compare(pipeline, stored, count);
            if let Some(Refusal { message, .. }) = refusal {
                tracing::warn!(target: "audit", pipeline = %name, "a change was accepted: {message}");
            }
            for warning in warnings {
                tracing::warn!(pipeline = %name, "{warning}");
            }
            if former != name {
                commit.writes.push(Write::Meta {
                    key: key(group, former),
                    value: None,
                });
            }
        }
        let stored = match remembered.into_iter().next() {
            Some((former, stored)) if former == *name => stored,
            // Written down under the new name whatever it was.
            Some((_, stored)) => Fingerprint {
                depends_on: stored.depends_on.map(|mut all| {
                    all.remove(VERSION_ENTRY);
                    all
                }),
                ..stored
            },
            None => read(log, group, name)?,
        };
        let now = entries(pipeline, &stored, count);
        if stored.depends_on.as_ref() != Some(&now) {
            // A map of strings: writing it to memory cannot fail.
            let value = serde_json::to_vec(&now).unwrap_or_default();
            commit.writes.push(Write::Meta {
                key: key(group, name),
                value: Some(value),
            });
        }
    }
    if !commit.writes.is_empty() {
        log.commit_within(commit, PATIENCE)?;
    }
    Ok(())
}

/// What is remembered from now on. A topic that is not read any more is remembered while there may be data of
/// its partitions.
fn entries(
    pipeline: &Pipeline,
    stored: &Fingerprint,
    count: impl Fn(&str) -> Option<u32>,
) -> Entries {
    let mut all = of(pipeline);
    let before = stored.depends_on.iter().flatten();
    if is_epoch(stored, EPOCH_COMPLETIONS) && is_epoch(stored, EPOCH_STATE) {
        let kept = before.filter(|(name, _)| name.starts_with(PARTITIONS));
        all.extend(kept.map(|(name, count)| (name.clone(), count.clone())));
    }
    for topic in &pipeline.source.topics {
        if let Some(count) = count(topic) {
            all.insert(format!("{PARTITIONS}{topic}"), count.to_string());
        }
    }
    all.insert(VERSION_ENTRY.to_owned(), VERSION.to_owned());
    for name in [EPOCH_COMPLETIONS, EPOCH_STATE] {
        all.insert(name.to_owned(), epoch(stored.epochs, name).to_string());
    }
    all
}

fn epoch(epochs: Epochs, name: &str) -> u64 {
    if name == EPOCH_STATE {
        epochs.state
    } else {
        epochs.completions
    }
}

/// Whether what was stored is of the epoch that is now.
fn is_epoch(stored: &Fingerprint, name: &str) -> bool {
    let before = stored.depends_on.as_ref().and_then(|all| all.get(name));
    before.is_some_and(|before| *before == epoch(stored.epochs, name).to_string())
}

/// What a start with this pipeline comes to. `count`: how many partitions a topic has.
pub fn compare(
    pipeline: &Pipeline,
    stored: &Fingerprint,
    count: impl Fn(&str) -> Option<u32>,
) -> Comparison {
    let Some(before) = &stored.depends_on else {
        return Comparison::default();
    };
    let group = &pipeline.source.consumer_group;
    let changes = differences(before, &of(pipeline));
    let mut reasons = Vec::new();
    if !changes.is_empty() {
        reasons.push(format!(
            "what its group `{group}` has stored depends on what was changed: {}",
            changes.join(", ")
        ));
    }
    let kept: Vec<&str> = kept_by_partition(before, stored).collect();
    let mut help = "take the change back, give the pipeline another consumer group".to_owned();
    let mut warnings = Vec::new();
    for topic in &pipeline.source.topics {
        let was = before.get(&format!("{PARTITIONS}{topic}"));
        let (Some(was), Some(is)) = (was, count(topic).map(|count| count.to_string())) else {
            continue;
        };
        if *was == is {
            continue;
        }
        let change = format!("the number of partitions of topic `{topic}` changed: {was} → {is}");
        if pipeline.ordering.by != By::None {
            warnings.push(format!(
                "{change}, so a message may be called before an earlier one of its key that lies in another partition"
            ));
        }
        if !kept.is_empty() {
            reasons.push(format!(
                "{change}, and its group `{group}` keeps {} by partition, where a key that moved does not find it",
                kept.join(" and ")
            ));
        }
    }
    if !kept.is_empty() && reasons.len() > usize::from(!changes.is_empty()) {
        help.push_str(&format!(
            ", begin anew with `wasmill groups seek {group} --to earliest --idempotency new-epoch --state reset`"
        ));
    }
    help.push_str(", or run with `--accept-change` if you mean it");
    Comparison {
        refusal: (!reasons.is_empty()).then(|| Refusal {
            message: reasons.join(", and "),
            help,
        }),
        warnings,
    }
}

/// What there is by partition, of the epochs that are now: what was stored before a reset is not found anyway.
fn kept_by_partition<'s>(
    before: &'s Entries,
    stored: &'s Fingerprint,
) -> impl Iterator<Item = &'static str> {
    let kept = BY_PARTITION.iter().filter(|one| {
        let value = before.get(one.entry);
        let is_kept = value.is_some_and(|value| one.value.is_none_or(|only| only == value));
        is_kept && is_epoch(stored, one.epoch)
    });
    kept.map(|one| one.what)
}

/// `ordering.by: Key → None`. What is new, such as a first idempotency key, changes nothing that is there;
/// what was dropped does.
fn differences(stored: &Entries, now: &Entries) -> Vec<String> {
    let mut changes = Vec::new();
    for (name, was) in stored.iter().filter(|(name, _)| !name.contains('/')) {
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
    use crate::connector::embedded::{Options, TopicSpec};

    const STATE: &str = ", handler: { plugin: ./h.wasm, allow: { state: {} } }";
    const PLAIN: &str = ", handler: { plugin: ./h.wasm }";

    fn config(more: &str) -> Config {
        let text = format!(
            "version: 1\npipelines:\n  - {{ name: p, source: {{ topics: [t], consumer_group: g, start: earliest }}{more} }}\n"
        );
        let path = std::path::Path::new("pipeline.yaml");
        let loaded = crate::config::load_text(path, &text, &|_| None);
        loaded.unwrap().config
    }

    fn pipeline(more: &str) -> Pipeline {
        config(more).pipelines.remove(0)
    }

    /// What is stored after a start of `pipeline`, when `t` had so many partitions.
    fn stored(pipeline: &Pipeline, partitions: u32) -> Fingerprint {
        Fingerprint {
            depends_on: Some(entries(pipeline, &Fingerprint::default(), |_| {
                Some(partitions)
            })),
            epochs: Epochs::default(),
        }
    }

    #[test]
    fn a_change_that_stored_data_depends_on_is_refused_by_name_until_it_is_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let pipelines = |more: &str| config(&format!("{PLAIN}{more}"));
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

    /// §13.2.
    #[test]
    fn another_number_of_partitions_is_refused_where_something_is_kept_by_partition() {
        let with_state = pipeline(STATE);
        let known = stored(&with_state, 3);
        assert_eq!(
            compare(&with_state, &known, |_| Some(3)),
            Comparison::default()
        );
        // A topic that is not there, and that nobody makes, is told elsewhere.
        assert_eq!(
            compare(&with_state, &known, |_| None),
            Comparison::default()
        );
        let compared = compare(&with_state, &known, |_| Some(2));
        let refusal = compared.refusal.unwrap();
        for said in ["`t`", "3 → 2", "`g`", "the handler's state"] {
            assert!(refusal.message.contains(said), "{said}: {refusal:?}");
        }
        for said in ["--accept-change", "seek g --to earliest", "--state reset"] {
            assert!(refusal.help.contains(said), "{said}: {refusal:?}");
        }
        // A second start finds what the first one accepted.
        assert_eq!(
            compare(&with_state, &stored(&with_state, 2), |_| Some(2)),
            Comparison::default()
        );
    }

    /// §4.5: they are kept by partition, and renewed with the keys of the idempotency table.
    #[test]
    fn sequence_numbers_refuse_another_number_of_partitions_until_they_are_renewed() {
        let numbered = pipeline(&format!("{PLAIN}, sequence: {{ number: message.json.n }}"));
        let mut known = stored(&numbered, 3);
        let refusal = compare(&numbered, &known, |_| Some(4)).refusal.unwrap();
        assert!(refusal.message.contains("sequence numbers"), "{refusal:?}");
        known.epochs.state = 1;
        assert!(compare(&numbered, &known, |_| Some(4)).refusal.is_some());
        known.epochs.completions = 1;
        assert_eq!(compare(&numbered, &known, |_| Some(4)).refusal, None);
    }

    #[test]
    fn what_refuses_another_number_of_partitions_is_state_sequence_numbers_and_keys_by_partition() {
        let with_state = pipeline(STATE);
        for (entry, value, refused) in [
            ("handler.allow.state.name", "default", true),
            ("sequence.number", "message.json.n", true),
            ("idempotency.scope", "partition", true),
            ("idempotency.scope", "global", false),
            ("idempotency.key", "message.key", false),
        ] {
            let mut known = stored(&pipeline(PLAIN), 3);
            let all = known.depends_on.as_mut().unwrap();
            all.insert(entry.to_owned(), value.to_owned());
            let refusal = compare(&with_state, &known, |_| Some(4)).refusal;
            let told = refusal.is_some_and(|refusal| refusal.message.contains("3 → 4"));
            assert_eq!(told, refused, "{entry}");
        }
    }

    #[test]
    fn without_them_it_warns_that_order_broke_where_there_was_one() {
        let plain = pipeline(PLAIN);
        let compared = compare(&plain, &stored(&plain, 3), |_| Some(4));
        assert_eq!(compared.refusal, None);
        assert!(compared.warnings[0].contains("3 → 4"), "{compared:?}");
        let free = pipeline(&format!("{PLAIN}, ordering: {{ by: none }}"));
        let compared = compare(&free, &stored(&free, 3), |_| Some(4));
        assert_eq!(compared, Comparison::default());
    }

    /// State that is granted now has nothing by the old partitions.
    #[test]
    fn state_that_is_new_refuses_no_number_of_partitions() {
        let compared = compare(&pipeline(STATE), &stored(&pipeline(PLAIN), 3), |_| Some(4));
        assert_eq!(compared.refusal, None);
        assert_eq!(compared.warnings.len(), 1);
    }

    #[test]
    fn what_a_seek_began_anew_refuses_no_number_of_partitions() {
        let with_state = pipeline(STATE);
        let mut known = stored(&with_state, 3);
        known.epochs.completions = 1;
        let kept = compare(&with_state, &known, |_| Some(4)).refusal;
        assert!(kept.is_some(), "the state is the old one");
        known.epochs.state = 1;
        assert_eq!(compare(&with_state, &known, |_| Some(4)).refusal, None);
        // From the next start on there is state by the new partitions.
        let later = Fingerprint {
            depends_on: Some(entries(&with_state, &known, |_| Some(4))),
            epochs: known.epochs,
        };
        assert!(compare(&with_state, &later, |_| Some(5)).refusal.is_some());
    }

    #[test]
    fn a_topic_that_is_read_again_later_is_remembered_until_its_data_is_renewed() {
        let first = pipeline(STATE);
        let second = Pipeline {
            source: crate::config::valid::Source {
                topics: vec!["other".into()],
                ..first.source.clone()
            },
            ..first.clone()
        };
        let mut known = stored(&first, 3);
        known.depends_on = Some(entries(&second, &known, |_| Some(7)));
        assert!(compare(&first, &known, |_| Some(4)).refusal.is_some());
        known.epochs = Epochs {
            completions: 1,
            state: 1,
        };
        known.depends_on = Some(entries(&second, &known, |_| Some(7)));
        assert_eq!(compare(&first, &known, |_| Some(4)), Comparison::default());
    }

    #[test]
    fn the_number_is_that_of_the_topic_or_the_one_it_would_be_made_with() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let config = config(STATE);
        write(&log, &config).unwrap();
        check(&log, &config, false).unwrap();
        let spec = TopicSpec::new("t", NonZeroU32::new(2).unwrap());
        log.create_topic(&spec).unwrap();
        let why = check(&log, &config, false).unwrap_err().to_string();
        assert!(
            why.contains("pipeline `p`") && why.contains("6 → 2"),
            "{why}"
        );
        check(&log, &config, true).unwrap();
        write(&log, &config).unwrap();
        check(&log, &config, false).unwrap();
    }

    /// §13.1: what is stored is the group's, whatever its pipeline is called.
    #[test]
    fn a_pipeline_under_another_name_is_held_against_what_its_group_has() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let named = |name: &str, more: &str| {
            let mut config = config(&format!("{PLAIN}{more}"));
            config.pipelines[0].name = name.into();
            config
        };
        let first = named("p", ", idempotency: { key: message.json.id, ttl: 1h }");
        write(&log, &first).unwrap();
        let same = named("q", ", idempotency: { key: message.json.id, ttl: 1h }");
        check(&log, &same, false).unwrap();
        let other = named("q", ", idempotency: { key: message.key, ttl: 1h }");
        let why = check(&log, &other, false).unwrap_err().to_string();
        for said in [
            "pipeline `q`",
            "pipeline `p`",
            "idempotency.key",
            "--accept-change",
        ] {
            assert!(why.contains(said), "{said}: {why}");
        }
        check(&log, &other, true).unwrap();
        write(&log, &other).unwrap();
        // The old name is gone, and the new one stands for itself.
        assert_eq!(pipelines(&log, "g").unwrap(), ["q"]);
        check(&log, &other, false).unwrap();
        check(&log, &first, false).unwrap_err();
        // Two that are configured have each their own.
        let mut both = other.clone();
        both.pipelines.extend(first.pipelines);
        check(&log, &both, false).unwrap();
    }

    /// §13.4.
    #[test]
    fn what_another_version_wrote_is_refused_and_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), Options::default()).unwrap();
        let config = config(PLAIN);
        let newer = format!("{{\"{VERSION_ENTRY}\": \"2\"}}");
        for (stored, is_read) in [
            ("{\"ordering.by\": \"Key\"}", true),
            (newer.as_str(), false),
            ("{\"ordering.by\": 1}", false),
            ("", false),
        ] {
            log.commit(Commit {
                writes: vec![Write::Meta {
                    key: key("g", "p"),
                    value: Some(stored.as_bytes().to_vec()),
                }],
                ..Commit::default()
            })
            .unwrap();
            let checked = check(&log, &config, false);
            assert_eq!(checked.is_ok(), is_read, "{stored}");
            if let Err(why) = checked {
                assert!(why.to_string().contains("newer wasmill"), "{why}");
            }
        }
    }
}
