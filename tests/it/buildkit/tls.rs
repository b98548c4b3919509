//! TLS with client certificates: the right certificate opens the door, nothing else does.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lemnos::buildkit::{Client, Endpoint, Error, Tls};
use tokio::net::TcpListener;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use super::{SOON, dockerfile};
use crate::fake::buildkitd::{Daemon, Script};

static PKI: LazyLock<PathBuf> = LazyLock::new(|| {
    // a static is never dropped: this directory is the same each time
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("buildkit-pki");
    std::fs::remove_dir_all(&dir).ok();
    std::fs::create_dir_all(&dir).unwrap();
    crate::fake::pki::make(&dir);
    dir
});

pub fn pki(name: &str) -> PathBuf {
    PKI.join(name)
}

/// A daemon that wants client certificates of our authority and shows the certificate `name`.
async fn daemon(name: &str) -> (Daemon, String) {
    let read = |file: &str| std::fs::read(pki(file)).unwrap();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&format!("{name}.pem")), read(&format!("{name}.key"))))
        .client_ca_root(Certificate::from_pem(read("ca.pem")));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let daemon = Daemon::new(Script::default());
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let server = Server::builder().tls_config(tls).unwrap().add_service(daemon.service());
    tokio::spawn(server.serve_with_incoming(incoming));
    (daemon, address)
}

fn tls(ca: &str, client: Option<&str>) -> Tls {
    Tls {
        ca: Some(pki(&format!("{ca}.pem"))),
        cert: client.map(|name| pki(&format!("{name}.pem"))),
        key: client.map(|name| pki(&format!("{name}.key"))),
        server_name: None,
    }
}

async fn connect(address: &str, tls: Option<Tls>) -> Result<Client, Error> {
    Client::connect(&Endpoint { address: address.parse().unwrap(), tls }, SOON).await
}

async fn reason(address: &str, tls: Tls) -> String {
    match connect(address, Some(tls)).await.unwrap_err() {
        Error::Tls { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_right_certificate_builds() {
    let (_, address) = daemon("server").await;
    let client = connect(&address, Some(tls("ca", Some("client")))).await.unwrap();
    client.solve(dockerfile(&[]), |_| {}).await.unwrap();
}

#[tokio::test]
async fn a_server_name_stands_in_for_the_address() {
    let (_, address) = daemon("server").await;
    let named = |name: &str| Tls { server_name: Some(name.into()), ..tls("ca", Some("client")) };
    connect(&address, Some(named("buildkitd.test"))).await.unwrap();
    let reason = reason(&address, named("elsewhere.test")).await;
    assert!(reason.contains("not valid for name"), "{reason}");
}

#[tokio::test]
async fn no_certificate_a_strangers_and_an_expired_one_are_refused_before_any_call() {
    let (daemon, address) = daemon("server").await;
    for (client, says) in [
        (None, "may want a client certificate, and none is set"),
        (Some("stranger"), "stranger.pem"),
        (Some("expired"), "expired.pem"),
    ] {
        let reason = reason(&address, tls("ca", client)).await;
        assert!(
            reason.starts_with("the connection ended right after the handshake: the daemon may"),
            "{reason}"
        );
        assert!(reason.contains(says), "{reason}");
    }
    assert!(daemon.calls.lock().unwrap().is_empty(), "no call arrived");
}

#[tokio::test]
async fn rotated_files_count_from_the_next_connection_on() {
    let (_, address) = daemon("server").await;
    let dir = tempfile::tempdir().unwrap();
    let rotate = |name: &str| {
        for (kind, file) in [("pem", "cert"), ("key", "key")] {
            std::fs::copy(pki(&format!("{name}.{kind}")), dir.path().join(file)).unwrap();
        }
    };
    let files = [dir.path().join("cert"), dir.path().join("key")];
    let [cert, key] = files.map(Some);
    let settings = Tls { cert, key, ..tls("ca", None) };
    rotate("expired");
    assert!(!reason(&address, settings.clone()).await.is_empty());
    rotate("client");
    let client = connect(&address, Some(settings.clone())).await.unwrap();
    rotate("expired");
    client.info().await.unwrap();
    assert!(!reason(&address, settings).await.is_empty());
}

#[tokio::test]
async fn a_daemon_of_another_authority_or_with_an_expired_certificate_is_not_trusted() {
    let (_, address) = daemon("server").await;
    let unknown = reason(&address, tls("other", Some("client"))).await;
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
    let (_, address) = daemon("expired").await;
    let expired = reason(&address, tls("ca", Some("client"))).await;
    assert!(expired.contains("expired"), "{expired}");
}

#[tokio::test]
async fn without_tls_nothing_is_said_to_a_daemon_that_wants_it() {
    let (daemon, address) = daemon("server").await;
    if let Ok(client) = connect(&address, None).await {
        assert!(client.info().await.is_err());
    }
    assert!(daemon.calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn tls_towards_what_never_answers_ends_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let endpoint = Endpoint { address, tls: Some(tls("ca", None)) };
    let started = Instant::now();
    let error = Client::connect(&endpoint, Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert!(started.elapsed() < SOON);
}

#[tokio::test]
async fn settings_that_cannot_work_are_named() {
    let with = |change: fn(&mut Tls)| {
        let mut tls = tls("ca", Some("client"));
        change(&mut tls);
        tls
    };
    for (tls, want) in [
        (with(|t| t.key = None), "belong together"),
        (with(|t| t.ca = Some(pki("absent.pem"))), "absent.pem"),
        (with(|t| t.ca = Some(pki("client.key"))), "no PEM block of the kind CERTIFICATE"),
        (with(|t| t.key = Some(pki("client.pem"))), "no PEM block of the kind PRIVATE KEY"),
        (with(|t| t.cert = Some(Path::new("/").into())), "/:"),
    ] {
        let reason = reason("tcp://127.0.0.1:1", tls).await;
        assert!(reason.contains(want), "{reason}");
    }
}
