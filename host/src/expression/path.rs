//! Paths into a document (`message.json.order.items[0].id`) and the trie in which the paths of one
//! expression lie together, so that one walk of the document meets them all.

/// More paths than this in one expression are left to the interpreter.
pub(super) const PATHS_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Field(String),
    Element(usize),
}

/// A place in the document that some path goes through or ends at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) fields: Vec<(Box<[u8]>, Node)>,
    pub(super) elements: Vec<(usize, Node)>,
    /// The path that ends here.
    pub(super) slot: Option<usize>,
    /// Every path that ends here or below, one bit each.
    pub(super) below: u32,
}

impl Node {
    /// Adds `path` as number `slot`; equal paths must have been given one number before.
    pub(super) fn insert(&mut self, path: &[Step], slot: usize) {
        self.below |= 1 << slot;
        let Some((step, rest)) = path.split_first() else {
            self.slot = Some(slot);
            return;
        };
        match step {
            Step::Field(name) => child(&mut self.fields, name.as_bytes().into()).insert(rest, slot),
            Step::Element(index) => child(&mut self.elements, *index).insert(rest, slot),
        }
    }
}

fn child<K: PartialEq>(children: &mut Vec<(K, Node)>, key: K) -> &mut Node {
    let at = children.iter().position(|(k, _)| *k == key);
    let at = at.unwrap_or_else(|| {
        children.push((key, Node::default()));
        children.len() - 1
    });
    #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
    &mut children[at].1
}
