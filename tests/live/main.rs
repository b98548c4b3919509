//! Tests against the real parts: buildkitd, runc, a registry, git, OpenSSH, qemu. `tests/run` provides them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    clippy::disallowed_methods
)]

mod attacks;
mod attested;
mod audit;
mod backup;
mod base_images;
mod build_command;
mod builder;
mod buildkit;
mod buildkit_chooser;
mod buildkit_commands;
mod buildkit_flags;
mod buildkit_gateway;
mod buildkit_solve;
mod cache;
mod clients;
mod clock;
mod crash;
mod credentials;
mod docs;
mod engines;
mod filesync;
mod git_stamp;
mod health;
mod house;
mod ko_archive;
mod ko_assembly;
mod ko_command;
mod ko_debug;
mod ko_destinations;
mod ko_private;
#[path = "../fake/ko_program.rs"]
mod ko_program;
mod ko_push;
mod ko_resolve;
mod llb;
mod logs;
mod metrics;
#[path = "../fake/pki.rs"]
mod pki;
mod pool;
#[path = "../fake/port.rs"]
mod port;
mod privileges;
mod push;
mod quickstart;
mod registry;
mod secrets;
mod services;
mod sessions;
mod spin;
mod spin_archive;
mod spin_push;
mod standing;
mod stopping;
mod support;
mod tls;
mod waiting;
