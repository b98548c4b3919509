//! The framing between a hook and the server: one byte of kind, four of length (big endian), the payload.
//!
//! The hook begins with `Hello`, then relays its standard input; the server answers with output and, last, `Exit`.
//! Bounded: a payload has at most `MAX_PAYLOAD` bytes. Pure: both ends bring their own input and output.

/// The most that one frame carries.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// The bytes before a payload.
pub const HEADER: usize = 5;

/// The environment through which the server's child tells the hook where to turn. Set by the server alone.
pub const ENV_SOCKET: &str = "LEMNOS_HOOK_SOCKET";
pub const ENV_TOKEN: &str = "LEMNOS_HOOK_TOKEN";
pub const ENV_EXECUTABLE: &str = "LEMNOS_HOOK_EXE";
/// Set by git for `pre-receive`: where the new objects are.
pub const ENV_QUARANTINE: &str = "GIT_QUARANTINE_PATH";

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Hook to server, first: see `Hello`.
    Hello = 1,
    /// Hook to server: bytes of the hook's standard input; empty at its end.
    Input = 2,
    /// Server to hook: bytes for its standard output.
    Output = 3,
    /// Server to hook: bytes for its standard error.
    Error = 4,
    /// Server to hook, last: one byte of exit status.
    Exit = 5,
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("unknown kind of frame {0}")]
    Kind(u8),
    #[error("a frame of {0} bytes; at most 65536 are allowed")]
    Length(u32),
    #[error("the greeting is malformed")]
    Hello,
}

/// The bytes before a payload of `length` bytes.
pub fn header(kind: Kind, length: usize) -> [u8; HEADER] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind as u8, a, b, c, d]
}

/// Kind and payload length.
pub fn parse_header(bytes: [u8; HEADER]) -> Result<(Kind, usize), FrameError> {
    let [kind, a, b, c, d] = bytes;
    let kind = match kind {
        1 => Kind::Hello,
        2 => Kind::Input,
        3 => Kind::Output,
        4 => Kind::Error,
        5 => Kind::Exit,
        other => return Err(FrameError::Kind(other)),
    };
    let length = u32::from_be_bytes([a, b, c, d]);
    match usize::try_from(length) {
        Ok(size) if size <= MAX_PAYLOAD => Ok((kind, size)),
        _ => Err(FrameError::Length(length)),
    }
}

/// Who calls: three fields between NUL bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub token: String,
    /// `pre-receive` or `proc-receive`.
    pub hook: String,
    /// git's `GIT_QUARANTINE_PATH`; empty without one.
    pub quarantine: Vec<u8>,
}

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        [self.token.as_bytes(), self.hook.as_bytes(), &self.quarantine].join(&0)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut fields = bytes.split(|b| *b == 0);
        let mut text = || {
            let field = fields.next().ok_or(FrameError::Hello)?;
            String::from_utf8(field.to_vec()).map_err(|_| FrameError::Hello)
        };
        let (token, hook) = (text()?, text()?);
        let quarantine = fields.next().ok_or(FrameError::Hello)?.to_vec();
        if fields.next().is_some() {
            return Err(FrameError::Hello);
        }
        Ok(Self { token, hook, quarantine })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_frame_too_long_or_of_no_kind_is_an_error() {
        assert_eq!(parse_header([2, 0, 1, 0, 0]), Ok((Kind::Input, 65_536)));
        assert_eq!(parse_header([2, 0, 1, 0, 1]), Err(FrameError::Length(65_537)));
        assert_eq!(parse_header([9, 0, 0, 0, 0]), Err(FrameError::Kind(9)));
        assert_eq!(Hello::decode(b"token\0pre-receive"), Err(FrameError::Hello));
        assert_eq!(Hello::decode(b"a\0b\0c\0d"), Err(FrameError::Hello));
    }

    proptest! {
        #[test]
        fn headers_and_greetings_come_back(length in 0usize..=MAX_PAYLOAD, token in "[a-z0-9]{0,64}", path in "[^\0]{0,80}") {
            prop_assert_eq!(parse_header(header(Kind::Error, length)), Ok((Kind::Error, length)));
            let hello = Hello { token, hook: "proc-receive".to_owned(), quarantine: path.into_bytes() };
            prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }
    }
}
