//! What was compiled as layers, in files that are gone with the build.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::try_join_all;

use super::failure;
use super::kodata::Tree;
use super::pins::Pins;
use crate::assemble::ko::{self, BuildInfo, Capabilities, Epoch, KoError};
use crate::assemble::publish::LayerFile;
use crate::event::Failure;
use crate::model::{GoTarget, KoImage};
use crate::pipeline::blocking;
use crate::solve::DirSource;
use crate::solve::context::GitContext;

/// gzip's fastest, as ko has it.
const LEVEL: u32 = 1;

pub(super) struct Compiled {
    pub kodata: LayerFile,
    /// In the order of the pins' targets.
    pub binaries: Vec<Binary>,
}

pub(super) struct Binary {
    pub file: LayerFile,
    pub info: BuildInfo,
}

/// `out`: what the builder sent. Layers are written into `scratch`.
pub(super) async fn write(
    program: &KoImage,
    pins: &Pins,
    source: GitContext,
    out: &Path,
    scratch: &Path,
    time: Option<Epoch>,
) -> Result<Compiled, Failure> {
    let capabilities = Capabilities::parse(&program.capabilities).map_err(failure)?;
    let name = ko::app_name(&program.compile.import_path).to_owned();
    let source: Arc<dyn DirSource> = Arc::new(source);
    let git: Arc<dyn DirSource> = pins.git.clone();
    let (path, dir) =
        (scratch.join("kodata.layer"), program.kodata.as_ref().map(|kodata| kodata.path.clone()));
    let kodata = blocking(move || write_kodata(source, git, dir.as_deref(), path, time).map_err(failure));
    let binaries = try_join_all(pins.targets.iter().map(|target| {
        let binary = program_of(out, target, &program.program);
        let (path, name) = (scratch.join(format!("{}.layer", target.directory())), name.clone());
        blocking(move || write_binary(&binary, &name, capabilities.as_ref(), path).map_err(failure))
    }));
    let (kodata, binaries) = tokio::try_join!(kodata, binaries)?;
    Ok(Compiled { kodata, binaries })
}

fn program_of(out: &Path, target: &GoTarget, program: &str) -> PathBuf {
    out.join(target.directory()).join(program)
}

fn write_kodata(
    source: Arc<dyn DirSource>,
    git: Arc<dyn DirSource>,
    dir: Option<&str>,
    path: PathBuf,
    time: Option<Epoch>,
) -> Result<LayerFile, KoError> {
    let Some(dir) = dir else {
        let none = ko::MemorySource::default();
        return layer(path, |out| ko::kodata_tar(&none, &[], time, out));
    };
    let tree = Tree::new(source, git).map_err(|cause| KoError::Read { name: dir.to_owned(), cause })?;
    // a link may lead to anything that is in the repository
    let entries = ko::kodata(&tree, dir, "")?;
    layer(path, |out| ko::kodata_tar(&tree, &entries, time, out))
}

fn write_binary(
    binary: &Path,
    name: &str,
    capabilities: Option<&Capabilities>,
    path: PathBuf,
) -> Result<Binary, KoError> {
    let failed = |cause| KoError::Read { name: name.to_owned(), cause };
    // what came from a builder may be a link to anything here
    let found = std::fs::symlink_metadata(binary).map_err(failed)?;
    if !found.is_file() {
        let problem = "the compiler's output is no file".to_owned();
        return Err(KoError::BuildInfo { problem });
    }
    let mut content = BufReader::new(File::open(binary).map_err(failed)?);
    let info = BuildInfo::read(&mut content)?;
    let mut content = BufReader::new(File::open(binary).map_err(failed)?);
    let file = layer(path, |out| ko::binary_tar(name, found.len(), capabilities, &mut content, out))?;
    Ok(Binary { file, info })
}

fn layer(
    path: PathBuf,
    tar: impl FnOnce(&mut dyn Write) -> Result<(), KoError>,
) -> Result<LayerFile, KoError> {
    let out = BufWriter::new(File::create_new(&path).map_err(KoError::Write)?);
    let layer = ko::compress(out, LEVEL, tar)?;
    Ok(LayerFile { layer, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_builder_sends_in_a_programs_place_is_no_way_to_a_file_of_this_server() {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "x").unwrap();
        let sent = dir.path().join("sent");
        std::os::unix::fs::symlink(&secret, &sent).unwrap();
        let refused = write_binary(&sent, "web", None, dir.path().join("layer"));
        assert!(matches!(refused, Err(KoError::BuildInfo { .. })), "a link");
        assert!(!dir.path().join("layer").exists());
        std::fs::remove_file(&sent).unwrap();
        std::fs::create_dir(&sent).unwrap();
        assert!(write_binary(&sent, "web", None, dir.path().join("layer")).is_err(), "a directory");
        assert!(matches!(
            write_binary(&secret, "web", None, dir.path().join("layer")),
            Err(KoError::BuildInfo { .. })
        ));
    }
}
