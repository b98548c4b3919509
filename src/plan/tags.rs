//! The tags of a ref: what a push moves.
//!
//! Deterministic, and safe before anything else: no two branches get one tag by a template, names that lemnos gives
//! itself (`latest`, `git-…`, `try-…`) cannot be taken by a branch. Whether another ref owns a tag already is the store's
//! to say (`ImagePlan::owned_tags`).
//!
//! A name becomes a tag so: every byte outside `[A-Za-z0-9_.-]` becomes `-`, leading `-` and `.` go; a result of more
//! than 128 bytes keeps its first 115, then `-` and 12 digits of the SHA-256 of the name as it was written, so that long
//! names stay distinct. Short names may still fall together (`a/b` and `a-b`): the store refuses the second.

use crate::kinds::By;
use crate::model::{Digest, Invalid, RefName, Sha, Tag};

const TEMPLATE_RULE: &str = "letters, digits, '_', '.' and '-' with {branch}, {sha}, {sha12} or {version} between them, not {branch} and {version} together";

const LIMIT_TAG_BYTES: usize = 128;
const LIMIT_TEMPLATES: usize = 32;

#[derive(Debug, thiserror::Error)]
pub enum TagError {
    #[error("{by}: {:?} is not a valid {}", .problem.given, .problem.what)]
    Template { by: By, problem: Invalid },
    #[error("{by}: more than {LIMIT_TEMPLATES} tags")]
    TooMany { by: By },
    #[error("{reference} would move the tag {tag:?}, a name that lemnos gives itself")]
    Reserved { reference: RefName, tag: Tag },
    #[error("{reference} would move the tag {tag:?}, which belongs to the main branch")]
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
        let name = input.reference.map_or("", RefName::short);
        let tag = tag_of(&format!("try-{name}-{try_id}"), &["try", &safe(name), try_id].join("-"));
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

/// What only the main branch may move: its own name, and every name that is the same for all refs.
fn tags_of_main_branch(main_branch: &str, templates: &[Template]) -> Vec<Tag> {
    let same_for_all = templates.iter().filter_map(|t| match t.pieces.as_slice() {
        [Piece::Text(text)] => text.parse().ok(),
        _ => None,
    });
    tag_of(main_branch, &safe(main_branch)).into_iter().chain(same_for_all).collect()
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
    if text.starts_with("git-") || text.starts_with("try-") || (text == "latest" && !is_main) {
        return Err(TagError::Reserved { reference: reference.clone(), tag: tag.clone() });
    }
    if !is_main && of_main.contains(tag) {
        return Err(TagError::OfMainBranch { reference: reference.clone(), tag: tag.clone() });
    }
    Ok(())
}
