//! The plan of a spin application: its manifest found and read, then what to build, what to fetch and what to take out.
//!
//! The commands of the manifest run in toolchain images and nowhere else; which image is decided by the recipe or by the user.
//! Must not decide names of images, tags or annotations.

use super::errors::{At, SpinError};
use super::files::{joined, mounted_files};
use super::glob::{self, PathPattern};
use super::manifest::{LIMIT_BYTES, Manifest};
use super::normal::{Normal, normal};
use super::order::{build_order, refuse_composition};
use super::recipe::{self, RECIPE};
use super::wishes::SpinConfig;
use crate::model::closest::closest;
use crate::model::tree::clean_path;
use crate::model::{
    EntryKind, SourceRules, SpinApp, SpinComponent, SpinFetch, SpinMount, SpinPlan, SpinSource, SpinStep,
    SpinTerms, SpinWanted, Tree,
};

/// Where a manifest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The application's root, `""` for the tree's.
    pub root: String,
    pub manifest: String,
}

/// The nearest manifest, from the directory `start` upwards.
pub fn find(tree: &dyn Tree, start: &str) -> Result<Option<Place>, SpinError> {
    let mut root = start;
    loop {
        let manifest = joined(root, &RECIPE.manifest);
        let entry = tree.entry(&manifest)?;
        if entry.is_some_and(|entry| matches!(entry.kind, EntryKind::File { .. })) {
            return Ok(Some(Place { root: root.to_owned(), manifest }));
        }
        if root.is_empty() {
            return Ok(None);
        }
        root = root.rsplit_once('/').map_or("", |(above, _)| above);
    }
}

/// The manifest at `place`, read.
pub(super) fn read(tree: &dyn Tree, place: &Place) -> Result<Manifest, SpinError> {
    let bytes = tree.read(&place.manifest, LIMIT_BYTES)?.unwrap_or_default();
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|b| **b == b'\n').count();
        SpinError::at(&place.manifest, At { line, column: 1 }, "not UTF-8", "save the manifest as UTF-8")
    })?;
    Manifest::parse(&place.manifest, &text)
}

/// The plan, and what the user should know of it, one line each.
pub fn plan(
    tree: &dyn Tree,
    place: &Place,
    config: &SpinConfig,
    rules: &SourceRules,
) -> Result<(SpinPlan, Vec<String>), SpinError> {
    planned(tree, place, config, rules, true)
}

/// The same of a tree whose components have been built already: there are no steps, and what is not there is missing.
pub fn plan_as_built(
    tree: &dyn Tree,
    place: &Place,
    config: &SpinConfig,
    rules: &SourceRules,
) -> Result<(SpinPlan, Vec<String>), SpinError> {
    planned(tree, place, config, rules, false)
}

fn planned(
    tree: &dyn Tree,
    place: &Place,
    config: &SpinConfig,
    rules: &SourceRules,
    builds: bool,
) -> Result<(SpinPlan, Vec<String>), SpinError> {
    let manifest = read(tree, place)?;
    let mut notes = Vec::new();
    if manifest.version == 1 {
        notes.push(format!("{} is of version 1; it is read as the version 2 that it means", place.manifest));
    }
    if manifest.has_targets {
        notes.push(format!("{}: targets are not checked", place.manifest));
    }
    let planned = Planning {
        tree,
        place,
        config,
        rules,
        builds,
        normal: normal(&place.manifest, manifest, config.profile())?,
    };
    let order = build_order(&place.manifest, &planned.normal)?;
    refuse_composition(&place.manifest, &planned.normal)?;
    planned.check_config()?;
    let steps = if builds { planned.steps(&order)? } else { Vec::new() };
    let fetches = planned.sources(!steps.is_empty())?;
    if steps.is_empty() {
        // all files are in the tree: what is wrong with them is known now
        for component in &planned.normal.app.components {
            let files = mounted_files(tree, &place.root, component)?;
            notes.extend(empty_patterns(
                component,
                &files.iter().map(|f| f.source.as_str()).collect::<Vec<_>>(),
            ));
        }
    }
    let app = planned.normal.app;
    let (root, terms) = (place.root.clone(), SpinTerms::default());
    Ok((SpinPlan { root, wanted: wanted(&app), app, steps, fetches, terms }, notes))
}

/// Patterns that take no file: seldom meant.
pub fn empty_patterns(component: &SpinComponent, sources: &[&str]) -> Vec<String> {
    let takes_none = |text: &str| {
        // a name with brackets may be the file's own
        let takes = |pattern: &PathPattern| sources.iter().any(|s| *s == text || pattern.matches_file(s));
        PathPattern::new(text).is_ok_and(|pattern| !takes(&pattern))
    };
    let patterns = component.files.iter().filter_map(|mount| match mount {
        SpinMount::Pattern(text) if glob::is_pattern(text) && takes_none(text) => Some(text),
        _ => None,
    });
    patterns
        .map(|text| {
            let hint =
                if text.ends_with("**") { " (** is directories; **/* is all files below)" } else { "" };
            format!("component {}: files: {text:?} takes no file{hint}", component.id)
        })
        .collect()
}

/// What has to come out of the built tree: components, and whatever files may be mounted from.
fn wanted(app: &SpinApp) -> SpinWanted {
    let mut wanted = SpinWanted::default();
    for component in &app.components {
        if let SpinSource::Path(path) = &component.source {
            wanted.files.push(path.clone());
        }
        for mount in &component.files {
            wanted.places.push(match mount {
                SpinMount::Placed { source, .. } => source.clone(),
                SpinMount::Pattern(text) if glob::is_pattern(text) => {
                    PathPattern::new(text).map(|pattern| pattern.directory()).unwrap_or_default()
                }
                SpinMount::Pattern(path) => path.clone(),
            });
        }
    }
    wanted.files.sort();
    wanted.files.dedup();
    wanted.places.sort();
    wanted.places.dedup();
    // a place within another comes with it
    let all = wanted.places.clone();
    wanted.places.retain(|place| !all.iter().any(|other| other != place && is_within(place, other)));
    wanted
}

fn is_within(path: &str, dir: &str) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

struct Planning<'a> {
    tree: &'a dyn Tree,
    place: &'a Place,
    config: &'a SpinConfig,
    rules: &'a SourceRules,
    /// Whether what the manifest says to build is built.
    builds: bool,
    normal: Normal,
}

const NAME_AN_IMAGE: &str =
    "name an image that has all of it: spin_config: { images: { COMPONENT: IMAGE } } in build-config.yaml";

impl Planning<'_> {
    /// An image for a component that is not there would go unnoticed.
    fn check_config(&self) -> Result<(), SpinError> {
        let ids = || self.normal.app.components.iter().map(|component| component.id.as_str());
        for named in self.config.images.keys() {
            if !ids().any(|id| id == named) {
                let hint = match closest(named, ids()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("there are {}", ids().collect::<Vec<_>>().join(", ")),
                };
                return Err(SpinError::app(
                    format!("spin_config: images: there is no component {named:?}"),
                    hint,
                ));
            }
        }
        Ok(())
    }

    fn steps(&self, order: &[usize]) -> Result<Vec<SpinStep>, SpinError> {
        let in_order = order.iter().filter_map(|at| self.normal.app.components.get(*at));
        in_order.filter_map(|component| self.step(component).transpose()).collect()
    }

    fn step(&self, component: &SpinComponent) -> Result<Option<SpinStep>, SpinError> {
        let Some(build) = &component.build else { return Ok(None) };
        let commands = build.command.all().to_vec();
        let (image, prepare, caches) = match self.config.image_of(&component.id) {
            Some(image) => (image.to_owned(), Vec::new(), Vec::new()),
            None => {
                let toolchain = recipe::toolchain(&commands).map_err(|why| {
                    SpinError::app(format!("component {}: {why}", component.id), NAME_AN_IMAGE)
                })?;
                (toolchain.image.clone(), toolchain.prepare.clone(), toolchain.caches.clone())
            }
        };
        let image = super::full_image(&image).ok_or_else(|| {
            SpinError::app(
                format!("component {}: {image:?} is no image", component.id),
                "write HOST/PATH:TAG or HOST/PATH@DIGEST",
            )
        })?;
        if let Some(refusal) = self.rules.refuses(&format!("docker-image://{image}")) {
            let problem =
                format!("component {}: the image {image:?} is refused: {}", component.id, refusal.policy());
            return Err(SpinError::app(problem, refusal.remedy()));
        }
        let workdir = clean_path(build.workdir.as_deref().unwrap_or_default())?;
        Ok(Some(SpinStep { component: component.id.clone(), image, prepare, caches, commands, workdir }))
    }

    /// What is fetched; files that are neither there nor built are refused.
    fn sources(&self, builds: bool) -> Result<Vec<SpinFetch>, SpinError> {
        let mut fetches = Vec::new();
        for (component, facts) in self.normal.app.components.iter().zip(&self.normal.facts) {
            match &component.source {
                SpinSource::Path(path) => self.check_file(component, path, facts.source_at, builds)?,
                source @ (SpinSource::Url { .. } | SpinSource::Package { .. }) => {
                    self.check_address(component, source, facts.source_at)?;
                    fetches.push(SpinFetch { component: component.id.clone(), source: source.clone() });
                }
            }
        }
        Ok(fetches)
    }

    fn check_file(
        &self,
        component: &SpinComponent,
        path: &str,
        at: At,
        builds: bool,
    ) -> Result<(), SpinError> {
        let entry = self.tree.entry(&joined(&self.place.root, path))?;
        let id = &component.id;
        let (problem, hint) = match entry.map(|entry| entry.kind) {
            Some(EntryKind::File { .. }) => return Ok(()),
            // a build may replace whatever is in its way
            _ if builds => return Ok(()),
            Some(EntryKind::Symlink) => {
                (format!("component {id}: {path} is a symbolic link"), "commit the file itself".to_owned())
            }
            Some(_) => (
                format!("component {id}: {path} is not a file"),
                "name the component's .wasm file".to_owned(),
            ),
            None => {
                let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
                let listed = self.tree.list(&joined(&self.place.root, dir))?;
                let hint = match closest(name, listed.iter().map(|entry| entry.name.as_str())) {
                    Some(near) => format!("did you mean {}?", joined(dir, near)),
                    None if !self.builds && component.build.is_some() => {
                        "build it first: --build does".to_owned()
                    }
                    None => "commit it, or say with [component.ID.build] what builds it".to_owned(),
                };
                let why = if self.builds { ", and no component has a build" } else { "" };
                (format!("component {id}: {path} is not in the tree{why}"), hint)
            }
        };
        Err(SpinError::at(&self.place.manifest, at, problem, hint))
    }

    fn check_address(&self, component: &SpinComponent, source: &SpinSource, at: At) -> Result<(), SpinError> {
        let address = match source {
            SpinSource::Url { url, .. } => url.clone(),
            SpinSource::Package { registry: Some(registry), .. } => format!("https://{registry}/"),
            SpinSource::Path(_) | SpinSource::Package { registry: None, .. } => return Ok(()),
        };
        match self.rules.refuses(&address) {
            None => Ok(()),
            Some(refusal) => Err(SpinError::at(
                &self.place.manifest,
                at,
                format!("component {}: {address} is refused: {}", component.id, refusal.policy()),
                refusal.remedy(),
            )),
        }
    }
}
