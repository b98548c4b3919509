//! What a failed solve means to the person who pushed: where, why, and what to do. Pure.

use crate::event::{Failure, plain_line};
use crate::model::{Platform, Refusal};

/// What is known of a failed solve, freed of the wire.
#[derive(Debug, Clone, Default)]
pub struct FailedSolve {
    /// The daemon's message.
    pub message: String,
    /// Name of the failing vertex: `[linux/amd64 2/3] RUN make`.
    pub vertex: Option<String>,
    pub exit_code: Option<i32>,
    /// The only platform of the solve: BuildKit names platforms in multi-platform solves only.
    pub only: Option<Platform>,
    /// Dockerfile path from the root of the tree.
    pub file: String,
    /// 1-based first and last guilty line, with the file's text.
    pub lines: Option<(u32, u32)>,
    pub source_text: String,
    /// The failing step's last lines.
    pub log_tail: Vec<String>,
    /// The source that the daemon refused by our rules, and why.
    pub refused: Option<(String, Refusal)>,
    /// The secret that a step needs and the build does not have, and what to do about it.
    pub missing: Option<(String, String)>,
    /// Whether the user's tree is to blame, not the machinery.
    pub builds_fault: bool,
}

/// BuildKit's name of the source that it refused by policy.
pub fn refused_source(message: &str) -> Option<&str> {
    let (before, _) = message.split_once("\" denied by policy")?;
    before.rsplit_once("source \"").map(|(_, name)| name)
}

/// The secret that a step of the build needs and did not get, by its name.
pub fn missing_secret(message: &str) -> Option<&str> {
    let (before, _) = message.split_once(": not found")?;
    let (_, name) = before.rsplit_once("secret ")?;
    name.parse::<crate::model::SecretName>().is_ok().then_some(name)
}

/// A source as the Dockerfile would name it.
pub fn shown_source(name: &str) -> String {
    let image = name.strip_prefix("docker-image://").or_else(|| name.strip_prefix("docker-image+blob://"));
    plain_line(image.unwrap_or(name))
}

/// Longest reason that git prints on one line and people still read.
const REASON_CHARS: usize = 160;
/// Lines shown before and after the guilty ones.
const EXCERPT_MARGIN: u32 = 2;

impl FailedSolve {
    pub fn into_failure(self) -> Failure {
        let message = match &self.refused {
            Some((source, refusal)) => format!("{source} is refused: {}", refusal.policy()),
            None => innermost(&self.message),
        };
        let location = self.lines.map(|(first, _)| format!("{}:{first}", plain_line(&self.file)));
        if let Some(failure) = self.refused_by_registry(&message) {
            return failure;
        }
        let instruction = self.vertex.as_deref().filter(|vertex| !is_internal(vertex)).map(instruction);
        let blamed = self.builds_fault || self.refused.is_some();
        let (what, cause) = match (&instruction, self.exit_code) {
            (Some(i), Some(code)) => (
                format!("{i}, exit {code}"),
                match self.platform() {
                    Some(platform) => format!("{i} ended with exit code {code} on {platform}"),
                    None => format!("{i} ended with exit code {code}"),
                },
            ),
            (Some(i), None) if blamed => (format!("{i}: {message}"), format!("{i}: {message}")),
            _ => (message.clone(), message.clone()),
        };
        let reason = match (&location, blamed) {
            (Some(at), true) => format!("build failed: {at} {what}"),
            (None, true) => format!("build failed: {what}"),
            (_, false) => format!("builder failed: {message}"),
        };
        Failure {
            reason: shorten(&reason, REASON_CHARS),
            cause,
            remedy: Some(self.remedy(&message)),
            location,
            excerpt: self.excerpt(),
            log_tail: self.log_tail,
        }
    }

    /// The image was built, and the registry did not take it: neither the commit nor the builder is to blame.
    fn refused_by_registry(&self, message: &str) -> Option<Failure> {
        let (image, why) = message.strip_prefix("failed to push ")?.split_once(": ")?;
        let host = image.split_once('/').map_or(image, |(host, _)| host);
        let why = why.rsplit(": ").next().unwrap_or(why);
        Some(
            Failure::new(
                shorten(&format!("registry {host}: {why}"), REASON_CHARS),
                format!("the registry {host} did not take the image: {why}"),
            )
            .with_remedy("nothing has changed: push again; if it stays, the operator looks at the registry"),
        )
    }

    fn platform(&self) -> Option<Platform> {
        self.vertex.as_deref().and_then(named_platform).or_else(|| self.only.clone())
    }

    /// The guilty lines with their neighbours, as `number: text`, the guilty ones marked with `>`.
    fn excerpt(&self) -> Vec<String> {
        let Some((first, last)) = self.lines else { return Vec::new() };
        let from = first.saturating_sub(EXCERPT_MARGIN).max(1);
        (from..)
            .zip(self.source_text.lines().skip(from as usize - 1))
            .take_while(|(number, _)| *number <= last.saturating_add(EXCERPT_MARGIN))
            .map(|(number, text)| {
                let mark = if (first..=last).contains(&number) { '>' } else { ' ' };
                format!("{mark} {number:>3}: {}", plain_line(text))
            })
            .collect()
    }

    fn remedy(&self, message: &str) -> String {
        let said = |needle: &str| {
            message.contains(needle)
                || self.message.contains(needle)
                || self.log_tail.iter().any(|l| l.contains(needle))
        };
        if let Some((_, refusal)) = &self.refused {
            return refusal.remedy().to_owned();
        }
        if let Some((_, remedy)) = &self.missing {
            return remedy.clone();
        }
        let text = match () {
            () if !self.builds_fault => {
                "this is not your commit's fault: push again; if it stays, tell the operator what stands above"
            }
            () if said("exec format error") => {
                "the builder cannot run programs of this platform: the operator must register qemu's binfmt handlers \
                 (package qemu-user-static) or add a native builder"
            }
            () if said("failed to resolve source metadata")
                && (said("not found") || said("does not exist")) =>
            {
                "check the image's name and tag after FROM; a private image needs credentials on the server"
            }
            () if said("no match for platform") => {
                "the base image lacks this platform: choose another base, or build fewer platforms \
                 (lemnos apps set APP platforms=…)"
            }
            () if said("failed to resolve source metadata") => {
                "the base image's registry did not answer: push again, or ask the operator whether the builder reaches it"
            }
            () if said("failed to calculate checksum") || said("\"/") && said("not found") => {
                "the file is not in the commit, or .dockerignore leaves it out: check `git ls-files`"
            }
            () if said("granted entitlement") || said("is not allowed") => {
                "insecure and host-network steps are not allowed on this server: take the option out of the RUN line"
            }
            () if said("no space left on device") || said("No space left on device") => {
                "the builder's disk is full, or a file system that the step mounts: let the step write less, or tell the operator"
            }
            () if self.exit_code == Some(127) => {
                "the command is not in the image at this step: install it in an earlier RUN"
            }
            () if self.exit_code == Some(137) => {
                "the step was killed, most often for its memory: let it use less"
            }
            // not a Dockerfile's: a command of the project's own
            () if self.exit_code.is_some() && self.file.is_empty() => {
                "mend it and push again; the same command shows the same on your machine"
            }
            () if self.exit_code.is_some() => {
                "mend the step and push again; `lemnos build . -t REF` or `docker build .` runs it on your machine"
            }
            () if self.file.is_empty() => "mend what it names and push again",
            () => "mend the Dockerfile and push again",
        };
        text.to_owned()
    }
}

/// `[linux/amd64 2/3] RUN make` -> (`linux/amd64 2/3`, `RUN make`)
fn bracket(vertex: &str) -> Option<(&str, &str)> {
    vertex.strip_prefix('[')?.split_once("] ")
}

/// The platform in `[linux/amd64 2/3] RUN make`.
pub(super) fn named_platform(name: &str) -> Option<Platform> {
    let (tag, _) = bracket(name)?;
    let first = tag.split(' ').next()?;
    // `2/3` alone would read as a platform too
    first.bytes().next().is_some_and(|b| b.is_ascii_alphabetic()).then(|| first.parse().ok())?
}

/// `[linux/amd64 internal] load metadata for …` is the frontend's own step, no line of a Dockerfile.
fn is_internal(vertex: &str) -> bool {
    bracket(vertex).is_some_and(|(tag, _)| tag.rsplit(' ').next() == Some("internal"))
}

/// The instruction of a vertex name, on one line.
fn instruction(vertex: &str) -> String {
    let text = bracket(vertex).map_or(vertex, |(_, rest)| rest);
    shorten(&text.split_whitespace().collect::<Vec<_>>().join(" "), 80)
}

/// A daemon's message without the chain of `failed to …:` that wraps it.
fn innermost(message: &str) -> String {
    let mut text = message.trim();
    for wrapper in ["failed to solve: ", "failed to compute cache key: "] {
        while let Some(rest) = text.strip_prefix(wrapper) {
            text = rest;
        }
    }
    // the ref is BuildKit's own name for a snapshot; the image stands once more after its wrapper
    if let Some((_, rest)) = text.split_once("failed to calculate checksum of ref ") {
        text = rest.split_once(": ").map_or(rest, |(_, rest)| rest);
    }
    if let Some((_, rest)) = text.split_once("failed to resolve source metadata for ") {
        let image = rest.split_once(": ").map_or("", |(image, _)| image);
        text = rest.strip_prefix(image).and_then(|r| r.strip_prefix(": ")).unwrap_or(rest);
        if !text.starts_with(image) {
            text = rest;
        }
    }
    let one_line: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    plain_line(&one_line.join("; "))
}

/// At most `chars` characters, the end replaced by `…`.
pub fn shorten(text: &str, chars: usize) -> String {
    if text.chars().count() <= chars {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(chars.saturating_sub(1)).collect();
    short.push('…');
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_secret_is_known_by_its_name_and_its_remedy_comes_first() {
        let message =
            "failed to solve: process \"/bin/sh -c x\" did not complete: secret npm_token: not found";
        assert_eq!(missing_secret(message), Some("npm_token"));
        for other in
            ["secret a b: not found", "file x: not found", "secret npm: denied", "secret : not found"]
        {
            assert_eq!(missing_secret(other), None, "{other}");
        }
        let missing = Some(("npm_token".to_owned(), "add it".to_owned()));
        let message = message.to_owned();
        let failure =
            FailedSolve { message, missing, builds_fault: true, ..FailedSolve::default() }.into_failure();
        assert_eq!(failure.remedy.as_deref(), Some("add it"));
    }

    #[test]
    fn a_failing_run_names_line_command_and_exit() {
        let failure = FailedSolve {
            message:
                "failed to solve: process \"/bin/sh -c make\" did not complete successfully: exit code: 2"
                    .into(),
            vertex: Some("[linux/arm64 2/2] RUN make".into()),
            exit_code: Some(2),
            only: None,
            file: "Dockerfile".into(),
            lines: Some((3, 3)),
            source_text: "FROM busybox\n\nRUN make\nRUN true\n".into(),
            log_tail: vec!["no rule".into()],
            refused: None,
            missing: None,
            builds_fault: true,
        }
        .into_failure();
        assert_eq!(failure.reason, "build failed: Dockerfile:3 RUN make, exit 2");
        assert_eq!(failure.cause, "RUN make ended with exit code 2 on linux/arm64");
        assert_eq!(failure.excerpt, ["    1: FROM busybox", "    2: ", ">   3: RUN make", "    4: RUN true"]);
    }

    #[test]
    fn a_registry_that_does_not_take_the_image_is_named() {
        let failure = |why: &str| {
            let message = format!("failed to solve: failed to push r.example.com:5000/team/shop: {why}");
            FailedSolve { message, ..FailedSolve::default() }.into_failure()
        };
        let away = failure(
            "failed to do request: Head \"http://r.example.com:5000/v2/team/shop/blobs/sha256:09\": dial tcp 192.0.2.1:5000: connect: connection refused",
        );
        assert_eq!(away.reason, "registry r.example.com:5000: connection refused");
        assert!(away.cause.contains("did not take the image") && away.remedy.unwrap().contains("push again"));
        let full = failure(
            "unexpected status from PUT request to https://r.example.com:5000/v2/…: 507 Insufficient Storage",
        );
        assert_eq!(full.reason, "registry r.example.com:5000: 507 Insufficient Storage");
    }

    #[test]
    fn buildkits_own_names_are_left_out_of_the_cause() {
        let failure = |vertex: &str, message: &str| {
            let lines = Some((2, 2));
            let (vertex, message, file) = (Some(vertex.into()), message.into(), "Dockerfile".into());
            FailedSolve { message, vertex, file, lines, builds_fault: true, ..FailedSolve::default() }
                .into_failure()
        };
        let missing = failure(
            "[linux/amd64 2/2] COPY nofile /",
            "failed to solve: failed to compute cache key: failed to calculate checksum of ref wp0q::pedf: \"/nofile\": not found",
        );
        assert_eq!(missing.reason, "build failed: Dockerfile:2 COPY nofile /: \"/nofile\": not found");
        assert!(missing.remedy.unwrap().contains("git ls-files"));
        let image = "docker.io/nosuch/image:1";
        let unknown = failure(
            &format!("[linux/arm64 internal] load metadata for {image}"),
            &format!(
                "failed to solve: nosuch/image:1: failed to resolve source metadata for {image}: {image}: not found"
            ),
        );
        assert_eq!(unknown.reason, format!("build failed: Dockerfile:2 {image}: not found"));
        assert!(unknown.remedy.unwrap().contains("after FROM"));
        let denied = failure(
            &format!("[internal] load metadata for {image}"),
            &format!("nosuch/image:1: failed to resolve source metadata for {image}: pull access denied"),
        );
        assert_eq!(denied.cause, format!("{image}: pull access denied"));
    }

    #[test]
    fn the_machinerys_fault_is_said_to_be_so() {
        let failure =
            FailedSolve { message: "connection reset".into(), ..FailedSolve::default() }.into_failure();
        assert_eq!(failure.reason, "builder failed: connection reset");
        assert!(failure.remedy.unwrap().contains("not your commit's fault"));
    }

    #[test]
    fn a_refused_source_is_named_with_the_policy_and_the_remedy() {
        let message = "failed to solve: r.example.com/team/blog: could not resolve image due to policy: source \"docker-image://r.example.com/team/blog:latest\" denied by policy: source denied by policy";
        assert_eq!(refused_source(message), Some("docker-image://r.example.com/team/blog:latest"));
        assert_eq!(refused_source("source denied"), None);
        let failure = FailedSolve {
            message: message.into(),
            refused: Some(("r.example.com/team/blog:latest".into(), Refusal::NotOwn)),
            file: "Dockerfile".into(),
            lines: Some((1, 1)),
            ..FailedSolve::default()
        }
        .into_failure();
        assert!(
            failure.reason.starts_with(
                "build failed: Dockerfile:1 r.example.com/team/blog:latest is refused: it lies among"
            ),
            "{}",
            failure.reason
        );
        assert!(failure.remedy.unwrap().contains("base_images"));
    }

    #[test]
    fn emulation_is_explained() {
        let failure = FailedSolve {
            message: "process did not complete successfully: exit code: 255".into(),
            vertex: Some("[linux/arm64 2/2] RUN ls".into()),
            exit_code: Some(255),
            log_tail: vec!["exec /bin/sh: exec format error".into()],
            builds_fault: true,
            ..FailedSolve::default()
        }
        .into_failure();
        assert!(failure.remedy.unwrap().contains("binfmt"));
    }

    #[test]
    fn reasons_stay_one_short_line() {
        let failure = FailedSolve {
            message: format!("a\nb {}", "x".repeat(400)),
            builds_fault: true,
            ..FailedSolve::default()
        }
        .into_failure();
        assert!(failure.reason.starts_with("build failed: a; b xxx"));
        assert!(failure.reason.chars().count() <= REASON_CHARS && failure.reason.ends_with('…'));
    }
}
