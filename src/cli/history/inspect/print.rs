//! One build told to people. Nothing of what a daemon or a build says reaches the terminal as an order.

use std::time::Duration;

use super::{Inspected, Pair};
use crate::cli::figures::took;
use crate::console::table::{Table, time_text};
use crate::event::{plain_line, plain_text};

pub fn text(build: &Inspected) -> String {
    let mut blocks = vec![head(build), pairs("NAMED CONTEXT", &build.named_contexts), course(build)];
    blocks.push(lines(build.options.iter().map(|pair| (pair.name.as_str(), pair.value.clone()))));
    blocks.extend([pairs("BUILD ARG", &build.build_args), pairs("LABEL", &build.labels)]);
    let mut materials = Table::new(["MATERIAL", "DIGEST"]);
    for one in &build.materials {
        materials.row([plain_line(&one.uri), plain_line(&one.digests.join(", "))]);
    }
    if !build.materials.is_empty() {
        blocks.push(materials.to_string());
    }
    let mut attachments = Table::new(["ATTACHMENT", "PLATFORM", "TYPE"]);
    for one in &build.attachments {
        attachments.row([plain_line(&one.digest), plain_line(&one.platform), plain_line(&one.r#type)]);
    }
    if !build.attachments.is_empty() {
        blocks.push(attachments.to_string());
    }
    if let Some(error) = &build.error {
        if !error.sources.is_empty() {
            blocks.push(format!("{}\n", plain_text(&error.sources)));
        }
        if !error.logs.is_empty() {
            let logs = error.logs.iter().map(|line| format!("> {}\n", plain_line(line)));
            blocks.push(format!("last words of {}:\n{}", plain_line(&error.name), logs.collect::<String>()));
        }
    }
    blocks.push(format!("what it said: lemnos buildkit history logs {}\n", plain_line(&build.r#ref)));
    blocks.retain(|block| !block.is_empty());
    blocks.join("\n")
}

fn head(build: &Inspected) -> String {
    lines([
        ("Name", build.name.clone()),
        ("Ref", build.r#ref.clone()),
        ("Context", build.context.clone()),
        ("Dockerfile", build.dockerfile.clone()),
        ("Repository", build.repository.clone()),
        ("Revision", build.revision.clone()),
        ("Target", build.target.clone()),
        ("Platforms", build.platform.join(", ")),
    ])
}

/// How it went.
fn course(build: &Inspected) -> String {
    let steps = format!(
        "{} of {}, {} cached",
        build.num_completed_steps, build.num_total_steps, build.num_cached_steps
    );
    let error = build.error.as_ref();
    lines([
        ("Status", build.status.to_owned()),
        ("Started", build.started_at.map(|at| format!("{} UTC", time_text(at.ms()))).unwrap_or_default()),
        ("Duration", took(Duration::from_nanos(build.duration))),
        ("Steps", steps),
        ("Error", error.map(|error| error.message.clone()).unwrap_or_default()),
    ])
}

/// `Name:  value` lines, aligned; without those that have no value.
fn lines<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let shown = |(name, value): (&str, String)| (format!("{}:", plain_line(name)), plain_line(&value));
    let pairs: Vec<_> = pairs.into_iter().filter(|(_, value)| !value.is_empty()).map(shown).collect();
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

fn pairs(title: &str, pairs: &[Pair]) -> String {
    if pairs.is_empty() {
        return String::new();
    }
    let mut table = Table::new([title, "VALUE"]);
    pairs.iter().for_each(|pair| table.row([plain_line(&pair.name), plain_line(&pair.value)]));
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::{Attached, Failed, Material};
    use super::*;
    use crate::buildkit::Moment;

    #[test]
    fn a_failed_build_is_told_whole_without_what_steers_a_terminal() {
        let pair = |name: &str, value: &str| Pair { name: name.to_owned(), value: value.to_owned() };
        let build = Inspected {
            name: "shop\u{1b}[2J".to_owned(),
            r#ref: "abc".to_owned(),
            dockerfile: "Dockerfile".to_owned(),
            platform: vec!["linux/amd64".to_owned()],
            started_at: Some(Moment::from_ms(0)),
            duration: 2_500_000_000,
            status: "failed",
            num_completed_steps: 2,
            num_total_steps: 3,
            num_cached_steps: 1,
            build_args: vec![pair("A", "\u{9b}31mred")],
            options: vec![pair("image-resolve-mode", "local")],
            materials: vec![Material {
                uri: "pkg:docker/busybox".to_owned(),
                digests: vec!["sha256:ab".to_owned()],
            }],
            attachments: vec![Attached {
                digest: "sha256:cd".to_owned(),
                platform: "linux/amd64".to_owned(),
                r#type: "https://slsa.dev/provenance/v1".to_owned(),
            }],
            error: Some(Failed {
                code: 2,
                message: "exit code: 3".to_owned(),
                name: "[2/2] RUN make".to_owned(),
                logs: vec!["\u{1b}]0;title\u{7}make: ***".to_owned()],
                sources: "Dockerfile:2\n----\n   2 | >>> RUN \u{8}make\n----\n".to_owned(),
            }),
            ..Inspected::default()
        };
        insta::assert_snapshot!(text(&build), @r"
        Name:        shop
        Ref:         abc
        Dockerfile:  Dockerfile
        Platforms:   linux/amd64

        Status:    failed
        Started:   1970-01-01 00:00:00 UTC
        Duration:  2.5s
        Steps:     2 of 3, 1 cached
        Error:     exit code: 3

        image-resolve-mode:  local

        BUILD ARG  VALUE
        A          31mred

        MATERIAL            DIGEST
        pkg:docker/busybox  sha256:ab

        ATTACHMENT  PLATFORM     TYPE
        sha256:cd   linux/amd64  https://slsa.dev/provenance/v1

        Dockerfile:2
        ----
           2 | >>> RUN make
        ----

        last words of [2/2] RUN make:
        > make: ***

        what it said: lemnos buildkit history logs abc
        ");
    }
}
