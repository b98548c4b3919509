//! `lemnos build` by its binary: every kind of context, output and question, against a real buildkitd, a real registry and
//! a real dockerd.

mod docker;
mod terminal;
mod ways;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::buildkit::docker::Dockerd;
use super::buildkit::unique;
use super::support::{engines, lemnos};

/// A directory with a Dockerfile, and the command on it.
struct Bench {
    dir: tempfile::TempDir,
    word: String,
}

/// How a command ended.
struct Ended {
    code: Option<i32>,
    out: Vec<u8>,
    err: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code(), out: output.stdout, err }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    #[track_caller]
    fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.text(), self.err);
        self
    }

    #[track_caller]
    fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.text(), self.err);
        for word in words {
            assert!(self.err.contains(word), "{word:?} is missing in:\n{}", self.err);
        }
        self
    }
}

impl Bench {
    /// `WORD` in the Dockerfile is this bench's own.
    fn new(dockerfile: &str) -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap(), word: unique() };
        bench.write("Dockerfile", &dockerfile.replace("WORD", &bench.word));
        bench
    }

    fn write(&self, path: &str, text: &str) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn image(&self) -> String {
        format!("{}/live/command-{}", engines().registry, self.word)
    }

    /// In an environment with nothing of the machine's in it.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(lemnos());
        command.arg("build").args(args).current_dir(self.dir.path()).env_clear();
        command.env("PATH", std::env::var("PATH").unwrap()).env("HOME", self.dir.path());
        command.env("TMPDIR", std::env::temp_dir()).env("BUILDKIT_HOST", &engines().buildkit);
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    fn run_with(&self, args: &[&str], variables: &[(&str, &str)], input: &[u8]) -> Ended {
        let mut command = self.command(args);
        command
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // one that refuses the flags does not read
        let _ = child.stdin.take().unwrap().write_all(input);
        Ended::of(child.wait_with_output().unwrap())
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(path)).unwrap()).unwrap()
    }
}

fn crane(args: &[&str]) -> String {
    let out = Command::new(&engines().crane).args(args).arg("--insecure").output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn names(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
}

#[test]
fn without_an_output_the_result_stays_where_it_is_and_is_warned_of() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD\n");
    let ended = bench.run(&["."]).good();
    assert!(ended.out.is_empty() && ended.err.contains("no output is named"), "{}", ended.err);
    assert!(ended.err.contains("RUN echo ") && ended.err.contains("DONE"), "{}", ended.err);
    let again = bench.run(&["--progress=plain", "."]).good();
    assert!(again.err.contains("CACHED"), "{}", again.err);
    let named = bench.run(&["-o", "type=cacheonly", "."]).good();
    assert!(!named.err.contains("no output"), "{}", named.err);
}

#[test]
fn a_failing_step_is_shown_in_the_dockerfile() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD && exit 7\nRUN true\n");
    let ended = bench
        .run(&["."])
        .fails(1, &["Dockerfile:2", ">>> RUN echo ", "failed to build: failed to solve: ", "exit code: 7"]);
    assert!(ended.err.contains(&format!("{}\n", bench.word)), "its output: {}", ended.err);
    std::fs::remove_file(bench.path("Dockerfile")).unwrap();
    bench.run(&["."]).fails(1, &["failed to read dockerfile"]);
    bench.run(&["nowhere"]).fails(3, &["\"nowhere\" is no directory"]);
    bench.run(&["--unheard-of", "."]).fails(2, &["--unheard-of"]);
    bench.run(&["--squash", "."]).fails(2, &["--squash is not supported"]);
    bench.run(&[]).fails(2, &["PATH | URL | -"]);
}

#[test]
fn an_image_of_two_platforms_is_pushed_and_told_of() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD $(uname -m) >/word\n");
    let (one, two) = (format!("{}:1", bench.image()), format!("{}:2", bench.image()));
    std::fs::write(bench.path("id"), "an old one").unwrap();
    let args = ["--push", "--platform", "linux/amd64,linux/arm64", "-t", &one, "-t", &two];
    let args =
        [&args[..], &["--metadata-file", "meta.json", "--iidfile", "id", "--annotation", "index:a=b", "."]]
            .concat();
    bench.run(&args).good();
    let digest = crane(&["digest", &one]).trim().to_owned();
    assert_eq!(crane(&["digest", &two]).trim(), digest);
    let manifest: Value = serde_json::from_str(&crane(&["manifest", &one])).unwrap();
    let platforms: Vec<&str> = manifest["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["platform"]["architecture"].as_str())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64", "unknown", "unknown"], "two images and what attests them");
    assert_eq!(manifest["annotations"]["a"], "b");
    let meta = bench.json("meta.json");
    assert_eq!(meta["containerimage.digest"], digest.as_str());
    assert_eq!(meta["containerimage.descriptor"]["digest"], digest.as_str());
    assert_eq!(meta["image.name"], format!("{one},{two}"));
    assert_eq!(meta["buildx.build.ref"].as_str().unwrap().split('/').count(), 3);
    for platform in ["linux/amd64", "linux/arm64"] {
        let provenance = &meta[format!("buildx.build.provenance/{platform}")];
        assert_eq!(provenance["buildType"], "https://mobyproject.org/buildkit@v1", "{meta}");
        assert!(provenance["materials"][0]["uri"].as_str().unwrap().contains("busybox"), "{provenance}");
        assert!(provenance.get("metadata").is_none(), "min");
    }
    assert_eq!(std::fs::read_to_string(bench.path("id")).unwrap(), digest);
}

#[test]
fn one_platform_and_quiet_give_the_images_id() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD >/word\nWORKDIR rel\n");
    let args = ["--push", "-q", "-t", &bench.image(), "--provenance=false", "--metadata-file", "meta.json"];
    let variables = [("BUILDX_METADATA_WARNINGS", "1"), ("BUILDX_METADATA_PROVENANCE", "max")];
    let ended = bench.run_with(&[&args[..], &["."]].concat(), &variables, b"").good();
    let meta = bench.json("meta.json");
    let config = meta["containerimage.config.digest"].as_str().unwrap();
    assert_eq!((ended.text(), ended.err.as_str()), (format!("{config}\n"), ""));
    let manifest: Value = serde_json::from_str(&crane(&["manifest", &bench.image()])).unwrap();
    assert_eq!(manifest["config"]["digest"], config);
    assert!(meta["buildx.build.warnings"][0]["short"].is_string(), "{meta}");
    let full = &meta["buildx.build.provenance"];
    assert!(full["metadata"]["buildInvocationID"].is_string(), "{meta}");
    // shown without --quiet, and explained on demand
    let shown = bench.run(&["."]).good();
    assert!(shown.err.contains("1 warning found (use --debug to expand)"), "{}", shown.err);
    assert!(bench.run(&["-D", "."]).good().err.contains(">>> WORKDIR rel"));
}

#[test]
fn files_and_archives_come_out_as_asked() {
    let bench = Bench::new(
        "FROM busybox AS base\nRUN echo WORD >/word\nFROM scratch\nCOPY --from=base /word /sub/word\n",
    );
    let word = format!("{}\n", bench.word);
    bench.run(&["-o", "out", "."]).good();
    assert_eq!(std::fs::read_to_string(bench.path("out/sub/word")).unwrap(), word);
    let tar = bench.run(&["-o", "-", "."]).good();
    assert!(names(&tar.out).contains(&"sub/word".to_owned()));
    let several = [
        "-o",
        "type=tar,dest=deep/a.tar",
        "-o",
        "type=oci,dest=b.tar",
        "-o",
        "type=local,dest=out2",
        "-t",
        "shop:1",
        ".",
    ];
    bench.run(&several).good();
    let read = |path: &str| std::fs::read(bench.path(path)).unwrap();
    assert!(names(&read("deep/a.tar")).contains(&"sub/word".to_owned()));
    assert!(names(&read("b.tar")).contains(&"index.json".to_owned()));
    assert_eq!(std::fs::read_to_string(bench.path("out2/sub/word")).unwrap(), word);
    bench.run(&["-o", "type=oci,tar=false,dest=layout", "-t", "shop:1", "."]).good();
    let index = bench.json("layout/index.json");
    let annotations = &index["manifests"][0]["annotations"];
    assert_eq!(annotations["io.containerd.image.name"], "docker.io/library/shop:1", "{index}");
    bench.run(&["-o", "type=docker,dest=d.tar", "-t", "shop:1", "."]).good();
    assert!(names(&read("d.tar")).contains(&"manifest.json".to_owned()));
    bench.run(&["-o", "type=local", "."]).fails(2, &["dest=DIRECTORY"]);
    bench.run(&["-o", "-", "-o", "-", "."]).fails(2, &["standard output"]);
    bench.run(&["-o", "out", "--iidfile", "id", "."]).fails(2, &["--iidfile"]);
    bench.run(&["--push", "."]).fails(2, &["--tag"]);
}

fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn standard_input_is_a_tar_or_a_dockerfile() {
    let bench = Bench::new("");
    let dockerfile = format!("FROM scratch\nCOPY file /{}\n", bench.word);
    let tar = tar_of(&[("sub/Dockerfile", dockerfile.as_str()), ("file", "x")]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&tar).unwrap();
    for (input, out) in [(tar.clone(), "plain"), (packed.finish().unwrap(), "packed")] {
        bench.run_with(&["-f", "sub/Dockerfile", "-o", out, "-"], &[], &input).good();
        assert!(bench.path(out).join(&bench.word).exists(), "{out}");
    }
    // several at a time, each its own
    std::thread::scope(|scope| {
        for name in ["one", "two", "three", "four"] {
            let bench = &bench;
            scope.spawn(move || {
                let tar = tar_of(&[("Dockerfile", "FROM scratch\nCOPY file /\n"), ("file", name)]);
                bench.run_with(&["-o", name, "-"], &[], &tar).good();
                assert_eq!(std::fs::read_to_string(bench.path(name).join("file")).unwrap(), name);
            });
        }
    });
    let text = format!("FROM busybox\nRUN echo {} >/word\n", bench.word);
    bench.run_with(&["-o", "text", "-"], &[], text.as_bytes()).good();
    assert!(bench.path("text/word").exists());
    // a Dockerfile from there, and the files from here
    bench.write("file", "x");
    bench.run_with(&["-f", "-", "-o", "both", "."], &[], dockerfile.as_bytes()).good();
    assert!(bench.path("both").join(&bench.word).exists());
    let broken = bench.run_with(&["-f", "-", "."], &[], b"FROM busybox\nRUN false\n");
    broken.fails(1, &[">>> RUN false"]);
    bench.run_with(&["-f", "-", "-"], &[], b"x").fails(2, &["both the build context and the Dockerfile"]);
    bench
        .run_with(&["-f", "other", "-"], &[], b"FROM scratch\n")
        .fails(2, &["both standard input and --file"]);
    bench.run_with(&["-"], &[], b"").fails(2, &["standard input is empty"]);
    bench.run_with(&["-"], &[], b"\x28\xb5\x2f\xfd\0\0").fails(2, &["zstd"]);
}

/// Serves `git://127.0.0.1:PORT/` from `dir` for as long as the test runs.
fn git_daemon(dir: &Path) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let dir = dir.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let base = format!("--base-path={}", dir.display());
            let (input, output) = (stream.try_clone().unwrap(), stream);
            let daemon = Command::new("git")
                .args(["daemon", "--inetd", "--export-all", &base])
                .arg(&dir)
                .stdin(Stdio::from(std::os::fd::OwnedFd::from(input)))
                .stdout(Stdio::from(std::os::fd::OwnedFd::from(output)))
                .stderr(Stdio::null())
                .spawn();
            let _ = daemon.map(|mut daemon| daemon.wait());
        }
    });
    port
}

/// Serves what `answer` gives for a path.
fn http(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let mut words = head.split_whitespace();
            let (verb, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let (status, body) = answer(path).map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
            let length = body.len();
            let _ =
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            if verb != "HEAD" {
                let _ = stream.write_all(&body);
            }
        }
    });
    port
}

fn git(dir: &Path, args: &[&str]) {
    let identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"];
    let ran = Command::new("git").current_dir(dir).args(identity).args(args).output().unwrap();
    assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn repositories_and_addresses_are_contexts() {
    let bench = Bench::new("FROM scratch\nCOPY top /WORD\n");
    bench.write("top", "x");
    bench.write("sub/Dockerfile", &format!("FROM scratch\nCOPY inner /{}\n", bench.word));
    bench.write("sub/inner", "x");
    let repository = bench.path("repository.git");
    git(bench.dir.path(), &["init", "-q"]);
    git(bench.dir.path(), &["add", "Dockerfile", "top", "sub"]);
    git(bench.dir.path(), &["commit", "-qm", "x"]);
    git(bench.dir.path(), &["clone", "-q", "--bare", ".", repository.to_str().unwrap()]);
    let port = git_daemon(bench.dir.path());
    for (context, out) in [
        (format!("git://127.0.0.1:{port}/repository.git"), "whole"),
        (format!("git://127.0.0.1:{port}/repository.git#main:sub"), "part"),
        (format!("{}@main", repository.display()), "commit"),
    ] {
        bench.run(&["-o", out, &context]).good();
        assert!(bench.path(out).join(&bench.word).exists(), "{context}");
    }
    // a local Dockerfile on a context that is far away
    let own = bench.write("own.Dockerfile", &format!("FROM scratch\nCOPY sub/inner /own-{}\n", bench.word));
    let context = format!("git://127.0.0.1:{port}/repository.git");
    bench.run(&["-f", own.to_str().unwrap(), "-o", "own", &context]).good();
    assert!(bench.path("own").join(format!("own-{}", bench.word)).exists());

    let text = std::fs::read(bench.path("Dockerfile")).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_path_with_name(bench.path("Dockerfile"), "Dockerfile").unwrap();
    tar.append_path_with_name(bench.path("top"), "top").unwrap();
    let tar = tar.into_inner().unwrap();
    let port = http(move |path| match path {
        "/context.tar" => Some(tar.clone()),
        "/Dockerfile" => Some(text.clone()),
        _ => None,
    });
    bench.run(&["-o", "fetched", &format!("http://127.0.0.1:{port}/context.tar")]).good();
    assert!(bench.path("fetched").join(&bench.word).exists());
    bench.run(&["-f", &format!("http://127.0.0.1:{port}/Dockerfile"), "-o", "file", "."]).good();
    assert!(bench.path("file").join(&bench.word).exists());
    bench.run(&["-f", &format!("http://127.0.0.1:{port}/none"), "."]).fails(1, &["404"]);
}

#[test]
fn named_contexts_stand_for_images_and_directories() {
    let bench =
        Bench::new("FROM base AS b\nFROM scratch\nCOPY --from=lib /inside /\nCOPY --from=b /word /\n");
    bench.write("lib/inside", "x");
    let base = Bench::new("FROM busybox\nRUN echo WORD >/word\n");
    base.run(&["--push", "-t", &base.image(), "."]).good();
    let layout = ["-t", &base.image(), "-o", "type=oci,tar=false,dest=layout"];
    base.run(&[&layout[..], &["."]].concat()).good();
    base.run(&[&layout[..], &["--push", "."]].concat()).fails(2, &["must be the only one"]);
    let image = format!("base=docker-image://{}", base.image());
    bench.run(&["--build-context", "lib=lib", "--build-context", &image, "-o", "image", "."]).good();
    let layout = format!("base=oci-layout://{}", base.path("layout").display());
    bench.run(&["--build-context", "lib=lib", "--build-context", &layout, "-o", "layout", "."]).good();
    for out in ["image", "layout"] {
        assert_eq!(std::fs::read_to_string(bench.path(out).join("word")).unwrap().trim(), base.word);
        assert!(bench.path(out).join("inside").exists());
    }
    bench.run(&["--build-context", "lib=target:x", "."]).fails(2, &["bake"]);
    bench.run(&["--build-context", "lib=nowhere", "."]).fails(2, &["nowhere"]);
}

#[test]
fn ignore_files_and_other_dockerfiles_are_followed() {
    let bench = Bench::new("FROM scratch\nCOPY . /\n");
    bench.write("kept", "x");
    bench.write("left", "x");
    bench.write(".dockerignore", "left\nout*\n");
    bench.write("docker/other", "FROM scratch\nCOPY . /\n");
    bench.write("docker/other.dockerignore", "kept\nout*\n");
    bench.run(&["-o", "out", "."]).good();
    assert!(bench.path("out/kept").exists() && !bench.path("out/left").exists());
    bench.run(&["-f", "docker/other", "-o", "out2", "."]).good();
    assert!(!bench.path("out2/kept").exists() && bench.path("out2/left").exists());
    let policy = bench.write("Dockerfile.rego", "package docker\n");
    bench.run(&["."]).fails(2, &[policy.file_name().unwrap().to_str().unwrap(), "Rego"]);
    bench.run(&["--policy", "disabled=true", "."]).good();
}

#[test]
fn secrets_keys_and_arguments_reach_the_steps() {
    let bench = Bench::new(
        "FROM busybox\nARG A\nARG B\nRUN --mount=type=secret,id=file --mount=type=secret,id=variable \
         --mount=type=ssh test -S \"$SSH_AUTH_SOCK\" && echo WORD $A $B \
         $(cat /run/secrets/file) $(cat /run/secrets/variable) | tee /all\n",
    );
    bench.write("file", "of-a-file");
    let key = bench.path("key");
    let made =
        Command::new("ssh-keygen").args(["-qt", "ed25519", "-N", "", "-f"]).arg(&key).status().unwrap();
    assert!(made.success());
    let args = ["--secret", "id=file,src=file", "--secret", "id=variable,env=HELD", "--ssh", "default=key"];
    let args = [&args[..], &["--build-arg", "A=given", "--build-arg", "B", "--progress=plain", "."]].concat();
    let ended = bench.run_with(&args, &[("HELD", "of-the-environment"), ("B", "inherited")], b"").good();
    let told = format!("{} given inherited of-a-file of-the-environment", bench.word);
    assert!(ended.err.contains(&told), "{}", ended.err);
    bench.run(&["--secret", "id=file,src=nowhere", "."]).fails(2, &["file"]);
}

#[test]
fn a_local_cache_serves_a_builder_that_has_forgotten() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD >/word\n");
    bench.run(&["--cache-to", "type=local,dest=cache,mode=max", "."]).good();
    assert_eq!(bench.json("cache/index.json")["manifests"].as_array().unwrap().len(), 1);
    let ended = bench.run(&["--cache-from", "type=local,src=cache", "--no-cache-filter", "x", "."]).good();
    assert!(ended.err.contains("importing cache manifest from local"), "{}", ended.err);
    let missing = bench.run(&["--cache-from", "type=local,src=nowhere", "."]).good();
    assert!(missing.err.contains("the local cache nowhere is not used"), "{}", missing.err);
}

#[test]
fn a_dockerfile_is_asked_instead_of_built() {
    let bench = Bench::new("FROM busybox AS base\nARG A=1\nFROM base AS run\nRUN exit 1\n");
    let checked = bench.run(&["--check", "."]).good();
    assert!(checked.text().contains("Check complete, no warnings found."), "{}", checked.text());
    assert!(bench.run(&["--call=targets", "."]).good().text().contains("run (default)"));
    assert!(bench.run(&["--call=outline", "--target=base", "."]).good().text().contains("BUILD ARG"));
    let json: Value =
        serde_json::from_str(&bench.run(&["--call=targets,format=json", "."]).good().text()).unwrap();
    assert_eq!(json["targets"][1]["name"], "run");
    bench.write("Dockerfile", "FROM busybox\nWORKDIR rel\n");
    let found = bench.run(&["--check", "--metadata-file", "meta.json", "."]);
    assert_eq!(found.code, Some(1), "{}", found.err);
    assert!(
        found.text().contains("WARNING: WorkdirRelativePath") && found.text().contains(">>> WORKDIR rel"),
        "{}",
        found.text()
    );
    assert!(bench.json("meta.json")["result.json"]["warnings"].is_array());
    assert_eq!(bench.run(&["--call=check,ignorestatus=true", "."]).code, Some(0));
    bench.write("Dockerfile", "# check=error=true\nFROM busybox\nWORKDIR rel\n");
    bench.run(&["."]).fails(1, &["lint violation"]);
    bench.write("Dockerfile", "FORM busybox\n");
    bench.run(&["--check", "."]).fails(1, &["unknown instruction: FORM"]);
}

#[test]
fn progress_is_shown_as_asked() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD\n");
    let raw = bench.run(&["--progress=rawjson", "-o", "type=cacheonly", "."]).good();
    let lines: Vec<Value> = raw.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        lines
            .iter()
            .any(|line| line["vertexes"][0]["name"].as_str().is_some_and(|n| n.contains(&bench.word)))
    );
    let none = bench.run(&["--progress=none", "-o", "type=cacheonly", "."]).good();
    assert!(none.err.is_empty() && none.out.is_empty(), "{}", none.err);
    let variable =
        bench.run_with(&["-o", "type=cacheonly", "."], &[("BUILDKIT_PROGRESS", "none")], b"").good();
    assert!(variable.err.is_empty(), "{}", variable.err);
    bench.run(&["--progress=plain", "-q", "."]).fails(2, &["cannot be used together"]);
}

#[test]
fn an_interrupted_build_is_cancelled_and_says_so() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD begun && sleep 600\n");
    let mut child = bench
        .command(&["--progress=plain", "."])
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut err = child.stderr.take().unwrap();
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    let begun = format!("{} begun\n", bench.word);
    while !String::from_utf8_lossy(&seen).contains(&begun) {
        let length = err.read(&mut piece).unwrap();
        assert!(length > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..length]);
    }
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "it did not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    err.read_to_end(&mut seen).unwrap();
    assert_eq!(status.code(), Some(130), "{}", String::from_utf8_lossy(&seen));
    assert!(String::from_utf8_lossy(&seen).contains("context canceled"));
}

#[test]
fn several_builders_make_one_image() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD $(uname -m) >/word\n");
    let amd64 = format!("{},platform=linux/amd64,name=a", engines().buildkit);
    let arm64 = format!("{},platform=linux/arm64,name=b", engines().buildkit);
    let builders = ["--builder", &amd64, "--builder", &arm64, "--platform", "linux/arm64,linux/amd64"];
    let (one, two) = (format!("{}:1", bench.image()), format!("{}-b:2", bench.image()));
    let push =
        ["--push", "-t", &one, "-t", &two, "--metadata-file", "meta.json", "--annotation", "index:a=b", "."];
    let ended = bench.run(&[&builders[..], &push].concat()).good();
    assert!(ended.err.contains("merging manifest list"), "{}", ended.err);
    let manifest: Value = serde_json::from_str(&crane(&["manifest", &one])).unwrap();
    let platforms: Vec<&str> = manifest["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["platform"]["architecture"].as_str())
        .collect();
    assert_eq!(platforms, ["arm64", "amd64", "unknown", "unknown"], "{manifest}");
    assert_eq!(manifest["annotations"]["a"], "b");
    let digest = crane(&["digest", &one]).trim().to_owned();
    assert_eq!(crane(&["digest", &two]).trim(), digest);
    assert_eq!(bench.json("meta.json")["containerimage.digest"], digest.as_str());
    bench.run(&[&builders[..], &["-o", "out", "."]].concat()).fails(2, &["several builders"]);
    bench.run(&["--builder", "nowhere://x", "."]).fails(2, &["is not a builder's address: unix:"]);
    bench.run(&["--builder", "nowhere", "."]).fails(3, &["no instance \"nowhere\""]);
    let instance =
        format!(r#"{{"Driver":"remote","Nodes":[{{"Name":"a","Endpoint":"{}"}}]}}"#, engines().buildkit);
    bench.write(".docker/buildx/instances/mine", &instance);
    bench.run(&["--builder", "mine", "-o", "type=cacheonly", "."]).good();
    // what `docker buildx use` chose, where nothing else names a builder
    bench.write(".docker/buildx/current", r#"{"Name":"mine","Global":true}"#);
    let mut chosen = bench.command(&["-o", "type=cacheonly", "."]);
    chosen.env_remove("BUILDKIT_HOST").env("LEMNOS_DATA", bench.path("no-server"));
    Ended::of(chosen.output().unwrap()).good();
    bench.run(&["--builder", "unix:///nowhere.sock", "."]).fails(6, &["/nowhere.sock"]);
}

#[test]
fn git_is_told_of_in_provenance() {
    let bench = Bench::new("FROM busybox\nRUN echo WORD\n");
    git(bench.dir.path(), &["init", "-q"]);
    git(bench.dir.path(), &["add", "Dockerfile"]);
    git(bench.dir.path(), &["commit", "-qm", "x"]);
    git(bench.dir.path(), &["remote", "add", "origin", "https://me:s3cret@git.example.com/shop.git"]);
    let variables = [("BUILDX_METADATA_PROVENANCE", "max"), ("BUILDX_GIT_LABELS", "1")];
    let args = ["--metadata-file", "meta.json", "--push", "-t", &bench.image(), "--provenance=mode=max", "."];
    bench.run_with(&args, &variables, b"").good();
    let meta = bench.json("meta.json");
    let vcs =
        &meta["buildx.build.provenance"]["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["vcs"];
    assert_eq!(vcs["source"], "https://xxxxx:xxxxx@git.example.com/shop.git", "{meta}");
    assert_eq!(vcs["revision"].as_str().unwrap().len(), 40);
    let config: Value = serde_json::from_str(&crane(&["config", &bench.image()])).unwrap();
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["org.opencontainers.image.revision"], vcs["revision"], "{config}");
    assert_eq!(labels["com.docker.image.source.entrypoint"], "Dockerfile");
}

/// An image's id in a dockerd.
fn image_id(dockerd: &Dockerd, name: &str) -> Option<String> {
    let mut stream = UnixStream::connect(dockerd.at("docker.sock")).unwrap();
    write!(stream, "GET /images/{name}/json HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str::<Value>(body).unwrap()["Id"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn an_image_is_loaded_into_docker_and_built_by_docker() {
    let (dockerd, _client) = Dockerd::start().await;
    let host = format!("unix://{}", dockerd.at("docker.sock"));
    let variables = [("DOCKER_HOST", host.as_str())];
    let bench = Bench::new("FROM busybox\nRUN echo WORD >/word\n");
    let name = format!("loaded-{}", bench.word);
    let id = |name: &str| image_id(&dockerd, name);
    let ended = bench.run_with(&["--load", "-t", &name, "--iidfile", "id", "."], &variables, b"").good();
    assert!(!ended.err.contains("no output"), "{}", ended.err);
    assert_eq!(id(&name), Some(std::fs::read_to_string(bench.path("id")).unwrap()));
    let two = bench.run_with(&["--load", "--platform", "linux/amd64,linux/arm64", "."], &variables, b"");
    two.fails(2, &["one platform"]);
    let elsewhere = [("DOCKER_HOST", "unix:///nowhere.sock")];
    bench.run_with(&["--load", "-t", &name, "."], &elsewhere, b"").fails(6, &["/nowhere.sock"]);

    // dockerd itself as the builder: what it builds is its own
    let builder = format!("docker://{}", dockerd.at("docker.sock"));
    let own = Bench::new("");
    own.write(
        "Dockerfile",
        &format!("FROM {}/library/busybox\nCOPY Dockerfile /{}\n", engines().base_registry, own.word),
    );
    let name = format!("built-{}", own.word);
    own.run(&["--builder", &builder, "-t", &name, "."]).good();
    assert!(id(&name).is_some());
    own.run(&["--builder", &builder, "--push", "-t", &own.image(), "."]).fails(2, &["does not push"]);
    // it is there already: what loads it changes nothing
    let (first, id_file) = (id(&name), own.path("id"));
    own.run(&["--builder", &builder, "--load", "-t", &name, "--iidfile", "id", "."]).good();
    assert_eq!((id(&name), std::fs::read_to_string(id_file).ok()), (first.clone(), first));
    // and files come out of it as out of any other
    own.run(&["--builder", &builder, "-o", "type=local,dest=out", "."]).good();
    assert!(own.path("out").join(&own.word).exists());
    let tar = own.run(&["--builder", &builder, "-o", "-", "."]).good();
    assert!(names(&tar.out).contains(&own.word));
    own.run(&["--builder", &builder, "-o", "type=oci,dest=a", "."]).fails(2, &["makes no type=oci"]);
}
