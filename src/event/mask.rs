//! Secrets made unreadable in what a build says: in its output as it streams, and in every other text.
//!
//! Found plain, as lines of a secret of several lines, in base64 (both alphabets, inside longer base64 too), in hexadecimal,
//! percent-encoded and as JSON has it; also where output was cut anywhere, or wrapped into lines. What is found becomes `***`.
//! Must not delay a line that could not be the beginning of one. Holds the secrets while it lives; nothing of them is in its `Debug`.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Shorter ones cannot be told from other text: whoever stores secrets refuses them.
pub const SECRET_BYTES_MIN: usize = 4;
/// All secrets of one masker together.
pub const SECRETS_BYTES_MAX: usize = 64 << 10;
/// Long secrets are looked for in pieces that overlap, so that parts of them are found too.
const PIECE_BYTES: usize = 48;
const OVERLAP_BYTES: usize = 3;
const MASK: &[u8] = b"***";

/// Finds the secrets it was made of. Cheap to clone.
#[derive(Clone, Default)]
pub struct Masker(Option<Arc<Automaton>>);

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Masker(…)" } else { "Masker(nothing)" })
    }
}

impl Masker {
    /// One for these secrets. White space around them counts for nothing; what is shorter than `SECRET_BYTES_MIN` is left out.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut needles = BTreeSet::new();
        for secret in secrets {
            let secret = secret.trim_ascii();
            for piece in secret.split(|b| matches!(b, b'\n' | b'\r')).map(<[u8]>::trim_ascii).chain([secret])
            {
                pieces(piece).for_each(|piece| spellings(piece, &mut needles));
            }
        }
        needles.retain(|needle: &Vec<u8>| needle.len() >= SECRET_BYTES_MIN);
        Self((!needles.is_empty()).then(|| Arc::new(Automaton::new(&needles))))
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A whole text without the secrets.
    pub fn text(&self, text: &str) -> String {
        if self.is_empty() {
            return text.to_owned();
        }
        let mut stream = self.stream();
        let mut masked = stream.push(text.as_bytes());
        masked.extend(stream.finish());
        // a secret that is no UTF-8 may begin in the middle of a character
        String::from_utf8_lossy(&masked).into_owned()
    }

    /// For a text that comes piece by piece.
    pub fn stream(&self) -> MaskedStream {
        MaskedStream { automaton: self.0.clone(), ..MaskedStream::default() }
    }
}

/// Windows of a secret, each of which is looked for.
fn pieces(secret: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = (0..secret.len()).step_by(PIECE_BYTES);
    starts.filter_map(move |start| {
        let end = secret.len().min(start + PIECE_BYTES + OVERLAP_BYTES);
        // what is left beside the overlap stands in the window before
        (start == 0 || end - start > OVERLAP_BYTES).then(|| secret.get(start..end)).flatten()
    })
}

/// How a program may print it, without line ends: these are passed over in the output.
fn spellings(secret: &[u8], into: &mut BTreeSet<Vec<u8>>) {
    if secret.len() < SECRET_BYTES_MIN {
        return;
    }
    let unwrapped = |text: &[u8]| text.iter().copied().filter(|b| !is_line_end(*b)).collect::<Vec<u8>>();
    into.insert(unwrapped(secret));
    for offset in 0..3 {
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            into.insert(inner_base64(engine, secret, offset));
        }
    }
    into.insert(hex::encode(secret).into_bytes());
    into.insert(hex::encode_upper(secret).into_bytes());
    // RFC 3986's unreserved ones, those that encodeURI leaves, and forms
    for kept in [&b"-_.~"[..], b"-_.~!*'()", b"-_.~!*'();/?:@&=+$,#", b"-_.*"] {
        for digits in [b"0123456789ABCDEF", b"0123456789abcdef"] {
            into.insert(percent(secret, kept, digits, b"%20"));
            into.insert(percent(secret, kept, digits, b"+"));
        }
    }
    if let Ok(text) = std::str::from_utf8(secret)
        && let Ok(json) = serde_json::to_string(text)
    {
        into.insert(json.as_bytes().get(1..json.len() - 1).unwrap_or_default().to_vec());
    }
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// The characters of the base64 of `offset` bytes, then `secret`, then anything, that `secret` alone decides.
fn inner_base64(engine: &impl base64::Engine, secret: &[u8], offset: usize) -> Vec<u8> {
    let before = vec![0; offset];
    let encoded = engine.encode([before.as_slice(), secret].concat());
    let (first, last) = ((offset * 8).div_ceil(6), (offset + secret.len()) * 8 / 6);
    encoded.as_bytes().get(first..last).unwrap_or_default().to_vec()
}

fn percent(secret: &[u8], kept: &[u8], digits: &[u8; 16], space: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(secret.len() * 3);
    let digit = |nibble: u8| digits.get(usize::from(nibble)).copied().unwrap_or_default();
    for &byte in secret {
        match byte {
            b' ' => out.extend_from_slice(space),
            b if b.is_ascii_alphanumeric() || kept.contains(&b) => out.push(b),
            b => out.extend_from_slice(&[b'%', digit(b >> 4), digit(b & 15)]),
        }
    }
    out
}

/// Aho and Corasick's, with the depth of each state: as many bytes may be the beginning of a secret, and no more.
struct Automaton {
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Default)]
struct Node {
    byte: u8,
    first_child: u32,
    next_sibling: u32,
    /// The longest proper suffix of what leads here that is a node, too.
    fail: u32,
    depth: u32,
    /// Bytes of the longest secret that ends here; 0: none does.
    ends: u32,
}

const ROOT: u32 = 0;

impl Automaton {
    fn new(needles: &BTreeSet<Vec<u8>>) -> Self {
        let mut automaton = Self { nodes: vec![Node::default()] };
        for needle in needles {
            let mut at = ROOT;
            for &byte in needle {
                at = automaton.child(at, byte).unwrap_or_else(|| automaton.grow(at, byte));
            }
            automaton.change(at, |node| node.ends = node.depth);
        }
        automaton.link();
        automaton
    }

    fn node(&self, at: u32) -> Node {
        self.nodes.get(at as usize).copied().unwrap_or_default()
    }

    fn change(&mut self, at: u32, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(at as usize) {
            change(node);
        }
    }

    fn child(&self, at: u32, byte: u8) -> Option<u32> {
        let mut next = self.node(at).first_child;
        while next != ROOT {
            let node = self.node(next);
            if node.byte == byte {
                return Some(next);
            }
            next = node.next_sibling;
        }
        None
    }

    fn grow(&mut self, at: u32, byte: u8) -> u32 {
        // bounded by SECRETS_BYTES_MAX and what its spellings make of it
        let new = u32::try_from(self.nodes.len()).unwrap_or(ROOT);
        let parent = self.node(at);
        let (next_sibling, depth) = (parent.first_child, parent.depth + 1);
        self.nodes.push(Node { byte, next_sibling, depth, ..Node::default() });
        self.change(at, |node| node.first_child = new);
        new
    }

    /// Breadth first: a node's suffixes are shallower.
    fn link(&mut self) {
        let mut level = vec![ROOT];
        while !level.is_empty() {
            let mut deeper = Vec::new();
            for at in level {
                let mut next = self.node(at).first_child;
                while next != ROOT {
                    let node = self.node(next);
                    let fail = if at == ROOT { ROOT } else { self.step(self.node(at).fail, node.byte) };
                    let ends = node.ends.max(self.node(fail).ends);
                    self.change(next, |node| (node.fail, node.ends) = (fail, ends));
                    deeper.push(next);
                    next = node.next_sibling;
                }
            }
            level = deeper;
        }
    }

    fn step(&self, mut at: u32, byte: u8) -> u32 {
        loop {
            match self.child(at, byte) {
                Some(next) => return next,
                None if at == ROOT => return ROOT,
                None => at = self.node(at).fail,
            }
        }
    }
}

/// One stream of output. What it gives out has no secret in it; what could still become one is kept back until it is known.
#[derive(Default)]
pub struct MaskedStream {
    automaton: Option<Arc<Automaton>>,
    state: u32,
    /// What was not given out yet.
    kept: Vec<Kept>,
    /// The last thing given out was a mask.
    masking: bool,
}

struct Kept {
    byte: u8,
    secret: bool,
}

impl MaskedStream {
    /// Takes what came; gives out what is known to be harmless.
    pub fn push(&mut self, data: &[u8]) -> Vec<u8> {
        let Some(automaton) = self.automaton.clone() else { return data.to_vec() };
        let mut out = Vec::with_capacity(data.len());
        for &byte in data {
            self.kept.push(Kept { byte, secret: false });
            if is_line_end(byte) {
                // so few bytes say nothing, and a line is shown when it is whole
                if (automaton.node(self.state).depth as usize) < SECRET_BYTES_MIN {
                    self.give(self.kept.len(), &mut out);
                }
                continue;
            }
            self.state = automaton.step(self.state, byte);
            let Node { depth, ends, .. } = automaton.node(self.state);
            if ends > 0 {
                let from = self.reach(ends as usize);
                self.kept.iter_mut().skip(from).for_each(|kept| kept.secret = true);
            }
            let open = self.reach(depth as usize);
            self.give(open, &mut out);
        }
        out
    }

    /// The rest.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.give(self.kept.len(), &mut out);
        (self.state, self.masking) = (ROOT, false);
        out
    }

    /// Where in `kept` its last `bytes` bytes begin, line ends not counted.
    fn reach(&self, bytes: usize) -> usize {
        let mut left = bytes;
        let mut at = self.kept.len();
        while left > 0 && at > 0 {
            at -= 1;
            left -= usize::from(self.kept.get(at).is_some_and(|kept| !is_line_end(kept.byte)));
        }
        at
    }

    fn give(&mut self, count: usize, out: &mut Vec<u8>) {
        for Kept { byte, secret } in self.kept.drain(..count) {
            if !secret {
                out.push(byte);
            } else if !self.masking {
                out.extend_from_slice(MASK);
            }
            self.masking = secret;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    fn streamed(masker: &Masker, data: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut stream = masker.stream();
        let (mut out, mut from) = (Vec::new(), 0);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (data.len() + 1)).collect();
        cuts.sort_unstable();
        for cut in cuts.into_iter().chain([data.len()]) {
            out.extend(stream.push(&data[from..cut]));
            from = cut;
        }
        out.extend(stream.finish());
        out
    }

    fn holds(text: &[u8], part: &[u8]) -> bool {
        text.windows(part.len()).any(|window| window == part)
    }

    #[test]
    fn every_spelling_becomes_a_mask() {
        let masker = Masker::new([b"p4ss w/rd+\"1\"\n".as_slice()]);
        for said in [
            "p4ss w/rd+\"1\"",
            "p4ss%20w%2Frd%2B%221%22",
            "p4ss%20w%2frd%2b%221%22",
            "p4ss+w%2Frd%2B%221%22",
            "p4ss%20w/rd+%221%22",
            "p4ss w/rd+\\\"1\\\"",
            "703473732077/72642b223122".replace('/', "2f").as_str(),
        ] {
            assert_eq!(masker.text(&format!("a {said} b")), "a *** b", "{said}");
        }
        let encoded = STANDARD.encode("user:p4ss w/rd+\"1\"");
        assert!(masker.text(&encoded).contains("***"), "{encoded}");
        assert_eq!(masker.text("p4ss and w/rd"), "p4ss and w/rd");
        assert_eq!(Masker::default().text("x"), "x");
        assert_eq!(format!("{masker:?}"), "Masker(…)");
    }

    #[test]
    fn the_lines_of_a_secret_are_secrets() {
        let key = "-----BEGIN KEY-----\nMIIabcdefghij\r\nklmnopqrstuv\n}\n-----END KEY-----\n";
        let masker = Masker::new([key.as_bytes()]);
        assert_eq!(
            masker.text("#5 0.1 MIIabcdefghij\n#5 0.2 klmnopqrstuv\n#5 0.3 }"),
            "#5 0.1 ***\n#5 0.2 ***\n#5 0.3 }"
        );
        assert_eq!(masker.text(&key.replace('\n', "\\n")).matches("***").count(), 4);
        let wrapped: Vec<String> = STANDARD
            .encode(key)
            .as_bytes()
            .chunks(20)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        let masked = masker.text(&wrapped.join("\n"));
        assert!(!wrapped.iter().any(|line| masked.contains(line.as_str())), "{masked}");
    }

    #[test]
    fn a_line_that_is_none_is_not_kept_back() {
        let masker = Masker::new([b"swordfish".as_slice(), b"eeeeeeee"]);
        let mut stream = masker.stream();
        assert_eq!(stream.push(b"makes\n"), b"makes\n", "it ends as a secret begins");
        assert_eq!(stream.push(b"see, sword"), b"see, ");
        assert_eq!(stream.push(b"play\n"), b"swordplay\n");
        assert_eq!(stream.push(b"sword\n"), b"", "it may be one that is wrapped");
        assert_eq!(stream.push(b"fish!"), b"***!");
        assert_eq!(stream.push(b"sword"), b"");
        assert_eq!(stream.finish(), b"sword");
    }

    /// D6
    #[test]
    fn no_long_secret_costs_more_than_it_may() {
        let secret: Vec<u8> = (0..SECRETS_BYTES_MAX).map(|n| (n * 7919 % 251) as u8).collect();
        let masker = Masker::new([secret.as_slice()]);
        let said = [b"before ".as_slice(), &secret, b" after"].concat();
        assert_eq!(streamed(&masker, &said, &[16 << 10, 32 << 10]), b"before *** after");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]
        /// D6: no secret under any chunking and spelling.
        #[test]
        fn no_secret_comes_through(
            secret in "[ -~]{4,80}|[a-z]{4}|([!-~]{4,30}\n){1,5}",
            before in "[ -~\n]{0,60}", after in "[ -~\n]{0,60}",
            cuts in prop::collection::vec(0usize..400, 0..8),
            width in 1usize..90,
        ) {
            let bare = secret.trim();
            prop_assume!(bare.len() >= SECRET_BYTES_MIN);
            let masker = Masker::new([secret.as_bytes()]);
            let encoded = STANDARD.encode(format!("{before}{bare}{after}"));
            let wrapped: Vec<u8> = encoded.as_bytes().chunks(width).collect::<Vec<_>>().join(&b'\n');
            let hidden = [
                bare.to_owned(), STANDARD.encode(bare), URL_SAFE_NO_PAD.encode(bare), hex::encode(bare),
                String::from_utf8(percent(bare.as_bytes(), b"-_.~", b"0123456789ABCDEF", b"%20")).unwrap(),
            ];
            for spelled in &hidden {
                let said = format!("{before}{spelled}{after}");
                let masked = streamed(&masker, said.as_bytes(), &cuts);
                let again = format!("{before}{after}").contains(bare);
                prop_assert!(again || !holds(&masked, bare.as_bytes()), "{:?}", String::from_utf8_lossy(&masked));
                prop_assert!(holds(&masked, MASK));
            }
            let masked: Vec<u8> = streamed(&masker, &wrapped, &cuts).into_iter().filter(|b| *b != b'\n').collect();
            let decoded = STANDARD.decode(&masked).unwrap_or_default();
            prop_assert!(!holds(&decoded, bare.as_bytes()), "{:?}", String::from_utf8_lossy(&masked));
        }

        #[test]
        fn what_holds_no_secret_comes_through_whole(text in "[a-m \n]{0,300}", cuts in prop::collection::vec(0usize..300, 0..8)) {
            let masker = Masker::new([b"nopqrstu".as_slice(), b"aaan"]);
            prop_assume!(!text.replace('\n', "").contains("6e6f"));
            prop_assert_eq!(streamed(&masker, text.as_bytes(), &cuts), text.as_bytes());
        }
    }
}
