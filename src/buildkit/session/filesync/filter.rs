//! Which entries of a directory are sent: tonistiigi/fsutil's filter over a list of entries.
//!
//! Invariants: ids come in the order of the entries, and a directory comes before what stands in it, also where only
//! something inside it was asked for. Pure.

use super::followpaths::{self, BadLink};
use super::patterns::{Pattern, PatternMatcher, WrongPattern};
use super::{Entry, Missing};

/// What the receiver wants of a directory. All empty: everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// Only what matches one of these, and the directories above it.
    pub include: Vec<Vec<u8>>,
    /// Nothing that matches these.
    pub exclude: Vec<Vec<u8>>,
    /// Paths, or shell patterns of paths, that join the includes with every symbolic link on their way.
    pub follow: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    #[error("include patterns: {0}")]
    Include(WrongPattern),
    #[error("exclude patterns (.dockerignore): {0}")]
    Exclude(WrongPattern),
    #[error(transparent)]
    Link(#[from] BadLink),
}

/// What passed the filters, as places in the list of entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// What is announced, ascending.
    pub ids: Vec<usize>,
    /// What passed and lacks its content, ascending. Submodules are here only; pointers in both.
    pub missing: Vec<usize>,
}

/// Applies `filters` to `entries`, which stand in sending order.
pub fn select(entries: &[Entry], filters: &Filters) -> Result<Selection, FilterError> {
    let mut walk = Walk::new(entries, filters)?;
    let mut at = 0;
    while let Some(entry) = entries.get(at) {
        at += 1;
        if walk.visit(at - 1, entry)? == Next::Behind {
            at += subtree_len(entries, at, &entry.path);
        }
    }
    Ok(walk.selection)
}

/// How many entries from `from` on stand in the directory `dir`.
pub(super) fn subtree_len(entries: &[Entry], from: usize, dir: &[u8]) -> usize {
    let rest = entries.get(from..).unwrap_or_default();
    rest.partition_point(|entry| is_below(&entry.path, dir))
}

/// Whether `path` stands somewhere in the directory `dir`.
pub(super) fn is_below(path: &[u8], dir: &[u8]) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.first() == Some(&b'/'))
}

/// Where the walk goes on: with the next entry, or behind the directory just seen.
#[derive(PartialEq, Eq)]
enum Next {
    Inside,
    Behind,
}

/// A directory above the current entry.
struct Above<'a> {
    at: usize,
    path: &'a [u8],
    include: Vec<bool>,
    exclude: Vec<bool>,
    selected: bool,
}

struct Walk<'a> {
    include: Option<PatternMatcher>,
    exclude: Option<PatternMatcher>,
    /// No include has a wildcard before its end, so that a directory can be ruled out by name.
    plain_includes: bool,
    plain_exceptions: bool,
    above: Vec<Above<'a>>,
    selection: Selection,
}

impl<'a> Walk<'a> {
    fn new(entries: &[Entry], filters: &Filters) -> Result<Self, FilterError> {
        let mut include = filters.include.clone();
        if !filters.follow.is_empty()
            && let Some(targets) = followpaths::follow(entries, &filters.follow)?
        {
            include.extend(targets);
            include = followpaths::dedupe(include).unwrap_or_default();
        }
        let matcher = |patterns: &[Vec<u8>]| {
            Some(patterns).filter(|p| !p.is_empty()).map(PatternMatcher::new).transpose()
        };
        let include = matcher(&include).map_err(FilterError::Include)?;
        let exclude = matcher(&filters.exclude).map_err(FilterError::Exclude)?;
        let plain = |matcher: &Option<PatternMatcher>, exceptions: bool| {
            let patterns = matcher.iter().flat_map(PatternMatcher::patterns);
            patterns.filter(|p| p.is_exception() == exceptions).all(is_plain)
        };
        Ok(Self {
            plain_includes: plain(&include, false),
            plain_exceptions: plain(&exclude, true),
            include,
            exclude,
            above: Vec::new(),
            selection: Selection::default(),
        })
    }

    fn visit(&mut self, at: usize, entry: &'a Entry) -> Result<Next, FilterError> {
        if self.include.is_none() && self.exclude.is_none() {
            self.select(at, entry);
            return Ok(Next::Inside);
        }
        while self.above.last().is_some_and(|dir| !is_below(&entry.path, dir.path)) {
            self.above.pop();
        }
        let (mut include, mut exclude) = (Vec::new(), Vec::new());
        let mut wanted = true;
        // whether a pattern names something inside this directory, the directory itself being unnamed
        let mut wanted_inside = false;
        if let Some(matcher) = &self.include {
            let known = self.above.last().map_or(&[][..], |dir| &dir.include);
            if !matcher.matches_below(&entry.path, known, &mut include).map_err(FilterError::Include)? {
                if entry.is_dir() && self.plain_includes && !leads_into(matcher, false, &entry.path) {
                    return Ok(Next::Behind);
                }
                wanted = false;
                wanted_inside = matcher.patterns().iter().any(|p| may_match_inside(p, &entry.path));
            }
        }
        if let Some(matcher) = &self.exclude {
            let known = self.above.last().map_or(&[][..], |dir| &dir.exclude);
            if matcher.matches_below(&entry.path, known, &mut exclude).map_err(FilterError::Exclude)? {
                let hopeless = !matcher.has_exceptions() || !leads_into(matcher, true, &entry.path);
                if entry.is_dir() && self.plain_exceptions && hopeless {
                    return Ok(Next::Behind);
                }
                wanted = false;
                wanted_inside = false;
            }
        }
        if wanted {
            self.select_above();
            self.select(at, entry);
        } else if wanted_inside && entry.missing == Some(Missing::Submodule) {
            self.selection.missing.push(at);
        }
        if entry.is_dir() {
            self.above.push(Above { at, path: &entry.path, include, exclude, selected: wanted });
        }
        Ok(Next::Inside)
    }

    fn select_above(&mut self) {
        for dir in self.above.iter_mut().filter(|dir| !dir.selected) {
            dir.selected = true;
            self.selection.ids.push(dir.at);
        }
    }

    fn select(&mut self, at: usize, entry: &Entry) {
        if entry.missing.is_some() {
            self.selection.missing.push(at);
        }
        if entry.missing != Some(Missing::Submodule) {
            self.selection.ids.push(at);
        }
    }
}

/// The pattern without a `/**` and a `/*` at its end.
fn without_trailing_glob(pattern: &Pattern) -> &[u8] {
    let text = pattern.text();
    let text = text.strip_suffix(b"/**").unwrap_or(text);
    text.strip_suffix(b"/*").unwrap_or(text)
}

fn is_plain(pattern: &Pattern) -> bool {
    !without_trailing_glob(pattern).iter().any(|b| b"*[]?^\\".contains(b))
}

/// Whether one of the plain patterns names `dir` or something in it.
fn leads_into(matcher: &PatternMatcher, exceptions: bool, dir: &[u8]) -> bool {
    matcher.patterns().iter().filter(|p| p.is_exception() == exceptions).any(|p| {
        let text = without_trailing_glob(p);
        text == dir || is_below(text, dir)
    })
}

/// Whether an include could match something in `dir`, as far as its parts before the first wildcard tell.
fn may_match_inside(pattern: &Pattern, dir: &[u8]) -> bool {
    if pattern.is_exception() {
        return false;
    }
    let mut parts = pattern.text().split(|b| *b == b'/');
    for name in dir.split(|b| *b == b'/') {
        match parts.next() {
            Some(part) if part.windows(2).any(|pair| pair == b"**") => return true,
            Some(part) if part.iter().any(|b| b"*[]?\\|{".contains(b)) => {}
            Some(part) if part == name => {}
            _ => return false,
        }
    }
    parts.next().is_some()
}
