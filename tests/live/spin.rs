//! A spin application built by a real buildkitd, made into an artifact, and taken by a real registry.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use lemnos::assemble::spin::{
    Artifact, ComponentContent, Content, Contents, Shape, artifact, check_wasm, shape,
};
use lemnos::buildkit::llb::{Constraints, ImageConfig, Platform};
use lemnos::buildkit::session::filesend::Export;
use lemnos::buildkit::{Exporter, Session, SolveRequest};
use lemnos::kinds::spin::{self, SpinConfig};
use lemnos::model::{Digest, SourceRules, SpinPlan, SpinSource};
use lemnos::receive::DirTree;
use lemnos::solve::spin::{CONTEXT, SpinSolve, definition};

use super::buildkit::{build, connect, unique};
use super::support::engines;

/// Two components: the first leaves something in the tree for the second, and something in its image that the second must not
/// find; the second makes a file that is mounted. The bytes of a module are written by hand, as no compiler is at hand.
fn application(dir: &Path) {
    let manifest = format!(
        r#"
spin_manifest_version = 2
[application]
name = "live"
version = "1.0.0"
[[trigger.http]]
route = "/..."
component = "web"
[component.api]
source = "out/api.wasm"
[component.api.build]
command = [
  "mkdir -p ../out && echo secret > /left-in-the-image && echo {word} > ../word",
  "test -e /left-in-the-image && printf '\\000asm\\001\\000\\000\\000api' > ../out/api.wasm",
]
workdir = "api"
[component.web]
source = "out/web.wasm"
files = ["static/**/*.html", {{ source = "made", destination = "/data" }}]
exclude_files = ["static/secret/*"]
[component.web.build]
command = "test ! -e /left-in-the-image && mkdir -p made/deep && cp word made/deep/word && seq 100 > made/large && printf '\\000asm\\015\\000\\001\\000web' > out/web.wasm"
"#,
        word = unique()
    );
    let write = |path: &str, text: &str| {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("spin.toml", &manifest);
    write("api/x", "");
    write("static/index.html", "<p>index");
    write("static/secret/key.html", "<p>key");
    write("unwanted/large", &"x".repeat(100_000));
}

async fn built(plan: &SpinPlan, context: &Path, out: &Path) {
    let config = ImageConfig { env: vec!["PATH=/bin:/usr/bin".to_owned()], ..ImageConfig::default() };
    let images = BTreeMap::from([("docker.io/library/busybox:latest".to_owned(), config)]);
    let solve = SpinSolve {
        shared_key: &format!("live:{}", unique()),
        cache_namespace: "live",
        images: &images,
        excluded: &[],
    };
    let amd64 = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), ..Platform::default() };
    let definition = definition(plan, &solve, &Constraints::new().platform(amd64)).unwrap();
    let session = Session::builder(solve.shared_key).local_dir(CONTEXT, context).export(0, Export::dir(out));
    let request = SolveRequest {
        definition: Some(definition.to_pb()),
        exporters: vec![Exporter { kind: "local".into(), attrs: BTreeMap::new() }],
        internal: true,
        session: session.build().unwrap(),
        ..Default::default()
    };
    build(&connect(&engines().buildkit).await, request).await;
}

/// The contents of all components, by what stands in the exported directory.
fn contents(plan: &SpinPlan, out: &Path) -> (Contents, BTreeMap<Digest, Vec<u8>>) {
    let mut blobs = BTreeMap::new();
    let mut read = |path: &str| {
        let bytes = std::fs::read(out.join(path)).unwrap();
        let content = Content::of(&bytes);
        blobs.insert(content.digest.clone(), bytes);
        content
    };
    let mut contents = Contents::new();
    for component in &plan.app.components {
        let SpinSource::Path(path) = &component.source else { panic!("{component:?}") };
        let wasm = read(path);
        check_wasm(&component.id, &std::fs::read(out.join(path)).unwrap()).unwrap();
        let mounted = spin::mounted_files(&DirTree::new(out), "", component).unwrap();
        let files = mounted.iter().map(|file| (file.path.clone(), read(&file.source))).collect();
        contents.insert(component.id.clone(), ComponentContent { wasm, files });
    }
    (contents, blobs)
}

/// Puts every blob and then the manifest, by the distribution protocol.
async fn push(name: &str, made: &Artifact, mut blobs: BTreeMap<Digest, Vec<u8>>) -> String {
    let base = format!("http://{}", engines().registry);
    let client = reqwest::Client::new();
    for bytes in [&made.application, &made.config] {
        blobs.insert(Digest::of(bytes), bytes.clone());
    }
    for (digest, bytes) in blobs {
        let begun = client.post(format!("{base}/v2/{name}/blobs/uploads/")).send().await.unwrap();
        let location = begun.headers()["location"].to_str().unwrap().to_owned();
        let location = if location.starts_with('/') { format!("{base}{location}") } else { location };
        let mark = if location.contains('?') { '&' } else { '?' };
        let put = client.put(format!("{location}{mark}digest={digest}")).body(bytes).send().await.unwrap();
        assert_eq!(put.status(), 201, "{digest}");
    }
    let put = client
        .put(format!("{base}/v2/{name}/manifests/live"))
        .header("content-type", made.media_type)
        .body(made.manifest.clone())
        .send()
        .await
        .unwrap();
    assert_eq!(put.status(), 201, "{}", put.text().await.unwrap());
    format!("{}/{name}:live", engines().registry)
}

fn crane(args: &[&str]) -> Vec<u8> {
    let output = Command::new(&engines().crane).args(args).arg("--insecure").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test]
async fn an_application_is_built_and_its_artifact_stands_in_a_registry() {
    let dir = tempfile::tempdir().unwrap();
    let (context, out) = (dir.path().join("context"), dir.path().join("out"));
    application(&context);
    let tree = DirTree::new(&context);
    let place = spin::find(&tree, "").unwrap().unwrap();
    let config: SpinConfig = serde_yaml::from_str("image: busybox").unwrap();
    let (plan, _) = spin::plan(&tree, &place, &config, &SourceRules::default()).unwrap();
    built(&plan, &context, &out).await;
    assert!(!out.join("unwanted").exists() && !out.join("api").exists(), "only what is wanted comes out");

    let (contents, blobs) = contents(&plan, &out);
    let paths: Vec<&String> = contents["web"].files.keys().collect();
    assert_eq!(paths, ["data/deep/word", "data/large", "static/index.html"]);
    assert_eq!(shape(&plan.app, &contents).unwrap(), Shape::Files);
    let made = artifact(&plan.app, &contents, None, &BTreeMap::new()).unwrap();
    assert_eq!(made.layers.len(), 4, "two components, one file that is not small, the application");

    let name = push(&format!("spin/{}", unique()), &made, blobs).await;
    assert_eq!(crane(&["manifest", &name]), made.manifest);
    assert_eq!(String::from_utf8(crane(&["digest", &name])).unwrap().trim(), made.digest.as_str());
    let repository = name.trim_end_matches(":live");
    for layer in &made.layers {
        let blob = crane(&["blob", &format!("{repository}@{}", layer.digest)]);
        assert_eq!((Digest::of(&blob), blob.len() as u64), (layer.digest.clone(), layer.size_bytes));
    }
    let locked: serde_json::Value = serde_json::from_slice(&made.application).unwrap();
    let web = &locked["components"][1];
    assert_eq!((web["id"].as_str(), web["files"].as_array().unwrap().len()), (Some("web"), 3));
}
