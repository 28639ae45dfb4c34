//! Where log lines go and how they look: one line an event on stderr, JSON when stderr is not a
//! terminal. Values of secrets and tokens are never given to it. Not here: what is logged.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::log_files::{self, Keeper, Sink};

/// Filter of a host when neither `WASMILL_LOG` nor `RUST_LOG` is set.
pub const DEFAULT_FILTER: &str = "info";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{variable} is not a log filter: {reason}; write for example {variable}=info,wasmill=debug"
    )]
    Filter {
        variable: &'static str,
        reason: String,
    },
    #[error("logging is set up already")]
    Twice,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// One JSON object a line.
    Json,
    /// For people; with colours or without.
    Text { colours: bool },
}

impl Style {
    /// Text on a terminal (colours unless `NO_COLOR` is set), JSON off it.
    #[must_use]
    pub fn of_stderr() -> Self {
        if std::io::stderr().is_terminal() {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
            Self::Text { colours: !no_color }
        } else {
            Self::Json
        }
    }
}

/// Sends log lines of this process to stderr, those that `default` lets through when neither
/// `WASMILL_LOG` nor `RUST_LOG` is set. Once per process.
pub fn start(default: &str) -> Result<(), Error> {
    subscriber(
        filter(default, |name| std::env::var(name).ok())?,
        Style::of_stderr(),
        std::io::stderr,
        None,
    )
    .try_init()
    .map_err(|_| Error::Twice)
}

/// [`start`] for a host: its lines also wait for the files that the [`Keeper`] opens.
pub fn start_host() -> Result<Keeper, Error> {
    let (sink, keeper) = log_files::pair();
    let filter = filter(DEFAULT_FILTER, |name| std::env::var(name).ok())?;
    subscriber(filter, Style::of_stderr(), std::io::stderr, Some(sink))
        .try_init()
        .map_err(|_| Error::Twice)?;
    Ok(keeper)
}

fn filter(default: &str, variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, Error> {
    for name in ["WASMILL_LOG", "RUST_LOG"] {
        if let Some(text) = variable(name).filter(|t| !t.trim().is_empty()) {
            return EnvFilter::try_new(text).map_err(|reason| Error::Filter {
                variable: name,
                reason: reason.to_string(),
            });
        }
    }
    Ok(EnvFilter::new(default))
}

type Boxed = Box<dyn tracing::Subscriber + Send + Sync>;

fn subscriber<W>(filter: EnvFilter, style: Style, writer: W, files: Option<Sink>) -> Boxed
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let files = files.map(|sink| {
        tracing_subscriber::fmt::layer()
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_writer(sink)
    });
    let registry = tracing_subscriber::registry().with(filter).with(files);
    match style {
        Style::Json => Box::new(
            registry.with(
                tracing_subscriber::fmt::layer()
                    .json()
                    .flatten_event(true)
                    .with_current_span(true)
                    .with_span_list(false)
                    .with_writer(writer),
            ),
        ),
        Style::Text { colours } => Box::new(
            registry.with(
                tracing_subscriber::fmt::layer()
                    .compact()
                    .with_ansi(colours)
                    .with_target(false)
                    .with_writer(writer),
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn lines(style: Style, filter_text: &str, speak: impl FnOnce()) -> Vec<String> {
        let captured = Captured::default();
        let writer = captured.clone();
        let made = subscriber(
            EnvFilter::new(filter_text),
            style,
            move || writer.clone(),
            None,
        );
        tracing::subscriber::with_default(made, speak);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes)
            .unwrap()
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    }

    #[test]
    fn json_has_one_object_a_line_with_the_fields_beside_the_message() {
        let lines = lines(Style::Json, "info", || {
            tracing::info!(correlation_id = "c-1", "attempt\nfailed");
            tracing::warn!("second");
        });
        assert_eq!(lines.len(), 2);
        let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(first["correlation_id"], "c-1");
        assert_eq!(first["message"], "attempt\nfailed");
        assert_eq!(first["level"], "INFO");
    }

    #[test]
    fn text_is_one_line_without_colours_when_told_so() {
        let lines = lines(Style::Text { colours: false }, "info", || {
            tracing::info!(text = ?"guest\nsays \u{1b}[31m", "guest line");
        });
        assert_eq!(lines.len(), 1);
        assert!(!lines[0].contains('\u{1b}'), "{lines:?}");
    }

    #[test]
    fn wasmill_log_goes_before_rust_log() {
        let chosen = filter(DEFAULT_FILTER, |name| match name {
            "WASMILL_LOG" => Some("debug".into()),
            _ => Some("error".into()),
        });
        assert_eq!(chosen.unwrap().to_string(), "debug");
        let chosen = filter(DEFAULT_FILTER, |name| {
            (name == "RUST_LOG").then(|| "error".into())
        });
        assert_eq!(chosen.unwrap().to_string(), "error");
        assert_eq!(
            filter(DEFAULT_FILTER, |_| None).unwrap().to_string(),
            DEFAULT_FILTER
        );
    }

    #[test]
    fn a_filter_that_cannot_be_read_names_its_variable() {
        let error = filter(DEFAULT_FILTER, |_| Some("a=b=c=[".into())).unwrap_err();
        assert!(error.to_string().contains("WASMILL_LOG"), "{error}");
    }
}
