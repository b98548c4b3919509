//! `--tarball` and `--local`: ko and lemnos make the same archives, and dockerd has the same images from both.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::buildkit::docker::Dockerd;
use crate::ko_command::{MAIN, Shop};
use crate::support::{engines, good};

const LEMNOS: &str = env!("CARGO_BIN_EXE_lemnos");

fn shop() -> Shop {
    Shop::new(&[
        ("go.mod", "module example.com/shop\n\ngo 1.21\n"),
        ("cmd/web/main.go", MAIN),
        ("cmd/web/kodata/page", "<p>"),
        ("cmd/worker/main.go", MAIN),
    ])
}

/// By both commands, one after the other, ko's first; `done` sees what each has left.
fn both<T>(shop: &Shop, args: &[&str], done: impl Fn() -> T) -> [(String, T); 2] {
    let builder = ["ko", "build", "--builder", &engines().buildkit];
    let by = |program: &Path, words: &[&str]| {
        let output = shop.run(program, &[words, args].concat());
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        (String::from_utf8(output.stdout).unwrap(), done())
    };
    let kos = by(&engines().ko, &["build"]);
    [kos, by(Path::new(LEMNOS), &builder)]
}

/// What is printed of images whose digests differ, as gzip's bytes do; in no order.
fn places(printed: &str) -> Vec<String> {
    let mut places: Vec<String> = printed
        .lines()
        .map(|line| {
            let (place, hex) = line.rsplit_once(':').unwrap();
            assert_eq!(hex.len(), 64, "{line}");
            place.to_owned()
        })
        .collect();
    places.sort();
    places
}

/// What an archive says of its images: configurations, and how many of their layers lie in it, by name.
fn archived(path: &Path) -> BTreeMap<String, (Value, usize)> {
    let mut files = BTreeMap::new();
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    for entry in archive.entries().unwrap().map(Result::unwrap) {
        let name = entry.path().unwrap().display().to_string();
        let bytes: Vec<u8> = std::io::Read::bytes(entry).map(Result::unwrap).collect();
        assert!(files.insert(name.clone(), bytes).is_none(), "{name} twice");
    }
    let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
    let mut images = BTreeMap::new();
    for image in json("manifest.json").as_array().unwrap() {
        let layers = image["Layers"].as_array().unwrap();
        assert!(layers.iter().all(|layer| files.contains_key(layer.as_str().unwrap())), "{image}");
        let config = json(image["Config"].as_str().unwrap());
        for name in image["RepoTags"].as_array().unwrap() {
            images.insert(name.as_str().unwrap().to_owned(), (config.clone(), layers.len()));
        }
    }
    images
}

#[test]
fn archives_hold_what_ko_puts_into_them() {
    let mut shop = shop();
    let file = shop.dir.path().join("images.tar");
    let two = ["./cmd/web", "./cmd/worker", "--push=false", "--tarball=images.tar", "--platform=linux/arm64"];
    for tags in ["v1,latest", "v2"] {
        let [(kos, of_ko), (ours, of_us)] =
            both(&shop, &[&two[..], &["-t", tags]].concat(), || archived(&file));
        assert_eq!(places(&ours), places(&kos), "{tags}");
        assert_eq!(of_us, of_ko, "{tags}");
        assert_eq!(of_us.len(), 2 * tags.split(',').count());
    }
    // another program reads it whole
    let name = archived(&file).into_keys().next().unwrap();
    let copy = format!("dir:{}", shop.dir.path().join("copy").display());
    good(Command::new("skopeo").args(["copy", &format!("docker-archive:{}:{name}", file.display()), &copy]));
    // pushed as well: the reference is that of the registry
    let pushed = ["./cmd/web", "--bare", "--tarball=images.tar"];
    let [(kos, of_ko), (ours, of_us)] = both(&shop, &pushed, || archived(&file));
    assert_eq!((places(&ours), of_us), (places(&kos), of_ko));
    good(Command::new(&engines().crane).args(["digest", "--insecure", ours.trim()]));
    // without a registry's name
    shop.env.retain(|(name, _)| *name != "KO_DOCKER_REPO");
    let [(kos, of_ko), (ours, of_us)] =
        both(&shop, &["./cmd/web", "--push=false", "--tarball=images.tar"], || archived(&file));
    assert_eq!((places(&ours), of_us), (places(&kos), of_ko));
    std::fs::remove_file(&file).unwrap();
    let said = shop.refused(&["./cmd/web", "--bare", "--push=false", "--tarball=images.tar"]);
    assert!(said.contains("KO_DOCKER_REPO environment variable is unset"), "nothing to name it by: {said}");
    let said = shop.refused(&["./cmd/web", "--push=false", "--tarball=images.tar", "--platform=all"]);
    assert!(said.contains("docker's archives hold no index") && said.contains("--oci-layout-path"), "{said}");
    assert!(!file.exists());
    let said = shop.refused(&["./cmd/web", "--push=false", "--tarball=nowhere/images.tar"]);
    assert!(said.contains("writing nowhere/images.tar"), "{said}");
}

#[tokio::test]
async fn images_are_loaded_into_docker_as_ko_loads_them() {
    let (dockerd, _client) = Dockerd::start().await;
    let host = format!("unix://{}", dockerd.at("docker.sock"));
    let mut shop = shop();
    shop.env.push(("DOCKER_HOST", host.clone()));
    let docker = |args: &[&str]| {
        let said = good(Command::new("docker").args(["-H", &host]).args(args));
        serde_json::from_slice::<Value>(&said.stdout).unwrap_or(Value::Null)
    };
    // what dockerd has under all names of a printed reference; then it has it no longer
    let loaded = |reference: &str, tags: &[&str]| {
        let name = reference.trim().rsplit_once(':').unwrap().0;
        let mut seen = Vec::new();
        for tag in tags.iter().map(|tag| format!("{name}:{tag}")).chain([reference.trim().to_owned()]) {
            let image = docker(&["image", "inspect", &tag])[0].clone();
            seen.push(
                ["Config", "RootFS", "Architecture", "Os", "Created", "Author"].map(|key| image[key].clone()),
            );
            docker(&["image", "rm", &tag]);
        }
        assert!(seen.iter().all(|one| *one == seen[0]) && seen[0][1]["Layers"].is_array(), "{seen:?}");
        seen.remove(0)
    };
    let mut run = |env: &[(&'static str, &str)], args: &[&str], tags: &[&str]| {
        let before = shop.env.clone();
        shop.env.retain(|(name, _)| !env.iter().any(|(set, _)| set == name));
        let set = env.iter().filter(|(_, value)| !value.is_empty());
        shop.env.extend(set.map(|(name, value)| (*name, (*value).to_owned())));
        let kos = shop.run(&engines().ko, &[&["build", "./cmd/web"], args].concat());
        assert!(kos.status.success(), "{}", String::from_utf8_lossy(&kos.stderr));
        let kos = String::from_utf8(kos.stdout).unwrap();
        let of_ko = loaded(&kos, tags);
        let builder = ["ko", "build", "--builder", &engines().buildkit, "./cmd/web"];
        let ours = shop.run(Path::new(LEMNOS), &[&builder, args].concat());
        assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
        let ours = String::from_utf8(ours.stdout).unwrap();
        assert_eq!(places(&ours), places(&kos));
        assert_eq!(loaded(&ours, tags), of_ko, "{args:?}");
        shop.env = before;
        (ours, of_ko)
    };
    let (printed, _) = run(&[("KO_DOCKER_REPO", "")], &["--local"], &["latest"]);
    assert!(printed.starts_with("ko.local/web-"), "{printed}");
    let (printed, _) = run(&[("KO_DOCKER_REPO", "ko.local/team")], &["-B", "-t", "v1,v2"], &["v1", "v2"]);
    assert!(printed.starts_with("ko.local/team/web:"), "{printed}");
    // a name of a registry's stays, and of several platforms one is loaded
    let (_, seen) = run(&[], &["-L", "--platform=linux/arm64,linux/amd64"], &["latest"]);
    assert_eq!(seen[2], "amd64");

    let several = ["./cmd/web", "--local", "--platform=linux/arm/v7,linux/arm64"];
    let said = shop.refused(&several);
    assert!(said.contains("is built for no linux/amd64") && said.contains("GOARCH"), "{said}");
    let said = shop.refused(&["./cmd/web", "--local", "--tarball=x.tar"]);
    assert!(said.contains("go nowhere else"), "{said}");
    // as the hint says; ko refuses both at once, and GOARCH alone puts a program for arm64 into an image for amd64
    shop.env.push(("GOARCH", "arm64".to_owned()));
    let builder = ["ko", "build", "--builder", &engines().buildkit];
    let ours = shop.run(Path::new(LEMNOS), &[&builder, &several[..]].concat());
    assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
    assert_eq!(loaded(&String::from_utf8(ours.stdout).unwrap(), &["latest"])[2], "arm64");
    shop.env.push(("DOCKER_HOST", "unix:///nowhere/docker.sock".to_owned()));
    let said = shop.refused(&["./cmd/web", "--local"]);
    assert!(
        said.contains("dockerd at unix:///nowhere/docker.sock") && said.contains("--tarball FILE"),
        "{said}"
    );
    shop.env.push(("KO_DOCKER_REPO", "kind.local".to_owned()));
    assert!(shop.refused(&["./cmd/web"]).contains("kind load image-archive"));
}
