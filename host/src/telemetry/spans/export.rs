//! The thread that sends spans, in batches, and the bounded queue before it. A receiver that is slow
//! or away costs spans, which are counted, and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use prometheus::IntCounter;

use super::settings::{Protocol, Settings};

/// How often it is said that spans are lost.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// How often it looks whether a batch is full.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

enum Item {
    Span(Box<SpanData>),
    /// Wakes the thread to notice that it shall end.
    Close,
}

pub(super) struct Exporter {
    queue: SyncSender<Item>,
    dropped: IntCounter,
    ending: Arc<Ending>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Ending {
    is_asked: AtomicBool,
    until: Mutex<Option<Instant>>,
}

impl Exporter {
    /// The receiver may be away: it is only asked when there is a span to send.
    pub(super) fn start(settings: Settings, dropped: IntCounter) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let exporter = {
            let _inside = runtime.enter();
            exporter(settings.protocol)?
        };
        let (queue, spans) = sync_channel(settings.queue);
        let ending = Arc::<Ending>::default();
        let sender = Sender {
            spans,
            runtime,
            exporter,
            settings,
            dropped: dropped.clone(),
            ending: Arc::clone(&ending),
            said: None,
        };
        let thread = std::thread::Builder::new()
            .name("spans".to_owned())
            .spawn(move || sender.run())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            queue,
            dropped,
            ending,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Never waits.
    pub(super) fn send(&self, span: SpanData) {
        let is_over = self.ending.is_asked.load(Ordering::Relaxed);
        if is_over || self.queue.try_send(Item::Span(Box::new(span))).is_err() {
            self.dropped.inc();
        }
    }

    pub(super) fn close(&self, within: Duration) {
        let mut until = lock(&self.ending.until);
        *until = Some(Instant::now() + within);
        drop(until);
        self.ending.is_asked.store(true, Ordering::SeqCst);
        // A full queue means that the thread is awake.
        let _told = self.queue.try_send(Item::Close);
        if let Some(thread) = lock(&self.thread).take() {
            let _ended = thread.join();
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.close(super::FLUSH_TIME_MAX);
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn exporter(protocol: Protocol) -> Result<SpanExporter, String> {
    let builder = SpanExporter::builder();
    let built = match protocol {
        Protocol::Grpc => builder.with_tonic().build(),
        Protocol::Http => {
            use opentelemetry_otlp::WithExportConfig as _;
            let builder = builder.with_http();
            builder
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .build()
        }
    };
    let mut exporter = built.map_err(|error| error.to_string())?;
    exporter.set_resource(&resource());
    Ok(exporter)
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, else the service is called `wasmill`.
fn resource() -> Resource {
    let own = [
        KeyValue::new("service.name", "wasmill"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    let said = Resource::builder_empty()
        .with_detector(Box::new(
            opentelemetry_sdk::resource::EnvResourceDetector::new(),
        ))
        .build();
    let mut attributes = own.to_vec();
    attributes.extend(
        said.iter()
            .map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
    );
    if let Some(name) = std::env::var("OTEL_SERVICE_NAME")
        .ok()
        .filter(|name| !name.is_empty())
    {
        attributes.push(KeyValue::new("service.name", name));
    }
    Resource::builder_empty()
        .with_attributes(attributes)
        .build()
}

struct Sender {
    spans: Receiver<Item>,
    runtime: tokio::runtime::Runtime,
    exporter: SpanExporter,
    settings: Settings,
    dropped: IntCounter,
    ending: Arc<Ending>,
    said: Option<Instant>,
}

impl Sender {
    fn run(mut self) {
        let mut batch = Vec::with_capacity(self.settings.batch);
        loop {
            let goes_on = self.fill(&mut batch);
            if !batch.is_empty() {
                self.export(&mut batch);
            }
            if !goes_on {
                break;
            }
        }
        let _told = self.exporter.shutdown_with_timeout(Duration::from_secs(1));
        // Tasks of connections end with it; it waits for none.
        self.runtime.shutdown_background();
    }

    /// Collects a batch. False when it is the last one. Only the first span of a batch wakes this thread:
    /// waking it is dear to whoever sends.
    fn fill(&self, batch: &mut Vec<SpanData>) -> bool {
        if !self.is_ending() {
            match self.spans.recv_timeout(self.settings.delay) {
                Ok(Item::Span(span)) => batch.push(*span),
                Ok(Item::Close) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        let send_at = Instant::now() + self.settings.delay;
        loop {
            let is_ending = self.is_ending();
            while batch.len() < self.settings.batch {
                match self.spans.try_recv() {
                    Ok(Item::Span(span)) => batch.push(*span),
                    Ok(Item::Close) => {}
                    Err(_) if is_ending => return false,
                    Err(_) => break,
                }
            }
            let left = send_at.saturating_duration_since(Instant::now());
            if batch.is_empty() || batch.len() >= self.settings.batch || left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(LOOK_AGAIN));
        }
    }

    fn is_ending(&self) -> bool {
        self.ending.is_asked.load(Ordering::SeqCst)
    }

    /// Time left for an export, when the process ends.
    fn left(&self) -> Option<Duration> {
        let until = *lock(&self.ending.until);
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }

    fn export(&mut self, batch: &mut Vec<SpanData>) {
        let spans = std::mem::take(batch);
        let count = spans.len() as u64;
        let sending = self.exporter.export(spans);
        let ending = Arc::clone(&self.ending);
        let left = self.left();
        let sent = self.runtime.block_on(async {
            tokio::select! {
                sent = sending => sent.map_err(|error| error.to_string()),
                () = out_of_time(&ending, left) => Err("the process ends".to_owned()),
            }
        });
        if let Err(why) = sent {
            self.dropped.inc_by(count);
            if self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                self.said = Some(Instant::now());
                tracing::warn!(spans = count, %why, "spans were not received and are lost; messages are not concerned");
            }
        }
    }
}

/// An export that began before the end was asked for must not outlast it.
async fn out_of_time(ending: &Ending, left: Option<Duration>) {
    if let Some(left) = left {
        return tokio::time::sleep(left).await;
    }
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let until = *lock(&ending.until);
        if until.is_some_and(|until| Instant::now() >= until) {
            return;
        }
    }
}
