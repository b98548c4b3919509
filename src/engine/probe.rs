//! Whether an engine answers yet: the least that tells.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

#[derive(Debug, Clone)]
pub(super) enum Probe {
    /// Somebody listens on the socket.
    Unix(PathBuf),
    /// `GET /v2/` is answered 200.
    Registry(SocketAddr),
}

impl Probe {
    pub(super) async fn answers(&self) -> bool {
        let asked = async {
            match self {
                Self::Unix(path) => UnixStream::connect(path).await.map(|_| true),
                Self::Registry(addr) => registry_answers(*addr).await,
            }
        };
        matches!(tokio::time::timeout(Duration::from_secs(1), asked).await, Ok(Ok(true)))
    }
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
        assert!(!Probe::Unix(dir.path().join("no.sock")).answers().await);
    }
}
