//! lemnos: `git push`, and a multi-arch image stands in a registry.
//!
//! Doors (`ssh`, `http`, `cli`) -> `jobs` -> `pipeline` -> stages -> adapters -> `model`; imports point downward only.
//! The codemap is docs/ARCHITECTURE.md; `tests/it/tidy.rs` holds the table of who may import whom.

pub mod admin;
pub mod assemble;
pub mod audit;
pub mod backup;
pub mod buildkit;
pub mod cli;
pub mod config;
pub mod console;
pub mod detect;
pub mod doctor;
pub mod engine;
pub mod error;
pub mod event;
pub mod failpoint;
pub mod fetch;
#[cfg(test)]
mod fuzz;
pub mod housekeeping;
pub mod http;
pub mod jobs;
pub mod kinds;
pub mod metrics;
pub mod model;
pub mod notify;
pub mod owner;
pub mod pipeline;
pub mod plan;
pub mod receive;
pub mod registry;
pub mod solve;
pub mod ssh;
pub mod store;
pub mod tag;
pub mod turns;
