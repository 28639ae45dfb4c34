//! The headers of a message or an output, read in place.

/// Headers in order; names may repeat.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    count: u16,
    block: &'a [u8],
}

/// A value length that means Kafka's null value; read as empty.
const NULL: u32 = u32::MAX;

impl<'a> Headers<'a> {
    /// Trusts that `block` holds `count` headers.
    pub(crate) const fn new(count: u16, block: &'a [u8]) -> Self {
        Self { count, block }
    }

    /// None unless `block` holds exactly `count` headers. Their text is not looked at.
    pub(crate) fn check(count: u16, block: &'a [u8]) -> Option<Self> {
        let mut rest = block;
        for _ in 0..count {
            (_, _, rest) = split(rest)?;
        }
        rest.is_empty().then_some(Self { count, block })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Name and value of each, in order.
    #[must_use]
    pub fn iter(&self) -> Iter<'a> {
        Iter { rest: self.block }
    }

    /// The last value under `name`, which is how Kafka's clients read a repeated header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.iter()
            .filter(|(found, _)| *found == name)
            .last()
            .map(|(_, value)| value)
    }
}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(
                self.iter()
                    .map(|(name, value)| (name, String::from_utf8_lossy(value))),
            )
            .finish()
    }
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The headers one after another.
#[derive(Debug, Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value, rest) = split(self.rest)?;
        self.rest = rest;
        // The host checks names when it accepts a message.
        Some((std::str::from_utf8(name).unwrap_or_default(), value))
    }
}

/// Name and value of the first header of a block, and what follows.
fn split(block: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name_len, rest) = block.split_first_chunk()?;
    let (value_len, rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*name_len)))?;
    let value_len = match u32::from_le_bytes(*value_len) {
        NULL => 0,
        len => len as usize,
    };
    let (value, rest) = rest.split_at_checked(value_len)?;
    Some((name, value, rest))
}

/// Appends a header to a block; false, and nothing appended, when a length does not fit its field.
#[must_use]
pub(crate) fn push(block: &mut Vec<u8>, name: &str, value: &[u8]) -> bool {
    let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len()))
    else {
        return false;
    };
    if value_len == NULL {
        return false;
    }
    block.extend_from_slice(&name_len.to_le_bytes());
    block.extend_from_slice(&value_len.to_le_bytes());
    block.extend_from_slice(name.as_bytes());
    block.extend_from_slice(value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_repeated_headers_counts_and_null_reads_as_empty() {
        let mut block = Vec::new();
        assert!(push(&mut block, "kind", b"order"));
        assert!(push(&mut block, "kind", b"refund"));
        block.extend_from_slice(&4u16.to_le_bytes());
        block.extend_from_slice(&NULL.to_le_bytes());
        block.extend_from_slice(b"null");
        let headers = Headers::new(3, &block);
        assert_eq!(headers.get("kind"), Some(&b"refund"[..]));
        assert_eq!(headers.get("null"), Some(&b""[..]));
        assert_eq!(headers.get("other"), None);
        assert_eq!(headers.iter().count(), headers.len());
    }

    #[test]
    fn a_name_over_65535_bytes_is_refused() {
        let mut block = Vec::new();
        assert!(push(&mut block, &"n".repeat(65_535), b""));
        let before = block.len();
        assert!(!push(&mut block, &"n".repeat(65_536), b""));
        assert_eq!(block.len(), before);
    }
}
