//! Consumers of the one `BuildEvent` stream. A consumer renders or forwards; it never decides and never blocks a build.

pub mod text;
