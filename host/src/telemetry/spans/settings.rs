//! The `OTEL_…` variables this host understands. The exporter itself reads endpoint, headers and
//! timeout from the same names; here is what decides whether there is one, how much is sampled and how
//! spans are batched.

use std::time::Duration;

use crate::pipeline::trace::Sampling;

use super::QUEUE_SPANS_MAX;

/// Of messages without a context, when `OTEL_TRACES_SAMPLER` does not say.
const RATIO_DEFAULT: f64 = 0.01;
/// Spans of one export.
const BATCH_SPANS_MAX: usize = 512;
/// A span waits no longer than this for others to be sent with.
const DELAY_DEFAULT: Duration = Duration::from_secs(5);
/// More spans than this are not kept whatever the environment says.
const QUEUE_SPANS_LIMIT: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) protocol: Protocol,
    pub(super) sampling: Sampling,
    pub(super) queue: usize,
    pub(super) batch: usize,
    pub(super) delay: Duration,
}

impl Settings {
    /// `None`: off. An error says why it is off although an endpoint is named.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, String> {
        let variable = |name: &str| {
            let value = variable(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let Some(endpoint) = endpoint else {
            return Ok(None);
        };
        let is_disabled = variable("OTEL_SDK_DISABLED");
        if is_disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        match variable("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => {
                return Err(format!(
                    "OTEL_TRACES_EXPORTER is `{other}`; there is `otlp` and `none`"
                ));
            }
        }
        if !endpoint.starts_with("http://") {
            // Not the whole of it: it may hold a password.
            let scheme = endpoint
                .split_once("://")
                .map_or("no scheme", |(scheme, _)| scheme);
            return Err(format!(
                "the OTLP endpoint has to begin with http:// ({scheme} is not spoken); send to a collector on this machine or in its network, which can encrypt"
            ));
        }
        let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
            .or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL"));
        let protocol = match protocol.as_deref() {
            None | Some("http/protobuf") => Protocol::Http,
            Some("grpc") => Protocol::Grpc,
            Some(other) => {
                return Err(format!(
                    "OTEL_EXPORTER_OTLP_PROTOCOL is `{other}`; there is `grpc` and `http/protobuf`"
                ));
            }
        };
        let number = |name: &str, default: usize| {
            let value = variable(name).and_then(|value| value.parse().ok());
            value.filter(|value| *value > 0).unwrap_or(default)
        };
        let queue = number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS_MAX).min(QUEUE_SPANS_LIMIT);
        let delay = number(
            "OTEL_BSP_SCHEDULE_DELAY",
            DELAY_DEFAULT.as_millis() as usize,
        );
        Ok(Some(Self {
            protocol,
            sampling: sampling(&variable),
            queue,
            batch: number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS_MAX).min(queue),
            delay: Duration::from_millis(delay as u64),
        }))
    }
}

/// What is not understood counts as not said, as the specification has it.
fn sampling(variable: &impl Fn(&str) -> Option<String>) -> Sampling {
    let ratio = || {
        let ratio = variable("OTEL_TRACES_SAMPLER_ARG").and_then(|text| text.parse::<f64>().ok());
        ratio
            .filter(|ratio| (0.0..=1.0).contains(ratio))
            .unwrap_or(RATIO_DEFAULT)
    };
    match variable("OTEL_TRACES_SAMPLER").as_deref() {
        Some("always_on") => Sampling::new(false, 1.0),
        Some("always_off") => Sampling::new(false, 0.0),
        Some("traceidratio") => Sampling::new(false, ratio()),
        Some("parentbased_always_on") => Sampling::new(true, 1.0),
        Some("parentbased_always_off") => Sampling::new(true, 0.0),
        Some("parentbased_traceidratio") | None => Sampling::new(true, ratio()),
        Some(other) => {
            tracing::warn!(
                "OTEL_TRACES_SAMPLER is `{other}`, which is not known; parentbased_traceidratio is used"
            );
            Sampling::new(true, ratio())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, String> {
        Settings::read(|name| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let all = [&[ENDPOINT], variables].concat();
        read(&all).unwrap().unwrap()
    }

    /// §12.1: no endpoint = off.
    #[test]
    fn without_an_endpoint_and_when_told_so_tracing_is_off() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), Ok(None));
        assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "True")]), Ok(None));
        assert_eq!(
            read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]),
            Ok(None)
        );
        assert!(
            read(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ENDPOINT.1)])
                .unwrap()
                .is_some()
        );
    }

    #[test]
    fn the_sampler_is_parent_based_and_one_percent_unless_it_is_named() {
        assert_eq!(settings(&[]).sampling, Sampling::new(true, 0.01));
        for (name, argument, expected) in [
            ("always_on", "", Sampling::new(false, 1.0)),
            ("parentbased_always_off", "", Sampling::new(true, 0.0)),
            ("traceidratio", "0.5", Sampling::new(false, 0.5)),
            (
                "parentbased_traceidratio",
                "0.25",
                Sampling::new(true, 0.25),
            ),
            ("traceidratio", "7", Sampling::new(false, 0.01)),
            ("jaeger_remote", "", Sampling::new(true, 0.01)),
        ] {
            let variables = [
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", argument),
            ];
            assert_eq!(settings(&variables).sampling, expected, "{name} {argument}");
        }
    }

    #[test]
    fn what_cannot_be_done_turns_it_off_and_says_what_can() {
        for (name, value, says) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "http/protobuf"),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "https://me:hunter2@collector:4318",
                "begin with http:// (https is not spoken); send to a collector",
            ),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "collector:4318",
                "no scheme",
            ),
            ("OTEL_TRACES_EXPORTER", "zipkin", "otlp"),
        ] {
            let why = read(&[ENDPOINT, (name, value)]).unwrap_err();
            assert!(why.contains(says), "{why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn the_signals_own_protocol_goes_before_the_general_one() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
        ];
        assert_eq!(settings(&variables).protocol, Protocol::Grpc);
        assert_eq!(settings(&[]).protocol, Protocol::Http);
    }

    #[test]
    fn the_queue_is_bounded_whatever_the_environment_says() {
        assert_eq!(settings(&[]).queue, QUEUE_SPANS_MAX);
        let huge = settings(&[("OTEL_BSP_MAX_QUEUE_SIZE", "99999999999")]);
        assert_eq!(huge.queue, QUEUE_SPANS_LIMIT);
        let none = settings(&[("OTEL_BSP_MAX_QUEUE_SIZE", "0")]);
        assert_eq!(none.queue, QUEUE_SPANS_MAX);
    }
}
