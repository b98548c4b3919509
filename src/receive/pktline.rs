//! git's pkt-line framing: four hexadecimal digits of length, then the payload.
//!
//! The decoder takes bytes in any pieces and is bounded in the length of a line and of everything it reads. Pure.

/// The longest packet that git's protocol allows, its length digits included.
pub const MAX_PACKET: usize = 65_520;

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// `0000`: the end of a section.
    Flush,
    /// `0001` and `0002` of protocol version 2.
    Delimiter,
    /// A payload, without the one line end that git may add.
    Line(Vec<u8>),
}

/// Why bytes are no pkt-lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    #[error("a packet's length is not four hexadecimal digits of at most 65520")]
    Length,
    #[error("the packets together exceed {0} bytes")]
    TooMuch(usize),
}

/// Splits a stream into packets.
#[derive(Debug)]
pub struct Decoder {
    held: Vec<u8>,
    seen_bytes: usize,
    limit_bytes: usize,
}

impl Decoder {
    /// Accepts `limit_bytes` in all.
    pub fn new(limit_bytes: usize) -> Self {
        Self { held: Vec::new(), seen_bytes: 0, limit_bytes }
    }

    /// Takes the next bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), PacketError> {
        self.seen_bytes = self.seen_bytes.saturating_add(bytes.len());
        if self.seen_bytes > self.limit_bytes {
            return Err(PacketError::TooMuch(self.limit_bytes));
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole packet; none until more bytes come.
    pub fn next_packet(&mut self) -> Result<Option<Packet>, PacketError> {
        let Some(digits) = self.held.get(..4) else { return Ok(None) };
        let length = match parse_length(digits)? {
            0 => return Ok(Some(self.special(Packet::Flush))),
            1 | 2 => return Ok(Some(self.special(Packet::Delimiter))),
            3 => return Err(PacketError::Length),
            length => length,
        };
        let Some(payload) = self.held.get(4..length) else { return Ok(None) };
        let line = payload.strip_suffix(b"\n").unwrap_or(payload).to_vec();
        self.held.drain(..length);
        Ok(Some(Packet::Line(line)))
    }

    /// How many bytes wait for the rest of their packet.
    pub fn held_bytes(&self) -> usize {
        self.held.len()
    }

    fn special(&mut self, packet: Packet) -> Packet {
        self.held.drain(..4);
        packet
    }
}

fn parse_length(digits: &[u8]) -> Result<usize, PacketError> {
    let text = std::str::from_utf8(digits).map_err(|_| PacketError::Length)?;
    if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(PacketError::Length);
    }
    usize::from_str_radix(text, 16).ok().filter(|n| *n <= MAX_PACKET).ok_or(PacketError::Length)
}

/// Appends `payload` as one packet; what exceeds a packet is cut.
pub fn write_line(out: &mut Vec<u8>, payload: &[u8]) {
    let payload = payload.get(..MAX_PACKET - 4).unwrap_or(payload);
    out.extend_from_slice(format!("{:04x}", payload.len() + 4).as_bytes());
    out.extend_from_slice(payload);
}

/// Appends the end of a section.
pub fn write_flush(out: &mut Vec<u8>) {
    out.extend_from_slice(b"0000");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], piece: usize) -> Result<Vec<Packet>, PacketError> {
        let mut decoder = Decoder::new(1 << 20);
        let mut packets = Vec::new();
        for piece in bytes.chunks(piece) {
            decoder.feed(piece)?;
            while let Some(packet) = decoder.next_packet()? {
                packets.push(packet);
            }
        }
        Ok(packets)
    }

    #[test]
    fn lengths_that_git_never_sends_are_errors() {
        for bad in [&b"0003"[..], b"xyz1", b"+012", b"fff1", b"ffff", b" 12a", b"\xff\xff\xff\xff"] {
            assert_eq!(decode(bad, 4), Err(PacketError::Length), "{bad:?}");
        }
        assert_eq!(decode(b"0004", 1).unwrap(), [Packet::Line(Vec::new())]);
        assert_eq!(decode(b"0006a\n", 1).unwrap(), [Packet::Line(b"a".to_vec())]);
    }

    #[test]
    fn a_stream_longer_than_its_bound_is_an_error() {
        let mut decoder = Decoder::new(8);
        decoder.feed(b"00000000").unwrap();
        assert_eq!(decoder.feed(b"0"), Err(PacketError::TooMuch(8)));
    }

    #[test]
    fn fuzzed_streams_are_read_alike_in_any_pieces() {
        let corpus: [&[u8]; 4] = [
            b"0032want 74730d410fcb6603ace96f1dc55ea6196122532d\n00000009done\n",
            b"000ab side-band-64k\n00010002",
            b"0014command=ls-refs\n0001000ehello world0000",
            b"",
        ];
        let words: [&[u8]; 9] =
            [b"0000", b"0001", b"0004", b"0005a", b"fff0", b"ffff", b"-001", b"\n", b"\0"];
        crate::fuzz::run("pktline", 50_000, &corpus, &words, |input| {
            let whole = decode(input, input.len().max(1));
            for piece in [1, 3] {
                assert_eq!(decode(input, piece).ok(), whole.clone().ok());
            }
            let Ok(packets) = whole else { return false };
            let carried: usize =
                packets.iter().map(|p| if let Packet::Line(l) = p { l.len() } else { 0 }).sum();
            assert!(carried <= input.len());
            true
        });
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_in_any_pieces(
            lines in proptest::collection::vec(proptest::option::of(proptest::collection::vec(0u8..=255, 0..300)), 0..20),
            piece in 1usize..40,
        ) {
            let mut bytes = Vec::new();
            for line in &lines {
                match line {
                    Some(line) => write_line(&mut bytes, line),
                    None => write_flush(&mut bytes),
                }
            }
            let wanted: Vec<_> = lines
                .into_iter()
                .map(|l| l.map_or(Packet::Flush, |l| Packet::Line(l.strip_suffix(b"\n").unwrap_or(&l).to_vec())))
                .collect();
            prop_assert_eq!(decode(&bytes, piece).unwrap(), wanted);
        }

        #[test]
        fn any_bytes_give_packets_or_an_error_and_pieces_do_not_matter(bytes in proptest::collection::vec(0u8..=255, 0..400), piece in 1usize..9) {
            prop_assert_eq!(decode(&bytes, piece).ok(), decode(&bytes, 400.max(bytes.len())).ok());
        }
    }
}
