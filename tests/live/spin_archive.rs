//! An application with more files than an artifact may have layers: one archive for each component, which a runtime unpacks.

use std::collections::BTreeMap;
use std::io::Read as _;

use lemnos::model::Digest;

use crate::house::House;
use crate::spin_push::{WASM, pulled};

const ARCHIVE: &str = "application/vnd.wasm.content.bundle.v1.tar+gzip";
/// With the component one more than may be layers.
const FILES: usize = 499;

const MANIFEST: &str = r#"spin_manifest_version = 2
application.name = "many"
[[trigger.http]]
route = "/..."
component = "web"
[component.web]
source = "web.wasm"
files = [{ source = "made", destination = "/data" }]
[component.web.build]
command = "mkdir made; for i in $(seq 499); do seq $i $((i+99)) > made/$i; done; printf '\\000asm\\001\\000\\000\\000web' > web.wasm"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn many_files_are_one_archive_with_the_content_that_the_application_names() {
    let house = House::start("spin-many");
    house.app("shop");
    let files = [("spin.toml", MANIFEST), ("build-config.yaml", "spin_config:\n  image: busybox\n")];
    let dir = house.repository("shop", &files);
    house.push(&dir, &["main"]).succeeded().shows("Pushed the artifact");
    let (manifest, layers, _) = pulled(&format!("{}:main", house.image("shop"))).await;
    let types: Vec<&str> = layers.iter().map(|(media_type, _)| media_type.as_str()).collect();
    assert_eq!(types[..2], [WASM, ARCHIVE], "{manifest}");
    assert_eq!(types.len(), 3);

    // unpacked, every file is found by the digest that the application has of it
    let mut unpacked = BTreeMap::new();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layers[1].1.as_slice()));
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        assert!(unpacked.insert(path, bytes).is_none());
    }
    let locked: serde_json::Value = serde_json::from_slice(&layers[2].1).unwrap();
    let named = locked["components"][0]["files"].as_array().unwrap();
    assert_eq!((named.len(), unpacked.len()), (FILES, FILES));
    for file in named {
        let path = file["path"].as_str().unwrap();
        let bytes = &unpacked[path];
        assert_eq!(file["digest"].as_str(), Some(Digest::of(bytes).as_str()), "{path}: {file}");
        let first: usize = path.strip_prefix("data/").unwrap().parse().unwrap();
        let lines: String = (first..first + 100).map(|line| format!("{line}\n")).collect();
        assert_eq!(String::from_utf8_lossy(bytes), lines);
    }
}
