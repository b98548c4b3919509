//! The ko kind's errors as people see them: always the user's to mend.

use crate::kinds::ko::KoError;

pub(super) fn ko_hint(error: &KoError) -> String {
    match error {
        KoError::Config { file, .. } | KoError::Module { file, .. } => format!("correct {file} and push again"),
        KoError::NoConfig { .. } => "the path is from the root of the repository".to_owned(),
        KoError::Template { .. } => {
            "templates are Go's text/template over Env, GoEnv, Git, Date and Timestamp; a key that is not there is an error, as with ko".to_owned()
        }
        KoError::ToolExec { .. } => "take the flag out, as for ko".to_owned(),
        KoError::NoModule { .. } => "`go mod init` makes one".to_owned(),
        KoError::NoMain { .. } => "a program is `package main` with a `func main`, in a directory that is not vendor, testdata or hidden".to_owned(),
        KoError::SeveralMains { .. } => {
            "name one with ko_config.import_path in build-config.yaml (./cmd/app), or build every one with ko_config.all: true".to_owned()
        }
        KoError::NotMain { .. } => "name the directory of a program".to_owned(),
        KoError::TooManyDirs { .. } => "say which with a .ko.yaml".to_owned(),
        KoError::Image { refusal, .. } => refusal.remedy().to_owned(),
        KoError::Value { problem, .. } => format!("allowed: {}", problem.allowed),
        KoError::TooManyImages { .. } => "name one with ko_config.import_path in build-config.yaml, or split the repository".to_owned(),
        KoError::Name { .. } => "rename the program's directory, or build it alone with ko_config.import_path".to_owned(),
        KoError::Destination { own, image, .. } => format!(
            "use names below {own}, or ask the operator to add {image} to push_destinations (lemnos.toml); names among other apps' images are never allowed"
        ),
        KoError::NoYaml { dir: true, .. } => {
            "name the files themselves, or a directory that holds them: those below it are not looked into".to_owned()
        }
        KoError::NoYaml { .. } => "the path is from the root of the repository; correct it or take it out of ko_config.resolve".to_owned(),
        KoError::TooMuchYaml { .. } => "take files out of ko_config.resolve in build-config.yaml".to_owned(),
        KoError::NotBuilt { .. } => {
            "write one of these, or have the program built, too: ko_config.all: true in build-config.yaml builds every one".to_owned()
        }
        KoError::Resolve(error) => super::ko_resolve::resolve_hint(error),
        KoError::Platform { .. } => "for example linux/amd64, linux/arm64 or linux/arm/v7".to_owned(),
    }
}
