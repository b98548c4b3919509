//! What hangs on a build's record: attestations and results, as descriptors into the builder's content store; and
//! `lemnos buildkit history inspect attachment`, which prints one of them.

use std::process::ExitCode;

use serde::Deserialize;

use super::record::{self, Kept, Word};
use crate::buildkit::{BuildResult, Client, Descriptor, Record};
use crate::cli::builder::BuilderArgs;
use crate::cli::terminal::print_bytes;
use crate::error::{Kind, Report};
use crate::model::Digest;

const INDEX: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Says what an attestation is about.
const PREDICATE: &str = "in-toto.io/predicate-type";
pub const PROVENANCE: &str = "https://slsa.dev/provenance/";
/// Most that hangs on one record, and how deep indexes stand in indexes.
const COUNT_LIMIT: usize = 10_000;
const DEPTH_LIMIT: usize = 4;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The build: its reference or the beginning of it, or ^N for the Nth before the newest [default: the newest].
    #[arg(value_name = "REF")]
    build: Option<Word>,
    /// The attachment, as in sha256:…
    #[arg(value_name = "DIGEST", required_unless_present_any = ["kind", "platform"])]
    digest: Option<Digest>,
    /// What it is: provenance, sbom, index, manifest, image, or a media or predicate type in full.
    #[arg(long = "type", id = "kind", value_name = "TYPE")]
    kind: Option<String>,
    /// The platform it is of, as in linux/amd64.
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
}

/// One thing that hangs on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Empty where it is of all or none.
    pub platform: String,
    pub descriptor: Descriptor,
}

impl Attachment {
    /// The predicate of an attestation, else the media type.
    pub fn kind(&self) -> &str {
        self.descriptor.annotations.get(PREDICATE).unwrap_or(&self.descriptor.media_type)
    }

    fn is(&self, wanted: &str) -> bool {
        let kind = self.kind();
        match wanted {
            "provenance" => kind.starts_with(PROVENANCE),
            "sbom" => kind == "https://spdx.dev/Document",
            "index" => kind == INDEX[0],
            "manifest" => kind == MANIFEST,
            "image" => kind == CONFIG,
            full => kind == full,
        }
    }
}

pub async fn run(args: &Args, builder: &BuilderArgs) -> Result<ExitCode, Report> {
    let blob = record::one(builder, args.build.as_ref(), async |kept: &Kept<'_>| {
        let client = &kept.builder.client;
        let found = match &args.digest {
            Some(digest) => Some(digest.as_str().to_owned()),
            None => all(client, &kept.record)
                .await?
                .into_iter()
                .find(|one| {
                    args.kind.as_deref().is_none_or(|kind| one.is(kind))
                        && args.platform.as_deref().is_none_or(|platform| one.platform == platform)
                })
                .map(|one| one.descriptor.digest),
        };
        let found = found.ok_or_else(|| missing(kept, "no attachment of build {} is that"))?;
        let blob = client.history_blob(&found).await?;
        blob.ok_or_else(|| missing(kept, "the builder of build {} keeps no such attachment"))
    })
    .await?;
    print_bytes(&blob)?;
    Ok(ExitCode::SUCCESS)
}

fn missing(kept: &Kept<'_>, what: &str) -> Report {
    let reference = &kept.record.reference;
    Report::new(Kind::NotFound, what.replace("{}", reference))
        .hint(format!("`lemnos buildkit history inspect {reference}` lists its attachments"))
}

/// All that hangs on `record`: what is of no platform first, then by platform and kind.
pub async fn all(client: &Client, record: &Record) -> Result<Vec<Attachment>, Report> {
    let mut found = Vec::new();
    if let Some(result) = &record.result {
        of_result(client, result, "", &mut found).await?;
    }
    for (platform, result) in &record.results {
        of_result(client, result, platform, &mut found).await?;
    }
    found.sort_by(|a, b| (&a.platform, a.kind()).cmp(&(&b.platform, b.kind())));
    Ok(found)
}

async fn of_result(
    client: &Client,
    result: &BuildResult,
    platform: &str,
    found: &mut Vec<Attachment>,
) -> Result<(), Report> {
    let attach = |descriptor: &Descriptor| Attachment {
        platform: platform.to_owned(),
        descriptor: descriptor.clone(),
    };
    found.extend(result.attestations.iter().map(attach));
    let mut level: Vec<Attachment> = result.results.values().map(attach).collect();
    for _ in 0..DEPTH_LIMIT {
        let mut below = Vec::new();
        for attachment in level {
            // an image that was pushed only is not in the store any more
            let Some(blob) = client.history_blob(&attachment.descriptor.digest).await? else { continue };
            if INDEX.contains(&attachment.descriptor.media_type.as_str()) {
                below.extend(manifests(&blob, &attachment.platform));
            }
            let attests = attachment.descriptor.annotations.get("vnd.docker.reference.type");
            if attests.map(String::as_str) != Some("attestation-manifest") && found.len() < COUNT_LIMIT {
                found.push(attachment);
            }
        }
        level = below;
    }
    Ok(())
}

/// What an index names.
fn manifests(index: &[u8], platform: &str) -> Vec<Attachment> {
    #[derive(Deserialize)]
    struct Index {
        #[serde(default)]
        manifests: Vec<Entry>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Entry {
        #[serde(default)]
        media_type: String,
        digest: String,
        #[serde(default)]
        size: i64,
        #[serde(default)]
        annotations: std::collections::BTreeMap<String, String>,
        platform: Option<Platform>,
    }
    #[derive(Deserialize)]
    struct Platform {
        #[serde(default)]
        os: String,
        #[serde(default)]
        architecture: String,
        #[serde(default)]
        variant: String,
    }
    let Ok(index) = serde_json::from_slice::<Index>(index) else { return Vec::new() };
    let attach = |entry: Entry| Attachment {
        platform: entry.platform.map_or_else(
            || platform.to_owned(),
            |p| [p.os, p.architecture, p.variant].join("/").trim_end_matches('/').to_owned(),
        ),
        descriptor: Descriptor {
            media_type: entry.media_type,
            digest: entry.digest,
            size: entry.size,
            annotations: entry.annotations,
        },
    };
    index.manifests.into_iter().take(COUNT_LIMIT).map(attach).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_its_manifests_with_their_platforms() {
        let index = r#"{"manifests":[
            {"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:a","size":3,"platform":{"os":"linux","architecture":"arm","variant":"v7"}},
            {"digest":"sha256:b","annotations":{"in-toto.io/predicate-type":"https://slsa.dev/provenance/v1"}}]}"#;
        let found = manifests(index.as_bytes(), "linux/amd64");
        let told: Vec<_> = found.iter().map(|a| (a.platform.as_str(), a.kind(), a.is("manifest"))).collect();
        assert_eq!(
            told,
            [("linux/arm/v7", MANIFEST, true), ("linux/amd64", "https://slsa.dev/provenance/v1", false)]
        );
        assert!(
            found[1].is("provenance")
                && found[1].is("https://slsa.dev/provenance/v1")
                && !found[1].is("sbom")
        );
        assert_eq!(manifests(b"nonsense", ""), []);
    }
}
