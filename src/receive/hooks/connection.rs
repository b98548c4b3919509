//! The connection to one hook process: frames in, frames out.
//!
//! Reading is bounded by the frames' own bound and the caller's; writing never fails, for the push goes on without the hook.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::receive::frame::{self, Kind};

/// Lines for the pusher.
#[derive(Default)]
pub(super) struct PushText(pub(super) String);

impl PushText {
    pub(super) fn line(&mut self, label: &str, text: &str) {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.0.push_str(&format!("{label}: {text}\n"));
    }
}

/// The connection to one hook process. Writing to one that is gone does nothing: the push goes on without it.
pub(super) struct Hook {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
}

impl Hook {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader, writer }
    }

    /// The next frame; none at the end, or for what is no frame.
    pub(super) async fn receive(&mut self) -> Option<(Kind, Vec<u8>)> {
        let mut header = [0; frame::HEADER];
        self.reader.read_exact(&mut header).await.ok()?;
        let (kind, length) = frame::parse_header(header).ok()?;
        let mut payload = vec![0; length];
        self.reader.read_exact(&mut payload).await.ok()?;
        Some((kind, payload))
    }

    /// The hook's standard input to its end; none above the bound.
    pub(super) async fn whole_input(&mut self, bound: usize) -> Option<Vec<u8>> {
        let mut input = Vec::new();
        loop {
            match self.receive().await? {
                (Kind::Input, bytes) if bytes.is_empty() => return Some(input),
                (Kind::Input, bytes) if input.len() + bytes.len() <= bound => input.extend(bytes),
                _ => return None,
            }
        }
    }

    pub(super) async fn send(&mut self, kind: Kind, bytes: &[u8]) {
        for part in bytes.chunks(frame::MAX_PAYLOAD) {
            let whole = [&frame::header(kind, part.len()), part].concat();
            if self.writer.write_all(&whole).await.is_err() {
                return;
            }
        }
    }

    pub(super) async fn refuse(&mut self, why: &str) {
        let mut text = PushText::default();
        text.line("error", &format!("the hook was refused: {why}"));
        self.send(Kind::Error, text.0.as_bytes()).await;
        self.exit(1).await;
    }

    pub(super) async fn exit(&mut self, status: u8) {
        self.send(Kind::Exit, &[status]).await;
    }
}
