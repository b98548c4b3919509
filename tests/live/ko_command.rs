//! ko v0.19.1 and `lemnos ko build` on the same trees, over the same base: the same references, images, SBOMs and files.
//!
//! ko compiles with the Go of this machine, lemnos with a toolchain image of the same Go.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use clap::CommandFactory as _;
use lemnos::kinds::ko::resolve::{Manifest, Selector};
use lemnos::model::BuildId;
use serde_json::Value;

use crate::ko_assembly::{Depot, clean, lines};
use crate::support::{engines, image};

pub const MAIN: &str = "package main\n\nvar version = \"none\"\n\nfunc main() { println(version) }\n";

/// A worktree, where its image goes, and what both commands are told.
pub struct Shop {
    pub dir: tempfile::TempDir,
    below: &'static str,
    root: String,
    pub env: Vec<(&'static str, String)>,
}

impl Shop {
    pub fn new(files: &[(&str, &str)]) -> Self {
        image("golang");
        image("static");
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = format!("{}/{}", engines().registry, BuildId::generate());
        let base = format!("{}/chainguard/static:latest", engines().base_registry);
        let env = vec![("KO_DOCKER_REPO", format!("{root}/team")), ("KO_DEFAULTBASEIMAGE", base)];
        Self { dir, below: "", root, env }
    }

    fn git(&self, args: &[&str]) {
        let identity = ["-c", "user.name=Dev", "-c", "user.email=dev@example.com"];
        let output =
            Command::new("git").current_dir(self.dir.path()).args(identity).args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Everything in one commit, which is a version.
    pub fn committed(self) -> Self {
        self.git(&["init", "-q", "-b", "main"]);
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", "First"]);
        self.git(&["tag", "-a", "-m", "v1.2.0", "v1.2.0"]);
        self
    }

    pub fn run(&self, program: &Path, args: &[&str]) -> Output {
        let mut command = clean(program, &self.dir.path().join(self.below));
        // Go's own settings file of whoever runs the tests may turn the stamping off
        command
            .args(args)
            .env("GOENV", "off")
            .envs(self.env.iter().map(|(name, value)| (name, value.as_str())));
        command.output().unwrap()
    }

    fn ko(&self, args: &[&str]) -> String {
        let output = self.run(&engines().ko, &[&["build"], args].concat());
        assert!(output.status.success(), "ko {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn lemnos_output(&self, args: &[&str]) -> Output {
        let builder = ["ko", "build", "--builder", &engines().buildkit];
        self.run(Path::new(env!("CARGO_BIN_EXE_lemnos")), &[&builder, args].concat())
    }

    pub fn lemnos(&self, args: &[&str]) -> String {
        let output = self.lemnos_output(args);
        assert!(output.status.success(), "lemnos {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn refused(&self, args: &[&str]) -> String {
        let output = self.lemnos_output(args);
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Both of them; every reference that is printed stands for the same.
    fn same(&self, args: &[&str]) -> Vec<Value> {
        let (kos, ours) = (self.ko(args), self.lemnos(args));
        assert_eq!(ours.lines().count(), kos.lines().count(), "{ours}{kos}");
        let seen = |printed: &str| Depot { repository: repository(printed) }.seen(printed.to_owned());
        // ko prints in no order
        let of_ko = |ours: &str| kos.lines().find(|kos| repository(kos) == repository(ours));
        let pairs = ours.lines().map(|ours| (of_ko(ours).unwrap_or_else(|| panic!("{ours}\n{kos}")), ours));
        pairs
            .map(|(kos, ours)| {
                let (kos, ours) = (seen(kos), seen(ours));
                for (kos, ours) in kos.images.iter().zip(&ours.images) {
                    for (kos, ours) in kos.tars.iter().zip(&ours.tars) {
                        assert!(kos == ours, "{args:?}: {}", difference(kos, ours));
                    }
                    assert_eq!(kos.tars.len(), ours.tars.len(), "{args:?}");
                }
                let (kos, ours) = (kos.comparable(&self.root), ours.comparable(&self.root));
                assert_eq!(lines(&ours), lines(&kos), "{args:?}");
                ours
            })
            .collect()
    }
}

/// Of a printed reference, the part before tag and digest.
fn repository(printed: &str) -> String {
    let place = printed.split('@').next().unwrap();
    let tagged = place.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    tagged.map_or(place, |(repository, _)| repository).to_owned()
}

/// Where two layers part, with what stands there: a program's build settings are text.
fn difference(kos: &[u8], ours: &[u8]) -> String {
    let at = kos.iter().zip(ours).position(|(a, b)| a != b).unwrap_or(kos.len().min(ours.len()));
    let settings = |tar: &[u8]| {
        let text = String::from_utf8_lossy(tar).into_owned();
        text.lines().filter(|line| line.starts_with("build\t")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (kos_settings, our_settings) = (settings(kos), settings(ours));
    format!(
        "layers of {} and {} bytes differ from byte {at} on; {kos_settings:#?} {our_settings:#?}",
        kos.len(),
        ours.len()
    )
}

#[test]
fn programs_of_a_module_become_what_ko_makes_of_them() {
    let config = "defaultPlatforms: [linux/amd64, linux/arm64, linux/arm/v7]\ndefaultLdflags: [-s]\n\
        builds:\n- id: web\n  main: ./cmd/web\n  env: [GOFLAGS=-tags=shop]\n  ldflags:\n  - -X main.version={{.Env.RELEASE}}-{{.Git.Tag}}-{{.Git.ShortCommit}}\n  \
        linux_capabilities: [net_bind_service]\n";
    let mut shop = Shop::new(&[
        ("go.mod", "module example.com/Shop\n\ngo 1.21\n"),
        (".ko.yaml", config),
        ("cmd/web/main.go", MAIN),
        ("cmd/web/tagged.go", "//go:build shop\n\npackage main\n\nfunc init() { version += \"!\" }\n"),
        ("cmd/web/kodata/pages/index.html", "<p>"),
        ("cmd/worker/main.go", MAIN),
    ]);
    symlink("pages/index.html", shop.dir.path().join("cmd/web/kodata/start.html")).unwrap();
    symlink("pages", shop.dir.path().join("cmd/web/kodata/site")).unwrap();
    shop = shop.committed();
    shop.env.push(("RELEASE", "seven".to_owned()));
    let made = shop.same(&["./cmd/web", "example.com/Shop/cmd/worker", "--tags", "v1"]);
    assert_eq!(made.len(), 2);
    assert_eq!(made[0]["index"]["manifests"].as_array().unwrap().len(), 3);
    assert!(made[0]["images"][0]["sbom"].to_string().contains("v1.2.0"), "{}", made[0]["images"][0]["sbom"]);
    // labels, annotations, a user, several tags, one platform, other names, from a directory below
    shop.env.push(("SOURCE_DATE_EPOCH", "1700000000".to_owned()));
    shop.env.push(("KO_DATA_DATE_EPOCH", "1600000000".to_owned()));
    let flags = ["--image-label", "a=b,c=d", "--image-annotation", "org.example.x=y", "--image-user", "7:8"];
    let more =
        ["--platform", "linux/arm64", "-B", "--tags", "v1,latest", "--disable-optimizations", "-j", "2"];
    shop.same(&[&["./cmd/worker"], &flags[..], &more].concat());
    shop.same(&["ko://example.com/Shop/cmd/web", "-P", "--platform=all"]);
    shop.same(&[
        "./cmd/worker",
        "--bare",
        "--platform=linux/amd64",
        "--ldflags=-X main.version=flag",
        "--ldflags=-w",
    ]);
}

/// A base for variants that distributions' images seldom have.
fn base_of_variants(dir: &Path) -> String {
    let name = format!("{}/{}:v", engines().registry, BuildId::generate());
    std::fs::write(dir.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let local = |what: &str| format!("{what}={}", dir.display());
    let output = Command::new(&engines().buildctl)
        .args(["--addr", &engines().buildkit, "build", "--frontend", "dockerfile.v0"])
        .args(["--local", &local("context"), "--local", &local("dockerfile")])
        .args(["--opt", "platform=linux/amd64,linux/amd64/v3,linux/arm/v7"])
        .args(["--output", &format!("type=image,name={name},push=true,oci-mediatypes=true")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    name
}

#[test]
fn variants_of_processors_reach_the_compiler() {
    let mut shop = Shop::new(&[("go.mod", "module example.com/shop\n\ngo 1.21\n"), ("main.go", MAIN)]);
    let base = tempfile::tempdir().unwrap();
    shop.env.retain(|(name, _)| *name != "KO_DEFAULTBASEIMAGE");
    shop.env.push(("KO_DEFAULTBASEIMAGE", base_of_variants(base.path())));
    let made = shop.same(&["--platform=linux/amd64/v3,linux/arm/v7"]);
    let index = &made[0]["index"]["manifests"];
    let variants: Vec<&Value> = (0..2).map(|at| &index[at]["platform"]["variant"]).collect();
    assert_eq!(variants, ["v3", "v7"]);
    let printed = shop.lemnos(&["--platform=linux/amd64/v3"]);
    let repository = printed.split('@').next().unwrap().to_owned();
    let seen = Depot { repository }.seen(printed.trim().to_owned());
    let text = String::from_utf8_lossy(&seen.images[0].tars[1]).into_owned();
    assert!(text.contains("build\tGOAMD64=v3"), "what Go says of itself");
}

#[test]
fn jobs_bound_how_many_programs_are_compiled_at_once() {
    let shop = Shop::new(&[
        ("go.mod", "module example.com/shop\n\ngo 1.21\n"),
        ("a/main.go", MAIN),
        ("b/main.go", MAIN),
        ("c/main.go", MAIN),
    ]);
    let output = shop.lemnos_output(&["-v", "-j", "1", "./a", "./b", "./c"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    // each begins after the one before it has ended
    let mut open: BTreeSet<&str> = BTreeSet::new();
    let mut begun = 0;
    for line in said.lines() {
        let Some((step, text)) = line.split_once(' ') else { continue };
        if text.contains("go build example.com/shop/") && open.insert(step) {
            assert_eq!(open.len(), 1, "{said}");
            begun += 1;
        } else if text.starts_with("DONE") || text.starts_with("CACHED") {
            open.remove(step);
        }
    }
    assert_eq!(begun, 3, "{said}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = printed.lines().map(|line| line.rsplit('/').next().unwrap()).collect();
    assert_eq!(names.iter().map(|name| &name[..1]).collect::<String>(), "abc", "in their order");
    assert_eq!(shop.lemnos(&["./a", "./b", "./c"]), printed, "at once they come to the same");
}

#[test]
fn an_interrupted_build_ends_and_leaves_nothing_behind() {
    let program = "package main\n\nimport \"net/http\"\n\nfunc main() { http.ListenAndServe(\"\", nil) }\n";
    for (signal, name) in [(rustix::process::Signal::INT, "INT"), (rustix::process::Signal::TERM, "TERM")] {
        let shop = Shop::new(&[("go.mod", "module example.com/shop\n\ngo 1.21\n"), ("main.go", program)]);
        let scratch = tempfile::tempdir().unwrap();
        let mut command = clean(Path::new(env!("CARGO_BIN_EXE_lemnos")), shop.dir.path());
        command.args(["ko", "build", "-v", "--builder", &engines().buildkit]).env("TMPDIR", scratch.path());
        command.envs(shop.env.iter().map(|(name, value)| (name, value.as_str())));
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        // the compiler of a new worktree has the whole standard library before it
        let begun = lines.by_ref().map(Result::unwrap).any(|line| line.contains("go build example.com/shop"));
        assert!(begun, "{name}");
        assert_ne!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "its directory");
        let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
        let said: Vec<String> = lines.map(Result::unwrap).collect();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{name}: {said:?}");
        assert!(said.iter().any(|line| line.contains("context canceled")), "{name}: {said:?}");
        assert!(output.stdout.is_empty(), "{name}");
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "{name}");
        let place = &shop.env.iter().find(|(name, _)| *name == "KO_DOCKER_REPO").unwrap().1;
        let listed =
            Command::new(&engines().crane).args(["catalog", "--insecure", &engines().registry]).output();
        let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
        let (_, path) = place.split_once('/').unwrap();
        assert!(!listed.contains(path), "{name}: something was pushed");
    }
}

#[test]
fn workspaces_vendored_modules_and_other_directories_are_found() {
    let mut shop = Shop::new(&[
        ("go.work", "go 1.21\n\nuse (\n\t./app\n\t./lib\n)\n"),
        ("app/go.mod", "module example.com/app\n\ngo 1.21\n"),
        ("app/main.go", "package main\n\nimport \"example.com/lib\"\n\nfunc main() { println(lib.Word) }\n"),
        ("lib/go.mod", "module example.com/lib\n\ngo 1.21\n"),
        ("lib/lib.go", "package lib\n\nconst Word = \"lib\"\n"),
        ("old/go.mod", "module example.com/old\n\ngo 1.21\n\nrequire example.com/dep v1.0.0\n"),
        ("old/cmd/run/main.go", "package main\n\nimport \"example.com/dep\"\n\nfunc main() { println(dep.Word) }\n"),
        ("old/go.sum", "example.com/dep v1.0.0 h1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\nexample.com/dep v1.0.0/go.mod h1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"),
        ("old/vendor/modules.txt", "# example.com/dep v1.0.0\n## explicit; go 1.21\nexample.com/dep\nexample.com/dep/cmd/tool\n"),
        ("old/vendor/example.com/dep/dep.go", "package dep\n\nconst Word = \"dep\"\n"),
        ("old/vendor/example.com/dep/cmd/tool/main.go", "package main\n\nimport \"example.com/dep\"\n\nfunc main() { println(dep.Word) }\n"),
        ("old/vendor/example.com/dep/cmd/tool/kodata/page", "of a dependency\n"),
    ])
    .committed();
    shop.below = "app";
    shop.same(&[]);
    // vendored, out of the workspace, from a directory within the module
    shop.env.push(("GOWORK", "off".to_owned()));
    shop.below = "old/cmd";
    shop.same(&["./run"]);
    // a dependency's own program
    shop.same(&["example.com/dep/cmd/tool"]);
}

#[test]
fn files_are_written_as_ko_writes_them_and_nothing_is_pushed_on_request() {
    let shop = Shop::new(&[("go.mod", "module example.com/shop\n\ngo 1.21\n"), ("main.go", MAIN)]);
    let without = |text: &str| {
        let hidden =
            text.lines().map(|line| line.split_once("@sha256:").map_or(line, |(place, _)| place).to_owned());
        hidden.collect::<Vec<_>>()
    };
    let flags = ["--platform=all", "--sbom-dir=sboms", "--oci-layout-path=layout", "--push=false"];
    let read = |name: &str| std::fs::read_to_string(shop.dir.path().join(name)).unwrap();
    let names = || {
        let entries = std::fs::read_dir(shop.dir.path().join("sboms")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let kos = (without(&shop.ko(&flags)), names());
    for name in ["sboms", "layout"] {
        std::fs::remove_dir_all(shop.dir.path().join(name)).unwrap();
    }
    let printed = shop.lemnos(&flags);
    assert_eq!((without(&printed), names()), kos);
    let flags = ["--platform=all", "--image-refs=refs", "--push=false"];
    let kos = (without(&shop.ko(&flags)), without(&read("refs")));
    std::fs::remove_file(shop.dir.path().join("refs")).unwrap();
    assert_eq!((without(&shop.lemnos(&flags)), without(&read("refs"))), kos);
    // another program reads the layout whole
    let digest = printed.trim().rsplit_once('@').unwrap().1;
    let layout = format!("oci:{}", shop.dir.path().join("layout").display());
    let copy = format!("docker://{}/copied:layout", shop.root);
    let skopeo = Command::new("skopeo")
        .args(["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", &layout, &copy])
        .output()
        .unwrap();
    assert!(skopeo.status.success(), "{}", String::from_utf8_lossy(&skopeo.stderr));
    let image = copy.trim_start_matches("docker://");
    let found = Command::new(&engines().crane).args(["digest", "--insecure", image]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout).trim(), digest);
    assert_eq!(shop.lemnos(&["--tag-only", "-t", "v7"]), shop.ko(&["--tag-only", "-t", "v7"]));
}

#[test]
fn what_is_not_done_is_refused_with_the_reason() {
    let mut shop = Shop::new(&[("go.mod", "module example.com/shop\n\ngo 1.21\n"), ("main.go", MAIN)]);
    for (args, reason) in [
        (&["--sbom=cyclonedx"][..], "is no form of an SBOM"),
        (&["--ldflags={{.Env.A}}"], "is a template"),
        (&["--tag-only"], "needs exactly one tag"),
        (&["--platform=linux/s390x"], "has no linux/s390x"),
        (&["./..."], "names several packages"),
        (&["./missing"], "missing"),
        (&["--image-label", "x"], "is not KEY=VALUE"),
    ] {
        let said = shop.refused(args);
        assert!(said.contains(reason), "{args:?}: {said}");
    }
    std::fs::write(shop.dir.path().join("main.go"), "package main\n\nfunc main() { missing() }\n").unwrap();
    let said = shop.refused(&[]);
    assert!(said.contains("undefined: missing"), "{said}");
    shop.env.retain(|(name, _)| *name != "KO_DOCKER_REPO");
    assert!(shop.refused(&[]).contains("KO_DOCKER_REPO environment variable is unset"));
}

/// Long and short names of the flags of ko's command, by ko's own help.
fn kos_flags(command: &str) -> BTreeMap<String, String> {
    let output = Command::new(&engines().ko).args([command, "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let flags = help.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [short, long, ..] if short.ends_with(',') && long.starts_with("--") => {
                Some((long.trim_matches('-').to_owned(), short.trim_matches(['-', ',']).to_owned()))
            }
            [long, ..] if long.starts_with("--") => Some((long.trim_matches('-').to_owned(), String::new())),
            _ => None,
        }
    });
    flags.filter(|(long, _)| long != "help").collect()
}

#[test]
fn every_flag_of_ko_is_taken_and_stands_in_the_reference() {
    let mut kos = BTreeMap::new();
    let command = lemnos::cli::Cli::command();
    let ko = command.get_subcommands().find(|command| command.get_name() == "ko").unwrap();
    for (name, least) in [("build", 21), ("resolve", 24)] {
        let theirs = kos_flags(name);
        assert!(theirs.len() >= least, "{theirs:?}");
        let command = ko.get_subcommands().find(|command| command.get_name() == name).unwrap();
        let ours: BTreeMap<String, String> = command
            .get_arguments()
            .filter_map(|flag| {
                let short = flag.get_short().map(String::from).unwrap_or_default();
                Some((flag.get_long()?.to_owned(), short))
            })
            .collect();
        let missing: Vec<_> = theirs.iter().filter(|(long, short)| ours.get(*long) != Some(short)).collect();
        assert_eq!(missing, Vec::<(&String, &String)>::new(), "{name}: not taken, or by another letter");
        kos.extend(theirs);
    }
    let table = include_str!("../../docs/reference/ko.md");
    let first_cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let told: BTreeSet<&str> = first_cells
        .flat_map(|cell| cell.split(['`', ',', ' ']))
        .filter_map(|word| word.strip_prefix("--"))
        .collect();
    let ko_has: BTreeSet<&str> = kos
        .keys()
        .map(String::as_str)
        .filter(|long| !["base-import-paths", "preserve-import-paths"].contains(long))
        .collect();
    // those two stand by their letters, beside --bare
    assert_eq!(told, ko_has);
    assert!(table.contains("`--bare`, `-B`, `-P`"));
}

/// Documents as data, empty ones left out.
pub fn documents(yaml: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_yaml::from_multiple(yaml).unwrap();
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// The pure part of `ko resolve`: which references a file has, and the file with images in their place.
#[test]
fn references_in_yaml_are_replaced_where_ko_replaces_them() {
    let shop = Shop::new(&[
        ("go.mod", "module example.com/shop\n\ngo 1.21\n"),
        ("web/main.go", MAIN),
        ("job/main.go", MAIN),
    ])
    .committed();
    let (web, job) = ("ko://example.com/shop/web", "ko://example.com/shop/job");
    let file = format!(
        "# what runs\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web, labels: {{app: web, tier: front}}}}\nspec:\n  containers:\n\
         \x20 - name: web\n    image: {web}\n  - {{name: job, image: '{job}', args: [\"--image={web}\", \"{job}\"]}}\n  note: |\n    not {web}\n---\n\
         apiVersion: v1\nkind: Map\nmetadata:\n  labels:\n    app: job\n{job}: x\nsame: &image {web}\nagain: *image\n---\n\
         apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {{labels: {{app: web}}}}\n  image: {web}\n- apiVersion: v1\n  kind: Pod\n  metadata: {{labels: {{app: other}}}}\n  image: {job}\n"
    );
    let path = shop.dir.path().join("app.yaml");
    std::fs::write(&path, &file).unwrap();
    let printed = shop.ko(&["./web", "./job"]);
    // ko prints in no order
    let image = |program: &str| printed.lines().find(|line| line.contains(program)).unwrap().to_owned();
    let images = BTreeMap::from([(web.to_owned(), image("/web-")), (job.to_owned(), image("/job-"))]);
    let path = path.to_str().unwrap();
    for selector in ["", "app=web", "app in (web,job),tier!=front", "!app", "tier"] {
        let mut args = vec!["resolve", "-f", path];
        args.extend((!selector.is_empty()).then_some(["--selector", selector]).into_iter().flatten());
        let kos = shop.run(&engines().ko, &args);
        assert!(kos.status.success(), "{selector}: {}", String::from_utf8_lossy(&kos.stderr));
        let selector = (!selector.is_empty()).then(|| selector.parse::<Selector>().unwrap());
        let ours = Manifest::read("app.yaml", &file, selector.as_ref()).unwrap().written(&images).unwrap();
        let kos = String::from_utf8(kos.stdout).unwrap();
        assert_eq!(documents(&ours), documents(&kos), "{selector:?}:\n{ours}\n{kos}");
    }
}
