//! Which messages a tap shows: those that arrive, fit the filter and are in the sample. Pure.

use super::TAP_ROUND_MAX;
use crate::admin::wire::{Message, TopicDescription};
use crate::expression::Condition;
use crate::message::{HeadersBuf, MessageRef};
use crate::pipeline::correlation::{Correlation, topic_hash};

/// Of what one of N is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sample {
    /// Of the messages that fit, one after the other.
    Messages(u64),
    /// Of the correlation IDs: a message is shown with what came of it.
    Correlations(u64),
}

/// Which of the messages that were read are shown.
pub(super) struct Sieve<'f> {
    filter: Option<&'f Condition>,
    sample: Sample,
    fitting: u64,
    /// Messages on which the filter has no value.
    pub(super) failed: u64,
    headers: HeadersBuf,
    scratch: Vec<u8>,
}

impl<'f> Sieve<'f> {
    pub(super) fn new(filter: Option<&'f Condition>, sample: Sample) -> Self {
        Self {
            filter,
            sample,
            fitting: 0,
            failed: 0,
            headers: HeadersBuf::new(),
            scratch: Vec::new(),
        }
    }

    pub(super) fn takes(&mut self, message: &Message) -> bool {
        if !self.fits(message) {
            return false;
        }
        match self.sample {
            Sample::Messages(sample) => {
                self.fitting += 1;
                (self.fitting - 1).is_multiple_of(sample)
            }
            Sample::Correlations(sample) => {
                let id = self.correlation_id(message);
                xxhash_rust::xxh3::xxh3_64(id.as_bytes()).is_multiple_of(sample)
            }
        }
    }

    /// As the host finds it (§12.2): the message's own, or one made of its place.
    pub(super) fn correlation_id(&mut self, message: &Message) -> String {
        self.read_headers(message);
        let headers = self.headers.as_headers();
        let hash = topic_hash(&message.topic);
        let id = Correlation::of(&headers, hash, message.partition, message.offset);
        id.text(&headers).to_owned()
    }

    fn read_headers(&mut self, message: &Message) -> bool {
        self.headers.clear();
        message.headers.iter().all(|header| {
            let value = header.value.as_ref().map(|value| value.0.as_slice());
            self.headers.push(&header.name, value)
        })
    }

    fn fits(&mut self, message: &Message) -> bool {
        let Some(filter) = self.filter else {
            return true;
        };
        if !self.read_headers(message) {
            self.failed += 1;
            return false;
        }
        let seen = MessageRef {
            key: message.key.as_ref().map(|key| key.0.as_slice()),
            payload: message.payload.as_ref().map(|payload| payload.0.as_slice()),
            headers: self.headers.as_headers(),
            timestamp_ms: message.timestamp_ms,
        };
        match filter.holds(&seen, &mut self.scratch) {
            Ok(fits) => fits,
            Err(_) => {
                self.failed += 1;
                false
            }
        }
    }
}

/// What was read and what was not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) read: u64,
    pub(super) shown: u64,
    pub(super) passed_over: u64,
}

/// Where reading of each partition goes on.
pub(super) struct Cursors {
    next: Vec<(u32, u64)>,
}

/// What one round reads of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) partition: u32,
    pub(super) from: u64,
    pub(super) end: u64,
}

impl Cursors {
    /// From the ends of the partitions on.
    pub(super) fn at_end(topic: &TopicDescription) -> Self {
        let ends = topic.partitions.iter();
        Self {
            next: ends.map(|one| (one.partition, one.end)).collect(),
        }
    }

    /// What one round reads: the newest [`TAP_ROUND_MAX`] messages at most; the rest is passed over.
    pub(super) fn due(&mut self, now: &TopicDescription, tally: &mut Tally) -> Vec<Stretch> {
        let mut due = Vec::new();
        for (partition, next) in &mut self.next {
            let found = now
                .partitions
                .iter()
                .find(|one| one.partition == *partition);
            let Some(end) = found.map(|one| one.end).filter(|end| end > next) else {
                continue;
            };
            let from = end.saturating_sub(u64::from(TAP_ROUND_MAX)).max(*next);
            tally.passed_over += from - *next;
            due.push(Stretch {
                partition: *partition,
                from,
                end,
            });
            *next = end;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::wire::{Blob, Header, PartitionDescription};
    use crate::cli::tap::condition;

    fn topic(ends: &[u64]) -> TopicDescription {
        TopicDescription {
            topic: "t".into(),
            retention_ms: None,
            retention_bytes: None,
            message_bytes_max: 1,
            partitions: (0..)
                .zip(ends)
                .map(|(partition, end)| PartitionDescription {
                    partition,
                    earliest: 0,
                    end: *end,
                })
                .collect(),
            groups: Vec::new(),
        }
    }

    fn message(header: (&str, &str)) -> Message {
        Message {
            topic: "t".into(),
            partition: 0,
            offset: 0,
            timestamp_ms: 0,
            key: None,
            payload: Some(Blob(b"{\"n\": 7}".to_vec())),
            headers: vec![Header {
                name: header.0.into(),
                value: Some(Blob(header.1.as_bytes().to_vec())),
            }],
        }
    }

    #[test]
    fn what_comes_faster_than_tap_round_max_is_passed_over_and_counted() {
        let mut cursors = Cursors::at_end(&topic(&[10, 20]));
        let mut tally = Tally::default();
        assert!(cursors.due(&topic(&[10, 20]), &mut tally).is_empty());
        let round = u64::from(TAP_ROUND_MAX);
        let due = cursors.due(&topic(&[10 + round, 20 + round + 5]), &mut tally);
        let places: Vec<_> = due.iter().map(|one| (one.partition, one.from)).collect();
        assert_eq!(places, [(0, 10), (1, 25)]);
        assert_eq!(tally.passed_over, 5);
        assert!(
            cursors
                .due(&topic(&[10 + round, 20 + round + 5]), &mut tally)
                .is_empty()
        );
    }

    #[test]
    fn a_sample_is_of_the_messages_that_fit_and_a_filter_without_a_value_is_counted() {
        let filter = condition("message.header(\"kind\") == \"order\"").unwrap();
        let mut sieve = Sieve::new(Some(&filter), Sample::Messages(3));
        let mut taken = Vec::new();
        for number in 0..14 {
            let kind = if number % 2 == 0 { "order" } else { "note" };
            if sieve.takes(&message(("kind", kind))) {
                taken.push(number);
            }
        }
        assert_eq!(taken, [0, 6, 12]);
        let filter = condition("message.json.gone == 1").unwrap();
        let mut sieve = Sieve::new(Some(&filter), Sample::Messages(1));
        assert!(!sieve.takes(&message(("kind", "order"))));
        assert_eq!(sieve.failed, 1);
    }

    #[test]
    fn a_sample_of_correlation_ids_shows_a_message_with_what_came_of_it() {
        let mut sieve = Sieve::new(None, Sample::Correlations(4));
        let mut shown = 0;
        for number in 0..400 {
            let id = format!("id-{number}");
            let came_in = message(("correlation-id", &id));
            let went_out = Message {
                topic: "out".into(),
                offset: 7,
                ..came_in.clone()
            };
            let takes = sieve.takes(&came_in);
            assert_eq!(takes, sieve.takes(&went_out), "{id}");
            shown += u32::from(takes);
        }
        assert!((50..150).contains(&shown), "{shown} of 400");
    }

    #[test]
    fn a_message_without_a_correlation_id_has_the_one_that_the_host_makes_of_its_place() {
        let mut sieve = Sieve::new(None, Sample::Messages(1));
        let id = sieve.correlation_id(&message(("kind", "order")));
        let none = crate::message::Headers::default();
        let host = Correlation::of(&none, topic_hash("t"), 0, 0);
        assert_eq!(id, host.text(&none));
        let own = sieve.correlation_id(&message(("correlation-id", "story-1")));
        assert_eq!(own, "story-1");
    }
}
