//! Which builder takes which platforms: pure, so that a plan's fate can be told before anything runs.

use crate::model::Platform;

/// What assignment needs to know of a builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    pub name: String,
    /// Platforms that the operator bound to it; empty: any it can run.
    pub bound: Vec<Platform>,
    /// What its workers report, the native one first.
    pub reported: Vec<Platform>,
}

impl Capacity {
    /// Lower is better; none where the builder cannot take the platform.
    fn rank(&self, platform: &Platform) -> Option<u8> {
        let reported = self.reported.iter().position(|p| p == platform);
        match (self.bound.contains(platform), reported) {
            (true, _) => Some(0),
            _ if !self.bound.is_empty() => None,
            (false, Some(0)) => Some(1),
            // the worker runs it through an emulator
            (false, Some(_)) => Some(2),
            (false, None) => None,
        }
    }
}

/// A platform that no builder takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no builder takes {platform}; there are: {builders}")]
pub struct Unserved {
    pub platform: Platform,
    pub builders: String,
}

/// Platforms that become one solve, in plan order, and the builders that take them equally well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub builders: Vec<usize>,
    pub platforms: Vec<Platform>,
}

/// Splits `platforms` over `builders`: bound beats native beats emulated. Platforms that the same builders take best go
/// together, since one solve for several costs less than several.
pub fn assign(builders: &[Capacity], platforms: &[Platform]) -> Result<Vec<Group>, Unserved> {
    let mut groups: Vec<Group> = Vec::new();
    for platform in platforms {
        let ranks = || builders.iter().enumerate().filter_map(|(i, b)| Some((i, b.rank(platform)?)));
        let Some(best) = ranks().map(|(_, rank)| rank).min() else {
            return Err(Unserved { platform: platform.clone(), builders: describe(builders) });
        };
        let takers: Vec<usize> = ranks().filter(|(_, rank)| *rank == best).map(|(i, _)| i).collect();
        match groups.iter_mut().find(|group| group.builders == takers) {
            Some(group) => group.platforms.push(platform.clone()),
            None => groups.push(Group { builders: takers, platforms: vec![platform.clone()] }),
        }
    }
    Ok(groups)
}

fn describe(builders: &[Capacity]) -> String {
    let one = |b: &Capacity| {
        let platforms = if b.bound.is_empty() { &b.reported } else { &b.bound };
        let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        format!("{} ({})", b.name, names.join(" "))
    };
    match builders {
        [] => "none".to_owned(),
        _ => builders.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn builder(name: &str, bound: &[&str], reported: &[&str]) -> Capacity {
        let parse = |list: &[&str]| list.iter().map(|p| platform(p)).collect();
        Capacity { name: name.into(), bound: parse(bound), reported: parse(reported) }
    }

    fn check(builders: &[Capacity], platforms: &[&str], expected: &str) {
        let platforms: Vec<Platform> = platforms.iter().map(|p| platform(p)).collect();
        let got = match assign(builders, &platforms) {
            Ok(groups) => groups
                .iter()
                .map(|group| {
                    let names: Vec<&str> =
                        group.builders.iter().map(|i| builders[*i].name.as_str()).collect();
                    let platforms: Vec<String> = group.platforms.iter().map(ToString::to_string).collect();
                    format!("{}={}", names.join("|"), platforms.join(", "))
                })
                .collect::<Vec<_>>()
                .join("; "),
            Err(e) => e.to_string(),
        };
        assert_eq!(got, expected);
    }

    #[test]
    fn one_builder_takes_all_in_one_solve() {
        let one = [builder("a", &[], &["linux/amd64", "linux/arm64"])];
        check(&one, &["linux/amd64", "linux/arm64"], "a=linux/amd64, linux/arm64");
    }

    #[test]
    fn equals_are_all_named_and_take_their_platforms_together() {
        let both = &["linux/amd64", "linux/arm64"][..];
        let three = [builder("a", &[], both), builder("b", &[], both), builder("arm", &[], &["linux/arm64"])];
        check(&three, &["linux/arm64", "linux/amd64"], "arm=linux/arm64; a|b=linux/amd64");
        check(&three[..2], both, "a|b=linux/amd64, linux/arm64");
    }

    #[test]
    fn a_native_builder_beats_an_emulating_one() {
        let two =
            [builder("x86", &[], &["linux/amd64", "linux/arm64"]), builder("arm", &[], &["linux/arm64"])];
        check(&two, &["linux/arm64", "linux/amd64"], "arm=linux/arm64; x86=linux/amd64");
    }

    #[test]
    fn the_operators_binding_beats_all_and_excludes_the_rest() {
        let two = [
            builder("a", &["linux/arm64"], &["linux/amd64", "linux/arm64"]),
            builder("b", &[], &["linux/amd64", "linux/arm64"]),
        ];
        check(&two, &["linux/amd64", "linux/arm64"], "b=linux/amd64; a=linux/arm64");
        check(&two[..1], &["linux/amd64"], "no builder takes linux/amd64; there are: a (linux/arm64)");
        check(&[], &["linux/amd64"], "no builder takes linux/amd64; there are: none");
    }
}
