//! A buildkitd of one test, beside the one that all live tests share: to be killed, stopped, had back, or spoken to over TLS.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::engines;

pub struct OwnBuilder {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    address: String,
    /// The lines of its configuration that say where it listens.
    listen: String,
    /// What it tells systemd.
    notices: UnixDatagram,
}

impl OwnBuilder {
    /// On a unix socket.
    pub fn start() -> Self {
        let dir = directory();
        let address = format!("unix://{}/b.sock", dir.path().display());
        let listen = format!("[grpc]\naddress = [\"{address}\"]\n");
        Self::on(dir, address, listen)
    }

    /// On a disk of so many megabytes, without a collection of its own.
    pub fn start_on_disk_of(megabytes: u32) -> Self {
        let dir = directory();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&root).status();
        assert!(mounted.unwrap().success(), "a small disk needs root");
        let address = format!("unix://{}/b.sock", dir.path().display());
        let listen = format!("[grpc]\naddress = [\"{address}\"]\n");
        Self::on(dir, address, listen)
    }

    /// On loopback, with the certificate `server` and for clients of the authority `ca`, both of `pki`.
    pub fn start_tls(pki: &Path, server: &str) -> Self {
        let free = crate::port::own();
        let address = format!("tcp://{free}");
        let file = |name: &str| pki.join(name).display().to_string();
        let listen = format!(
            "[grpc]\naddress = [\"{address}\"]\n[grpc.tls]\ncert = \"{}\"\nkey = \"{}\"\nca = \"{}\"\n",
            file(&format!("{server}.pem")),
            file(&format!("{server}.key")),
            file("ca.pem")
        );
        Self::on(directory(), address, listen)
    }

    fn on(dir: tempfile::TempDir, address: String, listen: String) -> Self {
        let notices = UnixDatagram::bind(dir.path().join("notices.sock")).unwrap();
        notices.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut builder = Self { dir, daemon: None, address, listen, notices };
        builder.run();
        builder
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// For `--builder` and `builders add`.
    pub fn spec(&self, name: &str) -> String {
        format!("{},name={name}", self.address)
    }

    /// Starts it, or starts it again.
    pub fn run(&mut self) {
        assert!(self.daemon.is_none(), "one at a time");
        let (dir, base, registry) =
            (self.dir.path().display(), &engines().base_registry, &engines().registry);
        let http: String = [base, registry]
            .map(|host| format!("[registry.\"{host}\"]\nhttp = true\n"))
            .into_iter()
            .take(if base == registry { 1 } else { 2 })
            .collect();
        let config = format!(
            "root = \"{dir}/root\"\n{}[worker.oci]\nenabled = true\n\
             gc = false\nbinary = \"runc\"\nnetworkMode = \"host\"\n[worker.containerd]\nenabled = false\n\
             [registry.\"docker.io\"]\nmirrors = [\"{base}\"]\n{http}",
            self.listen
        );
        std::fs::write(self.file("b.toml"), config).unwrap();
        let log = std::fs::File::create(self.file("b.log")).unwrap();
        let mut command = Command::new(&engines().buildkitd);
        command.arg("--config").arg(self.file("b.toml")).arg("--otel-socket-path").arg(self.file("o.sock"));
        command.env("NOTIFY_SOCKET", self.file("notices.sock"));
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.daemon = Some(command.spawn().unwrap());
    }

    /// Waits until it says that it answers, as it tells systemd, for those who do not wait themselves.
    pub fn answering(self) -> Self {
        let mut said = [0; 64];
        let read = self.notices.recv(&mut said).unwrap_or_else(|error| panic!("{}: {error}", self.address));
        assert_eq!(&said[..read], b"READY=1");
        self
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn signal(&self, name: &str) {
        let pid = self.daemon.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }

    /// SIGKILL, also when it is stopped.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("lemnos-builder-").tempdir().unwrap()
}

impl Drop for OwnBuilder {
    fn drop(&mut self) {
        self.kill();
        // what it had mounted when it was killed would keep its directory, and the disk, for ever
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let inside =
            |line: &&str| line.split(' ').nth(1).is_some_and(|at| Path::new(at).starts_with(self.dir.path()));
        for line in mounts.lines().filter(inside) {
            let at = line.split(' ').nth(1).unwrap_or_default();
            let _ = Command::new("umount").args(["-l", at]).status();
        }
    }
}
