//! "Did you mean …?": the known name nearest to one that is not known.
//!
//! Deterministic; silent when nothing is near. Must not be used to guess on the user's behalf, only to suggest.

/// The name in `known` nearest to `given`, when it is near enough to be what was meant: at most a third of the letters
/// differ. Case is ignored; of equally near ones the first wins.
pub fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.len() > 128 {
        return None;
    }
    let given = given.to_ascii_lowercase();
    let limit = given.chars().count().div_ceil(3);
    known
        .into_iter()
        .filter(|name| name.len() <= 128)
        .map(|name| (distance(&given, &name.to_ascii_lowercase()), name))
        .filter(|(steps, _)| *steps <= limit)
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (i, ca) in a.chars().enumerate() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        let mut left = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let at = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX / 2);
            let mut best = (at(&above, j) + usize::from(ca != cb)).min(at(&above, j + 1) + 1).min(left + 1);
            let swapped = last == Some(cb) && j > 0 && b.get(j - 1) == Some(&ca);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
            left = best;
        }
        before = std::mem::replace(&mut above, row);
        last = Some(ca);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["platforms", "target", "build_args", "Dockerfile"];
        for (given, expect) in [
            ("platfroms", Some("platforms")),
            ("platform", Some("platforms")),
            ("buildargs", Some("build_args")),
            ("dockerfile", Some("Dockerfile")),
            ("traget", Some("target")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(closest(given, known), expect, "{given}");
        }
    }

    #[test]
    fn distances() {
        for (a, b, steps) in [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), steps, "{a} {b}");
            assert_eq!(distance(b, a), steps, "{b} {a}");
        }
    }
}
