//! The session's services asked by a real buildkitd, and their results beside buildctl's.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use lemnos::buildkit::session::content::{ContentStore, Descriptor};
use lemnos::buildkit::session::filesend::{DirExport, Export};
use lemnos::buildkit::session::upload::Upload;
use lemnos::buildkit::{CacheEntry, Exporter, Session, SessionBuilder, SolveRequest, SolveResult};

use super::buildkit::{Buildkitd, build, cached, connect, connect_when_ready, unique};
use super::support::engines;

/// Directories of one test: the context, and a place for what comes out.
struct Project {
    dir: tempfile::TempDir,
    attrs: BTreeMap<String, String>,
}

impl Project {
    fn new(dockerfile: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("context")).unwrap();
        std::fs::write(dir.path().join("context/Dockerfile"), dockerfile).unwrap();
        let attrs = [("filename", "Dockerfile"), ("build-arg:SOURCE_DATE_EPOCH", "1600000000")];
        Self { dir, attrs: attrs.map(|(k, v)| (k.into(), v.into())).into() }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn session(&self) -> SessionBuilder {
        let context = self.at("context");
        Session::builder(&format!("live:{}", unique()))
            .local_dir("context", &context)
            .local_dir("dockerfile", &context)
    }

    fn request(&self, session: SessionBuilder, exporters: &[(&str, &[(&str, &str)])]) -> SolveRequest {
        let exporter = |(kind, attrs): &(&str, &[(&str, &str)])| Exporter {
            kind: (*kind).into(),
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        };
        SolveRequest {
            frontend: "dockerfile.v0".into(),
            frontend_attrs: self.attrs.clone(),
            exporters: exporters.iter().map(exporter).collect(),
            internal: true,
            session: session.build().unwrap(),
            ..Default::default()
        }
    }

    async fn solve(&self, session: SessionBuilder, exporters: &[(&str, &[(&str, &str)])]) -> SolveResult {
        let client = connect(&engines().buildkit).await;
        build(&client, self.request(session, exporters)).await.0
    }

    /// The same build by buildctl.
    fn buildctl(&self, output: &str) {
        let local = |name: &str| format!("{name}={}", self.at("context").display());
        let mut command = Command::new(&engines().buildctl);
        command
            .args(["--addr", &engines().buildkit, "build", "--progress=plain", "--frontend=dockerfile.v0"])
            .args(["--local", &local("context"), "--local", &local("dockerfile"), "--output", output]);
        for (key, value) in &self.attrs {
            command.args(["--opt", &format!("{key}={value}")]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Everything that a tree consists of.
fn tree(root: &Path) -> BTreeMap<Vec<u8>, String> {
    fn walk(
        root: &Path,
        dir: &Path,
        first: &mut BTreeMap<u64, Vec<u8>>,
        tree: &mut BTreeMap<Vec<u8>, String>,
    ) {
        let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
        paths.sort();
        for path in paths {
            let found = std::fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let owner = (found.uid(), found.gid());
            let mut text =
                format!("{:o} {owner:?} {}.{:09}", found.mode(), found.mtime(), found.mtime_nsec());
            if found.is_file() {
                let name = first.entry(found.ino()).or_insert_with(|| name.clone()).escape_ascii();
                let content = std::fs::read(&path).unwrap();
                text += &format!(" {name} {}", content.escape_ascii());
            } else if found.is_symlink() {
                text += &format!(" {}", std::fs::read_link(&path).unwrap().display());
            }
            tree.insert(name, text);
            if found.is_dir() {
                walk(root, &path, first, tree);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(root, root, &mut BTreeMap::new(), &mut found);
    found
}

#[tokio::test]
async fn a_step_reads_the_secrets_that_it_mounts() {
    let mut project = Project::new("");
    let dockerfile = format!(
        "FROM busybox AS b\nRUN --mount=type=secret,id=file,required=true --mount=type=secret,id=value,env=V \
         --mount=type=secret,id=absent : {} && cp /run/secrets/file /f && echo -n $V >/v && \
         [ ! -e /run/secrets/absent ]\nFROM scratch\nCOPY --from=b /f /v /\n",
        unique()
    );
    std::fs::write(project.at("context/Dockerfile"), dockerfile).unwrap();
    std::fs::write(project.at("token"), "from the file").unwrap();
    let secrets = |project: &Project| {
        project.session().secret_file("file", &project.at("token")).secret_value("value", "v4lue")
    };
    project.solve(secrets(&project).export(0, Export::dir(&project.at("out"))), &[("local", &[])]).await;
    assert_eq!(std::fs::read_to_string(project.at("out/f")).unwrap(), "from the file");
    assert_eq!(std::fs::read_to_string(project.at("out/v")).unwrap(), "v4lue");
    // one that is required and not there
    let dockerfile = format!("FROM busybox\nRUN --mount=type=secret,id=other,required=true : {}\n", unique());
    std::fs::write(project.at("context/Dockerfile"), dockerfile).unwrap();
    project.attrs.remove("build-arg:SOURCE_DATE_EPOCH");
    let client = connect(&engines().buildkit).await;
    let error = client.solve(project.request(secrets(&project), &[]), |_| {}).await.unwrap_err();
    assert!(error.message.contains("other") && error.message.contains("not found"), "{error}");
}

/// Copies a program of this machine with what it links to.
pub fn install(program: &str, root: &Path) {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([program]) {
        let to = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap();
    }
}

#[tokio::test]
async fn a_step_lists_and_signs_through_the_agent_and_changes_nothing() {
    let project = Project::new(&format!(
        "FROM busybox AS b\nCOPY root /\nCOPY key.pub /\n\
         RUN --mount=type=ssh : {} && ssh-add -L >/keys && ssh-add -T /key.pub && ! ssh-add -D && ! ssh-add -x && \
         ssh-add -L | cmp - /keys\nFROM scratch\nCOPY --from=b /keys /\n",
        unique()
    ));
    install("/usr/bin/ssh-add", &project.at("context/root"));
    let key = project.at("key");
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "live", "-f"])
        .arg(&key)
        .output();
    assert!(made.unwrap().status.success());
    let public = std::fs::read_to_string(project.at("key.pub")).unwrap();
    std::fs::write(project.at("context/key.pub"), &public).unwrap();
    let session = project.session().ssh_keys("default", [&key]).export(0, Export::dir(&project.at("out")));
    project.solve(session, &[("local", &[])]).await;
    assert_eq!(std::fs::read_to_string(project.at("out/keys")).unwrap(), public);
}

/// A result with everything that a directory can hold.
fn odd() -> Project {
    Project::new(&format!(
        "FROM busybox AS b\nRUN mkdir -p /r/d/e /r/empty && cd /r && echo {} >d/f && ln d/f d/e/hard && ln d/f hard && \
         ln -s ../../up d/link && ln -s /absent abs && chmod 4755 d/f && chmod 1777 empty && mkfifo pipe && \
         echo x >'new name' && echo foo >foo.txt && mkdir foo && echo y >foo/bar && : >'-' && \
         for i in $(seq 1 300); do echo $i >foo/$i; done\nFROM scratch\nCOPY --from=b /r /\n",
        unique()
    ))
}

#[tokio::test]
async fn a_local_export_equals_buildctls() {
    let project = odd();
    let session = project.session().export(0, Export::dir(&project.at("ours")));
    project.solve(session, &[("local", &[])]).await;
    project.buildctl(&format!("type=local,dest={}", project.at("theirs").display()));
    let (ours, theirs) = (tree(&project.at("ours")), tree(&project.at("theirs")));
    assert!(ours.len() > 310 && ours.contains_key(&b"d/e/hard"[..]), "{}", ours.len());
    assert_eq!(ours, theirs);
    // again over it, deleting what is not of it, as only a whole export may
    for path in ["ours/stray/deep", "ours/foo/stray"] {
        std::fs::create_dir_all(project.at(path)).unwrap();
    }
    symlink("/etc", project.at("ours/foo/301")).unwrap();
    let export = Export::Dir(DirExport { path: project.at("ours"), delete: true, limit_bytes: None });
    project.solve(project.session().export(0, export), &[("local", &[("mode", "delete")])]).await;
    assert_eq!(tree(&project.at("ours")), theirs);
}

#[tokio::test]
async fn platforms_of_one_export_share_a_directory() {
    let mut project = Project::new(&format!("FROM scratch\nARG TARGETARCH\nCOPY {0}* /\n", "f"));
    for n in 0..200 {
        std::fs::write(project.at(&format!("context/f{n}")), unique()).unwrap();
    }
    project.attrs.insert("platform".into(), "linux/amd64,linux/arm64".into());
    let session = project.session().export(0, Export::dir(&project.at("ours")));
    project.solve(session, &[("local", &[])]).await;
    project.buildctl(&format!("type=local,dest={}", project.at("theirs").display()));
    let ours = tree(&project.at("ours"));
    assert!(ours.contains_key(&b"linux_arm64/f7"[..]) && ours.contains_key(&b"linux_amd64/f7"[..]));
    let content = |tree: BTreeMap<Vec<u8>, String>| -> Vec<_> {
        // a directory made for a platform has no time of its own to compare
        tree.into_iter().filter(|(path, _)| path.contains(&b'/')).collect()
    };
    assert_eq!(content(ours), content(tree(&project.at("theirs"))));
}

#[tokio::test]
async fn streams_of_several_exporters_equal_buildctls() {
    let project = odd();
    let at = |name: &str| project.at(name);
    let session = project
        .session()
        .export(0, Export::file(&at("0.tar")))
        .export(1, Export::dir(&at("1")))
        .export(2, Export::file(&at("2.oci")))
        .export(3, Export::file(&at("3.docker")));
    let name = ("name", "live.example/odd:1");
    project.solve(session, &[("tar", &[]), ("local", &[]), ("oci", &[name]), ("docker", &[name])]).await;
    for (kind, file) in [("tar", "0.tar"), ("oci", "2.oci"), ("docker", "3.docker")] {
        let theirs = at(&format!("theirs.{kind}"));
        let named = if kind == "tar" { String::new() } else { format!(",{}={}", name.0, name.1) };
        project.buildctl(&format!("type={kind},dest={}{named}", theirs.display()));
        let (ours, theirs) = (std::fs::read(at(file)).unwrap(), std::fs::read(theirs).unwrap());
        assert!(ours.len() > 10_000 && ours == theirs, "{kind}: {} and {} bytes", ours.len(), theirs.len());
    }
    assert!(at("1/foo/300").exists());
}

#[tokio::test]
async fn a_local_cache_is_written_and_serves_another_daemon() {
    let word = unique();
    let project =
        Project::new(&format!("FROM busybox\nRUN echo {word} >/word\nRUN echo {word} again >>/word\n"));
    let cache = project.at("cache").display().to_string();
    let entry = |attrs: &[(&str, &str)]| CacheEntry {
        kind: "local".into(),
        attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
    };
    let mut request = project.request(project.session().local_cache(&cache), &[]);
    request.cache_exports = vec![entry(&[("dest", &cache), ("mode", "max")])];
    let (result, _) = build(&connect(&engines().buildkit).await, request).await;
    let descriptor: Descriptor = serde_json::from_str(&result.attrs["cache.manifest"]).unwrap();
    let store = ContentStore::read_write(Path::new(&cache)).unwrap();
    store.tag(descriptor, "latest").unwrap();
    assert!(store.list().unwrap().len() >= 3);
    assert_eq!(std::fs::read_dir(project.at("cache/ingest")).unwrap().count(), 0);

    let other = Buildkitd::start();
    let client = connect_when_ready(&other.socket()).await;
    let digest = store.resolve("latest").unwrap().unwrap().digest;
    let mut request = project.request(
        project.session().local_cache(&cache).export(0, Export::file(&project.at("t"))),
        &[("tar", &[])],
    );
    request.cache_imports = vec![entry(&[("src", &cache), ("digest", &digest)])];
    let (_, events) = build(&client, request).await;
    assert!(cached(&events, "again"), "the last step is taken from the cache");
    assert!(std::fs::metadata(project.at("t")).unwrap().len() > 10_000, "its blobs too");
    // buildctl finds it by its tag
    let output = Command::new(&engines().buildctl)
        .args(["--addr", &format!("unix://{}", other.socket().display()), "prune", "--all"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let local = |name: &str| format!("{name}={}", project.at("context").display());
    let output = Command::new(&engines().buildctl)
        .args(["--addr", &format!("unix://{}", other.socket().display()), "build", "--progress=plain"])
        .args(["--frontend=dockerfile.v0", "--opt", "build-arg:SOURCE_DATE_EPOCH=1600000000"])
        .args(["--local", &local("context"), "--local", &local("dockerfile")])
        .args(["--import-cache", &format!("type=local,src={cache}")])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.matches("CACHED").count() >= 2, "{text}");
}

#[tokio::test]
async fn a_context_can_be_an_upload_and_a_base_an_oci_layout() {
    let base = Project::new(&format!("FROM scratch\nCOPY word /\n# {}\n", unique()));
    std::fs::write(base.at("context/word"), unique()).unwrap();
    let session = base.session().export(0, Export::file(&base.at("base.tar")));
    let solved = base.solve(session, &[("oci", &[])]).await;
    let layout = base.at("layout");
    tar::Archive::new(std::fs::File::open(base.at("base.tar")).unwrap()).unpack(&layout).unwrap();

    let mut context = tar::Builder::new(Vec::new());
    context.append_path_with_name(base.at("context/word"), "other").unwrap();
    let dockerfile = base.at("Dockerfile2");
    std::fs::write(&dockerfile, "FROM base\nCOPY other /\n").unwrap();
    context.append_path_with_name(&dockerfile, "Dockerfile").unwrap();
    let context = context.into_inner().unwrap();
    let session = Session::builder("")
        .upload("context", std::io::Cursor::new(context))
        .oci_layout("base", &layout)
        .export(0, Export::dir(&base.at("out")))
        .build()
        .unwrap();
    let digest = &solved.attrs["containerimage.digest"];
    let attrs =
        [("context", Upload::url("context")), ("context:base", format!("oci-layout://base@{digest}"))];
    let request = SolveRequest {
        frontend: "dockerfile.v0".into(),
        frontend_attrs: attrs.map(|(k, v)| (k.into(), v)).into(),
        exporters: vec![Exporter { kind: "local".into(), attrs: BTreeMap::new() }],
        internal: true,
        session,
        ..Default::default()
    };
    build(&connect(&engines().buildkit).await, request).await;
    let word = std::fs::read_to_string(base.at("context/word")).unwrap();
    for name in ["word", "other"] {
        assert_eq!(std::fs::read_to_string(base.at("out").join(name)).unwrap(), word);
    }
}
