//! What is laid over what: `defaults` under pipelines, overlay files over the configuration. Maps merge,
//! pipelines merge by name, everything else is replaced.

use super::problem::{Code, Problems};
use super::shape::Kind;
use super::yaml::{Content, Key, Node};
use super::{HOST_KIND, PIPELINE_KIND};
use crate::expression::nearest;

/// `over` with what it does not say taken from `under`: maps of known keys and of names are merged,
/// everything else is replaced.
pub(super) fn merge(under: &Node, over: &Node, kind: &'static Kind) -> Node {
    let (Content::Map(below), Content::Map(above)) = (&under.content, &over.content) else {
        return over.clone();
    };
    let kind_of = |name: &str| -> Option<&'static Kind> {
        match kind {
            Kind::Block(block) | Kind::Partial(block) => block
                .fields
                .iter()
                .find(|field| field.name == name)
                .map(|field| &field.kind),
            Kind::Named { of, .. } => Some(*of),
            _ => None,
        }
    };
    if !matches!(
        kind,
        Kind::Block(_) | Kind::Partial(_) | Kind::Named { .. } | Kind::Texts { .. }
    ) {
        return over.clone();
    }
    let mut entries = above.clone();
    for (key, value) in below {
        match entries.iter_mut().find(|(k, _)| k.text == key.text) {
            Some((_, mine)) => {
                if let Some(kind) = kind_of(&key.text) {
                    *mine = merge(value, mine, kind);
                }
            }
            None => entries.push((key.clone(), value.clone())),
        }
    }
    Node {
        place: over.place.clone(),
        content: Content::Map(entries),
    }
}

/// Lays the file `over` over `trees`. What it has and they have not becomes a tree of its own, so that it
/// is checked like a file.
pub(super) fn lay(over: Node, trees: &mut Vec<Node>, problems: &mut Problems) {
    let place = over.place.clone();
    let Content::Map(entries) = over.content else {
        // Complained about as a file that is no map.
        trees.push(over);
        return;
    };
    let mut rest: Vec<(Key, Node)> = Vec::new();
    for (key, value) in entries {
        match (key.text.as_str(), &value.content) {
            ("pipelines", Content::List(pipelines)) => {
                for pipeline in pipelines {
                    lay_pipeline(pipeline, trees, problems);
                }
            }
            ("host", _) => lay_block(key, value, &HOST_KIND, trees, &mut rest),
            ("defaults", _) => lay_block(key, value, &PIPELINE_KIND, trees, &mut rest),
            _ => rest.push((key, value)),
        }
    }
    // An overlay may leave out the version: it is that of what it lies over.
    let version = |tree: &Node| match &tree.content {
        Content::Map(entries) => entries.iter().find(|(k, _)| k.text == "version").cloned(),
        _ => None,
    };
    if !rest.iter().any(|(key, _)| key.text == "version")
        && let Some(version) = trees.iter().find_map(version)
    {
        rest.insert(0, version);
    }
    trees.push(Node {
        place,
        content: Content::Map(rest),
    });
}

fn lay_block(
    key: Key,
    value: Node,
    kind: &'static Kind,
    trees: &mut [Node],
    rest: &mut Vec<(Key, Node)>,
) {
    for tree in trees {
        if let Some(below) = entry(tree, &key.text) {
            *below = merge(below, &value, kind);
            return;
        }
    }
    rest.push((key, value));
}

fn lay_pipeline(over: &Node, trees: &mut [Node], problems: &mut Problems) {
    let Some((name, place)) = name_of(over) else {
        problems.error(
            Code::MissingKey,
            &over.place,
            "a pipeline of an overlay has no `name`",
            "add the name of the pipeline that it changes",
        );
        return;
    };
    let mut known = Vec::new();
    for tree in trees {
        let Some(Node {
            content: Content::List(pipelines),
            ..
        }) = entry(tree, "pipelines")
        else {
            continue;
        };
        for below in pipelines {
            match name_of(below) {
                Some((other, _)) if other == name => {
                    *below = merge(below, over, &PIPELINE_KIND);
                    return;
                }
                Some((other, _)) => known.push(other.to_owned()),
                None => {}
            }
        }
    }
    let help = match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "an overlay changes pipelines; add new ones to a file of the configuration".into(),
    };
    let message = format!("there is no pipeline `{name}` to lay this over");
    problems.error(Code::Conflict, &place, message, help);
}

fn name_of(pipeline: &Node) -> Option<(&str, super::problem::Place)> {
    let name = pipeline.get("name")?;
    match &name.content {
        Content::Scalar { text, .. } => Some((text, name.place.clone())),
        _ => None,
    }
}

fn entry<'n>(tree: &'n mut Node, name: &str) -> Option<&'n mut Node> {
    match &mut tree.content {
        Content::Map(entries) => entries
            .iter_mut()
            .find(|(key, _)| key.text == name)
            .map(|(_, value)| value),
        _ => None,
    }
}
