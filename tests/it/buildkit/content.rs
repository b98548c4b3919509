//! Content stores, read and written as the daemon does for caches and OCI layouts.

use std::path::Path;
use std::sync::Arc;

use lemnos::buildkit::Session;
use lemnos::buildkit::session::content::{ContentStore, Descriptor};
use lemnos_proto::content::content_client::ContentClient;
use lemnos_proto::content::{
    AbortRequest, DeleteContentRequest, InfoRequest, ListContentRequest, ListStatusesRequest,
    ReadContentRequest, StatusRequest, UpdateRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::served::{SHORT, SOON, Served, serve};

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(content)))
}

fn put_blob(root: &Path, content: &[u8]) -> String {
    let digest = digest(content);
    let dir = root.join("blobs/sha256");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(&digest[7..]), content).unwrap();
    digest
}

struct Stores {
    session: Served,
    layout: tempfile::TempDir,
    cache: tempfile::TempDir,
}

async fn stores() -> Stores {
    let (layout, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut session = Session::builder("k")
        .oci_layout("base", layout.path())
        .store("local:/c", Arc::new(ContentStore::read_write(cache.path()).unwrap()))
        .build()
        .unwrap();
    session.patience.asking = SHORT.asking * 10;
    Stores { session: serve(session).await, layout, cache }
}

impl Stores {
    fn client(&self) -> ContentClient<Channel> {
        ContentClient::new(self.session.channel.clone())
    }

    async fn read(&self, store: &str, digest: &str, offset: i64, size: i64) -> Result<Vec<u8>, Status> {
        let request = ReadContentRequest { digest: digest.into(), offset, size };
        let mut stream = self.client().read(to(store, request)).await?.into_inner();
        let mut content = Vec::new();
        while let Some(piece) = stream.message().await? {
            assert_eq!(piece.offset, offset.max(0) + content.len() as i64);
            assert!(piece.data.len() <= 4 << 20, "tonic's and Go's limit");
            content.extend_from_slice(&piece.data);
        }
        Ok(content)
    }

    async fn write(&self, store: &str) -> Result<Write, Status> {
        let (requests, outgoing) = mpsc::channel(4);
        let answers = self.client().write(to(store, ReceiverStream::new(outgoing))).await?.into_inner();
        Ok(Write { requests, answers })
    }
}

fn to<T>(store: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-attachable-store-id", store.parse().unwrap());
    request
}

/// A write under way, one answer for each message.
struct Write {
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
}

impl Write {
    async fn send(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        let _ = self.requests.send(request).await;
        let answer = tokio::time::timeout(SOON, self.answers.message()).await.unwrap()?;
        answer.ok_or_else(|| Status::unknown("EOF"))
    }

    async fn stat(&mut self, name: &str, expected: &str) -> Result<WriteContentResponse, Status> {
        self.send(WriteContentRequest { r#ref: name.into(), expected: expected.into(), ..Default::default() })
            .await
    }

    async fn data(&mut self, offset: i64, data: &[u8]) -> Result<WriteContentResponse, Status> {
        let data = data.to_vec().into();
        self.send(WriteContentRequest {
            action: WriteAction::Write.into(),
            offset,
            data,
            ..Default::default()
        })
        .await
    }

    async fn commit(
        &mut self,
        offset: i64,
        total: i64,
        expected: &str,
    ) -> Result<WriteContentResponse, Status> {
        let (action, expected) = (WriteAction::Commit.into(), expected.to_owned());
        self.send(WriteContentRequest { action, offset, total, expected, ..Default::default() }).await
    }
}

fn blobs(root: &Path) -> usize {
    std::fs::read_dir(root.join("blobs/sha256")).map(Iterator::count).unwrap_or_default()
}

fn unfinished(root: &Path) -> usize {
    std::fs::read_dir(root.join("ingest")).map(Iterator::count).unwrap_or_default()
}

#[tokio::test]
async fn blobs_are_read_whole_and_in_part() {
    let stores = stores().await;
    let content: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = put_blob(stores.layout.path(), &content);
    let read = async |offset, size| stores.read("oci:base", &digest, offset, size).await.unwrap();
    assert!(read(0, 0).await == content);
    assert!(read(-5, -1).await == content);
    assert_eq!(read(10, 7).await, content[10..17]);
    assert_eq!(read(3_999_999, 100).await, content[3_999_999..]);
    assert_eq!(read(4_000_000, 0).await, b"");
    let beyond = stores.read("oci:base", &digest, 4_000_001, 1).await.unwrap_err();
    assert_eq!(beyond.code(), Code::OutOfRange);
    let info = stores.client().info(to("oci:base", InfoRequest { digest: digest.clone() })).await.unwrap();
    let info = info.into_inner().info.unwrap();
    assert_eq!((info.size, info.digest), (4_000_000, digest));
    assert!(info.created_at.is_some());
}

#[tokio::test]
async fn a_store_is_found_by_its_whole_name_and_a_blob_by_a_digest() {
    let stores = stores().await;
    let digest = put_blob(stores.layout.path(), b"x");
    std::fs::write(stores.layout.path().join("secret"), "s").unwrap();
    for store in ["oci:other", "base", "local:base", "oci:base/..", "OCI:base", ""] {
        assert_eq!(stores.read(store, &digest, 0, 0).await.unwrap_err().code(), Code::NotFound, "{store:?}");
    }
    let unnamed = stores.client().info(InfoRequest { digest: digest.clone() }).await.unwrap_err();
    assert_eq!(unnamed.code(), Code::InvalidArgument);
    assert_eq!(stores.read("local:/c", &digest, 0, 0).await.unwrap_err().code(), Code::NotFound);
    for bad in ["", "sha256:", "sha256:../../secret", "secret", "sha256:ABCD"] {
        let status = stores.read("oci:base", bad, 0, 0).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}");
        assert!(!status.message().contains(stores.layout.path().to_str().unwrap()), "{status}");
    }
}

#[tokio::test]
async fn a_blob_is_written_in_pieces_and_appears_at_its_commit() {
    let stores = stores().await;
    let digest = digest(b"hello world");
    let mut write = stores.write("local:/c").await.unwrap();
    let begun = write.stat("layer-1", "").await.unwrap();
    assert_eq!((begun.offset, begun.started_at.is_some()), (0, true));
    assert_eq!(write.data(0, b"hel").await.unwrap().offset, 3);
    let second = stores.write("local:/c").await.unwrap().stat("layer-1", "").await.unwrap_err();
    assert_eq!(second.code(), Code::Unavailable, "Go's clients wait at this code: {second}");
    let status =
        stores.client().status(to("local:/c", StatusRequest { r#ref: "layer-1".into() })).await.unwrap();
    assert_eq!(status.into_inner().status.unwrap().offset, 3);
    let all = stores.client().list_statuses(to("local:/c", ListStatusesRequest::default())).await.unwrap();
    assert_eq!(all.into_inner().statuses.len(), 1);
    // from the start anew
    assert_eq!(write.data(0, b"hello ").await.unwrap().offset, 6);
    assert_eq!(write.data(6, b"world").await.unwrap().digest, digest);
    assert_eq!(blobs(stores.cache.path()), 0);
    let done = write.commit(11, 11, &digest).await.unwrap();
    assert_eq!((done.offset, done.digest.as_str()), (11, digest.as_str()));
    assert_eq!(stores.read("local:/c", &digest, 0, 0).await.unwrap(), b"hello world");
    assert_eq!((blobs(stores.cache.path()), unfinished(stores.cache.path())), (1, 0));
    let again = stores.write("local:/c").await.unwrap().stat("layer-2", &digest).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists, "as Go's clients expect: {again}");
    let list = stores.client().list(to("local:/c", ListContentRequest::default())).await.unwrap();
    let list = list.into_inner().message().await.unwrap().unwrap().info;
    assert_eq!(list.iter().map(|info| info.digest.as_str()).collect::<Vec<_>>(), [digest.as_str()]);
    stores.client().delete(to("local:/c", DeleteContentRequest { digest: digest.clone() })).await.unwrap();
    let gone = stores.client().delete(to("local:/c", DeleteContentRequest { digest })).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

#[tokio::test]
async fn what_is_not_what_was_announced_leaves_nothing() {
    let stores = stores().await;
    let other = digest(b"other");
    for (at, total, expected, want) in [
        (4, 0, other.as_str(), Code::FailedPrecondition),
        (4, 5, "", Code::FailedPrecondition),
        (3, 0, "", Code::OutOfRange),
        (9, 0, "", Code::OutOfRange),
        (4, 0, "sha256:..", Code::InvalidArgument),
    ] {
        let mut write = stores.write("local:/c").await.unwrap();
        write.stat("r", "").await.unwrap();
        write.data(0, b"data").await.unwrap();
        let status = write.commit(at, total, expected).await.unwrap_err();
        assert_eq!(status.code(), want, "{status}");
    }
    // no reference; dropped in the middle; silent; given up
    assert_eq!(
        stores.write("local:/c").await.unwrap().stat("", "").await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let mut dropped = stores.write("local:/c").await.unwrap();
    dropped.stat("dropped", "").await.unwrap();
    dropped.data(0, b"data").await.unwrap();
    drop(dropped);
    let mut aborted = stores.write("local:/c").await.unwrap();
    aborted.stat("aborted", "").await.unwrap();
    stores.client().abort(to("local:/c", AbortRequest { r#ref: "aborted".into() })).await.unwrap();
    assert_eq!(aborted.data(0, b"data").await.unwrap_err().code(), Code::Aborted);
    let unknown =
        stores.client().abort(to("local:/c", AbortRequest { r#ref: "aborted".into() })).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut silent = stores.write("local:/c").await.unwrap();
    silent.stat("silent", "").await.unwrap();
    let status = tokio::time::timeout(SOON, silent.answers.message()).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let deadline = std::time::Instant::now() + SOON;
    while unfinished(stores.cache.path()) > 0 {
        assert!(std::time::Instant::now() < deadline, "unfinished writes stay");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(blobs(stores.cache.path()), 0);
}

#[tokio::test]
async fn an_oci_layout_is_not_changed() {
    let stores = stores().await;
    let digest = put_blob(stores.layout.path(), b"x");
    let write = stores.write("oci:base").await.unwrap().stat("r", "").await.unwrap_err();
    let delete =
        stores.client().delete(to("oci:base", DeleteContentRequest { digest: digest.clone() })).await;
    let abort = stores.client().abort(to("oci:base", AbortRequest { r#ref: "r".into() })).await;
    for status in [write, delete.unwrap_err(), abort.unwrap_err()] {
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
    let update = stores.client().update(to("oci:base", UpdateRequest::default())).await.unwrap_err();
    assert_eq!(update.code(), Code::FailedPrecondition);
    assert_eq!(stores.read("oci:base", &digest, 0, 0).await.unwrap(), b"x");
    let names: Vec<_> =
        std::fs::read_dir(stores.layout.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["blobs"]);
}

#[test]
fn an_index_keeps_what_it_does_not_know_and_moves_its_tags() {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::read_write(dir.path()).unwrap();
    assert_eq!(store.resolve("latest").unwrap(), None);
    let known = r#"{"schemaVersion":2,"x":1,"manifests":[{"mediaType":"m","digest":"sha256:a","size":1,"platform":{"os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"old","io.containerd.image.name":"r.example/a:1"}}]}"#;
    std::fs::write(dir.path().join("index.json"), known).unwrap();
    let descriptor: Descriptor =
        serde_json::from_str(r#"{"mediaType":"m2","digest":"sha256:b","size":2,"artifactType":"t"}"#)
            .unwrap();
    store.tag(descriptor.clone(), "latest").unwrap();
    store.tag(Descriptor { digest: "sha256:c".into(), ..descriptor }, "latest").unwrap();
    let digest = |tag| store.resolve(tag).unwrap().map(|found| found.digest);
    assert_eq!(digest("latest").as_deref(), Some("sha256:c"));
    assert_eq!(digest("old").as_deref(), Some("sha256:a"));
    assert_eq!(digest("r.example/a:1").as_deref(), Some("sha256:a"));
    assert_eq!(digest("other"), None);
    let index: serde_json::Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["x"], 1);
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(index["manifests"][0]["platform"]["os"], "linux");
    assert_eq!(index["manifests"][1]["artifactType"], "t");
    assert!(std::fs::read_to_string(dir.path().join("oci-layout")).unwrap().contains("1.0.0"));
    assert!(!dir.path().join("index.json.lock").exists());
    let read_only = ContentStore::read_only(dir.path()).unwrap();
    assert!(read_only.tag(read_only.resolve("old").unwrap().unwrap(), "new").is_err());
}
