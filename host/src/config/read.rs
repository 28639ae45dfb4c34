//! Typed access to checked values. `None` only where a problem was reported before (or where a table of
//! [`super::fields`] and its reader disagree, which a test that loads every key would show).

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use super::check::{Checked, Value};
use super::problem::Place;
use super::yaml::Key;
use crate::expression::Expression;

impl Checked {
    /// The field `name` of a block.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match &self.value {
            Value::Block(fields) => fields
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// Where the field `name` is written.
    pub(super) fn place_of(&self, name: &str) -> Option<&Place> {
        self.get(name)?.place.as_ref()
    }

    pub(super) const fn is_absent(&self) -> bool {
        matches!(self.value, Value::Absent)
    }

    /// `Some(None)` when it was left out.
    pub(super) fn optional<'a, T>(
        &'a self,
        name: &str,
        read: impl Fn(&'a Self) -> Option<T>,
    ) -> Option<Option<T>> {
        let value = self.get(name)?;
        if value.is_absent() {
            return Some(None);
        }
        read(value).map(Some)
    }

    pub(super) fn bool(&self) -> Option<bool> {
        match self.value {
            Value::Bool(b) => Some(b),
            _ => None,
        }
    }

    pub(super) fn integer(&self) -> Option<u64> {
        match self.value {
            Value::Integer(n) => Some(n),
            _ => None,
        }
    }

    pub(super) fn u32(&self) -> Option<u32> {
        self.integer().and_then(|n| u32::try_from(n).ok())
    }

    pub(super) fn nonzero(&self) -> Option<NonZeroU32> {
        self.u32().and_then(NonZeroU32::new)
    }

    pub(super) fn number(&self) -> Option<f64> {
        match self.value {
            Value::Number(n) => Some(n),
            _ => None,
        }
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        match self.value {
            Value::Duration(d) => Some(d),
            _ => None,
        }
    }

    pub(super) fn size(&self) -> Option<u64> {
        match self.value {
            Value::Size(n) => Some(n),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn choice(&self) -> Option<&'static str> {
        match self.value {
            Value::Choice(name) => Some(name),
            _ => None,
        }
    }

    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self.value {
            Value::Address(address) => Some(address),
            _ => None,
        }
    }

    pub(super) fn timestamp(&self) -> Option<i64> {
        match self.value {
            Value::Timestamp(ms) => Some(ms),
            _ => None,
        }
    }

    pub(super) fn expression(&self) -> Option<Expression> {
        match &self.value {
            Value::Expression(expression) => Some((**expression).clone()),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Option<&[Self]> {
        match &self.value {
            Value::List(elements) => Some(elements),
            _ => None,
        }
    }

    pub(super) fn named(&self) -> Option<&[(Key, Self)]> {
        match &self.value {
            Value::Named(entries) => Some(entries),
            _ => None,
        }
    }

    /// All elements of a list, or `None` when one is invalid.
    pub(super) fn all<'a, T>(&'a self, read: impl Fn(&'a Self) -> Option<T>) -> Option<Vec<T>> {
        self.list()?.iter().map(read).collect()
    }
}
