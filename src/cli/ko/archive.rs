//! Images in the archive form that `docker load` reads, in a file.
//!
//! Source: what `docker save` writes, with the names of `ko --tarball` in it: configurations as `sha256:HEX`, layers as
//! `HEX.tar.gz`, and `manifest.json` last. Equal images give equal bytes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::deliver::{Made, unwritable};
use crate::error::Report;
use crate::registry::Registry;

/// One image of a program: the one at `number`, under `names` with their tags.
pub struct Named<'a> {
    pub made: &'a Made,
    pub number: usize,
    pub names: Vec<String>,
}

enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
}

/// Writes them all into `file`, which is there whole or not at all.
pub async fn write(registry: &Registry, file: &Path, images: &[Named<'_>]) -> Result<(), Report> {
    let failed = |error: std::io::Error| unwritable(file, &error);
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut entries: Vec<(String, Content)> = Vec::new();
    let mut manifest = Vec::new();
    let mut known = BTreeSet::new();
    for Named { made, number, names } in images {
        let (Some(base), Some(parts)) = (made.bases.get(*number), made.parts().into_iter().nth(*number))
        else {
            return Err(Report::internal("an image to be archived is not there"));
        };
        let config = &parts.image.config;
        let mut layers = Vec::new();
        for layer in base.layers() {
            let path = made.base_layer(registry, layer).await?;
            layers.push((format!("{}.tar.gz", layer.digest.hex()), Content::File(path)));
        }
        for own in parts.layers {
            let name = format!("{}.tar.gz", own.layer.digest.hex());
            layers.push((name, Content::File(own.path.clone())));
        }
        let layer_names: Vec<String> = layers.iter().map(|(name, _)| name.clone()).collect();
        manifest.push(json!({ "Config": config.digest, "RepoTags": names, "Layers": layer_names }));
        let of_config = (config.digest.to_string(), Content::Bytes(config.bytes.clone()));
        for entry in std::iter::once(of_config).chain(layers) {
            if known.insert(entry.0.clone()) {
                entries.push(entry);
            }
        }
    }
    let manifest = serde_json::Value::from(manifest).to_string().into_bytes();
    entries.push(("manifest.json".to_owned(), Content::Bytes(manifest)));
    let part = tempfile::Builder::new().prefix(".lemnos-").tempfile_in(directory).map_err(failed)?;
    let packed = tokio::task::spawn_blocking(move || packed(part, &entries)).await;
    let part = packed.map_err(|error| Report::internal(error.to_string()))?.map_err(failed)?;
    part.persist(file).map_err(|error| failed(error.error))?;
    Ok(())
}

fn packed(
    part: tempfile::NamedTempFile,
    entries: &[(String, Content)],
) -> std::io::Result<tempfile::NamedTempFile> {
    use std::os::unix::fs::PermissionsExt as _;
    part.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    let mut archive = tar::Builder::new(std::io::BufWriter::new(part));
    for (name, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(0);
        match content {
            Content::Bytes(bytes) => {
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, name, bytes.as_slice())?;
            }
            Content::File(path) => {
                let file = std::fs::File::open(path)?;
                header.set_size(file.metadata()?.len());
                archive.append_data(&mut header, name, file)?;
            }
        }
    }
    archive.into_inner()?.into_inner().map_err(std::io::IntoInnerError::into_error)
}
