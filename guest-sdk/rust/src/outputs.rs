//! Everything a handler publishes because of one message.

use crate::Output;

/// The outputs of one message, in order. All become visible together, or none does.
///
/// ```
/// use wasmill_sdk::{Output, Outputs};
///
/// let mut outputs = Outputs::one(Output::to("flown"));
/// outputs.push(Output::to("late").payload("72 minutes"));
/// assert_eq!(outputs.iter().map(Output::name).collect::<Vec<_>>(), ["flown", "late"]);
/// assert!(Outputs::none().is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outputs {
    /// Most messages have one output; that takes no allocation.
    first: Option<Output>,
    more: Vec<Output>,
}

impl Outputs {
    /// Done, with nothing to say.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            first: None,
            more: Vec::new(),
        }
    }

    /// One output.
    #[must_use]
    pub const fn one(output: Output) -> Self {
        Self {
            first: Some(output),
            more: Vec::new(),
        }
    }

    /// Adds an output after the others.
    pub fn push(&mut self, output: Output) {
        if self.first.is_none() {
            self.first = Some(output);
        } else {
            self.more.push(output);
        }
    }

    /// The same with one more.
    #[must_use]
    pub fn and(mut self, output: Output) -> Self {
        self.push(output);
        self
    }

    /// How many there are. The host takes at most 1,000 of a message, 1 MiB each.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The outputs in order.
    pub fn iter(&self) -> impl Iterator<Item = &Output> {
        self.first.iter().chain(&self.more)
    }

    /// The outputs to one entry under `outputs:`, in order.
    pub fn named(&self, name: &str) -> impl Iterator<Item = &Output> {
        self.iter().filter(move |output| output.name() == name)
    }
}

impl From<()> for Outputs {
    fn from((): ()) -> Self {
        Self::none()
    }
}

impl From<Output> for Outputs {
    fn from(output: Output) -> Self {
        Self::one(output)
    }
}

impl From<Option<Output>> for Outputs {
    fn from(first: Option<Output>) -> Self {
        Self {
            first,
            more: Vec::new(),
        }
    }
}

impl From<Vec<Output>> for Outputs {
    fn from(outputs: Vec<Output>) -> Self {
        outputs.into_iter().collect()
    }
}

impl<const N: usize> From<[Output; N]> for Outputs {
    fn from(outputs: [Output; N]) -> Self {
        outputs.into_iter().collect()
    }
}

impl FromIterator<Output> for Outputs {
    fn from_iter<I: IntoIterator<Item = Output>>(outputs: I) -> Self {
        let mut outputs = outputs.into_iter();
        Self {
            first: outputs.next(),
            more: outputs.collect(),
        }
    }
}

impl Extend<Output> for Outputs {
    fn extend<I: IntoIterator<Item = Output>>(&mut self, outputs: I) {
        outputs.into_iter().for_each(|output| self.push(output));
    }
}

impl IntoIterator for Outputs {
    type Item = Output;
    type IntoIter = std::iter::Chain<std::option::IntoIter<Output>, std::vec::IntoIter<Output>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept_however_they_are_collected() {
        let names = ["a", "b", "c"];
        let pushed = names.iter().fold(Outputs::none(), |outputs, name| {
            outputs.and(Output::to(name))
        });
        let listed = Outputs::from(names.map(Output::to));
        let mut extended = Outputs::from(Output::to("a"));
        extended.extend(["b", "c"].map(Output::to));
        assert_eq!(pushed, listed);
        assert_eq!(pushed, extended);
        assert_eq!(pushed.len(), 3);
        assert_eq!(pushed.iter().map(Output::name).collect::<Vec<_>>(), names);
        assert_eq!(pushed.named("b").count(), 1);
        assert_eq!(pushed.into_iter().count(), 3);
    }

    #[test]
    fn nothing_at_all_is_no_output() {
        assert_eq!(Outputs::from(()), Outputs::none());
        assert_eq!(Outputs::from(None), Outputs::none());
        assert_eq!(Outputs::from(Vec::new()).len(), 0);
    }
}
