//! Trace contexts and which messages are traced (§12.1), and what an observer is told of one that is:
//! plain values, from which others make spans. Pure.

use crate::message::Headers;
use crate::pipeline::settlement::Target;

/// The header with the creation context of a message (W3C Trace Context).
pub const HEADER: &str = "traceparent";
/// Attempts of one settlement that are linked to its span and whose publishes are told; of those beyond
/// only the attempt itself is.
pub const SETTLEMENT_SPANS_MAX: usize = 128;
/// Publishes of one message that are told one by one.
pub const SENDS_MAX: usize = 32;

/// A span as others refer to it. Neither number is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanRef {
    pub trace: u128,
    pub span: u64,
}

/// What `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub at: SpanRef,
    pub is_sampled: bool,
}

impl Context {
    /// Of a message; `None` without the header and when it is not well-formed.
    #[must_use]
    pub fn of(headers: &Headers<'_>) -> Option<Self> {
        Self::parse(headers.last(HEADER)?)
    }

    /// `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`; later versions may have more behind.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let version = hex(text.get(..2)?)?;
        let more = text.get(55);
        let fits = match version {
            0 => more.is_none(),
            0xff => false,
            _ => more.is_none_or(|byte| *byte == b'-'),
        };
        let dashes = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
        if !fits || !dashes {
            return None;
        }
        let trace = hex(text.get(3..35)?)?;
        let span = hex(text.get(36..52)?)? as u64;
        let flags = hex(text.get(53..55)?)?;
        (trace != 0 && span != 0).then_some(Self {
            at: SpanRef { trace, span },
            is_sampled: flags & 1 == 1,
        })
    }
}

impl SpanRef {
    /// As the `traceparent` of a message for which it was decided whether it is traced.
    #[must_use]
    pub fn traceparent(&self, is_sampled: bool) -> String {
        let flags = u8::from(is_sampled);
        format!("00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span)
    }
}

/// Lower-case hex digits as the standard wants them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Which messages are traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// A message with a context is traced when that is.
    pub parent_based: bool,
    /// Of the others those whose trace ID, its last 63 bits, is below.
    below: u64,
}

impl Sampling {
    /// `ratio` of all, 0 to 1.
    #[must_use]
    pub fn new(parent_based: bool, ratio: f64) -> Self {
        let below = (ratio.clamp(0.0, 1.0) * (1_u64 << 63) as f64) as u64;
        Self {
            parent_based,
            below,
        }
    }

    /// `own` is the trace it belongs to when it has no context.
    #[must_use]
    pub fn samples(&self, context: Option<&Context>, own: u128) -> bool {
        match context {
            Some(context) if self.parent_based => context.is_sampled,
            Some(context) => self.is_below(context.at.trace),
            None => self.is_below(own),
        }
    }

    /// Every message was asked for.
    #[must_use]
    pub const fn takes_all(&self) -> bool {
        self.below >= 1 << 63
    }

    fn is_below(&self, trace: u128) -> bool {
        (trace as u64 >> 1) < self.below
    }
}

/// The trace of the attempts of one group on a message: a function of where it lies, so that every
/// attempt, on every host, finds the same. `reader` tells groups apart.
#[must_use]
pub fn trace_of(topic_hash: u64, reader: u64, partition: u32, offset: u64) -> u128 {
    let place = mixed(topic_hash ^ mixed(reader ^ u64::from(partition)));
    let low = mixed(place.wrapping_add(offset));
    let high = mixed(low ^ place);
    // 0 stands for none.
    (u128::from(high) << 64 | u128::from(low)).max(1)
}

/// The last step of SplitMix64: every bit of the result depends on every bit of `number`.
const fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// From when to when, in nanoseconds of the worker's clock, and what that says now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    pub begun_ns: u64,
    pub ended_ns: u64,
    pub now_ns: u64,
}

/// A message that is traced, and where it came from first.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub topic: &'a str,
    pub partition: u32,
    pub offset: u64,
    pub context: Option<Context>,
    pub headers: Headers<'a>,
    /// [`trace_of`] it and the group.
    pub trace: u128,
}

/// One attempt on a message.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    pub origin: Origin<'a>,
    pub correlation_id: &'a str,
    /// From 1.
    pub number: u32,
    /// Messages in the call.
    pub messages: usize,
    pub times: Times,
    pub failure: Option<Failure<'a>>,
}

/// Why an attempt did not succeed.
#[derive(Debug, Clone, Copy)]
pub struct Failure<'a> {
    /// One of a closed set.
    pub kind: &'a str,
    pub error: &'a str,
}

/// An attempt that was told, in the settlement that makes it durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub span: SpanRef,
    /// What it published: at most [`SENDS_MAX`].
    pub sends: Vec<Target>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn parsed(text: &str) -> Option<Context> {
        Context::parse(text.as_bytes())
    }

    /// W3C Trace Context, §3.2.2
    #[test]
    fn a_well_formed_traceparent_is_understood_and_every_other_ignored() {
        let context = parsed(&format!("00-{TRACE}-b7ad6b7169203331-01")).unwrap();
        assert_eq!(context.at.span, 0xb7ad_6b71_6920_3331);
        assert!(context.is_sampled);
        assert!(
            !parsed(&format!("00-{TRACE}-b7ad6b7169203331-00"))
                .unwrap()
                .is_sampled
        );
        // A later version may say more.
        assert!(parsed(&format!("01-{TRACE}-b7ad6b7169203331-03-more")).is_some());
        let upper = TRACE.to_uppercase();
        let none = "0".repeat(32);
        for bad in [
            String::new(),
            format!("00-{TRACE}-b7ad6b7169203331-0"),
            format!("00-{TRACE}-b7ad6b7169203331-01-"),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("00-{upper}-b7ad6b7169203331-01"),
            format!("00-{none}-b7ad6b7169203331-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00_{TRACE}-b7ad6b7169203331-01"),
        ] {
            assert_eq!(parsed(&bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let at = SpanRef { trace: 7, span: 9 };
        for is_sampled in [true, false] {
            let context = parsed(&at.traceparent(is_sampled)).unwrap();
            assert_eq!((context.at, context.is_sampled), (at, is_sampled));
        }
    }

    /// §12.1: parent-based, else a share.
    #[test]
    fn a_message_is_sampled_as_its_context_says_and_else_by_ratio() {
        let at = SpanRef { trace: 1, span: 1 };
        let says = |is_sampled| Context { at, is_sampled };
        let none = Sampling::new(true, 0.0);
        assert!(none.samples(Some(&says(true)), u128::MAX));
        assert!(!none.samples(None, 1));
        let all = Sampling::new(true, 1.0);
        assert!(!all.samples(Some(&says(false)), 1));
        assert!(all.samples(None, u128::MAX));
        assert!(all.takes_all() && !Sampling::new(true, 0.999).takes_all());
        // By ratio alone the context's flag says nothing.
        assert!(Sampling::new(false, 1.0).samples(Some(&says(false)), 1));
    }

    #[test]
    fn one_percent_is_about_one_percent_whatever_the_place() {
        let sampling = Sampling::new(true, 0.01);
        for (topic, reader) in [(1, 1), (99, 7)] {
            let traces = (0..8).flat_map(|partition| {
                (0..25_000).map(move |offset| trace_of(topic, reader, partition, offset))
            });
            let sampled = traces
                .filter(|trace| sampling.samples(None, *trace))
                .count();
            assert!((1_800..2_200).contains(&sampled), "{sampled} of 200,000");
        }
    }

    #[test]
    fn attempts_of_one_message_are_one_trace_and_those_of_others_are_not() {
        let one = trace_of(1, 2, 3, 4);
        assert_eq!(one, trace_of(1, 2, 3, 4));
        let others = [
            trace_of(9, 2, 3, 4),
            trace_of(1, 9, 3, 4),
            trace_of(1, 2, 9, 4),
            trace_of(1, 2, 3, 9),
        ];
        assert!(!others.contains(&one));
    }
}
