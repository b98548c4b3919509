//! What a user says of a spin build beside the manifest: `spin_config` in `build-config.yaml`.
//!
//! Must not choose an image for anybody; it only says which one was named.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `spin_config`. Each key may be left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpinConfig {
    /// `profile.NAME` of components.
    pub profile: Option<String>,
    /// The image in which every component is built that `images` does not name.
    pub image: Option<String>,
    /// Images by component.
    pub images: BTreeMap<String, String>,
}

impl SpinConfig {
    /// The image named for a component.
    pub(super) fn image_of(&self, component: &str) -> Option<&str> {
        self.images
            .get(component)
            .or(self.image.as_ref())
            .map(String::as_str)
            .filter(|image| !image.is_empty())
    }

    pub(super) fn profile(&self) -> Option<&str> {
        self.profile.as_deref().filter(|profile| !profile.is_empty())
    }
}
