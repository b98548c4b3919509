//! (see docs/ARCHITECTURE.md)

pub mod request;
pub mod tree;
