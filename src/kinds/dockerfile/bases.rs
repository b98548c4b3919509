//! Base images that the source rules refuse, found in the Dockerfile's own lines: an early answer with file and line.
//!
//! Only what is plain is judged: an image with a variable in it, and what follows a here-document or an escape directive,
//! is left to the daemon, which holds the same rules for everything. Must not refuse what the daemon would take.

use crate::kinds::KindError;
use crate::model::SourceRules;

/// Refuses the first `FROM` line that names an image the app may not build on.
pub(super) fn check(source: &[u8], path: &str, rules: &SourceRules) -> Result<(), KindError> {
    let text = String::from_utf8_lossy(source);
    if text
        .lines()
        .any(|line| line.trim_start().to_ascii_lowercase().replace(' ', "").starts_with("#escape="))
    {
        return Ok(());
    }
    let mut stages: Vec<String> = vec!["scratch".to_owned()];
    for (line, instruction) in instructions(&text) {
        let mut words = instruction.split_whitespace();
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("FROM")) {
            continue;
        }
        let mut words = words.skip_while(|word| word.starts_with("--"));
        let Some(image) = words.next() else { continue };
        let known = stages.iter().any(|stage| stage.eq_ignore_ascii_case(image));
        if let ["AS" | "as" | "As" | "aS", stage] = words.collect::<Vec<_>>().as_slice() {
            stages.push((*stage).to_owned());
        }
        if known || image.contains(['$', '\\', '"', '\'']) {
            continue;
        }
        if let Some(refusal) = rules.refuses(&format!("docker-image://{}", full(image))) {
            return Err(KindError::Base {
                path: path.to_owned(),
                line,
                image: image.to_owned(),
                refusal: refusal.clone(),
            });
        }
    }
    Ok(())
}

/// Instructions on one line each, with the number of their first line, up to the first here-document.
fn instructions(text: &str) -> Vec<(usize, String)> {
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.contains("<<") {
            break;
        }
        // comments and empty lines do not end an instruction that goes on
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (part, goes_on) = match line.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (line, false),
        };
        match found.last_mut().filter(|_| open) {
            Some((_, instruction)) => {
                instruction.push(' ');
                instruction.push_str(part);
            }
            None => found.push((at + 1, part.to_owned())),
        }
        open = goes_on;
    }
    found
}

/// The image's name as BuildKit completes it.
fn full(image: &str) -> String {
    let is_host =
        |part: &str| part.contains(['.', ':']) || part == "localhost" || part != part.to_ascii_lowercase();
    let (host, path) = match image.split_once('/') {
        Some((host, path)) if is_host(host) => (host, path.to_owned()),
        _ => ("docker.io", image.to_owned()),
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let path = if host == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path };
    let last = path.rsplit('/').next().unwrap_or_default();
    let tag = if last.contains([':', '@']) { "" } else { ":latest" };
    format!("{host}/{path}{tag}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Refusal, SourcePolicy, Tenant};

    fn first_refused(source: &str, base_images: &[&str]) -> Option<(usize, String)> {
        let policy = SourcePolicy {
            base_images: base_images.iter().map(|p| (*p).to_owned()).collect(),
            ..SourcePolicy::default()
        };
        let tenant = Tenant {
            own: &"r.example.com/team/shop".parse().unwrap(),
            prefix: Some(&"r.example.com/team".parse().unwrap()),
            others: &[],
            frontends: &[],
        };
        let rules = SourceRules::new(&policy, &tenant).unwrap();
        match check(source.as_bytes(), "Dockerfile", &rules) {
            Ok(()) => None,
            Err(KindError::Base { line, image, .. }) => Some((line, image)),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn the_first_base_that_is_refused_is_named_with_its_line() {
        let hit = |line, image: &str| Some((line, image.to_owned()));
        let own = |source| first_refused(source, &[]);
        assert_eq!(own("# c\n\nFROM r.example.com/team/blog\n"), hit(3, "r.example.com/team/blog"));
        assert_eq!(
            own("from --platform=$BUILDPLATFORM \\\n  # c\n  r.example.com/team/blog:1 as x\n"),
            hit(1, "r.example.com/team/blog:1")
        );
        assert_eq!(own("FROM r.example.com/team/shop:main\nFROM busybox AS b\nFROM b\nFROM scratch\n"), None);
        let library = |source| first_refused(source, &["docker.io/library/*"]);
        assert_eq!(
            library("FROM busybox:1\nFROM library/alpine AS a\nFROM A\nFROM team/x\n"),
            hit(4, "team/x")
        );
        assert_eq!(library("ARG B=quay.io/x\nFROM $B\n"), None, "left to the daemon");
        assert_eq!(library("FROM busybox\nRUN <<EOF\nFROM quay.io/x\nEOF\n"), None);
        assert_eq!(library("# escape=`\nFROM quay.io/x\n"), None);
    }

    #[test]
    fn the_refusal_says_what_is_allowed() {
        let refusal = Refusal::NotListed { allowed: vec!["docker.io/library/*".into()] };
        let error =
            KindError::Base { path: "Dockerfile".into(), line: 2, image: "quay.io/x".into(), refusal };
        assert_eq!(
            error.to_string(),
            "Dockerfile:2: the base image \"quay.io/x\" is refused: base images here are docker.io/library/*"
        );
    }
}
