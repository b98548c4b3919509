//! Peers that misbehave on demand, shared by the test binaries: each says `#[path = "../fake/fakes.rs"] mod fake;`.
#![allow(dead_code, reason = "each of its users takes what it needs")]

pub mod builder;
pub mod buildkitd;
pub mod pki;
pub mod port;
pub mod process;
pub mod registry;
