//! Secrets, asked for as a step's mount asks.

use lemnos::buildkit::session::secrets::{SECRET_LIMIT, SecretError};
use lemnos::buildkit::{Session, SessionError};
use lemnos_proto::secrets::GetSecretRequest;
use lemnos_proto::secrets::secrets_client::SecretsClient;
use tonic::{Code, Status};

use super::served::{Served, serve};

async fn get(session: &Served, id: &str) -> Result<Vec<u8>, Status> {
    let mut secrets = SecretsClient::new(session.channel.clone());
    let answer = secrets.get_secret(GetSecretRequest { id: id.into() }).await?;
    Ok(answer.into_inner().data)
}

#[tokio::test]
async fn a_secret_comes_from_its_place_and_unknown_ones_do_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, b"\x00from file\n").unwrap();
    let session = Session::builder("k")
        .secret_file("file", &file)
        .secret_value("value", *b"from\xffmemory")
        .secret_value("empty", "")
        .secret_env("env", "PATH")
        .build()
        .unwrap();
    assert!(!format!("{session:?}").contains("memory"));
    let session = serve(session).await;
    assert_eq!(get(&session, "file").await.unwrap(), b"\x00from file\n");
    assert_eq!(get(&session, "value").await.unwrap(), b"from\xffmemory");
    assert_eq!(get(&session, "empty").await.unwrap(), b"");
    assert_eq!(get(&session, "env").await.unwrap(), std::env::var("PATH").unwrap().as_bytes());
    for unknown in ["", "other", "FILE", "../token", file.to_str().unwrap()] {
        assert_eq!(get(&session, unknown).await.unwrap_err().code(), Code::NotFound, "{unknown}");
    }
    // read when it is asked for, so that a rotated one counts
    std::fs::write(&file, b"new").unwrap();
    assert_eq!(get(&session, "file").await.unwrap(), b"new");
}

#[tokio::test]
async fn what_is_too_large_or_gone_fails_without_its_path() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, vec![b'x'; SECRET_LIMIT]).unwrap();
    let session = serve(Session::builder("k").secret_file("s", &file).build().unwrap()).await;
    assert_eq!(get(&session, "s").await.unwrap().len(), SECRET_LIMIT);
    std::fs::write(&file, vec![b'x'; SECRET_LIMIT + 1]).unwrap();
    let large = get(&session, "s").await.unwrap_err();
    assert_eq!(large.code(), Code::ResourceExhausted);
    std::fs::remove_file(&file).unwrap();
    let gone = get(&session, "s").await.unwrap_err();
    assert_eq!(gone.code(), Code::FailedPrecondition);
    for status in [large, gone] {
        assert!(status.message().contains("\"s\"") && !status.message().contains("token"), "{status}");
    }
}

#[test]
fn what_cannot_be_a_secret_is_refused_before_the_build() {
    let dir = tempfile::tempdir().unwrap();
    let large = dir.path().join("large");
    std::fs::write(&large, vec![0; SECRET_LIMIT + 1]).unwrap();
    let absent = dir.path().join("absent");
    let build =
        |id: &str, path: &std::path::Path| Session::builder("k").secret_file(id, path).build().unwrap_err();
    assert_eq!(build("s", &large), SessionError::Secret(SecretError::TooLarge { id: "s".into() }));
    assert!(matches!(build("s", &absent), SessionError::Secret(SecretError::Unreadable { .. })));
    assert!(matches!(build("s", dir.path()), SessionError::Secret(SecretError::Unreadable { .. })));
    std::fs::write(&large, "x").unwrap();
    assert_eq!(build("", &large), SessionError::Secret(SecretError::Unnamed));
    let unset = Session::builder("k").secret_env("s", "LEMNOS_NO_SUCH_VARIABLE").build().unwrap_err();
    assert!(unset.to_string().contains("is not set"), "{unset}");
}
