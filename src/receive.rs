//! Receiving: a real `git` child for each request, its hooks answered over a private socket, nothing trusted of what
//! comes in.
//!
//! A push goes through three gates: git's own fsck, our check of the quarantined objects (`pre-receive`), and the
//! `PushHandler` (`proc-receive`), which alone decides over refs. What the first two refuse leaves no object behind.
//! Must not move a ref that clients see, know what is built, or run a shell.

pub mod error;
pub mod frame;
pub mod leases;
pub mod limits;
pub mod output;
pub mod pktline;
pub mod refs;
pub mod relay;
pub mod repo;
pub mod request;
pub mod service;
pub mod tree;

pub use error::{ReceiveError, Refusal};
pub use leases::{Leases, PushLease, SweepLease};
pub use limits::Limits;
pub use output::PushOutput;
pub use repo::{Repositories, lay_out};
pub use request::{GitIo, GitRequest, GitService};
pub use service::{PushHandler, ReceiveConfig, Receiver, RefAnswer};
pub use tree::{CommitInfo, CommitTree, DirTree, OpenTreeError};

mod child;
mod client;
mod command;
mod durable;
mod hooks;
mod measure;
mod proc_receive;
mod quarantine;
