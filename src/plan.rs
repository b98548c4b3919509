//! Plan: what a build is going to do, as data.
//!
//! A function of the tree, the settings and the commit: no I/O beyond the `Tree`, no clock, no environment; equal inputs
//! give equal plans, and a plan survives serialisation. The kind says what is solved; names, tags and annotations are
//! decided here for all kinds. Must not start anything.

pub mod describe;
pub mod tags;

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::kinds::{self, Wishes};
use crate::model::{AppSettings, BuildPlan, CacheTags, ImagePlan, Invalid, LayerCache, RefName, Tag, Work};

pub use crate::kinds::{
    BUILD_CONFIG, BuildConfig, By, CommitFacts, FetchSecrets, KindError, PlanInput, check_build_arg,
    default_frontends,
};
pub use tags::{TagError, TagInput, check_template, is_cache_tag};

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Kind(#[from] KindError),
    #[error(transparent)]
    Tag(#[from] TagError),
    /// A branch of the app's settings.
    #[error("the app's settings: {key}: {:?} is not a valid branch", .problem.given)]
    Branch { key: &'static str, problem: Invalid },
}

/// Whether settings can be planned with at all: for `apps set`, which refuses others before a push meets them. What
/// depends on a tree (a path that does not exist) is not seen here.
pub fn check_settings(settings: &AppSettings) -> Result<(), PlanError> {
    Wishes::of(settings, None)?;
    for template in &settings.tags {
        check_template(template).map_err(|problem| TagError::Template { by: By::Settings, problem })?;
    }
    let branch = |key, name: &str, text: &str| {
        let rule = "a branch's name as git and registries take it; in build_branches also a beginning with '*' after it";
        let problem = || Invalid::new("branch", text, rule);
        let parsed = format!("refs/heads/{name}").parse::<RefName>();
        parsed.map(drop).map_err(|_| PlanError::Branch { key, problem: problem() })
    };
    branch("main_branch", &settings.main_branch, &settings.main_branch)?;
    for text in &settings.build_branches {
        // `release/*` stands for names like `release/x`
        let name = text.strip_suffix('*').map_or_else(|| text.clone(), |prefix| format!("{prefix}x"));
        branch("build_branches", &name, text)?;
    }
    Ok(())
}

/// Whether a pushed ref builds, and as what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WhichRef {
    MainBranch,
    Branch,
    Tag,
    /// It is stored only; the text is a clause for the pusher.
    NotBuilt(String),
}

/// Whether pushes of `reference` build, by the app's settings.
pub fn builds(settings: &AppSettings, reference: &RefName) -> WhichRef {
    let Some(branch) = reference.branch() else {
        return if settings.build_tags {
            WhichRef::Tag
        } else {
            WhichRef::NotBuilt("git tags do not build in this app".to_owned())
        };
    };
    if branch == settings.main_branch {
        return WhichRef::MainBranch;
    }
    let matches = |pattern: &String| match pattern.strip_suffix('*') {
        Some(prefix) => branch.starts_with(prefix),
        None => branch == pattern,
    };
    if settings.build_branches.iter().any(matches) {
        return WhichRef::Branch;
    }
    let also = if settings.build_branches.is_empty() {
        String::new()
    } else {
        format!(", {}", settings.build_branches.join(", "))
    };
    WhichRef::NotBuilt(format!("{branch} does not build in this app: {}{also} does", settings.main_branch))
}

/// The plan of one ref of one push, or of a tree.
pub fn plan(input: &PlanInput<'_>) -> Result<BuildPlan, PlanError> {
    let wishes = Wishes::of(input.settings, input.config)?;
    let kind = kinds::named(input.detected.kind).ok_or_else(|| KindError::NotYet {
        kind: input.detected.kind,
        evidence: input.detected.evidence.clone(),
    })?;
    let draft = kind.plan(input, &wishes)?;
    let additional: Vec<_> =
        wishes.additional_tags.iter().map(|said| (said.value.clone(), said.by)).collect();
    let tags = tags::tags(&TagInput {
        reference: input.reference,
        main_branch: &input.settings.main_branch,
        sha: &input.commit.sha,
        templates: &input.settings.tags,
        additional: &additional,
        try_id: input.options.dry_try.then_some(input.try_id),
    })?;
    let inline_imports = inline_imports(input, &tags);
    let mut notes = wishes.notes;
    notes.extend(input.config.into_iter().flat_map(|config| config.unread(input.detected.kind)));
    notes.extend(draft.notes);
    notes.extend(tags.notes);
    let annotations = annotations(input);
    let images = draft.images.into_iter().map(|image| ImagePlan {
        name: image.name,
        tags: tags.tags.clone(),
        unshared: tags.unshared,
        annotations: annotations.clone(),
        work: with_inline_cache(image.work, &inline_imports),
    });
    Ok(BuildPlan {
        version: BuildPlan::VERSION,
        app: input.app.clone(),
        commit: input.commit.sha.clone(),
        reference: input.reference.cloned(),
        detected: input.detected.clone(),
        images: images.collect(),
        notes,
        manifests: draft.manifests,
    })
}

/// The images that an inline cache reads: the ref's own, then the main branch's.
fn inline_imports(input: &PlanInput<'_>, tags: &tags::Tags) -> Vec<Tag> {
    let own = tags.tags.get(tags.unshared..).unwrap_or_default().first().cloned();
    let main = tags::branch_tag(&input.settings.main_branch);
    let mut imports: Vec<Tag> = own.into_iter().chain(main).collect();
    imports.dedup();
    imports
}

fn with_inline_cache(mut work: Work, imports: &[Tag]) -> Work {
    if let Work::Dockerfile(solves) = &mut work {
        for solve in solves.iter_mut().filter(|solve| solve.cache == LayerCache::Inline) {
            solve.cache_tags = CacheTags { export: None, imports: imports.to_vec() };
        }
    }
    work
}

/// What stands on the index: <https://github.com/opencontainers/image-spec/blob/main/annotations.md>.
fn annotations(input: &PlanInput<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |key: &str, value: String| {
        all.insert(format!("org.opencontainers.image.{key}"), value);
    };
    set("title", input.app.to_string());
    if let Some(url) = input.source_url {
        set("source", url.to_owned());
    }
    if !input.commit.sha.is_zero() {
        set("revision", input.commit.sha.to_string());
        // a commit may claim any time: one that RFC 3339 cannot write stands in no annotation
        let time = OffsetDateTime::from_unix_timestamp(input.commit.committed_at_s).ok();
        if let Some(text) = time.and_then(|t| t.format(&Rfc3339).ok()) {
            set("created", text);
        }
    }
    if let Some(version) = input.reference.and_then(tags::version) {
        set("version", version.to_owned());
    }
    all
}
