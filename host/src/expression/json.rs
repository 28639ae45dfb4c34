//! The words of JSON (RFC 8259): strings, numbers, literals, white space, each checked while it is
//! walked, with the place and what was expected where they stop being JSON.
//! Stricter than the grammar in one place: a lone surrogate escape is invalid, as it is no text.

/// Arrays and objects inside each other; more is refused, as serde_json refuses it.
pub(super) const DEPTH_MAX: u32 = 127;

/// Where the bytes stop being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not JSON: expected {expected} at byte {at}")]
pub(super) struct Invalid {
    pub(super) at: usize,
    pub(super) expected: &'static str,
}

/// The inside of a string, without its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StringToken {
    pub(super) start: usize,
    pub(super) end: usize,
    /// There is a backslash in it.
    pub(super) escaped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumberToken {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Written without point and exponent.
    pub(super) integer: bool,
}

/// A place in a document.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) const fn invalid(&self, expected: &'static str) -> Invalid {
        Invalid {
            at: self.at,
            expected,
        }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is not white space, which stays unread.
    pub(super) fn next_word(&mut self) -> Option<u8> {
        let mut byte = self.peek()?;
        while matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
            self.at += 1;
            byte = self.peek()?;
        }
        Some(byte)
    }

    /// Reads `word`, which begins at the cursor.
    pub(super) fn literal(&mut self, word: &'static str) -> Result<(), Invalid> {
        let end = self.at + word.len();
        if self.bytes.get(self.at..end) == Some(word.as_bytes()) {
            self.at = end;
            Ok(())
        } else {
            Err(self.invalid(word))
        }
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), Invalid> {
        match self.next_word() {
            None => Ok(()),
            Some(_) => Err(self.invalid("the end of the document")),
        }
    }

    /// Reads a string; the cursor stands on its opening quote.
    pub(super) fn string(&mut self) -> Result<StringToken, Invalid> {
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x20..) => self.at += 1,
                Some(_) => return Err(self.invalid("an escape instead of a control character")),
                None => return Err(self.invalid("the closing quote of the string")),
            }
        }
        let end = self.at;
        self.check_utf8(start, end)?;
        self.at += 1;
        Ok(StringToken {
            start,
            end,
            escaped,
        })
    }

    fn escape(&mut self) -> Result<(), Invalid> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                let at = self.at;
                let first = self.hex4()?;
                let paired = match first {
                    0xD800..=0xDBFF => {
                        self.bytes.get(self.at..self.at + 2) == Some(b"\\u") && {
                            self.at += 1;
                            matches!(self.hex4()?, 0xDC00..=0xDFFF)
                        }
                    }
                    0xDC00..=0xDFFF => false,
                    _ => true,
                };
                if paired {
                    Ok(())
                } else {
                    self.at = at;
                    Err(self.invalid("a pair of surrogates"))
                }
            }
            _ => Err(self.invalid("one of \" \\ / b f n r t u after a backslash")),
        }
    }

    /// Reads `u` and four hexadecimal digits.
    fn hex4(&mut self) -> Result<u32, Invalid> {
        self.at += 1;
        let digits = self.bytes.get(self.at..self.at + 4);
        let value = digits
            .and_then(hex)
            .ok_or_else(|| self.invalid("four hexadecimal digits"))?;
        self.at += 4;
        Ok(value)
    }

    fn check_utf8(&self, start: usize, end: usize) -> Result<(), Invalid> {
        let inside = self.bytes.get(start..end).unwrap_or_default();
        std::str::from_utf8(inside)
            .map(|_| ())
            .map_err(|error| Invalid {
                at: start + error.valid_up_to(),
                expected: "UTF-8",
            })
    }

    /// Reads a number; the cursor stands on its first byte.
    pub(super) fn number(&mut self) -> Result<NumberToken, Invalid> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.invalid("a digit")),
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integer = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(NumberToken {
            start,
            end: self.at,
            integer,
        })
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn some_digits(&mut self) -> Result<(), Invalid> {
        let before = self.at;
        self.digits();
        if self.at == before {
            Err(self.invalid("a digit"))
        } else {
            Ok(())
        }
    }
}

pub(super) fn hex(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, byte| {
        Some(value * 16 + char::from(*byte).to_digit(16)?)
    })
}

/// Appends what the inside of a checked string stands for.
pub(super) fn unescape(inside: &[u8], out: &mut Vec<u8>) {
    let mut rest = inside;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let (Some(kind), after) = (tail.get(1), tail.get(2..).unwrap_or_default()) else {
            return;
        };
        rest = after;
        match kind {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => rest = unescape_unicode(after, out),
            other => out.push(*other),
        }
    }
    out.extend_from_slice(rest);
}

/// Appends the character whose digits begin `after`; returns what follows it.
fn unescape_unicode<'a>(after: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let unit = |from: usize| after.get(from..from + 4).and_then(hex).unwrap_or_default();
    let first = unit(0);
    let (code, len) = if (0xD800..0xDC00).contains(&first) {
        (
            0x1_0000 + ((first - 0xD800) << 10) + unit(6).saturating_sub(0xDC00),
            10,
        )
    } else {
        (first, 4)
    };
    let char = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
    out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
    after.get(len..).unwrap_or_default()
}
