//! A running host, asked over its admin port: every method answers as the [`super::console::Console`]
//! inside it would. Blocking; one thread.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::{Response, StatusCode};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::error::{Code, Error};
use super::fingerprint::Fingerprint;
use super::guard::{REQUEST_TIME_MAX, is_loopback};
use super::logs::{LogPage, LogQuery};
use super::operations::{Changes, Order, ReloadRequest};
use super::seek::{SeekReply, SeekRequest};
use super::token::Token;
use super::trace::{Trace, TraceQuery};
use super::wire::{
    CreateTopic, GroupDescription, GroupSummary, Message, OffsetReply, Page, ProduceReply,
    ProduceRequest, ReadRequest, Record, Status, TopicDescription, TopicSummary,
};

/// Time to connect to a host.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Answer of a host, bytes; pages are far below it.
const ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The body of an order that says everything by its path.
#[derive(Serialize)]
struct Nothing {}

/// Whose certificate is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// Those that browsers believe.
    WebRoots,
    /// The certificates of this PEM text.
    Authorities(Vec<u8>),
    /// Any: the address came out of the host's own data directory and is on this machine, where a plain
    /// port would be believed as well.
    OwnMachine,
}

/// The admin port of a host.
pub struct Remote {
    agent: Agent,
    base: String,
    token: Token,
}

impl Remote {
    /// `url` as in `http://127.0.0.1:4180` or `https://wasmill.example:4180`. Nothing is sent yet.
    pub fn new(url: &str, token: Token) -> Result<Self, Error> {
        Self::trusting(url, token, Trust::WebRoots)
    }

    /// The same, with a say in whose certificate is believed.
    pub fn trusting(url: &str, token: Token, trust: Trust) -> Result<Self, Error> {
        let base = url.trim_end_matches('/');
        // The token never goes over a network in the clear; and the port answers to no other name.
        let plain = base.strip_prefix("http://").is_some_and(is_loopback);
        let encrypted = base.strip_prefix("https://").is_some_and(is_authority);
        if !plain && !encrypted {
            return Err(Error::new(
                Code::Invalid,
                format!("{url:?} is not the address of an admin port"),
                "write it as http://127.0.0.1:4180, or as https://NAME:PORT when it has a certificate; reach another machine's plain one through a tunnel (ssh -L 4180:127.0.0.1:4180)",
            ));
        }
        let tls = TlsConfig::builder().provider(TlsProvider::Rustls);
        let tls = match trust {
            Trust::WebRoots => tls.root_certs(RootCerts::WebPki),
            Trust::Authorities(pem) => tls.root_certs(authorities(&pem)?),
            Trust::OwnMachine => tls.disable_verification(true),
        };
        let agent = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            // A proxy of the environment must never see the token.
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT_TIME_MAX))
            .timeout_global(Some(REQUEST_TIME_MAX))
            .user_agent(concat!("wasmill/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            base: base.to_owned(),
            token,
        })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.base
    }

    pub fn status(&self) -> Result<Status, Error> {
        self.get("/v1/status", &[])
    }

    pub fn topics(&self) -> Result<Vec<TopicSummary>, Error> {
        self.get("/v1/topics", &[])
    }

    pub fn topic(&self, topic: &str) -> Result<TopicDescription, Error> {
        self.get(&format!("/v1/topics/{}", segment(topic)), &[])
    }

    pub fn create_topic(&self, wanted: &CreateTopic) -> Result<TopicDescription, Error> {
        self.post("/v1/topics", wanted)
    }

    pub fn produce(&self, topic: &str, records: &[Record]) -> Result<ProduceReply, Error> {
        let path = format!("/v1/topics/{}/messages", segment(topic));
        let records = records.to_vec();
        self.post(&path, &ProduceRequest { records })
    }

    pub fn read(&self, topic: &str, request: &ReadRequest) -> Result<Page, Error> {
        let mut query = vec![
            ("partition", request.partition.to_string()),
            ("offset", request.offset.to_string()),
        ];
        query.extend(request.limit.map(|limit| ("limit", limit.to_string())));
        query.extend(request.wait_ms.map(|wait| ("wait_ms", wait.to_string())));
        self.get(&format!("/v1/topics/{}/messages", segment(topic)), &query)
    }

    pub fn offset_at(
        &self,
        topic: &str,
        partition: u32,
        timestamp_ms: i64,
    ) -> Result<OffsetReply, Error> {
        let path = format!(
            "/v1/topics/{}/partitions/{partition}/offset",
            segment(topic)
        );
        self.get(&path, &[("timestamp_ms", timestamp_ms.to_string())])
    }

    pub fn groups(&self) -> Result<Vec<GroupSummary>, Error> {
        self.get("/v1/groups", &[])
    }

    pub fn group(&self, group: &str) -> Result<GroupDescription, Error> {
        self.get(&format!("/v1/groups/{}", segment(group)), &[])
    }

    pub fn fingerprint(&self, group: &str, pipeline: &str) -> Result<Fingerprint, Error> {
        let (group, pipeline) = (segment(group), segment(pipeline));
        self.get(&format!("/v1/groups/{group}/fingerprints/{pipeline}"), &[])
    }

    pub fn logs(&self, query: &LogQuery) -> Result<LogPage, Error> {
        let mut asked = Vec::new();
        for (name, value) in [
            ("pipeline", query.pipeline.clone()),
            ("level", query.level.clone()),
            ("correlation_id", query.correlation_id.clone()),
            ("since_ms", query.since_ms.map(|at| at.to_string())),
            ("limit", query.limit.map(|limit| limit.to_string())),
            ("after", query.after.clone()),
        ] {
            asked.extend(value.map(|value| (name, value)));
        }
        self.get("/v1/logs", &asked)
    }

    pub fn trace(&self, id: &str, query: &TraceQuery) -> Result<Trace, Error> {
        let mut asked = Vec::new();
        asked.extend(query.since_ms.map(|at| ("since_ms", at.to_string())));
        asked.extend(query.messages.map(|count| ("messages", count.to_string())));
        self.get(&format!("/v1/trace/{}", segment(id)), &asked)
    }

    /// Waits for the answer; `timeout` as in `5s`.
    pub fn request(&self, topic: &str, record: &Record, timeout: &str) -> Result<Message, Error> {
        let path = format!("/v1/topics/{}/request?timeout={timeout}", segment(topic));
        self.post(&path, record)
    }

    pub fn order(&self, order: &Order) -> Result<Changes, Error> {
        let verb =
            |pipeline: &str, verb: &str| format!("/v1/pipelines/{}/{verb}", segment(pipeline));
        match order {
            Order::Pause { pipeline } => self.post(&verb(pipeline, "pause"), &Nothing {}),
            Order::Drain { pipeline } => self.post(&verb(pipeline, "drain"), &Nothing {}),
            Order::Resume { pipeline } => self.post(&verb(pipeline, "resume"), &Nothing {}),
            Order::Reload { accept_change } => {
                let accept_change = *accept_change;
                self.post("/v1/reload", &ReloadRequest { accept_change })
            }
            Order::Reject { group, request } => {
                self.post(&format!("/v1/groups/{}/reject", segment(group)), request)
            }
            Order::Seek { .. } => Err(Error::internal("a seek is asked for by `seek`")),
        }
    }

    pub fn seek(&self, group: &str, request: &SeekRequest) -> Result<SeekReply, Error> {
        self.post(&format!("/v1/groups/{}/seek", segment(group)), request)
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T, Error> {
        let mut request = self
            .agent
            .get(format!("{}{path}", self.base))
            .header("Authorization", self.bearer());
        for (name, value) in query {
            request = request.query(name, value);
        }
        self.answer(request.call())
    }

    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Error> {
        let request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("Authorization", self.bearer());
        self.answer(request.send_json(body))
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.reveal())
    }

    fn answer<T: DeserializeOwned>(
        &self,
        response: Result<Response<ureq::Body>, ureq::Error>,
    ) -> Result<T, Error> {
        let mut response = response.map_err(|why| self.unreachable(&why))?;
        let status = response.status();
        let body = response
            .body_mut()
            .with_config()
            .limit(ANSWER_BYTES_MAX)
            .read_to_vec()
            .map_err(|why| self.unreachable(&why))?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|why| self.stranger(status, &why));
        }
        match serde_json::from_slice::<Error>(&body) {
            Ok(error) => Err(error),
            Err(why) => Err(self.stranger(status, &why)),
        }
    }

    fn unreachable(&self, why: &ureq::Error) -> Error {
        Error::new(
            Code::Unreachable,
            format!("the host at {} does not answer: {why}", self.base),
            "is it running? see its log; another address: WASMILL_URL and WASMILL_TOKEN",
        )
    }

    fn stranger(&self, status: StatusCode, why: &serde_json::Error) -> Error {
        Error::new(
            Code::Unreachable,
            format!(
                "what answers at {} is no wasmill host of this version (HTTP {status}; {why})",
                self.base
            ),
            "check WASMILL_URL, and that command and host have the same version",
        )
    }
}

/// A name or address with or without a port, and nothing after it.
fn is_authority(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']')
        })
}

fn authorities(pem: &[u8]) -> Result<RootCerts, Error> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        if let Ok(PemItem::Certificate(certificate)) = item {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(Error::new(
            Code::Invalid,
            "the file named by WASMILL_CA holds no certificate",
            "it has to be a PEM file with the certificate of the host or of who vouches for it",
        ));
    }
    Ok(RootCerts::new_with_certs(&found))
}

/// A path segment, percent-encoded (RFC 3986: everything but unreserved characters).
pub(super) fn segment(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail. A dot too: `..` would climb.
            let _written = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_climbs_nowhere_and_starts_no_query() {
        assert_eq!(segment("../a?b#c/d e"), "%2E%2E%2Fa%3Fb%23c%2Fd%20e");
        assert_eq!(segment("orders-v1_x"), "orders-v1_x");
    }

    #[test]
    fn an_address_that_is_none_is_refused_with_an_example() {
        let token = || Token::from_text("t").unwrap();
        for bad in [
            "",
            "127.0.0.1:4180",
            "http://",
            "http://evil.example:4180",
            "http://127.0.0.1@evil.example",
            "http://127.0.0.1:4180/path",
            "https://",
            "https://wasmill.example@evil.example",
            "https://wasmill.example/path",
        ] {
            let error = Remote::new(bad, token()).err().unwrap();
            assert!(error.help.contains("http://127.0.0.1:4180"), "{bad}");
        }
        assert!(Remote::new("http://127.0.0.1:4180/", token()).is_ok());
        assert!(Remote::new("https://wasmill.example:4180", token()).is_ok());
    }

    #[test]
    fn a_host_that_is_not_there_is_reported_with_its_address() {
        // A port that was just free; nobody listens on it.
        let free = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let remote =
            Remote::new(&format!("http://{free}"), Token::from_text("t").unwrap()).unwrap();
        let error = remote.status().unwrap_err();
        assert_eq!(error.code, Code::Unreachable);
        assert!(error.message.contains(&free.to_string()), "{error}");
    }
}
