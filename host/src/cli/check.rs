//! `wasmill check FILES…`: what is missing before the configuration can run on this machine and data
//! directory, and the command that gives it. It changes nothing. Not here: what is wrong with the files
//! themselves (`lint`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::fs::{Access, access, statvfs};
use serde::Serialize;

use super::access::{IfAbsent, LOG_DIR, Streams};
use super::error::Error;
use super::files::Files;
use super::output::{Format, Out};
use super::{Place, lint};
use crate::config::valid::{Config, Delivery, Host, Pipeline};
use crate::config::{ladder, secret, written_size};
use crate::pipeline::{dead_letter, returned};

/// Less room than this on the disk of the data directory counts as missing.
const DISK_ROOM_MIN: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    files: Files,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    /// `run` would not start, or not for long.
    Missing,
}

#[derive(Debug, Serialize)]
struct Finding {
    what: String,
    verdict: Verdict,
    detail: String,
    /// The command or the change that gives what is missing.
    fix: Option<String>,
}

#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, what: impl Into<String>, detail: impl Into<String>) {
        self.0.push(Finding {
            what: what.into(),
            verdict: Verdict::Ok,
            detail: detail.into(),
            fix: None,
        });
    }

    fn missing(
        &mut self,
        what: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.0.push(Finding {
            what: what.into(),
            verdict: Verdict::Missing,
            detail: detail.into(),
            fix: Some(fix.into()),
        });
    }
}

pub(super) fn run(check: &Check, place: &Place, out: &mut Out) -> Result<(), Error> {
    let loaded = check.files.need()?;
    let mut found = Findings::default();
    for problem in loaded.missing_plugins() {
        let fix = "wasmill build".to_owned();
        found.missing("plugin", problem.message, fix);
    }
    let mut config = loaded.config;
    if let Some(data_dir) = place.named() {
        config.host.data_dir = data_dir;
    }
    for pipeline in &config.pipelines {
        plugin(pipeline, &mut found);
    }
    let host = &config.host;
    data_dir(&host.data_dir, &mut found);
    secrets(host, &mut found);
    let streams = match host.data_dir.join(LOG_DIR).exists() || super::access::url().is_some() {
        true => Some(Streams::open(&host.data_dir, IfAbsent::Refuse)?),
        false => None,
    };
    if streams.as_ref().is_some_and(Streams::is_live) {
        found.ok(
            "host",
            "one runs on this data: it is asked, and its ports are its own",
        );
    } else {
        port(
            "admin port",
            "host.admin.listen",
            host.admin_listen,
            &mut found,
        );
        port(
            "health port",
            "host.health.listen",
            host.health_listen,
            &mut found,
        );
    }
    topics(
        &config,
        &Topics::read(streams.as_ref(), &config)?,
        &mut found,
    );
    show(&found.0, check.output, out)
}

fn show(found: &[Finding], output: Format, out: &mut Out) -> Result<(), Error> {
    let missing = found
        .iter()
        .filter(|f| f.verdict == Verdict::Missing)
        .count();
    match output {
        Format::Json => out.json(&found)?,
        Format::Table => {
            let rows = found.iter().map(|finding| {
                let word = match finding.verdict {
                    Verdict::Ok => "ok",
                    Verdict::Missing => "MISSING",
                };
                vec![
                    word.to_owned(),
                    finding.what.clone(),
                    finding.detail.clone(),
                ]
            });
            out.table(&["", "WHAT", "DETAIL"], rows, "nothing to check")?;
            for finding in found {
                if let Some(fix) = &finding.fix {
                    let told = format!("{}: {}", finding.what, finding.detail);
                    out.line("")?;
                    out.line(super::text::escape(&told))?;
                    out.line(format!("  {}", super::text::escape(fix)))?;
                }
            }
        }
    }
    if missing > 0 {
        Err(Error::Said)
    } else {
        Ok(())
    }
}

fn plugin(pipeline: &Pipeline, found: &mut Findings) {
    let what = format!("plugin of {}", pipeline.name);
    let path = &pipeline.handler.plugin;
    match lint::check_plugin(pipeline) {
        Some(problem) => {
            let fix = format!(
                "see what it needs: wasmill plugin inspect {}",
                path.display()
            );
            found.missing(what, problem.message, fix);
        }
        None if path.is_file() => {
            found.ok(what, "it loads, and what it imports is granted");
        }
        // Told with its place already.
        None => {}
    }
}

fn data_dir(path: &Path, found: &mut Findings) {
    let what = "data directory";
    // What exists of it: `run` makes the rest.
    let exists = path
        .ancestors()
        .find(|p| p.exists() || p.as_os_str().is_empty());
    let exists = match exists {
        Some(existing) if !existing.as_os_str().is_empty() => existing.to_owned(),
        _ => PathBuf::from("."),
    };
    let shown = exists.display();
    if !exists.is_dir() {
        found.missing(
            what,
            format!("{shown} is not a directory"),
            "name another with --data-dir or `host.data_dir`",
        );
        return;
    }
    match access(
        &exists,
        Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK,
    ) {
        Ok(()) if exists == path => found.ok(what, format!("{shown} can be written")),
        Ok(()) => found.ok(what, format!("`run` makes {}", path.display())),
        Err(_) => {
            let owner = std::fs::metadata(&exists).map_or(0, |m| m.uid());
            let detail =
                format!("{shown} cannot be written by this user; it belongs to user {owner}");
            found.missing(
                what,
                detail,
                format!("run as user {owner}, or: sudo chown -R \"$(id -un)\" {shown}"),
            );
        }
    }
    let Ok(space) = statvfs(&exists) else { return };
    let room = space.f_bavail.saturating_mul(space.f_frsize);
    let unit = if room < DISK_ROOM_MIN { 20 } else { 30 };
    let detail = format!("{} free", written_size(room >> unit << unit));
    if room < DISK_ROOM_MIN {
        let detail = format!("{detail}, less than {}", written_size(DISK_ROOM_MIN));
        found.missing(
            "disk",
            detail,
            format!("make room; what takes it: du -xhd1 {shown}"),
        );
    } else {
        found.ok("disk", detail);
    }
}

fn secrets(host: &Host, found: &mut Findings) {
    if let Some(name) = &host.admin_token {
        match secret::read(name) {
            Ok(_) => found.ok("admin token", format!("the secret {} is set", name.0)),
            Err(why) => {
                let text = why.to_string();
                let (detail, fix) = text.split_once("; ").unwrap_or((&text, "correct it"));
                found.missing("admin token", detail, fix);
            }
        }
    }
    let files = host
        .admin_tls
        .iter()
        .flat_map(|tls| [&tls.certificate, &tls.key]);
    for file in files {
        match std::fs::File::open(file) {
            Ok(_) => found.ok("TLS", format!("{} can be read", file.display())),
            Err(why) => found.missing(
                "TLS",
                format!("{} cannot be read: {why}", file.display()),
                "correct the path in `host.admin.tls`, or the file's permissions",
            ),
        }
    }
}

fn port(what: &str, key: &str, address: SocketAddr, found: &mut Findings) {
    match TcpListener::bind(address) {
        Ok(_) => found.ok(what, format!("{address} is free")),
        Err(why) => found.missing(
            what,
            format!("{address}: {why}"),
            format!(
                "see who has it: ss -ltnp 'sport = :{}'; or set `{key}` to another",
                address.port()
            ),
        ),
    }
}

/// What is known of a topic.
struct Topic {
    partitions: u32,
    internal: bool,
    /// Asked only for those that it matters for.
    message_bytes_max: Option<u64>,
}

struct Topics(BTreeMap<String, Topic>);

impl Topics {
    fn read(streams: Option<&Streams>, config: &Config) -> Result<Self, Error> {
        let mut topics = BTreeMap::new();
        let Some(streams) = streams else {
            return Ok(Self(topics));
        };
        let sized: BTreeSet<String> = config
            .pipelines
            .iter()
            .flat_map(|p| letters(p).flat_map(|(source, letters)| [source, letters]))
            .collect();
        for topic in streams.topics()? {
            let message_bytes_max = if sized.contains(&topic.topic) {
                Some(streams.topic(&topic.topic)?.message_bytes_max)
            } else {
                None
            };
            let known = Topic {
                partitions: topic.partitions,
                internal: topic.internal,
                message_bytes_max,
            };
            topics.insert(topic.topic, known);
        }
        Ok(Self(topics))
    }
}

/// Each source topic with the topic of its dead letters.
fn letters(pipeline: &Pipeline) -> impl Iterator<Item = (String, String)> {
    let none = pipeline.delivery == Delivery::AtMostOnce;
    let sources = pipeline.source.topics.iter().filter(move |_| !none);
    sources.map(|source| {
        let own = pipeline.dead_letter.topic.clone();
        let group = &pipeline.source.consumer_group;
        let letters = own.unwrap_or_else(|| dead_letter::default_topic(source, group));
        (source.clone(), letters)
    })
}

fn topics(config: &Config, known: &Topics, found: &mut Findings) {
    let mut seen = BTreeSet::new();
    for pipeline in &config.pipelines {
        let sources = pipeline.source.topics.iter().cloned();
        let outputs = pipeline.outputs.iter().map(|output| output.topic.clone());
        let named = sources
            .chain(outputs)
            .chain(letters(pipeline).map(|(_, letters)| letters));
        for name in named.filter(|name| seen.insert(name.clone())) {
            exists(config, known, &name, found);
        }
        for (source, letters) in letters(pipeline) {
            room(known, &source, &letters, found);
        }
        for source in &pipeline.source.topics {
            ways_back(pipeline, known, source, found);
        }
    }
}

fn exists(config: &Config, known: &Topics, name: &str, found: &mut Findings) {
    let what = format!("topic {name}");
    match (known.0.get(name), config.host.create_topics) {
        (Some(topic), _) if topic.internal => found.missing(
            what,
            "it is internal: hosts keep messages on their way back in it",
            "name another topic in the configuration",
        ),
        (Some(topic), _) => found.ok(what, format!("{} partitions", topic.partitions)),
        (None, Some(_)) => found.ok(what, "`run` creates it"),
        (None, None) => found.missing(
            what,
            "it does not exist, and `host.create_topics` is false",
            format!("wasmill topics create {name}"),
        ),
    }
}

/// A dead letter is its message with headers of the host's (§6.1).
fn room(known: &Topics, source: &str, letters: &str, found: &mut Findings) {
    let size = |name: &str| known.0.get(name).and_then(|topic| topic.message_bytes_max);
    let (Some(from), Some(to)) = (size(source), size(letters)) else {
        return;
    };
    let needed = from.saturating_add(dead_letter::ADDED_BYTES_MAX as u64);
    if to < needed {
        found.missing(
            format!("room in {letters}"),
            format!("it takes messages of {to} bytes; dead letters of {source} need {needed}"),
            "name another topic in `dead_letter.topic`; `run` creates it with room",
        );
    }
}

/// Retries and redriven dead letters keep the partition of their source (§5.2, §6.4).
fn ways_back(pipeline: &Pipeline, known: &Topics, source: &str, found: &mut Findings) {
    let Some(of) = known.0.get(source) else {
        return;
    };
    let group = &pipeline.source.consumer_group;
    let steps = ladder::ladder(&pipeline.retry.backoff).unwrap_or_default();
    let retries = steps
        .iter()
        .map(|ms| returned::retry_topic(source, group, *ms));
    for name in retries.chain([returned::redrive_topic(source, group)]) {
        let Some(topic) = known.0.get(&name) else {
            continue;
        };
        if !topic.internal || topic.partitions != of.partitions {
            found.missing(
                format!("topic {name}"),
                format!(
                    "it has {} partitions and {source} {}, or it is not the host's",
                    topic.partitions, of.partitions
                ),
                "give the pipeline another `consumer_group`",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::console::Console;
    use crate::admin::wire::CreateTopic;
    use crate::connector::embedded::{Log, Options};

    fn config(host: &str) -> Config {
        let text = format!(
            "version: 1\nhost: {host}\npipelines:\n  - {{ name: p, source: {{ topics: [orders], consumer_group: g, start: earliest }}, handler: {{ plugin: p.wasm }}, outputs: {{ default: {{ topic: out }} }} }}\n"
        );
        let loaded = crate::config::load_text(Path::new("c.yaml"), &text, &|_| None);
        loaded.unwrap().config
    }

    fn missing(found: &Findings) -> Vec<(&str, &str)> {
        let found = found.0.iter().filter(|f| f.verdict == Verdict::Missing);
        found
            .map(|f| (f.what.as_str(), f.fix.as_deref().unwrap()))
            .collect()
    }

    fn checked(host: &str, make: &[&str]) -> Findings {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path().join("log"), Options::default()).unwrap();
        let console = Console::offline(log);
        for topic in make {
            let wanted = serde_json::json!({"name": topic, "partitions": 2});
            let wanted: CreateTopic = serde_json::from_value(wanted).unwrap();
            console.create_topic(&wanted).unwrap();
        }
        let streams = Streams::Here(console);
        let config = config(host);
        let mut found = Findings::default();
        let known = Topics::read(Some(&streams), &config).unwrap();
        topics(&config, &known, &mut found);
        found
    }

    #[test]
    fn topics_that_run_creates_are_not_missing() {
        assert_eq!(missing(&checked("{}", &[])), []);
    }

    #[test]
    fn topics_that_nobody_creates_are_missing_with_the_command_that_does() {
        let found = checked("{ create_topics: false }", &["orders", "orders.g.dlq.x"]);
        let found = missing(&found);
        let commands: Vec<&str> = found.iter().map(|(_, fix)| *fix).collect();
        let create = [
            "wasmill topics create out",
            "wasmill topics create orders.g.dlq",
        ];
        assert_eq!(commands, create);
    }

    #[test]
    fn a_dead_letter_topic_without_room_for_headers_is_missing_it() {
        // Made by hand it takes messages as large as the source, and a dead letter is larger (§6.1).
        let found = checked("{}", &["orders", "orders.g.dlq"]);
        assert_eq!(missing(&found)[0].0, "room in orders.g.dlq");
    }

    #[test]
    fn a_way_back_that_is_not_the_hosts_or_has_other_partitions_is_told() {
        let found = checked("{}", &["orders", "orders.g.redrive"]);
        assert_eq!(missing(&found)[0].0, "topic orders.g.redrive");
    }

    #[test]
    fn a_port_that_is_taken_is_missing() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut found = Findings::default();
        port(
            "admin port",
            "host.admin.listen",
            taken.local_addr().unwrap(),
            &mut found,
        );
        assert_eq!(missing(&found).len(), 1);
        let address = taken.local_addr().unwrap();
        drop(taken);
        let mut found = Findings::default();
        port("admin port", "host.admin.listen", address, &mut found);
        assert_eq!(missing(&found), []);
    }

    #[test]
    fn a_data_directory_that_cannot_be_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut found = Findings::default();
        data_dir(&file.join("data"), &mut found);
        assert_eq!(missing(&found)[0].0, "data directory");
        let mut found = Findings::default();
        data_dir(&dir.path().join("a/b"), &mut found);
        assert!(found.0[0].detail.starts_with("`run` makes"), "{found:?}");
    }
}
