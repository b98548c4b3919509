//! Sessions that end with an image, or with an answer.

use super::{Session, shop};
use crate::house::{House, Said};

#[test]
fn a_first_push() {
    let house = House::start("s-first");
    shop(&house);
    let dir = house.repository(
        "shop",
        &[
            ("Dockerfile", "FROM busybox\nCOPY greeting /greeting\nRUN wc -l /greeting\n"),
            ("greeting", "hello\n"),
        ],
    );
    let mut session =
        Session::new(&house, "A push of a repository with a Dockerfile: the image stands in the registry.");
    session.push(&dir, &["main"]).succeeded();
    session.note("The same again: git has nothing to send.");
    session.push(&dir, &["main"]).succeeded();
    session.is("success");
}

#[test]
fn an_unchanged_tree() {
    let house = House::start("s-cached");
    shop(&house);
    let dir = house.repository(
        "shop",
        &[
            ("Dockerfile", "FROM busybox\nRUN echo compiled\nCOPY greeting /greeting\n"),
            ("greeting", "hello\n"),
        ],
    );
    house.push(&dir, &["main"]).succeeded();
    let mut session = Session::new(&house, "What has not changed is not built again.");
    session.note("One file has changed: the step before it comes from the cache.");
    house.commit(&dir, &[("greeting", "hello, world\n")], "greet everybody");
    session.push(&dir, &["main"]).succeeded();
    session.note("A commit without a change: the images of the commit before serve again.");
    house.commit(&dir, &[], "release 1.0");
    session.push(&dir, &["main"]).succeeded();
    session.is("cached");
}

/// Without the steps that a builder begins at once, in whatever order (the toolchain's image, the source), and the one that
/// it may have done for somebody else before (gathering equal programs).
fn without_sources(said: &Said) -> Said {
    let title = regex::Regex::new(r"(#[0-9]+) \[[^\]]+\] (go build|exporting) ").unwrap();
    let step = regex::Regex::new(r"^(?:remote: )?(#[0-9]+)\b").unwrap();
    let shown: Vec<String> = title.captures_iter(&said.stderr).map(|found| found[1].to_owned()).collect();
    let is_left_out =
        |line: &str| step.captures(line).is_some_and(|found| !shown.contains(&found[1].to_owned()));
    let lines: Vec<&str> = said.stderr.lines().filter(|line| !is_left_out(line)).collect();
    Said { ok: said.ok, code: said.code, stdout: said.stdout.clone(), stderr: lines.join("\n") }
}

#[test]
fn a_go_module() {
    let house = crate::ko_push::house("s-ko");
    shop(&house);
    let main = "package main\n\nfunc main() { println(\"hello\") }\n";
    let files = [("go.mod", "module example.com/shop\n\ngo 1.24\n"), ("cmd/web/main.go", main)];
    let dir = house.repository("shop", &files);
    let mut session = Session::new(
        &house,
        "A push of a Go module: no Dockerfile, and the image is the one that ko would have made.\n\
         The steps that take the source and the toolchain's image are left out here.",
    );
    let said = house.push(&dir, &["main"]).succeeded();
    session.shown("git push builder main", &without_sources(&said));
    session.note("A program that does not compile.");
    house.commit(&dir, &[("cmd/web/main.go", "package main\n\nfunc main() { printn(1) }\n")], "typo");
    let said = house.push(&dir, &["main"]).failed();
    session.shown("git push builder main", &without_sources(&said));
    session.note("A second program: which of them, nobody has said.");
    house.commit(&dir, &[("cmd/web/main.go", main), ("cmd/job/main.go", main)], "two programs");
    session.push(&dir, &["main"]).failed();
    session.note("Each becomes an image of its own; the app's settings ask for a platform that the base does not have.");
    let config = "build_backend: ko\nko_config:\n  all: true\n";
    house.commit(&dir, &[("build-config.yaml", config)], "build both");
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64,linux/riscv64"]).succeeded();
    session.push(&dir, &["main"]).failed();
    session.note("Kubernetes YAML that names a program which is not built.");
    let config = "build_backend: ko\nko_config:\n  import_path: ./cmd/web\n  resolve: deploy.yaml\n";
    let pod = |program: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: shop}}\nspec:\n  containers:\n  - {{name: shop, image: 'ko://example.com/shop/cmd/{program}'}}\n"
        )
    };
    house.lemnos(&["apps", "set", "shop", "platforms=linux/amd64"]).succeeded();
    house.commit(&dir, &[("build-config.yaml", config), ("deploy.yaml", &pod("job"))], "deploy the job");
    session.push(&dir, &["main"]).failed();
    session.note("It names the one that is; of that push, which goes as above, the YAML is kept.");
    house.commit(&dir, &[("deploy.yaml", &pod("web"))], "deploy the shop");
    house.push(&dir, &["main"]).succeeded();
    let build = house.builds("shop")[0]["id"].as_str().unwrap().to_owned();
    session.lemnos(&["builds", "show", &build, "--resolved"]).succeeded();
    session.is("ko");
}

#[test]
fn a_plan() {
    let house = House::start("s-plan");
    house.app("shop");
    let dir = house.repository("shop", &[("Dockerfile", "FROM busybox\n")]);
    let mut session = Session::new(
        &house,
        "What a push would build, without building: git is told of a refusal, so that nothing moves.",
    );
    session.push(&dir, &["-o", "plan", "main"]).failed();
    session.is("plan");
}

#[test]
fn a_spin_application() {
    let house = House::start("s-spin");
    house.app("shop");
    let manifest = r#"spin_manifest_version = 2
[application]
name = "shop"
version = "1.0.0"
[[trigger.http]]
route = "/..."
component = "web"
[component.web]
source = "web.wasm"
files = [{ source = "static", destination = "/" }]
[component.web.build]
command = "sh make web.wasm"
"#;
    // a module of eight bytes: what compiles one is the business of the image that is named
    let make = "printf '\\000asm\\001\\000\\000\\000' > $1\n";
    let dir = house.repository(
        "shop",
        &[("spin.toml", manifest), ("make", make), ("static/index.html", "<p>hello</p>\n")],
    );
    let mut session = Session::new(
        &house,
        "A push of a Spin application: what its component is built with is not known, and has to be named.",
    );
    session.push(&dir, &["main"]).failed();
    session.note("build-config.yaml names an image: the artifact stands in the registry.");
    house.commit(&dir, &[("build-config.yaml", "spin_config:\n  image: busybox\n")], "name the image");
    session.push(&dir, &["main"]).succeeded();
    session.note("A commit without a change: the artifact serves again.");
    house.commit(&dir, &[], "release 1.0");
    session.push(&dir, &["main"]).succeeded();
    session.is("spin");
}
