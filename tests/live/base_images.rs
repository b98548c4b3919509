//! The images that deploy/base-image makes do what the real ones of their names are taken for.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{engines, image};

const DOCKERFILE: &str = r#"
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY . .
ARG TARGETARCH
RUN CGO_ENABLED=0 GOARCH=$TARGETARCH go build -trimpath -o /app . && go version -m /app >/info

FROM cgr.dev/chainguard/static
COPY --from=build /app /app
COPY --from=build /info /info
ENTRYPOINT ["/app"]
"#;

/// Writes whom it runs as, and whether certificates are found, to where everybody may write.
const PROGRAM: &str = r#"package main

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/user"
)

func main() {
	me, err := user.Current()
	if err != nil {
		panic(err)
	}
	pool, err := x509.SystemCertPool()
	said := fmt.Sprintln(me.Username, err, pool.Equal(x509.NewCertPool()))
	if err := os.WriteFile("/tmp/said", []byte(said), 0o644); err != nil {
		panic(err)
	}
}
"#;

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=Dev", "-c", "user.email=dev@example.com"])
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn built(dir: &Path, output: &str, extra: &[&str]) {
    let output = Command::new(&engines().buildctl)
        .args(["--addr", &engines().buildkit, "build", "--progress=plain", "--frontend=dockerfile.v0"])
        .args(["--local", &format!("context={}", dir.display()), "--local"])
        .arg(format!("dockerfile={}", dir.display()))
        .args(["--opt", "platform=linux/amd64,linux/arm64"])
        .args(extra)
        .args(["--output", output])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_go_program_is_compiled_with_its_commit_and_runs_on_the_static_base() {
    image("golang");
    image("static");
    let dir = tempfile::tempdir().unwrap();
    let src = dir.path();
    std::fs::write(src.join("go.mod"), "module example.com/shop\n\ngo 1.21\n").unwrap();
    std::fs::write(src.join("main.go"), PROGRAM).unwrap();
    std::fs::write(src.join("Dockerfile"), DOCKERFILE).unwrap();
    git(src, &["init", "-q"]);
    git(src, &["add", "."]);
    git(src, &["commit", "-q", "-m", "First"]);
    let commit = git(src, &["rev-parse", "HEAD"]);

    let name = format!("{}/base-images/shop:main", engines().registry);
    built(src, &format!("type=image,name={name},push=true"), &[]);
    let config = Command::new(&engines().crane).args(["config", "--insecure", &name]).output().unwrap();
    let config: Value = serde_json::from_slice(&config.stdout).unwrap();
    assert_eq!(config["config"]["User"], "65532");
    let env = config["config"]["Env"].as_array().unwrap();
    assert!(env.contains(&"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt".into()), "{env:?}");

    // the program runs where its image says, on both platforms, the other one's emulated
    let run =
        format!("FROM {name} AS app\nRUN [\"/app\"]\nFROM scratch\nCOPY --from=app /info /tmp/said /\n");
    std::fs::write(src.join("Dockerfile"), run).unwrap();
    let out = tempfile::tempdir().unwrap();
    built(src, &format!("type=local,dest={}", out.path().display()), &["--opt", "no-cache="]);
    for platform in ["linux_amd64", "linux_arm64"] {
        let read = |name: &str| std::fs::read_to_string(out.path().join(platform).join(name)).unwrap();
        assert!(read("info").contains(&format!("vcs.revision={commit}")), "{}", read("info"));
        assert_eq!(read("said"), "nonroot <nil> false\n");
    }
}
