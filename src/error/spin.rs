//! What went wrong with making a spin artifact as people see it.

use super::{Kind, Report};
use crate::assemble::spin::{GatherError, PublishError, SpinAssembleError};
use crate::kinds::KindError;

impl From<SpinAssembleError> for Report {
    fn from(error: SpinAssembleError) -> Self {
        let said = error.to_string();
        match error {
            SpinAssembleError::NotWasm { .. } => Self::new(Kind::Build, said)
                .hint("source names the .wasm file that the component's build makes"),
            SpinAssembleError::TooManyLayers { .. } => Self::user(said).hint("split the application"),
            SpinAssembleError::FileTooLarge { .. } => {
                Self::user(said).hint("leave it out with exclude_files, and serve it from elsewhere")
            }
            SpinAssembleError::NoContent { .. }
            | SpinAssembleError::NoBytes { .. }
            | SpinAssembleError::NoArchive { .. }
            | SpinAssembleError::Json(_) => Self::internal(said).hint("nothing was published"),
        }
    }
}

impl From<GatherError> for Report {
    fn from(error: GatherError) -> Self {
        let said = error.to_string();
        match error {
            GatherError::Files(error) => KindError::from(error).into(),
            GatherError::Assemble(error) => error.into(),
            GatherError::Missing { component, .. } => Self::new(Kind::Build, said).hint(format!(
                "source of the component {component} is to be the path that its build writes, from the directory of spin.toml"
            )),
            GatherError::Link { .. } | GatherError::NotAFile { .. } => {
                Self::new(Kind::Build, said).hint("have the build copy the file itself there")
            }
            GatherError::TooLarge => {
                Self::user(said).hint("leave files out with exclude_files, and serve them from elsewhere")
            }
            GatherError::NotFetched { .. } | GatherError::Read { .. } | GatherError::Write(_) => {
                Self::internal(said).hint("nothing was published; look at this machine's disk")
            }
        }
    }
}

impl From<PublishError> for Report {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Registry(error) => error.into(),
            other => Self::internal(other.to_string()).hint("nothing was published"),
        }
    }
}
