//! Streams of some gigabytes, in a process of their own whose memory is measured.

use std::process::Command;

use bytes::Bytes;
use lemnos::buildkit::Session;
use lemnos::buildkit::session::filesend::Export;
use lemnos_proto::session::BytesMessage;
use lemnos_proto::session::file_send_client::FileSendClient;
use tokio::io::AsyncReadExt;

use super::served::serve;
use super::upload::pull;

const CHILD: &str = "LEMNOS_MEMORY_CHILD";
const BYTES: u64 = 2 << 30;
/// How much more memory may be in use at the worst moment than before. A stream that is kept would take all its bytes.
const GROWTH_KIB: u64 = 64 << 10;

/// The most memory that this process has had, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs the test called `name` alone in a process.
fn alone(name: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("buildkit::memory::{name}"), "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(text.contains("grew by"), "{text}");
}

fn grown(before: u64) {
    let growth = peak() - before;
    println!("grew by {growth} KiB");
    assert!(growth < GROWTH_KIB, "{BYTES} bytes took {growth} KiB");
}

#[tokio::test]
async fn an_upload_of_gigabytes_takes_no_memory() {
    if std::env::var_os(CHILD).is_none() {
        return alone("an_upload_of_gigabytes_takes_no_memory");
    }
    let session = Session::builder("k").upload("tar", tokio::io::repeat(7).take(BYTES)).build().unwrap();
    let session = serve(session).await;
    let before = peak();
    let mut stream = pull(&session, "/tar").await.unwrap();
    let mut bytes = 0;
    while let Some(message) = stream.message().await.unwrap() {
        bytes += message.data.len() as u64;
    }
    assert_eq!(bytes, BYTES);
    grown(before);
}

/// Into a reader that is slower than the sender, so that something has to wait.
#[tokio::test]
async fn an_export_of_gigabytes_takes_no_memory() {
    if std::env::var_os(CHILD).is_none() {
        return alone("an_export_of_gigabytes_takes_no_memory");
    }
    let (writer, mut reader) = tokio::io::duplex(64 << 10);
    let session = Session::builder("k").export(0, Export::writer(writer)).build().unwrap();
    let session = serve(session).await;
    let before = peak();
    let counting = tokio::spawn(async move {
        let (mut buffer, mut bytes) = (vec![0; 64 << 10], 0);
        while let n @ 1.. = reader.read(&mut buffer).await.unwrap() {
            bytes += n as u64;
            tokio::task::yield_now().await;
        }
        bytes
    });
    let piece = Bytes::from(vec![7; 1 << 20]);
    let pieces = futures::stream::iter((0..BYTES >> 20).map(move |_| BytesMessage { data: piece.clone() }));
    let mut answers =
        FileSendClient::new(session.channel.clone()).diff_copy(pieces).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap(), None);
    assert_eq!(counting.await.unwrap(), BYTES);
    grown(before);
}
