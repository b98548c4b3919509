//! The tags of a ref: what a push moves.
//!
//! Deterministic, and safe before anything else: no two branches get one tag by a template, names that lemnos gives
//! itself (`latest`, `git-…`, `try-…`, `buildcache-…`) cannot be taken by a branch. Whether another ref owns a tag already is the store's
//! to say (`ImagePlan::owned_tags`).
//!
//! A name becomes a tag so: every byte outside `[A-Za-z0-9_.-]` becomes `-`, leading `-` and `.` go; a result of more
//! than 128 bytes keeps its first 115, then `-` and 12 digits of the SHA-256 of the name as it was written, so that long
//! names stay distinct. Short names may still fall together (`a/b` and `a-b`): the store refuses the second.

use crate::kinds::By;
use crate::model::{Digest, Invalid, RefName, Sha, Tag};

const TEMPLATE_RULE: &str = "letters, digits, '_', '.' and '-' with {branch}, {sha}, {sha12} or {version} between them, not {branch} and {version} together";

/// What tags of layer caches begin with.
const CACHE_TAG_PREFIX: &str = "buildcache-";

const LIMIT_TAG_BYTES: usize = 128;
const LIMIT_TEMPLATES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum TagError {
    #[error("{by}: {:?} is not a valid {}", .problem.given, .problem.what)]
    Template { by: By, problem: Invalid },
    #[error("{by}: more than {LIMIT_TEMPLATES} tags")]
    TooMany { by: By },
    #[error("{reference} would move the tag {tag}, a name that lemnos gives itself")]
    Reserved { reference: RefName, tag: Tag },
    #[error("{reference} would move the tag {tag}, which belongs to the main branch")]
    OfMainBranch { reference: RefName, tag: Tag },
}

/// What tags are made of.
pub struct TagInput<'a> {
    pub reference: Option<&'a RefName>,
    pub main_branch: &'a str,
    /// Zeros: a directory without a commit.
    pub sha: &'a Sha,
    /// The app's templates; empty: the defaults.
    pub templates: &'a [String],
    /// `additional_tags` of build-config.yaml: templates too.
    pub additional: &'a [(String, By)],
    /// Of a try: its id.
    pub try_id: Option<&'a str>,
}

/// Tags in the order they move.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tags {
    pub tags: Vec<Tag>,
    /// How many, from the front, no ref owns.
    pub unshared: usize,
    /// Which templates made no tag, and why.
    pub notes: Vec<String>,
}

/// The tags of a ref, the unshared ones first.
pub fn tags(input: &TagInput<'_>) -> Result<Tags, TagError> {
    if let Some(try_id) = input.try_id {
        let name = input.reference.map_or("directory", RefName::short);
        let tag = tag_of(&format!("try-{name}-{try_id}"), &format!("try-{}-{}", safe(name), safe(try_id)));
        return Ok(Tags { tags: tag.into_iter().collect(), unshared: 1, notes: Vec::new() });
    }
    let mut made = Tags::default();
    if !input.sha.is_zero() {
        made.tags.extend(format!("git-{}", input.sha.short(12)).parse::<Tag>().ok());
        made.unshared = made.tags.len();
    }
    let Some(reference) = input.reference else { return Ok(made) };
    let is_main = reference.branch() == Some(input.main_branch);
    let templates = templates(input)?;
    let of_main = tags_of_main_branch(input.main_branch, &templates);
    let mut owned = Vec::new();
    for template in &templates {
        let of_commit_alone = template.has(Piece::is_sha) && !template.has(Piece::is_ref);
        match template.expand(reference, input.sha, is_main) {
            Ok(tag) => {
                check_name(reference, &tag, is_main, &of_main)?;
                let list = if of_commit_alone { &mut made.tags } else { &mut owned };
                if !list.contains(&tag) {
                    list.push(tag);
                }
            }
            Err(why) => made.notes.push(format!("{}: no tag by {:?}: {why}", template.by, template.text)),
        }
    }
    made.unshared = made.tags.len();
    owned.retain(|tag| !made.tags.contains(tag));
    made.tags.extend(owned);
    Ok(made)
}

/// The tag beside an app's image by which layers of a ref's builds are found again: no two refs share one.
pub fn cache_tag(reference: &RefName) -> Option<Tag> {
    let digest = Digest::of(reference.as_str().as_bytes());
    let digest: String = digest.as_str().chars().skip("sha256:".len()).take(12).collect();
    let name: String = safe(reference.short()).chars().take(40).collect();
    format!("{CACHE_TAG_PREFIX}{name}-{digest}").parse().ok()
}

pub fn is_cache_tag(tag: &Tag) -> bool {
    tag.as_str().starts_with(CACHE_TAG_PREFIX)
}

/// The app's templates or the defaults of the ref, then the additional ones.
fn templates(input: &TagInput<'_>) -> Result<Vec<Template>, TagError> {
    let mut all = Vec::new();
    for text in input.templates {
        all.push(Template::parse(text, By::Settings)?);
    }
    if all.is_empty() {
        let default =
            |text: &str, piece| Template { text: text.to_owned(), by: By::Settings, pieces: vec![piece] };
        let reference = input.reference;
        if reference.is_some_and(|r| r.tag().is_some()) {
            all.push(default("the git tag's name", Piece::GitTag));
        } else {
            all.push(default("{branch}", Piece::Branch));
        }
        if reference.and_then(RefName::branch) == Some(input.main_branch) {
            all.push(default("latest", Piece::Text("latest".to_owned())));
        }
    }
    for (text, by) in input.additional {
        all.push(Template::parse(text, *by)?);
    }
    match all.get(LIMIT_TEMPLATES) {
        Some(template) => Err(TagError::TooMany { by: template.by }),
        None => Ok(all),
    }
}

/// The tag that a branch moves by its name.
pub fn branch_tag(branch: &str) -> Option<Tag> {
    tag_of(branch, &safe(branch))
}

/// What only the main branch may move: its own name, and every name that is the same for all refs.
fn tags_of_main_branch(main_branch: &str, templates: &[Template]) -> Vec<Tag> {
    let same_for_all = templates.iter().filter_map(|t| match t.pieces.as_slice() {
        [Piece::Text(text)] => text.parse().ok(),
        _ => None,
    });
    branch_tag(main_branch).into_iter().chain(same_for_all).collect()
}

/// Whether a text can be a template of tags; for `apps set`, which refuses others at once.
pub fn check_template(template: &str) -> Result<(), Invalid> {
    parse(template).map(drop)
}

/// A template, taken apart, and who asked for it.
struct Template {
    text: String,
    by: By,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Branch,
    /// The git tag's own name: the default, which no template can write.
    GitTag,
    Sha,
    Sha12,
    Version,
}

impl Piece {
    fn is_sha(&self) -> bool {
        matches!(self, Self::Sha | Self::Sha12)
    }
    fn is_ref(&self) -> bool {
        matches!(self, Self::Branch | Self::GitTag | Self::Version)
    }
}

fn parse(template: &str) -> Result<Vec<Piece>, Invalid> {
    let refuse = || Invalid::new("tag template", template, TEMPLATE_RULE);
    if template.is_empty() || template.len() > LIMIT_TAG_BYTES {
        return Err(refuse());
    }
    let mut pieces = Vec::new();
    let mut rest = template;
    while !rest.is_empty() {
        let (text, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
        if !text.bytes().all(word) || (pieces.is_empty() && text.starts_with(['.', '-'])) {
            return Err(refuse());
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let Some(inner) = after.strip_prefix('{') else { break };
        let (name, after) = inner.split_once('}').ok_or_else(refuse)?;
        pieces.push(match name {
            "branch" => Piece::Branch,
            "sha" => Piece::Sha,
            "sha12" => Piece::Sha12,
            "version" => Piece::Version,
            _ => return Err(refuse()),
        });
        rest = after;
    }
    if pieces.contains(&Piece::Branch) && pieces.contains(&Piece::Version) {
        return Err(refuse());
    }
    Ok(pieces)
}

impl Template {
    fn parse(text: &str, by: By) -> Result<Self, TagError> {
        let pieces = parse(text).map_err(|problem| TagError::Template { by, problem })?;
        Ok(Self { text: text.to_owned(), by, pieces })
    }

    fn has(&self, what: fn(&Piece) -> bool) -> bool {
        self.pieces.iter().any(what)
    }

    /// The tag that this makes of a ref, or why it makes none.
    fn expand(&self, reference: &RefName, sha: &Sha, is_main: bool) -> Result<Tag, &'static str> {
        if !is_main && !self.has(Piece::is_ref) && !self.has(Piece::is_sha) {
            return Err("a name that is the same for every ref moves with the main branch only");
        }
        let (mut written, mut safe_text) = (String::new(), String::new());
        for piece in &self.pieces {
            let text = match piece {
                Piece::Text(text) => text,
                Piece::Branch => reference.branch().ok_or("{branch} is for branches")?,
                Piece::GitTag => reference.tag().ok_or("a branch is no git tag")?,
                Piece::Version => version(reference).ok_or("{version} is for git tags")?,
                Piece::Sha | Piece::Sha12 if sha.is_zero() => return Err("a directory has no commit"),
                Piece::Sha => sha.as_str(),
                Piece::Sha12 => sha.short(12),
            };
            written.push_str(text);
            safe_text.push_str(&safe(text));
        }
        tag_of(&written, &safe_text).ok_or("nothing of the name can stand in a tag")
    }
}

/// `1.2.3` of the git tag `v1.2.3`; other git tags by their own name; none for a branch.
pub fn version(reference: &RefName) -> Option<&str> {
    let tag = reference.tag()?;
    let bare = tag.strip_prefix(['v', 'V']).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    Some(bare.unwrap_or(tag))
}

/// `text` with every byte that no tag may hold as `-`.
fn safe(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' })
        .collect()
}

/// A tag of `safe_text`, shortened with a digest of `written` where it is too long; none where nothing is left.
fn tag_of(written: &str, safe_text: &str) -> Option<Tag> {
    let text = safe_text.trim_start_matches(['-', '.']);
    if text.len() <= LIMIT_TAG_BYTES {
        return text.parse().ok();
    }
    let digest = Digest::of(written.as_bytes());
    let suffix: String = digest.as_str().chars().skip("sha256:".len()).take(12).collect();
    let head: String = text.chars().take(LIMIT_TAG_BYTES - 13).collect();
    format!("{head}-{suffix}").parse().ok()
}

/// Refuses names that are lemnos's own, and the main branch's to any other ref.
fn check_name(reference: &RefName, tag: &Tag, is_main: bool, of_main: &[Tag]) -> Result<(), TagError> {
    let text = tag.as_str();
    let ours = ["git-", "try-", CACHE_TAG_PREFIX].iter().any(|prefix| text.starts_with(prefix));
    if ours || (text == "latest" && !is_main) {
        return Err(TagError::Reserved { reference: reference.clone(), tag: tag.clone() });
    }
    if !is_main && of_main.contains(tag) {
        return Err(TagError::OfMainBranch { reference: reference.clone(), tag: tag.clone() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    fn made(reference: &str, templates: &[&str], additional: &[&str]) -> Result<Tags, TagError> {
        let owned = |list: &[&str]| list.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>();
        let additional: Vec<_> = owned(additional).into_iter().map(|t| (t, By::Config { line: 3 })).collect();
        tags(&TagInput {
            reference: Some(&reference.parse().unwrap()),
            main_branch: "main",
            sha: &SHA.parse().unwrap(),
            templates: &owned(templates),
            additional: &additional,
            try_id: None,
        })
    }

    /// `git-… | main latest`: the bar stands before the first that a ref owns.
    fn shown(tags: &Tags) -> String {
        let names: Vec<&str> = tags.tags.iter().map(Tag::as_str).collect();
        let (free, owned) = names.split_at(tags.unshared);
        format!("{} | {}", free.join(" "), owned.join(" ")).trim().to_owned()
    }

    #[test]
    fn tags_by_ref_and_template() {
        for (reference, templates, additional, expect) in [
            ("refs/heads/main", &[][..], &[][..], "git-0123456789ab | main latest"),
            ("refs/heads/feature/a+b#1", &[], &[], "git-0123456789ab | feature-a-b-1"),
            ("refs/heads/#12", &[], &[], "git-0123456789ab | 12"),
            ("refs/heads/+.x", &[], &[], "git-0123456789ab | x"),
            ("refs/tags/v1.2.3", &[], &[], "git-0123456789ab | v1.2.3"),
            ("refs/tags/v1.2.3+meta", &[], &[], "git-0123456789ab | v1.2.3-meta"),
            ("refs/heads/main", &["{branch}-{sha12}"], &[], "git-0123456789ab | main-0123456789ab"),
            ("refs/heads/main", &["{sha12}", "{branch}"], &[], "git-0123456789ab 0123456789ab | main"),
            ("refs/heads/dev", &["{sha}"], &[], &format!("git-0123456789ab {SHA} |")),
            ("refs/heads/main", &["stable", "{branch}"], &[], "git-0123456789ab | stable main"),
            ("refs/heads/dev", &["stable", "{branch}"], &[], "git-0123456789ab | dev"),
            ("refs/tags/v1.2", &["stable", "{branch}", "r{version}"], &[], "git-0123456789ab | r1.2"),
            ("refs/tags/vega", &["{version}"], &[], "git-0123456789ab | vega"),
            ("refs/heads/main", &[], &["stable", "main", "latest"], "git-0123456789ab | main latest stable"),
            ("refs/heads/dev", &[], &["stable", "{branch}-x"], "git-0123456789ab | dev dev-x"),
            ("refs/tags/v1", &[], &["stable"], "git-0123456789ab | v1"),
            ("refs/heads/main", &["latest"], &[], "git-0123456789ab | latest"),
        ] {
            let tags = made(reference, templates, additional).unwrap();
            assert_eq!(shown(&tags), expect, "{reference} {templates:?} {additional:?}");
        }
    }

    #[test]
    fn a_template_that_makes_no_tag_is_noted() {
        let tags = made("refs/heads/dev", &["{branch}", "{version}"], &["stable"]).unwrap();
        assert_eq!(
            tags.notes,
            [
                "the app's settings: no tag by \"{version}\": {version} is for git tags",
                "build-config.yaml:3: no tag by \"stable\": a name that is the same for every ref moves with the main branch only",
            ]
        );
        let tags = made("refs/heads/###", &[], &[]).unwrap();
        assert_eq!(shown(&tags), "git-0123456789ab |");
        assert_eq!(tags.notes.len(), 1);
    }

    #[test]
    fn names_that_are_not_the_ref_s_own_are_refused() {
        for (reference, templates, additional) in [
            ("refs/heads/latest", &[][..], &[][..]),
            ("refs/tags/latest", &[], &[]),
            ("refs/heads/git-0123456789ab", &[], &[]),
            ("refs/heads/try-x", &[], &[]),
            ("refs/heads/buildcache-main-0123456789ab", &[], &[]),
            ("refs/tags/v1", &["buildcache-{version}"], &[]),
            ("refs/heads/lat", &[], &["{branch}est"]),
            ("refs/heads/main", &["git-{sha12}"], &[]),
            ("refs/heads/main", &[], &["try-me"]),
        ] {
            let error = made(reference, templates, additional).unwrap_err();
            assert!(matches!(error, TagError::Reserved { .. }), "{reference}: {error}");
        }
        for (reference, templates, additional) in [
            ("refs/tags/main", &[][..], &[][..]),
            ("refs/heads/ma", &[], &["{branch}in"]),
            ("refs/heads/+main", &[], &[]),
            ("refs/heads/stable", &["stable", "{branch}"], &[]),
            ("refs/heads/stable", &[], &["stable"]),
        ] {
            let error = made(reference, templates, additional).unwrap_err();
            assert!(matches!(error, TagError::OfMainBranch { .. }), "{reference}: {error}");
        }
        let latest = TagInput {
            reference: Some(&"refs/heads/latest".parse().unwrap()),
            main_branch: "latest",
            sha: &SHA.parse().unwrap(),
            templates: &[],
            additional: &[],
            try_id: None,
        };
        assert_eq!(shown(&tags(&latest).unwrap()), "git-0123456789ab | latest", "its own name");
    }

    #[test]
    fn templates_are_checked() {
        for good in ["a", "{branch}", "v{version}", "{branch}-{sha12}", "A_b.c-{sha}", "{sha}{sha12}"] {
            assert_eq!(check_template(good), Ok(()), "{good}");
        }
        let long = "a".repeat(129);
        for bad in [
            "",
            "-a",
            ".a",
            "a/b",
            "{",
            "{}",
            "{Branch}",
            "{branch",
            "a}",
            "a b",
            "${BRANCH_NAME}",
            "{branch}{version}",
            &long,
        ] {
            assert!(check_template(bad).is_err(), "{bad}");
        }
        let error = made("refs/heads/main", &[], &["${BRANCH_NAME}"]).unwrap_err();
        assert_eq!(error.to_string(), "build-config.yaml:3: \"${BRANCH_NAME}\" is not a valid tag template");
        let many = ["a"; 40];
        assert!(matches!(made("refs/heads/main", &many, &[]), Err(TagError::TooMany { .. })));
    }

    #[test]
    fn long_names_are_cut_and_stay_distinct() {
        let names = ["a/", "a-"].map(|mid| format!("refs/heads/{}{mid}{}", "x".repeat(90), "y".repeat(90)));
        let [one, two] = names.map(|name| made(&name, &[], &[]).unwrap().tags[1].clone());
        assert_eq!((one.as_str().len(), two.as_str().len()), (128, 128));
        assert_ne!(one, two);
        assert_eq!(one.as_str()[..115], two.as_str()[..115]);
    }

    #[test]
    fn a_try_and_a_directory_move_nothing_that_is_shared() {
        let sha: Sha = SHA.parse().unwrap();
        let reference: RefName = "refs/heads/main".parse().unwrap();
        let mut input = TagInput {
            reference: Some(&reference),
            main_branch: "main",
            sha: &sha,
            templates: &["stable".to_owned()],
            additional: &[("x".to_owned(), By::Settings)],
            try_id: Some("0123456789"),
        };
        assert_eq!(shown(&tags(&input).unwrap()), "try-main-0123456789 |");
        input.reference = None;
        assert_eq!(shown(&tags(&input).unwrap()), "try-directory-0123456789 |");
        input.try_id = None;
        assert_eq!(shown(&tags(&input).unwrap()), "git-0123456789ab |");
        let zero = Sha::zero();
        let directory = TagInput { sha: &zero, reference: Some(&reference), ..input };
        assert_eq!(shown(&tags(&directory).unwrap()), "| stable x");
    }

    proptest! {
        #[test]
        fn a_ref_gives_the_same_valid_tags_or_none(
            name in "refs/(heads|tags)/[a-zA-Z0-9_.+@#/-]{1,189}",
            template in prop::option::of("[a-z{}.-]{0,6}(\\{branch\\}|\\{sha12\\}|\\{version\\})?[a-z-]{0,6}"),
            try_id in prop::option::of("[0-9a-f]{10}"),
        ) {
            let Ok(reference) = name.parse::<RefName>() else { return Ok(()) };
            let sha: Sha = SHA.parse().unwrap();
            let templates: Vec<String> = template.into_iter().collect();
            let input = TagInput {
                reference: Some(&reference), main_branch: "main", sha: &sha, templates: &templates,
                additional: &[], try_id: try_id.as_deref(),
            };
            let (first, second) = (tags(&input), tags(&input));
            if let (Ok(first), Ok(second)) = (&first, &second) {
                prop_assert_eq!(first, second);
                prop_assert!(first.unshared >= 1 && first.unshared <= first.tags.len());
                for (at, tag) in first.tags.iter().enumerate() {
                    prop_assert_eq!(&tag.as_str().parse::<Tag>().unwrap(), tag);
                    let own = tag.as_str().starts_with("git-") || tag.as_str().starts_with("try-");
                    prop_assert!(!own || at < first.unshared, "{}", tag);
                    prop_assert!(!first.tags[at + 1..].contains(tag), "{} twice", tag);
                }
            }
            prop_assert_eq!(first.is_ok(), second.is_ok());
        }
    }
}
