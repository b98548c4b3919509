//! `buildpacks/spin/recipe.toml`: which image builds what, embedded when lemnos is compiled; and which toolchain a component's
//! commands mean.
//!
//! A command's program decides, never a file beside it: what is not plain is asked of the user. Must not run or expand anything.

use std::sync::LazyLock;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    pub manifest: String,
    pub toolchains: Vec<Toolchain>,
    others: Vec<Other>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Toolchain {
    pub name: String,
    programs: Vec<String>,
    pub image: String,
    pub prepare: Vec<String>,
    pub caches: Vec<String>,
}

/// Recognised, and not built without an image of the user's.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Other {
    name: String,
    programs: Vec<String>,
    needs: String,
}

/// The recipe.
pub(super) static RECIPE: LazyLock<Recipe> = LazyLock::new(|| {
    toml::from_str(include_str!("../../../buildpacks/spin/recipe.toml"))
        .expect("the embedded recipe is read by a test of this file")
});

/// The toolchain that commands mean, or why there is none: a clause.
pub(super) fn toolchain(commands: &[String]) -> Result<&'static Toolchain, String> {
    let called: Vec<&str> = commands.iter().flat_map(|command| programs(command)).collect();
    let of =
        |programs: &[String]| called.iter().any(|called| programs.iter().any(|program| program == called));
    if let Some(other) = RECIPE.others.iter().find(|other| of(&other.programs)) {
        return Err(format!(
            "it is a {} build, whose image is not known: it needs {}",
            other.name, other.needs
        ));
    }
    let found: Vec<&Toolchain> =
        RECIPE.toolchains.iter().filter(|toolchain| of(&toolchain.programs)).collect();
    match found.as_slice() {
        [toolchain] => Ok(toolchain),
        [] => Err(format!("no toolchain is known for {}", some(&called))),
        [first, second, ..] => Err(format!("it needs both {} and {}", first.name, second.name)),
    }
}

fn some(programs: &[&str]) -> String {
    let named: Vec<String> = programs.iter().take(3).map(|program| format!("{program:?}")).collect();
    if named.is_empty() { "its command".to_owned() } else { named.join(", ") }
}

/// The programs that a shell command calls, as far as that is plain: the first word of each part, without assignments before it
/// and without its directory.
fn programs(command: &str) -> impl Iterator<Item = &str> {
    command.split(['&', '|', ';', '\n', '(', ')']).filter_map(|part| {
        let mut words = part.split_whitespace().skip_while(|word| {
            word.split_once('=')
                .is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        });
        let word = words.next()?.trim_matches(['"', '\'']);
        Some(word.rsplit('/').next().unwrap_or(word)).filter(|program| *program != "cd")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_recipe_is_whole() {
        assert!(!RECIPE.manifest.is_empty());
        assert_eq!(RECIPE.toolchains.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["Rust", "Python"]);
        for toolchain in &RECIPE.toolchains {
            let (image, tag) = toolchain.image.rsplit_once(':').unwrap();
            assert!(
                image.parse::<crate::model::ImageName>().is_ok() && tag.parse::<crate::model::Tag>().is_ok()
            );
            assert!(!toolchain.prepare.is_empty() && toolchain.caches.iter().all(|dir| dir.starts_with('/')));
        }
    }

    #[test]
    fn programs_are_what_a_command_calls() {
        let of = |command| programs(command).collect::<Vec<_>>();
        assert_eq!(
            of("cd x && RUSTFLAGS=-g A=1 cargo build; ./tools/wasm-opt a | tee b"),
            ["cargo", "wasm-opt", "tee"]
        );
        assert_eq!(of("  "), Vec::<&str>::new());
    }

    #[test]
    fn toolchains_are_chosen_by_program() {
        let of = |command: &str| {
            toolchain(&[command.to_owned()]).map_or_else(|why| why, |toolchain| toolchain.name.clone())
        };
        let said = [
            "cargo build --target wasm32-wasip1 --release",
            "componentize-py -w spin-http componentize app -o app.wasm",
            "npm install && npm run build",
            "tinygo build -o main.wasm .",
            "cargo build && python3 gen.py",
            "./build.sh",
            "",
        ]
        .map(|command| format!("{command:?}: {}", of(command)));
        insta::assert_snapshot!(said.join("\n"));
    }
}
