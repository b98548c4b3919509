//! A BuildKit client: connect to a buildkitd, serve it a session, solve, and follow the progress.
//!
//! Invariants: one connection carries one build; everything started for a build ends with it; nothing waits without a
//! bound; a credential goes to the host it belongs to and to no other. This module imports `lemnos-proto` and external
//! crates only, and knows nothing of apps, plans or pushes: it could be lifted out as a library.

mod connect;
mod error;
mod liveness;
pub mod llb;
mod progress;
pub mod session;
mod solve;
mod wire;

pub use connect::{Address, Client, Endpoint, Info, Tls, Worker};
pub use error::{Error, FailedVertex, SolveError, SolveErrorKind};
pub use progress::{
    Display, Mode, Moment, Position, ProgressGroup, Range, Size, SolveEvent, Source, UnknownMode, Vertex,
    VertexLog, VertexStatus, Warning,
};
pub use session::{AuthProvider, Credential, Grant, Scope, Session};
pub use solve::{CacheEntry, Exporter, SolveRequest, SolveResult, SourceRule};
