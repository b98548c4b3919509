//! Private modules of Go programs: a proxy that wants a name and a password, and a repository behind SSH, both on loopback;
//! fetched in pushes with the app's secrets, and by `lemnos ko build` with what its flags lend.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::builder::OwnBuilder;
use crate::house::{House, Said};
use crate::support::{Running, engines, good, image, lemnos};

/// A GOPROXY with one module, over TLS, for one user. Says its port.
const PROXY: &str = r#"
import base64, functools, http.server, ssl, sys, zipfile, os
at = "files/example.com/secret/@v"
os.makedirs(at)
mod = "module example.com/secret\n\ngo 1.21\n"
with zipfile.ZipFile(at + "/v1.0.0.zip", "w") as z:
    z.writestr("example.com/secret@v1.0.0/go.mod", mod)
    z.writestr("example.com/secret@v1.0.0/secret.go", "package secret\n\nconst Word = \"from the proxy\"\n")
for name, text in [("list", "v1.0.0\n"), ("v1.0.0.info", '{"Version":"v1.0.0"}'), ("v1.0.0.mod", mod)]:
    open(f"{at}/{name}", "w").write(text)
wanted = "Basic " + base64.b64encode(b"ada:pass-of-ada").decode()
class Proxy(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        if self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
        else:
            super().do_GET()
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Proxy, directory="files"))
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain("server.pem", "server.key")
server.socket = tls.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// A module `example.com/shop` that needs a private one, with what Go has to be told of it in `.ko.yaml`.
struct Shop {
    files: Vec<(&'static str, String)>,
    dir: tempfile::TempDir,
    _server: Running,
}

impl Shop {
    /// `told`: the environment of the builder's Go. `here`: what this machine's Go needs to find out the sums.
    fn new(
        dir: tempfile::TempDir,
        server: Running,
        module: &str,
        told: &[String],
        here: &[(&str, &str)],
    ) -> Self {
        let main = format!("package main\n\nimport \"{module}\"\n\nfunc main() {{ println(secret.Word) }}\n");
        let needs = format!("module example.com/shop\n\ngo 1.21\n\nrequire {module} v1.0.0\n");
        let tidy = dir.path().join("tidy");
        std::fs::create_dir(&tidy).unwrap();
        std::fs::write(tidy.join("go.mod"), needs).unwrap();
        std::fs::write(tidy.join("main.go"), &main).unwrap();
        let mut go = Command::new(&engines().go);
        go.args(["mod", "tidy"]).current_dir(&tidy).env("GOENV", "off").env("GOTOOLCHAIN", "local");
        go.env("HOME", dir.path())
            .env("GOMODCACHE", dir.path().join("modules"))
            .env("GOFLAGS", "-modcacherw");
        good(go.env("GOCACHE", dir.path().join("cache")).envs(here.iter().copied()));
        let read = |name: &str| std::fs::read_to_string(tidy.join(name)).unwrap();
        let base = format!("{}/chainguard/static:latest", engines().base_registry);
        let env: String = told.iter().map(|entry| format!("- {entry}\n")).collect();
        let config = format!("defaultBaseImage: {base}\ndefaultPlatforms: [linux/amd64]\ndefaultEnv:\n{env}");
        let files = vec![
            ("go.mod", read("go.mod")),
            ("go.sum", read("go.sum")),
            ("main.go", main),
            (".ko.yaml", config),
        ];
        Self { files, dir, _server: server }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server whose builds reach this machine's loopback.
    fn house(&self, builder: &OwnBuilder) -> (House, PathBuf) {
        let mirror = format!("docker.io={}", engines().base_registry);
        let address = builder.address().to_owned();
        let house = House::start_changed("ko-private", &[], |house| {
            house.builder = Some(address);
            house.extra_args = vec!["--mirror".to_owned(), mirror];
        });
        house.app("shop");
        let files: Vec<(&str, &str)> = self.files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let work = house.repository("shop", &files);
        (house, work)
    }

    fn command(&self, builder: &OwnBuilder, house: &House, args: &[&str]) -> Said {
        let work = self.at("work");
        std::fs::create_dir_all(&work).unwrap();
        for (path, text) in &self.files {
            std::fs::write(work.join(path), text).unwrap();
        }
        let mut command = Command::new(lemnos());
        command.args(["ko", "build", "-v", "--builder", builder.address()]).args(args).current_dir(work);
        command.args(["--mirror", &format!("docker.io={}", engines().base_registry)]);
        command.env("KO_DOCKER_REPO", format!("{}/local", house.image("shop"))).env("HOME", self.dir.path());
        command.env_remove("GOFLAGS").env_remove("GOPROXY");
        Said::of(command.output().unwrap())
    }
}

fn proxied() -> Shop {
    let dir = tempfile::tempdir().unwrap();
    crate::pki::make(dir.path());
    let python = Command::new("python3")
        .args(["-c", PROXY])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut server = Running(python);
    let mut port = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
    // Go looks for hosts as addresses have them, with the port
    let netrc = format!("machine 127.0.0.1:{} login ada password pass-of-ada\n", port.trim());
    std::fs::write(dir.path().join(".netrc"), netrc).unwrap();
    let proxy = format!("https://127.0.0.1:{}", port.trim());
    let ca = std::fs::read_to_string(dir.path().join("ca.pem")).unwrap();
    let here = dir.path().join("ca.pem").display().to_string();
    let told = [format!("GOPROXY={proxy}"), "GONOSUMDB=*".into(), "SSL_CERT_FILE=/src/ca.pem".into()];
    let known = [("GOPROXY", proxy.as_str()), ("GONOSUMDB", "*"), ("SSL_CERT_FILE", here.as_str())];
    let mut shop = Shop::new(dir, server, "example.com/secret", &told, &known);
    shop.files.push(("ca.pem", ca));
    shop
}

#[test]
fn a_proxy_that_wants_a_password_is_told_it() {
    image("golang");
    image("static");
    let (shop, builder) = (proxied(), OwnBuilder::start());
    let (house, work) = shop.house(&builder);
    let refused = house.push(&work, &["main"]).failed();
    refused.shows("401 Unauthorized");
    let netrc = std::fs::read_to_string(shop.at(".netrc")).unwrap();
    house.lemnos_reading(&["secrets", "add", "shop", "netrc"], &netrc).succeeded();
    house.push(&work, &["main"]).succeeded().hides("pass-of-ada");
    assert!(house.digest("shop", "main").is_some());

    let refused = shop.command(&builder, &house, &["."]).failed();
    refused.shows("401 Unauthorized").shows("--secret id=netrc,src=$HOME/.netrc");
    let lent = format!("id=netrc,src={}", shop.at(".netrc").display());
    let made = shop.command(&builder, &house, &["--secret", &lent, "."]).succeeded();
    made.shows("sha256:").hides("pass-of-ada");
    shop.command(&builder, &house, &["--secret", "id=token,src=x", "."]).failed().shows("nothing asks for");
}

/// What the toolchain image of these tests lacks: an SSH client, with the libraries of this machine around it.
fn with_ssh(dir: &Path, builder: &OwnBuilder) -> String {
    let context = dir.join("toolchain");
    let root = context.join("ssh");
    crate::services::install("/usr/bin/ssh", &root.join("all"));
    std::fs::create_dir_all(root.join("lib")).unwrap();
    let found = good(Command::new("find").arg(root.join("all")).args(["-type", "f"])).stdout;
    for path in String::from_utf8(found).unwrap().lines().map(Path::new) {
        std::fs::rename(path, root.join("lib").join(path.file_name().unwrap())).unwrap();
    }
    std::fs::remove_dir_all(root.join("all")).unwrap();
    let run = "#!/bin/sh\nld=$(echo /ssh/lib/ld-linux*)\nexec $ld --library-path /ssh/lib /ssh/lib/ssh \
               -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes \"$@\"\n";
    std::fs::write(root.join("run"), run).unwrap();
    good(Command::new("chmod").args(["755"]).arg(root.join("run")));
    std::fs::write(context.join("Dockerfile"), "FROM golang:latest\nCOPY ssh /ssh\n").unwrap();
    let name = format!("{}/{}", engines().registry, lemnos::model::BuildId::generate());
    let local = |what: &str| format!("{what}={}", context.display());
    good(
        Command::new(&engines().buildctl)
            .args(["--addr", builder.address(), "build", "--frontend", "dockerfile.v0"])
            .args([
                "--local",
                &local("context"),
                "--local",
                &local("dockerfile"),
                "--output",
                &format!("type=image,name={name}:go,push=true,compression=zstd,compression-level=0"),
            ]),
    );
    format!("{name}:go")
}

fn behind_ssh(builder: &OwnBuilder) -> Shop {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for key in ["host", "key"] {
        good(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]));
    }
    let repository = dir.path().join("git/secret.git");
    std::fs::create_dir_all(&repository).unwrap();
    std::fs::write(repository.join("go.mod"), "module git.example.com/secret.git\n\ngo 1.21\n").unwrap();
    std::fs::write(repository.join("secret.go"), "package secret\n\nconst Word = \"behind ssh\"\n").unwrap();
    for args in [
        &["init", "-q", "-b", "main"][..],
        &["add", "-A"],
        &["-c", "user.name=Dev", "-c", "user.email=dev@example.com", "commit", "-q", "-m", "First"],
        &["tag", "v1.0.0"],
    ] {
        good(Command::new("git").args(args).current_dir(&repository));
    }
    let port = crate::port::own().port();
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\n\
         UseDNS no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n",
        at("host"),
        at("key.pub")
    );
    std::fs::write(at("sshd"), config).unwrap();
    std::fs::create_dir_all("/run/sshd").unwrap();
    let sshd =
        Command::new("/usr/sbin/sshd").args(["-D", "-e", "-f", &at("sshd")]).stderr(Stdio::null()).spawn();
    let server = Running(sshd.unwrap());
    let key = "GIT_CONFIG_VALUE_0=https://git.example.com/".to_owned();
    let told = [
        "GOPRIVATE=git.example.com".to_owned(),
        "GIT_SSH_COMMAND=/ssh/run".to_owned(),
        "GIT_CONFIG_COUNT=1".to_owned(),
        format!("GIT_CONFIG_KEY_0=url.ssh://root@127.0.0.1:{port}{}/.insteadOf", at("git")),
        key,
    ];
    let place = format!("url.{}/.insteadOf", at("git"));
    let known = [
        ("GOPRIVATE", "git.example.com"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", &place),
        ("GIT_CONFIG_VALUE_0", "https://git.example.com/"),
    ];
    let toolchain = with_ssh(dir.path(), builder);
    let mut shop = Shop::new(dir, server, "git.example.com/secret.git", &told, &known);
    let wishes = format!("ko_config:\n  toolchain: {toolchain}\n");
    shop.files.push(("build-config.yaml", wishes));
    shop
}

#[test]
fn a_repository_behind_ssh_is_fetched_with_the_key_that_is_lent() {
    image("golang");
    image("static");
    let builder = OwnBuilder::start();
    let shop = behind_ssh(&builder);
    let (house, work) = shop.house(&builder);
    house.push(&work, &["main"]).failed().shows("no secure protocol found for repository");
    let key = std::fs::read_to_string(shop.at("key")).unwrap();
    house.lemnos_reading(&["secrets", "add", "shop", "default", "--ssh"], &key).succeeded();
    house.push(&work, &["main"]).succeeded();
    assert!(house.digest("shop", "main").is_some());

    let refused = shop.command(&builder, &house, &["."]).failed();
    refused.shows("no secure protocol found for repository");
    let lent = format!("default={}", shop.at("key").display());
    let toolchain = shop.files.last().unwrap().1.split_once("toolchain: ").unwrap().1.trim();
    let args = ["--ssh", &lent, "--toolchain", toolchain, "."];
    shop.command(&builder, &house, &args).succeeded().shows("sha256:");
    shop.command(&builder, &house, &["--ssh", "other", "."]).failed().shows("nothing asks for");
}
