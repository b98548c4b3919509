//! The proc-receive protocol (gitprotocol-pack, githooks(5)) as a state machine: bytes in, replies and a request out. Pure.

use super::command;
use super::error::Refusal;
use super::limits::Limits;
use super::pktline::{Decoder, Packet, PacketError, write_flush, write_line};
use super::service::RefAnswer;
use crate::model::RefUpdate;

/// What git wants decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub updates: Vec<RefUpdate>,
    pub atomic: bool,
    /// As the pusher gave them; bytes that are not UTF-8 are replaced.
    pub options: Vec<String>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// More bytes are needed.
    More,
    /// Send these bytes to git, then go on.
    Reply(Vec<u8>),
    /// git waits for the answers.
    Decide(Request),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error("git speaks another version of the proc-receive protocol: {0:?}")]
    Version(String),
    #[error("git sent a packet out of place")]
    OutOfPlace,
    #[error("more than {0} commands or options")]
    TooMany(usize),
    #[error(transparent)]
    Command(#[from] Refusal),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Version,
    Commands,
    Options,
    Done,
}

/// One conversation with git's receive-pack.
pub(super) struct Conversation {
    decoder: Decoder,
    stage: Stage,
    greeted: bool,
    options_follow: bool,
    max_updates: usize,
    max_options: usize,
    request: Request,
}

impl Conversation {
    pub(super) fn new(limits: &Limits) -> Self {
        let commands = limits.max_updates.saturating_add(8).saturating_mul(512);
        let options = limits.max_options.saturating_add(1).saturating_mul(limits.max_option_bytes + 4);
        Self {
            decoder: Decoder::new(commands.saturating_add(options)),
            stage: Stage::Version,
            greeted: false,
            options_follow: false,
            max_updates: limits.max_updates,
            max_options: limits.max_options,
            request: Request { updates: Vec::new(), atomic: false, options: Vec::new() },
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        Ok(self.decoder.feed(bytes)?)
    }

    pub(super) fn step(&mut self) -> Result<Step, ProtocolError> {
        while let Some(packet) = self.decoder.next_packet()? {
            match (self.stage, packet) {
                (Stage::Version, Packet::Line(line)) if !self.greeted => self.version(&line)?,
                (Stage::Version, Packet::Flush) if self.greeted => {
                    self.stage = Stage::Commands;
                    let mut reply = Vec::new();
                    let features: &[u8] =
                        if self.options_follow { b"version=1\0push-options" } else { b"version=1" };
                    write_line(&mut reply, features);
                    write_flush(&mut reply);
                    return Ok(Step::Reply(reply));
                }
                (Stage::Commands, Packet::Line(line)) => {
                    if self.request.updates.len() >= self.max_updates {
                        return Err(ProtocolError::TooMany(self.max_updates));
                    }
                    self.request.updates.push(command::parse(&line)?);
                }
                (Stage::Commands, Packet::Flush) if self.options_follow => self.stage = Stage::Options,
                (Stage::Options, Packet::Line(line)) => {
                    if self.request.options.len() >= self.max_options {
                        return Err(ProtocolError::TooMany(self.max_options));
                    }
                    self.request.options.push(String::from_utf8_lossy(&line).into_owned());
                }
                (Stage::Commands | Stage::Options, Packet::Flush) => {
                    self.stage = Stage::Done;
                    return Ok(Step::Decide(self.request.clone()));
                }
                _ => return Err(ProtocolError::OutOfPlace),
            }
        }
        Ok(Step::More)
    }

    fn version(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        let (version, features) = line.split_at(line.iter().position(|b| *b == 0).unwrap_or(line.len()));
        if version != b"version=1" {
            return Err(ProtocolError::Version(String::from_utf8_lossy(version).chars().take(40).collect()));
        }
        let mut offered = features.split(|b| matches!(b, 0 | b' '));
        self.options_follow = offered.clone().any(|f| f == b"push-options");
        self.request.atomic = offered.any(|f| f == b"atomic");
        self.greeted = true;
        Ok(())
    }
}

/// The answers as git reads them: `ok REF`, `ng REF REASON`, and the end.
pub(super) fn report(answers: &[RefAnswer]) -> Vec<u8> {
    let mut out = Vec::new();
    for answer in answers {
        let line = match &answer.result {
            Ok(()) => format!("ok {}", answer.name),
            Err(reason) => format!("ng {} {}", answer.name, one_line(reason)),
        };
        write_line(&mut out, line.as_bytes());
    }
    write_flush(&mut out);
    out
}

/// A reason that fits into git's parentheses: one line, no control characters, bounded.
fn one_line(reason: &str) -> String {
    const LONGEST: usize = 300;
    let clean: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = clean.split_whitespace().collect();
    let text = words.join(" ");
    match text.char_indices().nth(LONGEST) {
        _ if text.is_empty() => "refused".to_owned(),
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = "1111111111111111111111111111111111111111";
    const NEW: &str = "2222222222222222222222222222222222222222";

    fn opening(features: &str, commands: &[&str], options: Option<&[&str]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_line(&mut bytes, format!("version=1\0{features}\n").as_bytes());
        write_flush(&mut bytes);
        commands.iter().for_each(|c| write_line(&mut bytes, format!("{OLD} {NEW} {c}\n").as_bytes()));
        write_flush(&mut bytes);
        if let Some(options) = options {
            options.iter().for_each(|o| write_line(&mut bytes, o.as_bytes()));
            write_flush(&mut bytes);
        }
        bytes
    }

    fn converse(
        bytes: &[u8],
        piece: usize,
        limits: &Limits,
    ) -> Result<(Vec<u8>, Option<Request>), ProtocolError> {
        let mut conversation = Conversation::new(limits);
        let (mut replies, mut request) = (Vec::new(), None);
        for bytes in bytes.chunks(piece) {
            conversation.feed(bytes)?;
            loop {
                match conversation.step()? {
                    Step::More => break,
                    Step::Reply(reply) => replies.extend(reply),
                    Step::Decide(decided) => request = Some(decided),
                }
            }
        }
        Ok((replies, request))
    }

    #[test]
    fn a_push_with_options_is_read_in_any_pieces() {
        let bytes =
            opening("atomic push-options", &["refs/heads/main", "refs/tags/v1"], Some(&["try", "color"]));
        for piece in [1, 5, 1000] {
            let (reply, request) = converse(&bytes, piece, &Limits::default()).unwrap();
            assert_eq!(reply, b"001avers\x69on=1\0push-options0000");
            let request = request.unwrap();
            assert!(request.atomic);
            assert_eq!(request.options, ["try", "color"]);
            assert_eq!(request.updates.len(), 2);
        }
    }

    #[test]
    fn a_plain_push_has_no_options_section() {
        let (reply, request) =
            converse(&opening("", &["refs/heads/main"], None), 9, &Limits::default()).unwrap();
        assert_eq!(reply, b"000dversion=10000");
        let request = request.unwrap();
        assert!(!request.atomic && request.options.is_empty());
    }

    #[test]
    fn what_git_would_not_say_is_an_error() {
        let limits = Limits { max_updates: 1, ..Limits::default() };
        let two = opening("", &["refs/heads/a", "refs/heads/b"], None);
        assert_eq!(converse(&two, 9, &limits), Err(ProtocolError::TooMany(1)));
        assert_eq!(
            converse(b"000dversion=2", 9, &limits),
            Err(ProtocolError::Version("version=2".to_owned()))
        );
        assert_eq!(converse(b"0000", 9, &limits), Err(ProtocolError::OutOfPlace));
        let again = [opening("", &["refs/heads/a"], None), b"0000".to_vec()].concat();
        assert_eq!(converse(&again, 999, &limits), Err(ProtocolError::OutOfPlace));
        assert!(matches!(
            converse(&opening("", &["refs/x"], None), 9, &limits),
            Err(ProtocolError::Command(_))
        ));
    }

    #[test]
    fn reasons_are_one_bounded_line() {
        assert_eq!(
            one_line("build failed:\n\tRUN make\x1b[31m, exit 2\r\n"),
            "build failed: RUN make [31m, exit 2"
        );
        assert_eq!(one_line(" \n "), "refused");
        assert_eq!(one_line(&"é".repeat(400)).chars().count(), 301);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer_or_an_error(bytes in proptest::collection::vec(0u8..=255, 0..300), piece in 1usize..20) {
            let _ = converse(&bytes, piece, &Limits::default());
        }

        #[test]
        fn a_changed_byte_never_gives_a_request_with_another_number_of_commands_accepted(at in 0usize..170, to in 0u8..=255) {
            let mut bytes = opening("push-options", &["refs/heads/main"], Some(&["try"]));
            let at = at % bytes.len();
            bytes[at] = to;
            if let Ok((_, Some(request))) = converse(&bytes, 7, &Limits::default()) {
                prop_assert!(request.updates.len() <= 1);
            }
        }
    }
}
