//! A `SolveSpec` as attributes of BuildKit's Dockerfile frontend (names: buildkit v0.32 frontend/dockerui/config.go).
//!
//! The session offers two directories: `context`, the context path's own directory, and `dockerfile`, the directory of
//! the Dockerfile (so that `NAME.dockerignore` is found beside it). Must not hold anything that is not in the spec.

use std::collections::BTreeMap;

use crate::model::{Platform, SolveSpec};

/// The frontend's attributes for a solve of `spec` for some of its platforms.
pub fn dockerfile_attrs(spec: &SolveSpec, platforms: &[Platform]) -> BTreeMap<String, String> {
    let mut attrs = BTreeMap::new();
    let mut set = |key: &str, value: &str| {
        attrs.insert(key.to_owned(), value.to_owned());
    };
    for (name, value) in &spec.build_args {
        set(&format!("build-arg:{name}"), value);
    }
    for (name, value) in &spec.labels {
        set(&format!("label:{name}"), value);
    }
    // after the arguments, so that none of them can take their place
    set("build-arg:BUILDKIT_CACHE_MOUNT_NS", &spec.cache_namespace);
    set("filename", spec.dockerfile_path.rsplit('/').next().unwrap_or("Dockerfile"));
    let list: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    set("platform", &list.join(","));
    if let Some(target) = &spec.target {
        set("target", target);
    }
    if spec.no_cache {
        set("no-cache", "");
    }
    if spec.pull {
        set("image-resolve-mode", "pull");
    }
    // with `cmdline` set the frontend forwards to no image, whatever `# syntax=` says and however it is parsed
    match &spec.frontend_image {
        Some(image) => {
            set("source", image);
            set("cmdline", image);
        }
        None => set("cmdline", &spec.frontend),
    }
    attrs
}
