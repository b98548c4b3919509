//! Tests that need no engine: in-process, with fakes where a real peer cannot be made to misbehave.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::disallowed_methods
)]

mod access;
mod admin;
mod backup;
mod build_table;
mod buildkit;
mod engine;
#[path = "../fake/fakes.rs"]
mod fake;
mod filesync;
#[path = "../crash/house.rs"]
mod house;
mod import;
mod ko;
mod ko_assembly;
#[path = "../fake/ko_program.rs"]
mod ko_program;
mod llb;
mod plan;
mod plan_command;
mod pool;
mod receive;
mod registry;
mod registry_blobs;
mod spin;
mod ssh;
mod standing;
mod tidy;
mod verbs;
