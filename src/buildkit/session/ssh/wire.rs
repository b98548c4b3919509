//! SSH's data on the wire: strings with their lengths, numbers, and an agent's messages.
//!
//! Invariant: a length is checked before anything is reserved for it.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest message of an agent, as OpenSSH has it.
pub(super) const MESSAGE_LIMIT: usize = 256 << 10;

/// The next message without its length; none at the end, where a message may begin.
pub(super) async fn read_message(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    let mut have = 0;
    while let Some(free) = length.get_mut(have..).filter(|free| !free.is_empty()) {
        match from.read(free).await? {
            0 if have == 0 => return Ok(None),
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ends within a message")),
            n => have += n,
        }
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 || length > MESSAGE_LIMIT {
        let problem = format!("an SSH agent's message of {length} bytes; at most {MESSAGE_LIMIT} are taken");
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    let mut message = vec![0; length];
    from.read_exact(&mut message).await?;
    Ok(Some(message))
}

pub(super) async fn write_message(to: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    to.write_all(&framed(message)).await?;
    to.flush().await
}

/// `message` with its length in front.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(message.len() + 4);
    put_string(&mut framed, message);
    framed
}

pub(super) fn put_u32(to: &mut Vec<u8>, number: u32) {
    to.extend_from_slice(&number.to_be_bytes());
}

pub(super) fn put_string(to: &mut Vec<u8>, string: &[u8]) {
    put_u32(to, u32::try_from(string.len()).unwrap_or(u32::MAX));
    to.extend_from_slice(string);
}

/// A number that is not negative, of any length.
pub(super) fn put_number(to: &mut Vec<u8>, big_endian: &[u8]) {
    let bare = without_zeros(big_endian);
    let mut number = Vec::with_capacity(bare.len() + 1);
    if bare.first().is_some_and(|first| first & 0x80 != 0) {
        number.push(0);
    }
    number.extend_from_slice(bare);
    put_string(to, &number);
}

pub(super) fn without_zeros(big_endian: &[u8]) -> &[u8] {
    let zeros = big_endian.iter().take_while(|b| **b == 0).count();
    big_endian.get(zeros..).unwrap_or_default()
}

/// What is left to be read of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    pub fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }
}
