//! The ko kind's planning through its public functions: against ko's own answers, and the graph that compiles.

use std::collections::BTreeMap;

use lemnos::buildkit::llb;
use lemnos::kinds::KindError;
use lemnos::kinds::ko::{Facts, GitFacts, Images, Input, images};
use lemnos::model::tree::MemoryTree;
use lemnos::model::{KoImage, Platform, SourceRules};
use lemnos::solve::ko::compile;

const MAIN: &str = "package main\n\nfunc main() {}\n";

/// As in tests/oracle/ko/builds.go.
fn app() -> MemoryTree {
    [
        ("go.mod", "module example.com/App\n\ngo 1.24\n"),
        ("main.go", MAIN),
        ("cmd/a/main.go", MAIN),
        ("cmd/b/main.go", MAIN),
        ("cmd/b/more.go", "package main\n"),
        ("lib/lib.go", "package lib\n"),
        ("sub/go.mod", "module example.com/sub\n\ngo 1.24\n"),
        ("sub/main.go", MAIN),
        ("sub/cmd/c/main.go", MAIN),
    ]
    .iter()
    .fold(MemoryTree::default(), |tree, (path, text)| tree.with(path, text))
}

fn facts() -> Facts {
    let git = GitFacts {
        branch: "main".to_owned(),
        tag: Some("v1.2.3".to_owned()),
        short_commit: "ddb3942".to_owned(),
        full_commit: "ddb394248f571fa6a5c50e151402789f824e074a".to_owned(),
        committed_at_s: 1_700_000_000,
        dirty: false,
    };
    Facts { git: Some(git), date_s: 1_700_000_000 }
}

fn planned_with(
    tree: &MemoryTree,
    platforms: &[&str],
    arguments: &[(&str, &str)],
    facts: &Facts,
) -> Result<Images, KindError> {
    let platforms: Vec<Platform> = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    images(&Input {
        tree,
        platforms: &platforms,
        arguments: &arguments.iter().map(pair).collect(),
        facts,
        cache_namespace: "0123456789abcdef",
        sources: &SourceRules::default(),
        netrc: false,
        ssh: false,
        no_cache: false,
        pull: false,
        program: None,
    })
}

fn planned(tree: &MemoryTree, platforms: &[&str]) -> Result<Images, KindError> {
    planned_with(tree, platforms, &[], &facts())
}

/// Variables that are ours: of a machine's own ko would take whatever is there.
fn without_ours(env: &[(String, String)]) -> BTreeMap<String, String> {
    let ours = [
        "GIT_TERMINAL_PROMPT",
        "GOCACHE",
        "GOGC",
        "GOMEMLIMIT",
        "GOMODCACHE",
        "GOPATH",
        "GOTOOLCHAIN",
        "HOME",
        "PATH",
    ];
    env.iter().filter(|(name, _)| !ours.contains(&name.as_str())).cloned().collect()
}

/// What is refused here and taken by ko: it is without any effect there.
const STRICTER: [&str; 1] = ["defaultEnv: {A: 1}\n"];

/// The other way round: Go's YAML refuses a tab before a key at the root, ours takes it for what it looks like.
const MILDER: [&str; 1] = ["\tdefaultEnv: []\n"];

#[test]
fn go_is_called_as_ko_calls_it() {
    let table = include_str!("../oracle/ko/builds.jsonl");
    let (mut wrong, mut built, mut refused) = (Vec::new(), 0, 0);
    for line in table.lines() {
        let case: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let config = text("config");
        let wish = format!("ko_config:\n  import_path: {}\n", text("import"));
        let tree = app().with(".ko.yaml", &config).with("build-config.yaml", &wish);
        let made = planned(&tree, &[&text("platform")]);
        let fails = case["error"].as_bool() == Some(true) || STRICTER.contains(&config.as_str());
        let image = match made {
            Err(_) if fails => {
                refused += 1;
                continue;
            }
            Err(error) => {
                wrong.push(format!("{config:?}: {error}"));
                continue;
            }
            Ok(_) if MILDER.contains(&config.as_str()) => continue,
            Ok(made) if fails => {
                wrong
                    .push(format!("{config:?}: ko refuses, here it is {:?}", made.images[0].compile.targets));
                continue;
            }
            Ok(made) => made.images.into_iter().next().unwrap(),
        };
        built += 1;
        let target = &image.compile.targets[0];
        let mut args = target.args.clone();
        args.extend(["-o".to_owned(), "OUT".to_owned(), image.compile.import_path.clone()]);
        let dir = if image.compile.dir.is_empty() { "." } else { &image.compile.dir };
        let base = text("base");
        let base = if base.starts_with("busybox") { format!("docker.io/library/{base}") } else { base };
        let base =
            if base.rsplit('/').next().unwrap().contains(':') { base } else { format!("{base}:latest") };
        let ours = serde_json::json!({"args": args, "env": without_ours(&target.env), "dir": dir, "base": image.base});
        let kos =
            serde_json::json!({"args": case["args"], "env": case["env"], "dir": case["dir"], "base": base});
        if ours != kos {
            wrong.push(format!("{config:?}:\n  ours {ours}\n  ko's {kos}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(built > 40 && refused > 15, "{built} built, {refused} refused");
}

#[test]
fn ko_s_own_platforms_count_where_no_others_are_asked_for() {
    let of = |config: &str, asked: &[&str]| -> Vec<String> {
        let made = planned(&app().with(".ko.yaml", config), asked).unwrap();
        made.images[0].compile.targets.iter().map(|target| target.platform.to_string()).collect()
    };
    let two = "defaultPlatforms:\n- linux/arm/v7\n- linux/s390x,linux/arm64/v8\n";
    assert_eq!(of(two, &[]), ["linux/arm/v7", "linux/s390x", "linux/arm64"]);
    assert_eq!(of(two, &["linux/riscv64"]), ["linux/riscv64"]);
    assert_eq!(of("", &[]), ["linux/amd64", "linux/arm64"]);
}

/// A program with everything that a plan can hold.
fn everything() -> MemoryTree {
    let config = "defaultBaseImage: r.example.com/base/default\nbaseImageOverrides:\n  example.com/app/CMD/a: r.example.com/base/own:2\nDefaultLDFlags: [-w]\nverification: x\nbuilds:\n- id: shop\n  dir: cmd\n  main: a/main.go\n  env: ['A=1', 'GOFLAGS=-mod=vendor']\n  flags: -tags 'netgo'\n  ldflags:\n  - -s\n  - '-X main.v={{if .Git.IsClean}}{{.Git.Tag}}{{end}} -X main.arch={{.Env.GOARCH}} -X main.n={{.Env.NAME}}'\n  linux_capabilities: cap_net_bind_service=+ep\n  colour: red\n";
    let extras = "build_backend: ko\nko_config:\n  ports: [8080]\n  workdir: /data\n  args: [serve]\n  env: [MODE=fast]\n  labels: {team: shop}\n  annotations: {org.example.x: 'y'}\n  destinations: [r.example.com/other/shop]\n";
    app()
        .with(".ko.yaml", config)
        .with("build-config.yaml", extras)
        .with("cmd/a/kodata/x", "x")
        .with("go.work", "go 1.25\ntoolchain go1.25.3\nuse .\n")
}

#[test]
fn a_plan_holds_everything_that_decides_an_image() {
    let made =
        planned_with(&everything(), &["linux/amd64", "linux/arm/v6"], &[("NAME", "x y")], &facts()).unwrap();
    assert_eq!(
        made.notes,
        [
            ".ko.yaml:5: unknown key \"verification\" has no effect, as with ko",
            ".ko.yaml:16: unknown key \"colour\" has no effect, as with ko"
        ]
    );
    insta::assert_json_snapshot!(made.images);
    let json = serde_json::to_string(&made.images).unwrap();
    assert_eq!(serde_json::from_str::<Vec<KoImage>>(&json).unwrap(), made.images);
}

#[test]
fn one_program_is_built_or_the_pusher_is_asked_which() {
    let of = |tree: &MemoryTree| -> Result<Vec<String>, String> {
        let made = planned(tree, &[]).map_err(|error| error.to_string())?;
        Ok(made.images.into_iter().map(|image| image.compile.import_path).collect())
    };
    let several = "the tree has 3 main packages: ., ./cmd/a, ./cmd/b";
    assert_eq!(of(&app()).unwrap_err(), several);
    assert_eq!(of(&app().with(".ko.yaml", "")).unwrap(), ["example.com/App"], "ko's own default");
    let all = app().with("build-config.yaml", "ko_config: {all: true}\n");
    assert_eq!(of(&all).unwrap(), ["example.com/App", "example.com/App/cmd/a", "example.com/App/cmd/b"]);
    let listed = "builds:\n- main: ./cmd/b\n- dir: sub\n";
    assert_eq!(
        of(&app().with(".ko.yaml", listed)).unwrap_err(),
        "the tree has 2 main packages: ./cmd/b, ./sub"
    );
    assert_eq!(
        of(&all.clone().with(".ko.yaml", listed)).unwrap(),
        ["example.com/App/cmd/b", "example.com/sub"]
    );
    for (named, expect) in [
        ("example.com/App/cmd/a", "example.com/App/cmd/a"),
        ("ko://example.com/App", "example.com/App"),
        ("./sub/cmd/c", "example.com/sub/cmd/c"),
        ("example.com/sub/cmd/c", "example.com/sub/cmd/c"),
    ] {
        let wish = format!("ko_config:\n  import_path: {named}\n");
        assert_eq!(of(&app().with(".ko.yaml", listed).with("build-config.yaml", &wish)).unwrap(), [expect]);
    }
}

#[test]
fn a_program_of_a_dependency_is_found_where_it_is_vendored() {
    let wish = "ko_config:\n  import_path: example.org/dep/cmd/tool\n";
    let dir = "vendor/example.org/dep/cmd/tool";
    let tree = app()
        .with("build-config.yaml", wish)
        .with("vendor/modules.txt", "# example.org/dep v1.0.0\n## explicit\nexample.org/dep/cmd/tool\n")
        .with(&format!("{dir}/kodata/x"), "x")
        .with(&format!("{dir}/main.go"), "package main\n\nfunc main() {}\n");
    let image = planned(&tree, &[]).unwrap().images.remove(0);
    assert_eq!(
        (image.compile.import_path.as_str(), image.program.as_str()),
        ("example.org/dep/cmd/tool", "tool")
    );
    assert_eq!(image.kodata.unwrap().path, format!("{dir}/kodata"));
    let library = tree.with(&format!("{dir}/main.go"), "package dep\n");
    let error = planned(&library, &[]).unwrap_err().to_string();
    assert!(error.contains("its package is dep") && error.starts_with("build-config.yaml:2"), "{error}");
}

#[test]
fn what_cannot_be_planned_is_refused_with_its_place() {
    let mut said = String::new();
    for (file, text) in [
        (".ko.yaml", "builds:\n- main: ./cmd/a\n- dir: cmd\n  main: a/main.go\n"),
        (".ko.yaml", "builds:\n- main: ./lib\n"),
        (".ko.yaml", "builds:\n- main: ../x\n"),
        (".ko.yaml", "builds:\n- main: ./cmd/x\n"),
        (".ko.yaml", "builds:\n  - main: [\n"),
        (".ko.yaml", "defaultEnv: [A=1]\ndefaultenv: [B=1]\n"),
        (".ko.yaml", "defaultFlags:\n- 1.5\n"),
        (".ko.yaml", "defaultFlags: [-v, '--toolexec=x']\n"),
        (".ko.yaml", "defaultEnv: ['GOFLAGS=-v -toolexec=x']\n"),
        (".ko.yaml", "defaultLdflags:\n- -s\n- '{{.Env.NOPE}}'\n"),
        (".ko.yaml", "defaultLdflags: ['{{range .Env}}{{.}}{{end}}']\n"),
        (".ko.yaml", "defaultPlatforms: [all]\n"),
        (".ko.yaml", "defaultPlatforms: [windows/amd64]\n"),
        (".ko.yaml", "defaultPlatforms: ['linux/arm/seven']\n"),
        (".ko.yaml", "defaultBaseImage: 'A B'\n"),
        ("build-config.yaml", "ko_config: {import_path: ./lib}\n"),
        ("build-config.yaml", "ko_config: {import_path: example.org/x}\n"),
        ("build-config.yaml", "ko_config: {config: deploy}\n"),
        ("build-config.yaml", "ko_config: {all: true, destinations: [r.example.com/x/a]}\n"),
        ("go.mod", "module example.com/App\ngo x\n"),
    ] {
        let error = planned(&app().with(file, text), &[]).unwrap_err();
        said.push_str(&format!("{text:?}\n  {error}\n"));
    }
    insta::assert_snapshot!(said);
}

fn graph(image: &KoImage, builder: &str, has_git: bool) -> llb::Definition {
    compile(&image.compile, &image.program, &builder.parse().unwrap(), has_git).unwrap()
}

#[test]
fn every_target_is_compiled_beside_the_others_on_the_builder_s_platform() {
    let mut image = planned_with(&everything(), &["linux/amd64", "linux/arm/v6"], &[("NAME", "x")], &facts())
        .unwrap()
        .images
        .remove(0);
    (image.compile.netrc, image.compile.ssh) = (true, true);
    let first = graph(&image, "linux/arm64", true);
    assert_eq!(first.digests(), graph(&image, "linux/arm64", true).digests(), "equal inputs, equal bytes");
    // two sources, the toolchain, two runs with a directory each, what gathers, the end
    assert_eq!(first.ops.len(), 9);
    insta::assert_snapshot!(first.to_json_lines().unwrap());
    assert_ne!(first.digests(), graph(&image, "linux/amd64", true).digests());
    assert_eq!(graph(&image, "linux/arm64", false).ops.len(), 8, "no history: a directory");
    let mut other = image.clone();
    other.compile.cache_namespace = "another".to_owned();
    let runs = |definition: &llb::Definition| {
        definition.to_json_lines().unwrap().matches("another.cache.invalid").count()
    };
    assert_eq!(
        (runs(&first), runs(&graph(&other, "linux/arm64", true))),
        (0, 2),
        "caches are in the key of a run"
    );
}
