//! YAML text to a tree in which every node knows its place. Refuses what a configuration does without
//! (tags, several documents, `<<`) and bounds depth and size, aliases counted as often as they stand.
//! Not here: what the nodes mean.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};

use super::literal::shortened;
use super::problem::{Code, Place, Problems};

/// Bytes of one file.
pub(super) const FILE_LEN_MAX: u64 = 1 << 20;
/// Maps and lists inside each other.
pub(super) const DEPTH_MAX: usize = 32;
/// Scalars, maps and lists of one file, those behind aliases counted each time.
pub(super) const NODES_MAX: usize = 20_000;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    Scalar { text: String, plain: bool },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub(super) struct Key {
    pub(super) text: String,
    pub(super) place: Place,
}

impl Node {
    /// Nothing written, `null` or `~`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value under `key` of a map.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.content {
            Content::Map(entries) => entries
                .iter()
                .find(|(k, _)| k.text == key)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// What it is, for a message.
    pub(super) fn kind(&self) -> &'static str {
        match &self.content {
            _ if self.is_null() => "nothing",
            Content::Scalar { .. } => "a single value",
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
        }
    }
}

/// Reads source number `file`; `None` when it holds no tree, with the reason among the problems.
pub(super) fn parse(file: usize, problems: &mut Problems) -> Option<Node> {
    let text = problems.sources.get(file)?.text.clone();
    let options = granit_parser::options! {
        emit_comments: false,
        block_nesting_limit: DEPTH_MAX,
        flow_nesting_limit: DEPTH_MAX,
        disallow_directives: true,
    };
    let mut composer = Composer {
        file,
        text: &text,
        problems,
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
        documents: 0,
    };
    for next in Parser::new_from_str_with_options(&text, options) {
        let taken = match next {
            Ok((event, span)) => composer.event(event, &span),
            Err(error) => {
                composer.syntax(&error);
                None
            }
        };
        taken?;
    }
    if composer.root.is_none() {
        let place = Place { file, span: 0..0 };
        problems.error(
            Code::Syntax,
            &place,
            "the file is empty",
            "begin it with `version: 1`",
        );
        return None;
    }
    composer.root
}

struct Composer<'a> {
    file: usize,
    text: &'a str,
    problems: &'a mut Problems,
    /// Collections that are not complete, outermost first.
    open: Vec<Open>,
    /// Node and number of nodes in it.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

struct Open {
    node: Node,
    /// Of a map: the key whose value comes next.
    key: Option<Key>,
    anchor: usize,
    /// Nodes before this one.
    before: usize,
}

impl Composer<'_> {
    /// `None` when there is no point in going on.
    fn event(&mut self, event: Event<'_>, span: &Span) -> Option<()> {
        let place = self.place(span);
        if event.tag().is_some() {
            let place = span.tag_span().map_or(place, |span| self.place(&span));
            let message = "tags are not used here";
            self.problems
                .error(Code::Syntax, &place, message, "remove the tag");
            return None;
        }
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let help =
                        "put each configuration into a file of its own; `wasmill` takes several";
                    self.problems.error(
                        Code::Syntax,
                        &place,
                        "a second document begins here",
                        help,
                    );
                    return None;
                }
                Some(())
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                self.count(1, &place)?;
                let content = Content::Scalar {
                    text: text.into_owned(),
                    plain,
                };
                let before = self.nodes - 1;
                self.complete(Node { place, content }, anchor, before)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open(place, Content::List(Vec::new()), anchor)
            }
            Event::MappingStart(_, anchor, _) => self.open(place, Content::Map(Vec::new()), anchor),
            Event::SequenceEnd | Event::MappingEnd => {
                let Open {
                    mut node,
                    anchor,
                    before,
                    ..
                } = self.open.pop()?;
                let end = trimmed_end(self.text, node.place.span.start, place.span.end);
                node.place.span.end = end.max(node.place.span.start);
                self.complete(node, anchor, before)
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some((node, nodes)) => {
                    self.count(nodes, &place)?;
                    let before = self.nodes - nodes;
                    self.complete(node, 0, before)
                }
                None => {
                    let help = "an anchor can be used only after the value it names is complete";
                    self.problems.error(
                        Code::Syntax,
                        &place,
                        "the alias stands inside its own anchor",
                        help,
                    );
                    None
                }
            },
            _ => Some(()),
        }
    }

    fn open(&mut self, place: Place, content: Content, anchor: usize) -> Option<()> {
        self.count(1, &place)?;
        if self.open.len() >= DEPTH_MAX {
            let message = format!("more than {DEPTH_MAX} maps and lists inside each other");
            self.problems
                .error(Code::TooBig, &place, message, "flatten it");
            return None;
        }
        if let Some(Open {
            node: Node {
                content: Content::Map(_),
                ..
            },
            key: None,
            ..
        }) = self.open.last()
        {
            let message = "a map or list cannot be a key";
            self.problems.error(
                Code::Syntax,
                &place,
                message,
                "quote it, if it is meant to be text",
            );
            return None;
        }
        self.open.push(Open {
            node: Node { place, content },
            key: None,
            anchor,
            before: self.nodes - 1,
        });
        Some(())
    }

    fn count(&mut self, nodes: usize, place: &Place) -> Option<()> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= NODES_MAX {
            return Some(());
        }
        let message = format!(
            "more than {NODES_MAX} values in one file, aliases counted as often as they stand"
        );
        self.problems
            .error(Code::TooBig, place, message, "split the file");
        None
    }

    /// Puts a complete node where it belongs.
    fn complete(&mut self, node: Node, anchor: usize, before: usize) -> Option<()> {
        if anchor != 0 {
            self.anchors
                .insert(anchor, (node.clone(), self.nodes - before));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        match (&mut parent.node.content, parent.key.take()) {
            (Content::List(elements), _) => elements.push(node),
            (Content::Map(entries), Some(key)) => entries.push((key, node)),
            (Content::Map(entries), None) => {
                let Content::Scalar { text, .. } = node.content else {
                    let message = "a map or list cannot be a key";
                    self.problems
                        .error(Code::Syntax, &node.place, message, "write a name");
                    return None;
                };
                let earlier = entries.iter().find(|(key, _)| key.text == text);
                if let Some((first, _)) = earlier {
                    let help = format!(
                        "it is already at {}; keep one",
                        self.problems.line_of(&first.place)
                    );
                    self.problems.error(
                        Code::DuplicateKey,
                        &node.place,
                        format!("the key `{}` is there twice", shortened(&text)),
                        help,
                    );
                }
                parent.key = Some(Key {
                    text,
                    place: node.place,
                });
            }
            (Content::Scalar { .. }, _) => {}
        }
        Some(())
    }

    fn syntax(&mut self, error: &ScanError) {
        let at = byte(self.text, error.marker());
        let place = Place {
            file: self.file,
            span: at..at,
        };
        let line = line_around(self.text, at);
        let indent = line
            .get(..line.len() - line.trim_start().len())
            .unwrap_or_default();
        let help = if indent.contains('\t') {
            "indent with spaces; YAML takes no tabs there"
        } else if self.problems.has_errors() {
            "the rest of the file was not read"
        } else {
            "the file could not be read beyond this place"
        };
        let code = match error.kind() {
            granit_parser::ErrorKind::RecursionLimitExceeded => Code::TooBig,
            _ => Code::Syntax,
        };
        self.problems
            .error(code, &place, format!("not YAML: {}", error.info()), help);
    }

    fn place(&self, span: &Span) -> Place {
        let start = byte(self.text, &span.start);
        let end = byte(self.text, &span.end).max(start);
        Place {
            file: self.file,
            span: start..end,
        }
    }
}

fn byte(text: &str, marker: &Marker) -> usize {
    let at = marker.byte_offset().unwrap_or_else(|| {
        text.char_indices()
            .nth(marker.index())
            .map_or(text.len(), |(at, _)| at)
    });
    at.min(text.len())
}

/// The end without the white space that a block collection trails.
fn trimmed_end(text: &str, start: usize, end: usize) -> usize {
    text.get(start..end)
        .map_or(end, |inside| start + inside.trim_end().len())
}

fn line_around(text: &str, at: usize) -> &str {
    let start = text
        .get(..at)
        .and_then(|before| before.rfind('\n'))
        .map_or(0, |n| n + 1);
    text.get(start..)
        .and_then(|rest| rest.lines().next())
        .unwrap_or_default()
}
