//! The layers of a ko image, written into files: kodata, and the program and its debugger that a builder compiled.
//!
//! A builder's output is not trusted: what is no regular file is refused, so that a link leads to no file of this machine.
//! Must not ask a registry.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::ko::{self, BuildInfo, Capabilities, Epoch, KoError, Source};
use super::publish::LayerFile;
use crate::model::DEBUGGER;

/// gzip's fastest, as ko has it.
const LEVEL: u32 = 1;

/// A program's layer, and what Go wrote of it into the program.
#[derive(Debug, Clone)]
pub struct Binary {
    pub file: LayerFile,
    pub info: BuildInfo,
}

/// What stands at `dir`, with links to anything in `source`, as a layer in the new file `path`. Without `dir` it is an empty one.
pub fn kodata(
    source: &dyn Source,
    dir: Option<&str>,
    path: PathBuf,
    time: Option<Epoch>,
) -> Result<LayerFile, KoError> {
    let entries = dir.map_or(Ok(Vec::new()), |dir| ko::kodata(source, dir, ""))?;
    layer(path, |out| ko::kodata_tar(source, &entries, time, out))
}

/// The program at `compiled` as `name`, as a layer in the new file `path`.
pub fn binary(
    compiled: &Path,
    name: &str,
    capabilities: Option<&Capabilities>,
    path: PathBuf,
) -> Result<Binary, KoError> {
    let size = size(compiled, name)?;
    let open = || File::open(compiled).map(BufReader::new).map_err(unread(name));
    let info = BuildInfo::read(&mut open()?)?;
    let mut content = open()?;
    let file = layer(path, |out| ko::binary_tar(name, size, capabilities, &mut content, out))?;
    Ok(Binary { file, info })
}

/// The debugger at `compiled`, as a layer in the new file `path`: with the capabilities of the program that it starts.
pub fn debugger(
    compiled: &Path,
    capabilities: Option<&Capabilities>,
    path: PathBuf,
) -> Result<LayerFile, KoError> {
    let size = size(compiled, DEBUGGER)?;
    let mut content = File::open(compiled).map(BufReader::new).map_err(unread(DEBUGGER))?;
    layer(path, |out| ko::binary_tar(DEBUGGER, size, capabilities, &mut content, out))
}

fn unread(name: &str) -> impl Fn(std::io::Error) -> KoError {
    move |cause| KoError::Read { name: name.to_owned(), cause }
}

/// Of what a builder sent; only of a regular file.
fn size(compiled: &Path, name: &str) -> Result<u64, KoError> {
    let found = std::fs::symlink_metadata(compiled).map_err(unread(name))?;
    if !found.is_file() {
        let problem = "the compiler's output is no file".to_owned();
        return Err(KoError::BuildInfo { problem });
    }
    Ok(found.len())
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
        let refused = binary(&sent, "web", None, dir.path().join("layer"));
        assert!(matches!(refused, Err(KoError::BuildInfo { .. })), "a link");
        assert!(!dir.path().join("layer").exists());
        assert!(matches!(debugger(&sent, None, dir.path().join("layer")), Err(KoError::BuildInfo { .. })));
        std::fs::remove_file(&sent).unwrap();
        std::fs::create_dir(&sent).unwrap();
        assert!(binary(&sent, "web", None, dir.path().join("layer")).is_err(), "a directory");
        assert!(matches!(
            binary(&secret, "web", None, dir.path().join("layer")),
            Err(KoError::BuildInfo { .. })
        ));
    }
}
