//! ko assembly's errors as people see them: what is in the tree and in its configuration is the user's to mend.

use super::{Kind, Report};
use crate::assemble::ko::KoError;

impl From<KoError> for Report {
    fn from(error: KoError) -> Self {
        let said = error.to_string();
        match error {
            KoError::Read { .. } | KoError::Write(_) | KoError::Length { .. } => {
                Self::internal(said).hint("nothing was published; look at the free disk space of this server, then push again")
            }
            KoError::NotOfBase { .. } | KoError::NoDebugger { .. } => {
                Self::internal(said).hint("nothing was published; push again with -o rebuild")
            }
            KoError::BuildInfo { .. } => Self::new(Kind::Build, said)
                .hint("build with Go 1.18 or later, and without flags that strip build information; or build without an SBOM"),
            KoError::Name { .. } => Self::user(said).hint("rename it: names are UTF-8 text without NUL"),
            KoError::KodataRoot { .. } => Self::user(said).hint("commit kodata as a directory beside the main package"),
            KoError::KodataLink { .. } => Self::user(said)
                .hint("commit the file itself, or a relative link to something that is in the repository"),
            KoError::KodataLimit { .. } => {
                Self::user(said).hint("kodata is for files that a program is shipped with: keep data elsewhere")
            }
            KoError::Capability { .. } => {
                Self::user(said).hint("write them as setcap does, for example cap_net_bind_service=+ep")
            }
            KoError::Base { .. } => Self::user(said).hint("take another base image (defaultBaseImage in .ko.yaml)"),
            KoError::PlatformMissing { .. } => {
                Self::user(said).hint("take these platforms off the list, or take a base image that has them")
            }
            KoError::Windows { .. } => Self::user(said).hint("build for Linux, or use a Dockerfile"),
            KoError::Option { .. } => Self::user(said).hint("correct it and push again"),
            KoError::Repository { .. } => {
                Self::user(said).hint("give the image a name of its own: the import path makes none that a registry takes")
            }
            KoError::TagOnly => Self::user(said).hint("name one tag"),
        }
    }
}
