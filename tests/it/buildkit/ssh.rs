//! SSH agents through a session, with OpenSSH's own programs on both sides.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use lemnos::buildkit::Session;
use lemnos::buildkit::session::ssh::{Agent, KeyError, PrivateKey};
use lemnos_proto::sshforward::ssh_client::SshClient;
use lemnos_proto::sshforward::{BytesMessage, CheckAgentRequest};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::served::{SHORT, SOON, Served, serve};

/// A key pair made by ssh-keygen; the format is OpenSSH's where none is given.
fn keygen(dir: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let made = Command::new("ssh-keygen")
        .args(["-q", "-C", name, "-f", path.to_str().unwrap()])
        .args(arguments)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    path
}

fn public(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.pub", path.display()))
}

async fn forward(
    channel: Channel,
    id: &str,
) -> Result<(mpsc::Sender<BytesMessage>, Streaming<BytesMessage>), Status> {
    let (pieces, outgoing) = mpsc::channel(16);
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("buildkit.ssh.id", id.parse().unwrap());
    Ok((pieces, SshClient::new(channel).forward_agent(request).await?.into_inner()))
}

/// The socket that a step would see, as the daemon makes it.
fn mount(session: &Served, dir: &Path) -> PathBuf {
    let path = dir.join("mounted.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let channel = session.channel.clone();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let (mut read, mut write) = socket.into_split();
            let (pieces, mut answers) = forward(channel.clone(), "default").await.unwrap();
            tokio::spawn(async move {
                // slices as they come: a message may be cut anywhere
                let mut buffer = [0; 5];
                while let Ok(n @ 1..) = read.read(&mut buffer).await {
                    if pieces.send(BytesMessage { data: buffer[..n].to_vec().into() }).await.is_err() {
                        break;
                    }
                }
            });
            tokio::spawn(async move {
                while let Ok(Some(answer)) = answers.message().await {
                    if write.write_all(&answer.data).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    path
}

/// `ssh-add` at a socket: whether it succeeded, and what it said.
async fn ssh_add(socket: &Path, arguments: &[&str]) -> (bool, String) {
    let run = tokio::process::Command::new("ssh-add")
        .args(arguments)
        .env("SSH_AUTH_SOCK", socket)
        .env("SSH_ASKPASS_REQUIRE", "never")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(SOON, run).await.expect("ssh-add should end").unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Has OpenSSH sign a file with the agent at `socket`, and verify what it gave.
async fn sign_and_verify(socket: &Path, key: &Path) {
    // the public key alone, so that the private one is not found beside it
    let dir = tempfile::tempdir().unwrap();
    let (alone, file) = (dir.path().join("key.pub"), dir.path().join("file"));
    std::fs::copy(public(key), &alone).unwrap();
    std::fs::write(&file, "to be signed").unwrap();
    let ssh_keygen = async |arguments: &[&str]| {
        let run = tokio::process::Command::new("ssh-keygen")
            .arg("-Y")
            .args(arguments)
            .env("SSH_AUTH_SOCK", socket)
            .stdin(std::fs::File::open(&file).unwrap())
            .output();
        let output = tokio::time::timeout(SOON, run).await.expect("ssh-keygen should end").unwrap();
        assert!(output.status.success(), "{}: {}", key.display(), String::from_utf8_lossy(&output.stderr));
    };
    ssh_keygen(&["sign", "-f", alone.to_str().unwrap(), "-n", "test", file.to_str().unwrap()]).await;
    let signature = dir.path().join("file.sig");
    ssh_keygen(&["check-novalidate", "-n", "test", "-s", signature.to_str().unwrap()]).await;
}

/// Every kind and format that a build may be given; each signs, and OpenSSH verifies.
#[tokio::test]
async fn our_own_agent_signs_with_keys_of_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let kinds: &[(&str, &[&str])] = &[
        ("ed25519", &["-t", "ed25519", "-N", ""]),
        ("ecdsa256", &["-t", "ecdsa", "-b", "256", "-N", ""]),
        ("ecdsa384", &["-t", "ecdsa", "-b", "384", "-N", ""]),
        ("ecdsa521", &["-t", "ecdsa", "-b", "521", "-N", ""]),
        ("rsa2048", &["-t", "rsa", "-b", "2048", "-N", ""]),
        ("rsa3072", &["-t", "rsa", "-b", "3072", "-N", ""]),
        ("ecdsa-pem", &["-t", "ecdsa", "-b", "384", "-N", "", "-m", "PEM"]),
        ("rsa-pem", &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"]),
        ("ecdsa-pkcs8", &["-t", "ecdsa", "-b", "256", "-N", "", "-m", "PKCS8"]),
        ("rsa-pkcs8", &["-t", "rsa", "-b", "2048", "-N", "", "-m", "PKCS8"]),
    ];
    let keys: Vec<PathBuf> =
        kinds.iter().map(|(name, arguments)| keygen(dir.path(), name, arguments)).collect();
    let session = serve(Session::builder("k").ssh_keys("default", &keys).build().unwrap()).await;
    let socket = mount(&session, dir.path());
    let (listed, text) = ssh_add(&socket, &["-L"]).await;
    assert!(listed, "{text}");
    let blob = |line: &str| line.split(' ').nth(1).unwrap().to_owned();
    let blobs: Vec<String> = text.lines().map(blob).collect();
    let want: Vec<String> =
        keys.iter().map(|key| blob(&std::fs::read_to_string(public(key)).unwrap())).collect();
    assert_eq!(blobs, want);
    assert!(text.lines().next().unwrap().ends_with(" ed25519"), "the comment: {text}");
    for key in &keys {
        sign_and_verify(&socket, key).await;
    }
    let stranger = keygen(dir.path(), "stranger", &["-t", "ed25519", "-N", ""]);
    assert!(!ssh_add(&socket, &["-T", public(&stranger).to_str().unwrap()]).await.0);
    for change in [vec!["-D"], vec!["-x"], vec![stranger.to_str().unwrap()]] {
        assert!(!ssh_add(&socket, &change).await.0, "{change:?}");
    }
    assert_eq!(ssh_add(&socket, &["-L"]).await.1.lines().count(), keys.len());
}

/// A real ssh-agent with one key.
struct RealAgent {
    child: Child,
    socket: PathBuf,
}

impl RealAgent {
    async fn start(dir: &Path) -> (Self, PathBuf) {
        let socket = dir.join("agent.sock");
        let child = Command::new("ssh-agent")
            .args(["-D", "-a", socket.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let agent = Self { child, socket };
        let key = keygen(dir, "key", &["-t", "ed25519", "-N", ""]);
        let deadline = std::time::Instant::now() + SOON;
        while !ssh_add(&agent.socket, &[key.to_str().unwrap()]).await.0 {
            assert!(std::time::Instant::now() < deadline, "ssh-agent should start");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        (agent, key)
    }
}

impl Drop for RealAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_forwarded_agent_lists_and_signs_and_is_not_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (agent, key) = RealAgent::start(dir.path()).await;
    let session = Session::builder("k").ssh("default", Agent::socket(&agent.socket)).build().unwrap();
    assert!(!format!("{session:?}").contains("agent.sock"));
    let session = serve(session).await;
    let socket = mount(&session, dir.path());
    let (listed, text) = ssh_add(&socket, &["-L"]).await;
    assert!(listed && text.lines().count() == 1, "{text}");
    assert!(ssh_add(&socket, &["-T", public(&key).to_str().unwrap()]).await.0);
    let other = keygen(dir.path(), "other", &["-t", "ed25519", "-N", ""]);
    for change in [vec![other.to_str().unwrap()], vec!["-d", key.to_str().unwrap()], vec!["-D"], vec!["-x"]] {
        assert!(!ssh_add(&socket, &change).await.0, "{change:?}");
    }
    let (_, text) = ssh_add(&agent.socket, &["-L"]).await;
    assert_eq!(text.lines().count(), 1, "the agent is as it was: {text}");
}

#[tokio::test]
async fn rsa_signs_with_the_hash_that_is_asked_for_and_never_with_sha1() {
    let dir = tempfile::tempdir().unwrap();
    let key = keygen(dir.path(), "key", &["-t", "rsa", "-b", "2048", "-N", ""]);
    let blob = PrivateKey::read(&key).unwrap().public_blob().to_vec();
    let session = serve(Session::builder("k").ssh_keys("default", [&key]).build().unwrap()).await;
    let (pieces, mut answers) = forward(session.channel.clone(), "default").await.unwrap();
    let string = |bytes: &[u8]| [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    for (flags, want) in [
        (2_u32, Some("rsa-sha2-256")),
        (4, Some("rsa-sha2-512")),
        (6, Some("rsa-sha2-512")),
        (0, None),
        (1, None),
    ] {
        let message = [vec![13], string(&blob), string(b"data"), flags.to_be_bytes().to_vec()].concat();
        pieces.send(BytesMessage { data: string(&message).into() }).await.unwrap();
        let answer = tokio::time::timeout(SOON, answers.message()).await.unwrap().unwrap().unwrap().data;
        match want {
            None => assert_eq!(answer[..], [0, 0, 0, 1, 5], "flags {flags}"),
            Some(name) => assert_eq!(answer[9..25], string(name.as_bytes()), "flags {flags}"),
        }
    }
}

#[tokio::test]
async fn agents_are_known_by_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let key = keygen(dir.path(), "key", &["-t", "ed25519", "-N", ""]);
    let session = Session::builder("k")
        .ssh_keys("default", [&key])
        .ssh("gone", Agent::socket(&dir.path().join("absent.sock")))
        .build()
        .unwrap();
    let session = serve(session).await;
    let check = async |id: &str| {
        let mut client = SshClient::new(session.channel.clone());
        client.check_agent(CheckAgentRequest { id: id.into() }).await.map(drop)
    };
    check("default").await.unwrap();
    check("").await.unwrap();
    assert_eq!(check("other").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(forward(session.channel.clone(), "other").await.map(drop).unwrap_err().code(), Code::NotFound);
    let (_pieces, mut answers) = forward(session.channel.clone(), "gone").await.unwrap();
    let status = answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(!status.message().contains("absent"), "{status}");
}

#[tokio::test]
async fn messages_that_are_too_long_cut_short_or_late_end_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let key = keygen(dir.path(), "key", &["-t", "ed25519", "-N", ""]);
    let mut session = Session::builder("k").ssh_keys("default", [&key]).build().unwrap();
    session.patience.asking = SHORT.asking;
    let session = serve(session).await;
    for (bytes, want) in [
        (&[255, 255, 255, 255, 13][..], Code::InvalidArgument),
        (&[0, 0, 0, 0], Code::InvalidArgument),
        (&[0, 0, 0, 9, 11], Code::DeadlineExceeded),
        (&[], Code::DeadlineExceeded),
    ] {
        let (pieces, mut answers) = forward(session.channel.clone(), "default").await.unwrap();
        pieces.send(BytesMessage { data: bytes.to_vec().into() }).await.unwrap();
        let status = tokio::time::timeout(SOON, answers.message()).await.unwrap().unwrap_err();
        assert_eq!(status.code(), want, "{bytes:?}: {status}");
    }
    let (pieces, mut answers) = forward(session.channel.clone(), "default").await.unwrap();
    pieces.send(BytesMessage { data: vec![0, 0, 0, 9, 11].into() }).await.unwrap();
    drop(pieces);
    let cut = tokio::time::timeout(SOON, answers.message()).await.unwrap().unwrap_err();
    assert_eq!(cut.code(), Code::InvalidArgument, "{cut}");
}

#[test]
fn keys_that_cannot_be_used_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let locked = keygen(dir.path(), "locked", &["-t", "ed25519", "-N", "passphrase"]);
    let locked_pem =
        keygen(dir.path(), "locked-pem", &["-t", "rsa", "-b", "2048", "-N", "passphrase", "-m", "PEM"]);
    let weak = keygen(dir.path(), "weak", &["-t", "rsa", "-b", "1024", "-N", ""]);
    assert_eq!(PrivateKey::read(&locked).unwrap_err(), KeyError::Encrypted);
    assert_eq!(PrivateKey::read(&locked_pem).unwrap_err(), KeyError::Encrypted);
    assert!(KeyError::Encrypted.to_string().contains("ssh-add"));
    assert!(matches!(PrivateKey::read(&weak).unwrap_err(), KeyError::Rejected(_)));
    assert_eq!(PrivateKey::read(&public(&locked)).unwrap_err(), KeyError::Format);
    assert!(matches!(PrivateKey::read(dir.path()).unwrap_err(), KeyError::Unreadable(_)));
    let good = keygen(dir.path(), "good", &["-t", "ed25519", "-N", ""]);
    let key = PrivateKey::read(&good).unwrap();
    assert_eq!(format!("{key:?}"), "PrivateKey { comment: \"good\", .. }");
}
