//! What has to be built, in which image and in which order.

use lemnos::kinds::spin::SpinConfig;

use super::{plan_of, said, tree};

fn manifest(components: &[(&str, &str)]) -> String {
    let mut text = "spin_manifest_version = 2\napplication.name = \"x\"\ntrigger = {}\n".to_owned();
    for (id, lines) in components {
        text.push_str(&format!("[component.{id}]\nsource = \"{id}.wasm\"\n{lines}\n"));
    }
    text
}

#[test]
fn each_component_is_built_in_its_toolchain() {
    let manifest = manifest(&[
        (
            "rust",
            "build = { command = [\"cargo test\", \"cargo build --target wasm32-wasip1\"], workdir = \"./rust/\" }",
        ),
        ("python", "build.command = \"componentize-py -w spin-http componentize app -o python.wasm\""),
        ("go", "build.command = \"go tool componentize-go build\""),
        ("copied", ""),
    ]);
    let config: SpinConfig = serde_yaml::from_str("images: {go: 'golang:1.26'}").unwrap();
    let (plan, notes) = plan_of(&tree(&manifest, &[]), &config).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    insta::assert_json_snapshot!((plan.steps, plan.wanted));
    let one: SpinConfig = serde_yaml::from_str("image: r.example.com/all/of/it@sha256:1111111111111111111111111111111111111111111111111111111111111111").unwrap();
    let (plan, _) = plan_of(&tree(&manifest, &[]), &one).unwrap();
    assert!(
        plan.steps
            .iter()
            .all(|step| step.prepare.is_empty() && step.image.starts_with("r.example.com/all/of/it@"))
    );
}

#[test]
fn a_toolchain_that_is_not_known_is_asked_for() {
    let refused: Vec<String> =
        ["npm run build", "tinygo build", "zig cc x.c", "./make-it", "cargo build && pip install x"]
            .iter()
            .map(|command| {
                let manifest = manifest(&[("it", &format!("build.command = {command:?}"))]);
                said(&plan_of(&tree(&manifest, &[]), &SpinConfig::default()).unwrap_err())
            })
            .collect();
    insta::assert_snapshot!(refused.join("\n"));
}

#[test]
fn the_example_is_planned_as_expected() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("buildpacks/spin");
    let read = |path: &str| std::fs::read_to_string(folder.join(path)).unwrap();
    let tree = ["spin.toml", "Cargo.toml", "src/main.rs", "static/index.html"]
        .iter()
        .fold(lemnos::model::tree::MemoryTree::default(), |tree, file| {
            tree.with(file, &read(&format!("example/{file}")))
        });
    let (plan, notes) = plan_of(&tree, &SpinConfig::default()).unwrap();
    assert!(notes.is_empty(), "{notes:?}");
    let planned = serde_json::to_value(&plan).unwrap();
    let expect: serde_json::Value = serde_json::from_str(&read("steps.json")).unwrap_or_default();
    assert_eq!(planned, expect, "buildpacks/spin/steps.json should be\n{planned:#}");
}
