//! Whether an engine answers yet: the least that tells.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

#[derive(Debug, Clone)]
pub(super) enum Probe {
    /// HTTP/2 is answered on the socket. That somebody listens is not enough: buildkitd listens before it has its workers.
    Http2(PathBuf),
    /// `GET /v2/` is answered 200.
    Registry(SocketAddr),
}

impl Probe {
    pub(super) async fn answers(&self) -> bool {
        let asked = async {
            match self {
                Self::Http2(path) => http2_answers(path).await,
                Self::Registry(addr) => registry_answers(*addr).await,
            }
        };
        matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Ok(true)))
    }
}

/// Both sides open with a SETTINGS frame (RFC 9113, 3.4): length 0, type 4, no flags, stream 0.
async fn http2_answers(path: &Path) -> std::io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut stream = UnixStream::connect(path).await?;
    stream.write_all(PREFACE).await?;
    let mut header = [0_u8; 9];
    stream.read_exact(&mut header).await?;
    Ok(header.get(3) == Some(&4))
}

async fn registry_answers(addr: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(addr).await?;
    let request = format!("GET /v2/ HTTP/1.0\r\nHost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0_u8; 12];
    stream.read_exact(&mut status).await?;
    Ok(status.starts_with(b"HTTP/1.") && status.ends_with(b" 200"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(answer: &'static [u8]) -> bool {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0_u8; 18];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"GET /v2/ HTTP/1.0\r");
            stream.write_all(answer).await.unwrap();
        });
        let answered = Probe::Registry(addr).answers().await;
        server.await.unwrap();
        answered
    }

    #[tokio::test]
    async fn a_registry_is_one_that_says_200() {
        assert!(asked(b"HTTP/1.1 200 OK\r\n\r\n").await);
        assert!(!asked(b"HTTP/1.1 404 Not Found\r\n\r\n").await);
        assert!(!asked(b"SSH-2.0-x\r\n").await);
    }

    #[tokio::test]
    async fn nobody_there_is_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("engine.sock");
        assert!(!Probe::Http2(path.clone()).answers().await);
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        assert!(!Probe::Http2(path.clone()).answers().await, "one that listens and says nothing");
        let server = tokio::spawn(async move {
            // the connection of the probe above still waits in the queue, closed
            let (_gone, _) = listener.accept().await.unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        });
        assert!(Probe::Http2(path).answers().await);
        server.await.unwrap();
    }
}
