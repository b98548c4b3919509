//! What a pushing client says before its pack: watched as it passes, never changed.
//!
//! git keeps all of it in memory, so its size is bounded here; and whether the client's clone is shallow is seen only here.

use super::limits::Limits;
use super::pktline::{Decoder, Packet};
use crate::model::Sha;

/// Watches the client's bytes up to the pack.
#[derive(Debug)]
pub(super) struct ClientPackets {
    decoder: Decoder,
    stage: Stage,
    options_follow: bool,
    pub commands: usize,
    /// The commits at which the client's clone is cut off.
    pub shallow: Vec<Sha>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Commands,
    Options,
    /// The pack, or something that is not ours to understand.
    Passing,
}

/// The client's commands or options exceed their bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMuch;

/// A command's two ids, name and the capabilities of the first.
const COMMAND_BYTES: usize = 2048;

impl ClientPackets {
    pub(super) fn new(limits: &Limits) -> Self {
        let commands = limits.max_updates.saturating_add(8).saturating_mul(COMMAND_BYTES);
        let options = limits.max_options.saturating_mul(limits.max_option_bytes + 4);
        // one read beyond the bound may already belong to the pack
        let bound = commands.saturating_add(options).saturating_add(256 * 1024);
        Self {
            decoder: Decoder::new(bound),
            stage: Stage::Commands,
            options_follow: false,
            commands: 0,
            shallow: Vec::new(),
        }
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        if self.stage == Stage::Passing {
            return Ok(());
        }
        self.decoder.feed(bytes).map_err(|_| TooMuch)?;
        while self.stage != Stage::Passing {
            match self.decoder.next_packet() {
                Ok(Some(packet)) => self.see(&packet),
                Ok(None) => return Ok(()),
                // git will say what is wrong with it
                Err(_) => self.stage = Stage::Passing,
            }
        }
        self.decoder = Decoder::new(0);
        Ok(())
    }

    fn see(&mut self, packet: &Packet) {
        match (self.stage, packet) {
            (Stage::Commands, Packet::Line(line)) if line.starts_with(b"shallow ") => {
                let id = line.get(b"shallow ".len()..).map(String::from_utf8_lossy);
                self.shallow.extend(id.and_then(|id| id.parse().ok()));
            }
            (Stage::Commands, Packet::Line(line)) => {
                self.commands += 1;
                let mut capabilities =
                    line.splitn(2, |b| *b == 0).nth(1).unwrap_or_default().split(|b| *b == b' ');
                self.options_follow |= capabilities.any(|c| c == b"push-options");
            }
            (Stage::Commands, _) if self.options_follow && self.commands > 0 => self.stage = Stage::Options,
            (Stage::Options, Packet::Line(_)) => {}
            _ => self.stage = Stage::Passing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pktline::{write_flush, write_line};
    use super::*;
    use proptest::prelude::*;

    fn opening(capabilities: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_line(&mut bytes, format!("shallow {}", "a".repeat(40)).as_bytes());
        write_line(
            &mut bytes,
            format!("{} {} refs/heads/main\0{capabilities}", "0".repeat(40), "a".repeat(40)).as_bytes(),
        );
        write_flush(&mut bytes);
        bytes
    }

    #[test]
    fn shallow_lines_and_commands_are_counted_in_any_pieces() {
        for piece in [1, 7, 4096] {
            let mut client = ClientPackets::new(&Limits::default());
            let bytes = [opening("report-status"), b"PACK\0\0\0\x02zzzz0004".to_vec()].concat();
            bytes.chunks(piece).for_each(|b| client.feed(b).unwrap());
            assert_eq!((client.shallow.len(), client.commands, client.stage), (1, 1, Stage::Passing));
        }
    }

    #[test]
    fn endless_options_are_too_much_and_an_endless_pack_is_not() {
        let limits = Limits { max_updates: 1, max_options: 1, max_option_bytes: 16, ..Limits::default() };
        let mut client = ClientPackets::new(&limits);
        client.feed(&opening(" report-status push-options")).unwrap();
        let mut option = Vec::new();
        write_line(&mut option, &[b'o'; 60_000]);
        assert_eq!((0..8).map(|_| client.feed(&option)).find(Result::is_err), Some(Err(TooMuch)));

        let mut client = ClientPackets::new(&limits);
        client.feed(&opening(" report-status")).unwrap();
        assert!((0..1000).all(|_| client.feed(&[7; 60_000]).is_ok()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(0u8..=255, 0..600), piece in 1usize..50) {
            let mut client = ClientPackets::new(&Limits::default());
            for piece in bytes.chunks(piece) {
                prop_assert!(client.feed(piece).is_ok());
            }
        }
    }
}
