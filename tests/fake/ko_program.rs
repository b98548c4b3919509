//! Programs, kodata and base images of which ko and lemnos both make images, and what there is to compare of the two.
//!
//! A case is run by ko in the live tests, where its results are written down as well (`tests/it/ko_assembly/golden.json`), and
//! by lemnos alone in the in-process tests. What cannot be equal is taken out here, and only that: gzip digests and sizes, the
//! registry's address, the digest that ko tells of a base index, and who wrote an SBOM.
#![allow(dead_code, reason = "each suite takes what it needs")]

use std::collections::BTreeMap;

use lemnos::assemble::ko::{
    self, BaseImage, BaseIndex, BuildInfo, Capabilities, Descriptor, ImageOptions, Layers, MemorySource,
    Naming, Product,
};
use lemnos::model::{Digest, Tag};
use serde_json::{Value, json};

pub const IMPORT_PATH: &str = "example.com/Shop/cmd/Web";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What stands in for a compiled program where only its packing is looked at.
pub const BINARY: &[u8] = b"\x7fno program, but bytes\n";
/// What Go would say of it.
pub const BUILD_INFO: &str = "path\texample.com/Shop/cmd/Web\nmod\texample.com/Shop\t(devel)\t\n\
dep\tGitHub.com/Team/Lib/v2\tv2.1.0+incompatible\th1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n\
dep\texample.com/replaced\tv0.1.0\n=>\t./local\t(devel)\t\n\
dep\tgo.example.org/x\tv0.0.0-20260101000000-0123456789ab\th1:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=\n\
build\t-compiler=gc\nbuild\t-trimpath=true\nbuild\tCGO_ENABLED=0\n";

/// One `ko build`.
#[derive(Debug, Clone, Default)]
pub struct Case {
    pub name: &'static str,
    /// Docker's media types in place of OCI's.
    pub docker: bool,
    /// The base's platforms; one alone is a base without an index.
    pub base: &'static [&'static str],
    pub platforms: &'static str,
    pub kodata: Vec<(String, Node)>,
    pub created: Option<i64>,
    pub kodata_created: Option<i64>,
    pub capabilities: &'static [&'static str],
    pub labels: &'static [(&'static str, &'static str)],
    pub annotations: &'static [(&'static str, &'static str)],
    pub user: Option<&'static str>,
    pub tags: &'static [&'static str],
    pub naming: Naming,
    pub debug: bool,
}

/// An entry of kodata.
#[derive(Debug, Clone)]
pub enum Node {
    File(Vec<u8>),
    Link(&'static str),
    Directory,
}

fn file(path: &str, content: impl Into<Vec<u8>>) -> (String, Node) {
    (path.to_owned(), Node::File(content.into()))
}

fn link(path: &str, target: &'static str) -> (String, Node) {
    (path.to_owned(), Node::Link(target))
}

/// Names at the limits of what a tar header takes: below `/var/run/ko/` one field ends at 88 bytes, the one before it at 143.
fn names_at_limits() -> Vec<(String, Node)> {
    let mut names: Vec<String> = (87..=90).map(|length| "n".repeat(length)).collect();
    names.extend((142..=145).map(|length| format!("{}/in", "p".repeat(length))));
    // the slash is the last byte that fits
    names.push(format!("{}/{}", "q".repeat(87), "r".repeat(120)));
    names.extend([100, 101].map(|length| format!("{}/{}", "s".repeat(50), "t".repeat(length))));
    names.push(format!("{}/ß/{}", "u".repeat(86), "v".repeat(200)));
    names.iter().map(|name| file(name, name.as_str())).collect()
}

pub fn cases() -> Vec<Case> {
    let three = &["linux/amd64", "linux/arm64/v8", "linux/arm/v7"];
    let plain = Case {
        name: "several platforms, nothing else",
        base: three,
        platforms: "linux/arm/v7,linux/amd64",
        ..Case::default()
    };
    let rich = Case {
        name: "everything at once, on Docker's types",
        docker: true,
        base: &["unknown/unknown", "linux/arm64", "linux/s390x"],
        platforms: "all",
        kodata: [
            names_at_limits(),
            vec![
                file("index.html", "<h1>shop</h1>\n"),
                link("INDEX", "index.html"),
                file("assets/a.css", "a{}"),
                file("assets/empty", ""),
                file("assets/block", vec![b'x'; 512]),
                link("assets/up", "../index.html"),
                file("assets-old", "sorts after assets, before what is in it"),
                link("linked", "assets"),
                link("linked-twice", "./linked/../assets"),
                file("größe/ä.txt", "not ASCII"),
            ],
        ]
        .concat(),
        created: Some(1_700_000_000),
        kodata_created: Some(1_600_000_000),
        capabilities: &["net_bind_service=+ep", "CAP_SYS_NICE"],
        labels: &[("org.example.team", "shop"), ("kept", "replaced")],
        annotations: &[("org.opencontainers.image.title", "Shop"), ("base", "its own")],
        user: Some("1000:1000"),
        tags: &["v1", "v2"],
        naming: Naming::Path,
        debug: false,
    };
    let alone = Case {
        name: "a base without an index",
        base: &["linux/amd64"],
        platforms: "linux/amd64",
        kodata: vec![file("before", "1970")],
        created: Some(0),
        kodata_created: Some(-1),
        capabilities: &["=p", "chown-p"],
        tags: &["v1.2.3"],
        naming: Naming::Base,
        ..Case::default()
    };
    let one = Case {
        name: "one platform of several",
        base: three,
        platforms: "linux/arm64",
        kodata: vec![("a".to_owned(), Node::Directory)],
        naming: Naming::Bare,
        tags: &["latest"],
        ..Case::default()
    };
    let debugged = Case {
        name: "started under a debugger, where there is one",
        base: three,
        platforms: "all",
        created: Some(1_700_000_000),
        capabilities: &["net_bind_service=+ep"],
        debug: true,
        ..Case::default()
    };
    vec![plain, rich, alone, one, debugged]
}

/// A base image with everything that a registry has of it.
pub struct Base {
    pub blobs: Vec<Vec<u8>>,
    /// Bytes and media type, children first, the top last.
    pub manifests: Vec<(Vec<u8>, &'static str)>,
}

impl Base {
    pub fn top(&self) -> &(Vec<u8>, &'static str) {
        self.manifests.last().unwrap()
    }
    pub fn blob(&self, digest: &Digest) -> &[u8] {
        self.blobs.iter().find(|blob| Digest::of(blob) == *digest).unwrap()
    }
    pub fn manifest(&self, digest: &Digest) -> &(Vec<u8>, &'static str) {
        self.manifests.iter().find(|(bytes, _)| Digest::of(bytes) == *digest).unwrap()
    }
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

pub fn gunzipped(bytes: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

fn platform_of(text: &str) -> Value {
    let mut parts = text.split('/');
    let mut platform = json!({ "os": parts.next(), "architecture": parts.next() });
    if let Some(variant) = parts.next() {
        platform["variant"] = variant.into();
    }
    platform
}

fn described(bytes: &[u8], media_type: &str) -> Value {
    json!({ "mediaType": media_type, "digest": Digest::of(bytes), "size": bytes.len() })
}

/// A config with what bases have: nulls, fields that nobody knows, times with fractions.
fn base_config(platform: &str, diff_id: &Digest, number: usize) -> Vec<u8> {
    let mut config = platform_of(platform);
    let run = match number % 2 {
        0 => json!({
            "Env": ["A=1", "PATH=/usr/local/bin:/usr/bin", "PATHS=no"], "Cmd": ["sh"], "Entrypoint": null,
            "Labels": { "kept": "yes", "from": "base" }, "User": "65532", "WorkingDir": "/srv", "Volumes": null,
            "ExposedPorts": { "80/tcp": {} }, "StopSignal": "SIGQUIT", "Unheard": true,
            "Healthcheck": { "Test": ["CMD", "true"], "Interval": 30_000_000_000_i64 }, "ArgsEscaped": true,
        }),
        _ => json!({ "Env": null, "Cmd": ["/bin/sh"], "OnBuild": null, "Tty": false }),
    };
    let more = json!({
        "created": "2024-05-06T07:08:09.120000000Z", "author": "somebody", "config": run,
        "rootfs": { "type": "layers", "diff_ids": [diff_id] }, "docker_version": "", "moby.buildkit.buildinfo.v1": "e30=",
        "history": [
            { "created": "2024-05-06T07:08:09Z", "created_by": "COPY / /" },
            { "created": null, "created_by": "CMD", "empty_layer": true, "comment": "none" },
        ],
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::to_vec(&config).unwrap()
}

impl Case {
    pub fn base(&self) -> Base {
        let (list, manifest, config, layer) = if self.docker {
            let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
            (DOCKER_LIST, DOCKER_MANIFEST, "application/vnd.docker.container.image.v1+json", layer)
        } else {
            let layer = "application/vnd.oci.image.layer.v1.tar+gzip";
            (OCI_INDEX, OCI_MANIFEST, "application/vnd.oci.image.config.v1+json", layer)
        };
        let mut base = Base { blobs: Vec::new(), manifests: Vec::new() };
        let mut entries = Vec::new();
        for (number, platform) in self.base.iter().enumerate() {
            let tar = vec![0; 1024 * (number + 2)];
            let blob = gzipped(&tar);
            let config_blob = base_config(platform, &Digest::of(&tar), number);
            let mut written = json!({
                "schemaVersion": 2, "mediaType": manifest,
                "config": described(&config_blob, config), "layers": [described(&blob, layer)],
            });
            if !self.docker {
                written["annotations"] = json!({ "org.example.base": platform, ko::BASE_NAME: "scratch" });
            }
            let bytes = serde_json::to_vec_pretty(&written).unwrap();
            let mut entry = described(&bytes, manifest);
            entry["platform"] = platform_of(platform);
            entry["annotations"] = json!({ "org.example.number": number.to_string() });
            entries.push(entry);
            base.blobs.extend([blob, config_blob]);
            base.manifests.push((bytes, manifest));
        }
        if self.base.len() > 1 {
            let index = json!({ "schemaVersion": 2, "mediaType": list, "manifests": entries });
            base.manifests.push((serde_json::to_vec(&index).unwrap(), list));
        }
        base
    }

    pub fn source(&self) -> MemorySource {
        let mut source = MemorySource::default().file("cmd/Web/main.go", "package main");
        for (path, node) in &self.kodata {
            let path = format!("cmd/Web/kodata/{path}");
            source = match node {
                Node::File(content) => source.file(&path, content.clone()),
                Node::Link(target) => source.link(&path, target),
                Node::Directory => source.directory(&path),
            };
        }
        source
    }

    fn options(&self) -> ImageOptions {
        let owned = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        ImageOptions {
            import_path: IMPORT_PATH.to_owned(),
            created: self.created.map(|seconds| ko::Epoch::new(seconds).unwrap()),
            kodata_created: self.kodata_created.map(|seconds| ko::Epoch::new(seconds).unwrap()),
            labels: owned(self.labels),
            annotations: owned(self.annotations),
            user: self.user.map(str::to_owned),
            ..ImageOptions::default()
        }
    }

    /// What lemnos makes of it. `reference`: where the base stands; `prefix`: where the image goes; `program`: each
    /// platform's.
    pub fn assembled(&self, base: &Base, reference: &str, prefix: &str, program: &Program<'_>) -> Seen {
        let source = self.source();
        let reference = reference.parse().unwrap();
        let options = self.options();
        let entries = ko::kodata(&source, "cmd/Web/kodata", "cmd/Web/kodata").unwrap();
        let mut kodata = Vec::new();
        ko::kodata_tar(&source, &entries, options.kodata_created, &mut kodata).unwrap();
        let terms: Vec<String> = self.capabilities.iter().map(|&term| term.to_owned()).collect();
        let capabilities = Capabilities::parse(&terms).unwrap();
        let name = ko::app_name(IMPORT_PATH);
        let pack = |tar: &[u8]| {
            let write = |out: &mut dyn std::io::Write| {
                out.write_all(tar).unwrap();
                Ok(())
            };
            ko::compress(std::io::sink(), 6, write).unwrap()
        };
        let image = |entry: Option<&Descriptor>, bytes: &[u8], media_type: &str| {
            let config = base.blob(&ko::config_digest(bytes).unwrap());
            let read = BaseImage::read(bytes, media_type, config).unwrap();
            let platform = entry.and_then(|entry| entry.platform.clone()).unwrap_or_else(|| read.platform());
            let (program, info) = program(&platform.to_string());
            let (size, mut binary) = (program.len() as u64, Vec::new());
            ko::binary_tar(name, size, capabilities.as_ref(), &mut program.as_slice(), &mut binary).unwrap();
            let mut tars = vec![kodata.clone(), binary.clone()];
            let mut debugger = None;
            if self.debug && platform.debuggable() {
                // the stand-in for a compiler makes the same bytes of everything
                let mut tar = Vec::new();
                ko::binary_tar("dlv", size, capabilities.as_ref(), &mut program.as_slice(), &mut tar)
                    .unwrap();
                debugger = Some(pack(&tar));
                tars.push(tar);
            }
            let layers = Layers { kodata: pack(&kodata), binary: pack(&binary), debugger };
            let image = ko::image(&read, &reference, entry, &layers, &options).unwrap();
            let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
            let seen = SeenImage {
                digest: image.manifest.digest.clone(),
                own: read.layers().len(),
                manifest: json(&image.manifest.bytes),
                config: json(&image.config.bytes),
                sbom: json(&ko::image_sbom("test", &image, &info)),
                tars,
            };
            (image, seen)
        };
        let platforms: ko::Platforms = self.platforms.parse().unwrap();
        let (top, media_type) = base.top();
        let mut images = Vec::new();
        let product = if self.base.len() == 1 {
            let (image, seen) = image(None, top, media_type);
            images.push(seen);
            Product::Image(image)
        } else {
            let index = BaseIndex::read(top, media_type).unwrap();
            let mut over = Vec::new();
            for entry in platforms.choose(&index).unwrap() {
                let (bytes, media_type) = base.manifest(&entry.digest);
                let (image, seen) = image(Some(entry), bytes, media_type);
                images.push(seen);
                over.push((entry, image));
            }
            ko::product(&index, &reference, over, &options).unwrap()
        };
        let repository = self.naming.repository(prefix, IMPORT_PATH).unwrap();
        let tags: Vec<Tag> = self.tags.iter().map(|tag| tag.parse().unwrap()).collect();
        let json = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let (index, index_sbom) = match &product {
            Product::Index(index) => (json(&index.document.bytes), json(&ko::index_sbom("test", index))),
            Product::Image(_) => (Value::Null, Value::Null),
        };
        Seen {
            printed: ko::printed(&repository, &tags, &product.document().digest, false).unwrap(),
            digest: product.document().digest.clone(),
            index,
            index_sbom,
            images,
        }
    }
}

/// A platform's program, and what it tells of its build.
pub type Program<'a> = dyn Fn(&str) -> (Vec<u8>, BuildInfo) + 'a;

/// The stand-in, for all platforms.
pub fn stand_in(_platform: &str) -> (Vec<u8>, BuildInfo) {
    (BINARY.to_vec(), BuildInfo::parse(BUILD_INFO).unwrap())
}

/// What a build put into the registry.
pub struct Seen {
    pub printed: String,
    pub digest: Digest,
    /// Null for a plain image.
    pub index: Value,
    pub index_sbom: Value,
    pub images: Vec<SeenImage>,
}

pub struct SeenImage {
    pub digest: Digest,
    /// How many of the layers are the base's.
    pub own: usize,
    pub manifest: Value,
    pub config: Value,
    pub sbom: Value,
    /// The layers after the base's, uncompressed.
    pub tars: Vec<Vec<u8>>,
}

/// What of `comparable` is written down: one SBOM of an image says what the others say.
pub fn kept(mut comparable: Value) -> Value {
    for image in comparable["images"].as_array_mut().unwrap().iter_mut().skip(1) {
        without(image, &["sbom"]);
    }
    comparable
}

fn without(value: &mut Value, fields: &[&str]) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|name, _| !fields.contains(&name.as_str()));
    }
}

/// Packages and relations, identifiers in letters that SPDX allows.
fn comparable_sbom(sbom: &Value) -> Value {
    let mut sbom = sbom.clone();
    without(&mut sbom, &["documentNamespace"]);
    without(&mut sbom["creationInfo"], &["creators"]);
    let plain = |value: &mut Value| {
        let Some(text) = value.as_str() else { return };
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
        *value =
            text.chars().map(|letter| if allowed(letter) { letter } else { '-' }).collect::<String>().into();
    };
    for package in sbom["packages"].as_array_mut().into_iter().flatten() {
        plain(&mut package["SPDXID"]);
    }
    for relation in sbom["relationships"].as_array_mut().into_iter().flatten() {
        plain(&mut relation["spdxElementId"]);
        plain(&mut relation["relatedSpdxElement"]);
    }
    sbom
}

impl Seen {
    /// What must be equal, whoever built it and wherever. `registry`: its address.
    pub fn comparable(&self, registry: &str) -> Value {
        let images = self.images.iter().map(|image| {
            let mut manifest = image.manifest.clone();
            without(&mut manifest["config"], &["digest", "size"]);
            for layer in manifest["layers"].as_array_mut().unwrap().iter_mut().skip(image.own) {
                without(layer, &["digest", "size"]);
            }
            json!({ "manifest": manifest, "config": image.config, "sbom": comparable_sbom(&image.sbom) })
        });
        let mut index = self.index.clone();
        for entry in index["manifests"].as_array_mut().into_iter().flatten() {
            without(entry, &["size", "artifactType"]);
        }
        let images: Vec<Value> = images.collect();
        let index_sbom = comparable_sbom(&self.index_sbom);
        let all =
            json!({ "printed": self.printed, "images": images, "index": index, "index_sbom": index_sbom });
        let mut text = all.to_string();
        let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
        let mut names = vec![(hex(self.digest.as_str()), "product".to_owned())];
        names.extend(
            self.images
                .iter()
                .enumerate()
                .map(|(n, image)| (hex(image.digest.as_str()), format!("image {n}"))),
        );
        if let Some(digest) = self.index["annotations"][ko::BASE_DIGEST].as_str() {
            names.push((hex(digest), "base index".to_owned()));
        }
        names.push((registry.to_owned(), "registry".to_owned()));
        names.push((registry.replace(':', "%3A").replace('/', "%2F"), "registry".to_owned()));
        for (what, name) in names {
            text = text.replace(&what, &format!("<{name}>"));
        }
        serde_json::from_str(&text).unwrap()
    }
}
