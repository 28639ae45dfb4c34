//! Whether a dead letter is one of those that are meant. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::decode::View;
use super::wire::{DeadLetterFilter, StateFilter};
use crate::admin::error::{Code, Error};
use crate::pipeline::letter_state::State;

/// A filter that was understood.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    filter: DeadLetterFilter,
    key: Option<Vec<u8>>,
}

impl Wanted {
    /// # Errors
    /// `Invalid`: a key that is not base64, times the wrong way round.
    pub(super) fn new(filter: &DeadLetterFilter) -> Result<Self, Error> {
        let key = match &filter.key {
            None => None,
            Some(text) => match text.strip_prefix("base64:") {
                None => Some(text.as_bytes().to_vec()),
                Some(encoded) => Some(STANDARD.decode(encoded).map_err(|why| {
                    Error::new(
                        Code::Invalid,
                        format!("the key {text} is not base64: {why}"),
                        "write a key that is no text as base64:AAEC…",
                    )
                })?),
            },
        };
        if filter
            .from_ms
            .zip(filter.until_ms)
            .is_some_and(|(from, until)| from > until)
        {
            return Err(Error::new(
                Code::Invalid,
                "the time range ends before it begins",
                "",
            ));
        }
        Ok(Self {
            filter: filter.clone(),
            key,
        })
    }

    /// By everything but its state, which costs a look into a table.
    pub(super) fn fits(&self, letter: &View<'_>) -> bool {
        let filter = &self.filter;
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.is_none() || wanted.as_deref() == found
        };
        let failed_at = letter.message.timestamp_ms;
        is(&filter.pipeline, letter.pipeline)
            && is(&filter.consumer_group, letter.group)
            && is(&filter.reason, letter.reason)
            && (self.key.is_none() || self.key.as_deref() == letter.message.key)
            && filter.plugin.as_deref().is_none_or(|plugin| {
                let digest = letter.plugin_digest.unwrap_or_default();
                let bare = digest.strip_prefix("sha256:").unwrap_or(digest);
                digest.starts_with(plugin) || bare.starts_with(plugin)
            })
            && filter.from_ms.is_none_or(|from| from <= failed_at)
            && filter.until_ms.is_none_or(|until| failed_at <= until)
            && filter
                .failure_group
                .as_deref()
                .is_none_or(|group| group == letter.failure_group())
    }

    /// `lost`: it is on its way back and nothing will come of it.
    pub(super) fn fits_state(&self, state: State, lost: bool) -> bool {
        match self.filter.state {
            StateFilter::New => state == State::New || lost,
            StateFilter::Redriving => state == State::Redriving,
            StateFilter::Done => state == State::Done,
            StateFilter::Resolved => state == State::Resolved,
            StateFilter::Discarded => state == State::Discarded,
            StateFilter::All => true,
        }
    }

    /// Whether letters that are closed are of no interest.
    pub(super) fn wants_open_only(&self) -> bool {
        matches!(self.filter.state, StateFilter::New | StateFilter::Redriving)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{HeadersBuf, MessageRef};

    fn fits(filter: DeadLetterFilter) -> bool {
        let mut headers = HeadersBuf::new();
        for (name, value) in [
            ("id", "i"),
            ("pipeline", "p"),
            ("group", "g"),
            ("reason", "rejected"),
            ("error", "order 5 is gone"),
            ("plugin-digest", "sha256:abcdef"),
        ] {
            assert!(headers.push(&format!("wasmill-dlq-{name}"), Some(value.as_bytes())));
        }
        let message = MessageRef {
            key: Some(b"k1"),
            headers: headers.as_headers(),
            timestamp_ms: 100,
            ..MessageRef::default()
        };
        let view = View::read(&message).unwrap();
        Wanted::new(&filter).unwrap().fits(&view)
    }

    #[test]
    fn everything_that_is_given_must_fit() {
        type Set = fn(&mut DeadLetterFilter, String);
        let group =
            crate::admin::letters::shape::group_id("p", "g", "rejected", "order <n> is gone");
        let cases: [(Set, &str, &str); 7] = [
            (|f, v| f.pipeline = Some(v), "p", "q"),
            (|f, v| f.consumer_group = Some(v), "g", "h"),
            (|f, v| f.reason = Some(v), "rejected", "fault"),
            (|f, v| f.key = Some(v), "k1", "k"),
            (|f, v| f.key = Some(v), "base64:azE=", "base64:azI="),
            (|f, v| f.plugin = Some(v), "abc", "bc"),
            (|f, v| f.failure_group = Some(v), &group, "0000000000"),
        ];
        for (set, good, bad) in cases {
            let with = |value: &str| {
                let mut filter = DeadLetterFilter::default();
                set(&mut filter, value.to_owned());
                filter
            };
            assert!(fits(with(good)), "{good}");
            assert!(!fits(with(bad)), "{bad}");
        }
        let range = |from, until| DeadLetterFilter {
            from_ms: from,
            until_ms: until,
            ..DeadLetterFilter::default()
        };
        assert!(fits(range(Some(100), Some(100))));
        assert!(!fits(range(Some(101), None)) && !fits(range(None, Some(99))));
    }

    #[test]
    fn new_means_what_somebody_has_to_look_at() {
        let wanted = Wanted::new(&DeadLetterFilter::default()).unwrap();
        let shown: Vec<State> = State::ALL
            .into_iter()
            .filter(|state| wanted.fits_state(*state, false))
            .collect();
        assert_eq!(shown, [State::New]);
        assert!(wanted.fits_state(State::Redriving, true));
    }

    #[test]
    fn a_filter_that_makes_no_sense_is_refused() {
        let filter = DeadLetterFilter {
            key: Some("base64:*".into()),
            ..DeadLetterFilter::default()
        };
        assert_eq!(Wanted::new(&filter).unwrap_err().code, Code::Invalid);
        let filter = DeadLetterFilter {
            from_ms: Some(2),
            until_ms: Some(1),
            ..DeadLetterFilter::default()
        };
        assert_eq!(Wanted::new(&filter).unwrap_err().code, Code::Invalid);
    }
}
