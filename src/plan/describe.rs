//! A plan and a detection as people read them: plain lines, for the terminal, a push with `-o plan`, and the log.

use std::fmt::Write as _;

use crate::kinds::{self, Kind};
use crate::model::{BuildPlan, Detected, ImagePlan, KoImage, SolveSpec, SpinPlan, Work};

/// What was found, and why the others were not.
pub fn detected(detected: &Detected) -> String {
    let mut text = format!("{}: {}\n", detected.kind, detected.evidence);
    for (kind, why) in &detected.others {
        let _ = writeln!(text, "  not {kind}: {why}");
    }
    if !kinds::named(detected.kind).is_some_and(Kind::is_ready) {
        let _ = writeln!(
            text,
            "note: {} builds are recognised; making them comes in a later version",
            detected.kind
        );
    }
    text
}

/// The whole plan.
pub fn plan(plan: &BuildPlan) -> String {
    let mut text = String::new();
    line(&mut text, "app", plan.app.as_str());
    if let Some(reference) = &plan.reference {
        line(&mut text, "ref", reference.as_str());
    }
    if !plan.commit.is_zero() {
        line(&mut text, "commit", plan.commit.as_str());
    }
    line(&mut text, "kind", &format!("{}: {}", plan.detected.kind, plan.detected.evidence));
    for (kind, why) in &plan.detected.others {
        line(&mut text, "", &format!("not {kind}: {why}"));
    }
    for image in &plan.images {
        describe_image(&mut text, image);
    }
    if let Some(manifests) = &plan.manifests {
        line(&mut text, "resolve", &list(&manifests.files));
        for (reference, image) in &manifests.references {
            line(&mut text, "", &format!("{reference} is {image}"));
        }
    }
    for note in &plan.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

/// One line; what would steer a terminal is replaced.
fn line(text: &mut String, key: &str, value: &str) {
    let value: String = value.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let _ = writeln!(text, "{}", format!("{key:<12} {value}").trim_end());
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn describe_image(text: &mut String, image: &ImagePlan) {
    line(text, "image", image.name.as_str());
    line(text, "tags", &if image.tags.is_empty() { "none".to_owned() } else { list(&image.tags) });
    match &image.work {
        Work::Dockerfile(solves) => solves.iter().for_each(|solve| describe_solve(text, solve)),
        Work::Ko(ko) => describe_ko(text, ko),
        Work::Spin(spin) => describe_spin(text, spin),
    }
    for (key, value) in &image.annotations {
        line(text, "annotation", &format!("{key}={value}"));
    }
}

fn describe_ko(text: &mut String, image: &KoImage) {
    let compile = &image.compile;
    let dir = if compile.dir.is_empty() { "." } else { &compile.dir };
    line(text, "build", &format!("{}, go in {dir}", compile.import_path));
    let platforms: Vec<_> = compile.targets.iter().map(|target| &target.platform).collect();
    line(text, "platforms", &list(&platforms));
    line(text, "toolchain", &compile.toolchain);
    line(text, "base", &image.base);
    // what differs from one platform to another is said by its variables
    for target in compile.targets.iter().take(1) {
        line(text, "go", &target.args.join(" "));
    }
    if let Some(kodata) = &image.kodata {
        line(text, "kodata", &kodata.path);
    }
    for (name, on) in [("no-cache", compile.no_cache), ("rebuild", compile.pull)] {
        if on {
            line(text, "option", name);
        }
    }
}

fn describe_spin(text: &mut String, plan: &SpinPlan) {
    let root = if plan.root.is_empty() { "." } else { &plan.root };
    line(text, "application", root);
    for step in &plan.steps {
        line(text, "build", &format!("{}, in {}", step.component, step.image));
    }
}

fn describe_solve(text: &mut String, solve: &SolveSpec) {
    let target = solve.target.as_ref().map_or(String::new(), |target| format!(", target {target}"));
    let context = if solve.context_path.is_empty() { "." } else { &solve.context_path };
    line(text, "build", &format!("{}, context {context}{target}", solve.dockerfile_path));
    line(text, "platforms", &list(&solve.platforms));
    line(text, "frontend", solve.frontend_image.as_deref().unwrap_or(&solve.frontend));
    for (name, value) in &solve.build_args {
        line(text, "build arg", &format!("{name}={value}"));
    }
    for (name, value) in &solve.labels {
        line(text, "label", &format!("{name}={value}"));
    }
    line(text, "compression", solve.compression.as_str());
    for (name, on) in [("no-cache", solve.no_cache), ("rebuild", solve.pull)] {
        if on {
            line(text, "option", name);
        }
    }
}
