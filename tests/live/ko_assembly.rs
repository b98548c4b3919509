//! ko v0.19.1 and lemnos make images of the same programs, and the images are held against each other.
//!
//! Most cases give ko a stand-in for `go` that packs bytes of ours, so that only ko's own work is compared; one compiles a real
//! program for three platforms, with the flags that ko compiles with. What ko makes of the cases is also written down, in
//! tests/it/ko_assembly/golden.json: run with LEMNOS_WRITE_GOLDENS=1 to write it anew.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use lemnos::assemble::ko::{self, BuildInfo, Naming};
use lemnos::model::{BuildId, Digest};
use serde_json::Value;

use crate::ko_program::{
    BINARY, BUILD_INFO, Base, Case, DOCKER_LIST, DOCKER_MANIFEST, IMPORT_PATH, Node, OCI_INDEX, OCI_MANIFEST,
    Program, Seen, SeenImage, cases, gunzipped, kept, stand_in,
};
use crate::support::engines;

/// A registry by curl, without any library of ours between.
pub(crate) struct Depot {
    pub(crate) repository: String,
}

impl Depot {
    fn url(&self, path: &str) -> String {
        let (host, repository) = self.repository.split_once('/').unwrap();
        format!("http://{host}/v2/{repository}/{path}")
    }

    fn curl(args: &[&str]) -> Vec<u8> {
        let output = Command::new("curl").args(["-sSf", "--max-time", "60"]).args(args).output().unwrap();
        assert!(output.status.success(), "curl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn put(&self, base: &Base) {
        let dir = tempfile::tempdir().unwrap();
        let upload = dir.path().join("upload");
        let data = format!("@{}", upload.display());
        let binary = "Content-Type: application/octet-stream";
        for blob in &base.blobs {
            std::fs::write(&upload, blob).unwrap();
            let place = Self::curl(&[
                "-o",
                "/dev/null",
                "-w",
                "%header{location}",
                "-X",
                "POST",
                &self.url("blobs/uploads/"),
            ]);
            let place = String::from_utf8(place).unwrap();
            let host = self.repository.split_once('/').unwrap().0;
            let place = if place.starts_with('/') { format!("http://{host}{place}") } else { place };
            let place = format!("{place}&digest={}", Digest::of(blob));
            Self::curl(&["-X", "PUT", "-H", binary, "--data-binary", &data, &place]);
        }
        for (number, (bytes, media_type)) in base.manifests.iter().enumerate() {
            std::fs::write(&upload, bytes).unwrap();
            let top = number + 1 == base.manifests.len();
            let name = if top { "stable".to_owned() } else { Digest::of(bytes).to_string() };
            let media_type = format!("Content-Type: {media_type}");
            let url = self.url(&format!("manifests/{name}"));
            Self::curl(&["-X", "PUT", "-H", &media_type, "--data-binary", &data, &url]);
        }
    }

    fn manifest(&self, name: &str) -> Vec<u8> {
        let accept = format!("Accept: {OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}");
        Self::curl(&["-H", &accept, &self.url(&format!("manifests/{name}"))])
    }

    fn blob(&self, digest: &Value) -> Vec<u8> {
        let digest = digest.as_str().unwrap();
        let blob = Self::curl(&["-L", &self.url(&format!("blobs/{digest}"))]);
        assert_eq!(Digest::of(&blob).as_str(), digest);
        blob
    }

    fn sbom(&self, of: &Digest) -> Value {
        let manifest = json(&self.manifest(ko::sbom_tag(of).as_str()));
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 1);
        let document = self.blob(&manifest["layers"][0]["digest"]);
        // ko's form of it, as we write it, of the same document
        let ours = ko::tagged(document.clone());
        assert_eq!(json(&ours.manifest.bytes)["layers"], manifest["layers"]);
        assert_eq!(json(&ours.blobs[0].bytes), json(&self.blob(&manifest["config"]["digest"])));
        json(&document)
    }

    fn image(&self, digest: &Digest) -> SeenImage {
        let manifest = json(&self.manifest(digest.as_str()));
        let layers = manifest["layers"].as_array().unwrap();
        let tars = layers.iter().skip(1).map(|layer| gunzipped(&self.blob(&layer["digest"]))).collect();
        SeenImage {
            digest: digest.clone(),
            own: 1,
            config: json(&self.blob(&manifest["config"]["digest"])),
            sbom: self.sbom(digest),
            manifest,
            tars,
        }
    }

    pub(crate) fn seen(&self, printed: String) -> Seen {
        let digest: Digest = printed.rsplit_once('@').unwrap().1.parse().unwrap();
        let top = json(&self.manifest(digest.as_str()));
        let (index, index_sbom, images) = match top["manifests"].as_array() {
            None => (Value::Null, Value::Null, vec![self.image(&digest)]),
            Some(entries) => {
                let of = |entry: &Value| self.image(&entry["digest"].as_str().unwrap().parse().unwrap());
                (top.clone(), self.sbom(&digest), entries.iter().map(of).collect())
            }
        };
        Seen { printed, digest, index, index_sbom, images }
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

/// A module with the case's kodata, and what ko reads beside it.
fn written(case: &Case, dir: &Path, program: &str) {
    let package = dir.join("cmd/Web");
    std::fs::create_dir_all(&package).unwrap();
    std::fs::write(dir.join("go.mod"), "module example.com/Shop\n\ngo 1.21\n").unwrap();
    std::fs::write(package.join("main.go"), program).unwrap();
    for (path, node) in &case.kodata {
        let path = package.join("kodata").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        match node {
            Node::File(content) => std::fs::write(&path, content).unwrap(),
            Node::Link(target) => symlink(target, &path).unwrap(),
            Node::Directory => std::fs::create_dir_all(&path).unwrap(),
        }
    }
    let capabilities = serde_json::to_string(case.capabilities).unwrap();
    let config = format!("builds:\n- main: ./cmd/Web\n  linux_capabilities: {capabilities}\n");
    std::fs::write(dir.join(".ko.yaml"), config).unwrap();
}

/// Says what Go would say and packs what it is told to; only `env` and `list` are Go's.
fn go_stand_in(dir: &Path) -> PathBuf {
    std::fs::write(dir.join("binary"), BINARY).unwrap();
    std::fs::write(dir.join("info"), BUILD_INFO).unwrap();
    let script = "#!/bin/sh\nhere=${0%/*}\ncase $1 in\n\
        build) while [ \"$1\" != -o ]; do shift; done; mkdir -p \"${2%/*}\"; cp \"$here/binary\" \"$2\" ;;\n\
        version) echo \"$3: go1.26.3\"; sed 's/^/\\t/' \"$here/info\" ;;\n\
        *) exec \"$REAL_GO\" \"$@\" ;;\nesac\n";
    let path = dir.join("go-stand-in");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Says that it has cloned whatever it is asked to; the rest is git's. ko asks for the debugger's source in this way.
fn git_stand_in(dir: &Path) -> PathBuf {
    let path = dir.join("stand-ins/git");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let git = Command::new("sh").args(["-c", "command -v git"]).output().unwrap().stdout;
    let git = String::from_utf8(git).unwrap();
    let script =
        format!("#!/bin/sh\ncase \" $* \" in *\" clone \"*) ;; *) exec {} \"$@\" ;; esac\n", git.trim());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// A command that Go's and ko's settings of whoever runs the tests do not reach.
pub(crate) fn clean(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    for name in [
        "GOFLAGS",
        "GOOS",
        "GOARCH",
        "GOARM",
        "GOAMD64",
        "SOURCE_DATE_EPOCH",
        "KO_DATA_DATE_EPOCH",
        "KOCACHE",
    ] {
        command.env_remove(name);
    }
    let go = &engines().go;
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", go.parent().unwrap().display()));
    command.env("REAL_GO", go).env("GOTOOLCHAIN", "local").env("TZ", "UTC").current_dir(dir);
    command
}

fn ko_command(case: &Case, dir: &Path, base: &str, prefix: &str, go: Option<&Path>) -> Command {
    let mut ko = clean(&engines().ko, dir);
    ko.args(["build", "./cmd/Web", "--platform", case.platforms]);
    ko.env("KO_DEFAULTBASEIMAGE", base).env("KO_DOCKER_REPO", prefix);
    if let Some(go) = go {
        ko.env("KO_GO_PATH", go);
    }
    for (name, time) in [("SOURCE_DATE_EPOCH", case.created), ("KO_DATA_DATE_EPOCH", case.kodata_created)] {
        if let Some(time) = time {
            ko.env(name, time.to_string());
        }
    }
    let pairs = [("--image-label", case.labels), ("--image-annotation", case.annotations)];
    for (flag, list) in pairs {
        for (name, value) in list {
            ko.arg(flag).arg(format!("{name}={value}"));
        }
    }
    if let Some(user) = case.user {
        ko.args(["--image-user", user]);
    }
    if case.debug {
        let (go, git) = (engines().go.parent().unwrap().display(), git_stand_in(dir));
        let path = std::env::var("PATH").unwrap();
        ko.arg("--debug").env("PATH", format!("{}:{go}:{path}", git.parent().unwrap().display()));
    }
    if !case.tags.is_empty() {
        ko.arg("--tags").arg(case.tags.join(","));
    }
    match case.naming {
        Naming::Md5 => {}
        Naming::Base => drop(ko.arg("--base-import-paths")),
        Naming::Path => drop(ko.arg("--preserve-import-paths")),
        Naming::Bare => drop(ko.arg("--bare")),
    }
    ko
}

fn ko_build(case: &Case, dir: &Path, base: &str, prefix: &str, go: Option<&Path>) -> String {
    let output = ko_command(case, dir, base, prefix, go).output().unwrap();
    assert!(output.status.success(), "{}: {}", case.name, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The case by ko and by us, in `dir`, where its module stands; and what the registry's address is to be taken for.
fn compared(case: &Case, go: Option<&Path>, dir: &Path, program: &Program<'_>) -> (Seen, Seen, String) {
    // golden.json holds the path after the registry's address
    let registry = &engines().registry;
    let root = format!("{registry}/{}", BuildId::generate());
    let (base, prefix) = (format!("{root}/ko/base"), format!("{root}/ko/out"));
    let made = case.base();
    Depot { repository: base.clone() }.put(&made);
    let base = format!("{base}:stable");
    let printed = ko_build(case, dir, &base, &prefix, go);
    let repository = case.naming.repository(&prefix, IMPORT_PATH).unwrap().to_string();
    let kos = Depot { repository }.seen(printed);
    let ours = case.assembled(&made, &base, &prefix, program);
    for (kos, ours) in kos.images.iter().zip(&ours.images) {
        for (kos, ours) in kos.tars.iter().zip(&ours.tars) {
            let differs = kos.iter().zip(ours).position(|(a, b)| a != b);
            assert_eq!(
                (differs, kos.len()),
                (None, ours.len()),
                "{}: the first byte that differs",
                case.name
            );
        }
    }
    (kos, ours, root)
}

pub(crate) fn lines(value: &Value) -> Vec<String> {
    serde_json::to_string_pretty(value).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn ko_and_lemnos_make_the_same_images() {
    let mut golden = serde_json::Map::new();
    for case in cases() {
        let dir = tempfile::tempdir().unwrap();
        written(&case, dir.path(), "package main\n\nfunc main() {}\n");
        let go = go_stand_in(dir.path());
        let (kos, ours, root) = compared(&case, Some(&go), dir.path(), &stand_in);
        let (expected, found) = (kos.comparable(&root), ours.comparable(&root));
        assert_eq!(lines(&found), lines(&expected), "{}", case.name);
        if case.docker {
            // the one kind of index of whose base ko tells the truth
            let told = |seen: &Seen| seen.index["annotations"][ko::BASE_DIGEST].clone();
            assert_eq!(told(&kos), told(&ours));
        }
        golden.insert(case.name.to_owned(), kept(expected));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/ko_assembly/golden.json");
    if std::env::var_os("LEMNOS_WRITE_GOLDENS").is_some() {
        let of = |(name, made): (&String, &Value)| format!("{}: {made}", Value::from(name.as_str()));
        let cases: Vec<String> = golden.iter().map(of).collect();
        std::fs::write(&path, format!("{{\n{}\n}}\n", cases.join(",\n"))).unwrap();
    }
    let kept: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert_eq!(lines(&kept), lines(&golden.into()), "golden.json is not what ko makes today");
}

/// Numbers without a pattern, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

/// A tangle of directories, files and links to each other: every link that lemnos takes.
fn tangle() -> Case {
    let mut dice = Dice(7);
    let mut case =
        Case { name: "tangle", base: &["linux/amd64"], platforms: "linux/amd64", ..Case::default() };
    let name = |dice: &mut Dice| ["a", "a.b", "A", "a-b", "b", "ü", "aa"][dice.below(7)];
    let targets: [&'static str; 12] = [
        "a",
        "../a",
        "../b",
        "b/aa",
        "../../A",
        "./a-b",
        "a.b/../b",
        "..",
        "../ü/a",
        "aa",
        "A/b",
        "../../b/a",
    ];
    for _ in 0..800 {
        let depth = 1 + dice.below(4);
        let path: Vec<&str> = (0..depth).map(|_| name(&mut dice)).collect();
        let path = path.join("/");
        // below a directory there is room, anywhere else the place is taken
        let taken = |(known, node): &(String, Node)| {
            let below = path.starts_with(&format!("{known}/"));
            *known == path
                || known.starts_with(&format!("{path}/"))
                || below && !matches!(node, Node::Directory)
        };
        if case.kodata.iter().any(taken) {
            continue;
        }
        let node = match dice.below(6) {
            0 => Node::File(path.clone().into_bytes()),
            1 => Node::Directory,
            _ => Node::Link(targets[dice.below(12)]),
        };
        case.kodata.push((path, node));
        let entries = ko::kodata(&case.source(), "cmd/Web/kodata", "cmd/Web/kodata");
        if entries.is_ok_and(|entries| entries.len() < 3000) {
            continue;
        }
        case.kodata.pop();
    }
    case
}

#[test]
fn a_tangle_of_links_is_packed_as_ko_packs_it() {
    let case = tangle();
    let links = case.kodata.iter().filter(|(_, node)| matches!(node, Node::Link(_))).count();
    let entries = ko::kodata(&case.source(), "cmd/Web/kodata", "cmd/Web/kodata").unwrap();
    assert!(links > 20 && entries.len() > 100, "{links} links, {} entries", entries.len());
    let dir = tempfile::tempdir().unwrap();
    written(&case, dir.path(), "package main\n\nfunc main() {}\n");
    let go = go_stand_in(dir.path());
    let (kos, ours, root) = compared(&case, Some(&go), dir.path(), &stand_in);
    assert_eq!(lines(&ours.comparable(&root)), lines(&kos.comparable(&root)));
}

#[test]
fn what_ko_refuses_to_pack_is_refused() {
    let base = format!("{}/{}/ko/base", engines().registry, BuildId::generate());
    for target in ["missing", "../main.go", "/etc/passwd", "file/in", "file/", "../../../../etc"] {
        let kodata =
            vec![("file".to_owned(), Node::File(Vec::new())), ("link".to_owned(), Node::Link(target))];
        let case = Case {
            name: "refused",
            base: &["linux/amd64"],
            platforms: "linux/amd64",
            kodata,
            ..Case::default()
        };
        ko::kodata(&case.source(), "cmd/Web/kodata", "cmd/Web/kodata").unwrap_err();
        if target == "missing" {
            Depot { repository: base.clone() }.put(&case.base());
        }
        let dir = tempfile::tempdir().unwrap();
        written(&case, dir.path(), "package main\n\nfunc main() {}\n");
        let go = go_stand_in(dir.path());
        let output =
            ko_command(&case, dir.path(), &format!("{base}:stable"), &base, Some(&go)).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("kodata"), "{target}: {said}");
    }
}

const PROGRAM: &str = "package main\n\nimport (\n\t\"example.com/dep\"\n\t\"example.com/replaced\"\n)\n\n\
    func main() { println(dep.Word, replaced.Word) }\n";

/// Modules beside the program's own, vendored: nothing is fetched.
fn with_modules(dir: &Path) {
    let files = [
        (
            "go.mod",
            "module example.com/Shop\n\ngo 1.21\n\nrequire (\n\texample.com/dep v1.2.3\n\texample.com/replaced v0.1.0\n)\n\n\
            replace example.com/replaced => ./local\n",
        ),
        (
            "go.sum",
            "example.com/dep v1.2.3 h1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\
            example.com/dep v1.2.3/go.mod h1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        ),
        ("local/go.mod", "module example.com/replaced\n\ngo 1.21\n"),
        (
            "vendor/modules.txt",
            "# example.com/dep v1.2.3\n## explicit; go 1.21\nexample.com/dep\n\
            # example.com/replaced v0.1.0 => ./local\n## explicit; go 1.21\nexample.com/replaced\n# example.com/replaced => ./local\n",
        ),
        ("vendor/example.com/dep/dep.go", "package dep\n\nconst Word = \"a\"\n"),
        ("vendor/example.com/replaced/replaced.go", "package replaced\n\nconst Word = \"b\"\n"),
    ];
    for (path, text) in files {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

/// `go build` as ko runs it.
fn compiled(dir: &Path, platform: &str) -> PathBuf {
    let parts: Vec<&str> = platform.split('/').collect();
    let mut go = clean(&engines().go, dir);
    go.env("CGO_ENABLED", "0").env("GOOS", parts[0]).env("GOARCH", parts[1]);
    if parts[1] == "arm" {
        go.env("GOARM", "7");
    }
    let out = dir.join(platform.replace('/', "-"));
    let output = go.args(["build", "-trimpath", "-o"]).arg(&out).arg("./cmd/Web").output().unwrap();
    assert!(output.status.success(), "{platform}: {}", String::from_utf8_lossy(&output.stderr));
    out
}

fn told(program: &Path) -> BuildInfo {
    BuildInfo::read(&mut std::fs::File::open(program).unwrap()).unwrap()
}

/// What Go itself reads out of a program.
fn told_by_go(program: &Path) -> BuildInfo {
    let output = Command::new(&engines().go).args(["version", "-m"]).arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    let rest: Vec<&str> = rest.lines().map(|line| line.strip_prefix('\t').unwrap()).collect();
    let go_version = first.rsplit_once(": ").unwrap().1.to_owned();
    BuildInfo { go_version, ..BuildInfo::parse(&rest.join("\n")).unwrap() }
}

#[test]
fn a_compiled_program_becomes_the_image_that_ko_makes_of_it() {
    let case = Case {
        name: "compiled",
        base: &["linux/amd64", "linux/arm64/v8", "linux/arm/v7"],
        platforms: "linux/amd64,linux/arm64,linux/arm/v7",
        kodata: vec![("page.html".to_owned(), Node::File(b"<p>".to_vec()))],
        ..Case::default()
    };
    let dir = tempfile::tempdir().unwrap();
    written(&case, dir.path(), PROGRAM);
    with_modules(dir.path());
    let program = |platform: &str| {
        let out = compiled(dir.path(), platform);
        (std::fs::read(&out).unwrap(), told(&out))
    };
    let (kos, ours, root) = compared(&case, None, dir.path(), &program);
    assert_eq!(lines(&ours.comparable(&root)), lines(&kos.comparable(&root)));
    let info = told(&dir.path().join("linux-amd64"));
    let deps: Vec<(&str, bool)> =
        info.deps.iter().map(|dep| (dep.path.as_str(), dep.replace.is_some())).collect();
    assert_eq!(deps, [("example.com/dep", false), ("example.com/replaced", true)]);
}

#[test]
fn programs_of_all_systems_tell_us_what_they_tell_go() {
    let dir = tempfile::tempdir().unwrap();
    written(&Case::default(), dir.path(), PROGRAM);
    with_modules(dir.path());
    let systems = ["linux/386", "windows/amd64", "darwin/arm64"];
    let programs = systems.map(|platform| compiled(dir.path(), platform));
    for program in programs.iter().chain([&engines().ko, &engines().crane, &engines().buildkitd]) {
        let info = told(program);
        assert_eq!(info, told_by_go(program), "{}", program.display());
        assert!(!info.deps.is_empty());
    }
}
