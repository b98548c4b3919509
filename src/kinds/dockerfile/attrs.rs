//! A `SolveSpec` as attributes of BuildKit's Dockerfile frontend (names: buildkit v0.32 frontend/dockerui/config.go).
//!
//! The session offers two directories: `context`, the context path's own directory, and `dockerfile`, the directory of
//! the Dockerfile (so that `NAME.dockerignore` is found beside it). Must not hold anything that is not in the spec.

use std::collections::BTreeMap;

use crate::kinds::attest_attrs;
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
    // BuildKit leaves the mounts' names out of a step's cache key, so that a step of one app, with what that app's mounts
    // held, would serve another app of the same lines. A host name of the name space's own stands in the key; it is in no
    // image.
    set("add-hosts", &format!("{}.cache.invalid=127.0.0.1", spec.step_namespace));
    for (name, value) in attest_attrs(&spec.attest) {
        set(&name, &value);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SolveSpec {
        serde_json::from_value(serde_json::json!({
            "frontend": "dockerfile.v0", "platforms": ["linux/amd64", "linux/arm64"], "context_path": "app",
            "context_tree": null, "dockerfile_path": "deploy/Dockerfile.web", "dockerfile_digest": null,
            "target": "run", "build_args": {"A": "1", "BUILDKIT_CACHE_MOUNT_NS": "another app's"},
            "labels": {"team": "shop"}, "compression": "gzip", "no_cache": true, "pull": true,
            "cache_namespace": "ours", "step_namespace": "of steps",
            "attest": {"provenance": "max", "sbom": format!("r.example.com/scan@sha256:{}", "a".repeat(64))}
        }))
        .unwrap()
    }

    fn shown(attrs: &BTreeMap<String, String>) -> String {
        attrs.iter().map(|(k, v)| format!("{k} = {v}\n")).collect()
    }

    #[test]
    fn everything_in_the_spec_becomes_an_attribute() {
        let spec = spec();
        insta::assert_snapshot!(shown(&dockerfile_attrs(&spec, &spec.platforms)), @r"
        add-hosts = of steps.cache.invalid=127.0.0.1
        attest:provenance = mode=max
        attest:sbom = generator=r.example.com/scan@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        build-arg:A = 1
        build-arg:BUILDKIT_CACHE_MOUNT_NS = ours
        cmdline = dockerfile.v0
        filename = Dockerfile.web
        image-resolve-mode = pull
        label:team = shop
        no-cache = 
        platform = linux/amd64,linux/arm64
        target = run
        ");
    }

    #[test]
    fn an_allowed_image_is_the_source_and_the_rest_is_left_out_when_unset() {
        let mut spec = spec();
        spec.frontend = "gateway.v0".to_owned();
        spec.frontend_image = Some("ghcr.io/x/y:1".to_owned());
        (spec.no_cache, spec.pull, spec.target) = (false, false, None);
        spec.build_args.clear();
        spec.labels.clear();
        spec.attest = crate::model::Attestations::default();
        let one: Vec<Platform> = vec!["linux/arm/v7".parse().unwrap()];
        insta::assert_snapshot!(shown(&dockerfile_attrs(&spec, &one)), @r"
        add-hosts = of steps.cache.invalid=127.0.0.1
        build-arg:BUILDKIT_CACHE_MOUNT_NS = ours
        cmdline = ghcr.io/x/y:1
        filename = Dockerfile.web
        platform = linux/arm/v7
        source = ghcr.io/x/y:1
        ");
    }
}
