//! One walk over a document that checks all of it and picks up the values at the paths of a trie, with
//! no allocation. It must find exactly what [`super::tree`] would find; a test compares them.

use super::json::{Cursor, DEPTH_MAX, Invalid, NumberToken, StringToken, unescape};
use super::path::{Node, PATHS_MAX};

/// A value at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Picked {
    #[default]
    Absent,
    String(StringToken),
    Number(NumberToken),
    Bool(bool),
    /// Null, an array or an object: left to the interpreter.
    Other,
}

pub(super) type Slots = [Picked; PATHS_MAX];

/// Walks `bytes`; an error is where they stop being JSON.
pub(super) fn scan(bytes: &[u8], trie: &Node) -> Result<Slots, Invalid> {
    let mut scan = Scan {
        cursor: Cursor::new(bytes),
        slots: [Picked::Absent; PATHS_MAX],
    };
    scan.wanted(trie, 0)?;
    scan.cursor.end()?;
    Ok(scan.slots)
}

/// Walks `bytes` and picks up nothing.
pub(super) fn check(bytes: &[u8]) -> Result<(), Invalid> {
    let mut scan = Scan {
        cursor: Cursor::new(bytes),
        slots: [Picked::Absent; PATHS_MAX],
    };
    scan.skip(0)?;
    scan.cursor.end()
}

struct Scan<'a> {
    cursor: Cursor<'a>,
    slots: Slots,
}

impl Scan<'_> {
    /// Reads a value that a path goes through or ends at.
    fn wanted(&mut self, node: &Node, depth: u32) -> Result<(), Invalid> {
        let picked = match self.cursor.next_word() {
            Some(b'"') => Picked::String(self.cursor.string()?),
            Some(b'-' | b'0'..=b'9') => Picked::Number(self.cursor.number()?),
            Some(b't') => self.cursor.literal("true").map(|()| Picked::Bool(true))?,
            Some(b'f') => self.cursor.literal("false").map(|()| Picked::Bool(false))?,
            Some(b'{') if !node.fields.is_empty() => {
                self.wanted_object(node, depth)?;
                Picked::Other
            }
            Some(b'[') if !node.elements.is_empty() => {
                self.wanted_array(node, depth)?;
                Picked::Other
            }
            _ => {
                self.skip(depth)?;
                Picked::Other
            }
        };
        if let Some(slot) = node.slot.and_then(|slot| self.slots.get_mut(slot)) {
            *slot = picked;
        }
        Ok(())
    }

    fn wanted_object(&mut self, node: &Node, depth: u32) -> Result<(), Invalid> {
        self.open(depth)?;
        if self.cursor.next_word() == Some(b'}') {
            self.cursor.at += 1;
            return Ok(());
        }
        loop {
            let name = self.member_name()?;
            match self.field(node, name) {
                Some(child) => {
                    // The last of two members with one name counts, with nothing left of the first.
                    self.forget(child.below);
                    self.wanted(child, depth + 1)?;
                }
                None => self.skip(depth + 1)?,
            }
            match self.cursor.next_word() {
                Some(b',') => self.cursor.at += 1,
                Some(b'}') => break,
                _ => return Err(self.cursor.invalid(", or }")),
            }
        }
        self.cursor.at += 1;
        Ok(())
    }

    fn wanted_array(&mut self, node: &Node, depth: u32) -> Result<(), Invalid> {
        self.open(depth)?;
        if self.cursor.next_word() == Some(b']') {
            self.cursor.at += 1;
            return Ok(());
        }
        for index in 0_usize.. {
            match node.elements.iter().find(|(i, _)| *i == index) {
                Some((_, child)) => self.wanted(child, depth + 1)?,
                None => self.skip(depth + 1)?,
            }
            match self.cursor.next_word() {
                Some(b',') => self.cursor.at += 1,
                Some(b']') => break,
                _ => return Err(self.cursor.invalid(", or ]")),
            }
        }
        self.cursor.at += 1;
        Ok(())
    }

    /// Reads a value of no interest.
    fn skip(&mut self, depth: u32) -> Result<(), Invalid> {
        match self.cursor.next_word() {
            Some(b'"') => self.cursor.string().map(|_| ()),
            Some(b'-' | b'0'..=b'9') => self.cursor.number().map(|_| ()),
            Some(b'{') => self.skip_object(depth),
            Some(b'[') => self.skip_array(depth),
            Some(b't') => self.cursor.literal("true"),
            Some(b'f') => self.cursor.literal("false"),
            Some(b'n') => self.cursor.literal("null"),
            _ => Err(self.cursor.invalid("a value")),
        }
    }

    fn skip_object(&mut self, depth: u32) -> Result<(), Invalid> {
        self.open(depth)?;
        if self.cursor.next_word() == Some(b'}') {
            self.cursor.at += 1;
            return Ok(());
        }
        loop {
            self.member_name()?;
            self.skip(depth + 1)?;
            match self.cursor.next_word() {
                Some(b',') => self.cursor.at += 1,
                Some(b'}') => break,
                _ => return Err(self.cursor.invalid(", or }")),
            }
        }
        self.cursor.at += 1;
        Ok(())
    }

    fn skip_array(&mut self, depth: u32) -> Result<(), Invalid> {
        self.open(depth)?;
        if self.cursor.next_word() == Some(b']') {
            self.cursor.at += 1;
            return Ok(());
        }
        loop {
            self.skip(depth + 1)?;
            match self.cursor.next_word() {
                Some(b',') => self.cursor.at += 1,
                Some(b']') => break,
                _ => return Err(self.cursor.invalid(", or ]")),
            }
        }
        self.cursor.at += 1;
        Ok(())
    }

    fn open(&mut self, depth: u32) -> Result<(), Invalid> {
        // The values inside are one level deeper.
        if depth >= DEPTH_MAX {
            return Err(self.cursor.invalid("less nesting"));
        }
        self.cursor.at += 1;
        Ok(())
    }

    #[inline]
    fn member_name(&mut self) -> Result<StringToken, Invalid> {
        if self.cursor.next_word() != Some(b'"') {
            return Err(self.cursor.invalid("a member name in quotes"));
        }
        let name = self.cursor.string()?;
        if self.cursor.next_word() != Some(b':') {
            return Err(self.cursor.invalid(":"));
        }
        self.cursor.at += 1;
        Ok(name)
    }

    #[inline]
    fn field<'n>(&self, node: &'n Node, name: StringToken) -> Option<&'n Node> {
        let written = self.cursor.bytes.get(name.start..name.end)?;
        if name.escaped {
            return escaped_field(node, written);
        }
        let found = node.fields.iter().find(|(field, _)| **field == *written);
        found.map(|(_, child)| child)
    }

    #[inline]
    fn forget(&mut self, mut below: u32) {
        while below != 0 {
            if let Some(slot) = self.slots.get_mut(below.trailing_zeros() as usize) {
                *slot = Picked::Absent;
            }
            below &= below - 1;
        }
    }
}

#[cold]
fn escaped_field<'n>(node: &'n Node, written: &[u8]) -> Option<&'n Node> {
    let mut name = Vec::with_capacity(written.len());
    unescape(written, &mut name);
    let found = node.fields.iter().find(|(field, _)| **field == *name);
    found.map(|(_, child)| child)
}
