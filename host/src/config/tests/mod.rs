//! What is written reaches the validated types; the rest is by subject in the files below.

mod committed;
mod robust;
mod scalars;
mod several;

use std::time::Duration;

use super::valid::*;
use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

fn loaded(text: &str) -> Loaded {
    load_text(Path::new("x/pipeline.yaml"), text, &no_env)
        .unwrap_or_else(|error| panic!("{}", render(&error.problems, &error.sources, false)))
}

fn problems(text: &str) -> Vec<Problem> {
    load_text(Path::new("pipeline.yaml"), text, &no_env)
        .map_or_else(|error| error.problems, |loaded| loaded.warnings)
}

const HELLO: &str = "version: 1\npipelines:\n  - { name: p, source: { topics: [t], consumer_group: g, start: earliest }, handler: { plugin: p.wasm } }\n";

/// Every key there is.
const EVERYTHING: &str = r#"
version: 1
host:
  data_dir: ./data
  admin: { listen: "127.0.0.1:5180" }
  health: { listen: "0.0.0.0:5181" }
  shutdown_timeout: 10s
  guest_memory: 1GiB
  durability: os
  create_topics: { partitions: 12 }
connections:
  local: { embedded: {} }
defaults:
  source: { format: json, window: { messages: 100 } }
  retry: { max_attempts: 7, backoff: { initial_interval: 200ms } }
  handler: { config: { a: under, b: 1.50 } }
pipelines:
  - name: enrich
    delivery: at_least_once
    source:
      connection: local
      topics: [orders, more.orders]
      consumer_group: enrich
      start: { timestamp: "2026-01-31T08:00:00.5+01:00" }
      format: json
      on_lost_offset: earliest
      window: { bytes: 1MiB }
    ordering: { by: key, null_key: partition, on_dead_letter: block_lane }
    retry: { mode: inline, max_elapsed: 1h, backoff: { multiplier: 2.5, max_interval: 30s } }
    idempotency:
      key: message.json.order_id
      ttl: 24h
      store: source
      scope: global
      on_duplicate: replay
      if_missing: process
      fingerprint: [message.json.total, 'message.header("kind")']
    handler:
      plugin: ./enrich.wasm
      config: { a: over }
      allow: { state: { max_size: 2GiB }, clock: true, random: true }
      limits: { memory: 64MiB, time: 2s, outputs: 3, output_size: 4KiB, log_lines: 5 }
      concurrency: 2
      batch: 16
      isolation: message
    outputs:
      enriched: { topic: orders.enriched, headers: [tenant, "ce_*"] }
      suspicious: { topic: orders.suspicious }
    dead_letter: { topic: orders.dlq }
  - { name: second, source: { topics: [orders], consumer_group: other, start: latest }, handler: { plugin: /abs/x.wasm } }
"#;

#[test]
fn every_key_reaches_its_place_in_the_validated_types() {
    let Config { host, pipelines } = loaded(EVERYTHING).config;
    assert_eq!(host.data_dir, Path::new("./data"));
    assert_eq!(host.admin_listen.to_string(), "127.0.0.1:5180");
    assert_eq!(host.health_listen.to_string(), "0.0.0.0:5181");
    assert_eq!(host.shutdown_timeout, Duration::from_secs(10));
    assert_eq!(host.guest_memory, 1 << 30);
    assert_eq!(host.durability, Durability::Os);
    assert_eq!(host.create_topics.unwrap().get(), 12);
    let p = &pipelines[0];
    assert_eq!(p.name, "enrich");
    assert_eq!(p.delivery, Delivery::AtLeastOnce);
    assert_eq!(p.source.topics, ["orders", "more.orders"]);
    assert_eq!(p.source.consumer_group, "enrich");
    assert_eq!(p.source.start, Start::Timestamp(1_769_842_800_500));
    assert_eq!(p.source.format, Format::Json);
    assert_eq!(p.source.on_lost_offset, OnLostOffset::Earliest);
    assert_eq!(
        p.source.window,
        Window {
            messages: 100,
            bytes: 1 << 20
        }
    );
    assert_eq!(
        p.ordering,
        Ordering {
            by: By::Key,
            null_key: NullKey::Partition,
            on_dead_letter: OnDeadLetter::BlockLane
        }
    );
    assert_eq!(p.retry.max_attempts.get(), 7);
    assert_eq!(p.retry.max_elapsed, Some(Duration::from_secs(3600)));
    let backoff = Backoff {
        initial_interval: Duration::from_millis(200),
        multiplier: 2.5,
        max_interval: Duration::from_secs(30),
    };
    assert_eq!(p.retry.backoff, backoff);
    let idempotency = p.idempotency.as_ref().unwrap();
    assert_eq!(idempotency.key.source(), "message.json.order_id");
    assert_eq!(idempotency.ttl, Duration::from_secs(86_400));
    assert_eq!(idempotency.on_duplicate, OnDuplicate::Replay);
    assert_eq!(idempotency.if_missing, IfMissing::Process);
    assert_eq!(idempotency.fingerprint.len(), 2);
    assert_eq!(p.handler.plugin, Path::new("x/enrich.wasm"));
    assert_eq!(
        p.handler.config,
        [("a", "over"), ("b", "1.50")]
            .map(|(k, v)| (k.into(), v.into()))
            .into()
    );
    assert_eq!(
        p.handler.allow,
        Allow {
            state: Some(StateGrant {
                max_size: 2 << 30,
                name: "default".to_owned(),
                version: 1,
            }),
            clock: true,
            random: true
        }
    );
    let limits = Limits {
        memory: 64 << 20,
        time: Duration::from_secs(2),
        outputs: 3,
        output_size: 4096,
        log_lines: 5,
    };
    assert_eq!(p.handler.limits, limits);
    assert_eq!(
        (p.handler.concurrency.get(), p.handler.batch.unwrap().get()),
        (2, 16)
    );
    assert_eq!(p.handler.isolation, Isolation::Message);
    let enriched = &p.outputs[0];
    assert_eq!(
        (enriched.name.as_str(), enriched.topic.as_str()),
        ("enriched", "orders.enriched")
    );
    assert_eq!(enriched.headers, ["tenant", "ce_*"]);
    assert_eq!(p.outputs[1].headers, Vec::<String>::new());
    assert_eq!(p.dead_letter.topic.as_deref(), Some("orders.dlq"));
    assert_eq!(pipelines[1].handler.plugin, Path::new("/abs/x.wasm"));
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let text = "version: 1\npipelines:\n  - { name: p, source: { topics: [t], consumer_group: g, start: earliest }, handler: { plugin: p.wasm } }\n";
    let Config { host, pipelines } = loaded(text).config;
    assert_eq!(host.data_dir, Path::new("./wasmill-data"));
    assert_eq!(host.admin_listen.to_string(), "127.0.0.1:4180");
    assert_eq!(host.health_listen.to_string(), "127.0.0.1:4181");
    assert_eq!(host.shutdown_timeout, Duration::from_secs(30));
    assert_eq!(host.guest_memory, 2 << 30);
    assert_eq!(host.durability, Durability::Fsync);
    assert_eq!(host.create_topics.unwrap().get(), 6);
    let p = &pipelines[0];
    assert_eq!(p.delivery, Delivery::AtLeastOnce);
    assert_eq!(
        (p.source.start, p.source.format, p.source.on_lost_offset),
        (Start::Earliest, Format::Bytes, OnLostOffset::Halt)
    );
    assert_eq!(
        p.source.window,
        Window {
            messages: 8192,
            bytes: 16 << 20
        }
    );
    assert_eq!(
        p.ordering,
        Ordering {
            by: By::Key,
            null_key: NullKey::None,
            on_dead_letter: OnDeadLetter::Continue
        }
    );
    assert_eq!((p.retry.max_attempts.get(), p.retry.max_elapsed), (5, None));
    let backoff = Backoff {
        initial_interval: Duration::from_secs(2),
        multiplier: 4.0,
        max_interval: Duration::from_secs(60),
    };
    assert_eq!(p.retry.backoff, backoff);
    assert!(p.idempotency.is_none() && p.outputs.is_empty() && p.handler.config.is_empty());
    assert_eq!(p.handler.allow, Allow::default());
    let limits = Limits {
        memory: 128 << 20,
        time: Duration::from_secs(5),
        outputs: 1000,
        output_size: 1 << 20,
        log_lines: 100,
    };
    assert_eq!(p.handler.limits, limits);
    assert_eq!(
        (p.handler.batch, p.handler.isolation),
        (None, Isolation::Worker)
    );
    assert_eq!(p.dead_letter.topic, None);
}

#[test]
fn several_mistakes_are_told_at_once() {
    let text = "version: 2\npipelines:\n  - { nme: p, source: { topics: t, consumer_group: g }, handler: { plugin: p.wasm, limits: { time: 5 } } }\n";
    let found = problems(text);
    let codes: Vec<_> = found.iter().map(|p| (p.column, p.code.as_str())).collect();
    let expected = [
        (10, "out_of_range"),
        (7, "unknown_key"),
        (25, "missing_key"),
        (33, "wrong_type"),
        (100, "bad_value"),
    ];
    assert_eq!(codes, expected, "{found:#?}");
}
