//! LLB: the graph of operations that a buildkitd solves, built in Rust.
//!
//! A [`State`] is a file system to be made, together with what a command run on it finds: environment, directory, user.
//! It never changes; each method gives a new one, and copies are cheap. [`State::marshal`] turns the graph under it into a
//! [`Definition`], whose bytes are those that BuildKit's own Go client makes of the same calls: so vertices have the same
//! digests, and the daemon's cache is shared with Go clients. `tests/oracle` holds that to the letter.
//!
//! A mistake in a description (a bad image reference, a command without words) is kept with the operation and reported by
//! `marshal`. Nothing here does I/O: what needs the network, such as an image's configuration, is handed in.
//! Source of every rule: moby/buildkit v0.32.2, client/llb.
//!
//! ```
//! use lemnos::buildkit::llb::{Constraints, Copy, FileActions, LlbError, Local, Run, State};
//!
//! let source = Local::new("context").state();
//! let built = State::image("golang:1.26")
//!     .dir("/src")
//!     .file(FileActions::new().copy(Copy::new(&source, "/", ".").contents_only()), Constraints::new())
//!     .run(Run::args(["go", "build", "-o", "/app", "."]))
//!     .root();
//! let app = FileActions::new().copy(Copy::new(&built, "/app", "/app"));
//! let definition = State::scratch().file(app, Constraints::new()).marshal(&Constraints::new())?;
//! assert_eq!(definition.ops.len(), 6, "two sources, a copy, a command, a copy, and the end");
//! # Ok::<(), LlbError>(())
//! ```

mod caps;
mod combine;
mod constraints;
mod definition;
mod dump;
mod encode;
mod error;
mod exec;
mod file;
mod git;
mod graph;
mod http;
mod image_config;
mod import;
mod local;
mod marshal;
mod path;
mod platform;
mod quote;
mod reference;
mod run;
mod source;
mod source_map;
mod state;
mod url;
mod words;

pub use lemnos_proto::pb::{
    CacheSharingOpt as CacheSharing, LinuxResources, MountContentCache as ContentCache, NetMode, SecurityMode,
};

pub use caps::{Caps, cap};
pub use combine::{Build, diff, merge, passthrough};
pub use constraints::Constraints;
pub use definition::Definition;
pub use error::LlbError;
pub use exec::Exec;
pub use file::{BoundActions, Copy, CopyFrom, FileActions, MakeDir, MakeFile, Mode, Owner, Remove, Symlink};
pub use git::Git;
pub use http::Http;
pub use image_config::ImageConfig;
pub use local::{DifferKind, Local, OciLayout};
pub use platform::Platform;
pub use run::{Device, Mount, Proxy, Run, Secret, Ssh};
pub use source::{Blob, Image, ResolveMode};
pub use source_map::{SourceMap, range};
pub use state::{Change, State};
