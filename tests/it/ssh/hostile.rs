//! Clients that mean no good, made with russh's client.

use std::sync::Arc;

use russh::client::{self, AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::key::safe_rng;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::Signature;
use russh::keys::ssh_key::public::{KeyData, SkEcdsaSha2NistP256, SkEd25519};
use russh::keys::{
    Algorithm, EcdsaCurve, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate,
};
use russh::{ChannelMsg, MethodKind, MethodSet, SendError, Signer};
use sha2::{Digest, Sha256};

use super::support::{Server, fingerprint, soon};

/// A client that trusts any server.
pub struct Trusting;

impl client::Handler for Trusting {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

pub async fn connect_with(server: &Server, config: client::Config) -> Handle<Trusting> {
    soon(client::connect(Arc::new(config), server.address, Trusting)).await.unwrap()
}

pub async fn connect(server: &Server) -> Handle<Trusting> {
    connect_with(server, client::Config::default()).await
}

pub fn key(algorithm: Algorithm) -> Arc<PrivateKey> {
    Arc::new(PrivateKey::random(&mut safe_rng(), algorithm).unwrap())
}

/// A key that is registered as `user`'s.
pub fn registered(server: &Server, user: &str) -> Arc<PrivateKey> {
    let key = key(Algorithm::Ed25519);
    server.host.add(key.public_key(), user);
    key
}

pub async fn log_in(client: &mut Handle<Trusting>, name: &str, key: &Arc<PrivateKey>) -> AuthResult {
    let key = PrivateKeyWithHashAlg::new(key.clone(), Some(HashAlg::Sha512));
    soon(client.authenticate_publickey(name, key)).await.unwrap()
}

/// A client that has logged in as `user`.
pub async fn logged_in(server: &Server, user: &str) -> Handle<Trusting> {
    let mut client = connect(server).await;
    assert!(log_in(&mut client, "git", &registered(server, user)).await.success());
    client
}

/// Runs a command without input; what came on stdout and stderr, and the exit status.
pub async fn run(client: &Handle<Trusting>, line: &str) -> (String, Option<u32>) {
    let mut channel = soon(client.channel_open_session()).await.unwrap();
    channel.exec(true, line).await.unwrap();
    channel.eof().await.unwrap();
    let (mut out, mut status) = (Vec::new(), None);
    while let Some(message) = soon(channel.wait()).await {
        match message {
            ChannelMsg::Data { data } | ChannelMsg::ExtendedData { data, .. } => out.extend(&data),
            ChannelMsg::ExitStatus { exit_status } => status = Some(exit_status),
            _ => {}
        }
    }
    (String::from_utf8(out).unwrap(), status)
}

fn remaining(result: AuthResult) -> MethodSet {
    match result {
        AuthResult::Failure { remaining_methods, .. } => remaining_methods,
        AuthResult::Success => panic!("it got in"),
    }
}

/// Signs as it is told to, or not at all.
struct Signing<F>(F);

#[derive(Debug)]
struct NoSignature;

impl From<SendError> for NoSignature {
    fn from(_: SendError) -> Self {
        Self
    }
}

impl<F: FnMut(&[u8]) -> Option<Vec<u8>> + Send> Signer for Signing<F> {
    type Error = NoSignature;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        mut data: Vec<u8>,
    ) -> Result<Vec<u8>, NoSignature> {
        let signature = (self.0)(&data).ok_or(NoSignature)?;
        signature.encode(&mut data).unwrap();
        Ok(data)
    }
}

#[tokio::test]
async fn the_key_that_signed_is_who_it_is_not_one_that_was_offered() {
    let server = Server::start().await;
    let admin = registered(&server, "admin");
    let mallory = registered(&server, "mallory");
    let mut client = connect(&server).await;
    let offered = client
        .authenticate_publickey_with("admin", admin.public_key().clone(), None, &mut Signing(|_: &[u8]| None))
        .await;
    assert!(offered.is_err(), "the server did not ask for admin's signature");
    assert!(log_in(&mut client, "admin", &mallory).await.success());
    let (out, status) = run(&client, "git-receive-pack 'secret'").await;
    assert_eq!((out.as_str(), status), ("0034ERR there is no app secret that mallory may use\n", Some(1)));
    run(&client, "git-upload-pack echo").await;
    let request = server.host.last_request();
    assert_eq!((request.user.as_str(), request.key), ("mallory", fingerprint(mallory.public_key())));
    let refused = ("request_refused", "there is no app secret that mallory may use");
    server.record.refused(&[("login_refused", "no-valid-signature"), refused]).await;
}

#[tokio::test]
async fn another_s_signature_is_not_taken() {
    let server = Server::start().await;
    let admin = registered(&server, "admin");
    let mallory = key(Algorithm::Ed25519);
    let mut client = connect(&server).await;
    let mut forge = Signing(|data: &[u8]| {
        let signature = mallory.try_sign(data).unwrap();
        let mut blob = Vec::new();
        signature.encode(&mut blob).unwrap();
        Some(blob)
    });
    let result = client
        .authenticate_publickey_with("git", admin.public_key().clone(), None, &mut forge)
        .await
        .unwrap();
    assert_eq!(
        remaining(result),
        MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..])
    );
    assert!(client.channel_open_session().await.is_err());
    drop(client);
    server.record.refused(&[("login_refused", "no-valid-signature")]).await;
}

/// What a security key puts around a signature: the application, flags (1: touched) and a counter.
fn security_key_signature(
    algorithm: &str,
    application: &str,
    data: &[u8],
    sign: impl Fn(&[u8]) -> Signature,
) -> Vec<u8> {
    let trailer = [1u8, 0, 0, 0, 9];
    let mut signed = Sha256::digest(application).to_vec();
    signed.extend(trailer);
    signed.extend(Sha256::digest(data));
    let mut blob = Vec::new();
    algorithm.encode(&mut blob).unwrap();
    sign(&signed).as_bytes().encode(&mut blob).unwrap();
    blob.extend(trailer);
    blob
}

#[tokio::test]
async fn security_keys_log_in_and_only_for_their_application() {
    let server = Server::start().await;
    for (algorithm, name) in [
        (Algorithm::Ed25519, "sk-ssh-ed25519@openssh.com"),
        (Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 }, "sk-ecdsa-sha2-nistp256@openssh.com"),
    ] {
        let inner = key(algorithm);
        let data = match inner.public_key().key_data() {
            KeyData::Ed25519(point) => KeyData::SkEd25519(SkEd25519::new(*point, "ssh:")),
            KeyData::Ecdsa(russh::keys::ssh_key::public::EcdsaPublicKey::NistP256(point)) => {
                KeyData::SkEcdsaSha2NistP256(SkEcdsaSha2NistP256::new(*point, "ssh:"))
            }
            other => panic!("{other:?}"),
        };
        let public = PublicKey::new(data, "");
        server.host.add(&public, "carol");
        for (application, good) in [("ssh:", true), ("https://example.org", false)] {
            let mut client = connect(&server).await;
            let mut device = Signing(|data: &[u8]| {
                Some(security_key_signature(name, application, data, |m| inner.try_sign(m).unwrap()))
            });
            let result =
                client.authenticate_publickey_with("git", public.clone(), None, &mut device).await.unwrap();
            assert_eq!(result.success(), good, "{name} {application}");
            if good {
                run(&client, "git-upload-pack echo").await;
                assert_eq!(server.host.last_request().key, fingerprint(&public));
            }
        }
    }
}

#[tokio::test]
async fn sha1_signatures_are_refused_for_a_known_rsa_key() {
    let server = Server::start().await;
    let (path, public) = server.keygen("rsa", &["rsa", "-b", "2048"]).await;
    server.host.add(&public, "alice");
    let rsa = Arc::new(PrivateKey::read_openssh_file(&path).unwrap());
    let mut client = connect(&server).await;
    let sha1 = PrivateKeyWithHashAlg::new(rsa.clone(), None);
    assert!(!client.authenticate_publickey("git", sha1).await.unwrap().success());
    let told = tell(&mut client, "git").await.unwrap();
    assert!(told.contains("the client signs with SHA-1: rsa-sha2-256 is needed"), "{told}");
    let sha2 = PrivateKeyWithHashAlg::new(rsa, Some(HashAlg::Sha256));
    assert!(client.authenticate_publickey("git", sha2).await.unwrap().success());
}

/// Goes through the round that tells why; its text, if there was one.
async fn tell(client: &mut Handle<Trusting>, name: &str) -> Option<String> {
    let begun = client.authenticate_keyboard_interactive_start(name, None).await.unwrap();
    let KeyboardInteractiveAuthResponse::InfoRequest { instructions, prompts, .. } = begun else {
        return None;
    };
    assert!(prompts.is_empty(), "it asks for something");
    let answered = client.authenticate_keyboard_interactive_respond(Vec::new()).await.unwrap();
    assert!(!matches!(answered, KeyboardInteractiveAuthResponse::Success), "it let the client in");
    Some(instructions)
}

#[tokio::test]
async fn another_user_name_starts_over_but_gets_no_more_attempts() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    let (first, second) = (key(Algorithm::Ed25519), key(Algorithm::Ed25519));
    assert!(!log_in(&mut client, "a", &first).await.success());
    assert!(!log_in(&mut client, "b", &second).await.success());
    let told = tell(&mut client, "b").await.unwrap();
    assert!(told.contains(fingerprint(second.public_key()).as_str()), "{told}");
    assert!(!told.contains(fingerprint(first.public_key()).as_str()), "{told}");
    assert_eq!(tell(&mut client, "b").await, None, "the round tells once");
    for n in 3..=6 {
        let methods = remaining(log_in(&mut client, &format!("user{n}"), &key(Algorithm::Ed25519)).await);
        assert_eq!(methods.contains(&MethodKind::PublicKey), n < 6, "after {n} keys: {methods:?}");
    }
    let good = registered(&server, "alice");
    let seventh = PrivateKeyWithHashAlg::new(good, None);
    let late = soon(client.authenticate_publickey("user7", seventh)).await;
    assert!(!matches!(late, Ok(AuthResult::Success)), "a seventh key was tried");
    // It resolves when the connection is closed.
    let _ = soon(client).await;
    server.record.refused(&[("login_refused", "unknown-key"); 6]).await;
}

#[tokio::test]
async fn nothing_but_a_key_logs_in() {
    let server = Server::start().await;
    let mut client = connect(&server).await;
    let both = MethodSet::from(&[MethodKind::PublicKey, MethodKind::KeyboardInteractive][..]);
    assert_eq!(remaining(client.authenticate_none("root").await.unwrap()), both);
    assert_eq!(remaining(client.authenticate_password("root", "").await.unwrap()), both);
    tell(&mut client, "root").await.unwrap();
    assert!(client.channel_open_session().await.is_err());
}

#[tokio::test]
async fn forwarding_and_second_requests_are_refused() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    assert!(client.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_err());
    assert!(client.channel_open_direct_streamlocal("/var/run/docker.sock").await.is_err());
    assert!(client.channel_open_x11("127.0.0.1", 1).await.is_err());
    assert!(client.tcpip_forward("127.0.0.1", 0).await.is_err());
    assert!(client.streamlocal_forward("/tmp/x").await.is_err());

    let mut channel = client.channel_open_session().await.unwrap();
    channel.agent_forward(true).await.unwrap();
    channel.request_x11(true, false, "MIT-MAGIC-COOKIE-1", "00", 0).await.unwrap();
    channel.request_subsystem(true, "sftp").await.unwrap();
    channel.set_env(true, "LD_PRELOAD", "/tmp/x.so").await.unwrap();
    channel.set_env(true, "GIT_PROTOCOL", "version=2;id").await.unwrap();
    for _ in 0..5 {
        assert!(matches!(soon(channel.wait()).await, Some(ChannelMsg::Failure)));
    }
    channel.set_env(true, "GIT_PROTOCOL", "version=1").await.unwrap();
    assert!(matches!(soon(channel.wait()).await, Some(ChannelMsg::Success)));
    channel.exec(true, "git-upload-pack echo").await.unwrap();
    assert!(matches!(soon(channel.wait()).await, Some(ChannelMsg::Success)));
    channel.exec(true, "git-receive-pack echo").await.unwrap();
    assert!(matches!(soon(channel.wait()).await, Some(ChannelMsg::Failure)));
    channel.eof().await.unwrap();
    let mut order = Vec::new();
    while let Some(message) = soon(channel.wait()).await {
        match message {
            ChannelMsg::ExitStatus { exit_status: 7 } => order.push("status"),
            ChannelMsg::Eof => order.push("eof"),
            ChannelMsg::Close => order.push("close"),
            _ => {}
        }
    }
    assert_eq!(order, ["status", "eof", "close"]);
    assert_eq!(server.host.last_request().protocol.as_deref(), Some("version=1"));
    assert_eq!(server.host.requests.lock().unwrap().len(), 1);
    server
        .record
        .refused(
            &["forwarding", "forwarding", "agent-forwarding", "x11", "subsystem"]
                .map(|what| ("channel_refused", what)),
        )
        .await;
}

#[tokio::test]
async fn a_key_that_was_removed_serves_no_more_requests() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    assert_eq!(run(&client, "git-upload-pack echo").await.1, Some(7));
    server.host.users.lock().unwrap().clear();
    let (out, status) = run(&client, "git-upload-pack echo").await;
    assert!(out.contains("is no longer registered"), "{out}");
    assert_eq!(status, Some(1));
    assert_eq!(server.host.requests.lock().unwrap().len(), 1);
    server.record.refused(&[("request_refused", "is no longer registered")]).await;
}

#[tokio::test]
async fn refused_names_never_reach_the_host() {
    let server = Server::start().await;
    let client = logged_in(&server, "alice").await;
    for line in [
        "git-receive-pack '--help'",
        "git-upload-pack '../x'",
        "git-receive-pack '/a/b.git'",
        "git-upload-pack '~/x'",
    ] {
        let (out, status) = run(&client, line).await;
        assert!(out.contains("ERR \"") && out.contains("is no app name"), "{line}: {out}");
        assert_eq!(status, Some(1));
        server.record.refused(&[("request_refused", "is no app name")]).await;
    }
    let (out, status) = run(&client, "git-receive-pack 'a\n'").await;
    assert!(out.starts_with("error: the command is not UTF-8 text, or holds control characters"), "{out}");
    assert_eq!(status, Some(2));
    server.record.refused(&[("request_refused", "control characters")]).await;
    assert!(server.host.requests.lock().unwrap().is_empty());
}
