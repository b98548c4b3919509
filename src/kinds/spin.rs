//! The spin kind: a `spin.toml`, its components built in toolchain images, and one artifact that Spin's runtimes take.
//!
//! Spin's own program is not run: the manifest is read here (`manifest`, `normal`), the build planned (`plan`), and the
//! artifact made by `assemble::spin`. What only Spin's program could do, composing components, is refused by name. Must not
//! look outside of the tree.

mod document;
mod errors;
mod files;
mod glob;
mod hosts;
mod ids;
mod manifest;
mod normal;
mod order;
mod plan;
mod recipe;
mod wishes;

use super::{By, Draft, DraftImage, Kind, KindError, PlanInput, Verdict, Wishes, attestations};
use crate::model::{EntryKind, KindName, SpinPlan, SpinTerms, Tree, Work};

pub use errors::{At, SpinError};
pub use files::{MountedFile, mounted_files};
pub use plan::{Place, empty_patterns, find, plan, plan_as_built};
use recipe::RECIPE;
pub use wishes::SpinConfig;

pub(super) struct Spin;

const IGNORE_LIMIT_BYTES: u64 = 1024 * 1024;
/// So many directories at the root are looked into for the sake of a reason.
const LIMIT_DIRS: usize = 64;

impl Kind for Spin {
    fn name(&self) -> KindName {
        KindName::Spin
    }

    fn needs(&self) -> &'static str {
        "a spin.toml at the root, or at or above context_path"
    }

    fn detect(&self, tree: &dyn Tree, wishes: &Wishes) -> Result<Verdict, KindError> {
        let start = wishes.context_path.as_ref().map_or("", |said| said.value.as_str());
        Ok(match find(tree, start)? {
            Some(place) => Verdict::Yes { evidence: evidence(tree, &place) },
            None => Verdict::No { reason: reason(tree)? },
        })
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn plan(&self, input: &PlanInput<'_>, wishes: &Wishes) -> Result<Draft, KindError> {
        let start = wishes.context_path.as_ref().map_or("", |said| said.value.as_str());
        let Some(place) = find(input.tree, start)? else {
            let problem = format!("there is no {} any more", RECIPE.manifest);
            return Err(SpinError::app(problem, format!("add {}", self.needs())).into());
        };
        refuse_narrowing(input)?;
        let config = SpinConfig::read(input.tree)?;
        let (mut plan, mut notes) = plan(input.tree, &place, &config, input.sources)?;
        notes.extend(without_effect(input, wishes));
        plan.terms = SpinTerms {
            tree: input.tree.entry(&place.root)?.and_then(|entry| entry.id),
            cache_namespace: super::cache_namespace(input.app_id, input.reference, input.options.dry_try),
            excluded: excluded(input.tree, &place.root)?,
            no_cache: input.options.no_cache,
            pull: input.options.rebuild,
            policy: input.policy.clone(),
            attest: attestations(input, commands(&plan))?,
        };
        let image = DraftImage { name: input.image.clone(), work: Work::Spin(Box::new(plan)) };
        Ok(Draft { images: vec![image], notes, manifests: None })
    }
}

/// What the components' steps run, by what they are called.
fn commands(plan: &SpinPlan) -> impl Iterator<Item = (String, &str)> {
    plan.steps.iter().flat_map(|step| {
        let named = |command| (format!("a command of the component {}", step.component), command);
        step.prepare.iter().chain(&step.commands).map(String::as_str).map(named)
    })
}

/// Lines of the `.dockerignore` beside the manifest: what no builder is sent.
pub fn excluded(tree: &dyn Tree, root: &str) -> Result<Vec<String>, SpinError> {
    let text = tree.read(&files::joined(root, ".dockerignore"), IGNORE_LIMIT_BYTES)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(|line| line.trim_start_matches('/').to_owned()).collect())
}

/// An artifact is for every platform: nothing of it can be left out.
fn refuse_narrowing(input: &PlanInput<'_>) -> Result<(), KindError> {
    let options = input.options;
    let said = match (options.platforms.is_empty(), options.build_args.is_empty()) {
        (true, true) => return Ok(()),
        (false, _) => "platform",
        (true, false) => "build-arg",
    };
    let problem = format!("the push option {said} means nothing to a spin artifact");
    Err(SpinError::app(problem, format!("leave -o {said}=… out")).into())
}

/// Settings of other kinds' builds, one line each.
fn without_effect(input: &PlanInput<'_>, wishes: &Wishes) -> Vec<String> {
    let settings = input.settings;
    let said = |by: By| format!("which {by} name");
    let platforms = wishes.platforms.first().map(|first| {
        format!("platforms ({}) have no effect: a spin artifact is for all of them", said(first.by))
    });
    let of_images = [
        ("build_args", !wishes.build_args.is_empty(), "spin's build commands take none"),
        ("target", wishes.target.is_some(), "it is a Dockerfile's"),
        ("labels", !settings.labels.is_empty(), "a spin artifact has none; annotations come from spin.toml"),
    ];
    let others = of_images.into_iter().filter(|(_, set, _)| *set);
    let others = others.map(|(key, _, why)| format!("{key} has no effect: {why}"));
    platforms.into_iter().chain(others).collect()
}

/// Why a tree is of this kind; of a manifest that cannot be read no more than where it is.
fn evidence(tree: &dyn Tree, place: &Place) -> String {
    let at = match place.root.as_str() {
        "" => format!("{} at the root", RECIPE.manifest),
        _ => place.manifest.clone(),
    };
    let Ok(manifest) = plan::read(tree, place) else { return at };
    let kinds: Vec<&str> = manifest.triggers.iter().map(|trigger| trigger.kind.as_str()).collect();
    let mut distinct: Vec<String> = kinds.iter().map(|kind| super::errors::shown(kind)).collect();
    distinct.dedup();
    let count = manifest.components.len();
    let components = if count == 1 { "1 component".to_owned() } else { format!("{count} components") };
    let triggers = if distinct.is_empty() { "no trigger".to_owned() } else { distinct.join(" and ") };
    format!("{at} (version {}, {components}, {triggers})", manifest.version)
}

/// Why a tree is not of this kind.
fn reason(tree: &dyn Tree) -> Result<String, KindError> {
    let name = RECIPE.manifest.as_str();
    if tree.entry(name)?.is_some() {
        return Ok(format!("{name} at the root is not a regular file"));
    }
    let dirs = tree.list("")?.into_iter().filter(|entry| entry.kind == EntryKind::Dir).take(LIMIT_DIRS);
    for dir in dirs {
        let path = files::joined(&dir.name, name);
        if matches!(tree.entry(&path), Ok(Some(_))) {
            let path = super::errors::shown(&path);
            return Ok(format!("no {name} at the root (there is {path}: context_path chooses it)"));
        }
    }
    Ok(format!("no {name} at the root"))
}

/// An image reference with host, path, and tag or digest, as BuildKit completes one; none for what is no image.
fn full_image(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse::<crate::model::Digest>().ok()?)),
        None => (image, None),
    };
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag.parse::<crate::model::Tag>().ok()?)),
        _ => (name, None),
    };
    let host =
        name.split_once('/').map(|(host, _)| host).filter(|host| crate::model::image::is_registry_host(host));
    let name = match (host, name.contains('/')) {
        (Some(_), _) => name.to_owned(),
        (None, true) => format!("docker.io/{name}"),
        (None, false) => format!("docker.io/library/{name}"),
    };
    let name: crate::model::ImageName = name.parse().ok()?;
    Some(match (tag, digest) {
        (tag, Some(digest)) => {
            format!("{name}{}@{digest}", tag.map(|tag| format!(":{tag}")).unwrap_or_default())
        }
        (Some(tag), None) => format!("{name}:{tag}"),
        (None, None) => format!("{name}:latest"),
    })
}
