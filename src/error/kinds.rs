//! Detection's and planning's errors as people see them: always the user's to mend.

use super::Report;
use crate::detect::DetectError;
use crate::kinds::spin::SpinError;
use crate::kinds::{self, By, KindError};
use crate::model::{KindName, TreeError};
use crate::plan::{PlanError, TagError};

fn later(kind: KindName) -> String {
    format!(
        "{kind} builds come in a later version; until then, add a Dockerfile at the root, which is asked first"
    )
}

fn instead(by: By, key: &str) -> String {
    match by {
        By::Settings => format!("change it with `lemnos apps set` ({key})"),
        By::Config { .. } => format!("correct {key} in build-config.yaml and push again"),
        By::Push => "leave it out of the push options".to_owned(),
    }
}

fn near(close: &[String]) -> String {
    if close.is_empty() { String::new() } else { format!("did you mean {}? ", close.join(" or ")) }
}

fn tree_hint(error: &TreeError) -> Option<String> {
    Some(match error {
        TreeError::Symlink { path } => format!("commit {path} as a regular file in place of the link"),
        TreeError::NotAFile { path } => format!("a regular file is expected at {path}"),
        TreeError::TooLarge { path, .. } => format!("make {path} smaller: it should hold no data"),
        TreeError::Outside { .. } => "paths are from the root of the repository".to_owned(),
        TreeError::Read { .. } => return None,
    })
}

fn kind_hint(error: &KindError) -> Option<String> {
    Some(match error {
        KindError::Tree(error) | KindError::Spin(SpinError::Tree(error)) => return tree_hint(error),
        KindError::Spin(error) => return error.hint().map(str::to_owned),
        KindError::Ko(error) => super::ko::ko_hint(error),
        KindError::Yaml { .. } => "correct build-config.yaml and push again".to_owned(),
        KindError::UnknownKey { close: Some(close), .. } => format!("did you mean {close}?"),
        KindError::UnknownKey { close: None, .. } => "take it out; docs/guides/pushing.md lists the keys".to_owned(),
        KindError::KeyLater { key, .. } => format!("take {key} out of build-config.yaml"),
        KindError::Value { by, key, problem } => format!("allowed: {}; {}", problem.allowed, instead(*by, key)),
        KindError::Path { by, key, .. } => {
            format!("use a path from the root of the repository, without '..'; {}", instead(*by, key))
        }
        KindError::ReservedArg { .. } => "take it out: these arguments are lemnos's to set".to_owned(),
        KindError::NoDockerfile { by, close, .. } => {
            format!("{}the path is from the root of the repository; {}", near(close), instead(*by, "dockerfile_path"))
        }
        KindError::NoContext { by, close, .. } => {
            format!("{}the path is from the root of the repository; {}", near(close), instead(*by, "context_path"))
        }
        KindError::EmptyDockerfile { .. } => "a Dockerfile begins with FROM".to_owned(),
        KindError::Frontend { allowed, .. } if allowed.is_empty() => "remove the syntax line".to_owned(),
        KindError::Frontend { allowed, .. } => {
            format!("remove the syntax line, or use one of the allowed images: {}", allowed.join(", "))
        }
        KindError::NoGenerator => "name one, by digest: `lemnos apps set APP attest=sbom:IMAGE@sha256:…`; or the operator sets sbom_generator in lemnos.toml".to_owned(),
        KindError::Generator { refusal, .. } => refusal.remedy().to_owned(),
        KindError::PasswordInProvenance { .. } => "keep it with `lemnos secrets add APP NAME`, or set attest=provenance:min; build arguments of a Dockerfile stand in the image's history, too".to_owned(),
        KindError::FrontendByTag { .. } => {
            "write IMAGE@sha256:…; `docker buildx imagetools inspect IMAGE` shows the digest".to_owned()
        }
        KindError::Base { refusal, .. } => refusal.remedy().to_owned(),
        KindError::Platform { close: Some(arch), .. } => format!("did you mean linux/{arch}?"),
        KindError::Platform { by, .. } => {
            format!("Dockerfiles build for Linux, for example linux/amd64; {}", instead(*by, "platforms"))
        }
        KindError::NotNarrower { planned, .. } => {
            let planned: Vec<String> = planned.iter().map(ToString::to_string).collect();
            format!("choose from {}", planned.join(", "))
        }
        KindError::OnlyWithTry => "add -o try, or change the app's settings".to_owned(),
        KindError::Submodules { .. } => "add their files to the repository itself (git subtree, vendoring), or leave them out: one line each with the exact path, at the end of .dockerignore".to_owned(),
        KindError::LfsPointers { .. } => "commit the files themselves (`git lfs migrate export`), or leave them out: one line each with the exact path, at the end of .dockerignore".to_owned(),
        KindError::TooManyEntries { .. } | KindError::TooDeep { .. } => "set context_path to the directory that is built, or name what is not needed in .dockerignore by exact path".to_owned(),
        KindError::NotYet { kind, .. } => later(*kind),
    })
}

impl From<KindError> for Report {
    fn from(error: KindError) -> Self {
        let report = Self::user(error.to_string());
        match kind_hint(&error) {
            Some(hint) => report.hint(hint),
            None => report,
        }
    }
}

impl From<DetectError> for Report {
    fn from(error: DetectError) -> Self {
        let message = error.to_string();
        match error {
            DetectError::Kind(error) => error.into(),
            DetectError::Nothing(_) => {
                let needs = kinds::all().iter().filter(|kind| kind.is_ready());
                let needs: Vec<&str> = needs.map(|kind| kind.needs()).collect();
                Self::user(message)
                    .hint(format!("add {}; docs/guides/pushing.md says more", needs.join(", or ")))
            }
            DetectError::Forced { kind: KindName::Dockerfile, .. } => {
                Self::user(message).hint("add one, or set dockerfile_path in build-config.yaml")
            }
            DetectError::Forced { kind, .. } => Self::user(message).hint(later(kind)),
        }
    }
}

impl From<PlanError> for Report {
    fn from(error: PlanError) -> Self {
        let message = error.to_string();
        let error = match error {
            PlanError::Kind(error) => return error.into(),
            PlanError::Branch { problem, .. } => {
                return Self::user(message).hint(format!("allowed: {}", problem.allowed));
            }
            PlanError::Tag(error) => error,
        };
        let hint = match &error {
            TagError::Template { problem, .. } => format!("allowed: {}", problem.allowed),
            TagError::TooMany { .. } => "remove some of tags or additional_tags".to_owned(),
            TagError::Reserved { .. } => {
                "`latest` (of another ref than the main branch), `git-…` and `try-…` are reserved: rename the branch or git tag, or change the tag templates (`lemnos apps set`, additional_tags)".to_owned()
            }
            TagError::OfMainBranch { .. } => {
                "rename the branch or git tag, or change the tag templates (`lemnos apps set`, additional_tags)".to_owned()
            }
        };
        Self::user(message).hint(hint)
    }
}
