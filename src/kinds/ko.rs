//! The ko kind: Go programs as images, without ko: planned here (see `images`), compiled by `solve::ko`, made by
//! `assemble::ko`.
//!
//! A tree is of this kind by its `.ko.yaml`, or when its go.mod (or go.work) has exactly one main package.

mod command;
mod config;
mod constraint;
mod errors;
mod extras;
mod facts;
mod images;
mod mains;
mod modules;
mod plan;
mod recipe;
mod reference;
pub mod resolve;
mod resolving;
mod source;
pub mod template;
mod yaml;

pub use config::{BuildEntry, KoConfig};
pub use errors::KoError;
pub use extras::KoWishes;
pub use facts::{Facts, GitFacts};
pub use images::{Images, Input, Program, images};
pub use recipe::debugger;
pub use reference::full as full_reference;
pub use resolving::resolved;
pub use yaml::At;

use super::{Draft, Kind, KindError, PlanInput, Verdict, Wishes};
use crate::model::{EntryKind, KindName, Tree};
use recipe::RECIPE;

pub(super) struct Ko;

impl Kind for Ko {
    fn name(&self) -> KindName {
        KindName::Ko
    }

    fn needs(&self) -> &'static str {
        "a .ko.yaml at the root, or a go.mod with exactly one main package"
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn detect(&self, tree: &dyn Tree, wishes: &Wishes) -> Result<Verdict, KindError> {
        if let Some(name) = config::find(tree)? {
            return Ok(Verdict::Yes { evidence: format!("{name} at the root") });
        }
        let Some(file) = module_file(tree)? else { return Ok(no(NOTHING)) };
        let chosen = wishes.kind.as_ref().is_some_and(|said| said.value == KindName::Ko);
        // a file that `go` refuses is no reason to refuse a build of another kind
        let found = match mains_of(tree) {
            Ok(found) => found,
            Err(error @ KindError::Ko(_)) if !chosen => {
                return Ok(no(&format!("no .ko.yaml at the root, and {error}")));
            }
            Err(error) => return Err(error),
        };
        let dirs: Vec<String> = found.into_iter().map(|main| main.dir).collect();
        Ok(match dirs.as_slice() {
            [dir] => {
                Verdict::Yes { evidence: format!("{file} with one main package, {}", errors::shown_dir(dir)) }
            }
            [] => no(&format!("no .ko.yaml at the root, and {file} has no main package")),
            // which of them is a question for whoever chose this kind
            _ if chosen => Verdict::Yes { evidence: format!("{file} with {} main packages", dirs.len()) },
            _ => {
                let several = KoError::SeveralMains { dirs }.to_string();
                no(&format!(
                    "no .ko.yaml at the root, and {several}; a .ko.yaml, or ko_config in build-config.yaml with `build_backend: ko`, says which"
                ))
            }
        })
    }

    fn glance(&self, tree: &dyn Tree, _wishes: &Wishes) -> Result<Verdict, KindError> {
        Ok(match (config::find(tree)?, module_file(tree)?) {
            (Some(name), _) => Verdict::Yes { evidence: format!("{name} at the root") },
            (None, Some(file)) => no(&format!(
                "no .ko.yaml at the root; `build_backend: ko` in build-config.yaml builds what {file} has"
            )),
            (None, None) => no(NOTHING),
        })
    }

    fn plan(&self, input: &PlanInput<'_>, wishes: &Wishes) -> Result<Draft, KindError> {
        plan::plan(input, wishes)
    }
}

const NOTHING: &str = "no .ko.yaml and no go.mod at the root";

fn no(reason: &str) -> Verdict {
    Verdict::No { reason: reason.to_owned() }
}

/// What makes the root a Go module or a workspace of them.
fn module_file(tree: &dyn Tree) -> Result<Option<&'static str>, KindError> {
    for name in ["go.work", "go.mod"] {
        if tree.entry(name)?.is_some_and(|entry| matches!(entry.kind, EntryKind::File { .. })) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

fn mains_of(tree: &dyn Tree) -> Result<Vec<mains::Main>, KindError> {
    let platform =
        RECIPE.platforms.first().cloned().expect("a test of the recipe sees that it has platforms");
    let minor = recipe::minor(&RECIPE.version);
    mains::mains(tree, &constraint::Target { platform, cgo: false, tags: Vec::new(), minor })
}
