//! SBOMs as ko writes them: SPDX 2.3 in JSON, of an image (its Go modules) and of an index (its images).
//!
//! The packages and their relations are ko's. Different on purpose: who made it, the document's namespace (two tools must not
//! share one), and identifiers, in which SPDX knows letters, digits, `.` and `-` only while ko lets `+` and `(devel)` through.

use base64::Engine as _;
use serde::Serialize;

use super::base::Descriptor;
use super::build_info::{BuildInfo, Module};
use super::image::{BASE_DIGEST, BASE_NAME, Image, ImageIndex};
use super::reference::BaseReference;
use super::time::{UNSET, in_utc};
use crate::model::Digest;

const NOASSERTION: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpdxDocument {
    #[serde(rename = "SPDXID")]
    id: &'static str,
    name: String,
    spdx_version: &'static str,
    creation_info: CreationInfo,
    data_license: &'static str,
    document_namespace: String,
    document_describes: [String; 1],
    packages: Vec<Package>,
    relationships: Vec<Relationship>,
}

#[derive(Serialize)]
struct CreationInfo {
    created: String,
    creators: [String; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    #[serde(rename = "SPDXID")]
    id: String,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    version_info: String,
    files_analyzed: bool,
    license_declared: &'static str,
    license_concluded: &'static str,
    download_location: String,
    copyright_text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_package_purpose: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksums: Option<[Checksum; 1]>,
    external_refs: [ExternalRef; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef {
    reference_category: &'static str,
    reference_locator: String,
    reference_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Relationship {
    spdx_element_id: String,
    relationship_type: &'static str,
    related_spdx_element: String,
}

/// The SBOM of one image: itself, its base, the main module and every module that the program was built from.
/// `tool`: who writes it, as `lemnos-0.1.0`.
pub fn image_sbom(tool: &str, image: &Image, info: &BuildInfo) -> Vec<u8> {
    let digest = &image.manifest.digest;
    let mut document = started(tool, &image.created, digest);
    let of_image = oci_id(digest);
    document.relate(DOCUMENT.to_owned(), "DESCRIBES", of_image.clone());
    let purl = oci_purl("image", digest, &[("mediaType", &image.manifest.media_type)]);
    document.packages.push(Package {
        primary_package_purpose: Some("CONTAINER"),
        ..package(of_image.clone(), digest.to_string(), purl)
    });
    document.base(&image.annotations, digest);
    let main = module_id(&info.main);
    document.relate(of_image, "CONTAINS", main.clone());
    document.packages.push(Package {
        download_location: format!("https://{}", info.main.path),
        ..package(main.clone(), info.main.path.clone(), module_purl(&info.main))
    });
    for dep in &info.deps {
        let id = module_id(dep);
        document.relate(main.clone(), "DEPENDS_ON", id.clone());
        let checksum =
            || Checksum { algorithm: "SHA256", checksum_value: sum_in_hex(&dep.sum).unwrap_or_default() };
        document.packages.push(Package {
            version_info: dep.version.clone(),
            download_location: format!("https://proxy.golang.org/{}/@v/{}.zip", dep.path, dep.version),
            checksums: (!dep.sum.is_empty()).then(|| [checksum()]),
            ..package(id, dep.path.clone(), module_purl(dep))
        });
    }
    document.written()
}

/// The SBOM of an index: itself, its base, its images.
pub fn index_sbom(tool: &str, index: &ImageIndex) -> Vec<u8> {
    let digest = &index.document.digest;
    let mut document = started(tool, &index.created, digest);
    let purl = oci_purl("index", digest, &[("mediaType", &index.document.media_type)]);
    document.packages.push(Package {
        primary_package_purpose: Some("CONTAINER"),
        checksums: Some([sha256(digest)]),
        ..package(oci_id(digest), digest.to_string(), purl)
    });
    document.base(&index.annotations, digest);
    for image in &index.manifests {
        let id = oci_id(&image.digest);
        document.relate(oci_id(digest), "VARIANT_OF", id.clone());
        document.packages.push(Package {
            version_info: image.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
            primary_package_purpose: Some("CONTAINER"),
            checksums: Some([sha256(&image.digest)]),
            ..package(id, image.digest.to_string(), variant_purl(image))
        });
    }
    document.written()
}

fn started(tool: &str, created: &str, digest: &Digest) -> SpdxDocument {
    SpdxDocument {
        id: DOCUMENT,
        name: format!("sbom-{digest}"),
        spdx_version: "SPDX-2.3",
        creation_info: CreationInfo {
            created: in_utc(created).unwrap_or_else(|| UNSET.to_owned()),
            creators: [format!("Tool: {tool}")],
        },
        data_license: "CC0-1.0",
        document_namespace: format!("http://spdx.org/spdxdocs/lemnos/{digest}"),
        document_describes: [oci_id(digest)],
        packages: Vec::new(),
        relationships: Vec::new(),
    }
}

impl SpdxDocument {
    fn relate(&mut self, element: String, relationship_type: &'static str, related: String) {
        self.relationships.push(Relationship {
            spdx_element_id: element,
            relationship_type,
            related_spdx_element: related,
        });
    }

    /// The base, where the annotations name one.
    fn base(&mut self, annotations: &std::collections::BTreeMap<String, String>, of: &Digest) {
        let reference = annotations.get(BASE_NAME).and_then(|name| name.parse::<BaseReference>().ok());
        let digest = annotations.get(BASE_DIGEST).and_then(|digest| digest.parse::<Digest>().ok());
        let (Some(reference), Some(digest)) = (reference, digest) else { return };
        let repository = reference.repository();
        let mut qualifiers = vec![("repository_url", repository.as_str())];
        qualifiers.extend(reference.tag().map(|tag| ("tag", tag)));
        self.relate(oci_id(of), "DESCENDANT_OF", oci_id(&digest));
        self.packages.push(Package {
            version_info: reference.to_string(),
            checksums: Some([sha256(&digest)]),
            ..package(
                oci_id(&digest),
                format!("{repository}@{digest}"),
                oci_purl("image", &digest, &qualifiers),
            )
        });
    }

    fn written(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("plain data is always JSON");
        bytes.push(b'\n');
        bytes
    }
}

fn package(id: String, name: String, purl: String) -> Package {
    Package {
        id,
        name,
        version_info: String::new(),
        files_analyzed: false,
        license_declared: NOASSERTION,
        license_concluded: NOASSERTION,
        download_location: NOASSERTION.to_owned(),
        copyright_text: NOASSERTION,
        primary_package_purpose: None,
        checksums: None,
        external_refs: [ExternalRef {
            reference_category: "PACKAGE-MANAGER",
            reference_locator: purl,
            reference_type: "purl",
        }],
    }
}

fn sha256(digest: &Digest) -> Checksum {
    Checksum { algorithm: "SHA256", checksum_value: digest.hex().to_owned() }
}

fn oci_id(digest: &Digest) -> String {
    format!("SPDXRef-Package-sha256-{}", digest.hex())
}

fn module_id(module: &Module) -> String {
    let name = format!("{}-{}", module.path, module.version);
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let name: String = name
        .chars()
        .map(|letter| match letter {
            '/' | '.' => '.',
            letter if allowed(letter) => letter,
            _ => '-',
        })
        .collect();
    format!("SPDXRef-Package-{name}")
}

/// Host and owner in lower case, as the package-URL rules for Go have it; only where more follows them.
fn module_purl(module: &Module) -> String {
    let mut parts: Vec<String> = module.path.split('/').map(str::to_owned).collect();
    if parts.len() > 2 {
        parts.iter_mut().take(2).for_each(|part| *part = part.to_lowercase());
    }
    format!("pkg:golang/{}@{}?type=module", parts.join("/"), module.version)
}

fn variant_purl(image: &Descriptor) -> String {
    let mut qualifiers = vec![("mediaType", image.media_type.as_str())];
    if let Some(platform) = &image.platform {
        let fields = [
            ("arch", platform.architecture.as_str()),
            ("os", &platform.os),
            ("variant", &platform.variant),
            ("os-version", &platform.os_version),
        ];
        qualifiers.extend(
            fields.into_iter().filter(|(name, value)| matches!(*name, "arch" | "os") || !value.is_empty()),
        );
        qualifiers.extend(platform.os_features.iter().map(|feature| ("os-feature", feature.as_str())));
    }
    oci_purl("image", &image.digest, &qualifiers)
}

fn oci_purl(name: &str, digest: &Digest, qualifiers: &[(&str, &str)]) -> String {
    let mut qualifiers = qualifiers.to_vec();
    // by name; several of one name keep their order
    qualifiers.sort_by_key(|(name, _)| *name);
    let query: Vec<String> =
        qualifiers.iter().map(|(name, value)| format!("{}={}", in_query(name), in_query(value))).collect();
    format!("pkg:oci/{name}@{digest}?{}", query.join("&"))
}

/// As Go's `url.Values` writes it.
fn in_query(text: &str) -> String {
    let mut written = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                written.push(char::from(byte))
            }
            b' ' => written.push('+'),
            other => written.push_str(&format!("%{other:02X}")),
        }
    }
    written
}

/// `h1:` and base64, in hexadecimal.
fn sum_in_hex(sum: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(sum.strip_prefix("h1:")?).ok()?;
    Some(hex::encode(bytes))
}
