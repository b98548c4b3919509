//! A dockerd that is not at a socket of this machine: TLS and ssh, as an image's destination and as the builder.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Certificates as docker keeps them in a directory.
fn certificates(pki: &Path, dir: &Path, name: &str) {
    std::fs::create_dir_all(dir).unwrap();
    for (from, to) in [
        ("ca.pem".to_owned(), "ca.pem"),
        (format!("{name}.pem"), "cert.pem"),
        (format!("{name}.key"), "key.pem"),
    ] {
        std::fs::copy(pki.join(from), dir.join(to)).unwrap();
    }
}

/// `ssh` in a directory, leading to this machine: what it is told to run there it runs here.
fn ssh(dir: &Path) -> String {
    let path = dir.join("ssh");
    let script =
        "#!/bin/bash\necho \"$@\" >>\"$0.said\"\nwhile [ \"$1\" != docker ]; do shift; done\nexec \"$@\"\n";
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", dir.display(), std::env::var("PATH").unwrap())
}

struct Far {
    dockerd: Dockerd,
    host: String,
    pki: tempfile::TempDir,
}

impl Far {
    async fn start() -> Self {
        let pki = tempfile::tempdir().unwrap();
        crate::pki::make(pki.path());
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("tcp://127.0.0.1:{port}");
        let at = |name: &str| pki.path().join(name).display().to_string();
        let (dockerd, _) = Dockerd::start_with(&format!(
            "--host {host} --tlsverify --tlscacert {} --tlscert {} --tlskey {}",
            at("ca.pem"),
            at("server.pem"),
            at("server.key")
        ))
        .await;
        Self { dockerd, host, pki }
    }
}

/// A Dockerfile that a dockerd without networks can build.
fn small() -> Bench {
    let bench = Bench::new("");
    let base = &engines().base_registry;
    bench.write("Dockerfile", &format!("FROM {base}/library/busybox\nCOPY Dockerfile /{}\n", bench.word));
    bench
}

#[tokio::test]
async fn a_dockerd_behind_tls_is_loaded_into_and_builds() {
    let far = Far::start().await;
    let bench = small();
    certificates(far.pki.path(), &bench.path("ours"), "client");
    certificates(far.pki.path(), &bench.path("strangers"), "stranger");
    let (ours, strangers) = (bench.path("ours"), bench.path("strangers"));
    let with = |dir: &Path| {
        let dir = dir.display().to_string();
        [("DOCKER_HOST", far.host.clone()), ("DOCKER_TLS_VERIFY", "1".to_owned()), ("DOCKER_CERT_PATH", dir)]
    };
    let run = |args: &[&str], variables: &[(&str, String)]| {
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        bench.run_with(args, &variables, b"")
    };
    let id = |name: &str| image_id(&far.dockerd, name);
    let name = format!("loaded-{}", bench.word);
    run(&["--load", "-t", &name, "--iidfile", "id", "."], &with(&ours)).good();
    assert_eq!(id(&name), Some(std::fs::read_to_string(bench.path("id")).unwrap()));
    // somebody else's certificate, and none
    let dockerd = format!("dockerd at {}", far.host);
    run(&["--load", "-t", &name, "."], &with(&strangers)).fails(6, &[&dockerd, "ertificate"]);
    run(&["--load", "-t", &name, "."], &with(&ours)[..1]).fails(6, &[&dockerd, "HTTPS"]);
    let unverified = [with(&ours)[0].clone(), ("DOCKER_TLS", "1".to_owned())];
    run(&["--load", "-t", &name, "."], &unverified).fails(6, &["DOCKER_TLS_VERIFY"]);

    // where nothing else builds, it does
    let bare = bench.path("no-server").display().to_string();
    let nobody = [("BUILDKIT_HOST", String::new()), ("LEMNOS_DATA", bare)];
    let name = format!("built-{}", bench.word);
    run(&["-t", &name, "."], &[&with(&ours)[..], &nobody].concat()).good();
    assert!(id(&name).is_some());
    run(&["."], &[&with(&strangers)[..], &nobody].concat()).fails(6, &["docker+tcp://", "ertificate"]);

    // the same by a context of docker's own
    let key = lemnos::model::Digest::of(b"far").as_str().replace("sha256:", "");
    let meta = format!(r#"{{"Name":"far","Endpoints":{{"docker":{{"Host":"{}"}}}}}}"#, far.host);
    bench.write(&format!(".docker/contexts/meta/{key}/meta.json"), &meta);
    let kept = bench.path(&format!(".docker/contexts/tls/{key}/docker"));
    certificates(far.pki.path(), &kept, "client");
    let name = format!("context-{}", bench.word);
    bench.run(&["-o", "type=docker,context=far", "-t", &name, "."]).good();
    assert!(id(&name).is_some());
    let name = format!("by-name-{}", bench.word);
    bench.run(&["--builder", "far", "-t", &name, "."]).good();
    assert!(id(&name).is_some());
    // and by its address
    let address = |name: &str| ours.join(name).display().to_string();
    let builder = format!(
        "docker+{},ca={},cert={},key={}",
        far.host,
        address("ca.pem"),
        address("cert.pem"),
        address("key.pem")
    );
    bench.run(&["--builder", &builder, "-o", "out", "."]).good();
    assert!(bench.path("out").join(&bench.word).exists());
}

#[tokio::test]
async fn a_dockerd_behind_ssh_is_loaded_into_and_builds() {
    let (dockerd, _client) = Dockerd::start().await;
    let bench = small();
    let host = format!("ssh://me@far{}", dockerd.at("docker.sock"));
    let path = ssh(bench.dir.path());
    let name = format!("loaded-{}", bench.word);
    let variables = [("DOCKER_HOST", host.as_str()), ("PATH", &path)];
    bench.run_with(&["--load", "-t", &name, "."], &variables, b"").good();
    assert!(image_id(&dockerd, &name).is_some());
    let name = format!("built-{}", bench.word);
    bench.run_with(&["--builder", &format!("docker+{host}"), "-t", &name, "."], &variables, b"").good();
    assert!(image_id(&dockerd, &name).is_some());
    let said = std::fs::read_to_string(bench.path("ssh.said")).unwrap();
    let socket = dockerd.at("docker.sock");
    let command = format!("-l me -- far docker --host=unix://{socket} system dial-stdio");
    assert!(said.lines().count() >= 4 && said.lines().all(|line| line == command), "{said}");
    // what ssh complains of is what is told
    let nowhere = [("DOCKER_HOST", "ssh://far/nowhere.sock"), ("PATH", path.as_str())];
    bench.run_with(&["--load", "-t", &name, "."], &nowhere, b"").fails(6, &["ssh://far", "nowhere.sock"]);
}

#[tokio::test]
async fn a_frontend_too_old_to_be_asked_has_a_newer_one_asked_in_its_place() {
    let (dockerd, _client) = Dockerd::start().await;
    let builder = format!("docker://{}", dockerd.at("docker.sock"));
    let bench = small();
    for args in [&["--check"][..], &["--call=targets"], &["--call=outline"]] {
        // there is no way out to Docker's registry here: that it was asked for is seen from what could not be had
        let ended = bench.run(&[&["--builder", &builder], args, &["."]].concat());
        ended.fails(
            1,
            &["unsupported request frontend.", "docker/dockerfile:1.8.1@sha256:", "in its frontend's place"],
        );
    }
    // of what no frontend of Docker's knows, none is asked
    let other = bench.run(&["--builder", &builder, "--call=nonsense", "."]);
    assert!(other.code == Some(1) && !other.err.contains("1.8.1"), "{}", other.err);
}
