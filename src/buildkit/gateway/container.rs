//! Containers over results: what a step would run in, without being a step. Nothing of it is cached or kept.

use lemnos_proto::gateway as wire;
use lemnos_proto::pb;

use super::process::{self, Process, ProcessSpec};
use super::reference::{FileStat, Reference};
use super::{Gateway, GatewayError, answered};
use crate::buildkit::error::SolveError;
use crate::buildkit::solve::{HostEntry, NetworkMode, Platform};

/// What a container is made of. One mount must be at `/`.
#[derive(Debug, Clone, Default)]
pub struct ContainerSpec {
    pub mounts: Vec<Mount>,
    pub network: NetworkMode,
    pub platform: Option<Platform>,
    pub extra_hosts: Vec<HostEntry>,
    pub hostname: String,
}

#[derive(Debug, Clone)]
pub struct Mount {
    /// Where it is seen.
    pub at: String,
    pub kind: MountKind,
    pub read_only: bool,
}

#[derive(Debug, Clone)]
pub enum MountKind {
    /// A result, or a directory in it; `None` is an empty file system.
    Bind {
        reference: Option<Box<Reference>>,
        selector: String,
    },
    /// One of the daemon's cache mounts.
    Cache {
        id: String,
        sharing: CacheSharing,
    },
    Tmpfs,
    /// One of the session's secrets, as a file.
    Secret(FileMount),
    /// One of the session's SSH agents, as a socket.
    Ssh(FileMount),
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheSharing {
    #[default]
    Shared,
    Private,
    Locked,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileMount {
    pub id: String,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    /// Left out, instead of an error, where the session has none.
    pub optional: bool,
}

impl Mount {
    /// A result at `at`. What is written there is thrown away.
    pub fn bind(at: &str, reference: &Reference) -> Self {
        let reference = Some(Box::new(reference.clone()));
        Self {
            at: at.to_owned(),
            kind: MountKind::Bind { reference, selector: String::new() },
            read_only: false,
        }
    }

    fn into_wire(self) -> pb::Mount {
        let mut mount = pb::Mount { dest: self.at, readonly: self.read_only, ..Default::default() };
        let kind = match self.kind {
            MountKind::Bind { reference, selector } => {
                mount.result_id = reference.map(|r| r.id().to_owned()).unwrap_or_default();
                mount.selector = selector;
                pb::MountType::Bind
            }
            MountKind::Cache { id, sharing } => {
                let sharing = match sharing {
                    CacheSharing::Shared => pb::CacheSharingOpt::Shared,
                    CacheSharing::Private => pb::CacheSharingOpt::Private,
                    CacheSharing::Locked => pb::CacheSharingOpt::Locked,
                };
                mount.cache_opt = Some(pb::CacheOpt { id, sharing: sharing.into() });
                pb::MountType::Cache
            }
            MountKind::Tmpfs => pb::MountType::Tmpfs,
            MountKind::Secret(FileMount { id, uid, gid, mode, optional }) => {
                mount.secret_opt = Some(pb::SecretOpt { id, uid, gid, mode, optional });
                pb::MountType::Secret
            }
            MountKind::Ssh(FileMount { id, uid, gid, mode, optional }) => {
                mount.ssh_opt = Some(pb::SshOpt { id, uid, gid, mode, optional });
                pb::MountType::Ssh
            }
        };
        mount.mount_type = kind.into();
        mount
    }
}

/// A container that processes are started in. It ends with `release`, or with the build.
#[derive(Debug)]
pub struct Container {
    gateway: Gateway,
    id: String,
}

impl Gateway {
    /// Makes a container. Nothing runs in it yet.
    pub async fn container(&self, spec: ContainerSpec) -> Result<Container, GatewayError> {
        self.needs("gateway.exec")?;
        if !spec.extra_hosts.is_empty() {
            self.needs("gateway.exec.extrahosts")?;
        }
        let id = uuid::Uuid::now_v7().simple().to_string();
        let host = |host: HostEntry| pb::HostIp { host: host.name, ip: host.address.to_string() };
        let network = match spec.network {
            NetworkMode::Sandbox => pb::NetMode::Unset,
            NetworkMode::Host => pb::NetMode::Host,
            NetworkMode::None => pb::NetMode::None,
        };
        let message = wire::NewContainerRequest {
            container_id: id.clone(),
            mounts: spec.mounts.into_iter().map(Mount::into_wire).collect(),
            network: network.into(),
            platform: spec.platform.as_ref().map(pb::Platform::from),
            constraints: None,
            extra_hosts: spec.extra_hosts.into_iter().map(host).collect(),
            hostname: spec.hostname,
        };
        answered("NewContainer", self.bridge.clone().new_container(self.request(message)).await)?;
        Ok(Container { gateway: self.clone(), id })
    }
}

impl Container {
    /// Starts a process. The first one is the container's own: when it ends, the others do. So they do when any of them
    /// ends with another code than 0: the daemon takes that for the container's failure.
    pub async fn start(&self, spec: ProcessSpec) -> Result<Process, GatewayError> {
        process::start(&self.gateway, &self.id, spec).await
    }

    /// A file as the container sees it, in the mount of that place in the list.
    pub async fn read_file(&self, mount: i32, path: &str) -> Result<Vec<u8>, GatewayError> {
        self.gateway.needs("gateway.exec.filesystem")?;
        let message = wire::ReadFileRequest {
            r#ref: self.id.clone(),
            file_path: path.to_owned(),
            range: None,
            mount_index: mount,
        };
        let answer = self.gateway.bridge.clone().read_file_container(self.gateway.request(message)).await;
        Ok(answered("ReadFileContainer", answer)?.data)
    }

    /// A directory as the container sees it, in the mount of that place in the list.
    pub async fn read_dir(&self, mount: i32, path: &str) -> Result<Vec<FileStat>, GatewayError> {
        self.gateway.needs("gateway.exec.filesystem")?;
        let message = wire::ReadDirRequest {
            r#ref: self.id.clone(),
            dir_path: path.to_owned(),
            include_pattern: String::new(),
            mount_index: mount,
        };
        let answer = self.gateway.bridge.clone().read_dir_container(self.gateway.request(message)).await;
        Ok(answered("ReadDirContainer", answer)?.entries.into_iter().map(FileStat::from).collect())
    }

    /// What a path is, in the mount of that place in the list.
    pub async fn stat_file(&self, mount: i32, path: &str) -> Result<FileStat, GatewayError> {
        self.gateway.needs("gateway.exec.filesystem")?;
        let message =
            wire::StatFileRequest { r#ref: self.id.clone(), path: path.to_owned(), mount_index: mount };
        let answer = self.gateway.bridge.clone().stat_file_container(self.gateway.request(message)).await;
        Ok(answered("StatFileContainer", answer)?.stat.map(FileStat::from).unwrap_or_default())
    }

    /// Ends the container and whatever runs in it. How a process of it ended is that process's to tell.
    pub async fn release(self) -> Result<(), GatewayError> {
        let message = wire::ReleaseContainerRequest { container_id: self.id.clone() };
        let answer = self.gateway.bridge.clone().release_container(self.gateway.request(message)).await;
        match answered("ReleaseContainer", answer) {
            // the daemon repeats here how the first process ended that did not end well
            Err(GatewayError::Call { status, .. })
                if SolveError::from_status(&status).exit_code.is_some() =>
            {
                Ok(())
            }
            released => released.map(|_| ()),
        }
    }
}
