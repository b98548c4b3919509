//! Solve: a plan's `SolveSpec` becomes one BuildKit solve per chosen builder, and each gives a digest.
//!
//! Translates between lemnos' values and `buildkit`'s; knows no tag and no ref.

mod assign;
mod auth;
pub mod context;
pub mod dockerfile;
mod failure;
pub mod git_dir;
pub mod ko;
mod pool;
mod progress;
mod secrets;
pub mod spin;
mod statements;

pub use crate::buildkit::session::filesync::{DirSource, Entry as DirEntry, mode};
pub use assign::{Capacity, Group, Unserved, assign};
pub use auth::RegistryAuth;
pub use failure::{FailedSolve, shorten};
pub use pool::{BuilderConfig, CHECK_EVERY, ContextDirs, FileGraph, FileSolve, ImageSolve, Part, Pool};
pub use secrets::BuildSecrets;
pub use statements::Statements;
