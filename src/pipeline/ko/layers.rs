//! What was compiled as layers, in files that are gone with the build.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::future::try_join_all;

use super::failure;
use super::kodata::Tree;
use super::pins::Pins;
use crate::assemble::ko::{self, Capabilities, Epoch, KoError};
use crate::assemble::layers::{self, Binary};
use crate::assemble::publish::LayerFile;
use crate::event::Failure;
use crate::model::{GoTarget, KoImage};
use crate::pipeline::blocking;
use crate::solve::DirSource;
use crate::solve::context::GitContext;

pub(super) struct Compiled {
    pub kodata: LayerFile,
    /// In the order of the pins' targets.
    pub binaries: Vec<Binary>,
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
    let kodata = blocking(move || {
        let none = ko::MemorySource::default();
        let Some(dir) = dir else { return layers::kodata(&none, None, path, time).map_err(failure) };
        let tree = Tree::new(source, git);
        let tree = tree.map_err(|cause| failure(KoError::Read { name: dir.clone(), cause }))?;
        layers::kodata(&tree, Some(&dir), path, time).map_err(failure)
    });
    let binaries = try_join_all(pins.targets.iter().map(|target| {
        let binary = program_of(out, target, &program.program);
        let (path, name) = (scratch.join(format!("{}.layer", target.directory())), name.clone());
        blocking(move || layers::binary(&binary, &name, capabilities.as_ref(), path).map_err(failure))
    }));
    let (kodata, binaries) = tokio::try_join!(kodata, binaries)?;
    Ok(Compiled { kodata, binaries })
}

fn program_of(out: &Path, target: &GoTarget, program: &str) -> PathBuf {
    out.join(target.directory()).join(program)
}
