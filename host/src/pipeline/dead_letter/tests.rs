//! §6.1 as examples and properties.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn letter() -> DeadLetter<'static> {
    DeadLetter {
        reason: Reason::AttemptsExhausted,
        error: "connection refused",
        attempts: 5,
        first_failed_at_ms: 1_357_035_300_007,
        last_failed_at_ms: 1_357_035_361_120,
        origin_topic: "orders",
        origin_partition: 3,
        origin_offset: 42,
        group: "billing",
        pipeline: "bill",
        plugin_digest: "sha256:00",
        redrive_count: 0,
        correlation_id: "made-by-the-host",
    }
}

type Header<'a> = (&'a str, Option<&'a [u8]>);

fn headers(list: &[Header]) -> HeadersBuf {
    let mut buf = HeadersBuf::new();
    for (name, value) in list {
        assert!(buf.push(name, *value));
    }
    buf
}

fn listed(headers: Headers) -> Vec<(String, Option<Vec<u8>>)> {
    headers
        .iter()
        .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
        .collect()
}

#[test]
fn a_dead_letter_is_the_message_with_headers_that_say_what_happened() {
    let original = headers(&[
        ("kind", Some(b"order")),
        ("null", None),
        ("kind", Some(b"\xff")),
    ]);
    let message = MessageRef {
        key: Some(b"k"),
        payload: None,
        headers: original.as_headers(),
        timestamp_ms: -1,
    };
    let mut buf = headers(&[("left over", None)]);
    let record = letter().record(&message, &mut buf).unwrap();
    assert_eq!((record.key, record.payload), (message.key, message.payload));
    assert_eq!(record.timestamp_ms, 1_357_035_361_120);
    let id = id("billing", "orders", 3, 42);
    let expected: [Header; 18] = [
        ("kind", Some(b"order")),
        ("null", None),
        ("kind", Some(b"\xff")),
        ("correlation-id", Some(b"made-by-the-host")),
        ("wasmill-dlq-id", Some(id.as_bytes())),
        ("wasmill-dlq-reason", Some(b"attempts_exhausted")),
        ("wasmill-dlq-error", Some(b"connection refused")),
        ("wasmill-dlq-attempts", Some(b"5")),
        (
            "wasmill-dlq-first-failed-at",
            Some(b"2013-01-01T10:15:00.007Z"),
        ),
        (
            "wasmill-dlq-last-failed-at",
            Some(b"2013-01-01T10:16:01.120Z"),
        ),
        ("wasmill-dlq-origin-topic", Some(b"orders")),
        ("wasmill-dlq-origin-partition", Some(b"3")),
        ("wasmill-dlq-origin-offset", Some(b"42")),
        ("wasmill-dlq-origin-timestamp", Some(b"-1")),
        ("wasmill-dlq-group", Some(b"billing")),
        ("wasmill-dlq-pipeline", Some(b"bill")),
        ("wasmill-dlq-plugin-digest", Some(b"sha256:00")),
        ("wasmill-dlq-redrive-count", Some(b"0")),
    ];
    assert_eq!(
        listed(record.headers),
        listed(headers(&expected).as_headers())
    );
}

#[test]
fn a_correlation_id_of_the_message_stays_its_own() {
    let original = headers(&[("correlation-id", Some(b"theirs"))]);
    let message = MessageRef {
        headers: original.as_headers(),
        ..Default::default()
    };
    let mut buf = HeadersBuf::new();
    let record = letter().record(&message, &mut buf).unwrap();
    let ids = record
        .headers
        .iter()
        .filter(|(name, _)| *name == "correlation-id");
    assert_eq!(
        ids.collect::<Vec<_>>(),
        [("correlation-id", Some(b"theirs".as_slice()))]
    );
    assert_eq!(
        Parsed::read(record.headers).unwrap().correlation_id,
        Some("theirs")
    );
}

#[test]
fn headers_of_an_earlier_dead_letter_are_replaced_and_not_appended_to() {
    let message = MessageRef::default();
    let mut first = HeadersBuf::new();
    let first = letter().record(&message, &mut first).unwrap();
    let again = DeadLetter {
        attempts: 7,
        redrive_count: 1,
        ..letter()
    };
    let mut second = HeadersBuf::new();
    let second = again.record(&first, &mut second).unwrap();
    assert_eq!(second.headers.count(), first.headers.count());
    let parsed = Parsed::read(second.headers).unwrap();
    assert_eq!((parsed.attempts, parsed.redrive_count), (7, 1));
    assert_eq!(parsed.id, id("billing", "orders", 3, 42));
}

#[test]
fn what_is_written_can_be_read_back() {
    let message = MessageRef {
        timestamp_ms: 1_357_000_000_000,
        ..Default::default()
    };
    let mut buf = HeadersBuf::new();
    let record = letter().record(&message, &mut buf).unwrap();
    let id = id("billing", "orders", 3, 42);
    let expected = Parsed {
        id: &id,
        reason: "attempts_exhausted",
        error: "connection refused",
        attempts: 5,
        first_failed_at: "2013-01-01T10:15:00.007Z",
        last_failed_at: "2013-01-01T10:16:01.120Z",
        origin_topic: "orders",
        origin_partition: 3,
        origin_offset: 42,
        origin_timestamp_ms: 1_357_000_000_000,
        group: "billing",
        pipeline: "bill",
        plugin_digest: "sha256:00",
        redrive_count: 0,
        correlation_id: Some("made-by-the-host"),
    };
    assert_eq!(Parsed::read(record.headers), Ok(expected));
}

#[test]
fn a_message_that_is_no_dead_letter_says_which_header_is_wrong() {
    assert_eq!(Parsed::read(Headers::default()), Err(Error::Missing("id")));
    let mut buf = HeadersBuf::new();
    let record = letter().record(&MessageRef::default(), &mut buf).unwrap();
    let all = listed(record.headers);
    for (index, (name, _)) in all
        .iter()
        .enumerate()
        .filter(|(_, (n, _))| n.starts_with(PREFIX))
    {
        let short = name.strip_prefix(PREFIX).unwrap();
        let with = |value: Option<Option<&[u8]>>| {
            let mut changed = HeadersBuf::new();
            for (at, (name, old)) in all.iter().enumerate() {
                let value = if at == index {
                    value
                } else {
                    Some(old.as_deref())
                };
                if let Some(value) = value {
                    assert!(changed.push(name, value));
                }
            }
            Parsed::read(changed.as_headers())
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        assert_eq!(with(None), format!("header {PREFIX}{short} is missing"));
        for unreadable in [None, Some(b"\xff".as_slice())] {
            assert_eq!(
                with(Some(unreadable)),
                format!("header {PREFIX}{short} cannot be read")
            );
        }
    }
    let mut buf = headers(&[]);
    let other = DeadLetter {
        correlation_id: "x",
        ..letter()
    };
    let record = other.record(&MessageRef::default(), &mut buf).unwrap();
    let mut list = listed(record.headers);
    list.iter_mut()
        .find(|(name, _)| name.ends_with("attempts"))
        .unwrap()
        .1 = Some(b"many".to_vec());
    let list: Vec<Header> = list
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_deref()))
        .collect();
    assert_eq!(
        Parsed::read(headers(&list).as_headers()),
        Err(Error::Unreadable("attempts"))
    );
}

#[test]
fn a_correlation_id_that_is_not_text_is_left_out_of_what_is_read() {
    let original = headers(&[("correlation-id", Some(b"\xff"))]);
    let message = MessageRef {
        headers: original.as_headers(),
        ..Default::default()
    };
    let mut buf = HeadersBuf::new();
    let record = letter().record(&message, &mut buf).unwrap();
    assert_eq!(
        record.headers.last("correlation-id"),
        Some(b"\xff".as_slice())
    );
    assert_eq!(Parsed::read(record.headers).unwrap().correlation_id, None);
}

#[test]
fn a_message_with_more_headers_than_are_accepted_makes_a_dead_letter_that_says_what_is_left_out() {
    for (count, fits) in [
        (HEADERS_MAX, true),
        (u16::MAX - 15, true),
        (u16::MAX - 14, false),
        (u16::MAX, false),
    ] {
        let mut original = HeadersBuf::new();
        for _ in 0..count {
            assert!(original.push("h", None));
        }
        let message = MessageRef {
            headers: original.as_headers(),
            ..Default::default()
        };
        let mut buf = HeadersBuf::new();
        assert_eq!(
            letter().record(&message, &mut buf).is_some(),
            fits,
            "{count}"
        );
        if fits {
            continue;
        }
        let record = letter().cut(&message, &mut buf);
        let left_out = (count - HEADERS_MAX).to_string();
        assert_eq!(
            record.headers.last("wasmill-dlq-headers-left-out"),
            Some(left_out.as_bytes())
        );
        let own = record.headers.iter().filter(|(name, _)| *name == "h");
        assert_eq!(own.count(), usize::from(HEADERS_MAX));
        assert!(Parsed::read(record.headers).is_ok());
    }
}

#[test]
fn error_bytes_max_and_added_bytes_max_hold_for_the_longest_names() {
    let longest = "n".repeat(TOPIC_BYTES_MAX);
    let error = "é".repeat(5_000);
    let letter = DeadLetter {
        error: &error,
        attempts: u32::MAX,
        first_failed_at_ms: i64::MIN,
        last_failed_at_ms: i64::MAX,
        origin_topic: &longest,
        origin_partition: u32::MAX,
        origin_offset: u64::MAX,
        group: &longest,
        pipeline: &longest,
        plugin_digest: &longest,
        redrive_count: u32::MAX,
        correlation_id: &longest,
        ..letter()
    };
    let message = MessageRef {
        timestamp_ms: i64::MIN,
        ..Default::default()
    };
    let mut buf = HeadersBuf::new();
    let record = letter.record(&message, &mut buf).unwrap();
    assert!(record.record_len() - message.record_len() <= ADDED_BYTES_MAX);
    assert_eq!(
        Parsed::read(record.headers).unwrap().error.len(),
        ERROR_BYTES_MAX
    );
}

#[test]
fn the_default_topic_is_topic_group_dlq() {
    assert_eq!(default_topic("orders", "billing"), "orders.billing.dlq");
    assert_eq!(
        default_topic("shop.orders", "billing_2"),
        "shop.orders.billing_2.dlq"
    );
}

fn is_hashed(name: &str) -> bool {
    let hash = name
        .strip_suffix(".dlq")
        .and_then(|rest| rest.rsplit('.').next());
    hash.is_some_and(|h| h.len() == 32 && h.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[test]
fn a_name_that_cannot_stand_as_it_is_gets_a_hash() {
    let hash_like = "0123456789abcdef0123456789abcdef";
    let long = "t".repeat(240);
    let pairs = [
        ("a", "b.c"),
        ("a", ""),
        ("", "a"),
        ("a b", "c"),
        ("a", "größe"),
        ("a", hash_like),
        (long.as_str(), "group"),
    ];
    for (topic, group) in pairs {
        let name = default_topic(topic, group);
        assert!(is_hashed(&name), "{name}");
        assert!(
            name.len() <= TOPIC_BYTES_MAX && name.bytes().all(is_topic_byte),
            "{name}"
        );
    }
    assert!(default_topic("a b", "c").starts_with("a_b.c."));
    assert_eq!(default_topic(&long, "group").len(), TOPIC_BYTES_MAX);
    assert!(
        !is_hashed(&default_topic(&long, "g")),
        "246 bytes stand as they are"
    );
}

#[test]
fn a_group_named_like_the_hash_of_another_pair_does_not_take_its_name() {
    let hashed = default_topic("a", "b.c");
    let hash = hashed
        .strip_prefix("a.b.c.")
        .and_then(|rest| rest.strip_suffix(".dlq"))
        .unwrap();
    assert_ne!(default_topic("a.b.c", hash), hashed);
}

#[test]
fn times_are_written_as_rfc_3339_in_utc() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (1_704_067_199_999, "2023-12-31T23:59:59.999Z"),
        (i64::MIN, "0000-01-01T00:00:00.000Z"),
        (i64::MAX, "9999-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(rfc3339(ms), text);
    }
}

#[test]
fn the_days_of_four_hundred_years_follow_each_other() {
    let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let mut expected = (1970, 1, 1);
    for day in 0..146_097 {
        assert_eq!(civil(day), expected, "{day}");
        let (year, month, date) = expected;
        let length = match month {
            2 => 28 + i64::from(leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        expected = match (month, date) {
            (12, 31) => (year + 1, 1, 1),
            (_, last) if last == length => (year, month + 1, 1),
            _ => (year, month, date + 1),
        };
    }
}

/// Names that are likely to be mistaken for each other.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[ab._ -]{0,4}", "[ab.]{0,3}", "[0a]{32}", "[a.]{240,260}"]
}

proptest! {
    #[test]
    fn two_pairs_of_topic_and_group_never_share_a_default_topic(
        pairs in proptest::collection::vec((name(), name()), 2..60),
    ) {
        let mut seen: HashMap<String, (String, String)> = HashMap::new();
        for pair in pairs {
            let name = default_topic(&pair.0, &pair.1);
            prop_assert!(name.len() <= TOPIC_BYTES_MAX);
            prop_assert!(name.ends_with(".dlq") && name.bytes().all(is_topic_byte));
            if let Some(other) = seen.insert(name.clone(), pair.clone()) {
                prop_assert_eq!(other, pair, "{}", name);
            }
        }
    }

    #[test]
    fn an_id_is_the_same_for_one_delivery_and_another_for_any_other(
        a in ("[ab]{0,2}", "[ab]{0,2}", 0u32..2, 0u64..2), b in ("[ab]{0,2}", "[ab]{0,2}", 0u32..2, 0u64..2),
    ) {
        let (x, y) = (id(&a.0, &a.1, a.2, a.3), id(&b.0, &b.1, b.2, b.3));
        prop_assert_eq!(x.len(), 32);
        prop_assert_eq!(x == y, a == b);
    }

    #[test]
    fn headers_of_the_message_pass_byte_for_byte(
        list in proptest::collection::vec(
            ("(wasmill-dlq-|wasmill-|)[a-z]{0,4}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9))), 0..9),
    ) {
        let list: Vec<Header> = list.iter().map(|(n, v)| (n.as_str(), v.as_deref())).collect();
        let original = headers(&list);
        let message = MessageRef { headers: original.as_headers(), ..Default::default() };
        let mut buf = HeadersBuf::new();
        let record = letter().record(&message, &mut buf).unwrap();
        let kept: Vec<Header> = list.into_iter().filter(|(name, _)| !name.starts_with(PREFIX)).collect();
        let out: Vec<Header> = record.headers.iter().take(kept.len()).collect();
        prop_assert_eq!(out, kept);
        prop_assert!(Headers::check(record.headers.count(), record.headers.block()).is_ok());
        prop_assert!(Parsed::read(record.headers).is_ok());
    }
}
