//! Places in a topic as people type them: `earliest`, `latest`, an offset, a time, a span ago; and
//! `topic/partition@offset`. Not here: what stands there.

use std::str::FromStr;

use crate::admin::time;

/// Where to begin or to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Position {
    Earliest,
    Latest,
    Offset(u64),
    /// Unix ms.
    Time(i64),
}

/// One message of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MessagePlace {
    pub topic: String,
    pub partition: u32,
    pub offset: u64,
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if let Ok(offset) = text.parse::<u64>() {
            return Ok(Self::Offset(offset));
        }
        if let Some(at) = time::parse_rfc3339(text) {
            return Ok(Self::Time(at));
        }
        let ago = text.strip_prefix('-').unwrap_or(text);
        if let Some(span) = time::parse_span(ago) {
            let span_ms = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
            return Ok(Self::Time(time::now_ms().saturating_sub(span_ms)));
        }
        Err("write earliest, latest, an offset (42), a time (2013-01-31T05:15:00Z) or a span ago (-10m)".to_owned())
    }
}

impl MessagePlace {
    /// `None` when `text` does not look like `topic/partition@offset`.
    #[must_use]
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (place, offset) = text.rsplit_once('@')?;
        let (topic, partition) = place.rsplit_once('/')?;
        (!topic.is_empty()).then_some(())?;
        Some(Self {
            topic: topic.to_owned(),
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_position() {
        assert_eq!("earliest".parse(), Ok(Position::Earliest));
        assert_eq!("latest".parse(), Ok(Position::Latest));
        assert_eq!("42".parse(), Ok(Position::Offset(42)));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(Position::Time(1_000)));
        for ago in ["-10m", "10m"] {
            let Ok(Position::Time(at)) = ago.parse() else {
                panic!("{ago}");
            };
            let expected = time::now_ms() - 600_000;
            assert!((expected - at).abs() < 60_000);
        }
        for bad in ["", "first", "-5", "4.2", "10"] {
            assert_eq!(bad.parse::<Position>().is_ok(), bad == "10", "{bad}");
        }
    }

    #[test]
    fn a_message_is_named_by_topic_partition_and_offset() {
        let place = MessagePlace::parse("orders.g.dlq/3@17").unwrap();
        assert_eq!(
            (place.topic.as_str(), place.partition, place.offset),
            ("orders.g.dlq", 3, 17)
        );
        for bad in ["", "a", "a/1", "a@1", "/1@2", "a/x@1", "a/1@", "a/1@-2"] {
            assert_eq!(MessagePlace::parse(bad), None, "{bad}");
        }
    }
}
