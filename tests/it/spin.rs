//! The spin kind without a builder: manifests to plans, plans and contents to locked applications and artifacts.
//!
//! Every expectation is our own reading of Spin's schema and rules; none of it was made by Spin.

mod artifact;
mod errors;
mod files;
mod manifests;
mod steps;

use lemnos::kinds::spin::{self, Place, SpinConfig, SpinError};
use lemnos::model::tree::MemoryTree;
use lemnos::model::{SourceRules, SpinApp, SpinPlan};

/// The smallest module there is.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";

fn at_root() -> Place {
    Place { root: String::new(), manifest: "spin.toml".to_owned() }
}

fn plan_of(tree: &MemoryTree, config: &SpinConfig) -> Result<(SpinPlan, Vec<String>), SpinError> {
    spin::plan(tree, &at_root(), config, &SourceRules::default())
}

/// A tree of the manifest and files that hold their own names.
fn tree(manifest: &str, files: &[&str]) -> MemoryTree {
    let tree = MemoryTree::default().with("spin.toml", manifest);
    files.iter().fold(tree, |tree, file| tree.with(file, file))
}

/// The application of a manifest whose components are all in the tree.
fn app(manifest: &str) -> SpinApp {
    let files: Vec<&str> = manifest.split('"').filter(|text| text.ends_with(".wasm")).collect();
    plan_of(&tree(manifest, &files), &SpinConfig::default()).unwrap().0.app
}

/// An error as people see it: what, then the remedy.
fn said(error: &SpinError) -> String {
    format!("{error}\n  {}", error.hint().unwrap_or("(no hint)"))
}
