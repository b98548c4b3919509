//! `buildpacks/dockerfile/recipe.toml`: the kind's defaults as data, embedded when lemnos is compiled.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::model::Platform;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    pub names: [String; 2],
    pub platforms: Vec<Platform>,
    pub architectures: Vec<String>,
    pub frontends: Vec<String>,
    pub built_in: String,
}

/// The recipe.
pub(super) static RECIPE: LazyLock<Recipe> = LazyLock::new(|| {
    toml::from_str(include_str!("../../../buildpacks/dockerfile/recipe.toml"))
        .expect("the embedded recipe is read by a test of this file")
});

/// Images that `# syntax=` may name when the operator lists none.
pub fn default_frontends() -> Vec<String> {
    RECIPE.frontends.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_recipe_is_whole() {
        assert!(RECIPE.names.iter().all(|name| !name.is_empty()));
        assert!(RECIPE.frontends.contains(&RECIPE.built_in));
        for platform in &RECIPE.platforms {
            assert!(platform.os == "linux" && RECIPE.architectures.contains(&platform.arch), "{platform}");
        }
    }
}
