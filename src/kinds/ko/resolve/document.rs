//! Which documents, and which objects of a List, a selector means; the rest is taken out of the text. Pure.

use std::ops::Range;

use granit_parser::{Event, Span, StructureStyle};

use super::{Kept, ResolveError, Selector, bytes};

/// What the parser says, as a tree of what is needed here.
enum Node {
    Text(String),
    List { flow: bool, items: Vec<Item>, end: usize },
    Map(Vec<(Item, Item)>),
    Other,
}

struct Item {
    node: Node,
    /// Where its content begins.
    start: usize,
    line: usize,
}

impl Item {
    /// The value of a mapping's key; the first one of that name.
    fn get(&self, key: &str) -> Option<&Self> {
        let Node::Map(pairs) = &self.node else { return None };
        pairs.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    fn text(&self) -> Option<&str> {
        if let Node::Text(text) = &self.node { Some(text) } else { None }
    }
}

/// A document's place and content.
struct Document {
    range: Range<usize>,
    bare: bool,
    content: Option<Item>,
}

/// What is left of the text.
pub(super) fn kept(
    file: &str,
    text: &str,
    events: &[(Event<'_>, Span)],
    selector: &Selector,
) -> Result<Vec<Kept>, ResolveError> {
    let mut kept = Vec::new();
    for document in documents(text, events) {
        let Some(content) = &document.content else { continue };
        if matches!(content.text(), Some("" | "~" | "null" | "Null" | "NULL")) {
            continue;
        }
        if kind(file, content)? == "List" {
            kept.extend(narrowed(file, text, &document, content, selector)?);
        } else if matches(content, selector) {
            kept.push(Kept { range: document.range, bare: document.bare });
        }
    }
    Ok(kept)
}

fn kind<'i>(file: &str, item: &'i Item) -> Result<&'i str, ResolveError> {
    let says = |key| item.get(key).and_then(Item::text);
    let no_object = || ResolveError::NoObject { file: file.to_owned(), line: item.line };
    says("apiVersion").ok_or_else(no_object)?;
    says("kind").ok_or_else(no_object)
}

fn matches(item: &Item, selector: &Selector) -> bool {
    let labels = item.get("metadata").and_then(|metadata| metadata.get("labels"));
    selector.matches(|key| labels?.get(key)?.text())
}

/// A List without the objects that are not meant; nothing where none is.
fn narrowed(
    file: &str,
    text: &str,
    document: &Document,
    list: &Item,
    selector: &Selector,
) -> Result<Vec<Kept>, ResolveError> {
    let refuse = |line| ResolveError::List { file: file.to_owned(), line };
    let Some(Item { node: Node::List { flow, items, end }, .. }) = list.get("items") else {
        return Err(ResolveError::NoObject { file: file.to_owned(), line: list.line });
    };
    let mut chosen = Vec::new();
    for item in items {
        kind(file, item)?;
        chosen.push(matches(item, selector));
    }
    if !chosen.contains(&true) {
        return Ok(Vec::new());
    }
    let whole = Kept { range: document.range.clone(), bare: document.bare };
    if !chosen.contains(&false) {
        return Ok(vec![whole]);
    }
    if *flow {
        return Err(refuse(list.line));
    }
    let mut starts = Vec::new();
    for item in items {
        let start = line_start(text, item.start);
        let dashed = text.get(start..item.start).is_some_and(|lead| lead.trim() == "-");
        starts.push(if dashed { start } else { return Err(refuse(item.line)) });
    }
    // the list goes on to where the next thing begins
    starts.push(if *end >= document.range.end { document.range.end } else { line_start(text, *end) });
    let first = starts.first().copied().unwrap_or(document.range.end);
    let last = starts.last().copied().unwrap_or(document.range.end);
    let objects = starts.windows(2).zip(chosen).filter_map(|(pair, chosen)| match pair {
        [from, to] if chosen => Some(*from..*to),
        _ => None,
    });
    let before = std::iter::once(document.range.start..first);
    let parts = before.chain(objects).chain(std::iter::once(last..document.range.end));
    let mut bare = document.bare;
    Ok(parts.map(|range| Kept { range, bare: std::mem::take(&mut bare) }).collect())
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

fn documents(text: &str, events: &[(Event<'_>, Span)]) -> Vec<Document> {
    let mut documents: Vec<Document> = Vec::new();
    let mut events = events.iter().peekable();
    while let Some((event, span)) = events.next() {
        let Event::DocumentStart(explicit, _) = event else { continue };
        let start = if documents.is_empty() { 0 } else { line_start(text, bytes(span).start) };
        if let Some(before) = documents.last_mut() {
            before.range.end = start;
        }
        let content = match events.peek() {
            Some((Event::DocumentEnd, _)) | None => None,
            Some(_) => item(&mut events),
        };
        documents.push(Document { range: start..text.len(), bare: !*explicit, content });
    }
    documents
}

/// The next node; depth is bounded by the parser.
fn item<'e>(events: &mut std::iter::Peekable<std::slice::Iter<'e, (Event<'e>, Span)>>) -> Option<Item> {
    let (event, span) = events.next()?;
    let (start, line) = (bytes(span).start, span.start.line());
    let node = match event {
        Event::Scalar(value, ..) => Node::Text(value.clone().into_owned()),
        Event::SequenceStart(style, ..) => {
            let mut items = Vec::new();
            while !matches!(events.peek(), Some((Event::SequenceEnd, _)) | None) {
                items.push(item(events)?);
            }
            let end = events.next().map_or(start, |(_, span)| bytes(span).start);
            Node::List { flow: *style == StructureStyle::Flow, items, end }
        }
        Event::MappingStart(..) => {
            let mut pairs = Vec::new();
            while !matches!(events.peek(), Some((Event::MappingEnd, _)) | None) {
                pairs.push((item(events)?, item(events)?));
            }
            events.next();
            Node::Map(pairs)
        }
        _ => Node::Other,
    };
    Some(Item { node, start, line })
}
