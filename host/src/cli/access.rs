//! How a command reaches the streams: a directory nobody holds is opened here, a running host is
//! asked over its admin port, and when neither is possible the error says what to do. Not here: what
//! is asked (the commands).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::error::Error;
use crate::admin;
use crate::admin::console::Console;
use crate::admin::fingerprint::Fingerprint;
use crate::admin::logs::{LogPage, LogQuery};
use crate::admin::operations::{Changes, Order};
use crate::admin::remote::{Remote, Trust};
use crate::admin::seek::{SeekReply, SeekRequest};
use crate::admin::token::{Address, Token};
use crate::admin::trace::{Trace, TraceQuery};
use crate::admin::wire::{
    CreateTopic, GroupDescription, GroupSummary, OffsetReply, Page, ProduceReply, ReadRequest,
    Record, Status, TopicDescription, TopicSummary,
};
use crate::connector::embedded;
use crate::telemetry::log_files::LOGS_DIR;
use crate::telemetry::spans::Spans;

/// The data directory when neither `--data-dir` nor `WASMILL_DATA_DIR` names one.
pub(super) const DATA_DIR_DEFAULT: &str = "./wasmill-data";

/// Where the embedded log lies in a data directory.
pub(super) const LOG_DIR: &str = "log";

/// Whether a directory that is not there may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IfAbsent {
    Create,
    Refuse,
}

/// The streams of one data directory, wherever they are.
pub(super) enum Streams {
    Here(Console),
    There(Remote),
}

/// The directory that was named: `--data-dir`, else `WASMILL_DATA_DIR`.
#[must_use]
pub(super) fn named_data_dir(argument: Option<&Path>) -> Option<PathBuf> {
    let environment = || variable("WASMILL_DATA_DIR").map(PathBuf::from);
    argument.map(Path::to_owned).or_else(environment)
}

impl Streams {
    /// `WASMILL_URL` first; then the directory itself; when a process holds that, its admin port.
    pub(super) fn open(data_dir: &Path, if_absent: IfAbsent) -> Result<Self, Error> {
        if let Some(url) = url() {
            let remote = Remote::trusting(&url, token(data_dir)?, trust()?)?;
            return Ok(Self::There(remote));
        }
        let log_dir = data_dir.join(LOG_DIR);
        if if_absent == IfAbsent::Refuse && !log_dir.exists() {
            return Err(Error::failed(
                format!("there is no wasmill data in {}", data_dir.display()),
                "name it with --data-dir or WASMILL_DATA_DIR; `wasmill produce`, `topics create` and `run` make one",
            ));
        }
        // The lock decides, not admin.json: after a crash that file is stale, and a stranger may
        // listen on the port it names.
        match embedded::Log::open(&log_dir, embedded::Options::default()) {
            Ok(log) => Ok(Self::Here(
                Console::offline(log).with_logs(data_dir.join(LOGS_DIR)),
            )),
            Err(embedded::Error::Held { holder, .. }) => Self::holder(data_dir, &holder),
            Err(why) => Err(admin::Error::from(why).into()),
        }
    }

    fn holder(data_dir: &Path, holder: &str) -> Result<Self, Error> {
        let address = Address::read(data_dir)
            .map_err(|why| Error::failed(why.to_string(), "run the command as the host's user"))?;
        let Some(address) = address else {
            return Err(Error::failed(
                format!(
                    "{} is held by {holder}, which has no admin port (yet)",
                    data_dir.display()
                ),
                "a host that starts opens it within seconds; another command ends soon: try again",
            ));
        };
        let token = token(data_dir)?;
        let remote = if address.tls {
            Remote::trusting(&local(&address), token, Trust::OwnMachine)?
        } else {
            Remote::new(&format!("http://{}", address.admin), token)?
        };
        Ok(Self::There(remote))
    }

    /// What is published here is an edge of the system, with spans of its own; a host has its own.
    #[must_use]
    pub(super) fn traced(self) -> Self {
        match self {
            Self::Here(console) => Self::Here(console.with_spans(Spans::of_a_command())),
            Self::There(remote) => Self::There(remote),
        }
    }

    pub(super) fn status(&self) -> Result<Status, Error> {
        Ok(match self {
            Self::Here(console) => console.status()?,
            Self::There(remote) => remote.status()?,
        })
    }

    pub(super) fn topics(&self) -> Result<Vec<TopicSummary>, Error> {
        Ok(match self {
            Self::Here(console) => console.topics()?,
            Self::There(remote) => remote.topics()?,
        })
    }

    pub(super) fn topic(&self, topic: &str) -> Result<TopicDescription, Error> {
        Ok(match self {
            Self::Here(console) => console.topic(topic)?,
            Self::There(remote) => remote.topic(topic)?,
        })
    }

    pub(super) fn create_topic(&self, wanted: &CreateTopic) -> Result<TopicDescription, Error> {
        Ok(match self {
            Self::Here(console) => console.create_topic(wanted)?,
            Self::There(remote) => remote.create_topic(wanted)?,
        })
    }

    pub(super) fn produce(&self, topic: &str, records: &[Record]) -> Result<ProduceReply, Error> {
        Ok(match self {
            Self::Here(console) => console.produce(topic, records)?,
            Self::There(remote) => remote.produce(topic, records)?,
        })
    }

    pub(super) fn read(&self, topic: &str, request: &ReadRequest) -> Result<Page, Error> {
        Ok(match self {
            Self::Here(console) => console.read(topic, request)?,
            Self::There(remote) => remote.read(topic, request)?,
        })
    }

    pub(super) fn offset_at(
        &self,
        topic: &str,
        partition: u32,
        at_ms: i64,
    ) -> Result<OffsetReply, Error> {
        Ok(match self {
            Self::Here(console) => console.offset_at(topic, partition, at_ms)?,
            Self::There(remote) => remote.offset_at(topic, partition, at_ms)?,
        })
    }

    pub(super) fn groups(&self) -> Result<Vec<GroupSummary>, Error> {
        Ok(match self {
            Self::Here(console) => console.groups()?,
            Self::There(remote) => remote.groups()?,
        })
    }

    pub(super) fn group(&self, group: &str) -> Result<GroupDescription, Error> {
        Ok(match self {
            Self::Here(console) => console.group(group)?,
            Self::There(remote) => remote.group(group)?,
        })
    }

    /// What the data of a group was written under by a pipeline.
    pub(super) fn fingerprint(&self, group: &str, pipeline: &str) -> Result<Fingerprint, Error> {
        Ok(match self {
            Self::Here(console) => console.fingerprint(group, pipeline)?,
            Self::There(remote) => remote.fingerprint(group, pipeline)?,
        })
    }

    /// Has the running host do something.
    pub(super) fn order(&self, order: Order) -> Result<Changes, Error> {
        Ok(match self {
            Self::Here(console) => console.order(order)?,
            Self::There(remote) => remote.order(&order)?,
        })
    }

    pub(super) fn seek(&self, group: &str, request: &SeekRequest) -> Result<SeekReply, Error> {
        Ok(match self {
            Self::Here(console) => console.seek(group, request)?,
            Self::There(remote) => remote.seek(group, request)?,
        })
    }

    pub(super) fn logs(&self, query: &LogQuery) -> Result<LogPage, Error> {
        Ok(match self {
            Self::Here(console) => console.logs(query)?,
            Self::There(remote) => remote.logs(query)?,
        })
    }

    pub(super) fn trace(&self, id: &str, query: &TraceQuery) -> Result<Trace, Error> {
        Ok(match self {
            Self::Here(console) => console.trace(id, query)?,
            Self::There(remote) => remote.trace(id, query)?,
        })
    }

    /// Whether new messages can arrive while we look: nobody else writes to a directory held here.
    #[must_use]
    pub(super) const fn is_live(&self) -> bool {
        matches!(self, Self::There(_))
    }
}

/// `WASMILL_URL`.
pub(super) fn url() -> Option<String> {
    variable("WASMILL_URL")
}

/// `WASMILL_TOKEN`, or the token file of the directory.
fn token(data_dir: &Path) -> Result<Token, Error> {
    if let Some(text) = variable("WASMILL_TOKEN") {
        return Token::from_text(&text).ok_or_else(|| {
            Error::usage(
                "WASMILL_TOKEN holds no token",
                "copy the text of the file admin-token in the host's data directory",
            )
        });
    }
    let missing = || {
        Error::failed(
            format!("there is no token for the host in {}", data_dir.display()),
            "set WASMILL_TOKEN, or name the host's data directory with --data-dir",
        )
    };
    Token::read(data_dir)
        .map_err(|why| {
            Error::failed(
                format!("cannot read the token: {why}"),
                "run the command as the host's user, or set WASMILL_TOKEN",
            )
        })?
        .ok_or_else(missing)
}

/// `WASMILL_CA`, or what browsers believe.
fn trust() -> Result<Trust, Error> {
    let Some(path) = variable("WASMILL_CA") else {
        return Ok(Trust::WebRoots);
    };
    std::fs::read(&path).map(Trust::Authorities).map_err(|why| {
        Error::failed(
            format!("cannot read the file that WASMILL_CA names, {path}: {why}"),
            "it has to be a PEM file with the certificate of the host or of who vouches for it",
        )
    })
}

/// A port that listens everywhere listens here too.
fn local(address: &Address) -> String {
    let mut admin = address.admin;
    if admin.ip().is_unspecified() {
        admin.set_ip(match admin {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("https://{admin}")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::ports::Ports;
    use crate::telemetry::metrics::Metrics;
    use std::sync::Arc;

    fn open_log(dir: &Path) -> embedded::Log {
        embedded::Log::open(dir.join(LOG_DIR), embedded::Options::default()).unwrap()
    }

    fn ports(dir: &Path, log: embedded::Log) -> Ports {
        let any = "127.0.0.1:0".parse().unwrap();
        let console = Arc::new(Console::new(log, Vec::new));
        Ports::open(dir, any, any, console, Metrics::new().unwrap()).unwrap()
    }

    fn message(opened: Result<Streams, Error>) -> String {
        opened.err().unwrap().to_string()
    }

    #[test]
    fn a_directory_nobody_holds_is_opened_here() {
        let dir = tempfile::tempdir().unwrap();
        drop(open_log(dir.path()));
        let streams = Streams::open(dir.path(), IfAbsent::Refuse).unwrap();
        assert!(!streams.is_live());
        assert!(streams.status().unwrap().host.is_none());
    }

    #[test]
    fn a_directory_that_is_not_there_is_made_only_by_commands_that_write() {
        let dir = tempfile::tempdir().unwrap();
        let absent = dir.path().join("absent");
        assert!(message(Streams::open(&absent, IfAbsent::Refuse)).contains("absent"));
        assert!(!absent.exists());
        assert!(Streams::open(&absent, IfAbsent::Create).is_ok());
    }

    #[test]
    fn a_running_host_is_asked_over_its_admin_port() {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        let ports = ports(dir.path(), log);
        let streams = Streams::open(dir.path(), IfAbsent::Refuse).unwrap();
        assert!(streams.is_live());
        assert_eq!(
            streams.status().unwrap().host.unwrap().pid,
            std::process::id()
        );
        ports.close();
    }

    #[test]
    fn an_address_left_by_a_host_that_was_killed_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        drop(open_log(dir.path()));
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        stranger.set_nonblocking(true).unwrap();
        let admin = stranger.local_addr().unwrap();
        Token::random().write(dir.path()).unwrap();
        Address {
            admin,
            health: admin,
            tls: false,
            pid: 1,
            version: "0".into(),
        }
        .write(dir.path())
        .unwrap();
        let streams = Streams::open(dir.path(), IfAbsent::Refuse).unwrap();
        assert!(streams.status().unwrap().host.is_none());
        assert!(stranger.accept().is_err(), "the stranger was asked");
    }

    #[test]
    fn a_holder_without_an_admin_port_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let _log = open_log(dir.path());
        let why = message(Streams::open(dir.path(), IfAbsent::Refuse));
        assert!(
            why.contains(&format!("process {}", std::process::id())),
            "{why}"
        );
    }

    #[test]
    fn a_holder_that_does_not_answer_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let _log = open_log(dir.path());
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        Token::random().write(dir.path()).unwrap();
        Address {
            admin: free,
            health: free,
            tls: false,
            pid: 1,
            version: "0".into(),
        }
        .write(dir.path())
        .unwrap();
        let streams = Streams::open(dir.path(), IfAbsent::Refuse).unwrap();
        let error = streams.topics().err().unwrap();
        assert!(error.to_string().contains(&free.to_string()), "{error}");
        assert!(
            error.help().any(|line| line.contains("is it running")),
            "{error:?}"
        );
    }
}
