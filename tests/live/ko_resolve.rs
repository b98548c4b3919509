//! `ko://` references in Kubernetes YAML: `lemnos ko resolve` beside ko v0.19.1 on the same tree, and what a push keeps.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::house::House;
use crate::ko_command::{MAIN, Shop, documents};
use crate::ko_push;
use crate::support::engines;

const MODULE: &str = "module example.com/shop\n\ngo 1.21\n";
const WEB: &str = "# what is seen\napiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec:\n  containers:\n  \
    - image: ko://example.com/shop/web\n  - {image: 'ko://example.com/shop/job', args: [--of=ko://example.com/shop/web]}\n---\n\
    apiVersion: v1\nkind: Pod\nmetadata: {name: plain, labels: {app: plain}}\nspec: {containers: [{image: busybox}]}\n";
const JOB: &str = "{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {\"labels\": {\"app\": \"job\"}}, \"image\": \"ko://example.com/shop/job\"}";
const BELOW: &str =
    "apiVersion: v1\nkind: Pod\nmetadata: {labels: {app: web}}\nimage: ko://example.com/shop/web\n";

fn shop() -> Shop {
    Shop::new(&[
        ("go.mod", MODULE),
        ("web/main.go", MAIN),
        ("job/main.go", MAIN),
        ("lib/lib.go", "package lib\n"),
        ("config/web.yaml", WEB),
        ("config/job.json", JOB),
        ("config/not.yml", "image: ko://example.com/shop/nothing\n"),
        ("config/notes.txt", "ko://example.com/shop/nothing\n"),
        ("config/empty.yaml", ""),
        ("config/more/below.yaml", BELOW),
        ("wrong/lib.yaml", "a: 1\nb: ko://example.com/shop/web\nc: ko://example.com/shop/lib\n"),
        ("wrong/elsewhere.yaml", "\nimage: ko://example.com/other\n"),
        ("wrong/broken.yaml", "a: ko://example.com/shop/web\nb: [\n"),
    ])
    .committed()
}

fn lemnos(shop: &Shop, args: &[&str]) -> Output {
    let all = [&["ko", "resolve", "--builder", &engines().buildkit], args].concat();
    shop.run(Path::new(env!("CARGO_BIN_EXE_lemnos")), &all)
}

fn resolved(shop: &Shop, args: &[&str]) -> String {
    let output = lemnos(shop, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Digests of ours and ko's differ, as their layers are compressed by different programs.
fn without_digests(yaml: &str) -> String {
    let mut parts = yaml.split("@sha256:");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        assert!(part.bytes().take(64).all(|byte| byte.is_ascii_hexdigit()), "{yaml}");
        text.push_str("@DIGEST");
        text.push_str(&part[64..]);
    }
    text
}

#[test]
fn yaml_is_printed_as_ko_prints_it() {
    let shop = shop();
    for args in [
        &["-f", "config"][..],
        &["-R", "-f", "config/", "--selector", "app in (web,job)"],
        &[
            "-f",
            "config/more,config/job.json",
            "--filename",
            "config/web.yaml",
            "-l",
            "app!=plain",
            "-B",
            "-t",
            "v1",
        ],
        &["-f", "config/empty.yaml"],
    ] {
        let kos = shop.run(&engines().ko, &[&["resolve"], args].concat());
        assert!(kos.status.success(), "{args:?}: {}", String::from_utf8_lossy(&kos.stderr));
        let kos = without_digests(&String::from_utf8(kos.stdout).unwrap());
        let ours = without_digests(&resolved(&shop, args));
        assert_eq!(documents(&ours), documents(&kos), "{args:?}:\n{ours}\n{kos}");
        assert!(!ours.contains("nothing"), "{ours}");
    }
    // the images are those of ko build, each built and published once
    let refs = tempfile::NamedTempFile::new().unwrap();
    let refs = refs.path().to_str().unwrap();
    let text = resolved(&shop, &["-R", "-f", "config", "-f", "config/web.yaml", "--image-refs", refs]);
    let built = shop.lemnos(&["./web", "./job"]);
    let (web, job) = built.trim().split_once('\n').unwrap();
    assert_eq!((text.matches(web).count(), text.matches(job).count()), (3, 3), "{built}{text}");
    let references = std::fs::read_to_string(refs).unwrap();
    let mut references: Vec<_> = references.lines().collect();
    references.sort();
    let mut both = vec![web, job];
    both.sort();
    assert_eq!(references, both);
}

#[test]
fn standard_input_is_read_and_without_references_nothing_is_built() {
    let shop = shop();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lemnos"));
    command
        .args(["ko", "resolve", "--builder", "unix:///nowhere.sock", "-f", "-"])
        .current_dir(shop.dir.path());
    command.envs(shop.env.iter().map(|(name, value)| (name, value.as_str())));
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a: 1 # kept\nb: --x=ko://y").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "a: 1 # kept\nb: --x=ko://y\n---\n");
}

#[test]
fn what_is_no_program_is_said_with_its_line_and_nothing_is_printed() {
    let shop = shop();
    for (args, reason) in [
        (
            &["-f", "config/web.yaml", "-f", "wrong/lib.yaml"][..],
            "error: wrong/lib.yaml:3: ko://example.com/shop/lib: ./lib holds no main package for linux/amd64: its package is lib",
        ),
        (&["-f", "wrong/elsewhere.yaml"], "error: wrong/elsewhere.yaml:2: ko://example.com/other: "),
        (&["-f", "wrong/broken.yaml"], "error: wrong/broken.yaml:2:4: "),
        (&["-f", "missing"], "error: reading missing: "),
        (&["-f", "config", "-l", "app in (web"], "the selector"),
        (
            &["-f", "config", "--local", "--tarball=x"],
            "--local: images that are loaded into a container engine go nowhere else",
        ),
        (&[], "--filename"),
    ] {
        let output = lemnos(&shop, args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?}");
        assert!(said.contains(reason) && !said.contains("go build"), "{args:?}: {said}");
        assert!(!said.contains("build-config.yaml"), "{args:?}: {said}");
    }
}

/// The newest build's id.
fn newest(house: &House) -> String {
    house.builds("shop")[0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_push_keeps_the_yaml_with_its_images_and_so_does_one_that_builds_nothing_anew() {
    let house = ko_push::house("ko-resolve");
    house.app("shop");
    let config = "build_backend: ko\nko_config:\n  all: true\n  resolve: [config, config/more/below.yaml]\n";
    let files = [
        ("go.mod", MODULE),
        ("web/main.go", MAIN),
        ("job/main.go", MAIN),
        ("config/web.yaml", WEB),
        ("config/job.json", JOB),
        ("config/more/below.yaml", BELOW),
        ("build-config.yaml", config),
    ];
    let work = house.repository("shop", &files);
    house.push(&work, &["main"]).succeeded().shows("--resolved");
    let expected = |tag: &str| {
        let image = |name: &str| {
            let app = format!("shop/{name}");
            format!("{}@{}", house.image(&app), house.digest(&app, tag).unwrap())
        };
        let yaml = format!("{JOB}\n---\n{WEB}---\n{BELOW}---\n");
        let yaml = yaml.replace("--of=ko://", "--of=KO://");
        let yaml = yaml.replace("ko://example.com/shop/web", &image("web"));
        yaml.replace("ko://example.com/shop/job", &image("job")).replace("KO://", "ko://")
    };
    let first = newest(&house);
    let yaml = house.lemnos(&["builds", "show", &first, "--resolved"]).succeeded();
    assert_eq!((yaml.stdout.as_str(), yaml.stderr.as_str()), (expected("main").as_str(), ""));
    assert_eq!(house.ssh(&format!("show {first} --resolved")).succeeded().stdout, yaml.stdout);
    let json = house.lemnos(&["show", &first, "--resolved", "--json"]).succeeded().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["build"].as_str(), json["resolved"].as_str()), (Some(&*first), Some(&*yaml.stdout)));

    // a reference to what is not built: nothing moves
    house.commit(&work, &[("config/job.json", "{\"a\": \"ko://example.com/shop/cron\"}")], "cron");
    house.push(&work, &["main"]).failed().shows("config/job.json:1: ko://example.com/shop/cron is not built by this push, which builds example.com/shop/job, example.com/shop/web").hides("go build");
    house
        .lemnos(&["show", &newest(&house), "--resolved"])
        .failed()
        .shows("is failed: there is no YAML of it");
    // another commit; then the first one again, of which nothing is compiled
    house.commit(&work, &[("config/job.json", JOB)], "back");
    house.push(&work, &["main"]).succeeded().shows("go build");
    let second = house.lemnos(&["show", &newest(&house), "--resolved"]).succeeded().stdout;
    assert_eq!(second, expected("main"));
    assert_ne!(second, yaml.stdout);
    house.push(&work, &["+main~2:main"]).succeeded().hides("go build").shows("serve again");
    assert_ne!(newest(&house), first);
    assert_eq!(house.lemnos(&["show", &newest(&house), "--resolved"]).succeeded().stdout, yaml.stdout);
    // one without: and the plan says what would be
    house
        .lemnos(&["apps", "plan", "shop", "main"])
        .succeeded()
        .shows("resolve      config/job.json, config/web.yaml");
    house.commit(&work, &[("build-config.yaml", "build_backend: ko\nko_config: {all: true}\n")], "none");
    house.push(&work, &["-f", "main"]).succeeded().hides("--resolved");
    house.lemnos(&["show", &newest(&house), "--resolved"]).failed().shows("resolved no YAML");
}
