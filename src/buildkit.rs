//! A BuildKit client: connect to a buildkitd, serve it a session, solve, follow the progress and show it; ask for its
//! workers, its disk and its history.
//!
//! Invariants: one connection carries one build; everything started for a build ends with it; nothing waits without a
//! bound; a credential goes to the host it belongs to and to no other. This module imports `lemnos-proto` and external
//! crates only, and knows nothing of apps, plans or pushes: it could be lifted out as a library.

mod connect;
mod csv;
mod disk;
mod error;
pub mod flags;
pub mod gateway;
mod graph;
mod history;
mod image_name;
pub mod join;
mod liveness;
pub mod llb;
mod progress;
mod query;
pub mod session;
pub mod solve;
mod wire;

pub use connect::{Address, ByteStream, Client, DockerHost, Endpoint, Programs, Tls};
pub use disk::{Rule, Sum, Usage};
pub use error::{Error, FailedVertex, SolveError, SolveErrorKind};
pub use history::{
    BuildResult, Descriptor, ExportError, ExporterRecord, Failure, HistoryEvent, HistoryQuery, Record, State,
};
pub use progress::{
    Display, Mode, Moment, NoTerminal, Position, ProgressGroup, Range, Size, SolveEvent, Source, UnknownMode,
    Vertex, VertexLog, VertexStatus, Warning, size_text,
};
pub use query::{Device, Info, Queries, Worker};
pub use session::{
    AuthProvider, Credential, DockerConfig, Grant, Scope, Session, SessionBuilder, SessionError,
};
pub use solve::{CacheEntry, Exporter, SolveRequest, SolveResult, SourceRule};
