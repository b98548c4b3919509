//! Detection and planning through their public functions.

use lemnos::detect::detect;
use lemnos::error::Report;
use lemnos::model::tree::MemoryTree;
use lemnos::model::{
    AppSettings, BuildPlan, Detected, EntryKind, PushOptions, RefName, Sha, SolveSpec, Tree, TreeEntry,
    TreeError,
};
use lemnos::plan::{
    self, BuildConfig, CommitFacts, PlanInput, WhichRef, builds, default_frontends, describe,
};
use proptest::prelude::*;

/// A push to be planned; the defaults are a friendly one.
struct Case {
    settings: AppSettings,
    options: PushOptions,
    reference: &'static str,
    sha: &'static str,
}

fn case() -> Case {
    Case {
        settings: AppSettings::default(),
        options: PushOptions::default(),
        reference: "refs/heads/main",
        sha: "0123456789abcdef0123456789abcdef01234567",
    }
}

impl Case {
    fn detect(&self, tree: &dyn Tree) -> Result<Detected, Report> {
        let config = BuildConfig::read(tree)?;
        Ok(detect(tree, &self.settings, config.as_ref())?)
    }

    fn plan(&self, tree: &dyn Tree) -> Result<BuildPlan, Report> {
        self.plan_as(tree, "a1")
    }

    fn plan_as(&self, tree: &dyn Tree, app_id: &str) -> Result<BuildPlan, Report> {
        let config = BuildConfig::read(tree)?;
        let detected = detect(tree, &self.settings, config.as_ref())?;
        let reference: RefName = self.reference.parse().unwrap();
        Ok(plan::plan(&PlanInput {
            tree,
            detected: &detected,
            config: config.as_ref(),
            app: &"shop".parse().unwrap(),
            app_id,
            settings: &self.settings,
            secrets: plan::FetchSecrets::default(),
            image: &"localhost:5000/team/shop".parse().unwrap(),
            commit: CommitFacts { sha: self.sha.parse().unwrap(), committed_at_s: 1_700_000_000, git: None },
            reference: Some(&reference),
            options: &self.options,
            frontends: &default_frontends(),
            policy: &lemnos::model::SourcePolicy::default(),
            sources: &lemnos::model::SourceRules::default(),
            destinations: Some(&lemnos::model::Destinations::default()),
            sbom_generator: None,
            source_url: Some("https://git.example.org/shop"),
            try_id: "0123456789",
        })?)
    }

    fn solve(&self, tree: &dyn Tree) -> SolveSpec {
        self.plan(tree).unwrap().images[0].work.solves()[0].clone()
    }
}

/// A tree of files written as `path`, or `path = content` with `\n` for line ends; `path -> target` is a link.
fn tree(files: &[&str]) -> MemoryTree {
    let mut tree = MemoryTree::default();
    for file in files {
        tree = match (file.split_once(" -> "), file.split_once(" = ")) {
            (Some((path, target)), _) => tree.with_kind(path, EntryKind::Symlink, target),
            (None, Some((path, content))) => {
                tree.with(path, &content.replace("\\n", "\n").replace("\\r", "\r"))
            }
            (None, None) if file.ends_with("Dockerfile") => tree.with(file, "FROM busybox\n"),
            (None, None) if file.ends_with('@') => {
                tree.with_kind(file.trim_end_matches('@'), EntryKind::Submodule, "")
            }
            (None, None) => tree.with(file, "x\n"),
        };
    }
    tree
}

/// The same tree with ids, as git gives them: equal content, equal id.
struct WithIds(MemoryTree);

impl WithIds {
    fn id(&self, path: &str, kind: EntryKind) -> Sha {
        let mut text = format!("{kind:?}");
        if kind == EntryKind::Dir {
            for entry in self.list(path).unwrap() {
                text.push_str(&format!("{} {}\n", entry.name, entry.id.unwrap()));
            }
        } else {
            text.push_str(&format!("{:?}", self.0.read(path, 1 << 20)));
        }
        lemnos::model::Digest::of(text.as_bytes()).as_str()["sha256:".len()..][..40].parse().unwrap()
    }
}

impl Tree for WithIds {
    fn entry(&self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        Ok(self.0.entry(path)?.map(|e| TreeEntry { id: Some(self.id(path, e.kind)), ..e }))
    }
    fn list(&self, path: &str) -> Result<Vec<TreeEntry>, TreeError> {
        let join = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        let list = self.0.list(path)?.into_iter();
        Ok(list.map(|e| TreeEntry { id: Some(self.id(&join(&e.name), e.kind)), ..e }).collect())
    }
    fn read(&self, path: &str, limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError> {
        self.0.read(path, limit_bytes)
    }
}

#[test]
fn kinds_are_found_and_the_others_are_explained() {
    let said: String = [
        &["Dockerfile"][..],
        &["Containerfile = FROM x", "src/main.rs"],
        &["Dockerfile", "Containerfile = FROM x"],
        &["Dockerfile", "spin.toml", "go.mod", ".ko.yaml", "app.yaml = package:\\n  name: x\\npipeline:\\n"],
        &["app/Dockerfile", "Dockerfile", "build-config.yaml = context_path: app"],
        &["Dockerfile", "app/x", "build-config.yaml = context_path: ./app/"],
        &["deploy/web.df = FROM x", "build-config.yaml = # x\\ndockerfile_path: deploy/web.df"],
        &["Dockerfile", "spin.toml", "build-config.yaml = build_backend: spin"],
        &["spin.toml"],
        &[".ko.yml", "go.mod"],
        &["melange.yaml = package:\\n  name: x\\npipeline:\\n  - runs: y\\n"],
        &["go.mod = module example.com/a\\n", "cmd/a/x.go = package main\\n", "lib/x.go = package lib\\n"],
        &["go.mod = module a\\n", "main.go = package main\\n", "spin.toml"],
        &[
            "go.mod = module a\\n",
            "a/x.go = package main\\n",
            "b/x.go = package main\\n",
            "build-config.yaml = build_backend: ko",
        ],
        &["go.work = use ./m\\n", "m/go.mod = module m\\n", "m/x.go = package main\\n"],
        // refusals
        &["README.md"],
        &["dockerfile", "go.mod", "k8s.yaml = package: x"],
        &["sub/Dockerfile"],
        &["go.mod = module a\\n", "a/x.go = package main\\n", "b/x.go = package main\\n"],
        &["go.mod = module a\\n", "a/x_test.go = package main\\n"],
        &["Dockerfile -> /etc/passwd"],
        &["Dockerfile/x"],
        &["spin.toml", "build-config.yaml = build_backend: kaniko"],
        &["build-config.yaml = build_backend: ko"],
        &["deploy/dockerfile", "build-config.yaml = \\ndockerfile_path: deploy/Dockerfile"],
        &["deploy/Dockerfile", "build-config.yaml = dockerfile_path: deploy"],
        &["Dockerfile", "build-config.yaml = dockerfile_path: ../Dockerfile"],
        &["Dockerfile", "build-config.yaml = dockerfile_path: Docker*"],
        &["Dockerfile", "build-config.yaml -> x"],
        &["Dockerfile", "build-config.yaml = platfroms: []"],
    ]
    .iter()
    .map(|files| {
        let said = case().detect(&tree(files)).map_or_else(|e| e.to_string(), |d| describe::detected(&d));
        format!("{}\n{}\n\n", files.join(" + "), said.trim_end())
    })
    .collect();
    insta::assert_snapshot!(said);
}

/// Images of a tree of Go programs under this `build-config.yaml`.
fn programs(config: &str) -> Result<Vec<(String, String)>, String> {
    let main = "package main\\n\\nfunc main() {}\\n";
    let files: Vec<String> = ["cmd/web", "cmd/Job", "old/cmd/web"]
        .iter()
        .map(|dir| format!("{dir}/main.go = {main}"))
        .chain([
            "go.mod = module example.com/shop\\n\\ngo 1.24\\n".to_owned(),
            format!("build-config.yaml = {config}"),
        ])
        .collect();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let mut case = case();
    case.settings.labels.insert("team".to_owned(), "shop".to_owned());
    let plan = case.plan(&tree(&files)).map_err(|error| error.to_string())?;
    let mut images = Vec::new();
    for image in plan.images {
        let lemnos::model::Work::Ko(ko) = image.work else { panic!("{:?}", image.work) };
        assert_eq!(ko.extras.labels["team"], "shop", "an operator's label");
        assert!(ko.extras.destinations.is_empty());
        images.push((image.name.to_string(), ko.compile.import_path.clone()));
    }
    Ok(images)
}

#[test]
fn programs_have_names_at_and_below_the_app_s() {
    let ko = |wishes: &str| programs(&format!("build_backend: ko\\nko_config: {{{wishes}}}"));
    let names = |wishes: &str| -> Vec<String> {
        ko(wishes)
            .unwrap()
            .into_iter()
            .map(|(name, _)| name.rsplit_once("team/").unwrap().1.to_owned())
            .collect()
    };
    assert_eq!(names("import_path: ./cmd/web, labels: {team: other}"), ["shop"]);
    let twice = |path: &str| format!("shop/web-{:x}", md5::compute(path));
    let all = names("all: true");
    assert_eq!(all, ["shop/job", &twice("example.com/shop/cmd/web"), &twice("example.com/shop/old/cmd/web")]);
    let also = names(
        "import_path: ./cmd/web, destinations: ['localhost:5000/team/shop/also', 'localhost:5000/team/shop']",
    );
    assert_eq!(also, ["shop", "shop/also"]);
    for other in ["localhost:5000/team/shopping", "localhost:5000/team/blog", "r.example.com/shop/also"] {
        let error = ko(&format!("import_path: ./cmd/web, destinations: ['{other}']")).unwrap_err();
        assert!(error.contains("not in push_destinations of this server"), "{error}");
    }
}

#[test]
fn what_cannot_be_planned_is_refused_with_a_remedy() {
    let config = |text: &str| format!("build-config.yaml = {text}");
    let mut said = String::new();
    for files in [
        vec!["spin.toml".to_owned()],
        vec![".ko.yaml".to_owned()],
        vec!["Dockerfile = # only a comment\\n\\n".to_owned()],
        vec!["Dockerfile = # escape=`\\n# syntax=evil/frontend:1 x\\nFROM y".to_owned()],
        vec!["Dockerfile".to_owned(), config("platforms: [windows/amd64]")],
        vec!["Dockerfile".to_owned(), config("platforms:\\n  - linux/amd46")],
        vec!["Dockerfile".to_owned(), config("platforms:\\n  - arm/v7/x/y")],
        vec!["Dockerfile".to_owned(), config("build_args:\\n  - A=1\\n  - buildkit_SYNTAX=x/y")],
        vec!["Dockerfile".to_owned(), config("build_args:\\n  - A")],
        vec!["Dockerfile".to_owned(), config("build_args:\\n  - A=${B}")],
        vec!["Dockerfile".to_owned(), config("build_args: ['A-B=1']")],
        vec!["Dockerfile".to_owned(), config("target: 'a b'")],
        vec!["Dockerfile".to_owned(), config("context_path: ap"), "app/x".to_owned()],
        vec!["Dockerfile".to_owned(), config("additional_tags: ['${BRANCH_NAME}']")],
        vec!["Dockerfile".to_owned(), config("additional_tags: [git-x]")],
        vec!["Dockerfile".to_owned(), config("targets:\\n  - name: a")],
        vec!["Dockerfile".to_owned(), "vendor/lib@".to_owned(), "other@".to_owned()],
        vec!["Dockerfile".to_owned(), ".dockerignore -> x".to_owned()],
    ] {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let error = case().plan(&tree(&files)).unwrap_err();
        said.push_str(&format!("{}\n{error}\n\n", files.join(" + ")));
    }
    insta::assert_snapshot!(said);
}

#[test]
fn the_plan_holds_everything_that_decides_the_build() {
    let mut push = case();
    push.settings.platforms = vec!["linux/amd64".parse().unwrap(), "linux/arm/v7".parse().unwrap()];
    push.settings.build_args.insert("A".to_owned(), "operator".to_owned());
    push.settings.labels.insert("team".to_owned(), "shop".to_owned());
    push.settings.target = Some("run".to_owned());
    let files = [
        "deploy/Dockerfile = # syntax=docker/dockerfile:1.7-labs\\nFROM busybox AS run\\nRUN --network=host true\\n",
        "deploy/Dockerfile.dockerignore = x",
        "app/main.c",
        "build-config.yaml = dockerfile_path: deploy/Dockerfile\\ncontext_path: app\\ntarget: other\\nplatforms: [linux/amd64]\\nbuild_args:\\n  - A=file\\n  - B=2=3\\nadditional_tags:\\n  - stable\\n  - '{version}'\\nspin_config: {}\\n",
    ];
    let plan = push.plan(&WithIds(tree(&files))).unwrap();
    insta::assert_json_snapshot!(plan);
    insta::assert_snapshot!(describe::plan(&plan));
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<BuildPlan>(&json).unwrap(), plan);
}

#[test]
fn an_unchanged_context_keeps_its_fingerprint_and_an_ignore_file_changes_it() {
    let config = "build-config.yaml = context_path: app\\ndockerfile_path: deploy/Dockerfile";
    let base = ["deploy/Dockerfile", "app/a", config, "README.md = one"];
    let fingerprint = |push: &Case, files: &[&str]| {
        push.solve(&WithIds(tree(files))).fingerprint(&"localhost:5000/shop".parse().unwrap()).unwrap()
    };
    let first = fingerprint(&case(), &base);
    let later = Case { sha: "1123456789abcdef0123456789abcdef01234567", reference: "refs/heads/x", ..case() };
    let readme = ["deploy/Dockerfile", "app/a", config, "README.md = two", "deploy/other"];
    assert_eq!(fingerprint(&later, &readme), first, "commit, branch and what is outside the context");
    for changed in [
        &["deploy/Dockerfile", "app/a = y", config][..],
        &["deploy/Dockerfile", "app/a", "app/.dockerignore = a", config],
        &["deploy/Dockerfile", "app/a", "deploy/Dockerfile.dockerignore = a", config],
        &["deploy/Dockerfile", "app/a", "deploy/Dockerfile.dockerignore = b", config],
        &["deploy/Dockerfile = FROM y", "app/a", config],
    ] {
        assert_ne!(fingerprint(&case(), changed), first, "{changed:?}");
    }
    let other_app = {
        let tree = WithIds(tree(&base));
        let mut spec = case().solve(&tree);
        spec.step_namespace = "another".to_owned();
        spec.fingerprint(&"localhost:5000/shop".parse().unwrap()).unwrap()
    };
    assert_ne!(other_app, first);
}

#[test]
fn a_context_that_a_push_does_not_bring_whole_is_refused() {
    const POINTER: &str = "logo.png = version https://git-lfs.github.com/spec/v1\\noid sha256:00\\nsize 3\\n";
    let attributes = ".gitattributes = *.png filter=lfs diff=lfs";
    let at = |file: &str| format!("app/{file}");
    let in_app = "build-config.yaml = context_path: app\\ndockerfile_path: Dockerfile";
    for (files, refused) in [
        (vec!["sub@"], Some("submodules")),
        (vec!["sub@", ".dockerignore = sub"], None),
        (vec!["a/sub@", ".dockerignore = # x\\n/a/"], None),
        (vec!["a/sub@", ".dockerignore = a/sub\\r\\n"], None),
        (vec!["a/sub@", ".dockerignore = a/su"], Some("submodules")),
        (vec!["a/sub@", ".dockerignore = a/*"], Some("submodules")),
        (vec!["a/sub@", ".dockerignore = a/sub\\n!a/sub/x"], Some("submodules")),
        (vec!["a/sub@", ".dockerignore = !b\\na/sub"], None),
        (vec!["sub@", "Dockerfile.dockerignore = sub", ".dockerignore = x"], None),
        (vec!["sub@", "Dockerfile.dockerignore = x", ".dockerignore = sub"], Some("submodules")),
        (vec!["sub@", "app/x", in_app], None),
        (vec!["app/sub@", in_app], Some("submodules")),
        (vec!["app/sub@", "app/.dockerignore = sub", in_app], None),
        (vec![POINTER], None),
        (vec![POINTER, attributes], Some("LFS pointers")),
        (vec![POINTER, attributes, ".dockerignore = logo.png"], None),
        (vec!["logo.png = real", attributes], None),
        (vec![&at(POINTER), attributes, in_app], Some("LFS pointers")),
        (vec![POINTER, attributes, "app/x", in_app], None),
    ] {
        let mut all = vec!["Dockerfile"];
        all.extend(files.iter().copied());
        match (case().plan(&tree(&all)), refused) {
            (Ok(_), None) => {}
            (Err(report), Some(what)) => assert!(report.message.contains(what), "{files:?}: {report}"),
            (result, _) => panic!("{files:?}: {result:?}"),
        }
    }
}

/// A git bomb: every directory holds `width` directories, for ever.
struct Bomb {
    width: usize,
}

impl Tree for Bomb {
    fn entry(&self, path: &str) -> Result<Option<TreeEntry>, TreeError> {
        let name = path.rsplit('/').next().unwrap().to_owned();
        let kind = match name.as_str() {
            "Dockerfile" => EntryKind::File { executable: false },
            "" | "d" => EntryKind::Dir,
            _ => return Ok(None),
        };
        Ok(Some(TreeEntry { name, kind, id: None }))
    }
    fn list(&self, _path: &str) -> Result<Vec<TreeEntry>, TreeError> {
        let dir = |n: usize| TreeEntry { name: format!("d{n}"), kind: EntryKind::Dir, id: None };
        Ok((0..self.width).map(dir).collect())
    }
    fn read(&self, path: &str, _limit_bytes: u64) -> Result<Option<Vec<u8>>, TreeError> {
        Ok((path == "Dockerfile").then(|| b"FROM x\n".to_vec()))
    }
}

#[test]
fn bombs_and_oversized_files_are_refused_within_bounds() {
    for (width, expect) in [(2, "more than 256 deep"), (600_000, "more than 500000 entries")] {
        let report = case().plan(&Bomb { width }).unwrap_err();
        assert!(report.message.contains(expect), "{report}");
    }
    let large = MemoryTree::default().with("Dockerfile", &"# x\n".repeat(300_000));
    let report = case().plan(&large).unwrap_err();
    assert_eq!(report.message, "Dockerfile has 1200000 bytes; at most 1048576 are read");
    let large = tree(&["Dockerfile"]).with("build-config.yaml", &"# x\n".repeat(30_000));
    assert!(case().plan(&large).unwrap_err().message.contains("at most 65536 are read"));
}

#[test]
fn a_try_may_be_narrower_and_nothing_else_may() {
    let tree = tree(&["Dockerfile", "build-config.yaml = build_args: [A=1, B=2]"]);
    let with =
        |options: &[&str]| Case { options: PushOptions::parse(options.iter().copied()).unwrap(), ..case() };
    let push = with(&["try", "platform=linux/arm64", "build-arg=B=3", "build-arg=C=4"]);
    let plan = push.plan(&tree).unwrap();
    let image = &plan.images[0];
    assert_eq!(image.tags.iter().map(|t| t.as_str()).collect::<Vec<_>>(), ["try-main-0123456789"]);
    assert!(image.owned_tags().is_empty());
    let solve = &image.work.solves()[0];
    assert_eq!(solve.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(), ["linux/arm64"]);
    assert_eq!(solve.build_args.values().collect::<Vec<_>>(), ["1", "3", "4"]);
    for (options, expect) in [
        (&["try", "platform=linux/s390x"][..], "linux/s390x is not among the app's platforms"),
        (
            &["try", "build-arg=BUILDKIT_SYNTAX=x"],
            "the push options: build argument \"BUILDKIT_SYNTAX\" is reserved",
        ),
        (&["try", "build-arg=a:b=x"], "is not a valid build argument name"),
    ] {
        let report = with(options).plan(&tree).unwrap_err();
        assert!(report.message.contains(expect), "{report}");
    }
    // options that did not come through their parser are checked again
    let mut sneaky = push;
    sneaky.options.dry_try = false;
    assert!(sneaky.plan(&tree).unwrap_err().message.contains("with -o try only"));
    let solve = with(&["no-cache", "rebuild"]).solve(&tree);
    assert!(solve.no_cache && solve.pull);
}

#[test]
fn buildkit_s_own_arguments_are_refused_from_everyone() {
    for name in ["BUILDKIT_SYNTAX", "BUILDKIT_CACHE_MOUNT_NS", "Buildkit_Inline_Cache", "BUILDKIT_"] {
        let mut push = case();
        push.settings.build_args.insert(name.to_owned(), "1".to_owned());
        let report = push.plan(&tree(&["Dockerfile"])).unwrap_err();
        assert!(report.message.contains("is reserved"), "{report}");
    }
    let mut push = case();
    for name in ["SOURCE_DATE_EPOCH", "HTTP_PROXY", "MY_BUILDKIT_X"] {
        push.settings.build_args.insert(name.to_owned(), "1".to_owned());
    }
    assert_eq!(push.solve(&tree(&["Dockerfile"])).build_args.len(), 3);
}

#[test]
fn settings_are_checked_before_a_push_meets_them() {
    let defaults = || case().settings;
    let good = AppSettings {
        build_branches: vec!["dev".to_owned(), "release/*".to_owned(), "*".to_owned()],
        tags: vec!["{branch}-{sha12}".to_owned()],
        dockerfile_path: Some("deploy/Dockerfile".to_owned()),
        ..defaults()
    };
    assert!(plan::check_settings(&defaults()).is_ok() && plan::check_settings(&good).is_ok());
    let one = |text: &str| vec![text.to_owned()];
    for (bad, expect) in [
        (AppSettings { tags: one("${X}"), ..defaults() }, "\"${X}\" is not a valid tag template"),
        (
            AppSettings { main_branch: "a..b".to_owned(), ..defaults() },
            "main_branch: \"a..b\" is not a valid branch",
        ),
        (
            AppSettings { build_branches: one("a b*"), ..defaults() },
            "build_branches: \"a b*\" is not a valid branch",
        ),
        (
            AppSettings { build_branches: one("a*b"), ..defaults() },
            "build_branches: \"a*b\" is not a valid branch",
        ),
        (
            AppSettings { context_path: Some("../x".to_owned()), ..defaults() },
            "context_path: \"../x\" leaves the tree",
        ),
        (
            AppSettings {
                platforms: vec!["linux/amd64".parse().unwrap(); 3],
                build_args: [("BUILDKIT_X".to_owned(), String::new())].into(),
                ..defaults()
            },
            "is reserved",
        ),
    ] {
        let report = Report::from(plan::check_settings(&bad).unwrap_err());
        assert!(
            report.message.starts_with("the app's settings: ") && report.message.contains(expect),
            "{report}"
        );
        assert!(report.hint.is_some());
    }
}

#[test]
fn cache_namespaces_are_stable_opaque_and_the_app_s_own() {
    let tree = tree(&["Dockerfile"]);
    let namespace = |app_id: &str| {
        let spec = case().plan_as(&tree, app_id).unwrap();
        spec.images[0].work.solves()[0].clone().cache_namespace
    };
    // changing it would empty every app's cache mounts
    assert_eq!(namespace("a1"), "9119a6ce585fd62d79500d0b34f6f5d9");
    assert_ne!(namespace("a2"), namespace("a1"));
}

#[test]
fn cache_mounts_are_a_ref_s_own_and_keep_its_steps_and_images_apart_only_where_there_are_any() {
    let main = case;
    let branch = || Case { reference: "refs/heads/pull", ..case() };
    let image = "localhost:5000/shop".parse().unwrap();
    for (dockerfile, apart) in [
        ("Dockerfile = FROM x\\nRUN --mount=type=secret,id=a make", false),
        ("Dockerfile = FROM x\\nRUN --mount=type=cache,target=/c make", true),
    ] {
        let tree = WithIds(tree(&[dockerfile]));
        let (of_main, of_branch) = (main().solve(&tree), branch().solve(&tree));
        assert_ne!(of_main.cache_namespace, of_branch.cache_namespace, "{dockerfile}");
        assert_eq!(of_main.step_namespace != of_branch.step_namespace, apart, "{dockerfile}");
        assert_eq!(of_main.fingerprint(&image) != of_branch.fingerprint(&image), apart, "{dockerfile}");
    }
}

#[test]
fn layer_caches_are_written_by_their_ref_and_read_by_it_after_the_main_branch_s() {
    let tree = tree(&["Dockerfile"]);
    let tags = |reference: &'static str, cache, dry_try| {
        let mut push = Case { reference, ..case() };
        push.settings.cache = cache;
        push.options.dry_try = dry_try;
        let tags = push.solve(&tree).cache_tags;
        let shown = |tag: &lemnos::model::Tag| tag.as_str().rsplit_once('-').unwrap().0.to_owned();
        (tags.export.as_ref().map(shown), tags.imports.iter().map(shown).collect::<Vec<_>>())
    };
    use lemnos::model::LayerCache::{Inline, Off, Registry};
    let (main, pull) = ("buildcache-main".to_owned(), "buildcache-pull".to_owned());
    assert_eq!(tags("refs/heads/main", Off, false), (None, vec![]));
    assert_eq!(tags("refs/heads/main", Registry, false), (Some(main.clone()), vec![main.clone()]));
    assert_eq!(
        tags("refs/heads/pull", Registry, false),
        (Some(pull.clone()), vec![pull.clone(), main.clone()])
    );
    assert_eq!(tags("refs/heads/pull", Registry, true), (None, vec![pull, main]));
    let mut push = Case { reference: "refs/heads/pull", ..case() };
    push.settings.cache = Inline;
    let tags = push.solve(&tree).cache_tags;
    assert_eq!(tags.imports.iter().map(|tag| tag.as_str()).collect::<Vec<_>>(), ["pull", "main"]);
}

#[test]
fn an_sbom_needs_a_generator_that_is_allowed() {
    let tree = tree(&["Dockerfile"]);
    let mut push = case();
    push.settings.attest = "sbom".parse().unwrap();
    let report = push.plan_as(&tree, "a1").unwrap_err();
    assert!(report.hint.as_deref().is_some_and(|hint| hint.contains("sbom_generator")), "{report}");
    let image = format!("docker.io/docker/buildkit-syft-scanner:1@sha256:{}", "a".repeat(64));
    push.settings.attest = format!("provenance:max,sbom:{image}").parse().unwrap();
    assert_eq!(push.solve(&tree).attest.sbom.unwrap().as_str(), image);
    push.settings.build_args.insert("URL".to_owned(), "see https://ada:pass@example.com/".to_owned());
    let report = push.plan_as(&tree, "a1").unwrap_err();
    assert!(
        report.message.contains("\"URL\" holds a URL with a password") && !report.message.contains("pass@")
    );
    push.settings.attest = "provenance:min".parse().unwrap();
    push.plan_as(&tree, "a1").unwrap();
}

/// What a builder is told stands in the larger provenance, which anybody may read who may pull.
#[test]
fn a_password_that_the_larger_provenance_would_publish_is_refused() {
    let module =
        ["go.mod = module example.com/a\\n\\ngo 1.24\\n", "main.go = package main\\n\\nfunc main() {}\\n"];
    let env = ".ko.yaml = defaultEnv: ['GOPROXY=https://ada:pass@example.com']\\n";
    let spin = "spin.toml = spin_manifest_version = 2\\n[application]\\nname = \"a\"\\n[[trigger.http]]\\nroute = \"/\"\\ncomponent = \"web\"\\n[component.web]\\nsource = \"web.wasm\"\\n[component.web.build]\\ncommand = \"cargo build --index https://ada:pass@example.com\"\\n";
    for (tree, what) in [
        (tree(&[module[0], module[1], env]), "the environment's GOPROXY"),
        (tree(&[spin]), "a command of the component web"),
    ] {
        let mut push = case();
        push.settings.attest = "provenance:max".parse().unwrap();
        let report = push.plan_as(&tree, "a1").unwrap_err();
        assert!(report.message.contains(&format!("{what} holds a URL with a password")), "{report}");
        assert!(!report.message.contains("pass@"));
        push.settings.attest = "provenance:min".parse().unwrap();
        push.plan_as(&tree, "a1").unwrap();
    }
}

#[test]
fn which_refs_build() {
    let mut settings =
        AppSettings { build_branches: vec!["dev".to_owned(), "release/*".to_owned()], ..case().settings };
    let which = |settings: &AppSettings, name: &str| builds(settings, &name.parse().unwrap());
    assert_eq!(which(&settings, "refs/heads/main"), WhichRef::MainBranch);
    assert_eq!(which(&settings, "refs/heads/dev"), WhichRef::Branch);
    assert_eq!(which(&settings, "refs/heads/release/1"), WhichRef::Branch);
    for name in ["refs/heads/devel", "refs/heads/release", "refs/heads/x/main"] {
        let WhichRef::NotBuilt(why) = which(&settings, name) else { panic!("{name} builds") };
        assert!(why.ends_with("does not build in this app: main, dev, release/* does"), "{why}");
    }
    assert!(matches!(which(&settings, "refs/tags/v1"), WhichRef::NotBuilt(_)));
    settings.build_tags = true;
    assert_eq!(which(&settings, "refs/tags/v1"), WhichRef::Tag);
    assert_eq!(which(&settings, "refs/tags/main"), WhichRef::Tag);
}

#[test]
fn a_time_that_no_calendar_has_is_left_out() {
    let tree = tree(&["Dockerfile"]);
    let detected = case().detect(&tree).unwrap();
    for (time, expect) in
        [(0, Some("1970-01-01T00:00:00Z")), (1_700_000_000, Some("2023-11-14T22:13:20Z")), (i64::MAX, None)]
    {
        let plan = plan::plan(&PlanInput {
            tree: &tree,
            detected: &detected,
            config: None,
            app: &"shop".parse().unwrap(),
            app_id: "a1",
            settings: &AppSettings::default(),
            secrets: plan::FetchSecrets::default(),
            image: &"localhost:5000/shop".parse().unwrap(),
            commit: CommitFacts { sha: case().sha.parse().unwrap(), committed_at_s: time, git: None },
            reference: None,
            options: &PushOptions::default(),
            frontends: &[],
            policy: &lemnos::model::SourcePolicy::default(),
            sources: &lemnos::model::SourceRules::default(),
            destinations: Some(&lemnos::model::Destinations::default()),
            sbom_generator: None,
            source_url: None,
            try_id: "x",
        });
        let annotations = &plan.unwrap().images[0].annotations;
        assert_eq!(annotations.get("org.opencontainers.image.created").map(String::as_str), expect);
    }
}

proptest! {
    #[test]
    fn plans_are_deterministic_and_survive_serialisation(
        args in prop::collection::btree_map("[A-Z]{1,8}", ".{0,12}", 0..4),
        labels in prop::collection::btree_map("[a-z.]{1,8}", ".{0,12}", 0..4),
        target in prop::option::of("[a-z]{1,5}"),
        tags in prop::collection::vec("[a-z]{1,4}(-\\{branch\\}|-\\{sha12\\}|-\\{version\\})?", 0..3),
        reference in prop::sample::select(vec!["refs/heads/main", "refs/heads/a/b", "refs/tags/v1.0"]),
        file in "[ -~\n]{0,40}",
    ) {
        let settings = AppSettings { build_args: args, labels, target, tags, ..AppSettings::default() };
        let push = Case { settings, reference, ..case() };
        let tree = WithIds(MemoryTree::default().with("Dockerfile", &format!("FROM x\n{file}")).with("a/b", &file));
        let (first, second) = (push.plan(&tree), push.plan(&tree));
        prop_assert_eq!(&first, &second);
        if let Ok(plan) = first {
            let json = serde_json::to_string(&plan).unwrap();
            prop_assert_eq!(serde_json::from_str::<BuildPlan>(&json).unwrap(), plan);
        }
    }
}
