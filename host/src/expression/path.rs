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
    pub(super) fields: Vec<Field>,
    pub(super) elements: Vec<(usize, Node)>,
    /// The path that ends here.
    pub(super) slot: Option<usize>,
    /// Every path that ends here or below, one bit each.
    pub(super) below: u32,
    /// A bit for each of `fields`, so that one look tells most other names apart.
    filter: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    name: Box<[u8]>,
    head: u64,
    node: Node,
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
            Step::Field(name) => self.field_to_be(name.as_bytes()).insert(rest, slot),
            Step::Element(index) => self.element_to_be(*index).insert(rest, slot),
        }
    }

    /// The field whose name is `bytes[start..end]`.
    #[inline]
    pub(super) fn field(&self, bytes: &[u8], start: usize, end: usize) -> Option<&Self> {
        let len = end - start;
        let head = head(bytes, start, len);
        if self.filter & bit(head, len) == 0 {
            return None;
        }
        let name = bytes.get(start..end)?;
        let is =
            |f: &&Field| f.head == head && f.name.len() == len && (len <= 8 || *f.name == *name);
        self.fields.iter().find(is).map(|field| &field.node)
    }

    fn field_to_be(&mut self, name: &[u8]) -> &mut Self {
        let head = head(name, 0, name.len());
        self.filter |= bit(head, name.len());
        let at = self.fields.iter().position(|f| *f.name == *name);
        let at = at.unwrap_or_else(|| {
            self.fields.push(Field {
                name: name.into(),
                head,
                node: Self::default(),
            });
            self.fields.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
        &mut self.fields[at].node
    }

    fn element_to_be(&mut self, index: usize) -> &mut Self {
        let at = self.elements.iter().position(|(i, _)| *i == index);
        let at = at.unwrap_or_else(|| {
            self.elements.push((index, Self::default()));
            self.elements.len() - 1
        });
        #[expect(clippy::indexing_slicing, reason = "found or pushed just above")]
        &mut self.elements[at].1
    }
}

/// The first eight bytes of a name that begins at `start`, zeros behind a shorter one.
#[inline(always)]
fn head(bytes: &[u8], start: usize, len: usize) -> u64 {
    let rest = bytes.get(start..).unwrap_or_default();
    let Some((chunk, _)) = rest.split_first_chunk::<8>() else {
        return rest
            .iter()
            .take(len)
            .rev()
            .fold(0, |head, byte| head << 8 | u64::from(*byte));
    };
    let unused = 64 - 8 * len.min(8) as u32;
    u64::from_le_bytes(*chunk) & u64::MAX.checked_shr(unused).unwrap_or(0)
}

#[inline(always)]
const fn bit(head: u64, len: usize) -> u64 {
    1 << ((head ^ len as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58)
}
