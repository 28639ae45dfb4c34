//! A real OTLP receiver for the tests: Rotel, a collector, as a process that prints every span it is
//! sent. Installed by `cargo xtask test tools`. It never outlives the test.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::process::until;
use crate::site::target_dir;

/// A running receiver.
pub struct Receiver {
    child: Child,
    output: PathBuf,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    _dir: tempfile::TempDir,
}

/// A span as the receiver shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Received {
    pub trace: String,
    pub id: String,
    /// Empty for a root.
    pub parent: String,
    pub name: String,
    pub kind: String,
    pub is_error: bool,
    pub message: String,
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub attributes: BTreeMap<String, String>,
    /// Trace and span.
    pub links: Vec<(String, String)>,
    /// Of the resource.
    pub resource: BTreeMap<String, String>,
}

impl Received {
    /// `Str(x)` and `Int(3)` are `x` and `3`.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    pub fn begins_with(&self, operation: &str) -> bool {
        self.attribute("messaging.operation.name") == operation
    }
}

/// The program; says what to run when it is not there.
fn program() -> PathBuf {
    let place = target_dir().join("tools").join("rotel");
    let found = std::fs::read_dir(place.join("lib")).ok();
    let found = found.into_iter().flatten().flatten().find_map(|python| {
        let program = python.path().join("site-packages/rotel/rotel-agent");
        program.exists().then_some(program)
    });
    found.unwrap_or_else(|| {
        panic!(
            "there is no OTLP receiver in {}; run `cargo xtask test tools` first",
            place.display()
        )
    })
}

/// An address that was free a moment ago.
fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

impl Receiver {
    pub fn start() -> Self {
        Self::of(&["traces", "--debug-log-verbosity", "detailed"])
    }

    /// One that shows nothing of what it got, to measure with.
    pub fn silent() -> Self {
        Self::of(&["none"])
    }

    fn of(shows: &[&str]) -> Self {
        let (grpc, http) = (free(), free());
        let dir = tempfile::Builder::new()
            .prefix("wasmill-otlp-")
            .tempdir()
            .unwrap();
        let output = dir.path().join("spans.txt");
        let child = Command::new(program())
            .args(["start", "--exporter", "blackhole", "--disable-batching"])
            .arg("--debug-log")
            .args(shows)
            .args(["--log-format", "json"])
            .args(["--otlp-grpc-endpoint", &grpc.to_string()])
            .args(["--otlp-http-endpoint", &http.to_string()])
            .arg("--pid-file")
            .arg(dir.path().join("pid"))
            .arg("--log-file")
            .arg(dir.path().join("log"))
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::create(dir.path().join("errors.txt")).unwrap())
            .spawn()
            .unwrap();
        let receiver = Self {
            child,
            output,
            grpc,
            http,
            _dir: dir,
        };
        for address in [grpc, http] {
            until("the receiver listens", || {
                TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()
            });
        }
        receiver
    }

    /// What a host needs to send everything here at once over `protocol` (`grpc` or `http/protobuf`).
    pub fn environment(&self, protocol: &str) -> Vec<(String, String)> {
        let address = match protocol {
            "grpc" => self.grpc,
            _ => self.http,
        };
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Received> {
        read(&self.output)
    }

    /// Waits until `look` finds what it wants among the spans.
    pub fn until<T>(&self, what: &str, look: impl Fn(&[Received]) -> Option<T>) -> T {
        let mut last = Vec::new();
        crate::process::within(Duration::from_secs(30), || {
            last = self.spans();
            look(&last)
        })
        .unwrap_or_else(|| panic!("{what}: not among\n{last:#?}"))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// Where the lines of attributes belong.
#[derive(Clone, Copy, PartialEq)]
enum In {
    Resource,
    Span,
    Link,
    Elsewhere,
}

/// Reads the detailed text.
fn read(output: &Path) -> Vec<Received> {
    let text = String::from_utf8_lossy(&std::fs::read(output).unwrap()).into_owned();
    let mut spans: Vec<Received> = Vec::new();
    let mut resource = BTreeMap::new();
    let mut place = In::Elsewhere;
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("ResourceSpans #") {
            resource = BTreeMap::new();
            place = In::Resource;
        } else if line.starts_with("ScopeSpans #") {
            place = In::Elsewhere;
        } else if line.starts_with("Span #") {
            place = In::Span;
            spans.push(Received {
                resource: resource.clone(),
                ..Received::default()
            });
        } else if line.starts_with("SpanLink #") {
            place = In::Link;
            if let Some(span) = spans.last_mut() {
                span.links.push(Default::default());
            }
        } else if let Some(attribute) = line.strip_prefix("-> ") {
            let (name, value) = attribute.split_once(": ").unwrap_or((attribute, ""));
            match (place, spans.last_mut()) {
                (In::Resource, _) => {
                    resource.insert(name.to_owned(), plain(value));
                }
                (In::Span, Some(span)) => {
                    span.attributes.insert(name.to_owned(), plain(value));
                }
                (In::Link, Some(span)) => link(span, name, value),
                _ => {}
            }
        } else if let (In::Span, Some(span), Some((name, value))) =
            (place, spans.last_mut(), line.split_once(':'))
        {
            field(span, name.trim(), value.trim());
        }
    }
    spans
}

fn field(span: &mut Received, name: &str, value: &str) {
    match name {
        "Trace ID" => span.trace = value.to_owned(),
        "Parent ID" => span.parent = value.to_owned(),
        "ID" => span.id = value.to_owned(),
        "Name" => span.name = value.to_owned(),
        "Kind" => span.kind = value.trim_start_matches("SPAN_KIND_").to_owned(),
        "Start time" => span.begun_ns = value.parse().unwrap_or_default(),
        "End time" => span.ended_ns = value.parse().unwrap_or_default(),
        "Status code" => span.is_error = value == "STATUS_CODE_ERROR",
        "Status message" => span.message = value.to_owned(),
        _ => {}
    }
}

fn link(span: &mut Received, name: &str, value: &str) {
    if let Some(link) = span.links.last_mut() {
        match name {
            "Trace ID" => link.0 = value.to_owned(),
            "ID" => link.1 = value.to_owned(),
            _ => {}
        }
    }
}

fn plain(value: &str) -> String {
    let inner = value
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(value).to_owned()
}
