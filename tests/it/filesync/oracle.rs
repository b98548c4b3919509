//! What we send against what the Go libraries send, by the tables that `tests/oracle` made of them.

use lemnos::buildkit::session::filesync::filter::{Filters, select};
use lemnos::buildkit::session::filesync::patterns::PatternMatcher;
use lemnos::buildkit::session::filesync::{Entry, mode, sending_order};
use serde::Deserialize;

/// Bytes as the characters of the same number.
#[derive(Deserialize, Default)]
struct Text(String);

impl Text {
    fn bytes(&self) -> Vec<u8> {
        self.0.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
    }
}

fn all(texts: &[Text]) -> Vec<Vec<u8>> {
    texts.iter().map(Text::bytes).collect()
}

fn shown(texts: &[Vec<u8>]) -> String {
    texts.iter().map(|text| format!("\"{}\"", text.escape_ascii())).collect::<Vec<_>>().join(", ")
}

#[derive(Deserialize)]
struct Patterns {
    paths: Vec<Text>,
    cases: Vec<PatternCase>,
}

#[derive(Deserialize)]
struct PatternCase {
    p: Vec<Text>,
    m: String,
    w: String,
}

fn char_of<E>(matched: Result<bool, E>) -> char {
    match matched {
        Ok(true) => '1',
        Ok(false) => '0',
        Err(_) => 'e',
    }
}

fn walked(matcher: &PatternMatcher, path: &[u8]) -> char {
    let (mut above, mut found) = (Vec::new(), Vec::new());
    for end in path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at) {
        if matcher.matches_below(&path[..end], &above, &mut found).is_err() {
            return 'e';
        }
        std::mem::swap(&mut above, &mut found);
    }
    char_of(matcher.matches_below(path, &above, &mut found))
}

/// Every difference, so that a failure shows a rule and not a single case.
fn pattern_differences(table: &str) -> Vec<String> {
    let table: Patterns = serde_json::from_str(table).unwrap();
    assert!(table.cases.len() >= 100 && table.paths.len() >= 50, "the table is not whole");
    let paths = all(&table.paths);
    let mut wrong = Vec::new();
    for case in &table.cases {
        let patterns = all(&case.p);
        let Ok(matcher) = PatternMatcher::new(&patterns) else {
            if !case.m.is_empty() {
                wrong.push(format!("[{}]: refused here only", shown(&patterns)));
            }
            continue;
        };
        if case.m.is_empty() {
            wrong.push(format!("[{}]: refused there only", shown(&patterns)));
            continue;
        }
        for ((path, whole), walk) in paths.iter().zip(case.m.chars()).zip(case.w.chars()) {
            let ours = (char_of(matcher.matches_or_above(path)), walked(&matcher, path));
            if ours != (whole, walk) {
                let path = path.escape_ascii();
                wrong.push(format!("[{}] on \"{path}\": {ours:?}, Go {:?}", shown(&patterns), (whole, walk)));
            }
        }
    }
    wrong
}

#[derive(Deserialize)]
struct FilterTable {
    trees: Vec<Vec<TreeEntry>>,
    cases: Vec<FilterCase>,
}

#[derive(Deserialize)]
struct TreeEntry {
    p: Text,
    #[serde(default)]
    l: Text,
}

#[derive(Deserialize)]
struct FilterCase {
    t: usize,
    #[serde(default)]
    i: Vec<Text>,
    #[serde(default)]
    x: Vec<Text>,
    #[serde(default)]
    f: Vec<Text>,
    s: Option<Vec<usize>>,
}

fn entry(of: &TreeEntry) -> Entry {
    let mut path = of.p.bytes();
    let dir = path.last() == Some(&b'/');
    if dir {
        path.pop();
    }
    let linkname = of.l.bytes();
    let mode = match (dir, linkname.is_empty()) {
        (true, _) => mode::DIR | 0o755,
        (false, false) => mode::SYMLINK | 0o777,
        (false, true) => 0o644,
    };
    Entry { path, mode, size: linkname.len() as u64, linkname, ..Entry::default() }
}

fn filter_differences(table: &str) -> Vec<String> {
    let table: FilterTable = serde_json::from_str(table).unwrap();
    assert!(table.cases.len() >= 100, "the table is not whole");
    let trees: Vec<Vec<Entry>> = table.trees.iter().map(|tree| tree.iter().map(entry).collect()).collect();
    let mut wrong = Vec::new();
    for tree in &trees {
        assert!(
            tree.is_sorted_by(|a, b| sending_order(&a.path, &b.path).is_lt()),
            "Go walks in another order"
        );
    }
    for case in &table.cases {
        let filters = Filters { include: all(&case.i), exclude: all(&case.x), follow: all(&case.f) };
        let ours = select(&trees[case.t], &filters).ok().map(|selection| selection.ids);
        if ours != case.s {
            let paths = |ids: &Option<Vec<usize>>| {
                ids.as_ref()
                    .map(|ids| ids.iter().map(|id| trees[case.t][*id].path.clone()).collect::<Vec<_>>())
            };
            let show = |ids| paths(ids).map_or("refused".to_owned(), |list| shown(&list));
            wrong.push(format!(
                "tree {} include [{}] exclude [{}] follow [{}]:\n  ours {}\n  Go   {}",
                case.t,
                shown(&filters.include),
                shown(&filters.exclude),
                shown(&filters.follow),
                show(&ours),
                show(&case.s)
            ));
        }
    }
    wrong
}

#[test]
fn patterns_match_what_gos_match() {
    let wrong = pattern_differences(include_str!("../../oracle/patterns.json"));
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

#[test]
fn filters_let_through_what_gos_let_through() {
    let wrong = filter_differences(include_str!("../../oracle/filters.json"));
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}
