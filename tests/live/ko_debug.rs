//! `lemnos ko build --debug`: Delve is compiled from a module proxy on loopback, stands in the images, and follows the program.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::builder::OwnBuilder;
use crate::ko_assembly::{Depot, clean};
use crate::ko_command::{MAIN, Shop};
use crate::support::{Running, engines, good};

/// The version that the newest Go's programs are followed by.
const DELVE: &str = "github.com/go-delve/delve/cmd/dlv@v1.27.2";

/// The debugger's modules, fetched by this machine's Go, behind an address that builds reach; with the address.
fn proxy(dir: &Path) -> (Running, String) {
    let modules = dir.join("modules");
    let mut go = clean(&engines().go, dir);
    go.args(["install", "-n", DELVE]).env("GOENV", "off").env("GOFLAGS", "-modcacherw");
    good(go.env("GOMODCACHE", &modules));
    let serve = "import functools, http.server as h\n\
        class Quiet(h.SimpleHTTPRequestHandler):\n    def log_message(self, *_): pass\n\
        s = h.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory='cache/download'))\n\
        print(s.server_address[1], flush=True)\ns.serve_forever()\n";
    let mut python = Command::new("python3");
    python.args(["-c", serve]).current_dir(modules).stdout(Stdio::piped());
    let mut server = Running(python.spawn().unwrap());
    let mut port = String::new();
    BufReader::new(server.0.stdout.as_mut().unwrap()).read_line(&mut port).unwrap();
    (server, format!("http://127.0.0.1:{}", port.trim()))
}

/// The layers of an image laid on top of each other.
fn unpacked(tars: &[Vec<u8>], dir: &Path) {
    for tar in tars {
        let mut process =
            Command::new("tar").args(["-x", "-C"]).arg(dir).stdin(Stdio::piped()).spawn().unwrap();
        process.stdin.take().unwrap().write_all(tar).unwrap();
        assert!(process.wait().unwrap().success());
    }
}

/// What a debugger that listens is asked by whoever steps through a program.
struct Delve(TcpStream);

impl Delve {
    /// Where a debugger says that it listens.
    fn reach(said: impl std::io::Read) -> Self {
        let mut said = BufReader::new(said).lines().map(Result::unwrap);
        let line = said.find_map(|line| Some(line.split_once("listening at: ")?.1.to_owned()));
        let stream = TcpStream::connect(line.expect("it listens")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self(stream)
    }

    fn ask(&mut self, method: &str, parameter: Value) -> Value {
        let request = json!({ "method": format!("RPCServer.{method}"), "params": [parameter], "id": 1 });
        writeln!(self.0, "{request}").unwrap();
        let mut answer = String::new();
        BufReader::new(&self.0).read_line(&mut answer).unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["error"], Value::Null, "{method}");
        answer["result"].clone()
    }
}

#[test]
fn a_program_is_started_under_a_debugger_that_follows_it() {
    let mut shop = Shop::new(&[
        ("go.mod", "module example.com/shop\n\ngo 1.21\n"),
        (".ko.yaml", "builds:\n- main: ./cmd/web\n  env: [GOFLAGS=-tags=shop, GOPATH=/elsewhere]\n"),
        ("cmd/web/main.go", MAIN),
        ("cmd/dlv/main.go", MAIN),
    ]);
    let fetched = tempfile::tempdir().unwrap();
    let (_server, proxy) = proxy(fetched.path());
    shop.env.extend([("GOPROXY", proxy), ("GOSUMDB", "off".to_owned())]);
    let builder = OwnBuilder::start().answering();
    let lemnos = |args: &[&str]| {
        let command = ["ko", "build", "-v", "--builder", builder.address(), "--toolchain", "golang:latest"];
        shop.run(Path::new(env!("CARGO_BIN_EXE_lemnos")), &[&command, args].concat())
    };
    let platforms = "--platform=linux/amd64,linux/arm64,linux/arm/v7";
    let made = lemnos(&["--debug", "--bare", platforms, "./cmd/web"]);
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    assert!(said.contains("no debugger for linux/arm/v7, whose image is made without"), "{said}");
    let printed = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let repository = printed.split('@').next().unwrap().to_owned();
    let seen = Depot { repository }.seen(printed);
    for image in &seen.images {
        let arm = image.config["architecture"] == "arm";
        assert_eq!(image.tars.len(), if arm { 2 } else { 3 });
        let entrypoint = &image.config["config"]["Entrypoint"];
        assert_eq!(entrypoint[0], if arm { "/ko-app/web" } else { "/ko-app/dlv" }, "{entrypoint}");
    }
    let of = |architecture: &str| {
        let dir = tempfile::tempdir().unwrap();
        let image = seen.images.iter().find(|image| image.config["architecture"] == architecture).unwrap();
        unpacked(&image.tars, dir.path());
        (dir, image.config["config"]["Entrypoint"].clone())
    };
    let version = |root: &Path| {
        let said = good(Command::new(root.join("ko-app/dlv")).arg("version").env("HOME", root));
        String::from_utf8(said.stdout).unwrap()
    };
    let (arm64, _) = of("arm64");
    assert!(version(arm64.path()).contains("Version: 1.27.2"), "by qemu");
    let (amd64, entrypoint) = of("amd64");
    assert!(version(amd64.path()).contains("Version: 1.27.2"));
    let info = good(Command::new(&engines().go).args(["version", "-m"]).arg(amd64.path()));
    let info = String::from_utf8(info.stdout).unwrap();
    assert!(info.contains("-gcflags=\"all=-N -l\"") && info.contains("-tags=shop"), "{info}");
    assert_eq!(info.matches("-tags=shop").count(), 1, "the debugger has none of the app's own flags: {info}");

    // as the image says, but from here, and not on the port that it says
    let address = crate::port::own();
    let words: Vec<String> = serde_json::from_value(entrypoint).unwrap();
    assert!(words.contains(&"--listen=:40000".to_owned()), "{words:?}");
    let words = words.iter().map(|word| match word.as_str() {
        "--listen=:40000" => format!("--listen={address}"),
        word if word.starts_with("/ko-app/") => format!("{}{word}", amd64.path().display()),
        word => word.to_owned(),
    });
    let words: Vec<String> = words.collect();
    let mut started = Command::new(&words[0]);
    started.args(&words[1..]).env("HOME", amd64.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut started = Running(started.spawn().unwrap());
    let mut delve = Delve::reach(started.0.stdout.take().unwrap());
    delve.ask("CreateBreakpoint", json!({ "Breakpoint": { "functionName": "main.main", "line": -1 } }));
    let stopped = delve.ask("Command", json!({ "name": "continue" }));
    let stopped = &stopped["State"]["currentThread"];
    assert_eq!(stopped["function"]["name"], "main.main", "{stopped}");
    assert_eq!(stopped["line"], 5, "{stopped}");
    let version = json!({ "Scope": { "GoroutineID": -1 }, "Expr": "version", "Cfg": { "MaxStringLen": 64 } });
    assert_eq!(delve.ask("Eval", version)["Variable"]["value"], "none");
    delve.ask("Detach", json!({ "Kill": true }));

    let refused = lemnos(&["--debug", "./cmd/dlv"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("has the name of the debugger"), "{said}");
}
