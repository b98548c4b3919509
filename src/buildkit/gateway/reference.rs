//! A result within a build: its files, its graph.
//!
//! Reading a file makes the daemon build what it takes. Whole files and directories come in one message each, so the
//! daemon's limit on messages is the bound; larger files are read in ranges.

use bytes::Bytes;
use lemnos_proto::gateway as wire;
use lemnos_proto::{fsutil, pb};

use super::{Gateway, GatewayError, answered};

/// One result of a solve, kept by the daemon until the build ends.
#[derive(Debug, Clone)]
pub struct Reference {
    gateway: Gateway,
    id: String,
    definition: Option<pb::Definition>,
}

/// A file of a result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileStat {
    /// Relative to what was asked for.
    pub path: String,
    pub kind: FileKind,
    /// Permissions, and set-user-id (0o4000), set-group-id (0o2000), sticky (0o1000).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: i64,
    /// Nanoseconds since 1970.
    pub modified: i64,
    /// Where a symbolic link leads.
    pub link: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FileKind {
    #[default]
    File,
    Directory,
    Symlink,
    /// A device, a pipe, a socket.
    Special,
}

impl From<fsutil::types::Stat> for FileStat {
    fn from(stat: fsutil::types::Stat) -> Self {
        // Go's io/fs.FileMode: the kind in the upper bits, and the three special bits not where Unix has them
        let bit = |n: u32| stat.mode & (1 << n) != 0;
        let special = [(23, 0o4000), (22, 0o2000), (20, 0o1000)];
        let special: u32 = special.iter().filter(|(n, _)| bit(*n)).map(|(_, mode)| mode).sum();
        let kind = match () {
            () if bit(31) => FileKind::Directory,
            () if bit(27) => FileKind::Symlink,
            () if [26, 25, 24, 21].into_iter().any(bit) => FileKind::Special,
            () => FileKind::File,
        };
        Self {
            path: stat.path,
            kind,
            mode: stat.mode & 0o777 | special,
            uid: stat.uid,
            gid: stat.gid,
            size: stat.size,
            modified: stat.mod_time,
            link: stat.linkname,
        }
    }
}

impl Reference {
    pub(super) fn new(gateway: Gateway, wire: wire::Ref) -> Self {
        Self { gateway, id: wire.id, definition: wire.def }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The graph that leads to this result: another solve's input.
    pub fn definition(&self) -> Result<&pb::Definition, GatewayError> {
        self.gateway.needs("reference.output")?;
        self.definition.as_ref().ok_or_else(|| GatewayError::Answer {
            call: "Solve",
            reason: "a reference came without its definition".to_owned(),
        })
    }

    /// Builds it now.
    pub async fn evaluate(&self) -> Result<(), GatewayError> {
        self.gateway.needs("gateway.evaluate")?;
        let message = wire::EvaluateRequest { r#ref: self.id.clone() };
        let answer = self.gateway.bridge.clone().evaluate(self.gateway.request(message)).await;
        answered("Evaluate", answer).map(|_| ())
    }

    /// A file's content, symbolic links followed.
    pub async fn read_file(&self, path: &str) -> Result<Bytes, GatewayError> {
        self.read(path, None).await
    }

    /// At most `length` bytes of a file from `offset` on.
    pub async fn read_range(&self, path: &str, offset: i64, length: i64) -> Result<Bytes, GatewayError> {
        self.read(path, Some(wire::FileRange { offset, length })).await
    }

    async fn read(&self, path: &str, range: Option<wire::FileRange>) -> Result<Bytes, GatewayError> {
        self.gateway.needs("readfile")?;
        let message = wire::ReadFileRequest {
            r#ref: self.id.clone(),
            file_path: path.to_owned(),
            range,
            mount_index: 0,
        };
        let answer = self.gateway.bridge.clone().read_file(self.gateway.request(message)).await;
        Ok(Bytes::from(answered("ReadFile", answer)?.data))
    }

    /// A directory's entries, those that match `pattern` where one is given.
    pub async fn read_dir(&self, path: &str, pattern: Option<&str>) -> Result<Vec<FileStat>, GatewayError> {
        self.gateway.needs("readdir")?;
        let message = wire::ReadDirRequest {
            r#ref: self.id.clone(),
            dir_path: path.to_owned(),
            include_pattern: pattern.unwrap_or_default().to_owned(),
            mount_index: 0,
        };
        let answer = self.gateway.bridge.clone().read_dir(self.gateway.request(message)).await;
        Ok(answered("ReadDir", answer)?.entries.into_iter().map(FileStat::from).collect())
    }

    /// What a path is. A symbolic link is told as one.
    pub async fn stat_file(&self, path: &str) -> Result<FileStat, GatewayError> {
        self.gateway.needs("statfile")?;
        let message = wire::StatFileRequest { r#ref: self.id.clone(), path: path.to_owned(), mount_index: 0 };
        let answer = self.gateway.bridge.clone().stat_file(self.gateway.request(message)).await;
        let stat = answered("StatFile", answer)?.stat;
        stat.map(FileStat::from).ok_or_else(|| GatewayError::Answer {
            call: "StatFile",
            reason: "it says nothing of the file".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_modes_become_ours() {
        for (mode, want) in [
            (0o644, (FileKind::File, 0o644)),
            (1 << 31 | 0o755, (FileKind::Directory, 0o755)),
            (1 << 31 | 1 << 20 | 0o777, (FileKind::Directory, 0o1777)),
            (1 << 27 | 0o777, (FileKind::Symlink, 0o777)),
            (1 << 23 | 0o755, (FileKind::File, 0o4755)),
            (1 << 22 | 0o755, (FileKind::File, 0o2755)),
            (1 << 26 | 1 << 21 | 0o600, (FileKind::Special, 0o600)),
        ] {
            let stat = FileStat::from(fsutil::types::Stat { mode, ..Default::default() });
            assert_eq!((stat.kind, stat.mode), want, "{mode:o}");
        }
    }
}
