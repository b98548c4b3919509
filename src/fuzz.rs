//! Fuzzing inside the unit tests: seeded mutations of a corpus, with a count of runs that is worth the name.
//!
//! Compiled for tests only. Every run is repeatable: the same seed gives the same inputs. `LEMNOS_TEST_FUZZ=N` runs N times
//! as many inputs. Must not depend on anything of lemnos, so that every module can use it.

use std::time::Instant;

const MAX_BYTES: usize = 2_000;

/// SplitMix64: tiny, seeded, good enough to choose mutations.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

/// Shows the input when the check panics.
struct Blame<'a>(&'a [u8]);

impl Drop for Blame<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the input was: b\"{}\"", self.0.escape_ascii());
        }
    }
}

/// How many times the usual number of inputs a target gets.
#[allow(clippy::disallowed_methods, reason = "a test's own switch, no setting of the program")]
fn times() -> u64 {
    std::env::var("LEMNOS_TEST_FUZZ").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// Calls `check` with `runs` mutations of `corpus`, into which words of `dictionary` are put; `check` says whether the input was
/// taken. Both answers must occur: a target that refuses everything, or nothing, tests nothing.
pub fn run(
    name: &str,
    runs: u64,
    corpus: &[&[u8]],
    dictionary: &[&[u8]],
    mut check: impl FnMut(&[u8]) -> bool,
) {
    let runs = runs * times();
    let mut rng = Rng::new(name.bytes().fold(7, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into())));
    let (mut taken, mut refused) = (0_u64, 0_u64);
    let began = Instant::now();
    for _ in 0..runs {
        let mut input = corpus[rng.below(corpus.len())].to_vec();
        for _ in 0..rng.below(6) {
            mutate(&mut input, corpus, dictionary, &mut rng);
        }
        input.truncate(MAX_BYTES);
        let blame = Blame(&input);
        if check(blame.0) {
            taken += 1;
        } else {
            refused += 1;
        }
    }
    let rate = runs as f64 / began.elapsed().as_secs_f64();
    eprintln!("fuzz {name}: {runs} inputs, {taken} taken, {refused} refused, {rate:.0} a second");
    assert!(taken > runs / 100 && refused > runs / 100, "{name}: {taken} taken, {refused} refused");
}

fn mutate(input: &mut Vec<u8>, corpus: &[&[u8]], dictionary: &[&[u8]], rng: &mut Rng) {
    let at = rng.below(input.len() + 1);
    match rng.below(8) {
        0 => input.insert(at, rng.next().to_le_bytes()[0]),
        1 if !input.is_empty() => {
            let at = rng.below(input.len());
            input[at] ^= 1 << rng.below(8);
        }
        2 if !input.is_empty() => {
            input.remove(rng.below(input.len()));
        }
        3 => input.truncate(at),
        4 => {
            // half of this one and half of another
            let other = corpus[rng.below(corpus.len())];
            input.truncate(at);
            input.extend_from_slice(&other[rng.below(other.len() + 1)..]);
        }
        5 => {
            let piece = input[at..(at + rng.below(30)).min(input.len())].to_vec();
            for _ in 0..rng.below(8) {
                input.splice(at..at, piece.iter().copied());
            }
        }
        _ => {
            let word = dictionary[rng.below(dictionary.len())];
            input.splice(at..at, word.iter().copied());
        }
    }
}
