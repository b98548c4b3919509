//! Commands that carry a connection, with a real `buildctl dial-stdio` at the other end. Only the programs that would
//! lead into a container or to another machine are stand-ins: they run what they were told to run, here.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use lemnos::buildkit::{Client, Endpoint, Error, Programs};

use super::{BUILD, request, unique, until};
use crate::support::engines;

/// `docker` and its like in a directory, leading to the buildkitd of the tests.
pub(crate) fn stand_ins() -> (tempfile::TempDir, Programs) {
    let dir = tempfile::tempdir().unwrap();
    let (buildctl, address) = (engines().buildctl.display(), &engines().buildkit);
    let script = format!(
        "#!/bin/bash\necho $$ >>\"$0.pids\"\nwhile [ \"$1\" != buildctl ]; do shift; done; shift\n\
         case $1 in --addr) exec {buildctl} \"$@\" ;; *) exec {buildctl} --addr {address} \"$@\" ;; esac\n"
    );
    for name in ["docker", "podman", "kubectl", "ssh"] {
        let path = dir.path().join(name);
        std::fs::write(&path, &script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:/usr/bin:/bin", dir.path().display());
    (dir, Programs { path: Some(path.into()) })
}

pub(crate) fn alive(pids: &Path) -> bool {
    let pids = std::fs::read_to_string(pids).unwrap();
    pids.lines().any(|pid| Path::new("/proc").join(pid).exists())
}

async fn connect(address: &str, programs: &Programs) -> Result<Client, Error> {
    let endpoint = Endpoint { address: address.parse().unwrap(), tls: None };
    Client::connect_with(&endpoint, Duration::from_secs(20), programs).await
}

#[tokio::test]
async fn builds_go_through_each_command_and_leave_no_process() {
    let (dir, programs) = stand_ins();
    let socket = engines().buildkit.strip_prefix("unix://").unwrap();
    for (name, address) in [
        ("docker", "docker-container://buildkitd".to_owned()),
        ("podman", "podman-container://buildkitd".to_owned()),
        ("kubectl", "kube-pod://buildkitd-0?namespace=ci".to_owned()),
        ("ssh", format!("ssh://me@far{socket}")),
    ] {
        let client = connect(&address, &programs).await.unwrap();
        let (_dir, request) = request(&format!("FROM busybox\nRUN echo {}\n", unique()), "linux/amd64");
        tokio::time::timeout(BUILD, client.solve(request, |_| {})).await.unwrap().unwrap();
        let pids = dir.path().join(format!("{name}.pids"));
        assert!(alive(&pids), "{name}");
        drop(client);
        until("the command ends", Duration::from_secs(10), || !alive(&pids)).await;
    }
}

#[tokio::test]
async fn what_dial_stdio_complains_of_is_in_the_error() {
    let (_dir, programs) = stand_ins();
    let error = connect("ssh://far/nowhere/buildkitd.sock", &programs).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(text.contains("dial unix /nowhere/buildkitd.sock") && text.contains("exit status"), "{text}");
}
