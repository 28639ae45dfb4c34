//! What shapes a configuration is made of. The tables of [`super::fields`] are written in these; the
//! check, the JSON Schema and the reference are all read off the same tables, so they cannot differ.

/// A map with known keys.
#[derive(Debug)]
pub(super) struct Block {
    /// Of the definition in the schema.
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    pub(super) fields: &'static [Field],
    /// Keys that the design has and this version has not: refused by name.
    pub(super) later: &'static [Later],
}

#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) need: Need,
    pub(super) doc: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Required,
    /// As it would be written.
    Default(&'static str),
    /// What it means to leave it out.
    Optional(&'static str),
}

#[derive(Debug)]
pub(super) struct Later {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
}

#[derive(Debug)]
pub(super) enum Kind {
    Bool,
    Integer {
        min: u64,
        max: u64,
    },
    Number {
        min: f64,
        max: f64,
    },
    /// Milliseconds.
    Duration {
        min: u64,
        max: u64,
    },
    /// Bytes.
    Size {
        min: u64,
        max: u64,
    },
    Text(&'static Rule),
    Choice(&'static [Choice]),
    Expression,
    /// Relative to the file it is written in.
    Path,
    /// IP address and port.
    Address,
    /// RFC 3339 or Unix milliseconds.
    Timestamp,
    List {
        of: &'static Kind,
        min: usize,
        max: usize,
    },
    Block(&'static Block),
    /// The block without its `name`, nothing in it required.
    Partial(&'static Block),
    /// A map from names the user chooses.
    Named {
        names: &'static Rule,
        of: &'static Kind,
        max: usize,
    },
    /// A map from any names to text.
    Texts {
        max: usize,
    },
    /// A single value or a map, told apart by which it is.
    Either {
        single: &'static Kind,
        map: &'static Kind,
    },
}

/// What a text must look like.
#[derive(Debug)]
pub(super) struct Rule {
    /// With its article: `a topic name`.
    pub(super) what: &'static str,
    /// For the schema; says the same as `fits`.
    pub(super) pattern: &'static str,
    /// Completes "expected".
    pub(super) expected: &'static str,
    pub(super) fits: fn(&str) -> bool,
}

#[derive(Debug)]
pub(super) struct Choice {
    pub(super) name: &'static str,
    pub(super) doc: &'static str,
    /// `false`: named by the design, not in this version.
    pub(super) now: bool,
}
