//! Images added to a directory in OCI's image layout: every blob, those of the base too, and an entry in its index.
//!
//! Source: OCI image-spec, image-layout.md. The index is written last.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::deliver::{Made, create_dir, unwritable, write};
use crate::assemble::ko::Product;
use crate::error::Report;
use crate::model::Digest;
use crate::registry::{INDEX, Registry};

fn place(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join("blobs").join(digest.as_str().replace(':', "/"))
}

pub async fn add(registry: &Registry, dir: &Path, made: &Made) -> Result<(), Report> {
    create_dir(&dir.join("blobs/sha256"))?;
    for (base, parts) in made.bases.iter().zip(made.parts()) {
        for layer in base.layers() {
            let path = place(dir, &layer.digest);
            if !path.exists() {
                let (fetched, part) = (made.base_layer(registry, layer).await?, path.with_extension("part"));
                let copied = std::fs::copy(&fetched, &part).and_then(|_| std::fs::rename(&part, &path));
                copied.map_err(|error| unwritable(&path, &error))?;
            }
        }
        for file in parts.layers {
            let path = place(dir, &file.layer.digest);
            std::fs::copy(&file.path, &path).map_err(|error| unwritable(&path, &error))?;
        }
        for document in [&parts.image.config, &parts.image.manifest] {
            write(&place(dir, &document.digest), &document.bytes)?;
        }
    }
    if let Product::Index(index) = &made.product {
        write(&place(dir, &index.document.digest), &index.document.bytes)?;
    }
    write(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    enter(dir, &made.product)
}

fn enter(dir: &Path, product: &Product) -> Result<(), Report> {
    let path = dir.join("index.json");
    let wrong = || Report::user(format!("{} is no index of an image layout", path.display()));
    let mut index: Value = match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| wrong())?,
        Err(_) => json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [] }),
    };
    let entry = serde_json::to_value(product.document().descriptor()).map_err(|_| wrong())?;
    let entries = index.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(wrong)?;
    if !entries.iter().any(|known| known.get("digest") == entry.get("digest")) {
        entries.push(entry);
    }
    write(&path, index.to_string().as_bytes())
}
