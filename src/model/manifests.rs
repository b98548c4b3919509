//! Kubernetes YAML of a tree that a build resolves: which files, and what their references stand for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ImageName;

/// Files whose `ko://` references become images of the same build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifests {
    /// Paths in the tree, in the order of what comes out.
    pub files: Vec<String>,
    /// `ko://…` as it stands in the files -> the image of that program.
    pub references: BTreeMap<String, ImageName>,
}
