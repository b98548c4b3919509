//! The Dockerfile kind: one solve by BuildKit's Dockerfile frontend for all platforms.
//!
//! Everything that decides the result stands in the `SolveSpec`: context tree, Dockerfile, ignore file, target,
//! arguments, labels, platforms. The frontend is never chosen by the pushed file alone (see `frontend`). Must not
//! duplicate BuildKit's own checks of instructions.

mod attrs;
mod bases;
mod context;
mod directives;
mod frontend;
mod mounts;
mod recipe;

pub use attrs::dockerfile_attrs;
pub(super) use mounts::cache_namespace;
use recipe::RECIPE;
pub use recipe::default_frontends;

use super::errors::shown;
use super::{
    By, Draft, DraftImage, Kind, KindError, PlanInput, Said, Verdict, Wishes, arguments, attestations,
};
use crate::model::closest::closest;
use crate::model::{
    CacheTags, Digest, EntryKind, KindName, LayerCache, Platform, SolveSpec, Tag, Tree, TreeError, Work,
};
use crate::plan::tags;

pub(super) struct Dockerfile;

/// BuildKit reads a Dockerfile whole into memory, several times; people write some kilobytes.
const LIMIT_BYTES: u64 = 1024 * 1024;

/// A Dockerfile in the tree, or why there is none.
enum Found {
    At { path: String, evidence: String },
    Nowhere { reason: String },
}

impl Kind for Dockerfile {
    fn name(&self) -> KindName {
        KindName::Dockerfile
    }

    fn needs(&self) -> &'static str {
        "a Dockerfile or Containerfile at the root, or dockerfile_path in the app's settings or build-config.yaml"
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn detect(&self, tree: &dyn Tree, wishes: &Wishes) -> Result<Verdict, KindError> {
        Ok(match find(tree, wishes)? {
            Found::At { evidence, .. } => Verdict::Yes { evidence },
            Found::Nowhere { reason } => Verdict::No { reason },
        })
    }

    fn plan(&self, input: &PlanInput<'_>, wishes: &Wishes) -> Result<Draft, KindError> {
        let Found::At { path, .. } = find(input.tree, wishes)? else {
            return Err(KindError::NoDockerfile {
                by: By::Settings,
                path: "Dockerfile".to_owned(),
                close: vec![],
            });
        };
        let source = read_dockerfile(input.tree, &path)?;
        let frontend = frontend::choose(&source, &path, input.frontends, input.policy.frontends_by_digest)?;
        bases::check(&source, &path, input.sources)?;
        let mut notes: Vec<String> = frontend.note.into_iter().collect();
        notes.extend(directives::refused_flags(&source, &path));
        let (context_path, context_tree) = context::locate(input.tree, wishes.context_path.as_ref())?;
        let ignore = context::ignore_file(input.tree, &path, &context_path)?;
        context::refuse_missing_content(input.tree, &context_path, &ignore)?;
        // a frontend of somebody else's may have another way to say so
        let uses_mounts = frontend.image.is_some() || mounts::may_use_cache_mounts(&source);
        let dry_try = input.options.dry_try;
        let cache_namespace = cache_namespace(input.app_id, input.reference, dry_try);
        let build_args = arguments(input, wishes)?;
        let attest = attestations(
            input,
            build_args.iter().map(|(name, value)| (format!("the build argument {name:?}"), value.as_str())),
        )?;
        let solve = SolveSpec {
            frontend: frontend.name.to_owned(),
            frontend_image: frontend.image,
            platforms: platforms(input, wishes)?,
            context_path,
            context_tree,
            dockerfile_digest: Some(Digest::of(&source)),
            dockerfile_path: path,
            ignore_digest: ignore.beside_dockerfile.as_deref().map(Digest::of),
            target: wishes.target.as_ref().map(|t| t.value.clone()),
            build_args,
            labels: input.settings.labels.clone(),
            compression: input.settings.compression,
            no_cache: input.options.no_cache,
            pull: input.options.rebuild,
            policy: input.policy.clone(),
            attest,
            cache: input.settings.cache,
            cache_tags: layer_cache_tags(input),
            step_namespace: mounts::step_namespace(input.app_id, &cache_namespace, uses_mounts),
            cache_namespace,
        };
        Ok(Draft {
            images: vec![DraftImage { name: input.image.clone(), work: Work::Dockerfile(vec![solve]) }],
            notes,
            manifests: None,
        })
    }
}

/// Where layers are read and written. A ref writes its own only, so that what the main branch reads is the main branch's; a
/// try writes none.
fn layer_cache_tags(input: &PlanInput<'_>) -> CacheTags {
    let Some(reference) = input.reference.filter(|_| input.settings.cache == LayerCache::Registry) else {
        // those of an inline cache are the image's own, which are not made here
        return CacheTags::default();
    };
    let own = tags::cache_tag(reference);
    let main = format!("refs/heads/{}", input.settings.main_branch).parse().ok();
    let main: Option<Tag> = main.as_ref().and_then(tags::cache_tag);
    let mut imports: Vec<Tag> = own.iter().chain(&main).cloned().collect();
    imports.dedup();
    CacheTags { export: own.filter(|_| !input.options.dry_try), imports }
}

fn is_file(tree: &dyn Tree, path: &str) -> Result<bool, KindError> {
    match tree.entry(path)?.map(|e| e.kind) {
        Some(EntryKind::File { .. }) => Ok(true),
        Some(EntryKind::Symlink) => Err(TreeError::Symlink { path: path.to_owned() }.into()),
        Some(EntryKind::Dir | EntryKind::Submodule) | None => Ok(false),
    }
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") }
}

/// The configured Dockerfile, or the first of the names in the context directory, or at the root.
fn find(tree: &dyn Tree, wishes: &Wishes) -> Result<Found, KindError> {
    if let Some(said) = &wishes.dockerfile_path {
        return configured(tree, said);
    }
    let context = wishes.context_path.as_ref().map_or("", |said| said.value.as_str());
    let mut dirs = vec![context];
    if !context.is_empty() {
        dirs.push("");
    }
    for (at, dir) in dirs.iter().enumerate() {
        let place = if dir.is_empty() { "at the root".to_owned() } else { format!("in {dir}/") };
        let [first_name, second_name] = &RECIPE.names;
        let (first, second) = (join(dir, first_name), join(dir, second_name));
        let (has_first, has_second) = (is_file(tree, &first)?, is_file(tree, &second)?);
        let (path, name, beside) = match (has_first, has_second) {
            (true, true) => (first, first_name, Some(format!("the {second_name} beside it is not used"))),
            (true, false) => (first, first_name, None),
            (false, true) => (second, second_name, None),
            (false, false) => continue,
        };
        let root_too = at == 0 && !dir.is_empty() && is_file(tree, first_name)?;
        let beside = beside.or_else(|| root_too.then(|| "the one at the root is not used".to_owned()));
        let evidence = match beside {
            Some(beside) => format!("{name} {place} ({beside})"),
            None => format!("{name} {place}"),
        };
        return Ok(Found::At { path, evidence });
    }
    let places =
        dirs.iter().map(|d| if d.is_empty() { "at the root".to_owned() } else { format!("in {d}/") });
    let mut reason = format!("no Dockerfile or Containerfile {}", places.collect::<Vec<_>>().join(" or "));
    let close = close_names(tree, context, &RECIPE.names)?;
    if !close.is_empty() {
        reason.push_str(&format!(" (there is {}: case matters)", close.join(", ")));
    } else if let Some(path) = one_level_down(tree)? {
        reason.push_str(&format!(" (there is {path}: dockerfile_path chooses it)"));
    }
    Ok(Found::Nowhere { reason })
}

/// A Dockerfile in one of the root's directories, for a message; only the first so many are looked into.
fn one_level_down(tree: &dyn Tree) -> Result<Option<String>, TreeError> {
    let dirs = tree.list("")?.into_iter().filter(|e| e.kind == EntryKind::Dir).take(100);
    for dir in dirs {
        for name in &RECIPE.names {
            let path = join(&dir.name, name);
            if matches!(tree.entry(&path)?.map(|e| e.kind), Some(EntryKind::File { .. })) {
                return Ok(Some(shown(&path)));
            }
        }
    }
    Ok(None)
}

fn configured(tree: &dyn Tree, said: &Said<String>) -> Result<Found, KindError> {
    if is_file(tree, &said.value)? {
        let evidence = format!("{}, named by {}", said.value, said.by);
        return Ok(Found::At { path: said.value.clone(), evidence });
    }
    let (dir, name) = said.value.rsplit_once('/').unwrap_or(("", &said.value));
    let mut close = Vec::new();
    for candidate in RECIPE.names.iter().map(|name| join(&said.value, name)) {
        if is_file(tree, &candidate)? {
            close.push(candidate);
        }
    }
    close.extend(close_names(tree, dir, &[name.to_owned()])?);
    Err(KindError::NoDockerfile { by: said.by, path: said.value.clone(), close })
}

/// Regular files in `dir` whose names are near to one of `names`, as paths; at most three.
fn close_names(tree: &dyn Tree, dir: &str, names: &[String]) -> Result<Vec<String>, TreeError> {
    let mut near = Vec::new();
    for entry in tree.list(dir)? {
        let file = matches!(entry.kind, EntryKind::File { .. });
        if file && near.len() < 3 && names.iter().any(|name| closest(&entry.name, [name.as_str()]).is_some())
        {
            near.push(join(dir, &shown(&entry.name)));
        }
    }
    Ok(near)
}

fn read_dockerfile(tree: &dyn Tree, path: &str) -> Result<Vec<u8>, KindError> {
    let source = tree.read(path, LIMIT_BYTES)?.unwrap_or_default();
    if !directives::has_instructions(&source) {
        return Err(KindError::EmptyDockerfile { path: path.to_owned() });
    }
    Ok(source)
}

/// What was asked for, or the default; a try may leave some out.
fn platforms(input: &PlanInput<'_>, wishes: &Wishes) -> Result<Vec<Platform>, KindError> {
    let mut planned = Vec::new();
    for said in &wishes.platforms {
        check_platform(said)?;
        planned.push(said.value.clone());
    }
    if planned.is_empty() {
        planned.clone_from(&RECIPE.platforms);
    }
    let asked = &input.options.platforms;
    if asked.is_empty() {
        return Ok(planned);
    }
    if !input.options.dry_try {
        return Err(KindError::OnlyWithTry);
    }
    if let Some(platform) = asked.iter().find(|p| !planned.contains(p)) {
        return Err(KindError::NotNarrower { platform: platform.clone(), planned });
    }
    planned.retain(|p| asked.contains(p));
    Ok(planned)
}

fn check_platform(said: &Said<Platform>) -> Result<(), KindError> {
    let Platform { os, arch, .. } = &said.value;
    if os == "linux" && RECIPE.architectures.contains(arch) {
        return Ok(());
    }
    let close =
        if os == "linux" { closest(arch, RECIPE.architectures.iter().map(String::as_str)) } else { None };
    Err(KindError::Platform {
        by: said.by,
        platform: said.value.to_string(),
        close: close.map(str::to_owned),
    })
}
