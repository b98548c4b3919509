//! Spin applications pushed by git and from a directory, taken out of the registry as a runtime takes them.

use std::path::Path;

use lemnos::model::{Digest, ImageName, Tag};
use lemnos::registry::{BlobSource, Registry, RegistryConfig};
use oci_distribution::client::{Client, ClientConfig, ClientProtocol};
use oci_distribution::manifest::OciManifest;
use oci_distribution::secrets::RegistryAuth;
use serde_json::Value;

use super::house::{House, Said};
use super::support::{engines, image};

pub const WASM: &str = "application/vnd.wasm.content.layer.v1+wasm";
const DATA: &str = "application/vnd.wasm.content.layer.v1+data";
const APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";
/// As the build command below prints it.
const MODULE: &[u8] = b"\0asm\x01\0\0\0web";
const IMAGE: &str = "spin_config:\n  image: busybox\n";

/// A component that is built from the tree, with one file of the tree and one that the build makes.
fn manifest(more: &str) -> String {
    format!(
        r#"spin_manifest_version = 2
[application]
name = "greeting"
version = "1.0.0"
[[trigger.http]]
route = "/..."
component = "web"
[component.web]
source = "out/web.wasm"
files = [{{ source = "static", destination = "/" }}, "made/*"]
[component.web.build]
command = "mkdir -p out made && seq 100 > made/numbers && printf '\\000asm\\001\\000\\000\\000web' > out/web.wasm"
{more}"#
    )
}

fn files(manifest: &str) -> [(&str, &str); 3] {
    [("spin.toml", manifest), ("build-config.yaml", IMAGE), ("static/index.html", "<p>hello</p>\n")]
}

/// What a runtime does with a reference: the manifest, then every layer of it by digest.
pub async fn pulled(reference: &str) -> (Value, Vec<(String, Vec<u8>)>, Value) {
    let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
    let reference: oci_distribution::Reference = reference.parse().unwrap();
    let auth = RegistryAuth::Anonymous;
    let (manifest, _) = client.pull_manifest(&reference, &auth).await.unwrap();
    let OciManifest::Image(manifest) = manifest else { panic!("an index: no runtime takes one") };
    let mut layers = Vec::new();
    for layer in manifest.layers.iter().chain([&manifest.config]) {
        let mut bytes = Vec::new();
        client.pull_blob(&reference, layer, &mut bytes).await.unwrap();
        assert_eq!(Digest::of(&bytes).as_str(), layer.digest);
        assert_eq!(bytes.len() as i64, layer.size);
        layers.push((layer.media_type.clone(), bytes));
    }
    let (media_type, config) = layers.pop().unwrap();
    assert_eq!(media_type, "application/vnd.oci.image.config.v1+json");
    let config = serde_json::from_slice(&config).unwrap();
    (serde_json::to_value(&manifest).unwrap(), layers, config)
}

/// The locked application of an artifact, with its constraints checked.
async fn application(reference: &str) -> (Value, Vec<(String, Vec<u8>)>, Value) {
    let (manifest, layers, config) = pulled(reference).await;
    assert_eq!(manifest["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!((config["architecture"].as_str(), config["os"].as_str()), (Some("wasm"), Some("wasip1")));
    assert_eq!(config["rootfs"]["diff_ids"], serde_json::json!([]));
    let (last, others) = layers.split_last().unwrap();
    assert_eq!(last.0, APPLICATION);
    let label = &config["config"]["Labels"]["com.fermyon.spin.lockedAppDigest"];
    assert_eq!(label, Digest::of(&last.1).as_str());
    assert!(others.iter().all(|(media_type, _)| [WASM, DATA].contains(&media_type.as_str())));
    (manifest, others.to_vec(), serde_json::from_slice(&last.1).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_becomes_one_manifest_and_two_machines_make_the_same() {
    let manifest = manifest("");
    let house = House::start("spin");
    house.app("shop");
    let dir = house.repository("shop", &files(&manifest));
    house
        .push(&dir, &["main"])
        .succeeded()
        .shows("Build kind: spin (spin.toml at the root (version 2, 1 component, http))")
        .shows("[linux/amd64 web] mkdir -p out made")
        .shows(&format!("Pushed the artifact to {}", house.image("shop")))
        .shows(&format!("tagged {}:latest", house.image("shop")));
    let (made, layers, locked) = application(&format!("{}:main", house.image("shop"))).await;
    assert_eq!(layers[0], (WASM.to_owned(), MODULE.to_vec()));
    assert_eq!((layers[1].0.as_str(), layers[1].1.len(), layers.len()), (DATA, 292, 2));
    let mounted: Vec<&str> = locked["components"][0]["files"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|f| f["path"].as_str())
        .collect();
    assert_eq!(mounted, ["index.html", "made/numbers"]);
    assert_eq!(made["annotations"]["org.opencontainers.image.version"], "1.0.0");
    let commit = house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout.trim().to_owned();
    assert_eq!(made["annotations"]["org.opencontainers.image.revision"], commit.as_str());
    let first = house.digest("shop", "main").unwrap();
    assert_eq!(house.digest("shop", "latest").as_deref(), Some(first.as_str()));

    let other = House::start("spin-two");
    other.app("shop");
    let clone = other.home.path().join("clone");
    std::fs::rename(&dir, &clone).unwrap();
    let url = other.url("shop");
    other.git(&clone, &["remote", "set-url", "builder", &url]).succeeded();
    other.push(&clone, &["main"]).succeeded();
    assert_eq!(other.digest("shop", "main").unwrap(), first, "two machines, one commit");

    // a commit without a change: everything but the annotations serves again
    other.commit(&clone, &[], "again");
    let said =
        other.push(&clone, &["main"]).succeeded().shows("its artifact serves again").hides("web] mkdir");
    assert!(said.stderr.contains("Pushed the artifact"));
    let recorded = other.builds("shop").remove(0)["images"].take();
    assert_eq!((recorded[0]["form"].as_str(), recorded.as_array().unwrap().len()), (Some("artifact"), 1));
    let (again, same, _) = application(&format!("{}:main", other.image("shop"))).await;
    assert_eq!(again["layers"], made["layers"]);
    assert_eq!(same, layers);
    assert_ne!(again["annotations"], made["annotations"]);
}

/// An address on loopback that serves one file.
async fn file_server(bytes: &'static [u8]) -> String {
    let router = axum::Router::new().route("/it.wasm", axum::routing::get(move || async move { bytes }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn fetched_component(source: &str) -> String {
    format!("[[trigger.http]]\nroute = \"/far\"\ncomponent = \"far\"\n[component.far]\nsource = {source}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_fetched_where_the_operator_lets_it_be_and_its_digest_is_right() {
    const FAR: &[u8] = b"\0asm\x0d\0\x01\0far";
    let address = file_server(FAR).await;
    let (right, wrong) = (Digest::of(FAR), Digest::of(b"else"));
    let source = |digest: &Digest| {
        manifest(&fetched_component(&format!(
            "{{ url = \"http://{address}/it.wasm\", digest = \"{digest}\" }}"
        )))
    };

    let closed = House::start("spin-closed");
    closed.app("shop");
    let dir = closed.repository("shop", &files(&source(&right)));
    closed
        .push(&dir, &["main"])
        .failed()
        .shows("builds fetch nothing from addresses inside this network")
        .shows("spin.toml:17:10");
    assert_eq!(closed.manifest("shop", "main"), None);

    let open = House::start_with("spin-open", &[], &[("LEMNOS_REMOTE_SOURCES", &address)]);
    open.app("shop");
    let dir = open.repository("shop", &files(&source(&wrong)));
    open.push(&dir, &["main"])
        .failed()
        .shows("is another file than was asked for")
        .shows(&format!("write digest = \"{right}\""));
    open.commit(&dir, &[("spin.toml", &source(&right))], "the right digest");
    open.push(&dir, &["main"]).succeeded();
    let (_, layers, locked) = application(&format!("{}:main", open.image("shop"))).await;
    assert!(layers.contains(&(WASM.to_owned(), FAR.to_vec())));
    assert_eq!(locked["components"].as_array().unwrap().len(), 2);
}

#[test]
fn what_cannot_be_built_is_refused_with_its_place() {
    let house = House::start("spin-bad");
    house.app("shop");
    let broken = "spin_manifest_version = 2\n[application\nname = \"x\"\n";
    let dir = house.repository("shop", &files(broken));
    let refused = |said: Said, texts: &[&str]| {
        let said = said.failed();
        texts.iter().for_each(|text| assert!(said.stderr.contains(text), "{text}\n{}", said.stderr));
    };
    refused(house.push(&dir, &["main"]), &["spin.toml:2:", "hint: "]);
    let twice = manifest("[component.web]\nsource = \"x.wasm\"\n");
    house.commit(&dir, &[("spin.toml", &twice)], "twice");
    refused(house.push(&dir, &["main"]), &["spin.toml:13:12: duplicate key"]);
    let missing = manifest("").replace("out/web.wasm\"\nfiles", "out/other.wasm\"\nfiles");
    house.commit(&dir, &[("spin.toml", &missing)], "missing");
    refused(
        house.push(&dir, &["main"]),
        &["the component web has no content: out/other.wasm is not there after the build", "hint: source of"],
    );
    let link = manifest("").replace("printf", "ln -s /etc/passwd made/link; printf");
    house.commit(&dir, &[("spin.toml", &link)], "link");
    refused(house.push(&dir, &["main"]), &["made/link is a symbolic link"]);
    let failing = manifest("").replace("mkdir -p out made", "echo no such luck; false");
    house.commit(&dir, &[("spin.toml", &failing)], "failing");
    refused(house.push(&dir, &["main"]), &["| no such luck", "exit 1"]);
    let config = "spin_config:\n  imgae: busybox\n";
    house.commit(&dir, &[("spin.toml", &manifest("")), ("build-config.yaml", config)], "config");
    refused(
        house.push(&dir, &["main"]),
        &["build-config.yaml:2:3: spin_config: unknown key \"imgae\"", "did you mean image?"],
    );
    assert_eq!(house.manifest("shop", "main"), None);
}

/// The binary in a directory, with the builder of the tests.
fn lemnos(dir: &Path, args: &[&str]) -> Said {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_lemnos"))
        .args(args)
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .env("BUILDKIT_HOST", &engines().buildkit)
        .output()
        .unwrap();
    Said::of(output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_built_and_pushed_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let write = |path: &str, text: &str| {
        std::fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        std::fs::write(root.join(path), text).unwrap();
    };
    for (path, text) in files(&manifest("")) {
        write(path, text);
    }
    let reference = format!("{}/{}:v1", engines().registry, super::buildkit::unique());
    lemnos(root, &["spin", "push", &reference]).failed().shows("spin.toml:9:10").shows("--build does");
    lemnos(root, &["spin", "build", "-c", "wbe"]).failed().shows("did you mean web?");
    lemnos(root, &["spin", "build", "--up"]).failed().shows("--up");
    lemnos(root, &["spin", "build", "--progress", "plain"])
        .succeeded()
        .shows("[web] mkdir -p out made")
        .shows("Finished building all Spin components");
    assert_eq!(std::fs::read(root.join("out/web.wasm")).unwrap(), MODULE);
    // from below, by the name that Spin has for it
    let below = root.join("static");
    let pushed = lemnos(&below, &["spin", "registry", "push", &reference]).succeeded();
    let (made, layers, _) = application(&reference).await;
    assert_eq!((layers.len(), made["annotations"]["org.opencontainers.image.created"].is_null()), (2, true));
    // built first, to another name: the same artifact
    std::fs::remove_dir_all(root.join("out")).unwrap();
    let other = format!("{reference}-again");
    let from = root.join("spin.toml");
    let again = lemnos(root, &["spin", "push", "--build", "-f", from.to_str().unwrap(), &other]).succeeded();
    assert_eq!(again.stdout, pushed.stdout);
    assert!(pushed.stdout.starts_with("Pushed with digest sha256:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_is_fetched_from_the_registry_that_has_it() {
    const FAR: &[u8] = b"\0asm\x0d\0\x01\0package";
    let name = format!("p{}", super::buildkit::unique());
    let host = &engines().registry;
    let image: ImageName = format!("{host}/lemnos-test/{name}").parse().unwrap();
    let registry = Registry::new(RegistryConfig::default()).unwrap();
    let put = async |bytes: &'static [u8]| {
        let digest = Digest::of(bytes);
        let source = BlobSource::Bytes(bytes.into());
        registry.put_blob(&image, &digest, bytes.len() as u64, source).await.unwrap();
        serde_json::json!({ "digest": digest, "size": bytes.len() })
    };
    let (mut config, mut layer) = (put(b"{}").await, put(FAR).await);
    config["mediaType"] = "application/vnd.wasm.config.v0+json".into();
    let tag = async |tag: &str, layer: &Value| {
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": [layer]
        });
        let tag: Tag = tag.parse().unwrap();
        registry.put_manifest(&image, &tag.into(), media_type, manifest.to_string()).await.unwrap();
    };
    layer["mediaType"] = "application/wasm".into();
    tag("1.0.0", &layer).await;
    layer["mediaType"] = "application/octet-stream".into();
    tag("2.0.0", &layer).await;

    let dir = tempfile::tempdir().unwrap();
    let write = |version: &str, more: &str| {
        let source = format!("{{ {more}package = \"lemnos-test:{name}\", version = \"{version}\" }}");
        let text =
            format!("spin_manifest_version = 2\napplication.name = \"far\"\n{}", fetched_component(&source));
        std::fs::write(dir.path().join("spin.toml"), text).unwrap();
    };
    let reference = format!("{host}/{name}:v1");
    write("1.0.0", &format!("registry = \"{host}\", "));
    lemnos(dir.path(), &["spin", "push", &reference]).succeeded();
    let (_, layers, _) = application(&reference).await;
    assert_eq!(layers, [(WASM.to_owned(), FAR.to_vec())]);
    write("2.0.0", &format!("registry = \"{host}\", "));
    lemnos(dir.path(), &["spin", "push", &reference]).failed().shows("is not one WebAssembly file");
    write("3.0.0", &format!("registry = \"{host}\", "));
    lemnos(dir.path(), &["spin", "push", &reference]).failed().shows("3.0.0");
    write("1.0.0", "");
    lemnos(dir.path(), &["spin", "push", &reference]).failed().shows("add registry = \"HOST\"");
}

/// The files below a directory of the repository.
fn tree(dir: &Path) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            files.extend(tree(&path).into_iter().map(|(below, text)| (format!("{name}/{below}"), text)));
        } else {
            files.push((name, std::fs::read_to_string(&path).unwrap()));
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_is_compiled_by_rust_and_two_pushes_are_one_artifact() {
    image("rust");
    let example = tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("buildpacks/spin/example"));
    let mut example: Vec<(&str, &str)> =
        example.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    // a program of the builder's own machine, which a C compiler links
    let script = "fn main() {\n    println!(\"cargo::warning=the build script ran\");\n}\n";
    example.push(("build.rs", script));
    let mut digests = Vec::new();
    for name in ["spin-rust", "spin-rust-two"] {
        let house = House::start(name);
        house.app("shop");
        let dir = house.repository("shop", &example);
        house.push(&dir, &["-o", "no-cache", "main"]).succeeded().shows("the build script ran");
        let (made, layers, locked) = application(&format!("{}:main", house.image("shop"))).await;
        assert_eq!(layers[0].0, WASM);
        assert!(layers[0].1.starts_with(b"\0asm\x01\0\0\0") && layers[0].1.len() > 10_000);
        assert_eq!(locked["triggers"][0]["trigger_config"]["executor"]["type"], "wagi");
        digests.push((house.git(&dir, &["rev-parse", "HEAD"]).succeeded().stdout, made["layers"].clone()));
    }
    assert_eq!(digests[0], digests[1], "one commit, compiled twice");
}

const PYTHON: &str = r#"from spin_sdk.http import Handler, Request, Response


class HttpHandler(Handler):
    async def handle_request(self, request: Request) -> Response:
        return Response(200, {"content-type": "text/plain"}, b"hello")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_made_of_python() {
    image("python");
    let house = House::start("spin-python");
    house.app("shop");
    let manifest = r#"spin_manifest_version = 2
application.name = "python"
[[trigger.http]]
route = "/..."
component = "app"
[component.app]
source = "app.wasm"
[component.app.build]
command = "componentize-py -w spin:up/http-trigger@4.1.0 componentize app -o app.wasm"
"#;
    let dir = house.repository("shop", &[("spin.toml", manifest), ("app.py", PYTHON)]);
    house.push(&dir, &["main"]).succeeded();
    let (_, layers, _) = application(&format!("{}:main", house.image("shop"))).await;
    let [(media_type, component)] = layers.as_slice() else { panic!("{} layers", layers.len()) };
    assert_eq!(media_type, WASM);
    assert!(component.starts_with(b"\0asm\x0d\0\x01\0") && component.len() > 1_000_000);
}

#[test]
fn a_stopped_build_ends_its_step_and_remembers_what_the_builder_was_sent() {
    let mut house = House::start("spin-stop");
    house.app("shop");
    let long = manifest("").replace("mkdir -p out made", "echo sta''rted && sleep 61804");
    let dir = house.repository("shop", &files(&long));
    let pushing = house.begin_push(&dir, &["main"]).until("started");
    let running = house.builds("shop")[0]["id"].as_str().unwrap().to_owned();
    house.lemnos(&["builds", "cancel", &running]).succeeded();
    pushing.finish().failed().shows("! [remote rejected] main -> main (cancelled by the operator)");
    house.until("the step is gone", |house| {
        let said = house.command("ps").args(["-eo", "args"]).output().unwrap();
        !String::from_utf8_lossy(&said.stdout).lines().any(|line| line == "sleep 61804")
    });
    let database = house.data().join("lemnos.db");
    let count = house.command("sqlite3").arg(&database).arg("SELECT count(*) FROM ledger").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&count.stdout).trim(), "1", "the times of the files that were sent");
}
