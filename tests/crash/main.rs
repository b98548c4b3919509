//! Crashes and faults around a whole lemnos: the real server as a child process, the real git and OpenSSH, the real SQLite;
//! buildkitd and registry are fakes, so that hundreds of runs take minutes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::disallowed_methods
)]

mod caches;
mod disks;
#[path = "../fake/fakes.rs"]
mod fake;
mod faults;
mod house;
mod schedule;
mod seeds;
mod spine;
mod stopping;
