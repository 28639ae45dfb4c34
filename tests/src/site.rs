//! A place for one host: a temporary directory with its configuration, data directory and log. It
//! outlives the processes that run on it. Not here: those processes (`process`).

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use wasmill::connector::embedded::{
    Append, ChunkBuilder, Commit, Log, Options, Topic, TopicSpec, partition_of_key,
};
use wasmill::message::{HeadersBuf, MessageRef};

use crate::input::Input;
use crate::process::Process;

/// Messages in one commit of [`Site::publish`].
const CHUNK_MESSAGES: usize = 1_000;

/// A host's directory.
pub struct Site {
    dir: TempDir,
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Where cargo puts things.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The host binary with fault points; says what to run when it is not there.
pub fn host_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let path = std::env::var_os("WASMILL_BIN")
            .map_or_else(|| target_dir().join("debug").join("wasmill"), PathBuf::from);
        let help = "run `cargo build --workspace --bins --features wasmill/faults` first";
        let Ok(bytes) = std::fs::read(&path) else {
            panic!("there is no host at {}; {help}", path.display());
        };
        let needle = b"WASMILL_FAULT";
        assert!(
            memchr_find(&bytes, needle),
            "{} has no fault points; {help}",
            path.display()
        );
        path
    })
}

fn memchr_find(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// A guest as a component.
pub fn plugin(name: &str) -> PathBuf {
    let path = target_dir().join("plugins").join(format!("{name}.wasm"));
    assert!(
        path.exists(),
        "there is no {}; run `cargo xtask plugins` first",
        path.display()
    );
    path
}

impl Site {
    /// A site whose host runs `pipelines` (the YAML list under that key).
    pub fn new(pipelines: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("wasmill-e2e-")
            .tempdir()
            .unwrap();
        let site = Self { dir };
        site.configure("", pipelines);
        site
    }

    /// Writes the configuration anew; `host` are more lines of the block `host`.
    pub fn configure(&self, host: &str, pipelines: &str) {
        let yaml = format!(
            "version: 1\nhost:\n  data_dir: {}\n  admin: {{ listen: \"127.0.0.1:0\" }}\n  health: {{ listen: \"127.0.0.1:0\" }}\n{host}pipelines:\n{pipelines}",
            self.data_dir().display()
        );
        std::fs::write(self.config(), yaml).unwrap();
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("pipeline.yaml")
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn host_log(&self) -> PathBuf {
        self.dir.path().join("host.log")
    }

    /// Starts a host and waits until it answers.
    pub fn start(&self) -> Process {
        self.start_with(&[])
    }

    pub fn start_with(&self, environment: &[(&str, &str)]) -> Process {
        let mut process = self.spawn(environment);
        process.await_ready();
        process
    }

    /// Starts a host and does not wait.
    pub fn spawn(&self, environment: &[(&str, &str)]) -> Process {
        Process::spawn(host_binary(), self, &[], environment)
    }

    /// Starts a host that goes on although stored data depends on what was changed.
    pub fn start_accepting_change(&self) -> Process {
        let mut process = Process::spawn(host_binary(), self, &["--accept-change"], &[]);
        process.await_ready();
        process
    }

    /// The log of a host that does not run. Close it before one is started.
    pub fn open_log(&self) -> Log {
        Log::open(self.data_dir().join("log"), Options::default()).unwrap()
    }

    /// Everything in a topic, while no host runs.
    pub fn read(&self, topic: &str) -> Vec<Stored> {
        let log = self.open_log();
        let all = read_topic(&log, topic);
        log.close().unwrap();
        all
    }

    /// Runs a command of the host binary that is not a host; `environment` beside this process's own.
    pub fn command(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> std::process::Output {
        std::process::Command::new(host_binary())
            .args(arguments)
            .env_remove("WASMILL_URL")
            .env_remove("WASMILL_TOKEN")
            .env_remove("WASMILL_DATA_DIR")
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    /// Writes inputs while no host runs, creating the topic.
    pub fn publish(&self, topic: &str, partitions: u32, inputs: &[Input]) {
        let log = self.open_log();
        let topic = log
            .create_topic(&TopicSpec::new(topic, NonZeroU32::new(partitions).unwrap()))
            .unwrap();
        publish(&log, &topic, inputs);
        log.close().unwrap();
    }
}

/// A message as it stands in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub partition: u32,
    pub offset: u64,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Stored {
    /// The last value of a header as text.
    pub fn header(&self, name: &str) -> Option<String> {
        let found = self.headers.iter().rev().find(|(other, _)| other == name)?;
        let value = found.1.as_deref()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    pub fn id(&self) -> String {
        self.header(crate::input::ID).unwrap_or_default()
    }
}

/// Everything in a topic, by partition and offset; nothing when there is no such topic.
pub fn read_topic(log: &Log, name: &str) -> Vec<Stored> {
    let mut all = Vec::new();
    let Some(topic) = log.topic(name) else {
        return all;
    };
    for (partition, id) in (0u32..).zip(&topic.partitions) {
        let mut at = 0;
        while let Some(chunk) = log.read(*id, at).unwrap() {
            all.extend(chunk.iter_from(at).map(|(offset, _, message)| {
                Stored {
                    partition,
                    offset,
                    key: message.key.map(<[u8]>::to_vec),
                    payload: message.payload.map(<[u8]>::to_vec),
                    headers: message
                        .headers
                        .iter()
                        .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                        .collect(),
                }
            }));
            at = chunk.end_offset();
        }
    }
    all
}

/// Appends inputs in order, by key as a producer would.
pub fn publish(log: &Log, topic: &Topic, inputs: &[Input]) {
    let mut headers = HeadersBuf::new();
    for inputs in inputs.chunks(CHUNK_MESSAGES) {
        let mut builders: BTreeMap<u32, ChunkBuilder> = BTreeMap::new();
        for input in inputs {
            input.headers_into(&mut headers);
            let message = MessageRef {
                key: input.key.as_deref(),
                payload: input.payload.as_deref(),
                headers: headers.as_headers(),
                timestamp_ms: 1_357_000_000_000,
            };
            let partition = match (input.partition, &input.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_of_key(key, topic.spec.partitions),
                (None, None) => topic.partition_for(None),
            };
            builders.entry(partition).or_default().push(&message);
        }
        let appends = builders
            .into_iter()
            .map(|(partition, mut builder)| Append {
                partition: topic.partition(partition).unwrap(),
                chunk: builder.finish(),
            })
            .collect();
        log.commit(Commit {
            appends,
            ..Commit::default()
        })
        .unwrap();
    }
}
