//! The correlation ID of a delivery (§12.2): the message's own, else one derived from where it lies,
//! so that every attempt, on every host, finds the same. Pure.

use crate::message::Headers;

/// The header that carries it.
pub const HEADER: &str = "correlation-id";
/// A longer one in a message is not taken over.
pub const LEN_MAX: usize = 256;

/// A derived ID in text form, or the fact that the message has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Correlation {
    /// Look it up in the message's headers.
    InMessage,
    Derived([u8; 36]),
}

impl Correlation {
    /// `topic_hash` is [`topic_hash`] of the topic's name.
    #[must_use]
    pub fn of(headers: &Headers<'_>, topic_hash: u64, partition: u32, offset: u64) -> Self {
        if usable(headers).is_some() {
            return Self::InMessage;
        }
        Self::Derived(derive(topic_hash, partition, offset))
    }

    /// The text, given the same headers as before.
    #[must_use]
    pub fn text<'a>(&'a self, headers: &Headers<'a>) -> &'a str {
        match self {
            Self::InMessage => usable(headers).unwrap_or_default(),
            Self::Derived(text) => std::str::from_utf8(text).unwrap_or_default(),
        }
    }
}

/// Computed once per topic.
#[must_use]
pub fn topic_hash(topic: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(topic.as_bytes())
}

fn usable<'a>(headers: &Headers<'a>) -> Option<&'a str> {
    let value = headers.last(HEADER)?;
    if value.is_empty() || value.len() > LEN_MAX {
        return None;
    }
    std::str::from_utf8(value).ok()
}

/// A UUID of version 8 (custom) over topic, partition and offset.
fn derive(topic_hash: u64, partition: u32, offset: u64) -> [u8; 36] {
    let mut place = [0; 20];
    let (topic, rest) = place.split_at_mut(8);
    topic.copy_from_slice(&topic_hash.to_le_bytes());
    let (part, off) = rest.split_at_mut(4);
    part.copy_from_slice(&partition.to_le_bytes());
    off.copy_from_slice(&offset.to_le_bytes());
    let uuid = uuid::Builder::from_custom_bytes(xxhash_rust::xxh3::xxh3_128(&place).to_be_bytes())
        .into_uuid();
    let mut text = [0; 36];
    uuid.hyphenated().encode_lower(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::HeadersBuf;

    #[test]
    fn the_messages_own_id_is_kept() {
        let mut headers = HeadersBuf::new();
        assert!(headers.push(HEADER, Some(b"abc")));
        let id = Correlation::of(&headers.as_headers(), 1, 2, 3);
        assert_eq!(id.text(&headers.as_headers()), "abc");
    }

    #[test]
    fn without_one_the_id_is_a_function_of_topic_partition_and_offset() {
        let none = Headers::default();
        let id = |t: &str, p, o| Correlation::of(&none, topic_hash(t), p, o);
        assert_eq!(id("a", 0, 7), id("a", 0, 7));
        let all = [id("a", 0, 7), id("b", 0, 7), id("a", 1, 7), id("a", 0, 8)];
        for (i, left) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|right| left != right));
        }
        assert_eq!(
            uuid::Uuid::parse_str(all[0].text(&none))
                .unwrap()
                .get_version_num(),
            8
        );
    }

    #[test]
    fn an_id_that_is_empty_too_long_or_not_text_is_replaced_by_a_derived_one() {
        for value in [&b""[..], &[b'x'; LEN_MAX + 1], &[0xff]] {
            let mut headers = HeadersBuf::new();
            assert!(headers.push(HEADER, Some(value)));
            assert!(matches!(
                Correlation::of(&headers.as_headers(), 1, 2, 3),
                Correlation::Derived(_)
            ));
        }
    }
}
