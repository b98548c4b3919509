//! Pushes of Go programs to a whole server: what stands in the registry then, that it runs, and that it is what ko makes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::house::{House, Said, platforms};
use crate::support::{engines, image};

/// Answers with what it was built from and started with.
const MAIN: &str = "package main

import (
	\"fmt\"
	\"os\"
	\"runtime\"
)

var version = \"unknown\"

func main() {
	fmt.Println(\"hello from\", version, runtime.GOARCH, len(os.Args))
}
";
pub const MODULE: &str = "module example.com/hello\n\ngo 1.24\n";

/// A server that finds toolchain and base where the builder does.
pub fn house(name: &str) -> House {
    house_with(name, &[])
}

/// The same, with settings in its environment.
pub fn house_with(name: &str, env: &[(&str, &str)]) -> House {
    image("golang");
    image("static");
    let base = &engines().base_registry;
    let (hub, chainguard) = (format!("docker.io={base}"), format!("cgr.dev={base}"));
    House::start_with(name, &["--mirror", &hub, "--mirror", &chainguard], env)
}

/// What the base is called without a mirror.
fn base() -> String {
    format!("{}/chainguard/static", engines().base_registry)
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// The program of an image, pulled by crane, as a file here.
fn pulled(house: &House, image: &str, platform: &str, program: &str) -> PathBuf {
    let tar = house.home.path().join("pulled.tar");
    let mut crane = house.command(&house.engines.crane);
    crane.args(["export", "--insecure", "--platform", platform, image, tar.to_str().unwrap()]);
    Said::of(crane.output().unwrap()).succeeded();
    let mut archive = tar::Archive::new(std::fs::File::open(&tar).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let wanted = format!("ko-app/{program}");
    let mut entry = entries.find(|entry| entry.path().unwrap().ends_with(&wanted)).unwrap();
    let path = house.home.path().join(format!("{program}-{}", platform.replace('/', "-")));
    std::io::copy(&mut entry, &mut std::fs::File::create(&path).unwrap()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What a program says; one for another processor runs in qemu.
fn said(program: &Path, platform: &str) -> String {
    let mut command = match platform {
        "linux/arm64" => Command::new("qemu-aarch64-static"),
        "linux/arm/v7" => Command::new("qemu-arm-static"),
        _ => Command::new("/usr/bin/env"),
    };
    let output = command.arg(program).output().unwrap();
    assert!(output.status.success(), "{platform}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The image manifests at `image`, in the index's order or alone, each with its config.
fn images(house: &House, image: &str) -> Vec<(Value, Value)> {
    let crane = |what: &str, name: &str| {
        let output = house.command(&house.engines.crane).args([what, "--insecure", name]).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        json(&output.stdout)
    };
    let repository = image.split('@').next().unwrap();
    let repository = match repository.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => repository,
    };
    let top = crane("manifest", image);
    let manifests = match top["manifests"].as_array() {
        None => vec![top],
        Some(entries) => entries
            .iter()
            .map(|entry| crane("manifest", &format!("{repository}@{}", entry["digest"].as_str().unwrap())))
            .collect(),
    };
    let with_config = |manifest: Value| {
        let config =
            crane("blob", &format!("{repository}@{}", manifest["config"]["digest"].as_str().unwrap()));
        (manifest, config)
    };
    manifests.into_iter().map(with_config).collect()
}

#[test]
fn a_module_becomes_an_image_for_every_platform_that_runs_and_is_reused_unchanged() {
    let house = house("ko");
    house.app("hello");
    let work = house.repository("hello", &[("go.mod", MODULE), ("main.go", MAIN)]);
    house.push(&work, &["main"]).succeeded().shows("Build kind: ko (go.mod with one main package, .)");
    let image = house.image("hello");
    let index = house.manifest("hello", "main").unwrap();
    assert_eq!(platforms(&index), ["linux/amd64", "linux/arm64"]);
    for platform in ["linux/amd64", "linux/arm64"] {
        let program = pulled(&house, &format!("{image}:main"), platform, "hello");
        let arch = platform.trim_start_matches("linux/");
        assert_eq!(said(&program, platform), format!("hello from unknown {arch} 1"));
        let told = house.command(&engines().go).args(["version", "-m", program.to_str().unwrap()]).output();
        let told = String::from_utf8(told.unwrap().stdout).unwrap();
        let commit = house.git(&work, &["rev-parse", "HEAD"]).stdout;
        assert!(told.contains(&format!("vcs.revision={}", commit.trim())), "{told}");
        assert!(told.contains("vcs.modified=false"), "{told}");
    }
    // the SBOM of each image and of the index is found from it
    let tags = house.tags("hello");
    assert_eq!(tags.iter().filter(|tag| tag.starts_with("sha256-")).count(), 3, "{tags:?}");
    assert!(tags.iter().all(|tag| !tag.ends_with(".sbom")), "ko's form is there on request only: {tags:?}");
    let listed = house.manifest("hello", &house.digest("hello", "main").unwrap().replace(':', "-")).unwrap();
    assert_eq!(listed["manifests"][0]["artifactType"], "application/spdx+json");
    let copy = house.home.path().join("copy");
    let from = format!("docker://{image}:main");
    let args = ["copy", "--all", "--src-tls-verify=false", &from, &format!("dir:{}", copy.display())];
    Said::of(house.command("skopeo").args(args).output().unwrap()).succeeded();

    // the same commit again on its ref: nothing is compiled
    house.commit(&work, &[("README", "x")], "second");
    house.push(&work, &["main"]).succeeded().shows("go build");
    assert_ne!(house.manifest("hello", "main").unwrap()["manifests"], index["manifests"], "another commit");
    house.push(&work, &["+main~1:main"]).succeeded().hides("go build").shows("serve again");
    assert_eq!(house.manifest("hello", "main").unwrap(), index);
}

/// A program that is compiled fast.
pub const SMALL: &str = "package main\n\nvar version string\n\nfunc main() { println(version) }\n";

#[test]
fn a_push_and_ko_build_of_the_same_clone_make_the_same_images() {
    let house = house("ko-same");
    house.app("hello");
    house
        .lemnos(&["apps", "set", "hello", "platforms=linux/amd64,linux/arm/v7", "build-tags=true"])
        .succeeded();
    let config = format!(
        "defaultBaseImage: {}\ndefaultEnv: [GOFLAGS=-buildvcs=true]\nbuilds:\n- main: ./cmd/Web\n  ldflags:\n  - -s -w\n  \
         - -X main.version={{{{.Git.Tag}}}}-{{{{.Git.ShortCommit}}}}\n  linux_capabilities: cap_net_bind_service=+ep\n",
        base()
    );
    let files = [
        ("go.mod", MODULE),
        ("cmd/Web/main.go", SMALL),
        ("cmd/Web/kodata/page/index.html", "<p>hello"),
        (".ko.yaml", &config),
    ];
    let work = house.repository("hello", &files);
    std::os::unix::fs::symlink("page/index.html", work.join("cmd/Web/kodata/start")).unwrap();
    house.commit(&work, &[], "link");
    house.git(&work, &["tag", "-a", "-m", "one", "v1.0.0"]).succeeded();
    house.commit(&work, &[("README", "x")], "after the tag");
    house.push(&work, &["v1.0.0", "main"]).succeeded();

    let ko_repository = format!("{}/by-ko", house.image("hello"));
    let mut ko = house.command(&engines().ko);
    let go = engines().go.parent().unwrap();
    let path = format!("{}:{}", go.display(), std::env::var("PATH").unwrap());
    ko.args(["build", "./cmd/Web", "--platform", "linux/amd64,linux/arm/v7", "--bare"]).current_dir(&work);
    ko.env("PATH", path).env("KO_DOCKER_REPO", &ko_repository).env("GOTOOLCHAIN", "local");
    ko.env("GIT_CONFIG_GLOBAL", "/dev/null");
    let printed = Said::of(ko.output().unwrap()).succeeded().stdout;
    let (theirs, ours) =
        (images(&house, printed.trim()), images(&house, &format!("{}:main", house.image("hello"))));
    assert_eq!(ours.len(), 2);
    for ((their_manifest, their_config), (manifest, config)) in theirs.iter().zip(&ours) {
        assert_eq!(config, their_config);
        assert_eq!(manifest["annotations"], their_manifest["annotations"]);
        let types = |manifest: &Value| -> Vec<Value> {
            manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].clone()).collect()
        };
        assert_eq!(types(manifest), types(their_manifest));
    }
    let short = house.git(&work, &["rev-parse", "--short", "HEAD"]).stdout;
    let program = pulled(&house, &format!("{}:main", house.image("hello")), "linux/amd64", "Web");
    let output = Command::new(program).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), format!("v1.0.0-{}", short.trim()));
}

#[test]
fn two_servers_make_one_image_of_one_commit() {
    let (one, two) = (house("ko-one"), house("ko-two"));
    let mut seen = Vec::new();
    for house in [&one, &two] {
        house.app("hello");
        house.lemnos(&["apps", "set", "hello", "platforms=linux/amd64"]).succeeded();
        let work = house.repository("hello", &[("go.mod", MODULE), ("main.go", SMALL)]);
        house.push(&work, &["main"]).succeeded();
        assert!(
            house.manifest("hello", "main").unwrap()["manifests"].is_null(),
            "one platform alone is no index"
        );
        seen.push(house.digest("hello", "main").unwrap());
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn every_main_becomes_an_image_below_the_app_s_with_what_the_file_asks_for() {
    let house = house("ko-all");
    house.app("tools");
    house.lemnos(&["apps", "set", "tools", "platforms=linux/amd64", "labels=team=shop"]).succeeded();
    let config = "build_backend: ko\nko_config:\n  all: true\n  ports: [8080]\n  workdir: /tmp\n  args: [serve]\n  \
                  env: [MODE=live]\n  labels: {team: other, tier: web}\n  annotations: {org.example.who: us}\n  sbom_tags: true\n";
    let files = [
        ("go.mod", MODULE),
        ("cmd/a/main.go", SMALL),
        ("cmd/b/main.go", SMALL),
        ("build-config.yaml", config),
    ];
    let work = house.repository("tools", &files);
    house.push(&work, &["main"]).succeeded();
    // the record has both, each with what it is, and so does whoever looks with nothing but ssh
    let build = house.builds("tools").remove(0);
    let id = build["id"].as_str().unwrap();
    let shown = house.ssh(&format!("builds show {id}")).succeeded().stdout;
    let recorded = build["images"].as_array().unwrap();
    assert_eq!(recorded.len(), 2, "{build}");
    for (name, recorded) in ["a", "b"].into_iter().zip(recorded) {
        let app = format!("tools/{name}");
        let digest = house.digest(&app, "main").unwrap();
        assert_eq!(recorded["name"], house.image(&app).as_str());
        assert_eq!(recorded["digest"], digest.as_str());
        assert_eq!((&recorded["form"], &recorded["platforms"][0]), (&"image".into(), &"linux/amd64".into()));
        assert_eq!(recorded["media_type"], house.manifest(&app, "main").unwrap()["mediaType"]);
        assert_eq!(recorded["tags"].as_array().unwrap().len(), 3);
        assert!(shown.contains(&format!("{}@{digest}", house.image(&app))), "{shown}");
    }
    assert_eq!(shown.matches("form     image for linux/amd64").count(), 2, "{shown}");
    for name in ["a", "b"] {
        let app = format!("tools/{name}");
        assert_eq!(house.tags(&app).iter().filter(|tag| !tag.starts_with("sha256-")).count(), 3);
        // ko's form of the SBOM, too, as it was asked for
        let named = format!("{}.sbom", house.digest(&app, "latest").unwrap().replace(':', "-"));
        let sbom = house.manifest(&app, &named).unwrap();
        assert_eq!(sbom["layers"][0]["mediaType"], "text/spdx+json");
        let (manifest, config) = images(&house, &format!("{}:latest", house.image(&app))).remove(0);
        assert_eq!(manifest["annotations"]["org.example.who"], "us");
        let config = &config["config"];
        assert_eq!(config["Entrypoint"], serde_json::json!([format!("/ko-app/{name}")]));
        assert_eq!(config["Cmd"], serde_json::json!(["serve"]));
        assert_eq!(config["WorkingDir"], "/tmp");
        assert_eq!(config["ExposedPorts"], serde_json::json!({"8080/tcp": {}}));
        assert_eq!(config["Labels"], serde_json::json!({"team": "shop", "tier": "web"}));
        assert!(config["Env"].as_array().unwrap().contains(&"MODE=live".into()), "{config}");
    }
    // both or none: one that does not compile leaves the other's tags where they are
    let before = house.digest("tools/a", "main").unwrap();
    house.commit(&work, &[("cmd/b/main.go", "package main\n\nfunc main() { missing() }\n")], "broken");
    house
        .push(&work, &["main"])
        .failed()
        .shows("undefined: missing")
        .shows("go build example.com/hello/cmd/b");
    assert_eq!(house.digest("tools/a", "main").unwrap(), before);
}

/// A directory on which something is laid would be asked for whole each time.
#[test]
fn of_a_commit_only_what_has_changed_is_sent_to_the_builder() {
    let house = house("ko-sent");
    house.app("hello");
    let data = "some data\n".repeat(300_000);
    let work = house.repository("hello", &[("go.mod", MODULE), ("main.go", SMALL), ("data/text", &data)]);
    house.push(&work, &["main"]).succeeded().shows("transferring source 3.0 MB");
    house.commit(&work, &[("main.go", &SMALL.replace("main()", "main( )"))], "changed");
    house
        .push(&work, &["main"])
        .succeeded()
        .shows("go build example.com/hello")
        .hides("transferring source 3");
}

#[test]
fn a_platform_that_the_base_lacks_is_refused_before_anything_is_compiled() {
    let house = house("ko-lacks");
    house.app("hello");
    house.lemnos(&["apps", "set", "hello", "platforms=linux/amd64,linux/s390x"]).succeeded();
    let work = house.repository("hello", &[("go.mod", MODULE), ("main.go", SMALL)]);
    let said = house.push(&work, &["main"]).failed();
    said.shows("the base image has no linux/s390x; it has linux/amd64").hides("go build example");
    assert_eq!(house.manifest("hello", "main"), None);
}
