//! Spans as a real OTLP receiver gets them (§12.1, acceptance 6 of issue 4), over both protocols, and a
//! receiver that is not there.

use std::time::{Duration, Instant};

use serde_json::Value;
use wasmill_tests::input::{Expected, Input};
use wasmill_tests::process::{Process, until};
use wasmill_tests::receiver::{Received, Receiver};
use wasmill_tests::site::{Site, Stored};

use crate::{probe, probe_pipeline};

const RETRY: &str =
    "    retry: { max_attempts: 3, backoff: { initial_interval: 5ms, max_interval: 5ms } }\n";

fn site(host: &str) -> Site {
    let pipeline = probe_pipeline(&format!("{RETRY}{}", probe("")));
    let site = Site::new(&pipeline);
    site.configure(host, &pipeline);
    site
}

fn start(site: &Site, environment: &[(String, String)], more: &[(&str, &str)]) -> Process {
    let own = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    site.start_with(&own.chain(more.iter().copied()).collect::<Vec<_>>())
}

const ALL: (&str, &str) = ("OTEL_TRACES_SAMPLER", "parentbased_always_on");
const NONE: (&str, &str) = ("OTEL_TRACES_SAMPLER", "parentbased_always_off");

/// One message that fails once.
fn fails_once(id: &str) -> Input {
    Input::planned(id, "a", "fail_times", 1, Expected::one("out"))
}

fn one<'s>(spans: &'s [Received], operation: &str, destination: &str) -> Option<&'s Received> {
    let mut found = spans
        .iter()
        .filter(|span| span.name == format!("{operation} {destination}"));
    let first = found.next()?;
    assert_eq!(
        found.next(),
        None,
        "more than one `{operation} {destination}`"
    );
    Some(first)
}

fn attempt<'s>(spans: &'s [Received], number: &str) -> Option<&'s Received> {
    spans
        .iter()
        .find(|span| span.begins_with("process") && span.attribute("wasmill.attempt") == number)
}

/// The story of one message.
struct Story {
    published: Received,
    first: Received,
    second: Received,
    output: Received,
    settles: Vec<Received>,
    receive: Received,
}

fn story(receiver: &Receiver) -> Story {
    receiver.until("publish, two attempts, output, settlements", |spans| {
        let settles = || spans.iter().filter(|span| span.name == "settle");
        let output = one(spans, "send", "out")?;
        (settles().count() == 2).then_some(())?;
        Some(Story {
            published: one(spans, "send", "in")?.clone(),
            first: attempt(spans, "1")?.clone(),
            second: attempt(spans, "2")?.clone(),
            output: output.clone(),
            settles: settles().cloned().collect(),
            receive: one(spans, "receive", "in")?.clone(),
        })
    })
}

/// Lines of the host's log of this target that name the correlation ID and hold `text`.
fn logged(process: &Process, target: &str, correlation: &str, text: &str) -> usize {
    let log = process.log_text();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| {
            line["target"]
                .as_str()
                .is_some_and(|t| t.starts_with(target))
                && line["correlation_id"] == correlation
                && line["message"].as_str().is_some_and(|m| m.contains(text))
        })
        .count()
}

/// What holds however attempts and creation context hang together.
fn check_common(story: &Story) {
    let Story {
        published,
        first,
        second,
        output,
        settles,
        receive,
    } = story;
    assert_eq!(published.kind, "PRODUCER");
    assert_eq!(
        (first.kind.as_str(), second.kind.as_str()),
        ("CONSUMER", "CONSUMER")
    );
    assert_eq!(output.kind, "PRODUCER");
    assert!(first.is_error && !second.is_error);
    assert!(
        first.message.contains("planned failure of once"),
        "{}",
        first.message
    );
    assert_eq!(first.attribute("error.type"), "retryable");
    assert_eq!(second.attribute("error.type"), "");
    assert_eq!(first.trace, second.trace);
    assert_ne!(first.id, second.id);
    assert_eq!((&output.trace, &output.parent), (&second.trace, &second.id));
    assert_eq!(output.attribute("messaging.destination.name"), "out");
    for span in [first, second] {
        for (name, value) in [
            ("messaging.system", "wasmill"),
            ("messaging.operation.name", "process"),
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", "in"),
            (
                "messaging.destination.partition.id",
                published.attribute("messaging.destination.partition.id"),
            ),
            ("messaging.consumer.group.name", "g"),
            ("wasmill.pipeline", "probe"),
            ("wasmill.offset", "0"),
        ] {
            assert_eq!(span.attribute(name), value, "{name}");
        }
        assert!(
            span.attribute("wasmill.plugin.digest")
                .starts_with("sha256:")
        );
        assert!(span.begun_ns > 0 && span.ended_ns >= span.begun_ns);
    }
    assert!(second.begun_ns >= first.ended_ns);
    for (settle, attempt) in settles.iter().zip([first, second]) {
        assert_eq!(settle.kind, "CLIENT");
        assert_eq!(settle.links, [(attempt.trace.clone(), attempt.id.clone())]);
    }
    assert_eq!(receive.kind, "CLIENT");
    assert_eq!(
        receive.links,
        [(published.trace.clone(), published.id.clone())]
    );
    assert!(receive.ended_ns <= first.ended_ns);
}

fn publish_and_follow(protocol: &str, host: &str) -> (Story, Vec<Received>) {
    let receiver = Receiver::start();
    let site = site(host);
    let named = [
        ALL,
        ("OTEL_SERVICE_NAME", "mill"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=test",
        ),
    ];
    let mut process = start(&site, &receiver.environment(protocol), &named);
    process
        .remote()
        .produce("in", &[fails_once("once").record()])
        .unwrap();
    process.await_drained();
    let story = story(&receiver);
    check_common(&story);
    // §12.2: the same correlation ID in the spans and in the lines of host and guest.
    let correlation = story
        .published
        .attribute("messaging.message.conversation_id")
        .to_owned();
    assert!(!correlation.is_empty());
    for span in [&story.first, &story.second] {
        assert_eq!(
            span.attribute("messaging.message.conversation_id"),
            correlation
        );
    }
    assert_eq!(
        logged(&process, "guest", &correlation, "attempt 1 of once"),
        1
    );
    assert_eq!(
        logged(&process, "guest", &correlation, "attempt 2 of once"),
        1
    );
    assert_eq!(
        logged(&process, "wasmill", &correlation, "the attempt failed"),
        1
    );
    assert_eq!(process.metric("wasmill_spans_dropped_total", &[]), 0.0);
    process.stop();
    // The context of the publisher stands in the message and goes along untouched.
    let context = format!("00-{}-{}-01", story.published.trace, story.published.id);
    for topic in ["in", "out"] {
        let found = site.read(topic);
        assert_eq!(found.len(), 1);
        let stands = found[0].header("traceparent").unwrap_or_default();
        assert_eq!(stands, context, "{topic}");
    }
    let spans = receiver.spans();
    for span in &spans {
        assert_eq!(
            span.resource.get("service.name").map(String::as_str),
            Some("mill")
        );
        assert_eq!(
            span.resource
                .get("deployment.environment.name")
                .map(String::as_str),
            Some("test")
        );
    }
    (story, spans)
}

/// §12.1: by default each attempt is linked to the creation context.
fn attempts_are_linked(protocol: &str) {
    let (story, spans) = publish_and_follow(protocol, "");
    let context = (story.published.trace.clone(), story.published.id.clone());
    assert_ne!(story.first.trace, story.published.trace);
    for span in [&story.first, &story.second] {
        assert_eq!(span.links, std::slice::from_ref(&context));
        assert_eq!(span.parent, "");
    }
    assert_eq!(
        spans.len(),
        7,
        "one publish, one read, two attempts, one output, two settlements: {spans:#?}"
    );
}

#[test]
fn one_message_over_grpc_from_publish_over_a_failed_attempt_to_its_output() {
    attempts_are_linked("grpc");
}

#[test]
fn one_message_over_http_from_publish_over_a_failed_attempt_to_its_output() {
    attempts_are_linked("http/protobuf");
}

/// `host.tracing.creation_context: parent`
#[test]
fn attempts_lie_in_the_trace_of_their_message_when_that_is_wanted() {
    let (story, _) = publish_and_follow("grpc", "  tracing: { creation_context: parent }\n");
    for span in [&story.first, &story.second] {
        assert_eq!(span.trace, story.published.trace);
        assert_eq!(span.parent, story.published.id);
        assert_eq!(span.links, []);
    }
}

const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const SAMPLED: &str = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01";

/// §12.1: parent-based; failures always. §2.5, §6.2: trace headers stay as they are.
#[test]
fn a_context_decides_for_its_message_and_failures_are_sampled_always() {
    let receiver = Receiver::start();
    let site = site("");
    let traced = |input: Input, context: &str| {
        input
            .header("traceparent", context)
            .header("tracestate", "vendor=1")
            .header("baggage", "user=7")
    };
    let dead = Expected::dead("rejected", 1);
    let inputs = [
        traced(Input::ok("unsampled", "a"), UNSAMPLED),
        traced(Input::ok("sampled", "a"), SAMPLED),
        Input::ok("plain", "a"),
        traced(Input::planned("bad", "a", "reject", 0, dead), UNSAMPLED),
    ];
    site.publish("in", 1, &inputs);
    let mut process = start(&site, &receiver.environment("http/protobuf"), &[NONE]);
    process.await_drained();
    process.stop();
    let spans = receiver.spans();
    let mut attempts: Vec<_> = spans
        .iter()
        .filter(|span| span.begins_with("process"))
        .map(|span| {
            (
                span.attribute("wasmill.offset"),
                span.attribute("error.type"),
                span.links[0].1.as_str(),
            )
        })
        .collect();
    attempts.sort_unstable();
    assert_eq!(
        attempts,
        [
            ("1", "", "c7ad6b7169203331"),
            ("3", "rejected", "b7ad6b7169203331")
        ]
    );
    let sends: Vec<_> = spans
        .iter()
        .filter(|span| span.begins_with("send"))
        .collect();
    assert_eq!(sends.len(), 2, "{sends:#?}");
    assert!(one(&spans, "send", "in.g.dlq").is_some());
    let carried = |stored: &Stored| {
        ["traceparent", "tracestate", "baggage"].map(|name| stored.header(name).unwrap_or_default())
    };
    let outputs = site.read("out");
    assert_eq!(outputs.len(), 3);
    let expected = |context: &str| {
        [
            context.to_owned(),
            "vendor=1".to_owned(),
            "user=7".to_owned(),
        ]
    };
    for output in outputs.iter().filter(|output| output.id() != "plain") {
        let context = if output.id() == "sampled" {
            SAMPLED
        } else {
            UNSAMPLED
        };
        assert_eq!(carried(output), expected(context));
    }
    let letters = site.read("in.g.dlq");
    assert_eq!(letters.len(), 1);
    assert_eq!(carried(&letters[0]), expected(UNSAMPLED));
}

/// §12.1: one in a hundred unless it is said otherwise.
#[test]
fn without_a_sampler_one_in_a_hundred_is_traced() {
    let receiver = Receiver::start();
    let site = site("");
    let inputs: Vec<Input> = (0..5_000)
        .map(|n| Input::ok(&format!("m{n}"), "a"))
        .collect();
    site.publish("in", 1, &inputs);
    let mut process = start(&site, &receiver.environment("grpc"), &[]);
    process.await_drained();
    process.stop();
    let spans = receiver.spans();
    let traced = spans
        .iter()
        .filter(|span| span.begins_with("process"))
        .count();
    assert!((20..=90).contains(&traced), "{traced} of 5,000");
    let sends = spans.iter().filter(|span| span.begins_with("send")).count();
    assert_eq!(sends, traced);
}

/// §5.2: what is put aside and comes back is one message in one trace, and the detour is seen.
#[test]
fn attempts_of_a_deferred_retry_are_one_trace_of_the_topic_it_came_from() {
    let receiver = Receiver::start();
    let deferred = "    ordering: { by: none }\n    retry: { mode: deferred, max_attempts: 3, backoff: { initial_interval: 100ms, max_interval: 100ms } }\n";
    let site = Site::new(&probe_pipeline(&format!("{deferred}{}", probe(""))));
    site.publish(
        "in",
        1,
        &[fails_once("once").header("traceparent", SAMPLED)],
    );
    let mut process = start(&site, &receiver.environment("grpc"), &[NONE]);
    process.await_drained();
    until("the message comes back", || {
        let lines = process.log_text();
        lines.contains("attempt 2 of once").then_some(())
    });
    process.await_drained();
    process.stop();
    let spans = receiver.spans();
    let (first, second) = (attempt(&spans, "1").unwrap(), attempt(&spans, "2").unwrap());
    assert_eq!(first.trace, second.trace);
    for span in [first, second] {
        assert_eq!(span.name, "process in");
        assert_eq!(span.attribute("wasmill.offset"), "0");
        assert_eq!(span.links[0].1, "c7ad6b7169203331");
    }
    let sends = |parent: &Received| {
        let of = spans
            .iter()
            .filter(|span| span.begins_with("send") && span.parent == parent.id);
        of.map(|span| span.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(sends(first), ["send in.g.retry.100ms"]);
    assert_eq!(sends(second), ["send out"]);
    assert_eq!(site.read("out")[0].header("traceparent").unwrap(), SAMPLED);
}

/// A message may have a thousand outputs, and a settlement thousands of attempts.
#[test]
fn spans_of_many_outputs_and_of_a_large_settlement_are_bounded() {
    let receiver = Receiver::start();
    let site = site("");
    let many = Input::planned("many", "a", "emit", 50, Expected::Nothing);
    let others = (0..400).map(|n| Input::ok(&format!("m{n}"), "a"));
    let inputs: Vec<Input> = std::iter::once(many).chain(others).collect();
    site.publish("in", 1, &inputs);
    let mut process = start(&site, &receiver.environment("grpc"), &[ALL]);
    process.await_drained();
    process.stop();
    let spans = receiver.spans();
    let of = |operation: &'static str| spans.iter().filter(move |span| span.begins_with(operation));
    assert_eq!(of("process").count(), inputs.len());
    let first = of("process")
        .find(|span| span.attribute("wasmill.offset") == "0")
        .unwrap();
    assert_eq!(
        of("send").filter(|span| span.parent == first.id).count(),
        32
    );
    let links: Vec<usize> = of("settle").map(|span| span.links.len()).collect();
    assert!(links.iter().all(|links| *links <= 128), "{links:?}");
    assert!(links.contains(&128), "{links:?}");
    let outputs = site.read("out").len() + site.read("other").len();
    assert_eq!(outputs, 450);
}

/// §12.1: one decision for a message, where it enters; who reads it keeps to it.
#[test]
fn what_enters_at_our_edge_is_decided_about_once() {
    let receiver = Receiver::start();
    let site = site("");
    let half = [
        ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
    ];
    let mut process = start(&site, &receiver.environment("grpc"), &half);
    let inputs = (0..200).map(|n| Input::ok(&format!("m{n}"), "a").record());
    process
        .remote()
        .produce("in", &inputs.collect::<Vec<_>>())
        .unwrap();
    process.await_drained();
    process.stop();
    let spans = receiver.spans();
    let offsets = |name: &str| {
        let of = spans.iter().filter(|span| span.name == name);
        let mut offsets: Vec<u64> = of
            .map(|span| span.attribute("wasmill.offset").parse().unwrap())
            .collect();
        offsets.sort_unstable();
        offsets
    };
    let (sent, processed) = (offsets("send in"), offsets("process in"));
    assert!((50..=150).contains(&sent.len()), "{} of 200", sent.len());
    assert_eq!(sent, processed);
    let stored = site.read("in");
    let sampled = |stored: &Stored| stored.header("traceparent").unwrap().ends_with("-01");
    let count = stored.iter().filter(|stored| sampled(stored)).count();
    assert_eq!((stored.len(), count), (200, sent.len()));
}

/// §8.1: where answers go is what messages say, so all of them have one name in spans and metrics.
#[test]
fn an_answer_has_a_span_and_is_counted_as_published() {
    let receiver = Receiver::start();
    let site = site("");
    let process = start(&site, &receiver.environment("grpc"), &[ALL]);
    let question = Input::planned("q", "a", "reply", 7, Expected::Nothing).record();
    let answer = process.remote().request("in", &question, "20s").unwrap();
    assert!(answer.payload.is_some());
    let published = || {
        let count = process.metric("wasmill_messages_published_total", &[r#"topic="reply""#]);
        (count > 0.0).then_some(count)
    };
    assert_eq!(until("the answer is counted", published), 1.0);
    process.stop();
    let spans = receiver.spans();
    let attempt = attempt(&spans, "1").unwrap();
    assert_eq!(one(&spans, "send", "reply").unwrap().parent, attempt.id);
}

/// A command that writes into a directory nobody holds is an edge too.
#[test]
fn the_command_line_publishes_with_a_span_of_its_own() {
    let receiver = Receiver::start();
    let site = site("");
    let environment = receiver.environment("http/protobuf");
    let mut environment: Vec<_> = environment
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    environment.push(ALL);
    let data_dir = site.data_dir();
    let place = ["--data-dir", data_dir.to_str().unwrap()];
    for command in [
        &["topics", "create", "in"][..],
        &["produce", "in", "{\"plan\":\"ok\",\"n\":0}"],
    ] {
        let done = site.command(&[command, &place].concat(), &environment);
        assert!(done.status.success(), "{done:?}");
    }
    let sent = receiver.until("its span", |spans| one(spans, "send", "in").cloned());
    assert_eq!(
        site.read("in")[0].header("traceparent").unwrap(),
        format!("00-{}-{}-01", sent.trace, sent.id)
    );
}

/// §12.1: a receiver that is down costs spans, which are counted, and nothing else; the end of the host is
/// not held up for longer than the bound.
#[test]
fn a_receiver_that_is_away_costs_spans_and_nothing_else() {
    for protocol in ["grpc", "http/protobuf"] {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        // For one protocol nobody listens, for the other somebody who never answers.
        let _silent = (protocol == "grpc").then_some(nobody);
        let site = site("");
        let inputs: Vec<Input> = (0..4_000)
            .map(|n| Input::ok(&format!("m{n}"), "a"))
            .collect();
        site.publish("in", 1, &inputs);
        let endpoint = format!("http://{address}");
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
            ALL,
        ];
        let mut process = site.start_with(&environment);
        process.await_drained();
        let dropped = until("spans are dropped", || {
            let dropped = process.metric("wasmill_spans_dropped_total", &[]);
            (dropped > 0.0).then_some(dropped)
        });
        assert!(dropped <= 8_100.0, "{dropped}");
        let begun = Instant::now();
        process.stop();
        let took = begun.elapsed();
        assert!(
            took < Duration::from_secs(8),
            "{protocol}: the end took {took:?}"
        );
        assert_eq!(site.read("out").len(), inputs.len());
    }
}
