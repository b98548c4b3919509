//! (see docs/ARCHITECTURE.md)

pub mod request;
