//! Builds as records: every build of a push has a row and its whole log, and its events reach those who watch.
//!
//! A job outlives the connection that asked for it. `jobs` decides nothing about a build: `pipeline` does.

mod pushes;
pub mod queue;
pub mod record;

pub use pushes::{Capacity, Pushes};
