//! The contents of an application out of a directory: each file's digest, and where its bytes are.
//!
//! The directory is what a build left behind, so nothing in it is trusted: no link is followed, also none that stands in a
//! directory's place, only regular files count, and all of them together are bounded. Memory does not grow with the files.
//! Blocks.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::{
    ARCHIVE_END_BYTES, ComponentContent, Content, Contents, INLINE_LIMIT_BYTES, Shape, SpinAssembleError,
    archive_entries, check_wasm, shape,
};
use crate::kinds::spin::{SpinError, empty_patterns, mounted_files};
use crate::model::{Digest, SpinApp, SpinComponent, SpinSource, Tree};

/// All contents of one application together.
const LIMIT_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// As much of a component as tells whether it is one.
const BEGINNING_BYTES: usize = 8;
const BUFFER_BYTES: usize = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum GatherError {
    #[error(transparent)]
    Files(#[from] SpinError),
    #[error(transparent)]
    Assemble(#[from] SpinAssembleError),
    #[error("the component {component} has no content: {path} is not there after the build")]
    Missing { component: String, path: String },
    #[error("{path} is a symbolic link, or lies behind one")]
    Link { path: String },
    #[error("{path} is not a regular file")]
    NotAFile { path: String },
    #[error("the files of the application have more than {LIMIT_BYTES} bytes together")]
    TooLarge,
    #[error("the component {component} was not fetched")]
    NotFetched { component: String },
    #[error("reading {path}: {cause}")]
    Read { path: String, cause: io::Error },
    #[error("writing an archive of files: {0}")]
    Write(io::Error),
}

/// An application with all that it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gathered {
    pub contents: Contents,
    /// Of each component with files, where there are too many for a layer each.
    pub archives: Option<BTreeMap<String, Content>>,
    /// Where the bytes of everything are that becomes a layer.
    pub blobs: BTreeMap<Digest, PathBuf>,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
}

/// Where contents are looked for.
#[derive(Clone, Copy)]
pub struct Places<'a> {
    /// The application's directory.
    pub dir: &'a Path,
    /// The same, as the rules of mounts see it.
    pub tree: &'a dyn Tree,
    /// Components that were fetched, by id.
    pub fetched: &'a BTreeMap<String, PathBuf>,
    /// For archives; it has to outlive their push.
    pub scratch: &'a Path,
}

/// Reads everything once.
pub fn gather(app: &SpinApp, places: Places<'_>) -> Result<Gathered, GatherError> {
    let mut all =
        Gathered { contents: Contents::new(), archives: None, blobs: BTreeMap::new(), notes: Vec::new() };
    let mut left_bytes = LIMIT_BYTES;
    for component in &app.components {
        let wasm = all.component(component, places, &mut left_bytes)?;
        let mounted = mounted_files(places.tree, "", component)?;
        let mut files = BTreeMap::new();
        for file in &mounted {
            files.insert(file.path.clone(), all.take(places.dir, &file.source, &mut left_bytes)?.0);
        }
        let sources: Vec<&str> = mounted.iter().map(|file| file.source.as_str()).collect();
        all.notes.extend(empty_patterns(component, &sources));
        all.contents.insert(component.id.clone(), ComponentContent { wasm, files });
    }
    if shape(app, &all.contents)? == Shape::Archives {
        all.archive(places)?;
    }
    Ok(all)
}

impl Gathered {
    fn component(
        &mut self,
        component: &SpinComponent,
        places: Places<'_>,
        left_bytes: &mut u64,
    ) -> Result<Content, GatherError> {
        let id = &component.id;
        let (content, beginning) = match &component.source {
            SpinSource::Path(path) => {
                self.take(places.dir, path, left_bytes).map_err(|error| match error {
                    GatherError::Read { cause, path } if cause.kind() == io::ErrorKind::NotFound => {
                        GatherError::Missing { component: id.clone(), path }
                    }
                    other => other,
                })?
            }
            SpinSource::Url { .. } | SpinSource::Package { .. } => {
                let path = places.fetched.get(id);
                let path = path.ok_or_else(|| GatherError::NotFetched { component: id.clone() })?;
                let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
                self.take(path.parent().unwrap_or(places.scratch), name, left_bytes)?
            }
        };
        check_wasm(id, &beginning)?;
        // a component is a layer however small it is
        Ok(content)
    }

    /// A file's content, and its first bytes.
    fn take(
        &mut self,
        dir: &Path,
        path: &str,
        left_bytes: &mut u64,
    ) -> Result<(Content, Vec<u8>), GatherError> {
        let file = open_beneath(dir, path)?;
        let read = |cause| GatherError::Read { path: path.to_owned(), cause };
        let mut reader = file.take(left_bytes.saturating_add(1));
        let (mut hash, mut size_bytes) = (Sha256::new(), 0_u64);
        let (mut first, mut buffer) = (Vec::new(), vec![0; BUFFER_BYTES]);
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(read(error)),
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            hash.update(bytes);
            size_bytes += count as u64;
            let room = usize::try_from(INLINE_LIMIT_BYTES).unwrap_or_default().saturating_sub(first.len());
            first.extend_from_slice(bytes.get(..room.min(count)).unwrap_or_default());
        }
        *left_bytes = left_bytes.checked_sub(size_bytes).ok_or(GatherError::TooLarge)?;
        let digest = Digest::of_hash(&hash.finalize().into());
        let beginning = first.get(..BEGINNING_BYTES.min(first.len())).unwrap_or_default().to_vec();
        let small = (size_bytes <= INLINE_LIMIT_BYTES).then_some(first);
        self.blobs.insert(digest.clone(), dir.join(path));
        Ok((Content { digest, size_bytes, small }, beginning))
    }

    /// One archive for each component's files.
    fn archive(&mut self, places: Places<'_>) -> Result<(), GatherError> {
        let mut archives = BTreeMap::new();
        for (at, (id, content)) in self.contents.iter().enumerate() {
            if content.files.is_empty() {
                continue;
            }
            let path = places.scratch.join(format!("files-{at}.tar.gz"));
            let file = File::create(&path).map_err(GatherError::Write)?;
            let counted = Counted { file, hash: Sha256::new(), size_bytes: 0 };
            // no name and no time in it: equal files give equal bytes
            let zipped = GzBuilder::new().mtime(0).write(counted, Compression::default());
            let archive = write_archive(zipped, content, &self.blobs)?;
            let digest = Digest::of_hash(&archive.hash.finalize().into());
            self.blobs.insert(digest.clone(), path);
            archives.insert(id.clone(), Content { digest, size_bytes: archive.size_bytes, small: None });
        }
        self.archives = Some(archives);
        Ok(())
    }
}

fn write_archive(
    mut zipped: GzEncoder<Counted>,
    content: &ComponentContent,
    blobs: &BTreeMap<Digest, PathBuf>,
) -> Result<Counted, GatherError> {
    let read = |path: &str, cause| GatherError::Read { path: path.to_owned(), cause };
    for entry in archive_entries(&content.files)? {
        zipped.write_all(&entry.header).map_err(GatherError::Write)?;
        let gone = || read(entry.path, io::ErrorKind::NotFound.into());
        let path = blobs.get(&entry.content.digest).ok_or_else(gone)?;
        let file = File::open(path).map_err(|cause| read(entry.path, cause))?;
        let copied = io::copy(&mut file.take(entry.content.size_bytes), &mut zipped);
        if copied.map_err(GatherError::Write)? != entry.content.size_bytes {
            return Err(read(entry.path, io::ErrorKind::UnexpectedEof.into()));
        }
        zipped.write_all(&vec![0; entry.padding_bytes]).map_err(GatherError::Write)?;
    }
    zipped.write_all(&[0; ARCHIVE_END_BYTES]).map_err(GatherError::Write)?;
    zipped.finish().map_err(GatherError::Write)
}

/// A file that counts and sums up what is written to it.
struct Counted {
    file: File,
    hash: Sha256,
    size_bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        self.size_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens a regular file at a clean path below `dir`, step by step from open directories.
fn open_beneath(dir: &Path, path: &str) -> Result<File, GatherError> {
    use rustix::io::Errno;
    let failed = |errno: Errno| match errno {
        // what NOFOLLOW makes of a link
        Errno::LOOP => GatherError::Link { path: path.to_owned() },
        other => GatherError::Read { path: path.to_owned(), cause: other.into() },
    };
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(dir, directory, Mode::empty()).map_err(failed)?;
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    for part in parents.split('/').filter(|part| !part.is_empty()) {
        at = rustix::fs::openat(&at, part, directory | OFlags::NOFOLLOW, Mode::empty()).map_err(|errno| {
            match errno {
                // beside DIRECTORY a link is NOTDIR
                Errno::NOTDIR => GatherError::Link { path: path.to_owned() },
                other => failed(other),
            }
        })?;
    }
    // NONBLOCK: opening a pipe does not wait
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&at, name, flags, Mode::empty()).map_err(failed)?);
    let kind = file.metadata().map_err(|cause| GatherError::Read { path: path.to_owned(), cause })?;
    if kind.is_file() { Ok(file) } else { Err(GatherError::NotAFile { path: path.to_owned() }) }
}
